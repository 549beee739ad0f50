#!/usr/bin/env bash
# Installs what the tests need on a Debian 12 machine that has a Rust toolchain and Python; run again, it only looks.
# Needs root for apt-get and for the containers.
#
#   tests/setup.sh           for `just check`
#   tests/setup.sh bench     also what the benches compare with
#   tests/setup.sh audit     cargo-audit alone, for tests/advisories.sh
#   tests/setup.sh nightly   the second opinions alone, for tests/opinions.sh
#
# Nothing is fetched but through apt-get, pip, npm and cargo, as this machine has them configured. Tools of ours and the
# Debian image's file system are kept in $MYCLI_TESTS_CACHE (default ~/.cache/mycli-tests), so that a fresh clone need
# not build them again.
set -euo pipefail

JUST=1.59.0
NEXTEST=0.9.143
CARGO_DENY=0.20.2
CARGO_AUDIT=0.22.2
MINISTACK=1.5.33 # As in tests/emulator.sh.
BOTOCORE=1.44.8  # As in tests/models.py.
REGEX=2026.11.19
PARLIAMENT=1.6.4 # As in tests/policies.py.
CFN_LINT=1.58.0
CHECKOV=3.2.459
SCHEMATHESIS=4.32.5
PUEUE=4.0.4
DYNALITE=4.0.0 # As in tests/opinions.sh.
MOTO=5.2.5     # As in tests/opinions.sh.
FLASK=3.1.3
FLASK_CORS=6.0.5
NODE=20 # The oldest that dynalite runs on.

# For the containers, the script's shells and servers, the local package repositories, the build, and the checks.
PACKAGES=(
  podman runc conmon netavark aardvark-dns slirp4netns iptables debootstrap busybox-static util-linux
  docker.io docker-registry curl
  bash dash git openssh-client openssh-server procps
  faketime patch make jq
  dpkg-dev apt-utils
  gcc libc6-dev binutils openssl
  shellcheck
)
BENCH_PACKAGES=(munge slurm-wlm)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cache=${MYCLI_TESTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mycli-tests}
tools=$cache/tools
policy=/usr/sbin/policy-rc.d
policy_is_ours=

say() {
  echo "setup.sh: $*" >&2
}

die() {
  say "$*"
  exit 1
}

clean_up() {
  [ -z "$policy_is_ours" ] || rm -f "$policy"
}
trap clean_up EXIT

installed() {
  dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'
}

# A package may start a server when it is installed (openssh-server does). The tests start their own, on loopback.
forbid_services() {
  [ -e "$policy" ] && return
  policy_is_ours=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
}

# The tests want programs, not a machine that lets people in, or runs a cluster, from its next boot on.
keep_off() {
  [ -d /run/systemd/system ] && systemctl disable --quiet "$@"
  return 0
}

install_packages() {
  local package missing=()
  for package in "$@"; do
    installed "$package" || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "these Debian packages are missing and only root can install them: ${missing[*]}"
  command -v apt-get >/dev/null || die "apt-get is missing; these packages are needed: ${missing[*]}"
  say "installing ${missing[*]}"
  forbid_services
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
  case " ${missing[*]} " in *" openssh-server "*) keep_off ssh ;; esac
  case " ${missing[*]} " in *" docker.io "*) keep_off docker docker.socket containerd ;; esac
  case " ${missing[*]} " in *" docker-registry "*) keep_off docker-registry ;; esac
  case " ${missing[*]} " in *" slurm-wlm "*) keep_off munge slurmctld slurmd ;; esac
}

# install_python NAME REQUIREMENT…: from PyPI into a folder of its own, as Debian's Python wants it (PEP 668).
install_python() {
  local folder=$tools/$1
  [ -d "$folder" ] && return
  python3 -m pip --version >/dev/null 2>&1 || install_packages python3 python3-pip
  say "installing $1"
  rm -rf "$folder.part"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-warn-conflicts \
    --target "$folder.part" "${@:2}" >&2
  mv "$folder.part" "$folder"
}

# A ready-made binary.
install_just() {
  install_python "just-$JUST" "rust-just==$JUST"
  ln -sfn "$tools/just-$JUST/bin/just" "$tools/bin/just"
}

# The tests' AWS, with what it needs to run ECS tasks as containers. Not `cryptography`, which it would use to open one
# more listener.
install_ministack() {
  install_python "ministack-$MINISTACK" "ministack==$MINISTACK" 'docker>=7'
}

# AWS's models of its APIs, and regular expressions as they have them. Nothing is run of botocore, so it needs nothing else.
install_models() {
  install_python "botocore-$BOTOCORE" --no-deps --no-compile "botocore==$BOTOCORE" "regex==$REGEX"
}

# A linter of IAM policies with AWS's list of actions. It asks setuptools for `pkg_resources`, which newer ones have not.
install_parliament() {
  install_python "parliament-$PARLIAMENT" --no-deps "parliament==$PARLIAMENT" json-cfg==0.4.2 kwonly-args==1.0.10 'pyyaml>=6' setuptools==80.9.0
}

# install_command PACKAGE VERSION: a folder for each, because they want different versions of the same.
install_command() {
  local folder=$tools/$1-$2
  install_python "$1-$2" "$1==$2"
  printf '#!/bin/sh\nPYTHONPATH="%s" exec python3 "%s" "$@"\n' "$folder" "$folder/bin/$1" >"$tools/bin/$1"
  chmod +x "$tools/bin/$1"
}

# Only what the two services need: moto's own "server" brings ten times as much.
install_moto() {
  install_python "moto-$MOTO" "moto[dynamodb,sqs]==$MOTO" "flask==$FLASK" "flask-cors==$FLASK_CORS"
}

# No script of a package is run: what would be compiled comes ready-made.
install_dynalite() {
  local folder=$tools/dynalite-$DYNALITE version
  [ -d "$folder" ] && return
  command -v npm >/dev/null || install_packages nodejs npm
  version=$(node --version)
  version=${version#v}
  [ "${version%%.*}" -ge "$NODE" ] || die "dynalite $DYNALITE needs Node.js $NODE or newer, and this is $version"
  say "installing dynalite-$DYNALITE"
  rm -rf "$folder.part"
  npm install --silent --no-audit --no-fund --no-save --ignore-scripts --prefix "$folder.part" "dynalite@$DYNALITE" >&2
  mv "$folder.part" "$folder"
}

# install_crate CRATE VERSION: compiled here, for speed of compiling and not of running.
install_crate() {
  say "compiling $1 $2 (once, some minutes)"
  (
    cd / # Away from the workspace's own settings.
    unset CARGO_TARGET_DIR
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
      cargo install --quiet --locked --root "$tools" --version "$2" "$1"
  ) >&2
}

# Any nextest will do that the configuration accepts (.config/nextest.toml names the oldest).
install_nextest() {
  cargo nextest --version >/dev/null 2>&1 || install_crate cargo-nextest "$NEXTEST"
}

# install_pinned CRATE VERSION PROGRAM
install_pinned() {
  case "$("$3" --version 2>/dev/null)" in
  *" $2"*) ;;
  *) install_crate "$1" "$2" ;;
  esac
}

command -v cargo >/dev/null || die "a Rust toolchain (cargo) is needed and is not on PATH"
mkdir -p "$tools/bin"
PATH=$tools/bin:$PATH
if [ "${1:-}" = audit ]; then
  install_pinned cargo-audit "$CARGO_AUDIT" cargo-audit
  exit
fi
if [ "${1:-}" = nightly ]; then
  install_dynalite
  install_moto
  exit
fi
install_packages "${PACKAGES[@]}"
install_just
install_ministack
install_models
install_parliament
install_command cfn-lint "$CFN_LINT"
install_command checkov "$CHECKOV"
install_command schemathesis "$SCHEMATHESIS"
install_nextest
install_pinned cargo-deny "$CARGO_DENY" cargo-deny
"$here/images/images.sh"
if [ "${1:-}" = bench ]; then
  install_packages "${BENCH_PACKAGES[@]}"
  install_pinned pueue "$PUEUE" pueue
fi
