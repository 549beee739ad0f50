//! What a run on AWS costs besides Fargate: many runs in a few bulk submissions, on the emulator,
//! with containers for tasks.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::world::World;

use crate::{
    bill::{Mark, Seen},
    programs,
};

/// The number of runs, and the number of submissions that they are sent in.
const RUNS: usize = 100;
const CHUNKS: usize = 4;
/// The vCPUs of a new account: 24 runs at the same time, and the others wait.
const QUOTA: &str = "SpotVcpus=6";
/// All functions that take part in a run. `query`, which answers questions about it, is counted
/// separately, in `following`.
const FUNCTIONS: [&str; 3] = ["submit", "launcher", "state-tracker"];
const LOOK: Duration = Duration::from_secs(2);
/// The end of a log is read ten seconds after its task's end. After a longer silence, all work is
/// done.
const SILENCE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(900);

/// Counts and prices the requests.
pub(crate) fn count() -> String {
    let world = World::of(&programs::target().join("package"), &[QUOTA]);
    // The first run registers the task definition, and starts the functions.
    let mark = Mark::now(&world);
    submit(&world, "first", 1);
    settle(&world, &mark, 1);
    let mark = Mark::now(&world);
    let begun = Instant::now();
    for chunk in 0..CHUNKS {
        submit(&world, &format!("chunk-{chunk}"), RUNS / CHUNKS);
    }
    settle(&world, &mark, RUNS + 1);
    let took = begun.elapsed().as_secs_f64();
    let seen = Seen::since(&mark, &world, &FUNCTIONS);
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    let runs = RUNS as f64;
    let (bill, sum) = seen.bill(runs);
    let (writes, receives) = (seen.writes() / runs, seen.receives() / runs);
    format!(
        "## What a run asks of AWS\n\n\
         {RUNS} × `true` without a repository, in {CHUNKS} submissions to `POST /executions/bulk`, under a quota of 6 vCPUs (24 at once), on the \
         emulator with containers for tasks; {took:.0} s with {} sweeps. Counted from the emulator's logs and divided by {RUNS}; one run before \
         them is not counted.\n\n\
         | a run | | aim |\n|---|---|---|\n\
         | all but Fargate itself, a million runs | **${sum:.2}** | ≤ $15{} |\n\
         | write units | **{writes:.1}** | ≤ 12{} |\n\
         | messages received, over both queues | **{receives:.2}** | ≤ 3{} |\n\n\
         {bill}\n{}\n{}",
        seen.sweeps(),
        missed(sum, 15.0),
        missed(writes, 12.0),
        missed(receives, 3.0),
        seen.calls(runs),
        seen.invoked(runs),
    )
}

fn missed(seen: f64, aim: f64) -> String {
    if seen > aim {
        format!(", **missed** ({:.1} ×)", seen / aim)
    } else {
        String::new()
    }
}

fn submit(world: &World, submission: &str, count: usize) {
    let executions = vec![json!({"command": "true"}); count];
    let body = json!({"submission_id": submission, "executions": executions}).to_string();
    let (status, text) = world.call("POST", "/executions/bulk", &world.api().1, Some(body));
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    assert_eq!(
        (status, answer["accepted"].as_array().map(Vec::len)),
        (202, Some(count)),
        "{text}"
    );
}

/// Waits until `count` runs in all have succeeded, and nothing else is going on.
fn settle(world: &World, mark: &Mark, count: usize) {
    let (end, mut busy) = (Instant::now() + PATIENCE, (0, Instant::now()));
    loop {
        let seen = Seen::so_far(mark, world, &FUNCTIONS);
        if seen.invocations() != busy.0 {
            busy = (seen.invocations(), Instant::now());
        }
        if busy.1.elapsed() > SILENCE && succeeded(world) == count {
            return;
        }
        assert!(
            Instant::now() < end,
            "{} of {count} succeeded\n{}",
            succeeded(world),
            world.said()
        );
        thread::sleep(LOOK);
    }
}

/// How many runs have succeeded, by their records: an end that no rule takes is not published.
fn succeeded(world: &World) -> usize {
    let history = world.run(&[
        "history",
        "--status",
        "succeeded",
        "--limit",
        "200",
        "-o",
        "json",
    ]);
    let history = history.exits(0).json();
    history["executions"].as_array().map_or(0, Vec::len)
}
