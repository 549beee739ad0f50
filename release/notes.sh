#!/usr/bin/env bash
# Prints the changelog's section of a version.
#
#   notes.sh VERSION
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
awk -v version="$1" '/^## / { on = index($0, "[" version "]") } on && !/^## / && !/^\[/' "$top/CHANGELOG.md"
