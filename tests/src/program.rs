//! The program under test.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The built `mycli` beside the running test: `cargo nextest run --workspace` builds both.
///
/// # Panics
/// When it is missing, or older than its sources, since a test of an old program proves nothing.
#[must_use]
pub fn mycli() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows itself");
    let folder = test.ancestors().nth(2).expect("target/debug/deps/test");
    let program = folder.join("mycli");
    let built = modified(&program)
        .unwrap_or_else(|| panic!("{} is missing: cargo build -p mycli", program.display()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let newest = ["cli/src", "crates"]
        .iter()
        .filter_map(|part| newest_source(&root.join(part)))
        .max();
    if let Some((at, source)) = newest.filter(|(at, _)| *at > built) {
        panic!(
            "{} ({built:?}) is older than {} ({at:?}): cargo build -p mycli",
            program.display(),
            source.display()
        );
    }
    program
}

/// Another program of this workspace, built beside the running test.
///
/// # Panics
/// When it is missing.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows itself");
    let program = test
        .ancestors()
        .nth(2)
        .expect("target/debug/deps/test")
        .join(name);
    assert!(
        program.exists(),
        "{} is missing: cargo build --workspace",
        program.display()
    );
    program
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// Returns the source file that changed last. Unit tests in their own files do not count: they are
/// not part of the program and do not rebuild it.
fn newest_source(path: &Path) -> Option<(SystemTime, PathBuf)> {
    let name = path.file_name()?.to_str()?;
    if path.is_dir() && name != "tests" {
        let entries = fs::read_dir(path).ok()?;
        return entries
            .filter_map(|entry| newest_source(&entry.ok()?.path()))
            .max();
    }
    let is_source = name.ends_with(".rs") && name != "tests.rs";
    if is_source {
        Some((modified(path)?, path.to_owned()))
    } else {
        None
    }
}
