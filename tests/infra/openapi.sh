#!/usr/bin/env bash
# Holds an API to its document with what tests/setup.sh installed: tests/infra/openapi.sh DOCUMENT URL CASES. The key is taken from KEY.
# Asks what the document allows and what it forbids, at most CASES times at random for each operation beside the systematic ones. Prints what is
# wrong; exit 0 if nothing is: no 5xx, no answer that is not as documented, nothing accepted that is forbidden, nothing answered without a key.
set -euo pipefail

cache=${MYCLI_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mycli-tests}
PATH=$cache/tools/bin:$PATH
command -v schemathesis >/dev/null || {
  echo "openapi.sh: schemathesis is missing: run tests/setup.sh" >&2
  exit 1
}
[ -n "${KEY:-}" ] || {
  echo "openapi.sh: give the API's key in KEY" >&2
  exit 2
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
document=$(realpath "$1")
cd "$scratch" # Where it would keep what it learned.
# The key is read from the environment: arguments can be seen by others.
# shellcheck disable=SC2016 # schemathesis expands it
printf 'headers = { Authorization = "Bearer ${KEY}" }\n' >schemathesis.toml
# That a refusal of what the schema allows is a documented one is what the check of the status says.
schemathesis --config-file schemathesis.toml run "$document" --url "$2" --max-examples "$3" --phases examples,coverage,fuzzing \
  --exclude-checks "${EXCLUDED:+$EXCLUDED,}positive_data_acceptance" --generation-database none --continue-on-failure --warnings off
