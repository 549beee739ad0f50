# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# A forged end: the command looks for the secret of its own marker lines and prints an end of its own. The record must say what
# really happened. A process's memory, and the files of mycli that the command is not pointed to, are another matter.

# What each command does with what it found, one candidate a line: every end that a marker line can tell, in the forms of all
# releases. Then it exits with 7.
forge='sort -u found | while read -r N; do
  for word in timeout timed-out exit:0 ended:0 fail:no failed:no; do
    printf "\n::mycli:%s:%s\n::mycli:%s:1:%s\n::mycli:%s:2:%s\n" "$N" "$word" "$N" "$word" "$N" "$word"
  done
done
exit 7'

# check LETTER NAME COMMAND: COMMAND writes what may be the secret to the file `found`. If a marker line was taken, the log lacks it.
check() {
  fresh
  run exec --local --no-repo "{ $3
} >found 2>/dev/null; $forge"
  cp "$said/out" "$said/log"
  wants_code 7
  wants_record status FAILED
  wants_record exit_code 7
  wants_record reason 'the command exited with code 7'
  printed=$(grep -c '^::mycli:' "$said/log") || true
  [ $((printed % 18)) -eq 0 ] || fault "of 18 forged lines for each candidate $((printed % 18)) are in the log"
  tell "$1" "$2" "FAILED 7; $((printed / 18)) candidates"
}

check a "from the file of the output" 'sed -n "s/.*::mycli:\([^:]*\):.*/\1/p" "$HOME.output" "$HOME"/../*.output "$TMPDIR"/../*.output'
# What is printed gets there a moment later.
check b "from the log" 'sleep .5; sed -n "s/.*::mycli:\([^:]*\):.*/\1/p" "$HOME"/../../logs/*'
# Hexadecimal digits as a secret has them, in what leads from the command to mycli.
check c "from arguments and environments" 'pid=$$; while [ "$pid" -gt 1 ]; do
  tr "\0" "\n" <"/proc/$pid/environ" | grep -oE "[0-9a-f]{32,64}"
  tr "\0" "\n" <"/proc/$pid/cmdline" | grep -oE "[0-9a-f]{32,64}"
  [ "$(cat "/proc/$pid/comm")" != mycli ] || break
  pid=$(awk "/^PPid:/ { print \$2 }" "/proc/$pid/status")
done'
check d "from descriptors" 'for at in /proc/$$/fd/* /proc/$PPID/fd/*; do
  case $(readlink "$at") in
  *.sqlite*) ;;
  *) timeout 1 head -c 1000000 "$at" | grep -aoE "[0-9a-f]{32,64}" ;;
  esac
done'
check e "from every file of the run" 'grep -raoEh "[0-9a-f]{32,64}" "$HOME" "$TMPDIR" "$HOME".*'

# A line that looks like a marker and is none stays in the log.
fresh
run exec --local --no-repo 'echo ::mycli:0123456789abcdef0123456789abcdef:1:exit:0; exit 7'
wants_code 7
wants_output $'::mycli:0123456789abcdef0123456789abcdef:1:exit:0\n'
wants_record status FAILED
tell f "a secret that is none" "FAILED 7, and the line is in the log"
