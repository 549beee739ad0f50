#!/usr/bin/env bash
# Builds and packs a release for this machine as .github/workflows/release.yml does, installs it from a server on loopback into a home of
# its own, and uses it. Only the builds for other machines, the attestation and the upload are left to the workflow.
#
# The functions are built for this machine's processor. Where an archive wants those for the other, it gets the same ones: their zips are
# packed and never run here.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$top"
target=${CARGO_TARGET_DIR:-target}
work=$(mktemp -d)
server=''
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
repository=owner/name
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
triple=$(rustc -vV | sed -n 's/^host: //p')

step() { echo "release-check: $*"; }
fail() {
  echo "release-check: FAILED: $*" >&2
  exit 1
}

step "the changelog, the versions, the names for cargo binstall"
release/notes.sh "$version" >"$work/notes"
release/notes.sh Unreleased >"$work/unreleased"
if ! grep -q '[^[:space:]]' "$work/notes" && ! grep -q '[^[:space:]]' "$work/unreleased"; then
  fail "CHANGELOG.md has a section neither for $version nor for what is unreleased"
fi
name=mycli-$version-$triple
for key in pkg-url bin-dir; do
  text=$(sed -n "s/^$key = \"\(.*\)\"\$/\1/p" cli/Cargo.toml)
  text=${text//'{ name }'/mycli} text=${text//'{ version }'/$version} text=${text//'{ target }'/$triple}
  text=${text//'{ bin }'/mycli} text=${text//'{ binary-ext }'/}
  case $key in
  pkg-url) [ "${text##*/}" = "$name.tar.gz" ] || fail "cargo binstall looks for ${text##*/}, and the archive is $name.tar.gz" ;;
  bin-dir) [ "$text" = "$name/mycli" ] || fail "cargo binstall looks for $text in the archive" ;;
  esac
done

step "the program, the functions, the bill of materials"
cargo build --locked --release --package mycli
just package >"$work/package.log" 2>&1 || { tail -20 "$work/package.log" >&2 && fail "just package"; }
built=$work/built
arch=$(uname -m)
arch=${arch/aarch64/arm64}
mkdir -p "$built/program-$triple" "$built/runner-$arch" "$built/functions-arm64" "$built/functions-x86_64" "$built/boms-host"
cp "$target/release/mycli" "$built/program-$triple/"
cp "$target/runner/$triple/runner/mycli-runner" "$built/runner-$arch/mycli-runner-$arch"
cp target/package/*.zip "$built/functions-arm64/"
cp target/package/*.zip "$built/functions-x86_64/"
cp target/package/sbom.cdx.json "$built/boms-host/mycli-$version-$triple.cdx.json"
jq -e '.bomFormat == "CycloneDX" and (.components | length) > 100' "$built/boms-host/"*.json >/dev/null || fail "the bill of materials"

step "the manual pages and completions"
release/docs.sh "$built/program-$triple/mycli" "$built/docs"
for page in "$built/docs/man1"/*.1; do
  if command -v man >/dev/null; then
    MANROFFSEQ='' MANWIDTH=80 man --warnings --local-file "$page" >/dev/null 2>"$work/roff" || fail "man cannot read ${page##*/}"
    [ ! -s "$work/roff" ] || fail "${page##*/}: $(head -1 "$work/roff")"
  fi
done
command -v man >/dev/null || echo "release-check: SKIPPED: man is missing, so the manual pages were not read by it" >&2
bash -n "$built/docs/completions/mycli.bash" || fail "the completions for bash"

step "the archives, twice with the same bytes"
release/pack.sh "$built" "$version" "$repository" "$work/assets"
release/pack.sh "$built" "$version" "$repository" "$work/again"
cmp "$work/assets/SHA256SUMS" "$work/again/SHA256SUMS" || fail "packing again gave other bytes"
(cd "$work/assets" && sha256sum --quiet --check SHA256SUMS)

step "an installation, from loopback"
python3 -u -m http.server --bind 127.0.0.1 --directory "$work/assets" 0 >"$work/server.log" 2>&1 &
server=$!
until port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$work/server.log") && [ -n "$port" ]; do
  kill -0 "$server" || fail "python3 -m http.server does not start"
  sleep 0.05
done
mkdir "$work/home"
as_a_user() {
  (cd "$work/home" && env -i HOME="$work/home" PATH="$work/home/.local/bin:/usr/local/bin:/usr/bin:/bin" MYCLI_DOWNLOADS="http://127.0.0.1:$port" "$@")
}
for _ in 1 2; do
  as_a_user sh "$work/assets/install.sh" | grep -F "installed mycli $version in $work/home/.local/bin" >/dev/null || fail "install.sh"
done
[ "$(as_a_user mycli --version)" = "mycli $version" ] || fail "mycli --version"
[ "$(as_a_user mycli exec --local --no-repo 'echo hello')" = hello ] || fail "mycli exec --local"
[ -r "$work/home/.local/share/man/man1/mycli-exec.1" ] || fail "the manual pages are not where man looks"
functions=("$work/home/.local/bin/mycli-$version/functions"/*.zip)
[ "${#functions[@]}" -eq 4 ] || fail "the functions are not beside the program"

step "a damaged archive is refused"
printf x >>"$work/assets/$name.tar.gz"
if as_a_user sh "$work/assets/install.sh" >"$work/damaged" 2>&1; then fail "install.sh took a damaged archive"; fi
grep -q "damaged or was changed" "$work/damaged" || fail "install.sh: $(cat "$work/damaged")"

echo "release-check: mycli $version for $triple: everything that needs no other machine passed"
