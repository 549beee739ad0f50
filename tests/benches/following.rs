//! What it costs to follow a run: the requests that `exec` and `logs -f` make while it runs.

use std::{
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tests::world::World;

use crate::{
    bill::{Mark, Seen},
    programs,
};

/// How long each command is watched. The requests repeat every second or every few seconds.
const WATCHED: Duration = Duration::from_secs(40);
/// The time before the watch. The requests at the beginning are not typical of the ten minutes.
const BEGINNING: Duration = Duration::from_secs(5);
const TEN_MINUTES: f64 = 600.0;
/// The commands to follow: a description of each, and its text.
const COMMANDS: [(&str, &str); 2] = [
    ("says nothing", "echo begun; sleep 300"),
    (
        "prints a line each second",
        "for n in $(seq 300); do echo $n; sleep 1; done",
    ),
];

/// Counts and prices the requests, for ten minutes.
pub(crate) fn count() -> String {
    let world = World::of(&programs::target().join("package"), &[]);
    let mut text = format!(
        "## What following a run asks of AWS\n\n\
         `mycli logs -f` of a running command, watched for {} s and reckoned for ten minutes. `exec` follows in the same way.\n\n",
        WATCHED.as_secs()
    );
    for (name, command) in COMMANDS {
        let (seen, runs) = follow(&world, command);
        let (bill, sum) = seen.bill(runs);
        let _infallible = writeln!(
            text,
            "A command that {name}: **${:.5} for ten minutes**, as below for a million of them.\n\n{bill}\n{}\n{}",
            sum / 1e6,
            seen.calls(runs),
            seen.invoked(runs)
        );
    }
    text
}

/// What was seen, and the share of ten minutes that it took.
fn follow(world: &World, command: &str) -> (Seen, f64) {
    let id = world.detach(&[command]);
    world.until(&id, "RUNNING");
    let following = world.user.start(&["logs", "-f", &id]);
    let _first = following.line();
    thread::sleep(BEGINNING);
    let (mark, begun) = (Mark::now(world), Instant::now());
    thread::sleep(WATCHED);
    let watched = begun.elapsed();
    let seen = Seen::since(&mark, world, &["query"]);
    following.signal(Signal::TERM);
    let _ended = following.end();
    world.run(&["cancel", &id]).exits(0);
    world.until(&id, "CANCELLED");
    (seen, watched.as_secs_f64() / TEN_MINUTES)
}
