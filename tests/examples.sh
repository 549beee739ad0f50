#!/usr/bin/env bash
# Checks examples/: the settings of a project and the lines of the matrix make requests; the scripts in the CI files pass shellcheck, and
# mycli takes every call in them; the template passes the lints of ours. `MYCLI` names the program, else it is that in target/debug.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
program=$(realpath "${MYCLI:-${CARGO_TARGET_DIR:-$root/target}/debug/mycli}")
cache=${MYCLI_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mycli-tests}
export MYCLI_TESTS_CACHE=$cache
examples=$root/examples
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export HOME=$scratch/home
mkdir -p "$HOME" "$scratch/work" "$scratch/scripts"
for name in $(env | sed -n 's/^\(MYCLI_[A-Z_]*\)=.*/\1/p'); do
  [ "$name" = MYCLI_TESTS_CACHE ] || unset "$name"
done
failed=0
fail() {
  echo "examples.sh: $*" >&2
  failed=1
}

# Settings, on a repository with an origin. `infra::keys` tests that the file shows each key.
git init --quiet --initial-branch=main "$scratch/work"
cd "$scratch/work"
git config user.name example && git config user.email example@example.com
git commit --quiet --allow-empty --message=first
git init --quiet --bare "$scratch/origin.git"
git remote add origin "$scratch/origin.git" && git push --quiet origin main
cp "$examples/project/.mycli.yaml" .
"$program" exec --local --dry-run 'make test' >"$scratch/request.json" 2>"$scratch/said" ||
  fail "project/.mycli.yaml: $(cat "$scratch/said")"

# The matrix: the script makes the lines of the file.
bulk() { "$program" --local bulk - --no-repo --group matrix --max-parallel 4 --timeout 20m --dry-run; }
bulk <"$examples/matrix/matrix.jsonl" | jq --sort-keys 'del(.idempotency_key)' >"$scratch/lines" || fail "matrix.jsonl is refused"
"$examples/matrix/matrix.sh" | bulk | jq --sort-keys 'del(.idempotency_key)' >"$scratch/made" || fail "matrix.sh is refused"
[ -s "$scratch/lines" ] || fail "matrix.jsonl makes no request"
cmp --quiet "$scratch/lines" "$scratch/made" || fail "matrix.sh does not make the lines of matrix.jsonl"

# Scripts of CI jobs: written out, one file for each, with the values that the service would put in.
PYTHONPATH=$(echo "$cache"/tools/cfn-lint-*) python3 - "$examples/ci" "$scratch/scripts" <<'PYTHON'
import pathlib, re, sys, yaml
folder, out = map(pathlib.Path, sys.argv[1:])
def scripts(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from scripts(inner, (*path, str(key)))
    elif isinstance(value, list):
        if path and path[-1].endswith("script"):
            yield path, "\n".join(value)
        else:
            for number, inner in enumerate(value):
                yield from scripts(inner, (*path, str(number)))
    elif isinstance(value, str) and path[-1] == "run":
        yield path, value
for file in sorted(folder.glob("*.yml")):
    for path, text in scripts(yaml.safe_load(file.read_text())):
        text = re.sub(r"\$\{\{[^}]*\}\}", "value", text)
        (out / f"{file.stem}-{'-'.join(path)}.sh").write_text(f"#!/usr/bin/env bash\n{text}\n")
PYTHON
shopt -s nullglob
scripts=("$scratch"/scripts/*.sh)
[ ${#scripts[@]} -ge 5 ] || fail "only ${#scripts[@]} scripts were found in ci/"
# The services set the variables, so they are assigned nowhere.
shellcheck --exclude=SC2154 "${scripts[@]}" || fail "a script of a CI job does not pass shellcheck"

# Their calls of mycli: against no stack each fails, but none for its arguments.
calls=$(python3 - "$program" "${scripts[@]}" <<'PYTHON'
import os, shlex, subprocess, sys
program, *scripts = sys.argv[1:]
values = {name: "main" for name in ("GITHUB_SHA", "CI_COMMIT_SHA")} | {
    "GROUP": "ci-1", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "me/a", "CI_PROJECT_URL": "https://gitlab.com/me/a"}
os.environ |= values | {"MYCLI_ENDPOINT": "http://127.0.0.1:9", "MYCLI_API_KEY": "sk_live_" + "0" * 64}
calls = []
for script in scripts:
    text = open(script).read().replace("\\\n", " ")
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            continue  # Part of a text over several lines: no call begins there.
        for at, word in enumerate(words):
            before = words[at - 1] if at else ";"
            if word != "mycli" or not (set(before) <= set(";|&()") or before in ("then", "do", "else")):
                continue
            call = [program]
            for word in words[at + 1:]:
                if set(word) <= set(";|&()<>"):
                    break
                call.append(os.path.expandvars(word))
            calls.append(call)
for call in calls:
    ran = subprocess.run(call, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    if ran.returncode == 2:
        sys.exit(f"examples.sh: refused: {shlex.join(call[1:])}: {ran.stderr}")
print(len(calls))
PYTHON
) || failed=1
[ "${calls:-0}" -ge 4 ] || fail "only ${calls:-0} calls of mycli were found in ci/"

"$root/tests/infra/lint.sh" "$examples/events/failed-runs.yaml" || fail "events/failed-runs.yaml"
[ "$failed" -eq 0 ] && echo "examples: ${#scripts[@]} scripts, $calls calls, $(wc -l <"$examples/matrix/matrix.jsonl") lines"
exit "$failed"
