#!/bin/sh
# Prints a matrix as JSONL, one request a line, for `mycli bulk -`. Needs jq.
#
#   ./matrix.sh | mycli bulk - --group "matrix-$(date +%s)" --max-parallel 4 --timeout 20m --wait
set -eu

jq --null-input --compact-output '
  ("20", "22", "24") as $node | ("arm64", "x86_64") as $arch |
  {
    name: "node\($node)-\($arch)",
    image: "node:\($node)",
    arch: $arch,
    command: "npm ci && npm test"
  }
  + if $node == "24" then {env: {STRICT: true}} else {} end'
