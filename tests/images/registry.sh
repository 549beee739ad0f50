#!/usr/bin/env bash
# A real image registry for the tests: Debian's docker-registry, on loopback, with storage of its own. It asks for the
# user and the password that the emulator's ECR gives out.
#
#   registry.sh start     start it unless it runs; prints its address
#   registry.sh stop      stop it and wait until it is gone
#   registry.sh running   exit 0 if it runs
#   registry.sh address   prints the address that it has or would have
#
# The port follows from the folder of the clone, because the container engine is told of it when it starts (engine.sh).
# A test calls `start`, so it is quick when nothing is to be done and safe to call at the same time from many processes.
# It ends by itself after LIFE_SECONDS.
set -euo pipefail

LIFE_SECONDS=7200
USER_NAME=AWS
PASSWORD=a-token-of-the-tests # As in tests/emulated.py.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
# shellcheck source=tests/servers.sh
. "$here/../servers.sh"
state=$root/target/tests/registry
port=$((20000 + $(printf %s "$root" | cksum | cut -d' ' -f1) % 10000))
address=127.0.0.1:$port
pid_file=$state/pid

die() {
  echo "registry.sh: $*" >&2
  exit 1
}

answers() {
  own_pid "$pid_file" "$state/config.yml" >/dev/null &&
    [ "$(curl --silent --output /dev/null --write-out '%{http_code}' "http://$address/v2/")" = 401 ]
}

configure() {
  mkdir -p "$state/storage"
  python3 -W ignore::DeprecationWarning - "$USER_NAME" "$PASSWORD" >"$state/users" <<'PYTHON'
import crypt
import sys

print(f"{sys.argv[1]}:{crypt.crypt(sys.argv[2], crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=1 << 4))}")
PYTHON
  cat >"$state/config.yml" <<CONFIG
version: 0.1
log: { level: warn }
storage:
  filesystem: { rootdirectory: "$state/storage" }
  delete: { enabled: true }
http: { addr: "$address" }
auth:
  htpasswd: { realm: tests, path: "$state/users" }
CONFIG
}

start_registry() {
  command -v docker-registry >/dev/null || die "docker-registry is missing: run tests/setup.sh"
  configure
  # Closed: the lock (fd 9) and the caller's streams, which a test runner waits on.
  setsid timeout "$LIFE_SECONDS" docker-registry serve "$state/config.yml" </dev/null >"$state/registry.log" 2>&1 9>&- &
  echo $! >"$pid_file"
  within 20 answers || die "docker-registry did not answer within 20 s; it said: $(tail -n 5 "$state/registry.log")"
}

start() {
  if ! answers; then
    mkdir -p "$state"
    exec 9>"$state.lock"
    flock 9
    answers || start_registry
    exec 9>&-
  fi
  echo "$address"
}

stop() {
  local pid
  if pid=$(own_pid "$pid_file" "$state/config.yml"); then
    kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid"
    within 20 gone "$pid" || kill -KILL "$pid"
  fi
  rm -f "$pid_file"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
running) answers ;;
address) echo "$address" ;;
*) die "usage: registry.sh start|stop|running|address" ;;
esac
