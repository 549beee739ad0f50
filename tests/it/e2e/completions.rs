//! What a shell completes: a script calls mycli at each TAB, which knows the user's runs.

use std::process::Command;

use tests::sandbox::{Ran, Running, Sandbox};

/// The candidates for these words, as fish asks for them: one on each line, with a description
/// after a tab.
fn candidates(mut command: Command, words: &[&str]) -> Vec<(String, String)> {
    command
        .args(["--", "mycli"])
        .args(words)
        .env("MYCLI_COMPLETE", "fish");
    let Ran { out, err, .. } = Running::of(command).end().exits(0);
    assert_eq!(err, "");
    let candidate = |line: &str| {
        let (value, help) = line.split_once('\t').unwrap_or((line, ""));
        (value.to_owned(), help.to_owned())
    };
    out.lines().map(candidate).collect()
}

fn values(candidates: &[(String, String)]) -> Vec<&str> {
    candidates.iter().map(|(value, _)| value.as_str()).collect()
}

#[test]
fn the_ids_and_groups_of_the_user_s_runs_are_completed() {
    let sandbox = Sandbox::new();
    let (ran, _) = sandbox.exec(&["--group", "nightly", "echo hello"]);
    let id = ran.exits(0).json()["execution_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let complete = |words: &[&str]| candidates(sandbox.command(&[]), words);
    for command in ["status", "logs", "wait", "cancel", "rerun"] {
        let found = complete(&["--local", command, "exec_"]);
        let expected = [(id.clone(), "SUCCEEDED: echo hello".to_owned())];
        assert_eq!(found, expected, "{command}");
    }
    let groups = complete(&["--local", "history", "--group", ""]);
    let expected = [("nightly".to_owned(), "1 run lately".to_owned())];
    assert_eq!(groups, expected);
    // The flag may come after what is completed, as far as the shell sends it.
    assert_eq!(values(&complete(&["status", "--local", "exec_"])), [&id]);
}

#[test]
fn names_of_keys_and_stacks_are_completed() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    drop(
        serve
            .run(&sandbox, &["keys", "create", "ci", "--role", "submit"])
            .exits(0),
    );
    let keys = candidates(serve.command(&sandbox, &[]), &["keys", "revoke", ""]);
    assert!(
        keys.contains(&("ci".to_owned(), "submit".to_owned())),
        "{keys:?}"
    );
    let address = "https://a.example/prod";
    drop(
        sandbox
            .run(&["--stack", "team", "config", "set", "endpoint", address])
            .exits(0),
    );
    let found = candidates(sandbox.command(&[]), &["history", "--stack", ""]);
    assert_eq!(values(&found), ["team"]);
}

/// A TAB prints nothing but candidates, even where there is no stack to ask.
#[test]
fn without_a_stack_nothing_is_completed_and_nothing_is_said() {
    let sandbox = Sandbox::new();
    let found = candidates(sandbox.command(&[]), &["status", "exec_"]);
    assert_eq!(found, []);
    let gone = sandbox.command(&[]);
    let found = candidates(
        gone,
        &["--endpoint", "http://127.0.0.1:1", "status", "exec_"],
    );
    assert_eq!(found, []);
}

#[test]
fn commands_and_fixed_values_are_completed() {
    let sandbox = Sandbox::new();
    let complete = |words: &[&str]| candidates(sandbox.command(&[]), words);
    assert_eq!(values(&complete(&["hist"])), ["history"]);
    let statuses = complete(&["history", "--status", "t"]);
    assert_eq!(values(&statuses), ["timed_out"]);
    let flags = complete(&["exec", "--retry"]);
    assert!(values(&flags).contains(&"--retry-on"), "{flags:?}");
}

/// The script for bash, as bash runs it.
#[test]
fn bash_completes_with_the_script() {
    let sandbox = Sandbox::new();
    let script = sandbox.run(&["completions", "bash"]).exits(0).out;
    let folder = tests::mycli().parent().unwrap().to_owned();
    let asked = format!(
        "export PATH={}:$PATH\n{script}\nCOMP_WORDS=(mycli hist) COMP_CWORD=1 COMP_TYPE=9\n_clap_complete_mycli mycli hist mycli\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        folder.display()
    );
    let output = Command::new("bash").args(["-c", &asked]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim(), "history", "{output:?}");
}
