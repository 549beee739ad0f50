# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# A value over several lines in an env file (moby#12997): refused with its line, or read whole. No piece of it is printed.

# check LETTER NAME PIECES FILE-TEXT [WHOLE]: WHOLE is what the command may print, if the file is taken.
check() {
  fresh
  printf '%s' "$4" >"$W/c.env"
  run exec --local --no-repo --env-file c.env 'printf "%s\n" "$CERT"'
  if [ "$code" -eq 0 ]; then
    tr -d "\"'" <"$said/out" >"$said/bare"
    [ $# -lt 5 ] || printf '%s\n' "$5" | cmp -s - "$said/bare" || fault "ran with a torn value: $(short "$said/out" 60), said $(short "$said/err" 160)"
    ! grep -qE -- "$3" "$said/err" || fault "pieces of the value are printed: $(short "$said/err" 160)"
  else
    wants_code 2
    wants_words 'c\.env:[0-9]+'
    wants_none "$3"
  fi
  tell "$1" "$2" "code $code: $(short "$said/err" 120)"
}

check a "in quotes" 'line[123]' $'CERT="line1\nline2\nline3=="\n' $'line1\nline2\nline3=='
check b "a PEM key without quotes" 'PRIVATE|MIIE|AAAA|BBBB' \
  $'CERT=-----BEGIN PRIVATE KEY-----\nMIIEAAAA\nBBBB==\n-----END PRIVATE KEY-----\n' \
  $'-----BEGIN PRIVATE KEY-----\nMIIEAAAA\nBBBB==\n-----END PRIVATE KEY-----'
# Without quotes, a line that is a name alone asks for a variable of the environment, as docker has it: it cannot be told from a piece.
check c "base64 in lines" 'BBBB|CCCC' $'CERT=AAAA\nBBBB\nCCCC==\n'
check d "JSON over lines" 'private_key|topsecret|\}' $'CERT={\n  "private_key": "topsecret=",\n  "x": 1\n}\n' \
  $'{\n  private_key: topsecret=,\n  x: 1\n}'
check e "in single quotes" 'line[123]' $'CERT=\'line1\nline2=\nline3\'\n' $'line1\nline2=\nline3'

# refused LETTER NAME LINE: this second line is no variable; its number is said, and nothing of it.
refused() {
  fresh
  printf 'A=1\n%s\n' "$3" >"$W/c.env"
  run exec --local --no-repo --env-file c.env true
  wants_code 2
  wants_words 'c\.env:2'
  wants_none topsecret
  tell "$1" "$2" "code $code: $(short "$said/err" 120)"
}
refused f "a line in quotes" '"topsecret"'
refused g "a line of JSON" '{"a":"topsecret"}'
refused h "a last line of base64" 'topsecret+/abc=='

# What a quote does not go on from is as docker has it: the quotes are part of the value.
fresh
printf 'CERT="one line"\nB=it'"'"'s\nC="\n' >"$W/c.env"
run exec --local --no-repo --env-file c.env 'printf "%s|" "$CERT" "$B"'
[ "$code" -eq 2 ] || wants_output $'"one line"|it\'s|\n'
tell i "quotes within one line" "code $code: $(short "$said/out")"
