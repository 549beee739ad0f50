#!/usr/bin/env bash
# Whether the packages that are named (by default `local`) compile for macOS, on any system: types and names, not linking. Their C sources
# are not compiled, since that takes Apple's headers; an empty object stands for each, which nobody links.
# It takes `rustup target add aarch64-apple-darwin`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=aarch64-apple-darwin
[ -d "$(rustc --print target-libdir --target "$target")" ] || {
  echo "macos.sh: the standard library for macOS is missing: rustup target add $target" >&2
  exit 2
}
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
cat >"$tools/cc" <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in -o) : >"$2" ;; esac
  shift
done
END
cat >"$tools/ar" <<'END'
#!/bin/sh
for word; do
  case $word in *.a) : >"$word" ;; esac
done
END
chmod 755 "$tools/cc" "$tools/ar"
packages=()
for package in "${@:-local}"; do packages+=(--package "$package"); done
# Nothing is linked, so the program for tasks, which mycli carries, may be an empty file.
MYCLI_RUNNER=/dev/null CC_aarch64_apple_darwin=$tools/cc AR_aarch64_apple_darwin=$tools/ar SDKROOT=$tools \
  cargo check --locked --target "$target" "${packages[@]}"
