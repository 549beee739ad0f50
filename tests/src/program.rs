//! The program under test.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The built `mycli`, beside the running test: `cargo nextest run --workspace` builds both.
///
/// # Panics
/// When it is missing, or older than its sources: a test of an old program proves nothing.
#[must_use]
pub fn mycli() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows itself");
    let folder = test.ancestors().nth(2).expect("target/debug/deps/test");
    let program = folder.join("mycli");
    let built = fs::metadata(&program).and_then(|file| file.modified());
    let built = built.unwrap_or_else(|error| panic!("{}: {error}; build it: cargo build -p mycli", program.display()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let newest = ["cli", "crates"].iter().filter_map(|part| newest_source(&root.join(part))).max();
    assert!(
        newest.is_none_or(|newest| newest <= built),
        "{} is older than its sources: cargo build -p mycli",
        program.display()
    );
    program
}

fn newest_source(path: &Path) -> Option<SystemTime> {
    if path.is_dir() {
        let entries = fs::read_dir(path).ok()?;
        return entries.filter_map(|entry| newest_source(&entry.ok()?.path())).max();
    }
    let is_source = path.extension().is_some_and(|extension| extension == "rs" || extension == "sh");
    if is_source { fs::metadata(path).ok()?.modified().ok() } else { None }
}
