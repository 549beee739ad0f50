# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# A deep home (codex#27765): the path of a socket may have 107 bytes.

# A home of so many characters.
deep() {
  local name
  fresh
  name=$(head -c "$(($1 - ${#dir} - 2))" /dev/zero | tr '\0' d)
  H=$dir/$made$name
  H=${H:0:$1}
  mkdir -m 700 "$H"
}

for length in 65 100 200; do
  deep "$length"
  [ ${#H} -eq "$length" ] || fault "the home has ${#H} characters"
  run exec --local --no-repo 'echo hi'
  wants_code 0
  wants_output $'hi\n'
  run exec --local --no-repo -d 'echo later; exit 4'
  wants_code 0
  run --local logs -f
  wants_code 4
  tell a "exec in a home of $length" "works, detached too"

  deep "$length"
  if serve; then
    run_there exec --no-repo 'echo hi'
    wants_code 0
    wants_output $'hi\n'
    stop_serving
  else
    fault "the server does not start: $(short "$said/serve.err")"
  fi
  tell b "local serve in a home of $length" "works"
done

fresh
given=(MYCLI_HOME="$H/$(head -c 150 /dev/zero | tr '\0' m)")
run exec --local --no-repo 'echo hi'
wants_code 0
wants_output $'hi\n'
tell c "a deep MYCLI_HOME" "works"
