# `tests/setup.sh` installs just and all that these recipes call.

cache := env("MYCLI_TESTS_CACHE", env("XDG_CACHE_HOME", env("HOME", "/root") / ".cache") / "mycli-tests")
# The release that must work side by side with this one: the first commit of which all stored forms have their versions and rules
# (docs/UPGRADING.md).
upgrade_from := "46cf0add5dcc5a71c27b441c0f1c8c84b69cf88a"
export PATH := cache / "tools/bin" + ":" + env("PATH")

# The recipes
default:
    @just --list --unsorted

# All that CI checks; the tests last, so that their summary ends the output
check: fmt lint deny doc manual examples test

# Formatting
fmt:
    cargo fmt --all --check

# Lints of Rust and shell; calls of one operating system are where they belong; each mutation still applies
lint:
    tests/platform.sh
    tests/mutations.sh check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck

# Whether it compiles for macOS, as far as that can be told without Apple's headers: `just macos`, or `just macos local mycli`
macos *PACKAGES:
    tests/macos.sh {{ PACKAGES }}

# Licences, bans and sources of the dependencies; advisories where their database can be had
deny:
    cargo deny --log-level error check bans licenses sources
    tests/advisories.sh

# The shape of the code: how long functions and files are, circles of imports, words that are not ours
shape *FOLDER:
    cargo run --quiet --locked --package shape -- {{ FOLDER }}

# The documentation builds without a warning, and its examples run
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
    cargo test --workspace --doc --locked --quiet

# Every test: `just test container` runs those whose name has that word. Half as many again as there are processors run at a time, because many wait
test *FILTER:
    cargo nextest run --workspace --locked --test-threads "$(($(nproc) * 3 / 2))" {{ FILTER }}

# The tests that need no root and no service, in under two minutes once all is built
quick:
    cargo nextest run --workspace --locked --profile quick

# What an issue wants seen, by named tests: `just seen records` prints PASS or FAIL, a figure and its aim for each
seen NAME:
    tests/seen.sh {{ NAME }}

# Inputs that broke other tools, as a new user would type them (tests/cases): `just cases`, or `just cases 5 17`
cases *NUMBERS:
    # All of it: for one package alone cargo would choose other features of the AWS SDKs, and build those anew.
    cargo build --locked --workspace
    tests/cases.sh {{ NUMBERS }}

# The commands that README.md and docs/ show, those that need no account, do what is written there: `just manual`, or `just manual docs/ci.md`
manual *DOCUMENTS:
    # All targets, as the tests need them: without those cargo would choose other features, and build twice.
    cargo build --locked --workspace --all-targets
    tests/manual.sh {{ DOCUMENTS }}

# The files of examples/ are what mycli, shellcheck and the lints of templates take
examples:
    cargo build --locked --workspace --all-targets
    tests/examples.sh

# The benches, against the tools a user would take instead; `just bench functions requests` only those sections. MYCLI_BENCH_OLD=PATH names an
# older mycli for `local`
bench *SECTIONS: package
    tests/setup.sh bench
    cargo build --release --locked --package mycli
    cargo build --profile functions --locked --package query --example empty
    # The check of requests against AWS's models is not measured.
    MYCLI_TESTS_NO_MODELS=1 cargo bench --package tests --locked -- {{ SECTIONS }}

# The tests with 100 times the property cases and those too long for every day; ten thousand simulations; every mutation; an upgrade; opinions
nightly: (simulate "10000") mutants upgrade opinions
    PROPTEST_CASES=25600 cargo nextest run --workspace --locked --profile nightly --run-ignored all

# So many simulations in bad weather, from a seed on: `just simulate 10000`, or `just simulate 1 4711 story` for one with its story
simulate COUNT="1000" FROM="0" *STORY:
    cargo run --quiet --locked --package tests --example simulate -- {{ FROM }} {{ COUNT }} {{ STORY }}

# Breaks the code on purpose, one way after the other, and sees that the simulation tells
mutants SEEDS="300" *NAMES:
    tests/mutations.sh {{ SEEDS }} {{ NAMES }}

# Two commits on one stack of the emulator: an upgrade under runs, functions of both at once, and the way back (docs/UPGRADING.md)
upgrade OLD=upgrade_from NEW="HEAD":
    tests/upgrade.sh {{ OLD }} {{ NEW }}

# The contracts of store and queue over a DynamoDB and an SQS that others wrote: `just opinions`, or `just opinions dynalite`
opinions *NAMES:
    tests/setup.sh nightly
    tests/opinions.sh {{ NAMES }}

# libFuzzer on a property of tests/fuzz: `just fuzz request 600`; without a name it tells them
fuzz TARGET="" SECONDS="120":
    #!/usr/bin/env bash
    set -euo pipefail
    # What cargo-fuzz does, on the toolchain that there is: counters for libFuzzer, and no sanitizer, as there is no unsafe code of ours.
    target=${CARGO_TARGET_DIR:-target}
    corpus=$target/fuzz/corpus/{{ TARGET }}
    cargo run --locked --quiet --package fuzz --example seeds -- {{ TARGET }} "$corpus"
    host=$(rustc -vV | sed -n 's/^host: //p')
    export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
    cargo build --locked --profile fuzz --package fuzz --features libfuzzer --target "$host"
    mkdir -p "$target/fuzz/found"
    FUZZ_TARGET={{ TARGET }} "$target/$host/fuzz/fuzz" -max_total_time={{ SECONDS }} -max_len=4096 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$target/fuzz/found/{{ TARGET }}-" "$corpus"

# A release for this machine: built, packed, installed from loopback and used. The workflow does the rest (.github/workflows/release.yml)
release-check:
    release/check.sh

# The functions' zips and what a release is made of (CycloneDX) in target/package, for this machine's processor; with cargo-lambda for another: `just package arm64`
package ARCH="":
    #!/usr/bin/env bash
    set -euo pipefail
    target=${CARGO_TARGET_DIR:-target}
    functions=(--package submit --package launcher --package state-tracker --package query)
    case "{{ ARCH }}" in
    "") cargo build --locked --profile functions "${functions[@]}"; programs=$target/functions ;;
    arm64) cargo lambda build --locked --profile functions --arm64 "${functions[@]}"; programs=$target/lambda ;;
    x86_64) cargo lambda build --locked --profile functions --x86-64 "${functions[@]}"; programs=$target/lambda ;;
    *) echo "just package: {{ ARCH }} is neither arm64 nor x86_64" >&2; exit 2 ;;
    esac
    cargo run --locked --quiet --package deploy --example package -- "$programs" target/package
    case "{{ ARCH }}" in
    "") triple=$(rustc -vV | sed -n 's/^host: //p') ;;
    arm64) triple=aarch64-unknown-linux-gnu ;;
    x86_64) triple=x86_64-unknown-linux-gnu ;;
    esac
    cargo run --locked --quiet --package deploy --example sbom -- "$triple" >target/package/sbom.cdx.json
    ls -l target/package
