//! `POST /executions/{id}/rerun`, and how `mycli rerun` uses it.

use std::{collections::BTreeSet, fs};

use reqwest::Method;
use serde_json::{Value, json};
use tests::sandbox::{Running, Sandbox, Serve};

use super::api::{Answer, Http, ids};

/// An HTTP client with a new key of this role.
fn with_role(serve: &Serve, name: &str, role: &str) -> Http {
    let made = Http::to(serve).post("/keys", &json!({"name": name, "role": role}));
    Http::to(serve).with_key(made.body["key"].as_str().unwrap())
}

fn rerun(http: &Http, id: &str, changes: &Value) -> Answer {
    http.post(&format!("/executions/{id}/rerun"), changes)
}

/// Runs an execution again, which must be accepted. Returns the new run's id.
#[track_caller]
fn accepted(http: &Http, id: &str, changes: &Value) -> String {
    let answer = rerun(http, id, changes);
    assert_eq!(answer.status, 202, "{answer:#?}");
    answer.body["execution_id"].as_str().unwrap().to_owned()
}

/// The keys of a request, as a record shows them.
fn request_of(record: &Value) -> Value {
    let of_the_run = [
        "execution_id",
        "status",
        "exit_code",
        "reason",
        "submitted_by",
        "submitted_at",
        "launched_at",
        "started_at",
        "stopped_at",
        "attempts",
        "cost",
        "events",
        "timings",
        "waiting",
    ];
    let mut request = record.clone();
    request
        .as_object_mut()
        .unwrap()
        .retain(|key, _| !of_the_run.contains(&key.as_str()));
    request
}

/// A request with every setting that one machine supports.
fn request() -> Value {
    json!({
        "command": "echo \"$A $B\"; exit 3", "env": {"A": "one", "B": "two"}, "timeout": "5m", "cpu": 512, "memory": 2048,
        "lock": "l", "group": "g", "max_parallel": 2, "priority": 3, "retries": 0, "name": "n",
    })
}

#[test]
fn a_rerun_is_the_stored_request_with_what_is_changed() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let mut first = request();
    first["idempotency_key"] = json!("k");
    let id = http.submit(&first);
    http.until_quiet();
    let before = request_of(&http.record(&id));
    let check = |changes: Value, differing: Value| {
        let again = accepted(&http, &id, &changes);
        assert_ne!(again, id);
        let mut expected = before.clone();
        expected["idempotency_key"] = Value::Null;
        expected
            .as_object_mut()
            .unwrap()
            .extend(differing.as_object().unwrap().clone());
        assert_eq!(request_of(&http.record(&again)), expected, "{changes}");
        again
    };
    check(json!({}), json!({}));
    let nothing = http.send(Method::POST, &format!("/executions/{id}/rerun"), Vec::new());
    assert_eq!(
        nothing.status, 202,
        "an empty body changes nothing: {nothing:#?}"
    );
    let changed = check(
        json!({"env": {"B": "three", "C": "c"}, "timeout": 60}),
        json!({"env": {"A": "one", "B": "three", "C": "c"}, "timeout": "1m"}),
    );
    check(
        json!({"cpu": 256, "name": "m"}),
        json!({"cpu": 256, "memory": 512, "name": "m"}),
    );
    http.until_quiet();
    assert_eq!(http.record(&changed)["exit_code"], 3);
    let log = http.get(&format!("/executions/{changed}/logs")).body;
    assert_eq!(log["lines"][0]["text"], "one three");
}

#[test]
fn what_can_be_run_again_is_named_as_everywhere_and_may_be_under_way() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "0.25"]);
    let http = Http::to(&serve);
    let id = http.submit(&json!({"command": "sleep 3600"}));
    let waiting = accepted(&http, &id, &json!({"command": "true"}));
    let again = accepted(&http, &waiting[waiting.len() - 8..], &json!({}));
    assert_eq!(http.record(&again)["command"], "true");
    rerun(&http, "exec_", &json!({})).refuses(409, "ambiguous_id");
    rerun(&http, "exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9", &json!({})).refuses(404, "not_found");
    rerun(&http, "nonsense", &json!({})).refuses(404, "not_found");
    http.get(&format!("/executions/{id}/rerun"))
        .refuses(405, "method_not_allowed");
    let runs = http.history("");
    for run in ids(&runs) {
        http.post(&format!("/executions/{run}/cancel"), &json!({}));
    }
    http.until_quiet();
}

#[test]
fn changes_with_faults_are_told_as_of_any_request() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "1"]);
    let http = Http::to(&serve);
    let id = http.submit(&request());
    let unreadable = |changes: Value, words: &str| {
        let answer = rerun(&http, &id, &changes);
        let title = answer.refuses(400, "invalid_json").body["title"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(title.contains(words), "{title}");
    };
    unreadable(
        json!({"comand": "x"}),
        "unknown field `comand`, expected one of `command`, `repo`",
    );
    unreadable(json!({"action": "exec"}), "unknown field `action`");
    unreadable(json!({"env": null}), "`env`");
    unreadable(json!({"timeout": null}), "`timeout` is null; leave it out");
    unreadable(
        json!({"env": {"A": 1}}),
        "`env.A`: invalid type: integer `1`, expected a string",
    );
    unreadable(json!([]), "it is a list");
    let faulty = |changes: Value, expected: &[&str]| {
        let answer = rerun(&http, &id, &changes);
        let errors = answer.refuses(422, "invalid_request").body["errors"]
            .as_array()
            .unwrap()
            .clone();
        let fields: BTreeSet<_> = errors
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect();
        assert_eq!(
            fields,
            BTreeSet::from_iter(expected.iter().copied()),
            "{answer:#?}"
        );
    };
    faulty(
        json!({"cpu": 3, "retries": 99, "env": {"1A": "x"}}),
        &["cpu", "retries", "env.1A"],
    );
    faulty(json!({"branch": "main"}), &["branch"]);
    faulty(json!({"secrets": ["NO_SUCH"]}), &["secrets[0]"]);
    // These faults are a size over the quota and a request larger than any may be.
    faulty(json!({"cpu": 2048}), &["cpu"]);
    let fits_alone = "x".repeat(100_000);
    faulty(
        json!({"env": {"A": fits_alone, "B": fits_alone, "C": fits_alone}}),
        &["env"],
    );
    rerun(&http, &id, &json!({"command": "x".repeat(2 * 1024 * 1024)}))
        .refuses(413, "body_too_large");
    assert_eq!(http.history("").len(), 1, "nothing was recorded");
}

#[test]
fn a_rerun_has_an_idempotency_key_as_any_request() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let id = http.submit(&json!({"command": "true"}));
    let keyed = json!({"name": "again", "idempotency_key": "k"});
    let again = accepted(&http, &id, &keyed);
    http.until_quiet();
    assert_eq!(accepted(&http, &id, &keyed), again);
    rerun(
        &http,
        &id,
        &json!({"name": "other", "idempotency_key": "k"}),
    )
    .refuses(409, "idempotency_key_reused");
    assert_eq!(http.history("").len(), 2);
    // An idempotency key belongs to one submitter.
    assert_ne!(
        accepted(&with_role(&serve, "bob", "submit"), &id, &keyed),
        again
    );
}

/// A rerun's submitter is the caller who asked for it. A key with the role `read` can neither rerun
/// nor see the values of variables.
#[test]
fn a_rerun_is_its_callers_and_a_key_that_reads_sees_names_alone() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let id = http.submit(&json!({"command": "echo $A", "env": {"A": "the value", "B": ""}}));
    let (reader, submitter) = (
        with_role(&serve, "ann", "read"),
        with_role(&serve, "bob", "submit"),
    );
    rerun(&reader, &id, &json!({"comand": 1})).refuses(403, "forbidden");
    let again = accepted(&submitter, &id, &json!({"env": {"C": "c"}}));
    assert_eq!(submitter.record(&again)["submitted_by"], "bob");
    let hidden = json!({"A": null, "B": null, "C": null});
    assert_eq!(reader.record(&again)["env"], hidden);
    assert_eq!(reader.history("by=bob")[0]["env"], hidden);
    assert!(
        !reader
            .get("/executions")
            .body
            .to_string()
            .contains("the value")
    );
    for sees in [&submitter, &http] {
        assert_eq!(
            sees.record(&again)["env"],
            json!({"A": "the value", "B": "", "C": "c"})
        );
    }
    http.until_quiet();
    assert_eq!(
        reader.get(&format!("/executions/{again}/logs")).body["lines"][0]["text"],
        "the value"
    );
}

/// With the server's own key, the command line sends only the changes. With a key of the role
/// `read`, it still shows what it may see.
#[test]
fn the_command_line_loses_no_value_and_needs_none() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let run = |arguments: &[&str]| serve.run(&sandbox, arguments);
    run(&[
        "exec",
        "--no-repo",
        "-e",
        "A=one",
        "-e",
        "B=two",
        "echo $A $B",
    ])
    .exits(0)
    .prints("one two\n");
    run(&["rerun", "-e", "B=three"])
        .exits(0)
        .prints("one three\n");
    run(&["rerun", "--timeout", "soon"])
        .exits(2)
        .says("timeout: ");
    run(&["rerun", "--group", "other"])
        .exits(2)
        .says("no run is named")
        .says("--failed");
    run(&["rerun", "--repo", ""]).exits(2).says("--no-repo");
    let shown = run(&["rerun", "--dry-run", "--name", "n"]).exits(0).json();
    assert_eq!(
        (&shown["env"], &shown["name"]),
        (&json!({"A": "one", "B": "three"}), &json!("n"))
    );
    let key = http
        .post("/keys", &json!({"name": "ann", "role": "read"}))
        .body["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let id = http.history("limit=1")[0]["execution_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let reading = |arguments: &[&str]| {
        let mut command = serve.command(&sandbox, arguments);
        command.env("MYCLI_API_KEY", &key);
        Running::of(command).end()
    };
    assert!(
        reading(&["status", &id]).exits(0).out.contains("A, B"),
        "names are told"
    );
    let shown = reading(&["rerun", &id, "--dry-run"])
        .exits(0)
        .says("left out here: A, B");
    assert!(shown.json()["env"].is_null());
    reading(&["rerun", &id]).exits(125).says("role submit");
}

#[test]
fn a_repository_can_be_left_out_of_a_rerun() {
    let (sandbox, origin) = (Sandbox::new(), crate::git_server::Origin::new());
    let repo = origin.path().display().to_string();
    sandbox
        .local(&["exec", "--repo", &repo, "--branch", "v1", "ls"])
        .exits(0);
    sandbox
        .local(&["rerun", "--no-repo", "--env", "A=b"])
        .exits(0)
        .prints("");
    let record = sandbox.local(&["status", "-o", "json"]).json();
    assert_eq!(
        (&record["repo"], &record["branch"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn what_failed_of_a_group_is_run_again_once_however_often_it_is_sent() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let line = |number: usize| json!({"command": format!("exit {}", number % 2), "env": {"N": number.to_string()}});
    let lines: String = (0..40)
        .map(|number| format!("{}\n", line(number)))
        .collect();
    fs::write(sandbox.path("jobs.jsonl"), lines).unwrap();
    let run = |arguments: &[&str]| serve.run(&sandbox, arguments);
    run(&[
        "bulk",
        "jobs.jsonl",
        "--no-repo",
        "--group",
        "first",
        "--wait",
    ])
    .exits(1);
    let again = [
        "rerun", "--failed", "--group", "first", "-e", "MORE=x", "-o", "json",
    ];
    let report = run(&again).exits(0).says("--resume sub_").json();
    let sub = report["submission_id"].as_str().unwrap();
    let made = |report: &Value, list: &str| -> BTreeSet<String> {
        let entries = report[list].as_array().unwrap().iter();
        entries
            .map(|entry| entry["execution_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        (made(&report, "accepted").len(), &report["group"]),
        (20, &json!(sub))
    );
    http.until_quiet();
    let resumed = run(&[&again[..], &["--resume", sub]].concat())
        .exits(0)
        .json();
    assert_eq!(
        made(&resumed, "existing"),
        made(&report, "accepted"),
        "nothing runs twice"
    );
    assert_eq!(made(&resumed, "accepted"), BTreeSet::new());
    let runs = http.history(&format!("group={sub}"));
    let env: BTreeSet<_> = runs
        .iter()
        .map(|run| run["env"]["N"].as_str().unwrap().parse::<u32>().unwrap())
        .collect();
    assert_eq!(
        (runs.len(), env),
        (20, (0..40).filter(|number| number % 2 == 1).collect())
    );
    assert!(runs.iter().all(|run| run["env"]["MORE"] == "x"));
    // Sent again with other changes, it is refused line by line.
    let other = run(&["rerun", "--failed", "--group", "first", "--resume", sub]).exits(1);
    other
        .says("the rerun of exec_")
        .says("is rejected: submission_id: was used within 24 hours with other changes");
    assert_eq!(http.history("").len(), 60);
}

/// The rerun in the answer of `GET /groups/{group}`, once all members were looked at.
fn rerun_done(http: &Http, group: &str) -> Value {
    tests::sandbox::eventually("all members were looked at", || {
        let rerun = http.get(&format!("/groups/{group}")).body["rerun"].clone();
        (rerun["done"] == true).then_some(rerun)
    })
}

#[test]
fn the_server_runs_again_what_failed_of_a_group_by_one_request() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let rerun = |body: &Value| http.post("/groups/nightly/rerun-failed", body);
    rerun(&json!({})).refuses(404, "no_such_group");
    for (name, code) in [("good", 0), ("bad", 1), ("worse", 3)] {
        http.submit(&json!({"command": format!("exit {code}"), "name": name, "group": "nightly", "lock": name}));
    }
    http.until_quiet();
    let answer = rerun(&json!({"submission_id": "second", "changes": {"env": {"A": "b"}}}));
    assert_eq!(
        (answer.status, &answer.body["group"]),
        (202, &json!("second")),
        "{answer:#?}"
    );
    let done = rerun_done(&http, "second");
    assert_eq!(
        (&done["of"], &done["accepted"], &done["rejected"]),
        (&json!("nightly"), &json!(2), &json!(0)),
        "{done}"
    );
    http.until_quiet();
    let again = http.history("group=second");
    let names: BTreeSet<_> = again
        .iter()
        .map(|run| run["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["bad", "worse"].into());
    assert!(
        again
            .iter()
            .all(|run| run["env"] == json!({"A": "b"}) && run["lock"] == run["name"]),
        "{again:#?}"
    );
    // A request with the same id is the same submission. Without an id it is a new one.
    rerun(&json!({"submission_id": "second", "changes": {"env": {"A": "b"}}}));
    assert_eq!(rerun_done(&http, "second")["existing"], 2);
    let third = rerun(&json!({})).body["group"].as_str().unwrap().to_owned();
    assert_eq!((third.len(), &third[..4]), (30, "sub_"));
    assert_eq!(rerun_done(&http, &third)["accepted"], 2);
    http.until_quiet();
    assert_eq!(http.history("group=second").len(), 2);
    assert_eq!(http.history("").len(), 7);
}

#[test]
fn faults_of_a_groups_rerun_are_told_before_anything_runs() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    http.submit(&json!({"command": "exit 1", "group": "nightly"}));
    http.until_quiet();
    let faulty = |body: Value, field: &str| {
        let answer = http.post("/groups/nightly/rerun-failed", &body);
        let errors = answer.refuses(422, "invalid_request").body["errors"]
            .as_array()
            .unwrap()
            .clone();
        assert_eq!(
            errors
                .iter()
                .map(|error| error["field"].as_str().unwrap())
                .collect::<Vec<_>>(),
            [field],
            "{body}"
        );
    };
    faulty(json!({"changes": {"cpu": 3}}), "changes.cpu");
    faulty(json!({"changes": {"env": {"1A": "x"}}}), "changes.env.1A");
    faulty(json!({"changes": {"branch": "main"}}), "changes.branch");
    faulty(json!({"changes": {"group": "a b"}}), "changes.group");
    faulty(
        json!({"changes": {"idempotency_key": "k"}}),
        "changes.idempotency_key",
    );
    faulty(json!({"add_secrets": ["NO_SUCH"]}), "add_secrets");
    faulty(json!({"submission_id": "a/b"}), "submission_id");
    faulty(json!({"submission_id": ""}), "submission_id");
    http.post("/groups/a b/rerun-failed", &json!({}))
        .refuses(422, "invalid_request");
    http.post("/groups/nightly/rerun-failed", &json!({"change": {}}))
        .refuses(400, "invalid_json");
    http.get("/groups/nightly/rerun-failed")
        .refuses(405, "method_not_allowed");
    with_role(&serve, "ann", "read")
        .post("/groups/nightly/rerun-failed", &json!({}))
        .refuses(403, "forbidden");
    let flags = [
        "rerun", "--failed", "--group", "nightly", "--cpu", "3", "-e", "1A=x",
    ];
    let refused = serve
        .run(&sandbox, &flags)
        .exits(2)
        .says("cpu: ")
        .says("env.1A: ");
    assert!(!refused.err.contains("changes."), "{refused:#?}");
    assert_eq!(http.history("").len(), 1, "nothing was recorded");
}

/// The group of the failed runs may also be the group of the new runs.
#[test]
fn a_resumed_rerun_does_not_run_its_own_runs_again() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    http.submit(&json!({"command": "exit 1", "group": "g"}));
    http.until_quiet();
    let again = [
        "rerun", "--failed", "--group", "g", "--into", "g", "--wait", "-o", "json",
    ];
    let report = serve.run(&sandbox, &again).exits(1).json();
    let sub = report["submission_id"].as_str().unwrap();
    let resumed = serve
        .run(&sandbox, &[&again[..], &["--resume", sub]].concat())
        .exits(1)
        .json();
    let counts = |list: &str| resumed[list].as_array().unwrap().len();
    assert_eq!(
        (counts("accepted"), counts("existing"), counts("failed")),
        (0, 1, 1)
    );
    assert_eq!(http.history("group=g").len(), 2);
}
