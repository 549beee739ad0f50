//! The memory of a process between two calls. Any of it may be lost or out of date, at the price
//! of a needless write.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::TimeDelta;
use domain::{Timestamp, limit::LimitKey};

/// How long a note in a directory is assumed to be still there: far less than the day after which
/// it may be removed.
const NOTED_FOR: TimeDelta = TimeDelta::minutes(10);
/// Most things remembered of each kind, before all are dropped. Locks can have any number of names,
/// so the memory must be bounded.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct StoreMemory {
    inner: Mutex<MemoryInner>,
}

#[derive(Debug, Default)]
struct MemoryInner {
    /// Notes made in directories, by their text, with the time of each.
    noted: HashMap<String, Timestamp>,
    /// The submitters in each backlog when it was last looked at, and how many starts each was
    /// charged for.
    seen: HashMap<LimitKey, BTreeMap<String, u64>>,
}

impl StoreMemory {
    /// Whether this note was made a short while ago.
    pub(super) fn has_noted(&self, note: &str, now: Timestamp) -> bool {
        self.lock()
            .noted
            .get(note)
            .is_some_and(|at| (now - *at).abs() < NOTED_FOR)
    }

    pub(super) fn note(&self, note: String, now: Timestamp) {
        let mut inner = self.lock();
        if inner.noted.len() >= MOST {
            inner.noted.clear();
        }
        inner.noted.insert(note, now);
    }

    pub(super) fn see(&self, backlog: &LimitKey, served: BTreeMap<String, u64>) {
        let mut inner = self.lock();
        if inner.seen.len() >= MOST {
            inner.seen.clear();
        }
        inner.seen.insert(backlog.clone(), served);
    }

    /// The submitters last seen in a backlog; none if it was never looked at.
    pub(super) fn seen(&self, backlog: &LimitKey) -> BTreeMap<String, u64> {
        self.lock().seen.get(backlog).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, MemoryInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
