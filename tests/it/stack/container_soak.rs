//! A steady load for some time: nothing is lost, and nothing but the history grows.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::world::{LOOK, PATIENCE, World};

/// The time between two submissions. Two cores with real containers can keep up with it.
const PAUSE: Duration = Duration::from_secs(2);
/// How much more memory a function's largest process may have in the last third than in the first,
/// in kB. An allocator's use varies by this much.
const GROWTH_KB: u64 = 6 * 1024;

/// Returns the number of items that are neither history nor settings. There must be none when
/// nothing is under way.
fn left_over(world: &World) -> u64 {
    let count = |prefix: &str| {
        let body = json!({
            "TableName": "mycli-default", "Select": "COUNT", "FilterExpression": "begins_with(pk, :prefix)",
            "ExpressionAttributeValues": {":prefix": {"S": prefix}},
        });
        world.ask("dynamodb", "DynamoDB_20120810.Scan", &body)["Count"]
            .as_u64()
            .expect("a count")
    };
    count("OPEN#")
}

/// Returns the number of messages in the stack's queues, dead letters included.
fn messages(world: &World) -> u64 {
    let listed = world.ask("sqs", "AmazonSQS.ListQueues", &json!({}));
    let urls = listed["QueueUrls"].as_array().cloned().unwrap_or_default();
    assert!(urls.len() >= 4, "{listed}");
    let count = |url: &Value| {
        let body = json!({"QueueUrl": url, "AttributeNames": ["All"]});
        let attributes =
            world.ask("sqs", "AmazonSQS.GetQueueAttributes", &body)["Attributes"].clone();
        let number = |name: &str| {
            attributes[name]
                .as_str()
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or(0)
        };
        number("ApproximateNumberOfMessages") + number("ApproximateNumberOfMessagesNotVisible")
    };
    urls.iter().map(count).sum()
}

/// Returns the most memory that each function had in these samples.
fn most(samples: &[BTreeMap<String, u64>]) -> BTreeMap<String, u64> {
    let mut most = BTreeMap::new();
    for (name, memory) in samples.iter().flatten() {
        let known = most.entry(name.clone()).or_default();
        *known = (*memory).max(*known);
    }
    most
}

#[expect(
    clippy::print_stdout,
    reason = "what was held for how long is what the test is run for"
)]
fn soak(time: Duration) {
    let world = World::new();
    let (end, mut ids, mut samples) = (Instant::now() + time, Vec::new(), Vec::new());
    while Instant::now() < end {
        let next = Instant::now() + PAUSE;
        ids.push(world.detach(&[&format!("echo {}; exit {}", ids.len(), ids.len() % 3)]));
        samples.push(world.emulator.functions_memory());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    for (number, id) in ids.iter().enumerate() {
        let record = world.until(
            id,
            if number % 3 == 0 {
                "SUCCEEDED"
            } else {
                "FAILED"
            },
        );
        assert_eq!(record["exit_code"], number % 3, "{record:#}");
    }
    let third = samples.len() / 3;
    let (early, late) = (
        most(&samples[third / 2..third]),
        most(&samples[2 * third..]),
    );
    println!(
        "{} runs in {time:?}; memory in kB early {early:?}, late {late:?}",
        ids.len()
    );
    for (name, memory) in &late {
        // A function that has no early sample has just been started.
        let before = early.get(name).unwrap_or(memory);
        assert!(
            *memory <= before + GROWTH_KB,
            "{name} grew from {before} kB to {memory} kB"
        );
    }
    // The next sweep removes what is left over.
    let end = Instant::now() + PATIENCE;
    while left_over(&world) + messages(&world) > 0 {
        let left = (left_over(&world), messages(&world));
        assert!(
            Instant::now() < end,
            "nothing is under way, and these are left: {left:?}"
        );
        thread::sleep(LOOK);
    }
    world.run(&["doctor"]).exits(0);
}

#[test]
fn a_minute_of_steady_load_loses_nothing_and_nothing_grows() {
    soak(Duration::from_secs(60));
}

#[test]
#[ignore = "nightly: half an hour"]
fn half_an_hour_of_steady_load_loses_nothing_and_nothing_grows() {
    soak(Duration::from_secs(30 * 60));
}
