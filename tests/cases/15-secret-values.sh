# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# Values of secrets that no environment can hold are refused at once, and no value is printed.

# refused NAME-OF-INPUT PATTERN: it is, in words, and it is not kept.
refused() {
  [ "$code" -ne 0 ] || fault "accepted (0)"
  wants_words "$1"
  wants_none 'topsecret'
  run --local secrets list
  ! grep -q '^T ' "$said/out" || fault "it is kept"
}

fresh
printf 'topsecret\0b' >"$W/value"
input=$W/value run --local secrets set T
refused 'NUL|zero byte'
tell a "a NUL" "refused: $(short "$said/err" 120)"

fresh
printf 'topsecret\xff\xfe' >"$W/value"
input=$W/value run --local secrets set T
refused 'UTF-8|text'
tell b "no UTF-8" "refused"

fresh
printf 'topsecret' >"$W/value"
head -c 200000 /dev/zero | tr '\0' x >>"$W/value"
input=$W/value run --local secrets set T
if [ "$code" -eq 0 ]; then
  run exec --local --no-repo --secret T 'echo ${#T}'
  wants_code 0
  wants_output $'200009\n'
else
  refused 'long|bytes|limit|KB'
fi
tell c "200 kB, more than one variable can hold" "refused, or it works"

# One that was made by hand is told by the run, in words.
fresh
(umask 077 && mkdir -p "$H/.mycli/local/secrets")
printf 'topsecret\0b' >"$H/.mycli/local/secrets/T"
chmod 600 "$H/.mycli/local/secrets/T"
run exec --local --no-repo --secret T true
[ "$code" -eq 2 ] || wants_code 125
wants_words '\bT\b'
wants_words 'NUL|zero byte'
wants_none 'topsecret'
tell d "a file with a NUL, made by hand" "code $code: $(short "$said/err" 120)"

fresh
printf 'two\nlines\n' >"$W/value"
input=$W/value run --local secrets set T
wants_code 0
run exec --local --no-repo --secret T 'echo "[$T]"'
wants_code 0
wants_output $'[two\nlines]\n'
tell e "several lines" "whole"

# Nothing is cut off without a word.
fresh
head -c 2000000 /dev/zero | tr '\0' x >"$W/value"
input=$W/value run --local secrets set T
kept=$(stat -c %s "$H/.mycli/local/secrets/T" 2>/dev/null || echo 0)
[ "$code" -ne 0 ] || [ "$kept" -ge 2000000 ] || fault "accepted, and cut to $kept bytes"
tell f "2 MB" "refused, or whole"

fresh
printf 'topsecret\0b' >"$W/value"
input=$W/value run --local secrets set GIT_TOKEN
wants_words 'NUL|zero byte'
[ "$code" -ne 0 ] || fault "accepted (0)"
tell g "a NUL in GIT_TOKEN" "refused"
