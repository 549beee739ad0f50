//! `/metrics` of `mycli local serve`.

use std::collections::BTreeMap;

use domain::metric::METRICS;
use reqwest::Method;
use serde_json::json;
use tests::sandbox::{Sandbox, eventually};

use super::api::Http;

/// The samples of the metrics, by name and labels as they are written.
fn samples(http: &Http) -> BTreeMap<String, f64> {
    let answer = http.get("/metrics");
    assert_eq!(answer.status, 200, "{answer:#?}");
    assert!(
        answer.kind.starts_with("text/plain; version=0.0.4"),
        "{}",
        answer.kind
    );
    let text = answer.body.as_str().unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        (
            name.to_owned(),
            value.parse().unwrap_or_else(|_| panic!("{line}")),
        )
    };
    lines.map(sample).collect()
}

#[test]
fn what_a_server_did_and_what_waits_is_measured() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "4"]);
    let http = Http::to(&serve);
    for command in ["true", "true", "exit 3"] {
        http.submit(&json!({"action": "exec", "command": command}));
    }
    let holder = http.submit(&json!({"action": "exec", "command": "sleep 3600", "lock": "one"}));
    http.submit(&json!({"action": "exec", "command": "true", "lock": "one"}));
    http.submit(&json!({"action": "exec", "command": "true", "lock": "two", "cpu": 1024}));
    let seen = eventually("all is measured", || {
        let seen = samples(&http);
        let ended = |status: &str| {
            let name = format!("mycli_runs_total{{capacity=\"machine\",status=\"{status}\"}}");
            seen.get(&name).copied().unwrap_or_default()
        };
        let all = (ended("SUCCEEDED") - 3.0).abs() < 0.1 && (ended("FAILED") - 1.0).abs() < 0.1;
        let runs = http.record(&holder)["status"] == "RUNNING";
        (all && runs).then_some(seen)
    });
    let is = |name: &str, wanted: f64| {
        let value = seen
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing: {seen:#?}"));
        assert!((value - wanted).abs() < 0.01, "{name} is {value}");
    };
    is("mycli_launches_total{capacity=\"machine\"}", 5.0);
    is("mycli_backlog_runs{limit=\"lock\"}", 1.0);
    is("mycli_backlog_runs{limit=\"machine\"}", 0.0);
    is("mycli_vcpus_used{capacity=\"machine\"}", 0.25);
    is("mycli_vcpus_quota{capacity=\"machine\"}", 4.0);
    is("mycli_wait_seconds_count{capacity=\"machine\"}", 4.0);
    is(
        "mycli_run_seconds_bucket{capacity=\"machine\",le=\"+Inf\"}",
        4.0,
    );
    // A metric has no sample before its first event. Each sample has its meaning beside it.
    let text = http.get("/metrics").body;
    for metric in METRICS
        .iter()
        .filter(|metric| text.as_str().unwrap().contains(metric.name))
    {
        let help = format!("# HELP {} {}", metric.name, metric.help);
        assert!(text.as_str().unwrap().contains(&help), "{help}");
    }
    http.post(&format!("/executions/{holder}/cancel"), &json!({}));
}

#[test]
fn metrics_are_for_holders_of_a_key_and_only_read() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let mut http = Http::to(&serve);
    let answer = http.send(Method::POST, "/metrics", Vec::new());
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (405, &json!("method_not_allowed"))
    );
    let made = http.post("/keys", &json!({"name": "prometheus", "role": "read"}));
    let key = made.body["key"].as_str().unwrap().to_owned();
    http.key = None;
    assert_eq!(http.get("/metrics").status, 401);
    let reader = Http::to(&serve).with_key(&key);
    assert_eq!(reader.get("/metrics").status, 200);
}

/// A record that cannot be read is counted each time that somebody meets it.
#[test]
fn records_that_cannot_be_read_are_measured() {
    let sandbox = Sandbox::new();
    let id = sandbox.detach(&["true"]);
    sandbox.until_status(&id, "SUCCEEDED");
    sandbox.spoil(&id);
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    assert_eq!(http.get("/executions").status, 200);
    let seen = samples(&http);
    assert!(seen["mycli_unreadable_records_total"] >= 1.0, "{seen:#?}");
}
