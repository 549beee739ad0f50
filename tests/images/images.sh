#!/usr/bin/env bash
# Makes the images that the tests run, out of Debian packages alone, in the engine's own storage (engine.sh). No image
# registry is asked. Quick when nothing has changed.
#
#   localhost/mycli-test/busybox      ash and the other applets, static: neither git nor a package manager
#   localhost/mycli-test/debian-git   Debian with git, bash, ssh and certificates
#   localhost/mycli-test/debian       the same without git and ssh, apt-get there
#   localhost/mycli-test/scratch      one static program, /busybox, and nothing else
#   localhost/mycli-test/no-shell     Debian without a shell
#   localhost/mycli-test/{entrypoint,workdir,user,meddling,workspace,awkward}   see Containerfile
set -euo pipefail

SUITE=bookworm
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
cache=${MYCLI_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mycli-tests}/images
stamp=$root/target/tests/engine/images.stamp
recipe=$(cat "$here/images.sh" "$here/Containerfile" "$(command -v busybox)" | sha256sum | cut -c1-16)
names="busybox scratch debian-git debian no-shell entrypoint workdir user meddling workspace awkward"
scratch=

podman() {
  "$here/engine.sh" podman "$@"
}

clean_up() {
  [ -z "$scratch" ] || rm -rf --one-file-system "$scratch"
}
trap clean_up EXIT

# The users every image knows: root, and `app` for what must not be root.
add_user() {
  local tree=$1
  echo 'app:x:1000:1000::/home/app:/bin/sh' >>"$tree/etc/passwd"
  echo 'app:x:1000:' >>"$tree/etc/group"
  mkdir -p "$tree/home/app"
  chown 1000:1000 "$tree/home/app"
}

busybox_tree() {
  local tree=$1 applet
  mkdir -p "$tree"/{bin,etc,root,tmp,proc,sys,dev,home,srv}
  chmod 1777 "$tree/tmp"
  cp "$(command -v busybox)" "$tree/bin/busybox"
  for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
  done
  echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
  echo 'root:x:0:' >"$tree/etc/group"
  add_user "$tree"
  # Some images keep their users elsewhere, and link to them.
  mv "$tree/etc/passwd" "$tree/srv/users"
  ln -s ../srv/users "$tree/etc/passwd"
}

# The mirror this machine's apt-get uses for Debian itself: the one source sure to be reachable from here.
mirror() {
  # shellcheck disable=SC2016 # apt-get's own placeholder, not the shell's
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
    grep -E '/debian/?$' | head -n 1
}

debian_tree() {
  local tree=$1 log=$scratch/debootstrap.log from proxy
  from=$(mirror)
  [ -n "$from" ] || {
    echo "images.sh: apt-get knows no Debian mirror on this machine: run apt-get update" >&2
    return 1
  }
  proxy=$(apt-config shell P Acquire::http::Proxy | sed "s/^P='\(.*\)'$/\1/")
  http_proxy=${http_proxy:-$proxy} debootstrap --variant=minbase --include=git,ca-certificates,openssh-client \
    "$SUITE" "$tree" "$from" >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    return 1
  }
  rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{doc,man,locale}/*
  : >"$tree/etc/apt/sources.list"
  add_user "$tree"
}

# What debootstrap makes takes the better part of a minute, so both trees are kept as tarballs between clones.
debian_tarballs() {
  local with=$cache/debian-git-$recipe.tar without=$cache/debian-$recipe.tar
  if [ ! -f "$with" ] || [ ! -f "$without" ]; then
    echo "images.sh: making a Debian root file system (once, about a minute)" >&2
    mkdir -p "$cache"
    rm -f "$cache"/*.tar
    debian_tree "$scratch/debian"
    tar -C "$scratch/debian" --one-file-system -cf "$with.part" . && mv "$with.part" "$with"
    chroot "$scratch/debian" dpkg --purge git git-man openssh-client >/dev/null
    tar -C "$scratch/debian" --one-file-system -cf "$without.part" . && mv "$without.part" "$without"
  fi
  podman import --quiet "$with" localhost/mycli-test/debian-git >/dev/null
  podman import --quiet "$without" localhost/mycli-test/debian >/dev/null
  mkdir "$scratch/no-shell"
  tar -C "$scratch/no-shell" -xf "$without"
  rm -f "$scratch"/no-shell/usr/bin/{sh,dash,bash,rbash,perl*}
  tar -C "$scratch/no-shell" -cf - . | podman import --quiet - localhost/mycli-test/no-shell >/dev/null
}

scratch_tree() {
  mkdir -p "$1"
  cp "$(command -v busybox)" "$1/busybox"
}

current() {
  local name
  [ "$(cat "$stamp" 2>/dev/null)" = "$recipe" ] || return 1
  for name in $names; do
    podman image exists "localhost/mycli-test/$name" || return 1
  done
}

build_all() {
  local target
  scratch=$(mktemp -d)
  busybox_tree "$scratch/busybox"
  tar -C "$scratch/busybox" -cf - . | podman import --quiet - localhost/mycli-test/busybox >/dev/null
  scratch_tree "$scratch/scratch"
  tar -C "$scratch/scratch" -cf - . | podman import --quiet - localhost/mycli-test/scratch >/dev/null
  debian_tarballs
  for target in entrypoint workdir user meddling workspace awkward; do
    podman build --quiet --format docker --target "$target" --tag "localhost/mycli-test/$target" \
      --file "$here/Containerfile" "$scratch/busybox/srv" >/dev/null
  done
  # One that a container still uses stays.
  podman image prune --force >/dev/null 2>&1 || true
  echo "$recipe" >"$stamp"
}

current || build_all
