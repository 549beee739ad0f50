//! The state of a limit that launchers share: writing what a round changes, and counting how fast
//! backlogs move.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    limit::LimitKey,
    ports::{LaunchStore, PortError},
    scheduler::state::{Change, LimitState},
};

use crate::advance::{Changed, StateOfLimit, change_from};

/// How often a process records how many executions it started from a held backlog. It is this
/// seldom so that the write costs next to nothing for each start, even where one starts every few
/// seconds. The pace that follows from the count is measured over ten minutes.
const WRITTEN_EVERY: TimeDelta = TimeDelta::seconds(30);

/// The most backlogs whose starts are counted at once. Locks can have any number of names.
const REMEMBERED_MAX: usize = 1024;
/// How many starts without a pause make it cheaper to watch a backlog than to get a wakeup for each
/// slot: as many as a batch of messages has.
const FAST: usize = 10;

/// How fast the backlogs move that this process starts from.
#[derive(Debug)]
pub struct Pace {
    /// The starts from held backlogs that are not recorded yet.
    started: Mutex<HashMap<LimitKey, Started>>,
    fast: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self::fast_from(FAST)
    }
}

#[derive(Debug, Default)]
struct Started {
    count: u32,
    written_at: Timestamp,
}

impl Pace {
    /// Returns a pace with another number of starts that count as fast, so that a small simulation
    /// reaches it.
    #[must_use]
    pub fn fast_from(starts: usize) -> Self {
        Self {
            started: Mutex::default(),
            fast: starts,
        }
    }

    /// How many starts without a pause are worth a watch.
    pub(super) fn fast(&self) -> usize {
        self.fast
    }

    /// Counts starts from a backlog that is held. Returns how many are to be recorded now.
    pub(super) fn count(&self, backlog: &LimitKey, started: usize, now: Timestamp) -> u32 {
        if started == 0 {
            return 0;
        }
        let mut backlogs = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if backlogs.len() >= REMEMBERED_MAX {
            backlogs.clear();
        }
        let own = backlogs.entry(backlog.clone()).or_default();
        own.count = own
            .count
            .saturating_add(u32::try_from(started).unwrap_or(u32::MAX));
        if now - own.written_at < WRITTEN_EVERY {
            return 0;
        }
        own.written_at = now;
        std::mem::take(&mut own.count)
    }
}

/// Writes what a round changes in the state of a limit, beginning with the state as the round read
/// it. Returns the state before and after.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn change_limit(
    store: &impl LaunchStore,
    limit: &LimitKey,
    known: &LimitState,
    change: &Change,
    now: Timestamp,
) -> Result<(LimitState, LimitState), PortError> {
    let state = StateOfLimit { store, key: limit };
    let decide = |state: Option<&LimitState>| {
        let after = state?.after(change, now);
        Some(after).filter(|after| Some(after) != state)
    };
    Ok(
        match change_from(&state, Some(known.clone()), decide).await? {
            Changed::Yes {
                before: Some(before),
                after,
            } => (*before, *after),
            unchanged => {
                let state = unchanged.now().unwrap_or_default();
                (state.clone(), state)
            }
        },
    )
}
