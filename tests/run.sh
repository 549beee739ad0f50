#!/usr/bin/env bash
# Installs what the tests need, then runs every check and every test; nextest's summary comes last. Exits with its status.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
cache=${MYCLI_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mycli-tests}
engine=tests/images/engine.sh

export MYCLI_TESTS_CACHE=$cache # Where just, too, then looks.
tests/setup.sh
# An engine that runs already belongs to somebody else's test run in this clone.
$engine running || trap '$engine stop' EXIT
PATH=$cache/tools/bin:$PATH just check
