#!/usr/bin/env bash
# Packs what was built into the files of a release. .github/workflows/release.yml and `just release-check` both call it.
#
#   pack.sh BUILT VERSION OWNER/NAME ASSETS
#
# BUILT has:   program-TARGET/mycli            one for each target
#              functions-arm64/*.zip  functions-x86_64/*.zip
#              runner-ARCH/mycli-runner-ARCH  for the image that `mycli init` pushes
#              boms-ARCH/*.cdx.json
#              docs/man1/*.1  docs/completions/*
# ASSETS gets: mycli-VERSION-TARGET.tar.gz         the program, its manual pages and completions, and the functions for arm64
#              mycli-VERSION-functions-ARCH.tar.gz the functions and the runners alone
#              mycli-VERSION-TARGET.cdx.json       what the program and the functions are made of (CycloneDX)
#              install.sh                          the installer, which knows the repository
#              SHA256SUMS                          the checksums of all of these
#
# The same files give the same bytes.
set -euo pipefail
shopt -s nullglob

if [ $# -ne 4 ]; then
  sed -n 's/^#   //p' "$0" >&2
  exit 2
fi
built=$1 version=$2 repository=$3 assets=$4
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT
mkdir -p "$assets"
time=$(git -C "$top" log -1 --format=%ct)

# some FILE…: fails if a pattern found nothing.
some() {
  [ $# -gt 0 ] && [ -e "$1" ]
}

# pack NAME: the folder of this name.
pack() {
  tar --sort=name --owner=0 --group=0 --numeric-owner --mode='u=rwX,go=rX' --mtime="@$time" -C "$packed" -c "$1" | gzip -n >"$assets/$1.tar.gz"
}

runners=("$built"/runner-*/mycli-runner-*)
some "${runners[@]}" || {
  echo "pack.sh: $built has no runner" >&2
  exit 1
}
programs=("$built"/program-*)
for program in "${programs[@]}"; do
  name=mycli-$version-${program##*/program-}
  zips=("$built"/functions-arm64/*.zip) pages=("$built"/docs/man1/*.1) completions=("$built"/docs/completions/*)
  if ! { some "${zips[@]}" && some "${pages[@]}" && some "${completions[@]}"; }; then
    echo "pack.sh: $built lacks functions, manual pages or completions" >&2
    exit 1
  fi
  mkdir -p "$packed/$name/functions" "$packed/$name/man/man1" "$packed/$name/completions"
  install -m 755 "$program/mycli" "$packed/$name/mycli"
  install -m 644 "${zips[@]}" "$packed/$name/functions/"
  install -m 755 "${runners[@]}" "$packed/$name/functions/"
  install -m 644 "${pages[@]}" "$packed/$name/man/man1/"
  install -m 644 "${completions[@]}" "$packed/$name/completions/"
  install -m 644 "$top/README.md" "$top/CHANGELOG.md" "$top/LICENSE" "$packed/$name/"
  pack "$name"
done
some "${programs[@]}" || {
  echo "pack.sh: $built has no program" >&2
  exit 1
}
for arch in arm64 x86_64; do
  name=mycli-$version-functions-$arch
  mkdir -p "$packed/$name"
  install -m 644 "$built/functions-$arch"/*.zip "$packed/$name/"
  install -m 755 "${runners[@]}" "$packed/$name/"
  pack "$name"
done
install -m 644 "$built"/boms-*/*.cdx.json "$assets/"
sed "s|^repository=.*|repository=\${MYCLI_REPOSITORY:-$repository}|" "$top/install.sh" >"$assets/install.sh"
grep -qF "$repository" "$assets/install.sh"
(cd "$assets" && rm -f SHA256SUMS && sha256sum -- * >../SHA256SUMS.new && mv ../SHA256SUMS.new SHA256SUMS)
