# shellcheck shell=bash
# Functions for the scripts that start a server for the tests. They source this file.

gone() {
  ! kill -0 "$1" 2>/dev/null
}

# within SECONDS COMMAND…: waits until the command succeeds.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.05
  done
}

# own_pid FILE TEXT: the pid in a file, if that process has this text in its arguments: a pid file may outlive its
# process and the number be used again.
own_pid() {
  local pid
  pid=$(cat "$1" 2>/dev/null) || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$2" || return 1
  echo "$pid"
}
