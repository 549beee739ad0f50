#!/usr/bin/env bash
# The tests' own container engine: Podman serving the Docker API on a unix socket, with storage of its own, so that
# nothing of the machine's Podman or Docker is used or disturbed.
#
#   engine.sh start     start it unless it runs; prints DOCKER_HOST's value
#   engine.sh stop      remove its containers, stop it and wait until it is gone
#   engine.sh running   exit 0 if it runs
#   engine.sh podman …  the podman command line on the same storage
#   engine.sh serve S   one more service on the same storage, on the socket S, as this very process: for who stops it
#
# A test calls `start` (tests/src/engine.rs), so it is quick when nothing is to be done and safe to call at the same
# time from many processes. The service ends by itself when nobody has used it for IDLE_SECONDS: a test run that was
# killed leaves nothing behind for long.
set -euo pipefail

IDLE_SECONDS=900
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
# shellcheck source=tests/servers.sh
. "$here/../servers.sh"
state=$root/target/tests/engine
# Sockets have at most 108 bytes of path (unix(7)), and a clone may lie deep: hence a short name of its own in /run.
run=/run/mycli-tests-$(printf %s "$root" | cksum | cut -d' ' -f1)
socket=$run/docker.sock
pid_file=$run/service.pid

die() {
  echo "engine.sh: $*" >&2
  exit 1
}

# overlay where the file system carries it; else (target/ on an overlay itself, say) vfs: slower, but works everywhere.
storage_driver() {
  local probe driver=vfs
  probe=$(mktemp -d "$state/probe.XXXXXX")
  mkdir "$probe"/{lower,upper,work,merged}
  if mount -t overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" overlay \
    "$probe/merged" 2>/dev/null; then
    umount "$probe/merged"
    driver=overlay
  fi
  rm -rf "$probe"
  echo "$driver"
}

# Debian 12's conmon notes an out-of-memory kill in a file in its working directory, and its podman looks for that file
# in the container's bundle: started there, `OOMKilled` is told as Docker tells it.
write_conmon() {
  cat >"$state/conmon" <<'CONMON'
#!/bin/sh
previous=
for argument; do
  [ "$previous" != -b ] || cd "$argument" || exit
  previous=$argument
done
exec conmon "$@"
CONMON
  chmod +x "$state/conmon"
}

# Why each setting: runc and low limits because crun and the defaults are refused inside some virtual machines; cgroupfs
# and file because there may be no systemd; netavark because the CNI plugins are not installed.
write_configuration() {
  mkdir -p "$state" "$run"
  write_conmon
  cat >"$state/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
conmon_path = ["$state/conmon"]
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$run/libpod"
[network]
network_backend = "netavark"
network_config_dir = "$state/networks"
CONF
  # The tests' registry (registry.sh) has no TLS.
  cat >"$state/registries.conf" <<CONF
[[registry]]
location = "$("$here/registry.sh" address)"
insecure = true
CONF
  # Once only: a storage keeps the driver it was made with.
  [ -f "$state/storage.conf" ] || cat >"$state/storage.conf" <<CONF
[storage]
driver = "$(storage_driver)"
graphroot = "$state/storage"
runroot = "$run/storage"
CONF
}

# `podman "$@"` on the engine's storage, whatever the caller's environment says.
own_podman() {
  [ -f "$state/registries.conf" ] || write_configuration
  env -u CONTAINER_HOST -u DOCKER_HOST \
    CONTAINERS_CONF="$state/containers.conf" CONTAINERS_STORAGE_CONF="$state/storage.conf" \
    CONTAINERS_REGISTRIES_CONF="$state/registries.conf" podman "$@"
}

service_pid() {
  own_pid "$pid_file" "unix://$socket"
}

answers() {
  [ -S "$socket" ] && service_pid >/dev/null
}

start_service() {
  command -v podman >/dev/null || die "podman is missing: run tests/setup.sh"
  write_configuration
  rm -f "$socket"
  # Closed: the lock (fd 9) and the caller's streams, which a test runner waits on.
  CONTAINERS_CONF="$state/containers.conf" CONTAINERS_STORAGE_CONF="$state/storage.conf" \
    CONTAINERS_REGISTRIES_CONF="$state/registries.conf" setsid podman system service --time="$IDLE_SECONDS" "unix://$socket" </dev/null >"$state/service.log" 2>&1 9>&- &
  echo $! >"$pid_file"
  within 20 answers || die "podman did not serve within 20 s; it said: $(tail -n 5 "$state/service.log")"
}

start() {
  if ! answers; then
    [ "$(id -u)" = 0 ] || die "the tests' container engine needs root"
    mkdir -p "$run"
    exec 9>"$run/lock"
    flock 9
    answers || start_service
    exec 9>&-
  fi
  echo "unix://$socket"
}

stop() {
  local pid left
  [ -f "$state/storage.conf" ] || return 0
  left=$(own_podman ps --all --quiet | wc -l)
  if [ "$left" -gt 0 ]; then
    echo "engine.sh: $left containers were left behind by the tests; removing them" >&2
    own_podman rm --all --force --time 0 >/dev/null
  fi
  # Those of tasks on the emulator.
  own_podman volume prune --force >/dev/null
  if pid=$(service_pid); then
    kill -TERM "$pid"
    within 20 gone "$pid" || kill -KILL "$pid"
  fi
  rm -f "$socket" "$pid_file"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
running) answers ;;
podman) shift && own_podman "$@" ;;
serve)
  [ -f "$state/storage.conf" ] || write_configuration
  export CONTAINERS_CONF="$state/containers.conf" CONTAINERS_STORAGE_CONF="$state/storage.conf"
  exec podman system service --time=0 "unix://$2"
  ;;
*) die "usage: engine.sh start|stop|running|podman …|serve SOCKET" ;;
esac
