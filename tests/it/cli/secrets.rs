//! This machine's secrets.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use super::stand_in::{Mycli, Ran};

#[track_caller]
fn given(mut command: Command, text: impl AsRef<[u8]>) -> Ran {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("mycli runs");
    // A process that refuses early does not read the rest, so writing may fail.
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_ref())
        .ok();
    Ran::from(child.wait_with_output().expect("it ends"))
}

#[test]
fn a_value_is_kept_for_its_owner_and_reaches_the_command() {
    let mycli = Mycli::unconfigured();
    let set = |text: &str| given(mycli.command(&["--local", "secrets", "set", "TOKEN"]), text);
    let ran = set("hunter2 with\ttab\n").exits(0).prints("");
    assert!(!ran.err.contains("hunter2"), "{ran:#?}");
    let file = mycli.home.path().join(".mycli/local/secrets/TOKEN");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let listed = mycli.run(&["--local", "secrets", "list"]).exits(0).out;
    assert!(
        listed.contains("TOKEN") && !listed.contains("hunter2"),
        "{listed}"
    );
    mycli
        .run(&[
            "--local",
            "exec",
            "--no-repo",
            "--secret",
            "TOKEN",
            "printf '<%s>' \"$TOKEN\"",
        ])
        .exits(0)
        .prints("<hunter2 with\ttab>\n");
    mycli
        .run(&["--local", "secrets", "remove", "TOKEN"])
        .exits(0);
    assert!(!file.exists());
    mycli
        .run(&["--local", "secrets", "remove", "TOKEN"])
        .exits(1)
        .says("no secret TOKEN");
}

#[test]
fn an_empty_value_or_a_wrong_name_sets_nothing() {
    let mycli = Mycli::unconfigured();
    given(mycli.command(&["--local", "secrets", "set", "TOKEN"]), "\n")
        .exits(1)
        .says("empty");
    let ran = mycli
        .run(&["--local", "secrets", "set", "TOKEN=hunter2"])
        .exits(2);
    assert!(!ran.err.contains("hunter2"), "{ran:#?}");
    let ran = mycli
        .run(&["--local", "secrets", "set", "TOKEN", "hunter2"])
        .exits(2)
        .says("standard input");
    assert!(!ran.err.contains("hunter2"), "{ran:#?}");
    mycli
        .run(&["--local", "secrets", "list"])
        .exits(0)
        .prints("")
        .says("no secrets");
}

#[test]
fn a_value_that_no_run_could_be_given_is_refused_at_once_and_never_shown() {
    let mycli = Mycli::unconfigured();
    let long = "hidden".repeat(35_000);
    let endless = "hidden".repeat(400_000);
    let (nul, not_text): (&[u8], &[u8]) = (b"hidden\0b", b"hidden\xff\xfe");
    for name in ["T", "GIT_TOKEN", "GIT_SSH_KEY"] {
        for (value, words) in [
            (nul, "NUL"),
            (not_text, "UTF-8"),
            (long.as_bytes(), "210000 bytes"),
            (endless.as_bytes(), "1048576 bytes"),
        ] {
            let ran = given(mycli.command(&["--local", "secrets", "set", name]), value)
                .exits(2)
                .prints("")
                .says(words);
            assert!(!ran.err.contains("hidden"), "{name}: {words}");
        }
    }
    mycli
        .run(&["--local", "secrets", "list"])
        .exits(0)
        .prints("")
        .says("no secrets");
}

#[test]
fn the_longest_value_that_is_kept_reaches_the_command() {
    let mycli = Mycli::unconfigured();
    let set = |bytes: usize| {
        given(
            mycli.command(&["--local", "secrets", "set", "T"]),
            "x".repeat(bytes),
        )
    };
    set(131_070).exits(2).says("131069");
    set(131_069).exits(0);
    mycli
        .run(&[
            "--local",
            "exec",
            "--no-repo",
            "--secret",
            "T",
            "echo ${#T}",
        ])
        .exits(0)
        .prints("131069\n");
}

#[test]
fn a_file_made_by_hand_that_no_run_can_be_given_is_told_before_anything_starts() {
    let mycli = Mycli::unconfigured();
    given(mycli.command(&["--local", "secrets", "set", "T"]), "x").exits(0);
    let file = mycli.home.path().join(".mycli/local/secrets/T");
    for (value, words) in [(&b"hidden\0b"[..], "NUL"), (b"hidden\xff", "UTF-8")] {
        fs::write(&file, value).unwrap();
        let ran = mycli
            .run(&["--local", "exec", "--no-repo", "--secret", "T", "true"])
            .exits(2)
            .says(words);
        assert!(
            ran.err.contains("secrets[0]: `T`") && !ran.err.contains("hidden"),
            "{ran:#?}"
        );
    }
    fs::write(&file, "sound").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    mycli
        .run(&["--local", "exec", "--no-repo", "--secret", "T", "true"])
        .exits(2)
        .says("chmod 600");
}
