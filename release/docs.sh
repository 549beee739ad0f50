#!/usr/bin/env bash
# Makes the manual pages and completion scripts of a release.
#
#   docs.sh PROGRAM FOLDER     FOLDER gets man1/ and completions/
set -euo pipefail

program=$1 folder=$2
mkdir -p "$folder/man1" "$folder/completions"
"$program" man "$folder/man1" 2>/dev/null
"$program" completions bash >"$folder/completions/mycli.bash"
"$program" completions zsh >"$folder/completions/_mycli"
"$program" completions fish >"$folder/completions/mycli.fish"
