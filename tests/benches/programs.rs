//! What is measured.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Where the programs are.
pub(crate) struct Programs {
    /// `mycli`, built for release.
    pub(crate) mycli: PathBuf,
}

impl Programs {
    /// Finds them all.
    ///
    /// # Panics
    /// When one is missing, with what to do.
    pub(crate) fn find() -> Self {
        for (program, option) in
            [("xargs", "--version"), ("curl", "--version"), ("pueue", "--version"), ("pueued", "--version")]
        {
            let answer = Command::new(program).arg(option).output();
            assert!(
                answer.is_ok_and(|answer| answer.status.success()),
                "{program} is missing: run tests/setup.sh bench"
            );
        }
        Self { mycli: released() }
    }
}

/// The release build in the same target folder as this bench, whatever profile the bench itself has.
fn released() -> PathBuf {
    let bench = env::current_exe().expect("a bench knows itself");
    let program =
        bench.ancestors().nth(3).map(|target| target.join("release/mycli")).expect("target/release/deps/bench");
    assert!(Path::new(&program).is_file(), "{} is missing: cargo build --release -p mycli", program.display());
    program
}
