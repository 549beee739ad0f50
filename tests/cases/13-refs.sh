# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# Names of refs as other tools write them (checkout#969): they work, or the words say which name would.

fresh
repository "$dir/r.git"
old=$(git_here -C "$dir/r.git" rev-parse refs/heads/x)

# check REF COMMIT PATTERN: checked out, or what is said has PATTERN.
check() {
  fresh
  run exec --local --repo "$dir/r.git" --branch "$1" 'git rev-parse HEAD'
  if [ "$code" -eq 0 ]; then
    wants_output "$2"$'\n'
  elif [ -n "$3" ]; then
    wants_words "$3"
  else
    wants_code 0
  fi
  tell '' "$1" "code $code $(short "$said/err" 120)"
}

check HEAD "$commit" ''
check heads/x "$old" '`x`|refs/heads/x'
check tags/v1 "$old" '`v1`|refs/tags/v1'
check origin/x "$old" '`x`|refs/heads/x'
check pull/7/head "$old" 'refs/pull/7/head'
check refs/heads/x "$old" ''
check refs/pull/7/head "$old" ''
check main^ "$old" 'git accepts|no branch'
