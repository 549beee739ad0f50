//! The memory of a process between two calls. Any of it may be lost or out of date, at the price
//! of a needless write.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::TaskId,
    id::ExecutionId,
    limit::{LimitKey, RateKey},
};

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
    /// The executions that a launch batch names although they are over.
    over: BTreeSet<ExecutionId>,
    /// The first entries of each backlog when it was last looked at, in their order.
    next: HashMap<LimitKey, Vec<ExecutionId>>,
    /// The executions that a launch batch names ahead, and since when.
    named: HashMap<ExecutionId, Timestamp>,
    /// The tokens that this process took ahead.
    tokens: HashMap<RateKey, u32>,
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

    /// The executions that are over, as far as is known here.
    pub(super) fn over(&self) -> BTreeSet<ExecutionId> {
        self.lock().over.clone()
    }

    /// Keeps which executions are over, in place of those that were kept.
    pub(super) fn keep_over(&self, ids: BTreeSet<ExecutionId>) {
        self.lock().over = ids;
    }

    /// Keeps the first entries of a backlog.
    pub(super) fn line_up(&self, backlog: &LimitKey, ids: Vec<ExecutionId>) {
        let mut inner = self.lock();
        if inner.next.len() >= MOST {
            inner.next.clear();
        }
        inner.next.insert(backlog.clone(), ids);
    }

    /// The entries that follow these in their backlogs, at most `most` of each, without those that
    /// are named already.
    pub(super) fn next_in(
        &self,
        launched: &[(ExecutionId, Option<LimitKey>)],
        most: usize,
    ) -> Vec<ExecutionId> {
        let inner = self.lock();
        let backlogs: BTreeSet<_> = launched
            .iter()
            .filter_map(|(_, from)| from.as_ref())
            .collect();
        let is_next = |id: &&ExecutionId| {
            launched.iter().all(|(one, _)| one != *id) && !inner.named.contains_key(*id)
        };
        backlogs
            .into_iter()
            .filter_map(|backlog| inner.next.get(backlog))
            .flat_map(|ids| ids.iter().filter(is_next).take(most))
            .cloned()
            .collect()
    }

    /// Those of the launched executions that no launch batch named ahead within this time. The
    /// others' names are used up.
    pub(super) fn unnamed(
        &self,
        launched: &[(ExecutionId, Option<LimitKey>)],
        within: TimeDelta,
        now: Timestamp,
    ) -> Vec<ExecutionId> {
        let mut inner = self.lock();
        let is_named = |at: Timestamp| now - at < within && at <= now;
        launched
            .iter()
            .filter(|(id, _)| !inner.named.remove(id).is_some_and(is_named))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Notes that a launch batch names these ahead, and forgets names that are too old.
    pub(super) fn name(&self, ids: Vec<ExecutionId>, within: TimeDelta, now: Timestamp) {
        let mut inner = self.lock();
        inner.named.retain(|_, at| now - *at < within);
        inner.named.extend(ids.into_iter().map(|id| (id, now)));
    }

    /// Takes up to `want` of the tokens that were taken ahead. Returns how many.
    pub(super) fn take_tokens(&self, key: RateKey, want: u32) -> u32 {
        let mut inner = self.lock();
        let there = inner.tokens.entry(key).or_default();
        let taken = want.min(*there);
        *there -= taken;
        taken
    }

    /// Keeps tokens that were taken ahead.
    pub(super) fn keep_tokens(&self, key: RateKey, ahead: u32) {
        *self.lock().tokens.entry(key).or_default() += ahead;
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
