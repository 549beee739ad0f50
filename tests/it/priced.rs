//! The price of a million bulk runs, counted on virtual time. So it is the same on every machine.

use tests::simulation::{
    LaunchPlan, account,
    priced::{self, Audience},
};

/// Runs `count` runs in an account with this many vCPUs. A million of them may cost so much, in US$.
fn check(vcpus: u32, count: usize, most: f64) {
    let plan = LaunchPlan::of(account(20_261_202, vcpus), count);
    let priced = priced::run(&plan, Audience::Nobody);
    let (bill, sum) = priced.bill();
    let calls = priced.by_call();
    assert!(sum <= most, "{bill}\n{calls}\n{:?}", priced.invocations);
}

/// Runs begin as fast as the account's rates allow.
#[test]
fn on_dynamo_a_million_runs_cost_little_at_full_throughput() {
    check(1_000, 240, 15.0);
}

/// A new account has 24 slots for the smallest tasks, and each end frees one. So each run needs a
/// launcher of its own. Few runs share a batch of ends that are counted, which costs some 60 cents.
#[test]
fn on_dynamo_a_million_runs_cost_little_one_by_one() {
    check(6, 200, 16.0);
}
