//! What is measured, and what it is compared with.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Where the programs are.
pub(crate) struct Programs {
    /// `mycli`, built for release.
    pub(crate) mycli: PathBuf,
}

impl Programs {
    /// Finds them.
    ///
    /// # Panics
    /// When one is missing, with what to do.
    pub(crate) fn find() -> Self {
        Self {
            mycli: in_folder(
                &target().join("release"),
                "mycli",
                "cargo build --release -p mycli",
            ),
        }
    }
}

/// Sees to it that programs to compare with are there.
///
/// # Panics
/// When one is missing, with what to do.
pub(crate) fn require(programs: &[&str]) {
    let path = env::var_os("PATH").unwrap_or_default();
    for program in programs {
        let there = env::split_paths(&path).any(|folder| folder.join(program).is_file());
        assert!(there, "{program} is missing: run tests/setup.sh bench");
    }
}

/// The target folder that this bench was built in, whatever its profile.
pub(crate) fn target() -> PathBuf {
    let bench = env::current_exe().expect("a bench knows itself");
    bench
        .ancestors()
        .nth(3)
        .expect("target/release/deps/bench")
        .to_owned()
}

/// A program in a folder.
///
/// # Panics
/// When it is missing, with what makes it.
pub(crate) fn in_folder(folder: &Path, name: &str, made_by: &str) -> PathBuf {
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is missing: {made_by}",
        program.display()
    );
    program
}
