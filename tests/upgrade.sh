#!/usr/bin/env bash
# Two releases on one stack: builds the programs of two commits, deploys OLD on the tests' emulator, upgrades it to NEW while
# runs are under way, lets functions of both take turns, and goes back (tests/examples/upgrade.rs has the story). Exits with 1
# unless every run ended once, with its exit code.
#
#   upgrade.sh OLD NEW   two commits, in any spelling that git knows
#
# It needs the container engine and the emulator (tests/setup.sh). What it builds is in target/upgrade and is used again: one
# tree and one target folder for both commits, since cargo takes two trees of one workspace for the same and would mix them up.
set -euo pipefail

# A build of one commit from nothing takes about ten minutes on two cores. A bound on a hang.
BUILD_SECONDS=3600
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
state=$root/target/upgrade
tree=$state/tree
programs=(mycli submit launcher state-tracker query)

die() {
  echo "upgrade.sh: $*" >&2
  exit 2
}

commit_of() {
  git -C "$root" rev-parse --verify --quiet "$1^{commit}" || die "$1 is no commit"
}

# The tree as it is at a commit. Files that do not change keep their times, so cargo builds only what does.
check_out() {
  if [ -e "$tree/.git" ]; then
    git -C "$tree" checkout --quiet --force --detach "$1"
  else
    rm -rf "$tree"
    git -C "$root" worktree prune
    git -C "$root" worktree add --quiet --force --detach "$tree" "$1"
  fi
}

# build COMMIT: its programs in a folder named after it.
build() {
  local folder=$state/programs/$1 packages=() name
  [ ! -d "$folder" ] || return 0
  check_out "$1"
  for name in "${programs[@]}"; do packages+=(--package "$name"); done
  (cd "$tree" && CARGO_TARGET_DIR=$state/build timeout "$BUILD_SECONDS" cargo build --quiet --locked "${packages[@]}")
  mkdir -p "$state/programs"
  rm -rf "$folder.part"
  mkdir "$folder.part"
  for name in "${programs[@]}"; do cp "$state/build/debug/$name" "$folder.part/"; done
  mv "$folder.part" "$folder"
}

# The programs of a commit take half a gigabyte: those of other commits go.
forget_others() {
  local folder
  for folder in "$state"/programs/*; do
    case ${folder##*/} in
    "$1" | "$2") ;;
    *) rm -rf "$folder" ;;
    esac
  done
}

[ $# -eq 2 ] || die "usage: upgrade.sh OLD NEW"
old=$(commit_of "$1")
new=$(commit_of "$2")
for commit in "$old" "$new"; do
  echo "building $(git -C "$root" log -1 --format='%h %s' "$commit")"
  build "$commit"
done
forget_others "$old" "$new"
# With the features of the whole workspace, as the tests are built: nothing is built twice for them.
(cd "$root" && cargo build --quiet --locked --workspace --example upgrade)
exec "${CARGO_TARGET_DIR:-$root/target}/debug/examples/upgrade" "$state/programs/$old" "$state/programs/$new"
