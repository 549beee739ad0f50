#!/usr/bin/env bash
# Checks the dependencies against the RustSec advisories: cargo-deny as deny.toml says, and cargo-audit for the whole of Cargo.lock, also what is
# built for no system of ours. Their database comes from a git host; where that cannot be reached both are skipped, and say so: nothing here
# could mend it, and a test run must not depend on it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
if fetched=$(timeout 120 cargo deny --log-level error fetch db 2>&1); then
  cargo deny --offline --log-level error check advisories
  # It takes minutes to compile, so that it is installed only where it has something to look at.
  "$here/setup.sh" audit
  exec cargo audit --deny yanked --deny unsound
fi
cat >&2 <<SKIPPED
**********************************************************************
** SKIPPED: security advisories, by cargo-deny and by cargo-audit. Their database could not be fetched:
$fetched
** Known vulnerabilities in the dependencies would NOT be noticed.
**********************************************************************
SKIPPED
