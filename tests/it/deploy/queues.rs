//! The `dead-letters` commands.

use super::world::World;

const ID: &str = "exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9";

#[test]
fn dead_letters_are_shown_and_sent_on_their_way_again() {
    let world = World::with_stack();
    world
        .run(&["dead-letters", "list"])
        .exits(0)
        .prints("")
        .says("no dead letters");
    world.send_message(
        "launch-dead",
        &format!(r#"{{"kind":"line","line":"pool:fargate-spot","id":"{ID}"}}"#),
    );
    world.send_message(
        "control-dead",
        &format!(r#"{{"kind":"check","id":"{ID}"}}"#),
    );
    let listed = world.run(&["dead-letters", "list"]).exits(0).out;
    assert!(
        listed.lines().count() == 3 && listed.contains("pool:fargate-spot") && listed.contains(ID),
        "{listed}"
    );
    // Listing leaves the messages in their queues.
    assert_eq!(
        world
            .run(&["dead-letters", "list"])
            .exits(0)
            .out
            .lines()
            .count(),
        3
    );
    world
        .run(&["dead-letters", "redrive", "--queue", "launch"])
        .exits(0)
        .says("launch: 1 moved");
    let left = world
        .run(&["dead-letters", "list", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        (
            left["dead_letters"].as_array().unwrap().len(),
            &left["dead_letters"][0]["queue"]
        ),
        (1, &"control".into())
    );
    world
        .run(&["dead-letters", "redrive"])
        .exits(0)
        .says("control: 1 moved");
    world
        .run(&["dead-letters", "list"])
        .exits(0)
        .says("no dead letters");
}

#[test]
fn an_event_is_looked_up_anew_and_what_cannot_be_repeated_stays() {
    let world = World::with_stack();
    let task = format!(
        r#"{{"source":"aws.ecs","detail":{{"startedBy":"{ID}-1","overrides":{{"x":"hunter2"}}}}}}"#
    );
    for event in [
        task.as_str(),
        r#"{"requestPayload":{"sweep":true}}"#,
        r#"{"DDBStreamBatchInfo":{"batchSize":2}}"#,
    ] {
        world.send_message("events-dead", event);
    }
    let listed = world.run(&["dead-letters", "list"]).exits(0).out;
    assert!(
        listed.contains(ID) && listed.contains("2 ends") && !listed.contains("hunter2"),
        "{listed}"
    );
    world
        .run(&["dead-letters", "redrive"])
        .exits(1)
        .says("1 moved; 1 removed")
        .says("1 left");
    assert_eq!(
        world
            .run(&["dead-letters", "list"])
            .exits(0)
            .out
            .lines()
            .count(),
        2
    );
}
