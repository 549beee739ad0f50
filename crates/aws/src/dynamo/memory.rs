//! The memory of a process between two calls. Any of it may be lost or out of date, at the price
//! of a needless write.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::TimeDelta;
use domain::{Timestamp, ecs::TaskId, id::ExecutionId, limit::LimitKey};

use super::item::Key;

/// How long a note in a directory is assumed to be still there: far less than the day after which
/// it may be removed.
const NOTED_FOR: TimeDelta = TimeDelta::minutes(10);
/// How long a launch batch is added to.
const BATCH_FOR: TimeDelta = TimeDelta::minutes(10);
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
    /// The executions of tasks, which never change.
    tasks: HashMap<TaskId, ExecutionId>,
    /// The launch batch that this process made last, how many ids it was given, and when it was
    /// made.
    batch: Option<(Key, usize, Timestamp)>,
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

    /// The execution of a task, if it was looked up here before.
    pub(super) fn of_task(&self, task: &TaskId) -> Option<ExecutionId> {
        self.lock().tasks.get(task).cloned()
    }

    pub(super) fn keep_task(&self, task: TaskId, execution: ExecutionId) {
        let mut inner = self.lock();
        if inner.tasks.len() >= MOST {
            inner.tasks.clear();
        }
        inner.tasks.insert(task, execution);
    }

    /// The launch batch that takes this many more ids, of at most `most`.
    pub(super) fn take_batch(&self, more: usize, most: usize, now: Timestamp) -> Option<Key> {
        let mut inner = self.lock();
        let (key, count, made_at) = inner.batch.as_mut()?;
        let fits = *count + more <= most && (now - *made_at).abs() < BATCH_FOR;
        if fits {
            *count += more;
            return Some(key.clone());
        }
        inner.batch = None;
        None
    }

    pub(super) fn keep_batch(&self, key: Key, count: usize, now: Timestamp) {
        self.lock().batch = Some((key, count, now));
    }

    pub(super) fn drop_batch(&self) {
        self.lock().batch = None;
    }

    fn lock(&self) -> MutexGuard<'_, MemoryInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
