//! An account that is full for an hour, on virtual time: first with our own tasks, then with those
//! of others.

use std::{fmt::Write as _, iter};

use chrono::TimeDelta;
use domain::Timestamp;
use tests::{
    ecs::{Account, Foreign, Kind, VCPU},
    simulation::{self, LaunchPlan, Outcome, account, rivals, start},
};

use crate::{
    sample::Times,
    throttle::{self, SEED, SLOTS, seconds},
};

/// vCPUs of Spot: those of a new account, of one that was raised once, and of a large one.
const VCPUS: [u32; 3] = [6, 50, 250];
/// Runs for each slot, of 87.5 s each on average, so that they take an hour.
const RUNS_A_SLOT: u32 = 41;
/// The other tenants of the account, which give their vCPUs back one after the other. The second
/// constant is the vCPUs of each.
const TENANTS: u32 = 59;
const OF_A_TENANT: u32 = 1;

/// The tables of both cases.
pub(crate) fn compare() -> String {
    let mut text = "### An account that is full for an hour, on virtual time\n\n\
                    0.25 vCPU each, start-up 20–60 s and work 5–90 s drawn once, default buckets.\n\n"
        .to_owned();
    text.push_str(
        "| full of our own: vCPUs | runs | full for | makespan over ideal | receives a run (aim ≤ 3) | dead letters | refusals a call | lost | doubled \
         | an end is heard of → RunTask: median | 99 % | longest (aim ≤ 1 s) |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    VCPUS
        .into_iter()
        .for_each(|vcpus| text.push_str(&by_us(vcpus)));
    text.push_str(
        "\n| full of others | given back | in use after: median | longest (aim ≤ 15 s and a little) | all of it after: median | longest \
         | refusals a minute | receives a run | dead letters | lost | doubled |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    VCPUS
        .into_iter()
        .for_each(|vcpus| text.push_str(&by_one_other(vcpus)));
    text.push_str(&by_many_others());
    text
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn receives_a_run(outcome: &Outcome) -> f64 {
    outcome.receives as f64 / outcome.records.len() as f64
}

fn by_us(vcpus: u32) -> String {
    let (slots, runs) = (size(vcpus * SLOTS), size(vcpus * SLOTS * RUNS_A_SLOT));
    let plan = LaunchPlan::of(account(SEED, vcpus), runs);
    let (outcome, ideal) = (simulation::run(&plan), rivals::ideal(&plan));
    let (full_from, full_until) = (outcome.starts[slots - 1].0, outcome.starts[runs - 1].0);
    let pauses = throttle::pauses(&outcome, vcpus);
    format!(
        "| {vcpus} | {runs} | {} min | {:.3} | **{:.2}** | **{}** | {:.3} % | {} | {} | {} ms | {} ms | **{} ms** |\n",
        (full_until - full_from).num_minutes(),
        seconds(outcome.makespan) / seconds(ideal),
        receives_a_run(&outcome),
        outcome.dead_letters,
        outcome.refusals_per_call() * 100.0,
        outcome.lost(runs),
        outcome.counts.doubled.len(),
        pauses.per_mille(500).as_millis(),
        pauses.per_mille(990).as_millis(),
        pauses.per_mille(1000).as_millis(),
    )
}

/// One other tenant has all vCPUs for an hour, and then gives them back at once.
fn by_one_other(vcpus: u32) -> String {
    let until = start() + TimeDelta::hours(1);
    let mut account = account(SEED, vcpus);
    account.foreign.push(Foreign {
        kind: Kind::Spot,
        from: start(),
        until,
        cpu: vcpus * VCPU,
    });
    let slots = size(vcpus * SLOTS);
    row(
        &format!("all {vcpus} vCPUs, one other's"),
        "at once",
        &account,
        2 * slots,
        &[(until, slots)],
    )
}

/// Many other tenants have all vCPUs and give them back one after the other, and the runs started
/// meanwhile go on. Each gives back a bit later in its minute than the one before, so that each
/// hits a different moment between two probes.
fn by_many_others() -> String {
    let mut account = account(SEED, TENANTS * OF_A_TENANT);
    let work = TimeDelta::hours(2);
    account.lives.work = work..=work;
    let moments = (1..=TENANTS)
        .map(|minute| start() + TimeDelta::seconds(i64::from(60 * minute + minute % 20)));
    let tenant = |until| Foreign {
        kind: Kind::Spot,
        from: start(),
        until,
        cpu: OF_A_TENANT * VCPU,
    };
    account.foreign = moments.clone().map(tenant).collect();
    let given: Vec<_> = moments
        .zip(iter::repeat(size(OF_A_TENANT * SLOTS)))
        .collect();
    let runs = size(TENANTS * OF_A_TENANT * SLOTS);
    row(
        &format!("all {} vCPUs, {TENANTS} others'", TENANTS * OF_A_TENANT),
        "1 vCPU each minute",
        &account,
        runs,
        &given,
    )
}

/// A row of the table. `given` lists when other tenants gave slots back, and how many.
fn row(
    name: &str,
    how: &str,
    account: &Account,
    runs: usize,
    given: &[(Timestamp, usize)],
) -> String {
    let mut plan = LaunchPlan::of(account.clone(), runs);
    plan.request.timeout = Some("3h".into());
    let outcome = simulation::run(&plan);
    let (mut first, mut all, mut before) = (Vec::new(), Vec::new(), 0);
    for (at, slots) in given {
        let after = |number: usize| {
            (outcome.starts[number].0 - *at)
                .to_std()
                .expect("nobody starts before there is room")
        };
        first.push(after(before));
        all.push(after(before + slots - 1));
        before += slots;
    }
    let (first, all) = (Times::of(first), Times::of(all));
    let minutes = (given[given.len() - 1].0 - start()).num_minutes();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "| {name} | {how} | {:.1} s | **{:.1} s** | {:.1} s | {:.1} s | {:.1} | {:.2} | {} | {} | {} |",
        first.median().as_secs_f64(),
        first.per_mille(1000).as_secs_f64(),
        all.median().as_secs_f64(),
        all.per_mille(1000).as_secs_f64(),
        whole(outcome.counts.refused_by_quotas())
            / f64::from(i32::try_from(minutes).unwrap_or(i32::MAX)),
        receives_a_run(&outcome),
        outcome.dead_letters,
        outcome.lost(runs),
        outcome.counts.doubled.len(),
    );
    text
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn whole(count: u64) -> f64 {
    count as f64
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
