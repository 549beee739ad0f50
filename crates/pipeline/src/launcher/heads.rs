//! The first records of backlogs, as this process last read them.
//!
//! A launcher looks at more entries than it starts: the rates grant fewer, or there is less room. It
//! looks at them again in the next round, and reading a record costs more than all else in a round.
//! A record that is out of date does no harm. A launch is written on the condition that nobody has
//! changed the record since, and after a refusal it is read again.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::TimeDelta;
use domain::{Timestamp, execution::Execution, id::ExecutionId, limit::LimitKey};

/// How long a record is remembered.
const REMEMBERED: TimeDelta = TimeDelta::minutes(1);
/// The most backlogs whose records are remembered. Of each, as many are as one round looks at.
const BACKLOGS_MAX: usize = 16;

/// The records of the entries that were looked at last in each backlog, and were not started.
#[derive(Debug, Default)]
pub struct Heads(Mutex<BTreeMap<LimitKey, Head>>);

/// The records of one backlog's first entries.
#[derive(Debug)]
struct Head {
    read_at: Timestamp,
    records: BTreeMap<ExecutionId, Execution>,
}

impl Heads {
    /// Takes the records of a backlog out. Those that are put back are remembered.
    pub(super) fn take(
        &self,
        backlog: &LimitKey,
        now: Timestamp,
    ) -> BTreeMap<ExecutionId, Execution> {
        let head = self.lock().remove(backlog);
        let head = head.filter(|head| (now - head.read_at).abs() < REMEMBERED);
        head.map_or_else(BTreeMap::new, |head| head.records)
    }

    /// Remembers the records of a backlog.
    pub(super) fn put(&self, backlog: &LimitKey, records: Vec<Execution>, now: Timestamp) {
        if records.is_empty() {
            return;
        }
        let mut heads = self.lock();
        if heads.len() >= BACKLOGS_MAX {
            heads.clear();
        }
        let records = records.into_iter();
        let head = Head {
            read_at: now,
            records: records.map(|record| (record.id.clone(), record)).collect(),
        };
        heads.insert(backlog.clone(), head);
    }

    /// Forgets a record, which may have changed.
    pub(super) fn forget(&self, backlog: &LimitKey, id: &ExecutionId) {
        if let Some(head) = self.lock().get_mut(backlog) {
            head.records.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LimitKey, Head>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
