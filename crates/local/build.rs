//! Builds the program that runs inside tasks (`crates/runner`), so that mycli carries it.
//!
//! It is another program for another place: static, small, and without what mycli links. Cargo
//! cannot build a dependency that way, so cargo is called once more, with a target folder of its
//! own.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest as _, Sha256};

/// The name of the program.
const PROGRAM: &str = "mycli-runner";
/// A program that was built elsewhere, to be carried instead.
const READY_MADE: &str = "MYCLI_RUNNER";

/// Flags of the compiler for a program that needs no loader. At a fixed address nothing has to be
/// relocated at its start, which takes as long as all else of a start.
const STATIC: [&str; 2] = ["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    for part in ["crates/runner", "crates/domain", "Cargo.lock", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
    }
    println!("cargo::rerun-if-env-changed={READY_MADE}");
    let out = PathBuf::from(variable("OUT_DIR"));
    let program = match env::var_os(READY_MADE) {
        Some(path) => PathBuf::from(path),
        None => build(&root, &out),
    };
    let bytes = fs::read(&program)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", program.display()));
    fs::write(out.join(PROGRAM), &bytes).expect("OUT_DIR can be written to");
    // Here, so that no start of mycli reads ten megabytes in order to name them.
    let digest = hex::encode(&Sha256::digest(&bytes)[..8]);
    println!("cargo::rustc-env=RUNNER_DIGEST={digest}");
}

fn build(root: &Path, out: &Path) -> PathBuf {
    let target = variable("TARGET").into_string().expect("a target is text");
    // OUT_DIR is <target folder>/<profile>/build/<package>/out.
    let folder = out
        .ancestors()
        .nth(4)
        .expect("a target folder")
        .join("runner");
    let mut cargo = Command::new(variable("CARGO"));
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_this_build(&name.to_string_lossy())) {
        cargo.env_remove(name);
    }
    if target.ends_with("-linux-gnu") {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", STATIC.join("\u{1f}"));
    }
    let built = cargo
        .current_dir(root)
        .env("CARGO_TARGET_DIR", &folder)
        .args(["build", "--locked", "--package", "runner", "--bin", PROGRAM])
        .args(["--profile", "runner", "--target", &target])
        .status()
        .expect("cargo runs");
    assert!(built.success(), "{PROGRAM} cannot be built");
    folder.join(target).join("runner").join(PROGRAM)
}

/// Whether a variable is about the build that this script belongs to. How to reach registries, and
/// how many jobs may run, counts for every build.
fn is_of_this_build(name: &str) -> bool {
    let of_every_build = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_HTTP",
        "CARGO_NET",
        "CARGO_REGISTR",
        "CARGO_SOURCE",
        "RUSTUP_",
    ];
    (name.starts_with("CARGO") || name.starts_with("RUST"))
        && !of_every_build.iter().any(|kept| name.starts_with(kept))
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"))
}
