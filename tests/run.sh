#!/usr/bin/env bash
# Installs what the tests need, then runs every check and every test; nextest's summary comes last. Exits with its status.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
cache=${MYCLI_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mycli-tests}
engine=tests/images/engine.sh
emulator=tests/emulator.sh

export MYCLI_TESTS_CACHE=$cache # Where just, too, then looks.
tests/setup.sh
# An engine or emulator that runs already belongs to somebody else's test run in this clone.
ours=()
$engine running || ours+=("$engine")
$emulator running || ours+=("$emulator")
end_ours() {
  for server in "${ours[@]}"; do "$server" stop; done
}
trap end_ours EXIT
PATH=$cache/tools/bin:$PATH just check
