//! Submitting: exit codes, the requests sent, repeated requests, and the words of refusals.

use serde_json::{Value, json};

use super::stand_in::{Asked, ID, KEY, Mycli, Reply, StandIn, page, record};

#[track_caller]
fn check_end(
    status: &str,
    exit_code: Option<i32>,
    reason: Option<&str>,
    expected: i32,
    said: &str,
) {
    let api = StandIn::finished(record(status, exit_code, reason), &["one", "two"]);
    let ran = Mycli::on(&api)
        .run(&["exec", "--no-repo", "make"])
        .exits(expected)
        .prints("one\ntwo\n");
    assert_eq!(ran.err, said);
}

#[test]
fn exec_exits_as_the_run_ended() {
    check_end("SUCCEEDED", Some(0), None, 0, "");
    check_end(
        "FAILED",
        Some(7),
        Some("the command exited with code 7"),
        7,
        "",
    );
    check_end(
        "FAILED",
        Some(255),
        Some("the command exited with code 255"),
        255,
        "",
    );
    let killed = "the command exited with code 137 (128 + 9: killed by SIGKILL)";
    check_end(
        "FAILED",
        Some(137),
        Some(killed),
        137,
        &format!("mycli: FAILED: {killed}\n"),
    );
    check_end(
        "FAILED",
        Some(124),
        Some("the command exited with code 124"),
        124,
        "",
    );
    check_end(
        "FAILED",
        None,
        Some("image not found"),
        125,
        "mycli: FAILED: image not found\n",
    );
    check_end(
        "FAILED",
        Some(256),
        Some("odd"),
        125,
        "mycli: FAILED: odd\n",
    );
    check_end(
        "TIMED_OUT",
        None,
        Some("timed out after 2s"),
        124,
        "mycli: TIMED_OUT: timed out after 2s\n",
    );
    check_end(
        "CANCELLED",
        None,
        Some("cancelled by bob"),
        130,
        "mycli: CANCELLED: cancelled by bob\n",
    );
    check_end("LOST", None, None, 125, "mycli: LOST\n");
}

#[test]
fn exec_sends_the_command_under_a_key_of_its_own() {
    let api = StandIn::finished(record("SUCCEEDED", Some(0), None), &[]);
    let mycli = Mycli::on(&api);
    for _ in 0..2 {
        mycli
            .run(&[
                "exec",
                "--no-repo",
                "--retry-on",
                "spot,host",
                "-e",
                "A=b=c",
                "--",
                "printf",
                "%s",
                "a b",
                "$HOME",
            ])
            .exits(0);
    }
    let sent: Vec<_> = api
        .asked()
        .into_iter()
        .filter(|asked| asked.line() == "POST /execute")
        .collect();
    let body = sent[0].json();
    assert_eq!(body["command"], json!(["printf", "%s", "a b", "$HOME"]));
    assert_eq!(body["env"], json!({"A": "b=c"}));
    assert_eq!(body["retry_on"], json!(["spot", "host"]));
    assert_eq!(sent[0].headers["authorization"], format!("Bearer {KEY}"));
    assert_ne!(
        body["idempotency_key"],
        sent[1].json()["idempotency_key"],
        "each exec is a run of its own"
    );
}

/// Gives the answers to POSTs in turn, then answers like a run that is over.
fn flaky(answers: Vec<Reply>) -> StandIn {
    let mut answers = answers.into_iter();
    let record = record("SUCCEEDED", Some(0), None);
    StandIn::new(move |asked| match asked.line().as_str() {
        "POST /execute" => answers.next().unwrap_or_else(Reply::accepted),
        line if line.contains("/logs") => Reply::json(&page(&[], None, true)),
        _ => Reply::json(&record),
    })
}

fn submissions(api: &StandIn) -> Vec<Value> {
    api.asked()
        .iter()
        .filter(|asked| asked.line() == "POST /execute")
        .map(Asked::json)
        .collect()
}

#[test]
fn a_lost_answer_is_asked_for_again_under_the_same_key() {
    let api = flaky(
        [502, 503, 504, 429]
            .map(|status| Reply::status(status).header("retry-after", "0"))
            .to_vec(),
    );
    Mycli::on(&api).run(&["exec", "--no-repo", "make"]).exits(0);
    let sent = submissions(&api);
    assert_eq!(sent.len(), 5);
    assert!(
        sent.iter()
            .all(|body| *body == sent[0] && body["idempotency_key"].is_string()),
        "{sent:?}"
    );
}

#[test]
fn a_server_that_wants_an_hour_of_patience_is_told_about_at_once() {
    let api = flaky(vec![Reply::status(503).header("retry-after", "3600")]);
    Mycli::on(&api)
        .run(&["exec", "--no-repo", "make"])
        .exits(125)
        .says("503 Service Unavailable");
    assert_eq!(submissions(&api).len(), 1);
}

#[test]
fn a_refusal_names_every_field_and_is_not_repeated() {
    let faults = json!([{"field": "cpu", "message": "is odd"}, {"field": "env.A", "message": "is too long"}]);
    let api = flaky(vec![Reply::problem(
        422,
        "invalid_request",
        "the request has 2 faults",
        &faults,
    )]);
    let ran = Mycli::on(&api)
        .run(&["exec", "--no-repo", "make"])
        .exits(2)
        .prints("");
    assert_eq!(
        ran.err,
        "error: the request has 2 faults\n  cpu: is odd\n  env.A: is too long\n"
    );
    assert_eq!(submissions(&api).len(), 1);
}

#[test]
fn a_key_that_is_refused_is_never_shown() {
    let problem = Reply::problem(401, "unauthorized", "the key is not known", &json!([]));
    let api = StandIn::new(move |_| problem.clone());
    let ran = Mycli::on(&api)
        .run(&["-v", "exec", "--no-repo", "make"])
        .exits(125)
        .says("MYCLI_API_KEY");
    assert!(
        !ran.err.contains(KEY) && !ran.err.contains(&KEY[8..]),
        "{ran:#?}"
    );
}

#[test]
fn an_answer_of_something_else_is_told_as_what_it_is() {
    let api = StandIn::new(|_| Reply::json(&json!({"hello": "world"})));
    Mycli::on(&api)
        .run(&["exec", "--no-repo", "make"])
        .exits(125)
        .says("check that it is the address of a mycli stack");
}

#[test]
fn json_puts_the_log_aside_and_the_final_record_out() {
    let api = StandIn::finished(
        record("FAILED", Some(3), Some("the command exited with code 3")),
        &["line"],
    );
    let ran = Mycli::on(&api)
        .run(&["exec", "--no-repo", "-o", "json", "make"])
        .exits(3)
        .says("line\n");
    assert_eq!(ran.json()["exit_code"], 3);
    assert_eq!(
        ran.json()["of_a_newer_version"],
        1,
        "nothing that the API says is lost"
    );
}

#[test]
fn detach_prints_the_id_and_follows_nothing() {
    let api = StandIn::finished(record("RUNNING", None, None), &[]);
    Mycli::on(&api)
        .run(&["exec", "--no-repo", "--detach", "make"])
        .exits(0)
        .prints(&format!("{ID}\n"));
    assert_eq!(api.lines(), ["POST /execute"]);
}

#[test]
fn dry_run_checks_and_prints_and_sends_nothing() {
    let api = StandIn::new(|_| Reply::status(500));
    let mycli = Mycli::on(&api);
    mycli.file("vars", "# comment\nA=1\nB=\"q\"\nFROM_HERE\nNOWHERE\n");
    let mut command = mycli.command(&[
        "exec",
        "--no-repo",
        "--dry-run",
        "--env-file",
        "vars",
        "-e",
        "A=2",
        "--timeout",
        "90",
        "make",
    ]);
    let ran = super::stand_in::Ran::from(command.env("FROM_HERE", "x").output().unwrap())
        .exits(0)
        .says("vars:5: the environment has no variable of this name");
    assert_eq!(
        ran.json(),
        json!({"command": "make", "env": {"A": "2", "B": "\"q\"", "FROM_HERE": "x"}, "timeout": "90"})
    );
    let ran = mycli
        .run(&[
            "exec",
            "--no-repo",
            "--dry-run",
            "--cpu",
            "3",
            "--timeout",
            "soon",
            "make",
        ])
        .exits(2)
        .prints("");
    assert!(
        ran.err.contains("\n  timeout: ") && ran.err.contains("\n  cpu: "),
        "{}",
        ran.err
    );
    assert_eq!(api.lines(), [""; 0]);
}

#[test]
fn several_words_without_dashes_are_a_usage_error() {
    Mycli::unconfigured()
        .run(&["exec", "--no-repo", "make", "all"])
        .exits(2)
        .says("quote it");
    Mycli::unconfigured().run(&["exec"]).exits(2);
}

/// The paths and bodies of the reruns that were asked for.
fn reruns(api: &StandIn) -> Vec<(String, Value)> {
    let asked = api
        .asked()
        .into_iter()
        .filter(|asked| asked.path.ends_with("/rerun"));
    asked
        .map(|asked| (asked.path.clone(), asked.json()))
        .collect()
}

#[test]
fn rerun_sends_what_is_changed_and_nothing_else() {
    let api = StandIn::finished(record("SUCCEEDED", Some(0), None), &[]);
    let mycli = Mycli::on(&api);
    let changes = |arguments: &[&str]| {
        let before = reruns(&api).len();
        let ran = mycli.run(&[&["rerun", ID], arguments].concat()).exits(0);
        ran.says("0123456789abcdef0123456789abcdef01234567");
        let (path, mut body) = reruns(&api).remove(before);
        assert_eq!(path, format!("/executions/{ID}/rerun"));
        let key = body
            .as_object_mut()
            .unwrap()
            .remove("idempotency_key")
            .unwrap();
        assert!(
            key.as_str().unwrap().starts_with("mycli-") && key != "mycli-before",
            "{key}"
        );
        body
    };
    assert_eq!(changes(&[]), json!({}));
    assert_eq!(
        changes(&["--timeout", "2h", "-e", "NEW=1"]),
        json!({"timeout": "2h", "env": {"NEW": "1"}})
    );
    assert_eq!(
        changes(&["--no-repo", "--on-demand"]),
        json!({"repo": "", "capacity": "on-demand"})
    );
    // `--secret` adds to the earlier run's secrets. The record shows their names.
    assert_eq!(
        changes(&["--secret", "NEW"]),
        json!({"secrets": ["TOKEN", "NEW"]})
    );
    assert_eq!(submissions(&api), [Value::Null; 0], "nothing is sent back");
    assert!(
        !api.asked()
            .iter()
            .any(|asked| String::from_utf8_lossy(&asked.body).contains("prod-value"))
    );
}

#[test]
fn a_rerun_whose_answer_is_lost_is_asked_for_again_under_the_same_key() {
    let mut lost = false;
    let api = StandIn::new(move |asked| match asked.line().as_str() {
        line if line.ends_with("/rerun") && !std::mem::replace(&mut lost, true) => {
            Reply::status(503).header("retry-after", "0")
        }
        line if line.ends_with("/rerun") => Reply::accepted(),
        _ => Reply::json(&record("SUCCEEDED", Some(0), None)),
    });
    Mycli::on(&api)
        .run(&["rerun", ID, "--detach"])
        .exits(0)
        .prints(&format!("{ID}\n"));
    let sent = reruns(&api);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1]);
}

/// A rerun of the group `g` into the group `h`, as the API shows it.
fn rerun_view(submission: &str, accepted: u32, done: bool) -> Value {
    json!({"group": "h", "cancel": null, "rerun": {
        "of": "g", "submission_id": submission, "at": "2026-01-02T04:00:00Z", "by": "alice", "accepted": accepted, "existing": 0,
        "rejected": 1, "passed_over": 0, "cancelled": false, "done": done,
        "rejections": [{"execution_id": OTHER, "errors": [{"field": "cpu", "message": "is odd"}]}]
    }})
}

/// Another run's id, which sorts after the record's.
const OTHER: &str = "exec_7ZZZZZZZZZ0000000000000000";

#[test]
fn what_failed_of_a_group_is_rerun_by_one_request_and_the_answer_is_looked_up() {
    let submission = domain::id::ExecutionId::new(chrono::Utc::now(), 7)
        .as_str()
        .replace("exec_", "sub_");
    let failed = |id: &str| {
        let mut failed = record("FAILED", Some(1), None);
        failed["execution_id"] = json!(id);
        failed
    };
    let new_id = "exec_01KAPR1BX00000000000000009";
    let mut new = failed(new_id);
    new["idempotency_key"] = json!(domain::group::rerun::key(&submission, &ID.parse().unwrap()));
    let page = |runs: &[Value]| json!({"executions": runs, "next_cursor": null});
    let (of, into, mut looks) = (page(&[failed(OTHER), failed(ID)]), page(&[new]), 0);
    let id = submission.clone();
    let api = StandIn::new(move |asked| match asked.line().as_str() {
        "POST /groups/g/rerun-failed" if asked.json()["changes"]["env"].is_null() => {
            Reply::problem(404, "no_such_path", "there is no such path", &json!([]))
        }
        "POST /groups/g/rerun-failed" => Reply::json(&rerun_view(&id, 0, false)),
        "GET /groups/h" => {
            looks += 1;
            Reply::json(&rerun_view(&id, looks, looks == 2))
        }
        line if line.contains("group=g") => Reply::json(&of),
        line if line.contains("group=h") && looks > 0 => Reply::json(&into),
        _ => Reply::json(&page(&[])),
    });
    let mycli = Mycli::on(&api);
    let again = [
        "rerun",
        "--failed",
        "--group",
        "g",
        "--into",
        "h",
        "--resume",
        &submission,
        "--secret",
        "T",
        "-o",
        "json",
    ];
    let ran = mycli.run(&[&again[..], &["-e", "A=b"]].concat()).exits(1);
    let report = ran
        .says(&format!("the rerun of {OTHER} is rejected: cpu: is odd"))
        .json();
    assert_eq!(
        report["accepted"],
        json!([{"line": 1, "execution_id": new_id, "rerun_of": ID}])
    );
    assert_eq!(report["rejected"][0]["rerun_of"], OTHER);
    // A user of an older stack sees what its API says.
    mycli.run(&again).exits(1).says("there is no such path");
    let sent: Vec<_> = api
        .asked()
        .into_iter()
        .filter(|asked| asked.method == "POST")
        .map(|asked| asked.json())
        .collect();
    let changes = json!({"env": {"A": "b"}, "group": "h"});
    assert_eq!(
        sent[0],
        json!({"submission_id": submission, "changes": changes, "add_secrets": ["T"]})
    );
}

/// Neither failure passes by itself: an administrator has to act. Trying again would only keep the
/// user waiting.
#[test]
fn words_of_failures_that_do_not_pass_are_shown_after_one_try() {
    for (code, title) in [
        (
            "permission_missing",
            "the store denied access: this installation lacks the permission dynamodb:PutItem",
        ),
        (
            "internal_error",
            "the store rejected a request of mycli; this is a fault of mycli",
        ),
        (
            "unreadable_record",
            "the record of exec_1 cannot be read by this release of mycli",
        ),
    ] {
        let api = flaky(vec![Reply::problem(500, code, title, &json!([])); 5]);
        Mycli::on(&api)
            .run(&["exec", "--no-repo", "make"])
            .exits(125)
            .says(title);
        assert_eq!(submissions(&api).len(), 1, "{code}");
    }
}
