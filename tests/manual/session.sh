# shellcheck shell=bash disable=SC1091,SC2154 # world.sh sets `typed`.
# The shell in which the commands of one document run, one after the other. Each comes on descriptor 98, with the file for its output before it;
# its exit code goes to descriptor 99. What a command leaves running must not keep these open.
. "$MANUAL/world.sh"
code=0
while IFS= read -r -d '' -u 98 said && IFS= read -r -d '' -u 98 command; do
  (exit "$code") # What `$?` then is.
  eval "$command" <"$typed" >"$said" 2>&1 98<&- 99>&-
  code=$?
  echo "$code" >&99
done
