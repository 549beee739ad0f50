#!/usr/bin/env bash
# Installs what the tests need, then runs every check and every test; nextest's summary comes last. Exits with its status.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
cache=${MYCLI_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mycli-tests}
engine=tests/images/engine.sh
docker=tests/images/docker.sh
emulator=tests/emulator.sh
registry=tests/images/registry.sh

export MYCLI_TESTS_CACHE=$cache # Where just, too, then looks.
# The setup waits for downloads most of the time, so the build goes on beside it. If the build fails, `just check` fails again and says why.
cargo build --workspace --all-targets --locked >/dev/null 2>&1 &
builder=$!
trap 'kill "$builder" 2>/dev/null || true' EXIT
tests/setup.sh
wait "$builder" || true
# An engine or emulator that runs already belongs to somebody else's test run in this clone.
ours=()
$engine running || ours+=("$engine")
$docker running || ours+=("$docker")
$emulator running || ours+=("$emulator")
$registry running || ours+=("$registry")
end_ours() {
  for server in "${ours[@]}"; do "$server" stop; done
}
trap end_ours EXIT
PATH=$cache/tools/bin:$PATH just check
