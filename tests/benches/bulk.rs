//! Ten thousand commands with `mycli bulk` on the emulator, beside a bare loop that makes the same
//! writes and sends the same messages.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::stream::{self, StreamExt};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tests::{
    sandbox::Ran,
    world::{World, client, signed},
};

use crate::programs;

const COUNT: usize = 10_000;
/// A quota for four runs, which never end on this emulator, so that all others wait: the bench
/// measures how they are accepted.
const QUOTA: &str = "SpotVcpus=1";
/// The call that records commands, and the one that sends wakeups for them.
const WRITE: &str = "PutItem";
const SEND: &str = "SendMessageBatch";
/// The function that accepts them.
const FUNCTION: &str = "mycli-default-submit";
/// Writes under way at the same time: the CLI makes four requests, and the function thirty-two
/// writes for each.
const PARALLEL: usize = 4 * 32;
/// The SubmitJob calls a second that AWS Batch allows, a quota that cannot be raised (AWS Batch
/// User Guide, "Service quotas").
const AWS_BATCH: f64 = 50.0;

/// Compares them, each on its own stack.
pub(crate) fn compare() -> String {
    let (ours, calls) = bulk();
    let sends = calls.iter().filter(|call| is(call, SEND)).count();
    let writes = calls.len() - sends;
    let bare = bare(&calls);
    let (ours, bare) = (rate(ours), rate(bare));
    format!(
        "## Bulk\n\n\
         {COUNT} × `echo N` in one file with `mycli bulk`, from its start to its end, on the emulator with the functions as they are deployed; a quota of \
         1 vCPU and tasks that are no containers and never end, so that four start and all others stay in line. *Bare*: the {writes} writes and {sends} \
         sends of the submit function, as ready-made HTTP requests, {PARALLEL} at once, to another stack of the same kind: no loop over the SDK does less.\n\n\
         | | commands a second | mycli is |\n|---|---|---|\n\
         | `mycli bulk` | {ours:.0} | |\n\
         | bare loop | {bare:.0} | **{:.2} of it** (aim: at least 0.8) |\n\
         | AWS Batch's fixed quota of SubmitJob | {AWS_BATCH:.0} | **{:.1} × as fast** |\n",
        ours / bare,
        ours / AWS_BATCH,
    )
}

#[expect(clippy::cast_precision_loss, reason = "ten thousand")]
fn rate(took: Duration) -> f64 {
    COUNT as f64 / took.as_secs_f64()
}

fn world() -> World {
    World::without_containers(&programs::target().join("package"), &[QUOTA])
}

/// How long `mycli bulk` takes, and what its function wrote and sent. An earlier submission starts
/// the functions.
fn bulk() -> (Duration, Vec<Value>) {
    let world = world();
    let send = |count: usize| {
        let lines =
            (0..count).map(|number| format!("{}\n", json!({"command": format!("echo {number}")})));
        fs::write(world.user.path("jobs.jsonl"), lines.collect::<String>()).expect("a file");
        let mut command = world
            .user
            .command(&["bulk", "jobs.jsonl", "--no-repo", "-o", "json"]);
        let start = Instant::now();
        let ran = Ran::from(command.output().expect("mycli"));
        let took = start.elapsed();
        let accepted = ran.exits(0).json()["accepted"].as_array().map(Vec::len);
        assert_eq!(accepted, Some(count), "{}", world.said());
        took
    };
    send(1);
    let before = calls(&world).len();
    let took = send(COUNT);
    let of_bulk =
        |call: &Value| call["function"] == FUNCTION && (is(call, WRITE) || is(call, SEND));
    let asked = calls(&world)
        .into_iter()
        .skip(before)
        .filter(of_bulk)
        .collect();
    (took, elsewhere(asked, &world.emulator.endpoint(), ANYWHERE))
}

/// Replaces an emulator's address, because each emulator has its own port.
const ANYWHERE: &str = "http://emulator";

fn elsewhere(calls: Vec<Value>, from: &str, to: &str) -> Vec<Value> {
    let moved =
        |call: Value| serde_json::from_str(&call.to_string().replace(from, to)).expect("JSON");
    calls.into_iter().map(moved).collect()
}

fn calls(world: &World) -> Vec<Value> {
    let log = fs::read_to_string(world.emulator.calls_log()).unwrap_or_default();
    log.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn is(call: &Value, operation: &str) -> bool {
    call["target"]
        .as_str()
        .is_some_and(|target| target.ends_with(operation))
}

/// How long the same calls take by themselves, on another stack that has also had one submission.
fn bare(calls: &[Value]) -> Duration {
    let world = world();
    world
        .run(&["bulk", "true", "--no-repo", "--map-over-values", "one"])
        .exits(0);
    let endpoint = world.emulator.endpoint();
    let client = client();
    let calls = elsewhere(calls.to_vec(), ANYWHERE, &endpoint);
    // The requests are built before the clock starts, so that only the calls are measured.
    let (sends, writes): (Vec<_>, Vec<_>) = calls.iter().partition(|call| is(call, SEND));
    let requests = |calls: Vec<&Value>| {
        calls
            .into_iter()
            .map(|call| request(&client, &endpoint, call))
            .collect::<Vec<_>>()
    };
    let (writes, sends) = (requests(writes), requests(sends));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let start = Instant::now();
    runtime.block_on(async {
        for requests in [writes, sends] {
            stream::iter(requests)
                .map(carried_out)
                .buffer_unordered(PARALLEL)
                .collect::<()>()
                .await;
        }
    });
    start.elapsed()
}

/// A call under the function's name, so that the emulator counts it as the function's.
fn request(client: &Client, endpoint: &str, call: &Value) -> RequestBuilder {
    let target = call["target"].as_str().expect("what is asked for");
    let service = if target.starts_with("DynamoDB") {
        "dynamodb"
    } else {
        "sqs"
    };
    let request = client
        .post(endpoint)
        .header("x-amz-target", target)
        .header("content-type", "application/x-amz-json-1.0");
    signed(request, service)
        .header("user-agent", format!("app/{FUNCTION}"))
        .body(call["body"].to_string())
}

async fn carried_out(request: RequestBuilder) {
    let answer = request.send().await.expect("the emulator answers");
    let (status, text) = (answer.status(), answer.text().await.expect("a text"));
    // A submission is opened once, and its other requests find it open. The function's calls were
    // refused in the same way.
    assert!(
        status.is_success() || text.contains("ConditionalCheckFailed"),
        "{status}: {text}"
    );
}
