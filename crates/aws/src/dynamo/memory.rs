//! What a process remembers between two calls. All of it may be forgotten, or be out of date, at
//! the price of a write too many.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::TimeDelta;
use domain::{Timestamp, limit::LimitKey};

/// How long a note in a directory is taken to be there: far less than the day after which one may
/// be removed. Ours.
const NOTED_FOR: TimeDelta = TimeDelta::minutes(10);
/// Most things remembered of each kind, before all are forgotten: locks can have any number of
/// names. Ours.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Notes made in directories, by what they say.
    noted: HashMap<String, Timestamp>,
    /// Who was in a backlog when it was last looked at, and how much each was served.
    seen: HashMap<LimitKey, BTreeMap<String, u64>>,
}

impl Memory {
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

    /// Who was last seen in a backlog; nobody if it was never looked at.
    pub(super) fn seen(&self, backlog: &LimitKey) -> BTreeMap<String, u64> {
        self.lock().seen.get(backlog).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
