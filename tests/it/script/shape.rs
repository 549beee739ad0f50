//! The text of the script.

use std::{fs, process::Command};

use domain::script;

#[test]
fn shellcheck_finds_nothing() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/domain/src/script/");
    let files = ["bootstrap.sh", "supervise.sh"].map(|name| format!("{directory}{name}"));
    let output = Command::new("shellcheck")
        .args(["-s", "sh"])
        .args(files)
        .output()
        .expect("shellcheck");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn each_shell_can_read_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), script::text()).unwrap();
    for shell in [
        &["dash"][..],
        &["busybox", "sh"],
        &["bash"],
        &["bash", "--posix"],
    ] {
        let output = Command::new(shell[0])
            .args(&shell[1..])
            .arg("-n")
            .arg(file.path())
            .output()
            .expect("a shell");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{shell:?}: {output:?}"
        );
    }
}
