//! Up to a million runs, on virtual time, in an account with quotas raised to 500 launches a
//! second: what grows with their number, and what limits them.

use std::fmt::Write as _;

use chrono::TimeDelta;
use tests::{
    ecs::{Account, Delivery, Kind, Rates, Shape},
    memory::Shared,
    simulation::{self, LaunchPlan, Outcome},
};

use crate::machine;

/// The launches a second, and the calls of RunTask a second.
const LAUNCHES: u32 = 500;
/// vCPUs of Spot: enough quarters for the runs that are active at that rate, at a minute and a half
/// each.
const CAP: u32 = 12_500;
const SIZES: [usize; 5] = [1_000, 10_000, 100_000, 300_000, 1_000_000];
/// The memory that a run takes on this machine, in kB: its record, its task, and what the model of
/// ECS keeps of the call.
const KB_A_RUN: usize = 12;
/// A thousand runs do not fill the account, so none waits and none is woken when a slot is freed.
/// In this fraction of the account they wait as a hundred thousand do in the whole.
const PART: u32 = 100;
/// The write units that one item of DynamoDB takes a second (AWS-FACTS §6: those of a partition).
const ITEM_MOST: u32 = 1_000;

/// The whole account, or a fraction of it.
fn account(part: u32) -> Account {
    let mut account = Account::new(20_261_127, "scale").with_vcpus(Kind::Spot, CAP / part);
    let launches = LAUNCHES / part;
    let rate = Shape {
        burst: launches,
        per_second: launches,
    };
    let twice = Shape {
        burst: 2 * launches,
        per_second: 2 * launches,
    };
    account.rates = Rates {
        run_task: rate,
        launches: rate,
        run_and_stop: twice,
        look: twice,
        ..account.rates
    };
    account.delivery = Delivery {
        delay: TimeDelta::milliseconds(100)..=TimeDelta::milliseconds(1_000),
        ..Delivery::default()
    };
    account
}

/// Requests for each run, by service. The requests of the submission are left out, because they are
/// the same for each run.
#[expect(clippy::cast_precision_loss, reason = "millions")]
fn requests(outcome: &Outcome, count: usize) -> [f64; 3] {
    let creations = outcome
        .meter
        .calls
        .get("create")
        .copied()
        .unwrap_or_default();
    let store = outcome.meter.calls.values().sum::<u64>() - creations;
    let (sent, received) = outcome.messages;
    [store, outcome.counts.all_calls(), sent + received]
        .map(|requests| requests as f64 / count as f64)
}

/// The busiest of the items that many runs share.
fn busiest(outcome: &Outcome) -> Option<(&Shared, u32)> {
    outcome
        .meter
        .most_in_a_second
        .iter()
        .map(|(what, most)| (what, *most))
        .max_by_key(|(_, most)| *most)
}

/// The table, with a row for each size.
#[expect(clippy::cast_precision_loss, reason = "millions")]
pub(crate) fn compare() -> String {
    let mut text = format!(
        "### Up to a million runs, on virtual time\n\nQuotas of {LAUNCHES} launches a second and {CAP} vCPUs of Spot, 0.25 vCPU each, start-up 20–60 s \
         and work 5–90 s.\n\n\
         | runs | makespan | launches a second | store calls a run | ECS calls a run | messages a run | all, over those of 1,000 runs (aim ≤ 1.05) | \
         over those of 1,000 in a {PART}th of the account | busiest item, writes a second (at most {ITEM_MOST}) | lost | doubled |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n"
    );
    let asked = std::env::var("MYCLI_BENCH_RUNS")
        .ok()
        .and_then(|most| most.parse().ok())
        .unwrap_or(usize::MAX);
    let mut first = None;
    let crowded: f64 = requests(
        &simulation::run(&LaunchPlan::of(account(PART), SIZES[0])),
        SIZES[0],
    )
    .iter()
    .sum();
    for count in SIZES.into_iter().filter(|count| *count <= asked) {
        if count * KB_A_RUN > machine::free_kb() {
            let _ = writeln!(
                text,
                "| {count} | SKIPPED: it needs {} GB of free memory | | | | | | | | | |",
                count * KB_A_RUN / 1_000_000
            );
            continue;
        }
        let outcome = simulation::run(&LaunchPlan::of(account(1), count));
        let [store, ecs, messages] = requests(&outcome, count);
        let all = store + ecs + messages;
        let seconds = outcome.makespan.as_seconds_f64();
        let busiest =
            busiest(&outcome).map_or_else(String::new, |(what, most)| format!("{most}: {what:?}"));
        let _ = writeln!(
            text,
            "| {count} | {seconds:.0} s | {:.0} | {store:.2} | {ecs:.2} | {messages:.2} | **{:.3}** | {:.3} | {busiest} | {} | {} |",
            count as f64 / seconds,
            all / *first.get_or_insert(all),
            all / crowded,
            outcome.lost(count),
            outcome.counts.doubled.len(),
        );
    }
    text
}
