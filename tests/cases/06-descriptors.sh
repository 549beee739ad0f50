# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# The caller's descriptors (bats#80): a run that outlives the caller must not hold them, and a command must not see them.

fresh
(
  exec 9>"$W/L"
  flock 9
  run exec --local --no-repo -d 'sleep 5'
  echo "$code" >"$said/code"
)
code=$(cat "$said/code")
wants_code 0
flock -n "$W/L" true || fault "the lock is still held"
tell a "a lock of the caller's" "free as soon as exec -d has returned"

# The command's own three, and the folder that ls has open.
descriptors=$'0\n1\n2\n3\n'

fresh
(
  exec 7</etc/passwd 9>"$W/L"
  run exec --local --no-repo 'ls /proc/self/fd'
  echo "$code" >"$said/code"
)
code=$(cat "$said/code")
wants_code 0
wants_output "$descriptors"
tell b "what the command sees" "0, 1, 2, and ls's own"

fresh
(
  exec 7</etc/passwd 9>"$W/L"
  run exec --local --no-repo -d 'ls /proc/self/fd'
)
run --local logs -f
wants_output "$descriptors"
tell c "what a detached command sees" "0, 1, 2, and ls's own"

fresh
exec 7</etc/passwd 9>"$W/L"
serve
exec 7<&- 9>&-
run_there exec --no-repo 'ls /proc/self/fd'
wants_code 0
wants_output "$descriptors"
stop_serving
tell d "what a command of a server sees" "0, 1, 2, and ls's own"

fresh
repository "$W/r.git"
exec 7</etc/passwd
run exec --local --repo "$W/r.git" 'ls /proc/self/fd'
exec 7<&-
wants_code 0
wants_output "$descriptors"
tell e "with a repository" "0, 1, 2, and ls's own"

# A pipe that a detached run held open would keep its reader waiting to the run's end.
fresh
SECONDS=0
(run exec --local --no-repo -d 'sleep 8' && cat "$said/out") 8>&1 | cat >"$said/id"
[ "$SECONDS" -lt 5 ] || fault "the reader of its pipe waited $SECONDS s"
[ -s "$said/id" ] || fault "no id"
tell f "the caller's pipe" "closed after $SECONDS s"
