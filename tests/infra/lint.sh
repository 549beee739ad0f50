#!/usr/bin/env bash
# Lints a CloudFormation template with what tests/setup.sh installed: tests/infra/lint.sh FILE. Prints what is wrong; exit 0 if nothing
# is. What a check is not right about is skipped in the template, beside the resource, with the reason.
set -euo pipefail

cache=${MYCLI_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mycli-tests}
PATH=$cache/tools/bin:$PATH
status=0
for tool in cfn-lint checkov; do
  command -v "$tool" >/dev/null || {
    echo "lint.sh: $tool is missing: run tests/setup.sh" >&2
    exit 1
  }
done
cfn-lint --non-zero-exit-code informational -- "$1" || status=1
# Only the rules it brings: it would ask its maker's server for more.
checkov --file "$1" --framework cloudformation --skip-download --quiet --compact || status=1
exit "$status"
