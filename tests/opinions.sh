#!/usr/bin/env bash
# Second opinions: the contracts of the store and of the queue over a DynamoDB and an SQS that others wrote (`tests/setup.sh nightly`
# installs them).
#
#   opinions.sh [NAME…]   dynalite (DynamoDB), moto (DynamoDB and SQS); all without a name
#
# tests/opinions/NAME lists the tests that cannot pass there, each group under its reason. A test that fails and is not listed is told, and so
# is a listed one that passes or is no more, so that the list stays true; either ends this with 1. A line that begins with `? ` is a test that
# passes at some times only. What was said is in target/opinions/.
set -euo pipefail

DYNALITE=4.0.0
MOTO=5.2.5
# A bound on a hang: dynalite takes half a second to serve, moto two.
PATIENCE=30
# Those of the contract suites that make a table of DynamoDB, or queues of SQS.
DYNAMODB='test(/^contract::(dynamo|dynamo_cost|dynamo_drift|forget::stack|secrets::in_dynamodb)::/)'
SQS='test(/^contract::sqs::/)'

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
tools=${MYCLI_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mycli-tests}/tools
said=${CARGO_TARGET_DIR:-target}/opinions
server=
failed=0

die() {
  echo "opinions.sh: $*" >&2
  exit 1
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# serve NAME PORT: becomes the server, on loopback, with nothing on disk.
serve() {
  case "$1" in
  dynalite)
    exec node "$tools/dynalite-$DYNALITE/node_modules/dynalite/cli.js" --host 127.0.0.1 --port "$2" \
      --createTableMs 0 --deleteTableMs 0 --updateTableMs 0
    ;;
  moto)
    exec env PYTHONPATH="$tools/moto-$MOTO" PYTHONDONTWRITEBYTECODE=1 python3 -m moto.server --host 127.0.0.1 --port "$2"
    ;;
  esac
}

answers() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

stop() {
  [ -n "$server" ] || return 0
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
}
trap stop EXIT
trap 'exit 143' TERM INT HUP

# listed NAME: the tests that cannot pass there.
listed() {
  sed -E '/^([#?]|$)/d' "tests/opinions/$1" | sort
}

# at_times NAME: those that pass there at some times only.
at_times() {
  sed -nE 's/^[?] //p' "tests/opinions/$1" | sort
}

# tell WHAT FILE: names each of these tests, if there is one, and then this has failed.
tell() {
  [ -s "$2" ] || return 0
  failed=1
  sed "s|^|opinions.sh: $1: |" "$2" >&2
}

# ask NAME FILTER VARIABLE…: runs the tests that the filter names, with these variables set to the server's address.
ask() {
  local name=$1 filter=$2 port log=$said/$1 variables=() deadline=$((SECONDS + PATIENCE))
  [ -d "$tools/$name-$(version "$name")" ] || die "$name is missing: run tests/setup.sh nightly"
  port=$(free_port)
  serve "$name" "$port" </dev/null >"$log.server.log" 2>&1 &
  server=$!
  until answers "$port"; do
    kill -0 "$server" 2>/dev/null || die "$name ended: $(tail -n 5 "$log.server.log")"
    [ "$SECONDS" -lt "$deadline" ] || die "$name did not serve within $PATIENCE s: $(tail -n 5 "$log.server.log")"
    sleep 0.1
  done
  for variable in "${@:3}"; do variables+=("$variable=http://127.0.0.1:$port"); done
  # It fails with each test that does; the lists tell which may.
  env "${variables[@]}" cargo nextest run --workspace --locked --no-tests=fail --no-fail-fast --color never \
    --status-level pass --final-status-level none --failure-output immediate -E "$filter" >"$log.log" 2>&1 || true
  stop
  # A line for each test: how it ended, in how long, as which of how many, of which binary, its name.
  grep -E '^ +[A-Z]+[A-Z -]* \[ *[0-9.]+s\]' "$log.log" | awk '{ print $1, $NF }' | sort -u >"$log.all"
  [ -s "$log.all" ] || die "no test ran: $(tail -n 5 "$log.log")"
  awk '$1 == "PASS" { print $2 }' "$log.all" | sort -u >"$log.passed"
  at_times "$name" >"$log.at_times"
  awk '{ print $2 }' "$log.all" | sort -u | comm -23 - "$log.passed" >"$log.failed.all"
  comm -23 "$log.failed.all" "$log.at_times" >"$log.failed"
  listed "$name" >"$log.listed"
  comm -23 "$log.failed" "$log.listed" >"$log.unlisted"
  comm -13 "$log.failed" "$log.listed" >"$log.over"
  tell "fails on $name and is not in tests/opinions/$name" "$log.unlisted"
  tell "does not fail on $name and is in tests/opinions/$name" "$log.over"
  echo "$name $(version "$name"): $(wc -l <"$log.passed") tests pass, $(wc -l <"$log.failed.all") fail, $(wc -l <"$log.listed") are listed"
}

version() {
  case "$1" in
  dynalite) echo "$DYNALITE" ;;
  moto) echo "$MOTO" ;;
  esac
}

[ $# -gt 0 ] || set -- dynalite moto
mkdir -p "$said"
for name in "$@"; do
  case "$name" in
  dynalite) ask dynalite "$DYNAMODB" MYCLI_TEST_DYNAMODB_ENDPOINT ;;
  moto) ask moto "$DYNAMODB or $SQS" MYCLI_TEST_DYNAMODB_ENDPOINT MYCLI_TEST_SQS_ENDPOINT ;;
  *) die "there is no opinion of '$name': dynalite, moto" ;;
  esac
done
exit "$failed"
