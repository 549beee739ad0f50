//! nextest builds the program of this package only because the package has a test of it. The
//! end-to-end tests deploy that program.

use std::process::Command;

#[test]
fn without_its_environment_it_says_what_is_missing_and_ends() {
    let output = Command::new(env!("CARGO_BIN_EXE_state-tracker"))
        .env_clear()
        .output()
        .expect("the function runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("MYCLI_TABLE"),
        "{said}"
    );
}
