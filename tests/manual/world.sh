# shellcheck shell=bash disable=SC2034,SC2016
# Where a reader of the manual is: in the clone of a repository, with a stack. The stack is a `local serve`, which has the same API. Also the
# stand-ins for what only the reader has: names that the manual gives to things, programs of others, the far ends of the network.
#
# $W is the document's scratch folder, $DOCUMENT its name. $typed is the file that commands have as standard input.

typed=$W/typed
origin=file://$W/origin.git
export COMMIT JOB_ID=job-1 STAGE=test

in_the_world() {
  mkdir -p "$W/project" "$HOME/.ssh"
  printf 'a value\n' >"$typed"
  git config --global user.name reader
  git config --global user.email reader@localhost
  git config --global init.defaultBranch main
  cd "$W/project" || return
  git init --quiet
  printf 'test:\n\t@echo 12 tests passed\ndeploy nightly:\n\t@echo $@\n' >Makefile
  printf '#!/bin/sh\necho deployed "$VALUE"\n' >deploy.sh
  chmod +x deploy.sh
  printf 'ci.key\nrecord.json\n*.json\n' >.gitignore
  # Not committed in a real repository, but then each command would warn of it.
  printf 'LEVEL=3\n' >.env
  printf '{"command": "echo a"}\n{"command": "echo b", "cpu": 512}\n' >jobs.jsonl
  printf 'one.jpg\ntwo.jpg\n' >names.txt
  git add --all
  git commit --quiet --message 'Add a test'
  git tag v1.2
  git branch v2
  git branch fix
  git clone --quiet --bare . "$W/origin.git"
  git remote add origin "$origin"
  git fetch --quiet
  printf 'a key\n' >"$HOME/.ssh/deploy_key"
  # From the manual's own repository: what a reader of docs/ACCOUNT.md has.
  mkdir docs
  cp -r "$MANUAL/../../docs/init-policy" docs/
  a_stack
}

# `local serve` outside of the reader's home, whose ~/.mycli is then as new.
a_stack() {
  local line=''
  touch "$W/stack.out"
  HOME=$W/stack command mycli local serve --listen 127.0.0.1:0 -o json >"$W/stack.out" 2>&1 98<&- 99>&- &
  until line=$(grep -m 1 key_file "$W/stack.out"); do
    kill -0 $! || return
    sleep 0.05
  done
  jq -r .endpoint <<<"$line" >"$W/stack.endpoint"
  # As `mycli init` leaves it.
  command mycli config set endpoint "$(cat "$W/stack.endpoint")" 2>/dev/null
  command mycli config set key <"$W/stack/.mycli/local/serve.key" 2>/dev/null
}

[ -d "$W/project" ] || in_the_world
cd "$W/project" || exit
COMMIT=$(git rev-parse HEAD)
CI_SECRET=$(cat "$W/stack/.mycli/local/serve.key")

# What the manual's words stand for.
mycli() {
  local word words=() images=localhost/mycli-test
  for word; do
    word=${word//https:\/\/github.com\/me\/infra/$origin}
    word=${word//0D7A/$known}
    word=${word/#alpine:3/$images/busybox}
    word=${word/#node:22/$images/debian-git}
    # Programs of others: found, and happy.
    word=${word//npm /: npm }
    word=${word//terraform /: terraform }
    word=${word//convert /: convert }
    words+=("$word")
  done
  case ${MYCLI_ENDPOINT:-} in
  https://….execute-api.*) MYCLI_ENDPOINT=$(cat "$W/stack.endpoint") command mycli "${words[@]}" ;;
  *) command mycli "${words[@]}" ;;
  esac
}

# From a clone of the sources `cargo run` builds mycli first. That is done.
cargo() {
  [[ "$*" =~ ^run\ .*--package\ mycli\ --\  ]] || { echo "cargo is not run" >&2 && return 1; }
  while [ "$1" != -- ]; do shift; done
  mycli "${@:2}"
}

# AWS's own command: takes all, if the files that it is to read are there.
aws() {
  local word
  for word; do
    case $word in
    file://*) python3 -m json.tool "${word#file://}" >/dev/null || return ;;
    esac
  done
}

ssh-keyscan() {
  echo "$1 ssh-ed25519 AAAA"
}

# What the document's runs and groups are called there.
known=''
case $DOCUMENT in
docs/running.md) known=$(command mycli exec --detach 'make test' 2>/dev/null) ;;
docs/many-at-once.md)
  # One of G fails, and does not when it is run again; another one stays for longer.
  command mycli exec --detach --no-repo --group G 'sleep 120' >/dev/null
  command mycli bulk --no-repo --wait --group G --map-over-values a b -- \
    sh -c "[ \$VALUE = a ] || [ -e $W/failed ] || { touch $W/failed; exit 1; }" >/dev/null 2>&1
  ;;
esac
