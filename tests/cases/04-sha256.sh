# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# Repositories with SHA-256 ids (checkout#1843).

fresh
repository "$dir/r.git" sha256
old=$(git_here -C "$dir/r.git" rev-parse refs/heads/x)
for ref in main "$commit" "${commit:0:10}" "${old:0:10}" refs/pull/7/head; do
  fresh
  wanted_commit=$commit
  case $ref in "${old:0:10}" | refs/pull/7/head) wanted_commit=$old ;; esac
  run exec --local --repo "$dir/r.git" --branch "$ref" 'git rev-parse HEAD'
  wants_code 0
  wants_output "$wanted_commit"$'\n'
  wants_record commit "$wanted_commit"
  tell '' "$(cut -c 1-20 <<<"$ref")" "found"
done
