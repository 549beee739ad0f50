//! Completions in a shell: a script calls mycli at each TAB, and mycli knows the user's runs.

use std::{
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use tests::sandbox::{Ran, Running, Sandbox, eventually, files};

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

/// The same, once there are any: on a busy machine mycli may give up before the answer comes.
fn some(command: impl Fn() -> Command, words: &[&str]) -> Vec<(String, String)> {
    eventually("there are candidates", || {
        Some(candidates(command(), words)).filter(|found| !found.is_empty())
    })
}

#[test]
fn the_ids_and_groups_of_the_user_s_runs_are_completed() {
    let sandbox = Sandbox::new();
    let (ran, _) = sandbox.exec(&["--group", "nightly", "echo hello"]);
    let id = ran.exits(0).json()["execution_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let complete = |words: &[&str]| some(|| sandbox.command(&[]), words);
    for command in ["status", "logs", "wait", "rerun"] {
        let found = complete(&["--local", command, "exec_"]);
        let expected = [(id.clone(), "SUCCEEDED: echo hello".to_owned())];
        assert_eq!(found, expected, "{command}");
    }
    let groups = complete(&["--local", "history", "--group", ""]);
    let expected = [("nightly".to_owned(), "1 run lately".to_owned())];
    assert_eq!(groups, expected);
    // The flag may come after the command.
    assert_eq!(values(&complete(&["status", "--local", "exec_"])), [&id]);
    let words = ["cancel", "--group", "x", "--local", "--group", ""];
    assert_eq!(values(&complete(&words)), ["nightly"]);
    let over = candidates(sandbox.command(&[]), &["--local", "cancel", "exec_"]);
    assert_eq!(over, [], "nothing is left to cancel");
}

/// A TAB takes no part in the machine's work: it makes no history, and takes no work over from a
/// process that died.
#[test]
fn a_tab_changes_nothing_on_this_machine() {
    let sandbox = Sandbox::new();
    let found = candidates(sandbox.command(&[]), &["--local", "status", "exec_"]);
    assert_eq!(found, []);
    assert!(!sandbox.store().exists());
    let run = sandbox.start(&["--local", "exec", "--no-repo", "sleep 3600"]);
    let id = eventually("it is recorded", || {
        let found = candidates(sandbox.command(&[]), &["--local", "status", "exec_"]);
        Some(found.first()?.0.clone())
    });
    run.signal(rustix::process::Signal::KILL);
    drop(run.end());
    let owners = || {
        let mut owners = files(&sandbox.store().join("pumps"));
        owners.sort();
        owners
    };
    let before = owners();
    let found = some(|| sandbox.command(&[]), &["--local", "status", "exec_"]);
    assert_eq!(values(&found), [&id]);
    assert_eq!(owners(), before);
    let supervisors = sandbox
        .processes()
        .into_iter()
        .filter(|process| process.shown().contains("supervise"));
    assert_eq!(supervisors.count(), 0);
}

/// bash takes `--stack=team` for three words. The ids of another stack's runs are no candidates.
#[test]
fn a_stack_that_is_named_in_any_way_is_the_one_that_is_asked() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let ran = serve.run(&sandbox, &["exec", "--no-repo", "echo hello"]);
    drop(ran.exits(0));
    let set = |stack: &str, endpoint: &str| {
        let set = ["--stack", stack, "config", "set", "endpoint", endpoint];
        drop(sandbox.run(&set).exits(0));
    };
    set("main", &serve.endpoint);
    set("team", "http://127.0.0.1:1");
    drop(sandbox.run(&["config", "use", "main"]).exits(0));
    let command = || {
        let mut command = sandbox.command(&[]);
        command.env("MYCLI_API_KEY", &serve.key);
        command
    };
    assert_eq!(some(command, &["status", "exec_"]).len(), 1);
    for words in [
        &["--stack", "team", "status", "exec_"][..],
        &["--stack=team", "status", "exec_"],
        &["--stack", "=", "team", "status", "exec_"],
        &["--stack", "NO STACK", "status", "exec_"],
    ] {
        assert_eq!(candidates(command(), words), [], "{words:?}");
    }
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
    let keys = some(|| serve.command(&sandbox, &[]), &["keys", "revoke", ""]);
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

/// A TAB prints nothing but candidates, and keeps nobody waiting for a stack that does not answer.
#[test]
fn without_an_answer_nothing_is_completed_and_nothing_is_said() {
    let sandbox = Sandbox::new();
    let found = candidates(sandbox.command(&[]), &["status", "exec_"]);
    assert_eq!(found, []);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut command = sandbox.command(&[]);
    command.env("MYCLI_API_KEY", format!("sk_live_{}", "a".repeat(64)));
    let began = Instant::now();
    let found = candidates(command, &["--endpoint", &endpoint, "status", "exec_"]);
    assert_eq!(found, []);
    // A call would wait for half a minute.
    assert!(began.elapsed() < Duration::from_secs(20), "it gives up");
    assert!(silent.accept().is_ok(), "it did ask");
}

#[test]
fn names_of_files_are_completed() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("jobs.jsonl"), "").unwrap();
    for words in [
        &["bulk", "jo"][..],
        &["exec", "--", "python", "jo"],
        &["exec", "--env-file", "jo"],
    ] {
        let found = candidates(sandbox.command(&[]), words);
        assert_eq!(values(&found), ["jobs.jsonl"], "{words:?}");
    }
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
