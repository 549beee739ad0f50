//! This machine's secrets.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use super::stand_in::{Mycli, Ran};

#[track_caller]
fn given(mut command: Command, text: &str) -> Ran {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("mycli runs");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    Ran::from(child.wait_with_output().expect("it ends"))
}

#[test]
fn a_value_is_kept_for_its_owner_and_reaches_the_command() {
    let mycli = Mycli::unconfigured();
    let set = |text: &str| given(mycli.command(&["--local", "secrets", "set", "TOKEN"]), text);
    let ran = set("hunter2 with\ttab\n").exits(0).prints("");
    assert!(!ran.err.contains("hunter2"), "{ran:#?}");
    let file = mycli.home.path().join(".mycli/local/secrets/TOKEN");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let listed = mycli.run(&["--local", "secrets", "list"]).exits(0).out;
    assert!(listed.contains("TOKEN") && !listed.contains("hunter2"), "{listed}");
    mycli
        .run(&["--local", "exec", "--no-repo", "--secret", "TOKEN", "printf '<%s>' \"$TOKEN\""])
        .exits(0)
        .prints("<hunter2 with\ttab>\n");
    mycli.run(&["--local", "secrets", "remove", "TOKEN"]).exits(0);
    assert!(!file.exists());
    mycli.run(&["--local", "secrets", "remove", "TOKEN"]).exits(1).says("no secret TOKEN");
}

#[test]
fn an_empty_value_or_a_wrong_name_sets_nothing() {
    let mycli = Mycli::unconfigured();
    given(mycli.command(&["--local", "secrets", "set", "TOKEN"]), "\n").exits(1).says("empty");
    let ran = mycli.run(&["--local", "secrets", "set", "TOKEN=hunter2"]).exits(2);
    assert!(!ran.err.contains("hunter2"), "{ran:#?}");
    let ran = mycli.run(&["--local", "secrets", "set", "TOKEN", "hunter2"]).exits(2).says("standard input");
    assert!(!ran.err.contains("hunter2"), "{ran:#?}");
    mycli.run(&["--local", "secrets", "list"]).exits(0).prints("").says("no secrets");
}
