//! Packs built functions into zips, for `just package`. Usage: `cargo run -p deploy --example
//! package -- FOLDER_OF_PROGRAMS FOLDER_FOR_ZIPS`

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [programs, zips] = folders.as_slice() else {
        tell("usage: package FOLDER_OF_PROGRAMS FOLDER_FOR_ZIPS");
        return ExitCode::from(2);
    };
    match deploy::package::pack(programs, zips) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program's own words")]
fn tell(text: &str) {
    eprintln!("{text}");
}
