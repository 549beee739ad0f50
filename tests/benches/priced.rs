//! The cost of a million bulk runs, on virtual time: at full throughput, and one by one.

use std::fmt::Write as _;

use tests::simulation::{
    LaunchPlan, account,
    priced::{self, Audience},
};

/// The paces: their names, the vCPUs of the account, and how many runs there are.
const PACES: [(&str, u32, usize); 2] = [
    ("at full throughput", 1_000, 1_000),
    ("one by one, in a new account", 6, 300),
];

/// The bills, each with the calls of DynamoDB.
pub(crate) fn compare() -> String {
    let mut text =
        "### A million runs, on virtual time\n\nStart-up 20–60 s and work 5–90 s, 0.25 vCPU each.\n"
            .to_owned();
    for (pace, vcpus, count) in PACES {
        for (audience, who) in [
            (Audience::Nobody, "nobody listens to the ends"),
            (Audience::Rule, "a rule takes the ends"),
        ] {
            let plan = LaunchPlan::of(account(20_261_202, vcpus), count);
            let priced = priced::run(&plan, audience);
            let (bill, sum) = priced.bill();
            let _infallible = writeln!(
                text,
                "\n**{pace}, {who}**: {count} runs in {} s, **${sum:.2}** a million, {:.1} write units a run\n\n{bill}",
                priced.makespan.num_seconds(),
                priced.writes(),
            );
            if audience == Audience::Nobody {
                let _infallible = writeln!(text, "{}", priced.by_call());
            }
        }
    }
    text
}
