//! Task definitions that somebody else deregisters.

use serde_json::{Value, json};

use super::world::World;

fn ecs(world: &World, operation: &str, body: &Value) -> Value {
    world.ask(
        "ecs",
        &format!("AmazonEC2ContainerServiceV20141113.{operation}"),
        body,
    )
}

/// Returns the stack's active task definitions.
fn active(world: &World) -> Vec<Value> {
    let listed = ecs(world, "ListTaskDefinitions", &json!({"status": "ACTIVE"}));
    listed["taskDefinitionArns"]
        .as_array()
        .expect("a list")
        .clone()
}

#[test]
fn a_definition_that_was_deregistered_is_registered_anew_by_the_next_run() {
    let world = World::new();
    world
        .run(&["exec", "--no-repo", "echo one"])
        .exits(0)
        .prints("one\n");
    let before = active(&world);
    assert_eq!(before.len(), 1);
    world
        .run(&["exec", "--no-repo", "echo two"])
        .exits(0)
        .prints("two\n");
    assert_eq!(
        active(&world),
        before,
        "the same content is the same definition"
    );

    ecs(
        &world,
        "DeregisterTaskDefinition",
        &json!({"taskDefinition": before[0]}),
    );
    world
        .run(&["exec", "--no-repo", "echo three"])
        .exits(0)
        .prints("three\n");
    let after = active(&world);
    assert!(after.len() == 1 && after != before, "{after:?}");
    let record = world.run(&["status", "-o", "json"]).exits(0).json();
    let (attempts, events) = (
        record["attempts"].as_array().expect("tries"),
        record["events"].to_string(),
    );
    assert_eq!(
        attempts.len(),
        1,
        "what was never started uses up no try: {record:#}"
    );
    assert!(
        events.contains("TaskDefinition is inactive"),
        "it says what it waited for: {events}"
    );
    world
        .run(&["exec", "--no-repo", "echo four"])
        .exits(0)
        .prints("four\n");
    assert_eq!(active(&world), after);
}
