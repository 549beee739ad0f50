//! The model's counters, for benchmarks and properties.

use std::collections::BTreeMap;

use domain::Timestamp;

use super::{account::Kind, operation::Operation};

/// Why a call was refused.
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
    /// The client token belongs to another request.
    Conflict,
    /// The answer was lost or the server failed, as the account says.
    Server,
    /// The request cannot be granted as it is.
    Invalid,
}

impl Why {
    /// Whether a launcher that knows the quotas never meets this refusal.
    #[must_use]
    pub fn is_quota(self) -> bool {
        matches!(
            self,
            Self::ApiRate | Self::RunTaskRate | Self::LaunchRate(_) | Self::Vcpus(_)
        )
    }
}

/// The counts since the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls received, refused ones included.
    pub calls: BTreeMap<Operation, u64>,
    /// Calls that were refused, and why.
    pub refusals: BTreeMap<(Operation, Why), u64>,
    /// Tasks launched in each second since the epoch.
    pub launches: BTreeMap<(Kind, i64), u32>,
    /// RunTask calls answered with an earlier answer because they had its client token.
    pub repeated: u64,
    /// The most CPU units in use at once, foreign tasks included.
    pub peak: BTreeMap<Kind, u32>,
    /// All tasks of each `startedBy` that has more than one, in order: executions started twice.
    pub doubled: BTreeMap<String, Vec<String>>,
    /// Changes of tasks. Each makes an event.
    pub changes: u64,
    /// Events delivered, duplicates included.
    pub delivered: u64,
    /// Events dropped.
    pub dropped: u64,
}

impl Counts {
    /// Calls of all operations.
    #[must_use]
    pub fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }

    /// How often this operation was refused for this reason.
    #[must_use]
    pub fn refused(&self, operation: Operation, why: Why) -> u64 {
        self.refusals
            .get(&(operation, why))
            .copied()
            .unwrap_or_default()
    }

    /// Refusals by quotas, over all operations.
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
