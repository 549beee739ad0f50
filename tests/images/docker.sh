#!/usr/bin/env bash
# A real Docker daemon for the tests, beside Podman (engine.sh): Debian's docker.io, as root, with storage of its own.
# Containers get no network from it, so it changes no firewall rule and makes no bridge.
#
#   docker.sh start     start it unless it runs, and give it the images it lacks; prints DOCKER_HOST's value
#   docker.sh stop      remove its containers, stop it and wait until it is gone
#   docker.sh running   exit 0 if it runs
#   docker.sh containers LABEL   prints the ids of all containers with this label
#   docker.sh kill      end it and what it started at once, as a crash does
#   MYCLI_TESTS_DOCKER=NAME   another daemon, with the busybox image alone: for who kills it
#
# A test calls `start` (tests/src/engine.rs), so it is quick when nothing is to be done and safe to call at the same
# time from many processes. The daemon ends by itself after LIFE_SECONDS: a test run that was killed leaves nothing
# behind for ever.
set -euo pipefail

LIFE_SECONDS=7200
name=${MYCLI_TESTS_DOCKER:-}
IMAGES="busybox scratch no-shell user meddling"
[ -z "$name" ] || IMAGES=busybox
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
# shellcheck source=tests/servers.sh
. "$here/../servers.sh"
state=$root/target/tests/docker$name
# As in engine.sh.
run=/run/mycli-tests-docker$name-$(printf %s "$root" | cksum | cut -d' ' -f1)
socket=$run/docker.sock
pid_file=$run/docker.pid

die() {
  echo "docker.sh: $*" >&2
  exit 1
}

api() {
  curl --silent --fail --unix-socket "$socket" "$@"
}

daemon_pid() {
  own_pid "$pid_file" "unix://$socket"
}

answers() {
  [ -S "$socket" ] && daemon_pid >/dev/null && [ "$(api http://docker/_ping)" = OK ]
}

start_daemon() {
  [ -x /usr/sbin/dockerd ] || die "Docker is missing: run tests/setup.sh"
  mkdir -p "$state" "$run"
  rm -f "$socket" "$pid_file"
  # Closed: the lock (fd 9) and the caller's streams, which a test runner waits on.
  setsid timeout "$LIFE_SECONDS" dockerd --data-root "$state/data" --exec-root "$run/exec" --host "unix://$socket" \
    --pidfile "$pid_file" --bridge=none --iptables=false --ip-forward=false \
    </dev/null >"$state/daemon.log" 2>&1 9>&- &
  within 60 answers || die "dockerd did not answer within 60 s; it said: $(tail -n 5 "$state/daemon.log")"
}

# The images are Podman's, so both engines run the same.
load_images() {
  local image id
  "$here/images.sh"
  for image in $IMAGES; do
    id=$("$here/engine.sh" podman image inspect --format '{{.Id}}' "localhost/mycli-test/$image")
    [ "$(cat "$state/$image.loaded" 2>/dev/null)" != "$id" ] || continue
    "$here/engine.sh" podman save --quiet "localhost/mycli-test/$image" |
      api --request POST --header 'Content-Type: application/x-tar' --data-binary @- http://docker/images/load >/dev/null
    echo "$id" >"$state/$image.loaded"
  done
}

start() {
  [ "$(id -u)" = 0 ] || die "the tests' Docker daemon needs root"
  mkdir -p "$run"
  exec 9>"$run/lock"
  flock 9
  answers || start_daemon
  load_images
  exec 9>&-
  echo "unix://$socket"
}

stop() {
  local pid id
  pid=$(daemon_pid) || return 0
  for id in $(api 'http://docker/containers/json?all=1' | jq -r '.[].Id'); do
    echo "docker.sh: a container was left behind by the tests: $id; removing it" >&2
    api --request DELETE "http://docker/containers/$id?force=1&v=1" || true
  done
  kill -TERM "$pid"
  within 30 gone "$pid" || kill -KILL "$pid"
  rm -f "$socket" "$pid_file"
}

# What a crash of the machine's Docker leaves: no daemon, no containerd, no process of a container.
crash() {
  local pid id commands=()
  pid=$(daemon_pid) || return 0
  for id in $(api http://docker/containers/json | jq -r '.[].Id'); do
    commands+=("$(api "http://docker/containers/$id/json" | jq -r .State.Pid)")
  done
  kill -KILL "$pid"
  within 20 gone "$pid" || die "dockerd is still there"
  pkill -KILL --full "$run/exec" || true
  [ "${#commands[@]}" -eq 0 ] || kill -KILL "${commands[@]}" 2>/dev/null || true
  # As after a restart of the machine: /run is empty.
  rm -rf "$run/exec" "$socket" "$pid_file"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
running) answers ;;
containers)
  api --get --data all=1 --data-urlencode "filters={\"label\":[\"$2\"]}" http://docker/containers/json | jq -r '.[].Id'
  ;;
kill) crash ;;
*) die "usage: docker.sh start|stop|running|containers LABEL|kill" ;;
esac
