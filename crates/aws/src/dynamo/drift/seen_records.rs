//! The facts that remain of open records once they were looked at.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    execution::{Execution, ExecutionStatus},
    history::Loaded,
    id::ExecutionId,
    limit::LimitKey,
};

/// The units of each limit that the open records hold together.
pub(in crate::dynamo) type HeldUnits = BTreeMap<LimitKey, i64>;

/// Whether an execution is being launched or is running.
pub(in crate::dynamo) fn is_open(execution: &Execution) -> bool {
    matches!(
        execution.status(),
        ExecutionStatus::Launching | ExecutionStatus::Running
    )
}

/// The sums and the ids that are kept of the records.
#[derive(Debug, Default)]
pub(in crate::dynamo) struct SeenRecords {
    pub(in crate::dynamo) held: HeldUnits,
    /// Runs that are open, that cannot be read, or that have a status or a form this release does
    /// not know.
    pub(in crate::dynamo) open: BTreeSet<ExecutionId>,
    pub(in crate::dynamo) over: BTreeSet<ExecutionId>,
}

impl SeenRecords {
    /// Looks at one more record.
    pub(in crate::dynamo) fn look_at(&mut self, loaded: &Loaded) {
        match loaded {
            Ok(record) => self.look_at_record(record),
            // Its allocation is not known. That stops no correction, and the run stays among those
            // that may be open.
            Err(corrupt) => self.open.extend(corrupt.id().cloned()),
        }
    }

    fn look_at_record(&mut self, record: &Execution) {
        let allocations = record.allocations();
        // A run with a newer release's status either holds something, or is over and that release
        // removes it from its launch batch.
        let is_open = is_open(record) || !allocations.is_empty();
        for allocation in allocations {
            *self.held.entry(allocation.key).or_default() += i64::from(allocation.amount);
        }
        if is_open {
            self.open.insert(record.id.clone());
        } else if record.end().is_some() {
            self.over.insert(record.id.clone());
        }
    }
}
