//! `mycli stats` and `GET /stats`.

use serde_json::{Value, json};
use tests::sandbox::Sandbox;

use super::api::Http;

/// Runs six commands: three succeed, one of them in a group, one fails, and two are cancelled, one of
/// them before it starts.
fn six_runs(sandbox: &Sandbox) {
    let ended = [
        &["--name", "build", "true"][..],
        &["--name", "build", "--group", "nightly", "true"],
        &["true"],
        &["--name", "deploy", "exit 3"],
    ]
    .map(|arguments| sandbox.exec(arguments).1["status"].clone());
    assert_eq!(ended, ["SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "FAILED"]);
    let holder = sandbox.detach(&["--lock", "one", "sleep 3600"]);
    let waiting = sandbox.detach(&["--lock", "one", "--name", "build", "true"]);
    sandbox.local(&["cancel", &waiting]).exits(0);
    sandbox.until_status(&waiting, "CANCELLED");
    sandbox.local(&["cancel", &holder]).exits(0);
    sandbox.until_status(&holder, "CANCELLED");
}

/// Each row's value and number of runs.
fn rows(stats: &Value) -> Vec<(Value, u64)> {
    let rows = stats["rows"].as_array().expect("rows").iter();
    rows.map(|row| (row["value"].clone(), row["runs"].as_u64().expect("a count")))
        .collect()
}

#[test]
fn runs_that_ended_are_counted_by_each_property() {
    let sandbox = Sandbox::new();
    six_runs(&sandbox);
    let by = |by: &str| {
        sandbox
            .local(&["stats", "--by", by, "-o", "json"])
            .exits(0)
            .json()
    };
    assert_eq!(
        rows(&by("name")),
        [(json!("build"), 3), (json!("deploy"), 1), (Value::Null, 2)]
    );
    assert_eq!(
        rows(&by("status")),
        [
            (json!("SUCCEEDED"), 3),
            (json!("CANCELLED"), 2),
            (json!("FAILED"), 1)
        ]
    );
    assert_eq!(
        rows(&by("group")),
        [(json!("nightly"), 1), (Value::Null, 5)]
    );
    let stats = by("day");
    assert_eq!(rows(&stats), [(stats["until"].clone(), 6)]);
    let total = &stats["total"];
    assert_eq!(
        total["success_rate"], 0.75,
        "three of the four not cancelled"
    );
    assert_eq!(total["cost"], Value::Null, "this machine has no price");
    assert!(total["run_ms"]["p95"].is_u64(), "{total}");

    let page = sandbox.local(&["stats"]).exits(0).out;
    let lines: Vec<_> = page.lines().collect();
    assert_eq!(lines.len(), 2, "one day needs no sum: {page}");
    assert!(lines[0].starts_with("DAY "), "{page}");
    assert!(lines[1].contains("  75.0 %  "), "{page}");
    let page = sandbox.local(&["stats", "--by", "group"]).exits(0).out;
    let names: Vec<_> = page
        .lines()
        .filter_map(|line| line.split("  ").next())
        .collect();
    assert_eq!(names, ["GROUP", "nightly", "(no group)", "all"], "{page}");
}

#[test]
fn a_recount_of_history_says_the_same() {
    let sandbox = Sandbox::new();
    six_runs(&sandbox);
    for by in ["day", "status", "submitter", "name", "group"] {
        let both = sandbox
            .local(&["stats", "--recount", "--by", by, "-o", "json"])
            .exits(0)
            .json();
        let [mut counted, recounted] = [&both["counted"], &both["recounted"]].map(Clone::clone);
        // The vCPUs of tasks are not in history.
        let rows = counted["rows"].as_array_mut().expect("rows").len();
        for row in 0..rows {
            counted["rows"][row]["vcpu_hours"] = Value::Null;
        }
        counted["total"]["vcpu_hours"] = Value::Null;
        assert_eq!(counted, recounted, "{by}");
    }
    sandbox
        .local(&["stats", "--recount"])
        .exits(0)
        .says("as many runs were counted as are in history");
}

#[test]
fn statistics_of_nothing_are_no_fault() {
    let sandbox = Sandbox::new();
    sandbox
        .local(&["stats", "--since", "7d"])
        .exits(0)
        .prints("")
        .says("no run has ended since ");
    sandbox
        .local(&["stats", "--recount", "--by", "name"])
        .exits(0);
}

#[test]
fn a_wrong_day_or_property_is_refused_with_what_would_do() {
    let sandbox = Sandbox::new();
    sandbox
        .local(&["stats", "--by", "colour"])
        .exits(2)
        .says("day, status, group, submitter, name");
    sandbox
        .local(&["stats", "--since", "500d"])
        .exits(2)
        .says("statistics go back 400 days");
    sandbox
        .local(&["stats", "--by", "name", "--since", "100d"])
        .exits(2)
        .says("statistics go back 92 days");
    sandbox.local(&["stats", "--since", "400d"]).exits(0);
    sandbox.local(&["stats", "--since", "30000y"]).exits(2);
    sandbox.local(&["stats", "--since", "yesterday"]).exits(2);

    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let answer = http.get("/stats?by=colour&since=soon");
    assert_eq!(answer.status, 422, "{answer:?}");
    let faults = answer.body["errors"].as_array().expect("faults");
    let fields: Vec<_> = faults.iter().map(|fault| &fault["field"]).collect();
    assert_eq!(fields, ["by", "since"]);
    let future = http.get("/stats?since=2999-01-01T00:00:00Z");
    assert_eq!(future.status, 422, "{future:?}");
    assert_eq!(http.get("/stats?limit=3").status, 422);
}
