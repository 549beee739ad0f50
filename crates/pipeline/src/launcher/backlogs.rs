//! What launchers tell each other of a backlog: what holds it, who looks again and when, how fast
//! it moves.

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

/// How often a backlog's state is decided anew because another launcher was faster. Ours: it is
/// advice, so it is given up then.
const CONFLICTS_MAX: usize = 8;
/// How often a process writes down what it started out of a held backlog. Ours: so that it costs
/// next to nothing for each start.
const WRITTEN_EVERY: TimeDelta = TimeDelta::seconds(5);

/// How many starts without a pause make it worth while to go on looking at a backlog, instead of
/// being told of each slot by a message. Ours: as many as a batch of messages has.
const FAST: usize = 10;

/// How fast backlogs move that this process starts from.
#[derive(Debug)]
pub struct Pace {
    /// What it started out of lines that are held, not written down yet.
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
    /// With another number of starts that are brisk, so that a small simulation has them too.
    #[must_use]
    pub fn fast_from(starts: usize) -> Self {
        Self {
            started: Mutex::default(),
            fast: starts,
        }
    }

    /// Whether so many starts without a pause are worth a watch.
    pub(super) fn is_fast(&self, starts: usize) -> bool {
        starts >= self.fast
    }

    /// Counts these, and returns all that are to be written down now.
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

/// Changes what is known of a backlog; returns the state as it was before, and as it is afterwards.
/// `None` from `decide` leaves it.
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

/// So many started out of a backlog; of interest where it is held.
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
