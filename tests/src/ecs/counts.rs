//! What was counted, for benchmarks and for properties.

use std::collections::BTreeMap;

use domain::Timestamp;

use super::{account::Kind, operation::Operation};

/// Why a call did not do what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// ECS's own bucket of the operation is empty.
    ApiRate,
    /// Fargate's bucket of RunTask calls is empty.
    RunTaskRate,
    /// Fargate's bucket of launches is empty.
    LaunchRate(Kind),
    /// The vCPUs are in use (a failure in a 200).
    Vcpus(Kind),
    /// Fargate has no capacity (a failure in a 200).
    NoCapacity(Kind),
    /// The client token stands for another request.
    Conflict,
    /// The answer was lost or the server failed, as the account asks for.
    Server,
    /// The request cannot be granted as it is.
    Invalid,
}

impl Why {
    /// Whether this is what a launcher that knows the quotas never meets.
    #[must_use]
    pub fn is_quota(self) -> bool {
        matches!(
            self,
            Self::ApiRate | Self::RunTaskRate | Self::LaunchRate(_) | Self::Vcpus(_)
        )
    }
}

/// What happened since the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that came, refused ones too.
    pub calls: BTreeMap<Operation, u64>,
    /// Calls that were refused, and why.
    pub refusals: BTreeMap<(Operation, Why), u64>,
    /// Tasks launched in each second since the epoch.
    pub launches: BTreeMap<(Kind, i64), u32>,
    /// Calls to RunTask that were answered as one before, since they had its client token.
    pub repeated: u64,
    /// The most CPU units in use at a time, foreign tasks' too.
    pub peak: BTreeMap<Kind, u32>,
    /// Every task, in order, of each `startedBy` that has more than one: runs that were doubled.
    pub doubled: BTreeMap<String, Vec<String>>,
    /// Changes of tasks, each of which makes an event.
    pub changes: u64,
    /// Events that were handed out, duplicates too.
    pub delivered: u64,
    /// Events that were dropped.
    pub dropped: u64,
}

impl Counts {
    /// Calls of all kinds.
    #[must_use]
    pub fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }

    /// How often this operation was refused for that.
    #[must_use]
    pub fn refused(&self, operation: Operation, why: Why) -> u64 {
        self.refusals
            .get(&(operation, why))
            .copied()
            .unwrap_or_default()
    }

    /// Refusals by quotas, of all operations.
    #[must_use]
    pub fn refused_by_quotas(&self) -> u64 {
        self.refusals
            .iter()
            .filter(|((_, why), _)| why.is_quota())
            .map(|(_, count)| count)
            .sum()
    }

    /// Tasks launched.
    #[must_use]
    pub fn launched(&self) -> u64 {
        self.launches.values().copied().map(u64::from).sum()
    }

    pub(super) fn refuse(&mut self, operation: Operation, why: Why) {
        *self.refusals.entry((operation, why)).or_default() += 1;
    }

    pub(super) fn launch(&mut self, kind: Kind, now: Timestamp) {
        *self.launches.entry((kind, now.timestamp())).or_default() += 1;
    }

    pub(super) fn in_use(&mut self, kind: Kind, cpu: u32) {
        let peak = self.peak.entry(kind).or_default();
        *peak = (*peak).max(cpu);
    }
}
