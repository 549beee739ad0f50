//! What launchers tell each other of a line: what holds it, who looks again and when, how fast it moves.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    limit::LimitKey,
    line::LineState,
    ports::{PortError, Store},
};

/// How often a line's state is decided anew because another launcher was faster. Ours: it is advice, so it is given up then.
const CONFLICTS_MAX: usize = 8;
/// How often a process writes down what it started out of a held line. Ours: so that it costs next to nothing for each start.
const WRITTEN_EVERY: TimeDelta = TimeDelta::seconds(5);

/// How many starts without a pause make it worth while to go on looking at a line, instead of being told of each slot by a message. Ours: as
/// many as a batch of messages has.
const BRISK: usize = 10;

/// How fast lines move that this process starts from.
#[derive(Debug)]
pub struct Pace {
    /// What it started out of lines that are held, not written down yet.
    started: Mutex<HashMap<LimitKey, Started>>,
    brisk: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self::brisk_from(BRISK)
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
    pub fn brisk_from(starts: usize) -> Self {
        Self { started: Mutex::default(), brisk: starts }
    }

    /// Whether so many starts without a pause are worth a watch.
    pub(super) fn is_brisk(&self, starts: usize) -> bool {
        starts >= self.brisk
    }

    /// Counts these, and returns all that are to be written down now.
    fn count(&self, line: &LimitKey, started: u32, now: Timestamp) -> Option<u32> {
        let mut lines = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let own = lines.entry(line.clone()).or_default();
        own.count = own.count.saturating_add(started);
        if now - own.written_at < WRITTEN_EVERY {
            return None;
        }
        own.written_at = now;
        Some(std::mem::take(&mut own.count))
    }
}

/// Changes what is known of a line; returns the state as it was before, and as it is afterwards. `None` from `decide` leaves it.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn change_line(
    store: &impl Store,
    line: &LimitKey,
    decide: impl Fn(&LineState) -> Option<LineState> + Send + Sync,
) -> Result<(LineState, LineState), PortError> {
    let mut state = store.line_state(line).await?;
    for _ in 0..CONFLICTS_MAX {
        let Some(after) = decide(&state).filter(|after| *after != state) else {
            return Ok((state.clone(), state));
        };
        if store.set_line_state(line, &state, after.clone()).await? {
            return Ok((state, after));
        }
        state = store.line_state(line).await?;
    }
    Ok((state.clone(), state))
}

/// So many started out of a line; of interest where it is held.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn note_pace(
    store: &impl Store,
    pace: &Pace,
    (line, state): (&LimitKey, &LineState),
    started: usize,
    now: Timestamp,
) -> Result<(), PortError> {
    if started == 0 || state.held.is_none() {
        return Ok(());
    }
    let Some(count) = pace.count(line, u32::try_from(started).unwrap_or(u32::MAX), now) else { return Ok(()) };
    change_line(store, line, |state| Some(state.moved(count, now))).await.map(drop)
}
