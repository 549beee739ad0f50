//! Many commands as one submission: through the API, both queues and the functions. Each command
//! runs in a container of its own.

use std::fs;

use serde_json::{Value, json};
use tests::{sandbox::Ran, world::World};

/// Returns three commands that succeed, and one each that exits with 3, takes too long, and is
/// killed.
fn lines() -> [Value; 6] {
    [
        json!({"command": "echo one"}),
        json!({"command": "exit 3"}),
        json!({"command": "echo three", "name": "third"}),
        json!({"command": "sleep 3", "timeout": "1s"}),
        json!({"command": "kill -9 $$"}),
        json!({"command": "echo six"}),
    ]
}

/// Submits them and waits for the end of all.
fn bulk(world: &World, more: &[&str]) -> Ran {
    let fixed = [
        "bulk",
        "jobs.jsonl",
        "--no-repo",
        "--group",
        "nightly",
        "--wait",
        "-o",
        "json",
    ];
    world.run(&[&fixed, more].concat())
}

/// Returns the line number, status and exit code of each run that failed.
fn failed(report: &Value) -> Vec<(u64, &str, Option<i64>)> {
    let runs = report["failed"].as_array().unwrap().iter();
    runs.map(|run| {
        (
            run["line"].as_u64().unwrap(),
            run["status"].as_str().unwrap(),
            run["exit_code"].as_i64(),
        )
    })
    .collect()
}

/// Returns the ids in a list of a report, in the order of their lines.
fn ids<'a>(report: &'a Value, list: &str) -> Vec<&'a str> {
    report[list]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["execution_id"].as_str().unwrap())
        .collect()
}

/// Returns the ids in the history under a filter, oldest first.
fn history(world: &World, filter: &[&str]) -> Vec<String> {
    let page = world
        .run(&[&["history", "-o", "json"], filter].concat())
        .exits(0)
        .json();
    let ids = page["executions"].as_array().unwrap().iter().rev();
    ids.map(|run| run["execution_id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_submission_is_run_looked_at_repeated_where_it_failed_and_never_accepted_twice() {
    let world = World::new();
    fs::write(
        world.user.path("jobs.jsonl"),
        lines().map(|line| format!("{line}\n")).concat(),
    )
    .unwrap();
    let report = bulk(&world, &[]).exits(1).json();
    let accepted = ids(&report, "accepted");
    assert_eq!(
        (accepted.len(), &report["existing"], &report["rejected"]),
        (6, &json!([]), &json!([]))
    );
    assert_eq!(
        report["counts"],
        json!({"SUCCEEDED": 3, "FAILED": 2, "TIMED_OUT": 1})
    );
    assert_eq!(
        failed(&report),
        [
            (2, "FAILED", Some(3)),
            (4, "TIMED_OUT", None),
            (5, "FAILED", Some(137))
        ]
    );

    assert_eq!(history(&world, &["--group", "nightly"]), accepted);
    assert_eq!(
        history(&world, &["--group", "nightly", "--status", "failed"]),
        [accepted[1], accepted[4]]
    );
    world.run(&["logs", accepted[2]]).exits(0).prints("three\n");
    let status = "nightly  6 of 6 over\nSUCCEEDED       3\nFAILED          2\nTIMED_OUT       1\n";
    world
        .run(&["status", "--group", "nightly"])
        .exits(0)
        .prints(status);

    let again = [
        "rerun",
        "--failed",
        "--group",
        "nightly",
        "--into",
        "again",
        "--timeout",
        "1m",
        "--wait",
        "-o",
        "json",
    ];
    let again = world.run(&again).exits(1).json();
    assert_eq!(
        again["counts"],
        json!({"SUCCEEDED": 1, "FAILED": 2}),
        "with more time, one of three succeeds"
    );
    // Eight requests are sent at a time, so neighbours may be recorded in another order than that
    // of their lines.
    let mut rerun = ids(&again, "accepted");
    rerun.sort_unstable();
    assert_eq!(history(&world, &["--group", "again"]), rerun);

    let resumed = bulk(
        &world,
        &["--resume", report["submission_id"].as_str().unwrap()],
    )
    .exits(1)
    .json();
    assert_eq!(
        (&resumed["accepted"], ids(&resumed, "existing")),
        (&json!([]), accepted.clone())
    );
    assert_eq!(
        (&resumed["counts"], failed(&resumed)),
        (&report["counts"], failed(&report))
    );
    assert_eq!(history(&world, &[]).len(), 9, "six and three");
    for id in accepted {
        assert_eq!(
            world.status(id)["attempts"].as_array().unwrap().len(),
            1,
            "{id} was run once"
        );
    }
}
