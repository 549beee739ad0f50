# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# Daemons (actions/runner#4601), not as root: they leave the group, empty the environment, or cannot be looked into.
not_as_root

# survivors WORD: pids of what has this among its arguments and began in one of our runs.
survivors() {
  local pid
  for pid in $(our_processes); do
    if tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q -- "$1"; then
      echo "$pid"
    fi
  done
}

# check LETTER NAME WORD COMMAND [ARG…]: none with this word in its arguments survives, or the user is told.
check() {
  local left='' _
  fresh
  run exec --local --no-repo "${@:5}" "$4"
  wants_run "${@:5}"
  for _ in $(seq 20); do
    left=$(survivors "$3")
    [ -n "$left" ] || break
    sleep 0.1
  done
  if [ -n "$left" ]; then
    grep -qiE 'still run|left behind|left running|outliv|surviv' "$said/err" || fault "$(wc -w <<<"$left") survives the run, unsaid"
    for process in $left; do kill -KILL "$process" 2>/dev/null || true; done
  fi
  tell "$1" "$2" "gone, or told"
}

check a "ssh-agent" ssh-agent 'eval "$(ssh-agent -s)"'
# Without the pause it is a matter of luck whether it has left the group by the command's end.
check b "setsid without an environment" 'sleep 27' '(env -i setsid sleep 27 &); sleep .3'
check c "the same after a timeout" 'sleep 28' '(env -i setsid sleep 28 &); sleep 20' --timeout 1
check d "ssh-agent after a timeout" ssh-agent 'eval "$(ssh-agent -s)"; sleep 20' --timeout 1
check e "nohup in the background" 'sleep 29' 'nohup sleep 29 >/dev/null 2>&1 &'
