//! That this package has a test of its program is why `cargo test --workspace` and nextest build
//! the program itself, which the package `tests` then runs from beside its own.

use std::process::Command;

#[test]
fn the_program_knows_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_mycli"))
        .arg("--version")
        .output()
        .expect("mycli runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        concat!("mycli ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
