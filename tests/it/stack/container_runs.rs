//! One run after another, as a user starts and follows them.

use serde_json::{Value, json};
use tests::{engine::DEBIAN_GIT, sandbox::eventually};

use super::world::{World, containers, until_gone};
use crate::git_server::{Habits, HttpServer};

#[test]
fn a_command_runs_and_its_log_and_exit_code_come_back() {
    let world = World::new();
    world
        .run(&["exec", "--no-repo", "echo hello; echo oops >&2; exit 3"])
        .exits(3)
        .prints("hello\noops\n");
    let shown = world.run(&["history", "-o", "json"]).exits(0).json();
    let run = &shown["executions"][0];
    assert_eq!(
        (&run["status"], &run["exit_code"]),
        (&json!("FAILED"), &json!(3))
    );
    assert_eq!(run["submitted_by"], "alice", "the name of the key");
    let id = run["execution_id"].as_str().expect("an id");
    let arn = run["attempts"][0]["task_arn"].as_str().expect("a task");
    for wanted in [id, &id[20..], arn] {
        assert_eq!(world.status(wanted)["execution_id"], *id, "{wanted}");
    }
    world.run(&["logs", id]).exits(0).prints("hello\noops\n");
    world
        .run(&["logs", "-f", id])
        .exits(3)
        .prints("hello\noops\n");
    assert_eq!(
        world
            .run(&["history", "--status", "succeeded", "-o", "json"])
            .json()["executions"],
        json!([])
    );
}

/// The emulator is in us-east-1, whose prices are built in. Each of these tasks lasts some seconds,
/// and is billed for a minute at least.
#[test]
fn the_cost_of_a_run_counts_each_attempt_at_list_price() {
    let world = World::new();
    world
        .run(&["exec", "--no-repo", "--on-demand", "true"])
        .exits(0);
    let once = world.run(&["status", "-o", "json"]).json();
    let usd = |record: &Value, field: &str| record["cost"][field].as_f64().expect("dollars");
    // A quarter of a vCPU, half a GB and an address for a minute, and no more than ten of them. A
    // build from source runs tasks on the host's architecture.
    let (vcpu, gb) = if cfg!(target_arch = "aarch64") {
        (0.032_38, 0.003_56)
    } else {
        (0.040_48, 0.004_445)
    };
    let minute = (0.25 * vcpu + 0.5 * gb + 0.005) / 60.0;
    let low = usd(&once, "usd_low");
    assert!((0.999 * minute..10.0 * minute).contains(&low), "{once:#}");
    assert_eq!(once["cost"]["usd_high"], once["cost"]["usd_low"]);
    assert_eq!(once["cost"]["basis"], "list prices of us-east-1 2026-11");
    assert!(once["timings"]["pulling_ms"].is_u64(), "{once:#}");
    let page = world.run(&["status"]).out;
    assert!(page.contains("\ncost       about $0.000"), "{page}");

    world
        .run(&[
            "exec",
            "--no-repo",
            "--retries",
            "1",
            "--storage",
            "120",
            "exit 3",
        ])
        .exits(3);
    let twice = world.run(&["status", "-o", "json"]).json();
    assert_eq!(twice["attempts"].as_array().map(Vec::len), Some(2));
    // The prices of disk and address are fixed. That of Spot floats.
    let fixed = 2.0 * (100.0 * 0.000_111 + 0.005) / 60.0;
    let (low, high) = (usd(&twice, "usd_low"), usd(&twice, "usd_high"));
    assert!(low > fixed, "{twice:#}");
    assert!(high - fixed > 3.0 * (low - fixed), "{twice:#}");
    let sum: f64 = (0..2)
        .map(|number| usd(&twice["attempts"][number], "usd_high"))
        .sum();
    assert!((sum - high).abs() < 1e-9, "{twice:#}");
    let history = world.run(&["history"]).exits(0).out;
    assert!(history.contains("\n2 of them cost about $"), "{history}");
}

#[test]
fn a_private_repository_is_cloned_with_the_stack_s_token_and_its_commit_recorded() {
    let world = World::new();
    let server = HttpServer::new(Habits {
        login: Some("x-access-token:planted-git-token"),
        ..Habits::default()
    });
    let exec = [
        "exec",
        "--image",
        DEBIAN_GIT,
        "--repo",
        &server.url(),
        "cat f; env",
    ];
    world.run(&exec).exits(125).says("set-up failed");
    // The token is for other hosts. So it is not sent to this server, and the log says so.
    world
        .run_with(&["secrets", "set", "GIT_TOKEN"], "planted-git-token")
        .exits(0)
        .says("for github.com, gitlab.com");
    let without = world.run(&exec).exits(125);
    assert!(
        without.out.contains("GIT_TOKEN is not for 127.0.0.1"),
        "{without:#?}"
    );
    assert_eq!(server.shown(), [] as [&str; 0]);
    let set = ["secrets", "set", "GIT_TOKEN", "--host", "127.0.0.1"];
    world
        .run_with(&set, "planted-git-token")
        .exits(0)
        .says("for 127.0.0.1");
    let ran = world.run(&exec).exits(0);
    assert!(
        ran.out.starts_with("main\n") && !ran.out.contains("planted"),
        "{ran:#?}"
    );
    let record = world.run(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(record["commit"], json!(server.origin.commit("main")));
}

#[test]
fn a_running_command_is_cancelled_and_its_container_is_gone() {
    let world = World::new();
    let id = world.detach(&["sleep 300"]);
    let arn = world.until(&id, "RUNNING")["attempts"][0]["task_arn"]
        .as_str()
        .expect("a task")
        .to_owned();
    assert!(!containers(&arn).is_empty());
    world.run(&["cancel", &id]).exits(0);
    let record = world.until(&id, "CANCELLED");
    assert!(
        record["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("alice")),
        "{record:#}"
    );
    world.run(&["wait", &id]).exits(130);
    until_gone(&arn);
}

#[test]
fn a_queued_command_waits_for_its_lock_and_is_cancelled_without_a_task() {
    let world = World::new();
    let holder = world.detach(&["--lock", "deploy", "sleep 300"]);
    world.until(&holder, "RUNNING");
    let second = world.detach(&["--lock", "deploy", "true"]);
    let waiting = world.until(&second, "WAITING");
    assert_eq!(
        (
            &waiting["waiting"]["limit"],
            &waiting["waiting"]["position"]
        ),
        (&json!("lock:deploy"), &json!(1))
    );
    world.run(&["cancel", &second]).exits(0);
    let record = world.status(&second);
    assert_eq!(
        (&record["status"], &record["attempts"]),
        (&json!("CANCELLED"), &json!([]))
    );
    world.run(&["cancel", &holder]).exits(0);
    world.until(&holder, "CANCELLED");
}

#[test]
fn a_timeout_ends_the_command() {
    let world = World::new();
    world
        .run(&[
            "exec",
            "--no-repo",
            "--timeout",
            "2s",
            "echo begun; sleep 300",
        ])
        .exits(124)
        .prints("begun\n");
    let record = world.run(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(
        (&record["status"], &record["exit_code"]),
        (&json!("TIMED_OUT"), &json!(null))
    );
}

#[test]
fn an_end_that_no_event_told_of_is_found_by_the_sweep() {
    let mut world = World::new();
    world.lose_events();
    let id = world.detach(&["exit 4"]);
    let record = world.until(&id, "FAILED");
    assert_eq!(record["exit_code"], 4);
}

/// The emulator tells of an end at once, where a stack collects ends for minutes.
#[test]
fn the_ends_of_runs_are_counted_once() {
    let world = World::new();
    world
        .run(&["exec", "--no-repo", "--name", "a", "true"])
        .exits(0);
    world
        .run(&["exec", "--no-repo", "--name", "b", "exit 3"])
        .exits(3);
    let stats = |by: &str| world.run(&["stats", "--by", by, "-o", "json"]).json();
    eventually("both ends are counted", || {
        (stats("day")["total"]["runs"] == 2).then_some(())
    });
    let both = world
        .run(&["stats", "--by", "name", "--recount", "-o", "json"])
        .json();
    for view in ["counted", "recounted"] {
        let rows = both[view]["rows"].as_array().expect("rows");
        let runs: Vec<_> = rows
            .iter()
            .map(|row| (row["value"].as_str().expect("a name"), &row["runs"]))
            .collect();
        assert_eq!(runs, [("a", &json!(1)), ("b", &json!(1))], "{both:#}");
    }
    let total = &both["counted"]["total"];
    assert_eq!(total["success_rate"], 0.5);
    assert!(total["cost"]["usd_low"].as_f64() > Some(0.0), "{total}");
    assert!(total["vcpu_hours"].as_f64() > Some(0.0), "{total}");
    let page = world.run(&["stats"]).exits(0).out;
    assert!(page.contains("about $0.00"), "{page}");
}

/// The lines of metrics in a function's log.
fn metrics(world: &World, function: &str) -> Vec<Value> {
    let ask = json!({"logGroupName": format!("/aws/lambda/mycli-default-{function}")});
    let page = world.ask("logs", "Logs_20140328.FilterLogEvents", &ask);
    let events = page["events"].as_array().expect("events").iter();
    let lines = events.filter_map(|event| serde_json::from_str(event["message"].as_str()?).ok());
    lines
        .filter(|line: &Value| line["_aws"]["CloudWatchMetrics"].is_array())
        .collect()
}

/// CloudWatch itself is not emulated: it would take the metrics out of these lines.
#[test]
fn the_functions_write_metrics_into_their_logs() {
    let world = World::new();
    world.run(&["exec", "--no-repo", "exit 3"]).exits(3);
    let launches = eventually("a launch is measured", || {
        let lines = metrics(&world, "launcher").into_iter();
        lines.into_iter().find(|line| line["Launches"] == 1)
    });
    let described = &launches["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(
        (&described["Namespace"], &described["Dimensions"]),
        (&json!("mycli/default"), &json!([["capacity"]])),
        "{launches:#}"
    );
    assert_eq!(launches["capacity"], "spot");
    let ended = eventually("the end is measured", || {
        let lines = metrics(&world, "state-tracker").into_iter();
        lines.into_iter().find(|line| line["Runs"] == 1)
    });
    assert_eq!(
        (&ended["capacity"], &ended["status"]),
        (&json!("spot"), &json!("FAILED")),
        "{ended:#}"
    );
    let costs = eventually("its cost is measured", || {
        let lines = metrics(&world, "state-tracker").into_iter();
        lines.into_iter().find(|line| line["CostLow"].is_array())
    });
    assert!(costs["CostLow"][0].as_f64() > Some(0.0), "{costs:#}");
    assert!(costs["RunTime"][0].as_f64() > Some(0.0), "{costs:#}");
}
