# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# The kind of clone is documented and can be chosen.

fresh
repository "$dir/r.git"
git_here clone -q "$dir/r.git" "$dir/over" 2>/dev/null
git_here -C "$dir/over" submodule --quiet add "$dir/r.git" sub
git_here -C "$dir/over" commit -q -m sub
git_here clone -q --bare "$dir/over" "$dir/over.git"

run exec --local --repo "$dir/r.git" --depth full 'git describe --tags'
wants_code 0
grep -qE '^v1-1-g' "$said/out" || fault "describes itself as '$(short "$said/out")'"
tell a "--depth full" "git describe --tags works"

run exec --local --repo "$dir/r.git" --depth 2 'git rev-list --count HEAD'
wants_code 0
wants_output $'2\n'
tell b "--depth 2" "two commits"

run exec --local --repo "$dir/over.git" --submodules 'cat sub/file'
wants_code 0
wants_output $'two\n'
tell c "--submodules" "they are there"

run exec --local --repo "$dir/r.git" --lfs --dry-run true
wants_code 0
tell d "--lfs" "is known"

for word in shallow submodule LFS; do
  grep -rqi -- "$word" "$top/README.md" "$top/docs" || fault "not a word of $word"
done
tell e "the manual" "has shallow, submodule, LFS"
