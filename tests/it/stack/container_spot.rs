//! Spot capacity that is taken back during a run.

use serde_json::{Value, json};

use super::world::{World, until_gone};

/// Interrupts a run's task as Spot does. Returns the task's ARN.
fn interrupt(world: &World, record: &Value) -> String {
    let attempts = record["attempts"].as_array().expect("attempts");
    let arn = attempts.last().expect("an attempt")["task_arn"]
        .as_str()
        .expect("a task")
        .to_owned();
    let stop = json!({"cluster": "mycli-default", "task": arn, "reason": "Your Spot Task was interrupted."});
    world.ask("ecs", "AmazonEC2ContainerServiceV20141113.StopTask", &stop);
    arn
}

#[test]
fn an_interruption_ends_a_run_with_that_reason() {
    let world = World::new();
    let id = world.detach(&["sleep 300"]);
    let arn = interrupt(&world, &world.until(&id, "RUNNING"));
    let record = world.until(&id, "FAILED");
    assert!(
        record["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("Spot interruption")),
        "{record:#}"
    );
    assert_eq!(record["attempts"].as_array().map(Vec::len), Some(1));
    let shown = world.run(&["status", &id]).exits(0);
    assert!(
        shown.out.contains("Spot interruption") && shown.out.contains("--retry-on spot"),
        "{}",
        shown.out
    );
    world
        .run(&["wait", &id])
        .exits(143)
        .says("Spot interruption");
    until_gone(&arn);
}

#[test]
fn an_interruption_is_followed_by_an_attempt_on_demand_if_that_was_asked_for() {
    let world = World::with(&["SpotFallbackAfter=1"]);
    let command = "case $MYCLI_ATTEMPT_ID in *-2) echo again;; *) sleep 300;; esac";
    let id = world.detach(&["--retry-on", "spot", command]);
    let arn = interrupt(&world, &world.until(&id, "RUNNING"));
    let record = world.until(&id, "SUCCEEDED");
    let of = |what: &str| -> Vec<Value> {
        record["attempts"]
            .as_array()
            .expect("attempts")
            .iter()
            .map(|attempt| attempt[what].clone())
            .collect()
    };
    assert_eq!(
        of("capacity"),
        [json!("spot"), json!("on-demand")],
        "{record:#}"
    );
    assert_eq!(of("exit_code")[1], 0);
    assert!(
        of("reason")[0]
            .as_str()
            .is_some_and(|reason| reason.contains("Spot interruption")),
        "{record:#}"
    );
    let shown = world.run(&["status", &id]).exits(0).out;
    for told in [
        "attempt 1",
        "Spot interruption",
        "on demand instead of Spot",
        "attempt 2",
    ] {
        assert!(shown.contains(told), "nothing of {told:?} in\n{shown}");
    }
    world.run(&["logs", &id]).exits(0).prints("again\n");
    until_gone(&arn);
}
