//! Earlier runs: `history`, `status`, `wait`, `cancel`, `rerun`.

use serde_json::{Value, json};
use tests::sandbox::{Process, Sandbox, eventually};

use crate::git_server::Origin;

const FOREVER: &str = "echo begun; sleep 3600";

fn ids(page: &Value) -> Vec<String> {
    page["executions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["execution_id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_detached_goes_on_and_is_waited_for() {
    let sandbox = Sandbox::new();
    let go = sandbox.path("go");
    let id = sandbox.detach(&[&format!(
        "until [ -e '{}' ]; do sleep 0.05; done; echo done; exit 5",
        go.display()
    )]);
    sandbox.until_status(&id, "RUNNING");
    let waiting = sandbox.start(&["--local", "wait", &id]);
    std::fs::write(go, "").unwrap();
    waiting.end().exits(5).prints("");
    sandbox.local(&["wait", &id]).exits(5);
    assert_eq!(
        sandbox.local(&["wait", &id, "-o", "json"]).exits(5).json()["exit_code"],
        5
    );
    sandbox.local(&["logs", &id]).exits(0).prints("done\n");
    eventually("the supervisor has gone", || {
        sandbox.processes().is_empty().then_some(())
    });
}

#[test]
fn a_run_is_found_by_any_part_that_means_only_it() {
    let sandbox = Sandbox::new();
    let (_, record) = sandbox.exec(&["true"]);
    let _other = sandbox.exec(&["true"]);
    let id = record["execution_id"].as_str().unwrap();
    let arn = record["attempts"][0]["task_arn"].as_str().unwrap();
    for part in [id, &id[id.len() - 6..], &id[..id.len() - 4], arn] {
        assert_eq!(sandbox.record(part), record, "{part}");
    }
    sandbox.local(&["status", "exec_"]).exits(1).says(id);
    sandbox
        .local(&["status", "nothing"])
        .exits(1)
        .says("nothing");
}

#[test]
fn history_is_filtered_and_paged() {
    let sandbox = Sandbox::new();
    let run = |arguments: &[&str]| {
        sandbox.exec(arguments).1["execution_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let all = [
        run(&["--group", "a", "true"]),
        run(&["--group", "b", "exit 1"]),
        run(&["--group", "a", "exit 2"]),
    ];
    let list = |arguments: &[&str]| {
        sandbox
            .local(&[&["history", "-o", "json"], arguments].concat())
            .exits(0)
            .json()
    };
    assert_eq!(ids(&list(&[])), [&*all[2], &all[1], &all[0]]);
    assert_eq!(ids(&list(&["--status", "failed"])), [&*all[2], &all[1]]);
    assert_eq!(ids(&list(&["--group", "a"])), [&*all[2], &all[0]]);
    assert_eq!(
        ids(&list(&["--group", "a", "--status", "failed"])),
        [&*all[2]]
    );
    assert_eq!(ids(&list(&["--by", "me", "--since", "1h"])).len(), 3);
    assert_eq!(ids(&list(&["--by", "somebody-else"])), [""; 0]);
    let first = list(&["--limit", "2"]);
    assert_eq!(ids(&first), [&*all[2], &all[1]]);
    let rest = list(&[
        "--limit",
        "2",
        "--cursor",
        first["next_cursor"].as_str().unwrap(),
    ]);
    assert_eq!(
        (ids(&rest), &rest["next_cursor"]),
        (vec![all[0].clone()], &Value::Null)
    );
    let table = sandbox.local(&["history"]).exits(0).out;
    assert!(
        table.starts_with("ID ") && table.lines().count() == 4,
        "{table}"
    );
    sandbox.local(&["history", "--status", "odd"]).exits(2);
}

#[test]
fn cancelling_a_running_one_ends_it_and_all_it_started() {
    let sandbox = Sandbox::new();
    let run = sandbox.start(&[
        "--local",
        "exec",
        "--no-repo",
        "-o",
        "json",
        "trap 'echo told' TERM; sleep 3600 & sleep 3601 & echo begun; wait; wait",
    ]);
    let id = eventually("it is recorded", || {
        ids(&sandbox.local(&["history", "-o", "json"]).json()).pop()
    });
    eventually("the command has begun", || {
        (sandbox.local(&["logs", &id]).out == "begun\n").then_some(())
    });
    sandbox.local(&["cancel", &id]).exits(0).says(&id);
    let ran = run.end().exits(130);
    let record = ran.json();
    assert_eq!(
        (&record["status"], &record["exit_code"]),
        (&json!("CANCELLED"), &Value::Null),
        "{record:#}"
    );
    assert!(
        record["reason"].as_str().unwrap().contains("cancelled by"),
        "{record:#}"
    );
    assert!(
        ran.err.contains("told\n"),
        "TERM reaches the command: {ran:#?}"
    );
    assert!(!Process::all().any(|process| process.mentions(&id)));
    // A run that is over cannot be cancelled. `mycli` says so and changes nothing.
    sandbox.local(&["cancel", &id]).says("CANCELLED").exits(0);
    assert_eq!(sandbox.record(&id), record);
}

#[test]
fn cancelling_at_once_after_submitting_always_ends_it() {
    let sandbox = Sandbox::new();
    for _ in 0..5 {
        let id = sandbox.detach(&[FOREVER]);
        sandbox
            .local(&["cancel", &id, "--wait"])
            .exits(0)
            .says("CANCELLED");
        sandbox.local(&["wait", &id]).exits(130);
        assert!(!Process::all().any(|process| process.mentions(&id)));
    }
}

#[test]
fn a_rerun_is_a_new_run_of_the_same_commit_with_what_was_changed() {
    let (sandbox, origin) = (Sandbox::new(), Origin::new());
    let repo = origin.path().display().to_string();
    sandbox
        .local(&[
            "exec",
            "--repo",
            &repo,
            "--branch",
            "v1",
            "-e",
            "WHO=me",
            "--timeout",
            "5m",
            "cat f; echo $WHO",
        ])
        .exits(0)
        .prints("old\nme\n");
    let before = sandbox.local(&["status", "-o", "json"]).json();
    sandbox
        .local(&["rerun", before["execution_id"].as_str().unwrap()])
        .exits(0)
        .prints("old\nme\n");
    let after = sandbox.local(&["status", "-o", "json"]).json();
    assert_ne!(after["execution_id"], before["execution_id"]);
    for field in [
        "command", "repo", "env", "timeout", "cpu", "memory", "commit",
    ] {
        assert_eq!(after[field], before[field], "{field}");
    }
    sandbox
        .local(&[
            "rerun",
            before["execution_id"].as_str().unwrap(),
            "--branch",
            "main",
            "-e",
            "WHO=you",
        ])
        .exits(0)
        .prints("main\nyou\n");
    assert_eq!(
        ids(&sandbox.local(&["history", "-o", "json"]).json()).len(),
        3
    );
}

#[test]
fn the_same_idempotency_key_is_the_same_run() {
    let sandbox = Sandbox::new();
    let mark = sandbox.path("mark");
    let command = format!("echo x >>'{}'; exit 6", mark.display());
    let run =
        |command: &str| sandbox.local(&["exec", "--no-repo", "--idempotency-key", "k", command]);
    run(&command).exits(6);
    run(&command).exits(6);
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "x\n");
    run("true").exits(2).says("idempotency_key");
}

#[test]
fn a_command_is_tried_again_only_when_asked() {
    let sandbox = Sandbox::new();
    let mark = sandbox.path("mark");
    let command = format!(
        "echo x >>'{0}'; [ \"$(wc -l <'{0}')\" -ge 2 ]",
        mark.display()
    );
    let (ran, record) = sandbox.exec(&[&command]);
    assert_eq!(
        (ran.code, record["attempts"].as_array().unwrap().len()),
        (Some(1), 1)
    );
    std::fs::remove_file(&mark).unwrap();
    let (ran, record) = sandbox.exec(&["--retries", "3", "--retry-on", "failure", &command]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let codes: Vec<_> = record["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["exit_code"].clone())
        .collect();
    assert_eq!(codes, [1, 0], "each try is shown: {record:#}");
}

#[test]
fn two_at_once_share_one_store() {
    let sandbox = Sandbox::new();
    for round in 0..10 {
        let one = |name: &str| {
            sandbox.start(&[
                "--local",
                "exec",
                "--no-repo",
                &format!("echo {name} {round}"),
            ])
        };
        let pair = [one("a"), one("b")];
        for (running, name) in pair.into_iter().zip(["a", "b"]) {
            let ran = running.end().exits(0).prints(&format!("{name} {round}\n"));
            assert_eq!(ran.err, "", "nothing is said of a locked database");
        }
    }
    assert_eq!(
        ids(&sandbox
            .local(&[
                "history",
                "-o",
                "json",
                "--status",
                "succeeded",
                "--limit",
                "100"
            ])
            .json())
        .len(),
        20
    );
}

#[test]
fn pruning_removes_what_is_over_and_nothing_else() {
    let sandbox = Sandbox::new();
    sandbox.local(&["exec", "--no-repo", "echo gone"]).exits(0);
    let running = sandbox.detach(&[FOREVER]);
    sandbox.until_status(&running, "RUNNING");
    sandbox
        .local(&["local", "prune", "--older-than", "1h"])
        .exits(0);
    assert_eq!(
        ids(&sandbox.local(&["history", "-o", "json"]).json()).len(),
        2
    );
    sandbox
        .local(&["local", "prune", "--older-than", "0s"])
        .exits(0);
    assert_eq!(
        ids(&sandbox.local(&["history", "-o", "json"]).json()),
        [&*running]
    );
    sandbox.local(&["cancel", &running, "--wait"]).exits(0);
}
