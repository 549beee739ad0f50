//! Counts a store's calls, and how often one item is written. Writes to one item would bound a
//! store that spreads its load over items.

use std::collections::BTreeMap;

use domain::{
    execution::Execution,
    limit::{LimitKey, RateKey},
};

/// An item that many executions share, and therefore write often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shared {
    /// The usage of a limit.
    Usage(LimitKey),
    /// The state of a backlog.
    Backlog(LimitKey),
    /// The tokens of a rate limit.
    Tokens(&'static str),
}

/// The counts.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Calls, by the port's method.
    pub calls: BTreeMap<&'static str, u64>,
    /// The most writes in one second, refused ones included.
    pub most_in_a_second: BTreeMap<Shared, u32>,
    this_second: BTreeMap<Shared, u32>,
}

impl Meter {
    pub(super) fn call(&mut self, name: &'static str) {
        *self.calls.entry(name).or_default() += 1;
    }

    pub(super) fn write(&mut self, what: Shared) {
        *self.this_second.entry(what).or_default() += 1;
    }

    pub(super) fn tokens(&mut self, key: RateKey) {
        self.write(Shared::Tokens(match key {
            RateKey::RunTask => "RunTask",
            RateKey::Launches(_) => "launches",
            RateKey::Definitions => "definitions",
        }));
    }

    /// Ends the current second.
    pub(super) fn second(&mut self) {
        for (what, count) in std::mem::take(&mut self.this_second) {
            let most = self.most_in_a_second.entry(what).or_default();
            *most = (*most).max(count);
        }
    }
}

/// The counters that a change of a record changes.
pub(super) fn counters(before: &Execution, after: &Execution) -> Vec<Shared> {
    let (held, holds) = (before.allocations(), after.allocations());
    let only = |these: &[domain::limit::Allocation], others: &[domain::limit::Allocation]| {
        these
            .iter()
            .filter(|one| !others.contains(one))
            .map(|one| Shared::Usage(one.key.clone()))
            .collect::<Vec<_>>()
    };
    let mut changed = [only(&held, &holds), only(&holds, &held)].concat();
    changed.sort();
    changed.dedup();
    changed
}
