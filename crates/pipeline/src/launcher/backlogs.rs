//! The state of a backlog that launchers share: what holds it, who looks again and when, and how
//! fast it moves.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    backlog::BacklogState,
    limit::LimitKey,
    ports::{PortError, Store},
};

/// How often a change to a backlog's state is decided again because another launcher was faster.
/// Then the change is dropped, which is safe because the state is only advice.
const CONFLICTS_MAX: usize = 8;
/// How often a process records how many executions it started from a held backlog. It is this
/// seldom so that the write costs next to nothing for each start.
const WRITTEN_EVERY: TimeDelta = TimeDelta::seconds(5);

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

    /// Whether this many starts without a pause are worth a watch.
    pub(super) fn is_fast(&self, starts: usize) -> bool {
        starts >= self.fast
    }

    /// Counts these starts. Returns the total if it is to be recorded now.
    fn count(&self, backlog: &LimitKey, started: u32, now: Timestamp) -> Option<u32> {
        let mut backlogs = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let own = backlogs.entry(backlog.clone()).or_default();
        own.count = own.count.saturating_add(started);
        if now - own.written_at < WRITTEN_EVERY {
            return None;
        }
        own.written_at = now;
        Some(std::mem::take(&mut own.count))
    }
}

/// Changes the state of a backlog. Returns the state before and after. A `None` from `decide`
/// leaves the state as it is.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn change_backlog(
    store: &impl Store,
    backlog: &LimitKey,
    decide: impl Fn(&BacklogState) -> Option<BacklogState> + Send + Sync,
) -> Result<(BacklogState, BacklogState), PortError> {
    let mut state = store.backlog_state(backlog).await?;
    for _ in 0..CONFLICTS_MAX {
        let Some(after) = decide(&state).filter(|after| *after != state) else {
            return Ok((state.clone(), state));
        };
        if store
            .set_backlog_state(backlog, &state, after.clone())
            .await?
        {
            return Ok((state, after));
        }
        state = store.backlog_state(backlog).await?;
    }
    Ok((state.clone(), state))
}

/// Records how many executions started from a backlog. Does nothing unless the backlog is held.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn note_pace(
    store: &impl Store,
    pace: &Pace,
    (backlog, state): (&LimitKey, &BacklogState),
    started: usize,
    now: Timestamp,
) -> Result<(), PortError> {
    if started == 0 || state.held.is_none() {
        return Ok(());
    }
    let Some(count) = pace.count(backlog, u32::try_from(started).unwrap_or(u32::MAX), now) else {
        return Ok(());
    };
    change_backlog(store, backlog, |state| Some(state.moved(count, now)))
        .await
        .map(drop)
}
