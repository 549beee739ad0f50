//! Hundreds of runs over the wire: the real handlers with the real adapters, beside the same plan
//! on virtual time.

use std::time::Instant;

use tests::{
    ecs::Operation,
    simulation::{self, LaunchPlan, Outcome, account, rivals},
};

use crate::throttle::{self, SEED, seconds};

const RUNS: usize = 500;
/// vCPUs of Spot: 48 runs at the same time, so that it takes more than ten rounds.
const CAP: u32 = 12;
/// How many times faster than the real clock it runs.
const FACTOR: u32 = 20;

/// The table of both.
pub(crate) fn compare() -> String {
    let plan = LaunchPlan::of(account(SEED, CAP), RUNS);
    let ideal = rivals::ideal(&plan);
    let in_process = simulation::run(&plan);
    let began = Instant::now();
    let wired = simulation::run_over_the_wire(&plan, FACTOR);
    let took = began.elapsed().as_secs_f64();
    let mut text = format!(
        "### {RUNS} runs over the wire\n\n\
         The launcher and the state tracker with `aws::ecs` and the SDK, against ECS's JSON protocol on loopback, on a clock {FACTOR} times as fast as \
         the real one ({took:.0} s); store and queues in memory. 0.25 vCPU each, start-up 20–60 s and work 5–90 s drawn once, default buckets, \
         {CAP} vCPUs of Spot.\n\n{}",
        throttle::HEAD,
    );
    throttle::row(&mut text, "over the wire", &plan, &wired, ideal);
    throttle::row(
        &mut text,
        "in one process, on virtual time",
        &plan,
        &in_process,
        ideal,
    );
    let ratio = seconds(wired.makespan) / seconds(in_process.makespan);
    let (wired, in_process) = (
        told("Over the wire", &wired),
        told("On virtual time", &in_process),
    );
    text + &format!(
        "\nOver the wire it took {ratio:.3} × as long as on virtual time.\n\n{wired}{in_process}"
    )
}

/// The number of calls to ECS, and how soon slots were in use again.
fn told(name: &str, outcome: &Outcome) -> String {
    let pauses = throttle::pauses(outcome, CAP);
    let calls = |operation| {
        outcome
            .counts
            .calls
            .get(&operation)
            .copied()
            .unwrap_or_default()
    };
    format!(
        "- {name}: {} calls of RunTask, {} of DescribeTasks; from the tracker's hearing of an end to RunTask for the next median {} ms, 99 % {} ms, \
         longest {} ms (aim ≤ 1 s).\n",
        calls(Operation::RunTask),
        calls(Operation::DescribeTasks),
        pauses.per_mille(500).as_millis(),
        pauses.per_mille(990).as_millis(),
        pauses.per_mille(1000).as_millis(),
    )
}
