//! Ten thousand runs under an account's quotas, on virtual time: beside an ideal launcher that
//! knows everything, and a plain one.

use std::fmt::Write as _;

use chrono::TimeDelta;
use domain::execution::ExecutionStatus;
use tests::{
    ecs::{Foreign, Kind, VCPU},
    simulation::{self, LaunchPlan, Outcome, Submission, account, rivals, start},
};

use crate::sample::Times;

/// The columns of [`row`].
pub(crate) const HEAD: &str = "\
| | makespan | ideal | ratio (aim ≤ 1.02) | refusals a call (aim ≤ 0.1 %) | lost | doubled | receives a run (aim ≤ 3) | dead letters |
|---|---|---|---|---|---|---|---|---|
";
/// How many runs of a quarter of a vCPU fit into a whole one.
pub(crate) const SLOTS: u32 = 4;
/// The seed of all random numbers.
pub(crate) const SEED: u64 = 20_261_127;

/// vCPUs of Spot, with four slots each for runs of a quarter.
const CAP: u32 = 250;
const RUNS: usize = 10_000;

pub(crate) fn seconds(span: TimeDelta) -> f64 {
    span.as_seconds_f64()
}

/// Writes a launcher's results with a plan as a row of the table.
#[expect(clippy::cast_precision_loss, reason = "thousands")]
pub(crate) fn row(
    text: &mut String,
    name: &str,
    plan: &LaunchPlan,
    outcome: &Outcome,
    ideal: TimeDelta,
) {
    let count: usize = plan
        .submissions
        .iter()
        .map(|submission| submission.count)
        .sum();
    let lost = outcome.lost(count);
    let _ = writeln!(
        text,
        "| {name} | {:.0} s | {:.0} s | **{:.3}** | {:.3} % | {lost} | {} | {:.2} | {} |",
        seconds(outcome.makespan),
        seconds(ideal),
        seconds(outcome.makespan) / seconds(ideal),
        outcome.refusals_per_call() * 100.0,
        outcome.counts.doubled.len(),
        outcome.receives as f64 / count as f64,
        outcome.dead_letters,
    );
}

/// The table of launchers, followed by the shares of three submitters.
#[expect(clippy::cast_precision_loss, reason = "thousands")]
pub(crate) fn compare() -> String {
    let mut text = format!(
        "### {RUNS} runs under quotas, on virtual time\n\n0.25 vCPU each, start-up 20–60 s and work 5–90 s drawn once, default buckets, {CAP} vCPUs of Spot.\n\n{HEAD}"
    );
    let alone = LaunchPlan::of(account(SEED, CAP), RUNS);
    let (outcome, ideal) = (simulation::run(&alone), rivals::ideal(&alone));
    row(&mut text, "mycli, one submitter", &alone, &outcome, ideal);
    let three = LaunchPlan {
        submissions: [("large", 9_000), ("middle", 1_000), ("small", 100)]
            .map(|(by, count)| Submission {
                by: by.into(),
                count,
            })
            .into(),
        ..LaunchPlan::of(account(SEED, CAP), RUNS)
    };
    let shared = simulation::run(&three);
    row(
        &mut text,
        "three submitters: 9,000, 1,000, 100",
        &three,
        &shared,
        rivals::ideal(&three),
    );
    let mut foreign = LaunchPlan::of(account(SEED, CAP), RUNS);
    foreign.account.foreign.push(Foreign {
        kind: Kind::Spot,
        from: start() + TimeDelta::minutes(3),
        until: start() + TimeDelta::minutes(13),
        cpu: CAP * VCPU / 2,
    });
    let beside = simulation::run(&foreign);
    row(
        &mut text,
        "a foreign tenant has half the cap for ten minutes",
        &foreign,
        &beside,
        rivals::ideal(&foreign),
    );
    let plain = rivals::plain(&alone);
    let _ = writeln!(
        text,
        "| plain launcher with the SDK's retries | {:.0} s | {:.0} s | {:.3} | {:.3} % | {} | {} | {:.2} | {} |",
        seconds(plain.makespan),
        seconds(ideal),
        seconds(plain.makespan) / seconds(ideal),
        plain.refusals_per_call() * 100.0,
        plain.dead_letters,
        plain.counts.doubled.len(),
        plain.receives as f64 / RUNS as f64,
        plain.dead_letters,
    );
    text.push_str(&shares(&shared));
    text.push_str(&reuse(&outcome));
    let _ = writeln!(
        text,
        "\nRefusals: {:?}; with the foreign tenant: {:?}.",
        outcome.counts.refusals, beside.counts.refusals
    );
    text
}

/// The starts of each submitter, minute by minute.
fn shares(outcome: &Outcome) -> String {
    let mut text =
        "\nStarts in each minute, by submitter:\n\n| minute | large | middle | small |\n|---|---|---|---|\n".to_owned();
    let minute = |at: &domain::Timestamp| (*at - start()).num_minutes();
    for number in 0..8 {
        let of = |name: &str| {
            outcome
                .starts
                .iter()
                .filter(|(at, by)| minute(at) == number && by == name)
                .count()
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            number + 1,
            of("large"),
            of("middle"),
            of("small")
        );
    }
    text
}

/// How soon slots that our own tasks gave back were in use again.
pub(crate) fn pauses(outcome: &Outcome, vcpus: u32) -> Times {
    let slots = usize::try_from(vcpus * SLOTS).unwrap_or(usize::MAX);
    Times::of(
        outcome
            .reuse(slots)
            .into_iter()
            .map(|pause| pause.to_std().unwrap_or_default())
            .collect(),
    )
}

fn reuse(outcome: &Outcome) -> String {
    let pauses = pauses(outcome, CAP);
    let succeeded = outcome
        .ends
        .get(&ExecutionStatus::Succeeded)
        .copied()
        .unwrap_or_default();
    format!(
        "\nFrom the tracker's hearing of an end to RunTask for the next: median {} ms, 99 % {} ms, longest {} ms (aim ≤ 1 s). \
         {succeeded} succeeded.\n",
        pauses.per_mille(500).as_millis(),
        pauses.per_mille(990).as_millis(),
        pauses.per_mille(1000).as_millis(),
    )
}
