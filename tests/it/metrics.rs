//! The metrics that functions write, against what became of the runs.

use chrono::TimeDelta;
use pipeline::statistics::count;
use serde_json::{Value, json};
use tests::{
    ecs::{Foreign, Kind, Operation, VCPU, Why},
    measured,
    memory::MemoryStore,
    simulation::{self, LaunchPlan, start},
};

use crate::contract::records::{Wish, at, close, launch};

/// The lines of metrics.
fn parsed(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The values of a metric in these lines.
fn values(lines: &[Value], name: &str) -> Vec<f64> {
    let of_line = |line: &Value| match &line[name] {
        Value::Array(all) => all.iter().filter_map(Value::as_f64).collect(),
        one => Vec::from_iter(one.as_f64()),
    };
    lines.iter().flat_map(of_line).collect()
}

/// The sum of a counter in these lines.
fn sum(lines: &[Value], name: &str) -> u64 {
    lines.iter().filter_map(|line| line[name].as_u64()).sum()
}

fn largest(lines: &[Value], name: &str) -> f64 {
    values(lines, name).into_iter().fold(0.0, f64::max)
}

#[test]
fn launches_refusals_backlogs_and_vcpus_are_those_of_the_account() {
    let _measured = measured::on_this_thread();
    let mut plan = LaunchPlan::of(simulation::account(7, 20), 200);
    plan.account.foreign.push(Foreign {
        kind: Kind::Spot,
        from: start(),
        until: start() + TimeDelta::minutes(3),
        cpu: 15 * VCPU,
    });
    let outcome = simulation::run(&plan);
    assert_eq!(outcome.lost(200), 0, "{:?}", outcome.ends);
    let lines = parsed(&outcome.metrics);
    assert_eq!(sum(&lines, "Launches"), 200);
    let refused = outcome
        .counts
        .refused(Operation::RunTask, Why::Vcpus(Kind::Spot));
    let by_quota: Vec<_> = lines
        .iter()
        .filter(|line| line["cause"] == "quota")
        .cloned()
        .collect();
    assert!(refused > 0, "the quota was never in the way");
    assert_eq!(sum(&by_quota, "Refusals"), refused);
    assert!(largest(&lines, "BacklogLength") > 100.0);
    assert!(largest(&lines, "BacklogAge") >= 60.0);
    let used = largest(&lines, "VcpusUsed");
    assert!(used > 1.0 && used <= 20.0, "{used}");
    let of_spot: Vec<_> = lines
        .iter()
        .filter(|line| line["capacity"] == "spot")
        .cloned()
        .collect();
    let quotas = values(&of_spot, "VcpusQuota");
    assert!(
        !quotas.is_empty() && quotas.iter().all(|quota| (quota - 20.0).abs() < 0.01),
        "{quotas:?}"
    );
}

/// The table's stream may tell of an end any number of times.
#[tokio::test]
async fn an_end_is_measured_once_however_often_it_is_told() {
    let _measured = measured::on_this_thread();
    let store = MemoryStore::default();
    let mut ids = Vec::new();
    for (millis, exit_code) in [(0, 0), (1, 3), (2, 0)] {
        let execution = Wish::of("alice", millis).submit(&store).await;
        let launched = launch(&store, &execution).await;
        ids.push(close(&store, &launched, exit_code).await.id);
    }
    let now = at(120_000);
    let mut lines = Vec::new();
    for told in [&ids[..2], &ids[..], &ids[1..], &ids[..]] {
        let (counted, text) = measured::invocation(|| now, count(&store, now, told)).await;
        counted.unwrap();
        lines.extend(parsed(&text));
    }
    assert_eq!(sum(&lines, "Runs"), 3, "{lines:#?}");
    let of = |status: &str| -> Vec<_> {
        let is_it = |line: &&Value| line["status"] == status;
        lines.iter().filter(is_it).cloned().collect()
    };
    assert_eq!(
        (sum(&of("SUCCEEDED"), "Runs"), sum(&of("FAILED"), "Runs")),
        (2, 1)
    );
    assert_eq!(values(&lines, "Wait").len(), 3);
    assert_eq!(values(&lines, "CostHigh").len(), 3);
}

/// No dimension and no value has a text that people write. Each text would be a metric of its own,
/// and it may be a secret.
#[tokio::test]
async fn no_id_and_no_name_is_in_a_metric() {
    let _measured = measured::on_this_thread();
    let store = MemoryStore::default();
    let wish = Wish {
        lock: Some("planted-lock"),
        group: Some("planted-group"),
        ..Wish::of("planted-key", 0)
    };
    let execution = wish.submit(&store).await;
    let launched = launch(&store, &execution).await;
    let ended = close(&store, &launched, 0).await;
    let waiting = Wish {
        lock: Some("planted-lock"),
        ..Wish::of("planted-key", 5)
    };
    let waiting = waiting.submit(&store).await;
    let settings = simulation::settings(&simulation::account(7, 20));
    let now = at(120_000);
    let work = async {
        count(&store, now, std::slice::from_ref(&ended.id))
            .await
            .unwrap();
        pipeline::gauges::measure(&store, &settings, now).await;
    };
    let ((), text) = measured::invocation(|| now, work).await;
    let lines = parsed(&text);
    let locks: Vec<_> = lines
        .iter()
        .filter(|line| line["limit"] == "lock")
        .collect();
    assert_eq!(locks[0]["BacklogLength"], json!(1.0), "{text}");
    for planted in ["planted", ended.id.as_str(), waiting.id.as_str()] {
        assert!(!text.contains(planted), "{text}");
    }
}
