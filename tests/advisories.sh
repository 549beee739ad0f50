#!/usr/bin/env bash
# Checks the dependencies against the RustSec advisories. Their database comes from a git host; where that cannot be
# reached the check is skipped, and says so: nothing here could mend it, and a test run must not depend on it.
set -euo pipefail

if fetched=$(timeout 120 cargo deny --log-level error fetch db 2>&1); then
  exec cargo deny --offline --log-level error check advisories
fi
cat >&2 <<SKIPPED
**********************************************************************
** SKIPPED: security advisories. Their database could not be fetched:
$fetched
** Known vulnerabilities in the dependencies would NOT be noticed.
**********************************************************************
SKIPPED
