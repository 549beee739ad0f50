//! The program that is measured, and those it is compared with.

use std::{
    env,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// The paths of the programs.
pub(crate) struct Programs {
    /// `mycli`, a release build.
    pub(crate) mycli: PathBuf,
    /// The folder of all histories. They are removed only at the end: where a file system has no
    /// journal, ext4 looks at each file that was removed in the last minutes before it makes one.
    homes: TempDir,
}

impl Programs {
    /// Finds the programs.
    ///
    /// # Panics
    /// If one is missing; the message says what to do.
    pub(crate) fn find() -> Self {
        Self {
            mycli: in_folder(
                &target().join("release"),
                "mycli",
                "cargo build --release -p mycli",
            ),
            homes: tempfile::tempdir().expect("a directory"),
        }
    }

    /// A new folder for a history.
    pub(crate) fn home(&self) -> PathBuf {
        let home = tempfile::tempdir_in(self.homes.path());
        home.expect("a directory").keep()
    }
}

/// Checks that the programs to compare with are installed.
///
/// # Panics
/// If one is missing; the message says what to do.
pub(crate) fn require(programs: &[&str]) {
    let path = env::var_os("PATH").unwrap_or_default();
    for program in programs {
        let there = env::split_paths(&path).any(|folder| folder.join(program).is_file());
        assert!(there, "{program} is missing: run tests/setup.sh bench");
    }
}

/// The target folder that this bench was built in, for any profile.
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
/// If it is missing; the message says how to build it.
pub(crate) fn in_folder(folder: &Path, name: &str, made_by: &str) -> PathBuf {
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is missing: {made_by}",
        program.display()
    );
    program
}
