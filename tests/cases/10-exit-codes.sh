# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# Wrong usage is 2, on this machine and through a server, as `--dry-run` has it; and nothing is started.

fresh
serve
server_home=$H

# check LETTER NAME FIELD ARG…: on this machine, as a dry run, and through the server.
check() {
  local way
  fresh
  [ -z "${project:-}" ] || printf '%s\n' "$project" >"$W/.mycli.yaml"
  for way in here dry there; do
    case $way in
    here) run --local "${@:4}" ;;
    dry) run --local "${@:4}" --dry-run ;;
    there) run_there "${@:4}" ;;
    esac
    [ "$code" -eq 2 ] || fault "$way: code $code, $(short "$said/err" 90)"
    grep -qi -- "$3" "$said/err" || fault "$way: not a word of $3"
  done
  run --local -o json history
  grep -q '"executions":\[\]' "$said/out" || fault "something was started"
  tell "$1" "$2" "2 each time"
}

check a "an empty command" command exec --no-repo ''
check b "--timeout 0" timeout exec --no-repo --timeout 0 true
check c "--lock 'a b'" lock exec --no-repo --lock 'a b' true
project='image: ""' check d "image: \"\" in .mycli.yaml" image exec --no-repo true
check e "an empty --repo" repo exec --repo '' true
check f "an empty --branch" branch exec --repo https://localhost/r --branch '' true
check g "--cpu 3" cpu exec --no-repo --cpu 3 true
check h "-e 1A=x" env exec --no-repo -e 1A=x true
check i "--priority 1000" priority exec --no-repo --priority 1000 true
check j "--max-parallel without a group" max_parallel exec --no-repo --max-parallel 2 true
check k "a blank command" command exec --no-repo '  '
project='timeout: 8d' check l "timeout: 8d in .mycli.yaml" timeout exec --no-repo true

H=$server_home
run_there -o json history
grep -q '"executions":\[\]' "$said/out" || fault "runs were started: $(short "$said/out" 120)"
tell m "what the server has started" "nothing"

fresh
run --local exec --no-repo true
run --local rerun --timeout 0
wants_code 2
wants_words timeout
run --local rerun --lock 'a b'
wants_code 2
tell n "rerun with faults" "2"

# A secret that is not there is a fault of the request too.
fresh
run --local exec --no-repo --secret NOPE true
wants_code 2
wants_words 'NOPE'
tell o "a secret that is not set" "2: $(short "$said/err" 120)"
H=$server_home
stop_serving
