//! The announcement of an end: from the table's stream through the state tracker and EventBridge to
//! a rule and a queue of the user's own.

use std::{collections::BTreeSet, time::Instant};

use serde_json::{Value, json};

use super::world::{PATIENCE, World};

const MANUAL: &str = include_str!("../../../docs/stack.md");

/// Returns the manual's event pattern, word for word.
fn pattern_of_the_manual() -> Value {
    let line = MANUAL
        .lines()
        .find(|line| line.starts_with(r#"{"source": ["mycli"]"#));
    serde_json::from_str(line.expect("the manual has a pattern")).expect("JSON")
}

/// Returns the fields of an event's `detail` that the manual lists.
fn fields_of_the_manual() -> BTreeSet<&'static str> {
    let after = MANUAL
        .split_once("`detail` has `")
        .expect("the manual lists them")
        .1;
    after
        .split('`')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect()
}

/// A queue that is the target of a user's own rule.
struct Inbox<'a> {
    world: &'a World,
    url: Value,
}

impl<'a> Inbox<'a> {
    fn of(world: &'a World, name: &str, pattern: &Value) -> Self {
        let sqs = |operation: &str, body: Value| {
            world.ask("sqs", &format!("AmazonSQS.{operation}"), &body)
        };
        let events = |operation: &str, body: Value| {
            world.ask("events", &format!("AWSEvents.{operation}"), &body)
        };
        let url = sqs("CreateQueue", json!({"QueueName": name}))["QueueUrl"].clone();
        let attributes = sqs(
            "GetQueueAttributes",
            json!({"QueueUrl": url, "AttributeNames": ["QueueArn"]}),
        );
        events(
            "PutRule",
            json!({"Name": name, "EventPattern": pattern.to_string()}),
        );
        let target = json!({"Id": "inbox", "Arn": attributes["Attributes"]["QueueArn"]});
        events("PutTargets", json!({"Rule": name, "Targets": [target]}));
        Self { world, url }
    }

    /// Returns the events that arrived since the last call.
    fn take(&self) -> Vec<Value> {
        let request =
            json!({"QueueUrl": self.url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 600});
        let received = self.world.ask("sqs", "AmazonSQS.ReceiveMessage", &request);
        let bodies = received["Messages"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["Body"].as_str());
        bodies
            .map(|body| serde_json::from_str(body).expect("an event"))
            .collect()
    }

    /// Waits until the end of this run is announced. Returns every event up to then.
    fn until_told_of(&self, id: &Value) -> Vec<Value> {
        let (mut events, end) = (Vec::new(), Instant::now() + PATIENCE);
        while !events
            .iter()
            .any(|event: &Value| event["detail"]["execution_id"] == *id)
        {
            assert!(
                Instant::now() < end,
                "nobody told of {id}, but of {events:#?}\n{}",
                self.world.said()
            );
            events.extend(self.take());
        }
        events
    }
}

fn latest(world: &World) -> Value {
    world.run(&["status", "-o", "json"]).exits(0).json()
}

#[test]
fn a_user_s_own_rule_hears_of_a_failure_and_of_nothing_that_it_should_not() {
    let world = World::new();
    let failures = Inbox::of(&world, "failures", &pattern_of_the_manual());
    let all = Inbox::of(&world, "all", &json!({"source": ["mycli"]}));
    world
        .run_with(&["secrets", "set", "API_PASSWORD"], "planted-secret")
        .exits(0);
    let common = [
        "exec",
        "--no-repo",
        "--secret",
        "API_PASSWORD",
        "-e",
        "COLOUR=planted-value",
        "--name",
        "nightly",
    ];
    let run = |command: &str| world.run(&[&common[..], &[command]].concat());

    run("echo planted-$COLOUR-command; exit 3").exits(3);
    let failed = latest(&world);
    run("echo planted-$COLOUR-command").exits(0);
    let succeeded = latest(&world);
    // The later end was announced, so the earlier one was too, and the rule for failures has had a
    // chance to see both.
    let told = all.until_told_of(&succeeded["execution_id"]);
    let heard = failures.until_told_of(&failed["execution_id"]);
    let ids: Vec<_> = told
        .iter()
        .map(|event| &event["detail"]["execution_id"])
        .collect();
    assert_eq!(
        ids,
        [&failed["execution_id"], &succeeded["execution_id"]],
        "each end once: {told:#?}"
    );
    let [event] = &heard[..] else {
        panic!("one end matches: {heard:#?}")
    };

    assert_eq!(
        (&event["source"], &event["detail-type"]),
        (&json!("mycli"), &json!("Execution State Change"))
    );
    let detail = event["detail"].as_object().expect("an object");
    assert_eq!(
        detail.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        fields_of_the_manual()
    );
    for field in [
        "execution_id",
        "name",
        "submitted_by",
        "submitted_at",
        "started_at",
        "stopped_at",
        "reason",
    ] {
        assert!(
            !failed[field].is_null() && detail[field] == failed[field],
            "{field}: {detail:#?} is not of {failed:#}"
        );
    }
    let how = (
        &detail["status"],
        &detail["exit_code"],
        &detail["attempts"],
        &detail["repo"],
    );
    assert_eq!(how, (&json!("FAILED"), &json!(3), &json!(1), &Value::Null));
    let text = format!("{told:?}{heard:?}");
    assert!(
        !text.contains("planted") && !text.contains(&world.api().1),
        "{text}"
    );
}
