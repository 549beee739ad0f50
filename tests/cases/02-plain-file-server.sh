# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# git within git without end (lazy.nvim#1183): a bare repository that a plain file server serves over HTTP.

# How many processes of git are at work beneath $root.
gits() {
  local at name count=0
  while read -r at; do
    { read -r name <"${at%/cwd}/comm"; } 2>/dev/null || continue
    [[ $name != git* ]] || count=$((count + 1))
  done < <(find /proc -maxdepth 2 -name cwd -lname "$root/*" 2>/dev/null)
  echo "$count"
}

# run_counting ARG…: as `run`; the most processes of git at a time are in $most, and the seconds it took in SECONDS. Stops it when
# there are far too many.
run_counting() {
  local runner now
  most=0 SECONDS=0
  rm -f "$said/code"
  (run "$@" && echo "$code" >"$said/code") &
  runner=$!
  while [ "$most" -le 40 ] && kill -0 "$runner" 2>/dev/null; do
    now=$(gits)
    [ "$now" -le "$most" ] || most=$now
    sleep 0.2
  done
  if [ "$most" -gt 40 ]; then
    fault "$most processes of git at a time after $SECONDS s: stopped"
  fi
  kill_ours
  wait "$runner" || true
  code=$(cat "$said/code" 2>/dev/null || echo 137)
}

# wants_an_end CODE PATTERN: it ends within a minute with this code, in such words.
wants_an_end() {
  [ "$most" -le 40 ] || return 0
  [ "$code" -ne 137 ] || fault "it had not ended after $SECONDS s"
  wants_code "$1"
  wants_words "$2"
}

# A net: whatever goes wrong here, the machine goes on.
not_as_root
[ ${#as[@]} -eq 0 ] || as+=(prlimit --nproc=150)

fresh
repository "$dir/r.git"
git_here -C "$dir/r.git" update-server-info
old=$(git_here -C "$dir/r.git" rev-parse refs/heads/x)
touch "$said/http.out"
# -u: the line with the port comes at once.
(cd "$dir" && exec python3 -u -m http.server 0 --bind 127.0.0.1) >"$said/http.out" 2>"$said/http.err" </dev/null &
server=$! spared=$!
until port=$(grep -oE 'port [0-9]+' "$said/http.out"); do tick; done
url=http://127.0.0.1:${port#port }/r.git

# Each check has a home of its own: one that was stopped would go on in the next.
#
# Such servers may be refused altogether, if the words say so and what to do.
refused='plain|dumb|smart'

# check LETTER NAME REF PATTERN: it is not there.
check() {
  fresh
  run_counting exec --local --repo "$url" --branch "$3" true
  wants_an_end 125 "$4|$refused"
  tell "$1" "$2" "after $SECONDS s, $most processes of git: $(short "$said/err" 140)"
}
check a "a short id that is not there" deadbee1 'no branch, tag or commit'
check b "a full id that is not there" dead00000000000000000000000000000000beef 'no branch, tag or commit'

# check_there LETTER NAME REF COMMIT: it is there.
check_there() {
  fresh
  run_counting exec --local --repo "$url" --branch "$3" 'git rev-parse HEAD'
  if [ "$code" -eq 0 ]; then
    wants_output "$4"$'\n'
  else
    wants_an_end 125 "$refused"
  fi
  tell "$1" "$2" "code $code after $SECONDS s, $most processes of git $(short "$said/err" 140)"
}
check_there c "a branch" main "$commit"
check_there d "a tag" v1 "$old"
check_there e "a full id" "$commit" "$commit"
check_there f "a short id, of a branch's end" "${commit:0:8}" "$commit"
check_there g "a short id, further back" "${old:0:8}" "$old"

kill "$server"
wait "$server" || true
