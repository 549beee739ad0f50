#!/usr/bin/env bash
# Proves an issue: runs all that its "What must be seen" lists, and prints `PASS|FAIL name figure aim` for each.
# Exits with 1 if one failed. What was run and said is in target/seen/NAME/.
#
#   seen.sh NAME       what there is: tests/seen/*.sh
# shellcheck disable=SC2317 # The proofs call these functions.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
name=${1:-}
proof=tests/seen/$name.sh
if [ -z "$name" ] || [ ! -f "$proof" ]; then
  echo "seen.sh: there is no proof '$name'; there are:" tests/seen/*.sh >&2
  exit 2
fi
said=${CARGO_TARGET_DIR:-target}/seen/$name
mkdir -p "$said"
failed=0

# tell PASS|FAIL NAME FIGURE AIM
tell() {
  printf '%s  %-28s  %-34s  %s\n' "$1" "$2" "$3" "$4"
  [ "$1" = PASS ] || failed=1
}

# tests NAME AIM FILTER [OPTION…]: those tests pass, and there is at least one. The figure is how many passed.
tests() {
  local log=$said/$1.log summary verdict=FAIL
  cargo nextest run --workspace --locked --no-tests=fail "${@:4}" -E "$3" >"$log" 2>&1 && verdict=PASS
  summary=$(grep -oE '[0-9]+ tests? run: .*passed[^,]*(, [0-9]+ failed)?' "$log" | tail -n 1 || true)
  tell "$verdict" "$1" "${summary:-did not run, see $log}" "$2"
}

# long NAME AIM FILTER: the same, of the tests that are too long for every day.
long() {
  NEXTEST_PROFILE=nightly tests "$1" "$2" "$3" --run-ignored=only
}

# command_says NAME AIM FIGURE COMMAND…: it exits with 0. The figure is the last line of its output with FIGURE (a regular expression).
command_says() {
  local log=$said/$1.log figure verdict=FAIL
  "${@:4}" >"$log" 2>&1 && verdict=PASS
  figure=$(grep -oE "$3" "$log" | tail -n 1 || true)
  [ -n "$figure" ] || verdict=FAIL
  tell "$verdict" "$1" "${figure:-no figure, see $log}" "$2"
}

# shellcheck source=/dev/null
. "$proof"
exit "$failed"
