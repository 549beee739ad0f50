# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# The log written by its path (toybox#375, oref0#150): whoever opens /dev/stderr opens what is behind it anew.

steps='log() { echo "[info] $*" > /dev/stderr; }
log start; echo building; sleep .2
log built; echo result: 42
'
lines='[info] start
building
[info] built
result: 42
'

fresh
printf '%s' "$steps" >"$W/s.sh"
run exec --local --no-repo "sh $W/s.sh"
wants_code 0
wants_output "$lines"
wants_record status SUCCEEDED
run --local logs
wants_output "$lines"
tell a "all lines in order" "4 lines, from exec and from logs"

fresh
# Without a child: the stop is for the whole tree, and a shell whose child it reaches first says so on its stderr.
run exec --local --no-repo --timeout 1 'trap "echo bye > /dev/stderr; exit 1" TERM; while :; do :; done'
wants_code 124
wants_output $'bye\n'
wants_record status TIMED_OUT
wants_record exit_code None
tell b "a trap's last words at a timeout" "TIMED_OUT, 124, bye"

fresh
repository "$W/r.git"
run exec --local --repo "$W/r.git" ': > /dev/stderr; git rev-parse HEAD'
wants_code 0
wants_output "$commit"$'\n'
wants_record commit "$commit"
tell c "the commit of a run with a repository" "it is in the record"

fresh
run exec --local --no-repo 'echo one; echo two >/dev/stdout; echo three | tee /dev/stderr; echo four >/proc/self/fd/1; exit 3'
wants_code 3
sort "$said/out" >"$said/sorted"
printf '%s\n' four one three three two | cmp -s - "$said/sorted" || fault "printed '$(short "$said/out")'"
wants_record status FAILED
wants_record exit_code 3
tell d "stdout, tee and /proc/self/fd too" "5 lines, FAILED 3"

fresh
run exec --local --no-repo 'echo one; truncate -s 0 /dev/stdout 2>/dev/null; echo two; (exec >/dev/stdout; echo three)'
wants_code 0
wants_output $'one\ntwo\nthree\n'
tell e "cut off by its path" "3 lines"

# The mycli that follows the run is killed in the middle: the end is found by who comes next, whatever became of the file.
fresh
limit=2 run exec --local --no-repo 'echo one; : > /dev/stderr; sleep 4; echo two > /dev/stderr; exit 7'
limit=20 run --local logs -f
wants_code 7
wants_record status FAILED
wants_record exit_code 7
run --local logs
wants_output $'one\ntwo\n'
tell f "also if mycli is killed meanwhile" "FAILED 7, both lines"
