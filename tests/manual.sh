#!/usr/bin/env bash
# Runs the commands that README.md and docs/ show, and fails if one exits, or prints, otherwise than its document says.
# tests/README.md ("The manual") says what the words after a fence's language mean.
#
#   manual.sh [DOCUMENT…]   all of them, or only these
#   MYCLI=PATH              which mycli; by default target/debug/mycli
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
built=${MYCLI:-${CARGO_TARGET_DIR:-$top/target}/debug/mycli}
if [ ! -x "$built" ]; then
  echo "manual.sh: there is no $built: build it, or name another in MYCLI" >&2
  exit 2
fi
built=$(realpath "$built")
for tool in git python3 make jq; do
  command -v "$tool" >/dev/null || { echo "manual.sh: $tool is missing: tests/setup.sh installs what the tests need" >&2 && exit 2; }
done
cd "$top"
[ $# -gt 0 ] || mapfile -d '' -t documents < <(git ls-files -z --cached --others --exclude-standard README.md 'docs/*.md')

# Images are run only by the tests' own engine, if it runs or was set up here: whatever else the machine has stays as it is.
engine=''
if tests/images/engine.sh running || [ -d target/tests/engine/storage ]; then
  engine=$(tests/images/engine.sh start) || engine=''
fi
# A network with nothing but loopback in it, where that is allowed.
alone=()
for way in "unshare --net" "unshare --net --map-root-user"; do
  read -ra words <<<"$way"
  # shellcheck disable=SC2015 # The next way is tried if either fails.
  "${words[@]}" true 2>/dev/null && alone=("${words[@]}") && break || true
done
[ ${#alone[@]} -gt 0 ] || echo "manual.sh: no network of its own is allowed here: the machine's is used" >&2

exec "${alone[@]}" python3 tests/manual/manual.py "$built" "$engine" "${@:-${documents[@]}}"
