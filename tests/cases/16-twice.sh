# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# The same name twice in `env` is refused, as other keys are.

# project TEXT: `exec` with this .mycli.yaml, which prints $A.
project() {
  fresh
  printf '%s\n' "$1" >"$W/.mycli.yaml"
  run exec --local --no-repo 'echo "$A"'
}
# refused: with the name and its place, and no value.
refused() {
  wants_code 2
  wants_words 'duplicate|twice|again|more than once'
  wants_words "$1"
  wants_none 'first|second'
}

project 'env: {A: first, A: second}'
refused '\.mycli\.yaml'
tell a "in YAML" "$(short "$said/err" 140)"
project $'env:\n  A: first\n  B: x\n  "A": second'
refused '\.mycli\.yaml:4|\.mycli\.yaml'
tell b "in YAML, in quotes once" "$(short "$said/err" 140)"
project 'env: {A: 1, A: 2}'
wants_code 2
wants_words 'duplicate|twice|again|more than once'
tell c "in YAML, as numbers" "$(short "$said/err" 140)"

fresh
printf '{"command":"true"}\n{"command":"echo $A","env":{"A":"first","A":"second"}}\n' >"$W/n.jsonl"
run --local bulk --no-repo --wait n.jsonl
refused 'n\.jsonl:2'
tell d "in a bulk file" "$(short "$said/err" 140)"

# JSON may write a name in two ways.
printf '{"command":"echo $A","env":{"A":"first","\\u0041":"second"}}\n' >"$W/n.jsonl"
run --local bulk --no-repo --wait n.jsonl
refused 'n\.jsonl:1'
tell e "in a bulk file, escaped once" "$(short "$said/err" 140)"

fresh
serve
# check LETTER PATH BODY: refused, with no value.
check() {
  printf '%s\n' "$3" >"$W/body"
  : >"$said/out"
  post "$2" <"$W/body" >"$said/err"
  grep -qE '^4(00|22) |"rejected":\[\{' "$said/err" || fault "answered $(short "$said/err" 90)"
  wants_words 'duplicate|twice|again|more than once'
  wants_none 'first|second'
  tell "$1" "POST $2" "$(short "$said/err" 140)"
}
check f /execute '{"command":"true","env":{"A":"first","A":"second"}}'
check g /executions/bulk '{"submission_id":"s","first_index":0,"executions":[{"command":"true","env":{"A":"first","A":"second"}}]}'
run_there -o json exec --no-repo true
id=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["execution_id"])' <"$said/out")
check h "/executions/$id/rerun" '{"env":{"A":"first","A":"second"}}'
stop_serving
