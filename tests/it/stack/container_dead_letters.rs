//! A message that could not be processed and is redriven.

use serde_json::{Value, json};

use super::world::World;

/// One of the stack's queues.
struct Letters<'a> {
    world: &'a World,
    url: Value,
}

impl<'a> Letters<'a> {
    fn of(world: &'a World, name: &str) -> Self {
        let url = world.ask(
            "sqs",
            "AmazonSQS.GetQueueUrl",
            &json!({"QueueName": format!("mycli-default-{name}")}),
        );
        Self {
            world,
            url: url["QueueUrl"].clone(),
        }
    }

    /// Moves the messages here to `dead`, as five failed receives would. Returns how many there
    /// were.
    fn all_die(&self, dead: &Self) -> usize {
        let call = |operation: &str, body: Value| {
            self.world
                .ask("sqs", &format!("AmazonSQS.{operation}"), &body)
        };
        let received = call(
            "ReceiveMessage",
            json!({"QueueUrl": self.url, "MaxNumberOfMessages": 10}),
        );
        let messages = received["Messages"].as_array().cloned().unwrap_or_default();
        for message in &messages {
            call(
                "SendMessage",
                json!({"QueueUrl": dead.url, "MessageBody": message["Body"]}),
            );
            call(
                "DeleteMessage",
                json!({"QueueUrl": self.url, "ReceiptHandle": message["ReceiptHandle"]}),
            );
        }
        messages.len()
    }
}

/// Switches the launcher's event sources on or off.
fn deliver(world: &World, enabled: bool) {
    let sources = world.lambda(
        "GET",
        "event-source-mappings?FunctionName=mycli-default-launcher",
        &Value::Null,
    );
    for source in sources["EventSourceMappings"].as_array().expect("a list") {
        let path = format!(
            "event-source-mappings/{}",
            source["UUID"].as_str().expect("an id")
        );
        world.lambda("PUT", &path, &json!({"Enabled": enabled}));
    }
}

#[test]
fn a_run_whose_message_died_is_found_by_the_doctor_and_runs_after_a_redrive() {
    let world = World::new();
    // The sweep would send another message within a minute.
    world.ask(
        "events",
        "AWSEvents.DisableRule",
        &json!({"Name": "mycli-default-sweep"}),
    );
    deliver(&world, false);
    let id = world.detach(&["echo late"]);
    assert_eq!(
        Letters::of(&world, "launch").all_die(&Letters::of(&world, "launch-dead")),
        1
    );
    deliver(&world, true);

    let ran = world.run(&["doctor"]).exits(1);
    assert!(
        ran.out.contains("launch: 1 could not be processed"),
        "{ran:#?}"
    );
    let listed = world.run(&["dead-letters", "list"]).exits(0).out;
    assert!(listed.contains(&id), "{listed}");
    assert_eq!(world.status(&id)["status"], "QUEUED");
    world
        .run(&["dead-letters", "redrive"])
        .exits(0)
        .says("launch: 1 moved");
    world.until(&id, "SUCCEEDED");
    world.run(&["logs", &id]).exits(0).prints("late\n");
    world.run(&["doctor"]).exits(0);
}
