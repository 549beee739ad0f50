#!/usr/bin/env bash
# Gives mycli the inputs of tests/cases/, each from a fault that users of another tool reported and each of which broke
# something here, as a new user would type them. Prints a line for each: `PASS|FAIL|DUE NN name: what was seen`.
# DUE is what a later issue mends. Exits with 1 if one is FAIL.
#
#   cases.sh [NN…]     all of them, or only these numbers
#   MYCLI=PATH         which mycli; by default target/debug/mycli
# shellcheck disable=SC2317,SC2034 # The cases call these functions, and read what they set.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cases=$top/tests/cases
built=${MYCLI:-${CARGO_TARGET_DIR:-$top/target}/debug/mycli}
if [ ! -x "$built" ]; then
  echo "cases.sh: there is no $built: build it, or name another in MYCLI" >&2
  exit 2
fi
# Without one of them a case would pass or fail for nothing.
for tool in git python3 setpriv prlimit flock ssh-agent iconv ps; do
  command -v "$tool" >/dev/null || { echo "cases.sh: $tool is missing: tests/setup.sh installs what the tests need" >&2 && exit 2; }
done
root=$(mktemp -d /tmp/mycli-cases.XXXXXX)
spared=''

# The processes that run our copy of mycli, or have their home or working directory beneath ours. A process that left its group and emptied its
# environment is known by its working directory alone.
our_processes() {
  {
    find /proc -maxdepth 2 \( -name exe -o -name cwd \) -lname "$root/*"
    grep -lzF "HOME=$root/" /proc/[0-9]*/environ
  } 2>/dev/null | cut -d / -f 3 | grep -E '^[0-9]+$' | sort -u || true
}

# Kills them, but for the one that is named in `spared`, until none is left. Whole groups: what forks all the time cannot be overtaken
# one by one.
kill_ours() {
  local pid group own round left
  own=$(ps -o pgid= -p $$)
  for round in $(seq 50); do
    left=$(our_processes | grep -vx "${spared:-none}") || return 0
    [ "$round" -eq 1 ] || sleep 0.1
    for pid in $left; do
      group=$(ps -o pgid= -p "$pid") || continue
      [ "$group" = "$own" ] || kill -KILL -- "-${group// /}" 2>/dev/null || true
      kill -KILL "$pid" 2>/dev/null || true
    done
  done
}

clean_up() {
  trap '' INT TERM
  kill_ours
  chmod -R u+rwX "$root" 2>/dev/null || true
  rm -rf "$root"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Others must reach their own folders in it, and a copy stays the same while somebody builds. Nobody's secrets are in it.
chmod 711 "$root"
install -m 755 "$built" "$root/mycli"
mycli=$root/mycli
search=/usr/local/bin:/usr/bin:/bin

# --- What a case calls. It runs in a shell of its own, with `number` and `dir` set.

# fresh: a new home, $H, and a new folder to be in, $W. Begins a check.
fresh() {
  made=$((made + 1))
  H=$dir/h$made W=$dir/w$made said=$dir/said$made problems=''
  mkdir -m 700 "$H" "$W" "$said"
  [ ${#as[@]} -eq 0 ] || chown "$nobody:$nobody" "$H" "$W"
}

# From here on no command is run as root, who may do what others may not.
not_as_root() {
  [ "$(id -u)" -ne 0 ] || as=(setpriv --reuid="$nobody" --regid="$nobody" --clear-groups)
}

# run ARG…: mycli with the environment of a new user, and what is in `given` besides. Its exit code is in $code, what it printed
# in $said/out and $said/err. One that is still there after $limit seconds is killed: 137.
run() {
  code=0
  # The outer one is for what bash says of the killed.
  {
    (cd "$W" && exec timeout -s KILL "$limit" "${as[@]}" env -i PATH="$search" HOME="$H" "${given[@]}" "$mycli" "$@") \
      <"$input" >"$said/out" 2>"$said/err" || code=$?
  } 2>/dev/null
}

# serve ARG…: a `local serve` of $H on a free port, in $endpoint, with its key in $key.
serve() {
  local line=''
  touch "$said/serve.out"
  (cd "$W" && exec "${as[@]}" env -i PATH="$search" HOME="$H" "$mycli" local serve --listen 127.0.0.1:0 -o json "$@") \
    </dev/null >"$said/serve.out" 2>"$said/serve.err" &
  server=$!
  until line=$(grep endpoint "$said/serve.out"); do
    kill -0 "$server" 2>/dev/null || break
    tick || break
  done
  endpoint=$(sed -n 's/.*"endpoint":"\([^"]*\)".*/\1/p' <<<"$line")
  key=$(cat "$H/.mycli/local/serve.key" 2>/dev/null) || true
  [ -n "$endpoint" ]
}

stop_serving() {
  kill -TERM "$server" 2>/dev/null || true
  timeout 20 tail --pid="$server" -f /dev/null || kill -KILL "$server"
  wait "$server" 2>/dev/null || true
}

# Asks the server as a client on another machine would.
run_there() {
  given+=("MYCLI_API_KEY=$key")
  run --endpoint "$endpoint" "$@"
  unset 'given[-1]'
}

# post PATH: one request for each line of standard input; prints for each the status, a space and the answer, on one line.
post() {
  python3 "$cases/post.py" "$endpoint$1" "$key"
}

# tick: a short pause; fails when a minute has gone by in pauses, so that what is waited for need not come.
tick() {
  ticks=$((ticks + 1))
  [ "$ticks" -lt 600 ] && sleep 0.1
}

# record KEY: what the record of the latest run has there.
record() {
  local said=$said/record
  mkdir -p "$said"
  run --local -o json status
  python3 -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1]))' "$1" <"$said/out" 2>/dev/null || short "$said/err"
}

# git with nobody's settings.
git_here() {
  env -i PATH="$search" HOME="$dir" GIT_CONFIG_NOSYSTEM=1 GIT_ALLOW_PROTOCOL=file git -c init.defaultBranch=main -c user.name=c \
    -c user.email=c@localhost -c commit.gpgsign=false -c protocol.file.allow=always "$@"
}

# repository FOLDER [OBJECT-FORMAT]: a bare one at FOLDER, with the branches main and x, the tag v1 and the ref pull/7/head. $commit is
# main's commit; x, v1 and pull/7/head are the one before.
repository() {
  local work
  work=$dir/made-for-$(basename "$1")
  git_here init -q --object-format="${2:-sha1}" "$work"
  git_here -C "$work" commit -q --allow-empty -m one
  git_here -C "$work" tag -a -m one v1
  git_here -C "$work" branch x
  echo two >"$work/file"
  git_here -C "$work" add file
  git_here -C "$work" commit -q -m two
  commit=$(git_here -C "$work" rev-parse HEAD)
  git_here clone -q --bare "$work" "$1"
  git_here -C "$1" update-ref refs/pull/7/head refs/heads/x
  git_here -C "$1" config --remove-section remote.origin
  chmod -R a+rX "$1"
}

# A file's beginning on one line, for a report.
short() {
  head -c 400 "$1" | tr '\n' '|' | cat -v | cut -c 1-"${2:-200}"
}

# fault WORDS: something is not as it should be.
fault() {
  problems="$problems${problems:+; }$1"
}

wants_code() {
  [ "$code" -eq "$1" ] || fault "exit code $code, not $1 ($(short "$said/err" 160))"
}

# wants_run ARG…: the command ran to its end, or to its timeout if there is one among these.
wants_run() {
  case " $* " in
  *' --timeout '*) wants_code 124 ;;
  *) wants_code 0 ;;
  esac
}

# wants_output TEXT: exactly that, with its line ends.
wants_output() {
  printf '%s' "$1" >"$said/wanted"
  cmp -s "$said/wanted" "$said/out" || fault "printed '$(short "$said/out")', not '$(short "$said/wanted")'"
}

# wants_words PATTERN: they are among what mycli says.
wants_words() {
  grep -qiE -- "$1" "$said/err" || fault "nothing of /$1/ in: $(short "$said/err")"
}

# wants_none PATTERN: that is nowhere in what is printed.
wants_none() {
  ! grep -qE -- "$1" "$said/out" "$said/err" || fault "/$1/ is in: $(cat "$said/err" "$said/out" >"$said/all" && short "$said/all")"
}

wants_record() {
  local is
  is=$(record "$1")
  [ "$is" = "$2" ] || fault "$1 is $is, not $2"
}

# tell LETTER NAME SEEN: ends a check. SEEN is said of one that passes, the faults of another.
tell() {
  local verdict=PASS seen=$3
  if [ -n "$problems" ]; then
    seen=$problems verdict=FAIL
    [ -z "$due" ] || verdict=DUE
  fi
  printf '%s %s%s %s: %s\n' "$verdict" "$((10#$number))" "$1" "$2" "$seen" | tee -a "$root/told"
  problems=''
}

# --- The cases.

# case_in FILE: a case in a shell of its own. One that breaks off has failed.
case_in() (
  number=$(basename "$1" .sh) && number=${number%%-*} dir=$root/$number
  made=0 ticks=0 limit=60 code=0 input=/dev/null due='' problems='' said='' nobody=65534 as=() given=()
  mkdir -m 711 "$dir"
  # shellcheck source=/dev/null
  . "$1"
)

wanted() {
  local number
  [ $# -gt 1 ] || return 0
  for number in "${@:2}"; do
    [ "$((10#$number))" -ne "$((10#$1))" ] || return 0
  done
  return 1
}

touch "$root/told"
for file in "$cases"/[0-9]*.sh; do
  number=$(basename "$file" .sh) && number=${number%%-*}
  wanted "$number" "$@" || continue
  # Not in a condition: there `set -e` would not hold.
  set +e
  (
    set -e
    case_in "$file"
  )
  code=$?
  set -e
  [ "$code" -eq 0 ] || printf 'FAIL %s: broke off with %s\n' "$(basename "$file" .sh)" "$code" | tee -a "$root/told"
done
printf '%s passed, %s failed, %s due later\n' "$(grep -c ^PASS "$root/told")" "$(grep -c ^FAIL "$root/told")" \
  "$(grep -c ^DUE "$root/told")" || true
! grep -q ^FAIL "$root/told"
