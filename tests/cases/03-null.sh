# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# null in a request: the CLI leaves the key out, as the manual says of bulk files; the API refuses it with words.

# All keys of a request but the command itself and those that a line cannot have.
keys="repo branch image env secrets timeout cpu memory arch capacity lock group max_parallel priority retries retry_on name
  task_role registry_secret"

fresh
for name in $keys; do
  printf '{"command":"true","%s":null}\n' "$name" >"$W/n.jsonl"
  run --local bulk --no-repo --wait n.jsonl
  [ "$code" -eq 0 ] || fault "$name: $code, $(short "$said/err" 120)"
done
tell a "each key in a line of a bulk file" "left out, each run succeeded"

fresh
for name in $keys; do
  printf '{"command":"true","%s":null}\n' "$name"
done >"$W/n.jsonl"
run --local bulk --no-repo --dry-run --priority 5 --timeout 9m --image debian:12 -e A=1 --secret S --retries 2 n.jsonl
wants_code 0
! grep -q null "$said/out" || fault "sent with null: $(grep -m 1 null "$said/out")"
printf '{"command":"true","priority":null,"timeout":null,"image":null,"env":null,"secrets":null,"retries":null}\n' >"$W/n.jsonl"
run --local bulk --no-repo --dry-run --priority 5 --timeout 9m --image debian:12 -e A=1 --secret S --retries 2 n.jsonl
wants_code 0
python3 -c 'import json, sys; assert json.load(sys.stdin) == {"command": "true"}' <"$said/out" 2>/dev/null ||
  fault "a null left something of the flags: $(short "$said/out" 160)"
tell b "null takes away what flags say" "the request is the command alone"

fresh
printf '{"command":null}\n' >"$W/n.jsonl"
run --local bulk --no-repo --wait n.jsonl
wants_code 2
wants_words 'n\.jsonl:1.*command.*missing'
printf '{"command":"true","env":{"A":null}}\n' >"$W/n.jsonl"
run --local bulk --no-repo --wait n.jsonl
wants_code 2
wants_words 'n\.jsonl:1.*env\.A'
tell c "the command itself, and a variable" "refused with their line, 2"

# refuses PATH FORMAT NAME…: the server refuses a body of this format for each name, and its answer has the name and the word null.
refuses() {
  local name answer path=$1 format=$2
  shift 2
  for name in "$@"; do
    # shellcheck disable=SC2059 # the format is ours
    printf "$format\n" "$name"
  done >"$W/bodies"
  post "$path" <"$W/bodies" >"$W/answers"
  for name in "$@"; do
    IFS= read -r answer || answer='no answer'
    [[ $answer == 4@(00|22)\ *"$name"*null* || $answer == 202\ *'"rejected":[{'*"$name"*null* ]] || fault "$name: ${answer:0:150}"
  done <"$W/answers"
}

fresh
serve
# shellcheck disable=SC2086 # words
refuses /execute '{"command":"true","%s":null}' action $keys idempotency_key
refuses /execute '{"action":"exec","%s":null}' command
tell d "POST /execute" "all keys are refused"

# shellcheck disable=SC2086
refuses /executions/bulk '{"submission_id":"s","first_index":0,"executions":[{"command":"true","%s":null}]}' $keys
refuses /executions/bulk '{"submission_id":"s","first_index":0,"executions":[{"%s":null}]}' command
tell e "POST /executions/bulk" "all keys are refused"

run_there -o json exec --no-repo true
id=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["execution_id"])' <"$said/out")
# shellcheck disable=SC2086
refuses "/executions/$id/rerun" '{"%s":null}' command $keys
tell f "POST /executions/{id}/rerun" "all keys are refused"

# And from the CLI through the server: what it leaves out cannot be refused there.
for name in $keys; do
  printf '{"command":"true","%s":null}\n' "$name"
done >"$W/n.jsonl"
run_there bulk --no-repo --wait n.jsonl
wants_code 0
tell g "a bulk file sent to a server" "all lines ran"
stop_serving
