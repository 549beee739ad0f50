#!/usr/bin/env bash
# Breaks the code on purpose, one way after the other (tests/mutations/*.patch), and sees that the simulation tells: each
# patch names the rule of DESIGN §4 that it breaks, and is caught when the simulation says so within so many seeds.
# Exits with 1 if one is not caught, or does not apply any more.
#
#   mutations.sh [SEEDS [NAME…]]   how many seeds at most for each (default 300), and which patches (default all)
#   mutations.sh check             only whether each patch applies: part of `just lint`, so that it is cut anew with the code
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
if [ "${1:-}" = check ]; then
  stale=0
  for patch in "$root"/tests/mutations/*.patch; do
    (cd "$root" && patch --strip=1 --dry-run --quiet --forward <"$patch" >/dev/null) || {
      echo "mutations.sh: $(basename "$patch") does not apply any more: cut it anew" >&2
      stale=1
    }
  done
  [ "$stale" -ne 0 ] || echo "all apply"
  exit "$stale"
fi
seeds=${1:-300}
shift || true
[ $# -gt 0 ] || set -- "$root"/tests/mutations/*.patch
tree=$root/target/mutations
said=$root/target/mutations.log
# Of its own: cargo takes two trees of one workspace for the same and would mix them up.
export CARGO_TARGET_DIR=$root/target/mutations-target

# What git knows, as it is now, in a tree of its own: nothing here is ever broken. Touched, since what was built last was a mutation.
rm -rf "$tree"
mkdir -p "$tree"
(cd "$root" && git ls-files -z | tar --null --files-from=- --create) | tar --extract --touch --directory="$tree"

simulate() {
  (cd "$tree" && cargo run --quiet --locked --package tests --example simulate -- 0 "$seeds") >"$said" 2>&1
}

echo "unbroken"
simulate || {
  tail -n 5 "$said"
  echo "mutations.sh: the simulation fails without any mutation" >&2
  exit 1
}

missed=0
for patch in "$@"; do
  name=$(basename "$patch" .patch)
  patch=$root/tests/mutations/$name.patch
  rule=$(sed -n 's/^Rule: //p' "$patch")
  if ! (cd "$tree" && patch --strip=1 --quiet --forward <"$patch"); then
    echo "NOT APPLIED  $name"
    missed=1
    continue
  fi
  status=0
  simulate || status=$?
  if [ "$status" -ne 0 ] && grep -q "breaks a rule" "$said"; then
    seed=$(sed -n 's/^seed \([0-9]*\) breaks a rule.*/\1/p' "$said")
    told=$(sed -n '/breaks a rule/,$p' "$said" | grep -o 'rules\? [0-9, ]*[0-9]' | tr -cs '0-9\n' ' ' | tr ' ' '\n' | sort -nu | paste -sd' ')
    echo "caught       $name (rule $rule): seed $seed, which told of rules $told"
  else
    echo "MISSED       $name (rule $rule): $(tail -n 1 "$said")"
    missed=1
  fi
  (cd "$tree" && patch --strip=1 --quiet --reverse <"$patch")
done
exit "$missed"
