//! Many commands as one submission: `bulk`, and the commands for groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::sandbox::{Ran, Running, Sandbox, Serve, eventually};

use super::api::Http;

/// This many lines with commands that any shell has. Each prints its own number.
fn lines(count: usize) -> String {
    (0..count)
        .map(|number| format!("{}\n", json!({"command": format!("echo {number}")})))
        .collect()
}

fn write(sandbox: &Sandbox, text: &str) {
    fs::write(sandbox.path("jobs.jsonl"), text).unwrap();
}

const BULK: [&str; 3] = ["bulk", "jobs.jsonl", "--no-repo"];

fn bulk(serve: &Serve, sandbox: &Sandbox, more: &[&str]) -> Ran {
    serve.run(sandbox, &[&BULK, more].concat())
}

/// The id for resuming a submission, from the first message.
fn resume_id(err: &str) -> String {
    let (_, rest) = err
        .split_once("--resume ")
        .unwrap_or_else(|| panic!("no --resume in {err:?}"));
    rest.split_whitespace().next().unwrap().to_owned()
}

/// Every command of a history, with how often it occurs.
fn commands(history: &[Value]) -> BTreeMap<String, usize> {
    let mut commands = BTreeMap::new();
    for run in history {
        *commands
            .entry(run["command"].as_str().unwrap().to_owned())
            .or_insert(0) += 1;
    }
    commands
}

#[track_caller]
fn is_each_line_once(history: &[Value], count: usize) {
    let expected: BTreeMap<_, _> = (0..count)
        .map(|number| (format!("echo {number}"), 1))
        .collect();
    assert_eq!(history.len(), count);
    assert_eq!(commands(history), expected);
}

fn entries<'a>(report: &'a Value, list: &str) -> Vec<(u64, &'a str)> {
    let entries = report[list]
        .as_array()
        .unwrap_or_else(|| panic!("no {list} in {report:#}"));
    let entry = |entry: &'a Value| {
        (
            entry["line"].as_u64().unwrap(),
            entry["execution_id"].as_str().unwrap(),
        )
    };
    entries.iter().map(entry).collect()
}

#[test]
fn each_line_is_run_and_its_id_told() {
    let sandbox = Sandbox::new();
    write(
        &sandbox,
        "{\"command\": \"echo a\"}\n\n  \n{\"command\": \"echo b\", \"name\": \"second\"}\n",
    );
    let report = sandbox
        .local(&[&BULK, &["--wait", "-o", "json"][..]].concat())
        .exits(0)
        .json();
    let accepted = entries(&report, "accepted");
    assert_eq!(
        accepted.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
        [1, 4]
    );
    assert_eq!(
        (&report["counts"], &report["failed"]),
        (&json!({"SUCCEEDED": 2}), &json!([]))
    );
    let record = sandbox.record(accepted[1].1);
    assert_eq!(
        (&record["name"], &record["group"]),
        (&json!("second"), &report["submission_id"])
    );
    sandbox
        .local(&["logs", accepted[1].1])
        .exits(0)
        .prints("b\n");
    let of_group = sandbox
        .local(&[
            "history",
            "--group",
            report["group"].as_str().unwrap(),
            "-o",
            "json",
        ])
        .exits(0);
    assert_eq!(of_group.json()["executions"].as_array().unwrap().len(), 2);
}

#[test]
fn without_wait_it_returns_and_all_is_run_all_the_same() {
    let sandbox = Sandbox::new();
    write(&sandbox, &lines(3));
    let ran = sandbox
        .local(&[&BULK, &["--group", "g"][..]].concat())
        .exits(0)
        .says("submitting 3 runs as sub_");
    assert!(
        ran.out
            .starts_with("accepted  3\ngroup     g\nnext      mycli --local status --group g\n"),
        "{ran:#?}"
    );
    eventually("all are over", || {
        let status = sandbox
            .local(&["status", "--group", "g", "-o", "json"])
            .exits(0)
            .json();
        (status["counts"] == json!({"SUCCEEDED": 3})).then_some(())
    });
}

#[test]
fn all_bad_lines_are_told_before_anything_is_sent() {
    let sandbox = Sandbox::new();
    let text = [
        "{\"command\": \"true\"}",
        "",
        "{\"command\": \"true\", \"cpu\": 3, \"retries\": 99}",
        "{\"comand\": \"true\"}",
        "{\"command\": \"true\"",
        "{\"command\": \"true\", \"idempotency_key\": \"k\"}",
        "{}",
    ];
    write(&sandbox, &text.join("\n"));
    let ran = sandbox.local(&BULK).exits(2).prints("");
    for fault in [
        "error: 5 lines cannot be run; nothing was sent\n",
        "\n  jobs.jsonl:3: cpu: ",
        "\n  jobs.jsonl:3: retries: is 99: use 0 to 10\n",
        "\n  jobs.jsonl:4: comand: unknown field `comand`",
        "\n  jobs.jsonl:5:18: is not JSON (EOF",
        "\n  jobs.jsonl:6: idempotency_key: ",
        "\n  jobs.jsonl:7: command: is missing",
    ] {
        assert!(ran.err.contains(fault), "no {fault:?} in {}", ran.err);
    }
    fs::write(sandbox.path("jobs.jsonl"), b"\n{\"command\": \"\xff\"}").unwrap();
    sandbox
        .local(&BULK)
        .exits(2)
        .says("\n  jobs.jsonl:2:14: is not UTF-8\n");
    write(&sandbox, "\n\n");
    sandbox
        .local(&BULK)
        .exits(2)
        .says("jobs.jsonl holds nothing to run");
    sandbox
        .local(&["bulk", "no-such-file", "--no-repo"])
        .exits(2)
        .says("failed to read no-such-file");
    sandbox
        .local(&[
            "bulk",
            "true",
            "--map-over-file",
            "no-such-file",
            "--no-repo",
        ])
        .exits(2)
        .says("no-such-file");
    assert_eq!(
        sandbox.local(&["history", "-o", "json"]).json()["executions"],
        json!([])
    );
}

#[test]
fn what_only_the_server_knows_is_told_by_line_and_the_others_run() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "1"]);
    let large = json!({"command": "true", "cpu": 2048, "memory": 4096});
    let secret = json!({"command": "true", "secrets": ["NO_SUCH"]});
    write(
        &sandbox,
        &format!("{large}\n{{\"command\": \"true\"}}\n\n{secret}\n"),
    );
    let ran = bulk(&serve, &sandbox, &["--wait", "-o", "json"]).exits(1);
    let ran = ran
        .says("line 1 is rejected: cpu: ")
        .says("line 4 is rejected: secrets[0]: `NO_SUCH`");
    let report = ran.json();
    assert_eq!(entries(&report, "accepted").len(), 1);
    let rejected = report["rejected"].as_array().unwrap();
    assert_eq!(
        rejected
            .iter()
            .map(|entry| entry["line"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [1, 4]
    );
}

#[test]
fn identical_lines_all_run_and_the_same_file_later_is_a_new_submission() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    write(&sandbox, &"{\"command\": \"true\"}\n".repeat(5));
    for _ in 0..2 {
        let report = bulk(&serve, &sandbox, &["-o", "json"]).exits(0).json();
        assert_eq!(entries(&report, "accepted").len(), 5);
    }
    let history = Http::to(&serve).history("");
    let groups: BTreeSet<_> = history
        .iter()
        .map(|run| run["group"].as_str().unwrap())
        .collect();
    assert_eq!((history.len(), groups.len()), (10, 2));
}

#[test]
fn a_submission_of_which_the_client_is_killed_is_resumed() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--launch-rate", "1"]);
    let http = Http::to(&serve);
    write(&sandbox, &lines(4_000));
    let running = Running::of(serve.command(&sandbox, &BULK));
    eventually("some are accepted", || {
        (!http.history_page("limit=1").is_empty()).then_some(())
    });
    running.signal(Signal::KILL);
    let id = resume_id(&running.end().err);
    let report = bulk(&serve, &sandbox, &["--resume", &id, "-o", "json"])
        .exits(0)
        .json();
    let (accepted, existing) = (entries(&report, "accepted"), entries(&report, "existing"));
    assert!(
        !existing.is_empty() && accepted.len() + existing.len() == 4_000,
        "{}",
        existing.len()
    );
    is_each_line_once(&http.history("limit=200"), 4_000);
    let again = bulk(&serve, &sandbox, &["--resume", &id, "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        (
            entries(&again, "accepted").len(),
            entries(&again, "existing").len()
        ),
        (0, 4_000)
    );
}

#[test]
fn a_submission_of_which_the_server_is_killed_is_resumed() {
    let sandbox = Sandbox::new();
    let slow = ["--launch-rate", "1"];
    write(&sandbox, &lines(3_500));
    // The server dies once two requests of 500 are recorded. Requests sent at the same time may be
    // recorded too.
    let dying = sandbox.serve_in(&slow, &[("MYCLI_FAILPOINT", "store.create_all.after:2")]);
    let ran = bulk(&dying, &sandbox, &[]).exits(1).says("interrupted: ");
    let id = resume_id(&ran.err);
    drop(dying);
    let serve = sandbox.serve(&slow);
    let report = bulk(&serve, &sandbox, &["--resume", &id, "-o", "json"])
        .exits(0)
        .json();
    let (accepted, existing) = (entries(&report, "accepted"), entries(&report, "existing"));
    assert!(
        !accepted.is_empty() && existing.len() >= 1_000,
        "{} of {}",
        existing.len(),
        accepted.len()
    );
    is_each_line_once(&Http::to(&serve).history("limit=200"), 3_500);
}

#[test]
fn a_submission_broken_on_this_machine_is_resumed() {
    let sandbox = Sandbox::new();
    write(&sandbox, &lines(700));
    let mut command = sandbox.command(&[&["--local"], &BULK[..]].concat());
    command.env("MYCLI_FAILPOINT", "store.create_all.after");
    let ran = Running::of(command).end();
    let id = resume_id(&ran.err);
    assert_eq!(ran.code, None, "{ran:#?}");
    let report = sandbox
        .local(&[&BULK, &["--resume", &id, "--wait", "-o", "json"][..]].concat())
        .exits(0)
        .json();
    assert!(!entries(&report, "existing").is_empty(), "{report}");
    assert_eq!(report["counts"], json!({"SUCCEEDED": 700}));
    let printed = sandbox
        .local(&[
            "history", "--limit", "200", "--status", "failed", "-o", "json",
        ])
        .exits(0)
        .json();
    assert_eq!(printed["executions"], json!([]));
}

#[test]
fn another_file_under_the_same_id_is_told_line_by_line() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    write(&sandbox, &lines(3));
    let report = bulk(&serve, &sandbox, &["-o", "json"]).exits(0).json();
    let id = report["submission_id"].as_str().unwrap();
    write(
        &sandbox,
        "\n{\"command\": \"echo 0\"}\n{\"command\": \"other\"}\n{\"command\": \"echo 2\"}\n",
    );
    let ran = bulk(&serve, &sandbox, &["--resume", id]).exits(1);
    ran.says("line 3 is rejected: submission_id: was used within 24 hours with another request at this index");
    assert_eq!(Http::to(&serve).history("").len(), 3);
    bulk(
        &serve,
        &sandbox,
        &["--resume", "sub_01AN4Z07BY79KA1307SR9X4MV3"],
    )
    .exits(2)
    .says("24 hours");
    for wrong in ["nightly", "sub_", &id[..id.len() - 1], &id.to_lowercase()] {
        bulk(&serve, &sandbox, &["--resume", wrong])
            .exits(2)
            .says("is not a submission's id");
    }
    assert_eq!(
        Http::to(&serve).history("").len(),
        3,
        "nothing was submitted anew"
    );
}

/// Nobody can tell whether this id was ever used: the first request of its submission may have been
/// lost.
#[test]
fn a_submission_that_nothing_was_known_of_says_so() {
    let sandbox = Sandbox::new();
    let now = domain::id::ExecutionId::new(chrono::Utc::now(), 7);
    let id = now.as_str().replace("exec_", "sub_");
    write(&sandbox, &lines(2));
    let ran = sandbox
        .local(&[&BULK, &["--resume", &id][..]].concat())
        .exits(0);
    ran.says(&format!(
        "nothing was known of {id}: 2 new runs were submitted"
    ))
    .says(&format!("cancel --group {id}"));
}

#[test]
fn null_in_a_line_leaves_the_key_out_wherever_it_would_come_from() {
    let sandbox = Sandbox::new();
    let keys = [
        "repo",
        "branch",
        "image",
        "env",
        "secrets",
        "timeout",
        "cpu",
        "memory",
        "arch",
        "capacity",
        "lock",
        "group",
        "max_parallel",
        "priority",
        "retries",
        "retry_on",
        "name",
        "task_role",
        "registry_secret",
        "idempotency_key",
    ];
    let line = |key: &&str| format!("{{\"command\": \"true\", \"{key}\": null}}\n");
    write(&sandbox, &keys.iter().map(line).collect::<String>());
    let report = sandbox
        .local(&[&BULK, &["--wait", "-o", "json"][..]].concat())
        .exits(0)
        .json();
    assert_eq!(report["counts"], json!({"SUCCEEDED": keys.len()}));
    let id = report["submission_id"].as_str().unwrap();
    let again = sandbox
        .local(&[&BULK, &["--resume", id, "-o", "json"][..]].concat())
        .exits(0)
        .json();
    assert_eq!(entries(&again, "existing").len(), keys.len(), "{again:#}");
    let serve = sandbox.serve(&[]);
    bulk(&serve, &sandbox, &["--wait"]).exits(0);

    let all = keys
        .iter()
        .map(|key| format!(", \"{key}\": null"))
        .collect::<String>();
    write(&sandbox, &format!("{{\"command\": \"true\"{all}}}\n"));
    let flags = [
        "--image",
        "a",
        "-e",
        "A=1",
        "--secret",
        "S",
        "--cpu",
        "512",
        "--priority",
        "5",
        "--retries",
        "2",
        "--dry-run",
    ];
    fs::write(sandbox.path(".mycli.yaml"), "timeout: 5m\nlock: l\n").unwrap();
    let shown = sandbox.local(&[&BULK, &flags[..]].concat()).exits(0).json();
    assert_eq!(shown, json!({"command": "true"}));
    for (line, said) in [
        ("{\"command\": null}", "jobs.jsonl:1: command: is missing"),
        (
            "{\"command\": \"true\", \"env\": {\"A\": null}}",
            "jobs.jsonl:1: env.A: is null: write \"\"",
        ),
        (
            "{\"command\": \"true\", \"secrets\": [null]}",
            "jobs.jsonl:1: secrets: entry 1 is null: leave it out",
        ),
    ] {
        write(&sandbox, line);
        sandbox.local(&BULK).exits(2).says(said);
    }
}

#[test]
fn a_variable_of_a_line_is_given_once_and_may_be_a_number() {
    let sandbox = Sandbox::new();
    for twice in ["\"A\"", "\"\\u0041\""] {
        let env = format!("{{\"A\": \"hidden1\", {twice}: \"hidden2\"}}");
        write(
            &sandbox,
            &format!("{{\"command\": \"true\"}}\n{{\"command\": \"true\", \"env\": {env}}}\n"),
        );
        let ran = sandbox
            .local(&BULK)
            .exits(2)
            .says("jobs.jsonl:2:")
            .says("duplicate field `A`: give it once");
        assert!(!ran.err.contains("hidden"), "{ran:#?}");
    }
    write(
        &sandbox,
        "{\"command\": \"true\", \"retry_on\": [\"spot\", \"spot\"]}\n",
    );
    sandbox
        .local(&BULK)
        .exits(2)
        .says("jobs.jsonl:1: retry_on[1]: `spot` is named twice");
    write(
        &sandbox,
        "{\"command\": \"echo $A $B $C\", \"env\": {\"A\": 1.10, \"B\": true, \"C\": 7}}\n",
    );
    let report = sandbox
        .local(&[&BULK, &["--wait", "-o", "json"][..]].concat())
        .exits(0)
        .json();
    sandbox
        .local(&["logs", entries(&report, "accepted")[0].1])
        .exits(0)
        .prints("1.10 true 7\n");
}

#[test]
fn a_fault_of_a_flag_is_told_once_and_not_for_each_line() {
    let sandbox = Sandbox::new();
    write(
        &sandbox,
        &format!("{}{{\"command\": \"true\", \"cpu\": 256}}\n", lines(50)),
    );
    let ran = sandbox
        .local(&[&BULK, &["--cpu", "3", "--timeout", "soon"][..]].concat())
        .exits(2);
    let ran = ran
        .says("error: 51 lines cannot be run; nothing was sent\n  timeout: `soon`")
        .says("\n  cpu: 3 CPU units");
    assert_eq!(ran.err.lines().count(), 3, "{}", ran.err);
    fs::write(sandbox.path(".mycli.yaml"), "name: a\nlock: a b\n").unwrap();
    let ran = sandbox.local(&BULK).exits(2).says(".mycli.yaml:2)");
    assert_eq!(ran.err.matches("lock: ").count(), 1, "{}", ran.err);
}

#[test]
fn a_file_in_utf16_is_told_as_a_whole() {
    let sandbox = Sandbox::new();
    let text = "\u{feff}{\"command\": \"true\"}\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes);
    fs::write(sandbox.path("jobs.jsonl"), text.collect::<Vec<_>>()).unwrap();
    let ran = sandbox
        .local(&BULK)
        .exits(2)
        .says("jobs.jsonl is in UTF-16")
        .says("`iconv -f utf-16 -t utf-8`");
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
}

#[test]
fn who_waits_is_told_which_lines_failed() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    write(
        &sandbox,
        "{\"command\": \"true\"}\n{\"command\": \"exit 3\"}\n\n{\"command\": \"kill -9 $$\"}\n",
    );
    let ran = bulk(&serve, &sandbox, &["--wait"]).exits(1);
    assert!(
        ran.out
            .contains("ended     1 SUCCEEDED, 2 FAILED\nline 2  exec_"),
        "{}",
        ran.out
    );
    assert!(
        ran.out
            .contains("  FAILED  the command exited with code 3\nline 4  exec_"),
        "{}",
        ran.out
    );
    write(&sandbox, &lines(3));
    bulk(&serve, &sandbox, &["--wait", "--group", "a"]).exits(0);
}

#[test]
fn who_no_longer_waits_leaves_them_running() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let go = sandbox.path("go");
    let until_go = format!("until [ -e '{}' ]; do sleep 0.05; done", go.display());
    write(&sandbox, &format!("{}\n", json!({"command": until_go})));
    let waiting =
        Running::of(serve.command(&sandbox, &[&BULK, &["--wait", "--group", "g"][..]].concat()));
    let http = Http::to(&serve);
    eventually("it runs", || {
        (!http.history_page("status=RUNNING").is_empty()).then_some(())
    });
    waiting.signal(Signal::INT);
    waiting
        .end()
        .exits(130)
        .says("no longer following; the runs go on. To look at them: mycli status --group g");
    fs::write(go, "").unwrap();
    http.until_quiet();
    assert_eq!(http.history("")[0]["status"], "SUCCEEDED");
}

#[test]
fn a_command_is_mapped_over_values_that_no_shell_touches() {
    let sandbox = Sandbox::new();
    let values = [
        "plain",
        "two words",
        "$(touch pwned)`touch pwned`",
        "'\"\\",
        "ünï",
    ];
    let check = |ran: Ran| {
        let report = ran.exits(0).json();
        let printed: Vec<_> = entries(&report, "accepted")
            .iter()
            .map(|(_, id)| sandbox.local(&["logs", id]).exits(0).out)
            .collect();
        assert_eq!(printed, values.map(|value| format!("<{value}>\n")));
    };
    let command = "printf '<%s>\\n' \"$VALUE\"";
    let fixed = ["bulk", command, "--no-repo", "--wait", "-o", "json"];
    check(sandbox.local(&[&fixed[..], &["--map-over-values"], &values].concat()));
    fs::write(sandbox.path("values"), values.join("\r\n\n") + "\n").unwrap();
    check(sandbox.local(&[&fixed[..], &["--map-over-file", "values"]].concat()));
    let words = [
        "bulk",
        "--no-repo",
        "--dry-run",
        "--map-over-values",
        "a",
        "--",
        "./x.sh",
        "one word",
    ];
    let request = sandbox.local(&words).exits(0).json();
    assert_eq!(
        request,
        json!({"command": ["./x.sh", "one word"], "env": {"VALUE": "a"}})
    );
    sandbox
        .local(&["bulk", "--no-repo", "--", "true"])
        .exits(2)
        .says("--map-over-values");
}

#[test]
fn a_line_goes_before_the_flags_and_these_before_the_project() {
    let sandbox = Sandbox::new();
    fs::write(
        sandbox.path(".mycli.yaml"),
        "image: a\nretries: 1\nenv:\n  A: project\n  B: project\n",
    )
    .unwrap();
    write(
        &sandbox,
        "{\"command\": \"x\", \"retries\": 3, \"env\": {\"C\": \"line\"}}\n{\"command\": \"y\"}\n",
    );
    let flags = [
        "--retries",
        "2",
        "--env",
        "B=flag",
        "--env",
        "C=flag",
        "--dry-run",
    ];
    let shown = sandbox.local(&[&BULK, &flags[..]].concat()).exits(0).out;
    let requests: Vec<Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let env = |c: &str| json!({"A": "project", "B": "flag", "C": c});
    assert_eq!(
        requests,
        [
            json!({"command": "x", "image": "a", "retries": 3, "env": env("line")}),
            json!({"command": "y", "image": "a", "retries": 2, "env": env("flag")}),
        ]
    );
}

#[test]
fn a_group_is_looked_at_cancelled_and_what_failed_is_run_again() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "0.25"]);
    let http = Http::to(&serve);
    let run = |arguments: &[&str]| serve.run(&sandbox, arguments);
    write(
        &sandbox,
        "{\"command\": \"exit 1\"}\n{\"command\": \"true\"}\n{\"command\": \"exit 2\"}\n",
    );
    bulk(&serve, &sandbox, &["--group", "first", "--wait"]).exits(1);
    run(&["status", "--group", "first"])
        .exits(0)
        .prints("first  3 of 3 over\nSUCCEEDED       1\nFAILED          2\n");
    run(&["status", "--group", "nobody"])
        .exits(1)
        .says("there are no runs in the group nobody");
    let again = run(&[
        "rerun", "--failed", "--group", "first", "--wait", "--into", "second", "-o", "json",
    ])
    .exits(1);
    let again = again.json();
    let codes: Vec<_> = again["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["exit_code"].as_u64())
        .collect();
    assert_eq!(
        (codes, &again["counts"]),
        (vec![Some(1), Some(2)], &json!({"FAILED": 2}))
    );
    assert_eq!(http.history("group=second").len(), 2);

    write(&sandbox, &"{\"command\": \"sleep 3600\"}\n".repeat(30));
    bulk(&serve, &sandbox, &["--group", "long"]).exits(0);
    eventually("one runs", || {
        (!http.history_page("group=long&status=RUNNING").is_empty()).then_some(())
    });
    let status = run(&["status", "--group", "long", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        (&status["total"], &status["counts"]["RUNNING"]),
        (&json!(30), &json!(1)),
        "{status:#}"
    );
    let waiting: u64 = status["waiting"]
        .as_object()
        .unwrap()
        .values()
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(waiting, 29, "{status:#}");
    run(&["cancel", "--group", "long", "--wait"])
        .exits(0)
        .prints("cancelled  30\nstopping   0\nover       0\n");
    let statuses: BTreeSet<_> = http
        .history("group=long")
        .iter()
        .map(|run| run["status"].to_string())
        .collect();
    assert_eq!(statuses, BTreeSet::from(["\"CANCELLED\"".to_owned()]));
    run(&["cancel", "--group", "long"])
        .exits(1)
        .says("no run of the group long is under way");
    run(&["rerun", "--failed", "--group", "long"])
        .exits(1)
        .says("no run of the group long has failed");
}

/// A page of waiting runs shows the same positions as each run's own record, whether or not they
/// are counted one by one.
#[test]
fn the_positions_on_a_page_of_history_are_those_in_the_backlog() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "0.25"]);
    let http = Http::to(&serve);
    write(&sandbox, &"{\"command\": \"sleep 3600\"}\n".repeat(160));
    bulk(&serve, &sandbox, &["--group", "g"]).exits(0);
    eventually("one runs", || {
        (!http.history_page("status=RUNNING").is_empty()).then_some(())
    });
    let page = http.history_page("group=g&limit=200");
    let places: Vec<_> = page
        .iter()
        .rev()
        .filter_map(|run| run["waiting"]["position"].as_u64())
        .collect();
    assert_eq!(places, (1..=159).collect::<Vec<_>>());
    let second = page.iter().rev().nth(140).unwrap()["execution_id"]
        .as_str()
        .unwrap();
    assert_eq!(http.record(second)["waiting"]["position"], 140);
}

/// The limited group may be the one that is named after the submission.
#[test]
fn of_a_submission_only_so_many_run_at_a_time() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "4"]);
    let busy = sandbox.path("busy");
    let alone = format!("mkdir '{0}' && sleep 0.1 && rmdir '{0}'", busy.display());
    write(
        &sandbox,
        &format!("{}\n", json!({"command": alone})).repeat(6),
    );
    let report = bulk(
        &serve,
        &sandbox,
        &["--max-parallel", "1", "--wait", "-o", "json"],
    )
    .exits(0)
    .json();
    assert_eq!(report["counts"], json!({"SUCCEEDED": 6}));
}
