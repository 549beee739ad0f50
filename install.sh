#!/bin/sh
# Installs a release of mycli for this machine from GitHub, after it has checked the SHA-256.
#
#   MYCLI_REPOSITORY=owner/name sh install.sh [--version X.Y.Z] [--to DIR]
#
# DIR (default ~/.local/bin) gets a folder mycli-X.Y.Z, which has the program and beside it the functions' code for `mycli init`, and a link `mycli` to
# that program. An older folder stays, so that you can go back; remove it when no run of it is left. The manual pages are linked into
# share/man beside DIR, if that can be. Needs curl or wget, tar, and a SHA-256 tool.
# MYCLI_DOWNLOADS names another place that has a release's files, as a URL without a slash at its end.
#
# The sum shows that the download is whole. That it was built from the repository's source is what `gh attestation verify FILE --repo owner/name` shows.
set -eu
umask 022

# The release workflow puts its own repository in here.
repository=${MYCLI_REPOSITORY:-}
downloads=${MYCLI_DOWNLOADS:-}
version=''
to=''

die() {
  echo "install.sh: $*" >&2
  exit 1
}

usage() {
  echo "usage: MYCLI_REPOSITORY=owner/name sh install.sh [--version X.Y.Z] [--to DIR]" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
  --to | --version)
    if [ $# -lt 2 ] || [ -z "$2" ]; then usage; fi
    case $1 in --to) to=$2 ;; *) version=${2#v} ;; esac
    shift 2
    ;;
  *) usage ;;
  esac
done

if [ -z "$repository" ] && [ -z "$downloads" ]; then
  die "no repository is known: set MYCLI_REPOSITORY to the GitHub repository that has the releases, as owner/name"
fi
case $repository in
'') ;;
*[!A-Za-z0-9._/-]* | */*/* | /* | */) die "MYCLI_REPOSITORY is '$repository': write owner/name" ;;
*/*) ;;
*) die "MYCLI_REPOSITORY is '$repository': write owner/name" ;;
esac
case $version in *[!A-Za-z0-9.+-]*) die "'$version' is no version: write it as 1.2.3" ;; esac

# The platforms that .github/workflows/release.yml builds for.
system=$(uname -s)
machine=$(uname -m)
case $machine in
x86_64 | amd64) machine=x86_64 ;;
aarch64 | arm64) machine=aarch64 ;;
esac
case $system-$machine in
Linux-x86_64 | Linux-aarch64) target=$machine-unknown-linux-gnu ;;
Darwin-x86_64 | Darwin-aarch64) target=$machine-apple-darwin ;;
*) die "there is no release for $system on $machine: build it from source (README.md)" ;;
esac
if [ "$system" = Linux ] && ls /lib/ld-musl-* >/dev/null 2>&1 && ! ls /lib*/ld-linux-* >/dev/null 2>&1; then
  die "this Linux has musl, and the releases need glibc: build it from source (README.md)"
fi

if [ -z "$to" ]; then
  [ -n "${HOME:-}" ] || die "HOME is not set: name a folder with --to DIR"
  to=$HOME/.local/bin
fi

# get URL FILE
if command -v curl >/dev/null; then
  get() { curl --fail --silent --show-error --location --retry 3 --output "$2" "$1"; }
elif command -v wget >/dev/null; then
  get() { wget -q -O "$2" "$1"; }
else
  die "neither curl nor wget is here: install one of them"
fi

if command -v sha256sum >/dev/null; then
  sum() { sha256sum "$1"; }
elif command -v shasum >/dev/null; then
  sum() { shasum -a 256 "$1"; }
elif command -v openssl >/dev/null; then
  sum() { openssl dgst -sha256 -r "$1"; }
else
  die "no tool for SHA-256 is here: install sha256sum, shasum or openssl"
fi

if [ -z "$downloads" ]; then
  downloads=https://github.com/$repository/releases
  if [ -n "$version" ]; then
    downloads=$downloads/download/v$version
  else
    downloads=$downloads/latest/download
  fi
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

get "$downloads/SHA256SUMS" "$scratch/SHA256SUMS" || die "cannot download $downloads/SHA256SUMS"
# A line is the sum, two spaces and the file's name, which has the version.
line=$(grep -E "^[0-9a-f]{64}  mycli-[^ /]+-$target\.tar\.gz\$" "$scratch/SHA256SUMS") || die "this release has nothing for $target"
[ "$(printf '%s\n' "$line" | wc -l)" -eq 1 ] || die "SHA256SUMS names more than one archive for $target"
expected=${line%% *}
archive=${line##* }
name=${archive%.tar.gz}
found=${name#mycli-}
found=${found%"-$target"}
[ -z "$version" ] || [ "$version" = "$found" ] || die "asked for version $version, and the release has $found"

get "$downloads/$archive" "$scratch/$archive" || die "cannot download $downloads/$archive"
actual=$(sum "$scratch/$archive")
actual=${actual%% *}
[ "$actual" = "$expected" ] || die "$archive is damaged or was changed: its SHA-256 is $actual, and SHA256SUMS says $expected"

tar -xzf "$scratch/$archive" -C "$scratch"
"$scratch/$name/mycli" --version >/dev/null || die "the program of $archive does not run on this machine"

mkdir -p "$to"
to=$(cd "$to" && pwd -P)
if [ -d "$to/mycli" ]; then
  die "$to/mycli is a folder: move it away, or name another folder with --to DIR"
fi
# Into its place in one step, so that nobody ever finds half a program.
fresh=$to/.mycli-$found.$$
trap 'rm -rf "$scratch" "$fresh" "$fresh.link"' EXIT
cp -R "$scratch/$name" "$fresh"
rm -rf "$to/mycli-$found"
mv "$fresh" "$to/mycli-$found"
ln -s "mycli-$found/mycli" "$fresh.link"
mv -f "$fresh.link" "$to/mycli"

# man looks in share/man beside each bin of the PATH. A user's own folder gets a share only in the usual place.
pages=${to%/bin}/share/man/man1
if [ "${to##*/}" = bin ] && { [ -d "${to%/bin}/share" ] || [ "$to" = "${HOME:-}/.local/bin" ]; } && mkdir -p "$pages" 2>/dev/null && [ -w "$pages" ]; then
  for page in "$to/mycli-$found/man/man1"/*.1; do
    ln -sf "$page" "$pages/"
  done
else
  echo "the manual pages are in $to/mycli-$found/man"
fi

echo "installed mycli $found in $to"
case :${PATH:-}: in
*:"$to":*) ;;
*) echo "$to is not on your PATH: add it, or call $to/mycli" ;;
esac
