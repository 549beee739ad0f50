# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # the run expands it; cases.sh sets and reads them
# Words that are true, and say what to do.

fresh
given=(BAD=$'\xff\xfe')
run exec --local --no-repo -e BAD 'echo "$BAD"'
wants_code 2
wants_words BAD
wants_words 'UTF-8'
wants_none 'has no BAD'
tell a "a variable that is not UTF-8" "$(short "$said/err" 140)"

printf 'BAD\n' >"$W/b.env"
run exec --local --no-repo --env-file b.env 'echo "$BAD"'
wants_code 2
wants_words 'UTF-8'
wants_words 'b\.env'
wants_none 'has no BAD'
tell b "the same by an env file" "$(short "$said/err" 140)"
given=()

# Where a file is at fault: that it is, and how to mend it.
encoding='UTF-16|UTF-8.*(save|convert|iconv|write|encod)'
fresh
printf '\xff\xfeA\0=\0001\0\n\0' >"$W/u.env"
run exec --local --no-repo --env-file u.env true
wants_code 2
wants_words 'u\.env'
wants_words "$encoding"
tell c "an env file in UTF-16" "$(short "$said/err" 140)"

# Windows PowerShell's `>` writes it without saying so; and there it may be big-endian, or without a mark.
printf 'A\0=\0001\0\n\0' >"$W/u.env"
run exec --local --no-repo --env-file u.env true
wants_code 2
wants_words 'u\.env'
wants_words 'UTF-16|NUL'
tell d "the same without a mark" "code $code: $(short "$said/err" 140)"

long=$(head -c 9000 /dev/zero | tr '\0' v)
# blames_env: what is too long is said to be the variables.
blames_env() {
  wants_code 2
  wants_words '8192'
  wants_words '\benv\b'
  ! grep -qiE '^ *command:' "$said/err" || fault "the command is blamed: $(short "$said/err" 120)"
}
fresh
run exec --local --no-repo -e "LONG=$long" true
blames_env
tell e "variables over 8192, on this machine" "$(short "$said/err" 140)"
run --endpoint https://localhost exec --no-repo -e "LONG=$long" --dry-run true
blames_env
tell f "the same for a stack" "$(short "$said/err" 140)"
run exec --local --no-repo ": $long"
wants_code 2
wants_words 'command.*8192'
tell g "a command over 8192" "$(short "$said/err" 140)"

fresh
repository "$W/r.git"
git_here -C "$W/r.git" symbolic-ref HEAD refs/heads/nowhere
run exec --local --repo "$W/r.git" true
wants_code 125
wants_words 'HEAD|default branch|nowhere'
wants_words 'branch'
wants_none 'has no commit to check out'
tell h "a HEAD that points nowhere" "$(short "$said/err" 160)"

fresh
git_here init -q --bare "$W/empty.git"
chmod -R a+rX "$W/empty.git"
run exec --local --repo "$W/empty.git" true
wants_code 125
wants_words 'no commit|empty'
tell i "an empty repository" "$(short "$said/err" 160)"

fresh
printf '{"command":"true"}\n' | iconv -t UTF-16 >"$W/u.jsonl"
run --local bulk --no-repo u.jsonl
wants_code 2
wants_words 'u\.jsonl'
wants_words 'UTF-16|UTF-8'
tell j "a bulk file in UTF-16" "$(short "$said/err" 140)"
printf 'image: debian:12\n' | iconv -t UTF-16 >"$W/.mycli.yaml"
run exec --local --no-repo true
wants_code 2
wants_words '\.mycli\.yaml'
wants_words "$encoding"
tell k "a .mycli.yaml in UTF-16" "code $code: $(short "$said/err" 140)"

# The variables of mycli itself are read as well.
fresh
given=(MYCLI_API_KEY=$'\xff')
run --endpoint http://127.0.0.1:1 exec --no-repo true
[ "$code" -eq 2 ] || wants_code 125
wants_words 'MYCLI_API_KEY.*UTF-8|UTF-8.*MYCLI_API_KEY|MYCLI_API_KEY does not hold a key'
wants_none 'there is no API key'
tell l "MYCLI_API_KEY that is not UTF-8" "$(short "$said/err" 140)"
