#!/usr/bin/env bash
# The tests' own AWS: ministack (tests/setup.sh installs it), on loopback only, with nothing on disk but its log and what
# it unpacks.
#
#   emulator.sh run PORT FOLDER   one for one test: ends, with all it started, when this script's standard input does
#   emulator.sh start             one for many tests: starts it unless it runs; prints its address
#   emulator.sh stop              ends that one
#   emulator.sh running           exit 0 if it runs
#
# The one for many ends by itself when nobody has asked it anything for IDLE_SECONDS: a test run that was killed leaves
# nothing behind for long. FOLDER/requests.log has a line for each request: time, method, path, status, the API's
# operation, user agent. The server writes it at the level INFO.
set -euo pipefail

MINISTACK=1.5.33
IDLE_SECONDS=900
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/.." && pwd -P)
# shellcheck source=tests/servers.sh
. "$here/servers.sh"
installed=${MYCLI_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mycli-tests}/tools/ministack-$MINISTACK
state=$root/target/tests/emulator

die() {
  echo "emulator.sh: $*" >&2
  exit 1
}

# serve PORT FOLDER: becomes the server. BIND_HOST is for its own start-up code; the listener is hypercorn's.
serve() {
  [ -d "$installed" ] || die "ministack $MINISTACK is missing: run tests/setup.sh"
  mkdir -p "$2/tmp"
  cd "$2"
  exec env PYTHONPATH="$installed:$here" PYTHONDONTWRITEBYTECODE=1 TMPDIR="$2/tmp" GATEWAY_PORT="$1" BIND_HOST=127.0.0.1 IOT_MTLS_ENABLED=0 \
    AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test \
    python3 -m hypercorn emulated:app --bind "127.0.0.1:$1" --workers 0 --keep-alive 75 --log-level INFO \
    --access-logfile "$2/requests.log" \
    --access-logformat '%(m)s %(U)s %(s)s %({x-amz-target}i)s %({user-agent}i)s'
}

# A group of its own, so that functions and whatever else it started end with it.
end_group() {
  kill -TERM -- "-$1" 2>/dev/null || return 0
  within 10 gone "$1" || true
  kill -KILL -- "-$1" 2>/dev/null || true
}

run() {
  set -m
  serve "$1" "$2" </dev/null >"$2/server.log" 2>&1 &
  server=$! # Not local: the trap outlives the function.
  set +m
  trap 'end_group "$server"' EXIT
  trap 'exit 143' TERM INT HUP
  # Ends when whoever holds the other end of the pipe has gone, however it went; or when the server has.
  while ! gone "$server"; do
    local status=0
    read -r -t 1 _ || status=$?
    [ "$status" -gt 128 ] || return 0
  done
  die "the server ended: $(tail -n 5 "$2/server.log")"
}

# The pid of the shared one.
server_pid() {
  own_pid "$state/pid" "$state/requests.log"
}

healthy() {
  exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf 'GET /_ministack/health HTTP/1.0\r\n\r\n' >&3
  local line
  read -r -t 5 line <&3 || true
  exec 3>&-
  [[ $line == *" 200"* ]]
} 2>/dev/null

answers() {
  server_pid >/dev/null && healthy "$(cat "$state/port")"
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Ends the server when its log has not grown for long. Health is asked for only by those who are about to use it.
watch_idle() {
  while ! gone "$1"; do
    sleep 15
    [ $(($(date +%s) - $(stat -c %Y "$state/requests.log"))) -lt "$IDLE_SECONDS" ] || end_group "$1"
  done
}

start_server() {
  local port
  port=$(free_port)
  rm -rf "$state"
  mkdir -p "$state"
  set -m
  # Closed: the lock (fd 9) and the caller's streams, which a test runner waits on.
  serve "$port" "$state" </dev/null >"$state/server.log" 2>&1 9>&- &
  local server=$!
  set +m
  echo "$server" >"$state/pid"
  echo "$port" >"$state/port"
  within 20 answers || die "ministack did not serve within 20 s; it said: $(tail -n 5 "$state/server.log")"
  (watch_idle "$server") </dev/null >/dev/null 2>&1 9>&- &
}

start() {
  if ! answers; then
    mkdir -p "$(dirname "$state")"
    exec 9>"$state.lock"
    flock 9
    answers || start_server
    exec 9>&-
  fi
  echo "http://127.0.0.1:$(cat "$state/port")"
}

stop() {
  local pid
  if pid=$(server_pid); then end_group "$pid"; fi
  rm -f "$state/pid"
}

case "${1:-}" in
run) run "$2" "$3" ;;
start) start ;;
stop) stop ;;
running) answers ;;
*) die "usage: emulator.sh run PORT FOLDER | start | stop | running" ;;
esac
