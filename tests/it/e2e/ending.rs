//! How a command's end is reported: by `exec`'s exit code, and by `status` in text and in JSON.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::sandbox::{Process, Sandbox};

/// Checks that the record, `status -o json`, `status` and `history` all report the same end.
#[track_caller]
fn check_told(
    sandbox: &Sandbox,
    record: &Value,
    status: &str,
    exit_code: Option<i32>,
    reason: Option<&str>,
) {
    assert_eq!(
        (&record["status"], &record["exit_code"], &record["reason"]),
        (&json!(status), &json!(exit_code), &json!(reason)),
        "{record:#}"
    );
    let id = record["execution_id"].as_str().unwrap();
    assert_eq!(sandbox.record(id), *record);
    let page = sandbox.local(&["status", id]).exits(0).out;
    let mut lines = page.lines();
    assert_eq!(lines.next(), Some(&*format!("{id}  {status}")), "{page}");
    if let Some(code) = exit_code {
        assert_eq!(lines.next(), Some(&*format!("exit code  {code}")), "{page}");
    }
    if let Some(reason) = reason {
        assert_eq!(
            lines.next(),
            Some(&*format!("reason     {reason}")),
            "{page}"
        );
    }
    let table = sandbox.local(&["history", "--limit", "1"]).exits(0).out;
    let row = table.lines().nth(1).unwrap();
    assert!(row.starts_with(&format!("{id}  {status}")), "{row}");
}

#[track_caller]
fn check(
    arguments: &[&str],
    code: i32,
    status: &str,
    exit_code: Option<i32>,
    reason: Option<&str>,
) {
    let sandbox = Sandbox::new();
    let (ran, record) = sandbox.exec(arguments);
    assert_eq!(ran.code, Some(code), "{ran:#?}");
    check_told(&sandbox, &record, status, exit_code, reason);
}

#[test]
fn a_command_that_succeeds() {
    check(&["true"], 0, "SUCCEEDED", Some(0), None);
}

#[test]
fn a_command_s_own_exit_code_is_passed_on() {
    check(
        &["exit 7"],
        7,
        "FAILED",
        Some(7),
        Some("the command exited with code 7"),
    );
    check(
        &["--", "sh", "-c", "exit 255"],
        255,
        "FAILED",
        Some(255),
        Some("the command exited with code 255"),
    );
    check(
        &["no-such-program-anywhere"],
        127,
        "FAILED",
        Some(127),
        Some("the command exited with code 127"),
    );
}

#[test]
fn a_killed_command_is_told_as_a_shell_tells_it() {
    let killed = "the command exited with code 137 (128 + 9: killed by SIGKILL)";
    check(&["kill -9 $$"], 137, "FAILED", Some(137), Some(killed));
}

#[test]
fn a_command_s_own_124_and_125_are_not_ours() {
    for code in [124, 125] {
        let reason = format!("the command exited with code {code}");
        check(
            &[&format!("exit {code}")],
            code,
            "FAILED",
            Some(code),
            Some(&reason),
        );
    }
}

#[test]
fn a_timeout_ends_background_and_foreground_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let begun = Instant::now();
    let (ran, record) = sandbox.exec(&[
        "--timeout",
        "2s",
        "sleep 3600 & (trap '' TERM; setsid sleep 3600) & echo begun; sleep 3600",
    ]);
    let took = begun.elapsed();
    assert_eq!(ran.code, Some(124), "{ran:#?}");
    // The promise: 2 s, at most 10 s of grace, and some time for the rest.
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(
        ran.err.starts_with("begun\n"),
        "what it printed before is shown: {ran:#?}"
    );
    let id = record["execution_id"].as_str().unwrap();
    let left: Vec<_> = Process::all()
        .filter(|process| process.mentions(id))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    check_told(
        &sandbox,
        &record,
        "TIMED_OUT",
        None,
        Some("timed out after 2s"),
    );
}

#[test]
fn a_run_that_cannot_start_says_what_the_matter_is() {
    // Nobody listens at this address, so no engine of this machine answers.
    let sandbox = Sandbox::new().with("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let (ran, record) = sandbox.exec(&["--image", "busybox", "true"]);
    assert_eq!(ran.code, Some(125), "{ran:#?}");
    let reason = record["reason"].as_str().unwrap();
    assert!(
        reason.contains("/nonexistent/docker.sock") && reason.contains("--host"),
        "{reason}"
    );
    check_told(&sandbox, &record, "FAILED", None, Some(reason));
    let (ran, record) = sandbox.exec(&["--image", "busybox", "--host", "echo here"]);
    assert!(ran.err.contains("not in the image busybox"), "{ran:?}");
    assert_eq!(
        (ran.code, &record["status"]),
        (Some(0), &json!("SUCCEEDED")),
        "{ran:#?}"
    );
    assert!(ran.err.contains("here\n"), "{ran:#?}");
}

#[test]
fn what_is_not_known_is_null() {
    let (_, record) = Sandbox::new().exec(&["true"]);
    for field in [
        "reason",
        "commit",
        "image_digest",
        "waiting",
        "repo",
        "branch",
        "image",
        "lock",
        "group",
        "name",
    ] {
        assert_eq!(record.get(field), Some(&Value::Null), "{field}");
    }
    for event in record["events"].as_array().unwrap() {
        assert_eq!(event.get("reason"), Some(&Value::Null), "{event}");
    }
}

#[test]
fn a_command_is_given_the_words_it_was_given() {
    let sandbox = Sandbox::new();
    let odd = "a  b\n'\"$HOME`id`\\";
    sandbox
        .local(&["exec", "--no-repo", "--", "printf", "%s|", odd, "", "*"])
        .exits(0)
        .prints(&format!("{odd}||*|\n"));
    sandbox
        .local(&[
            "exec",
            "--no-repo",
            "-e",
            &format!("ODD={odd}"),
            "printf '%s|' \"$ODD\"",
        ])
        .exits(0)
        .prints(&format!("{odd}|\n"));
}

#[test]
fn a_command_starts_in_an_empty_place_with_a_clean_environment() {
    let sandbox = Sandbox::new()
        .with("LEAKED", "yes")
        .with("AWS_SECRET_ACCESS_KEY", "yes");
    let ran = sandbox
        .local(&["exec", "--no-repo", "ls -A; env; cat"])
        .exits(0);
    assert!(ran.out.contains("PATH="), "{ran:#?}");
    assert!(
        !ran.out.contains("LEAKED") && !ran.out.contains("AWS_"),
        "{ran:#?}"
    );
    assert!(
        !ran.out
            .lines()
            .any(|line| line.starts_with("MYCLI_NONCE") || line.starts_with("MYCLI_COMMAND=")),
        "{ran:#?}"
    );
}
