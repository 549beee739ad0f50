//! The state of a limit. Each worker has its own backlogs, and so its own states.

use domain::{
    limit::LimitKey,
    ports::PortError,
    scheduler::state::{BacklogState, LimitState},
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    database::{WorkerId, count, integer},
    form,
};

/// A limit's state as the file has it, and whether it belongs to this worker.
pub(super) struct Row {
    json: String,
    revision: i64,
    own: bool,
}

impl Row {
    /// Returns the state. From another worker's state, only the reason that holds its backlog is
    /// returned: a user who asks for a position from another process sees why the execution waits.
    ///
    /// The state is only advice. One that cannot be read counts as the state of a new backlog, and
    /// the next write replaces it.
    pub(super) fn state(&self) -> LimitState {
        let state = match form::read::<LimitState>(self.json.as_bytes()) {
            Ok((state, unknown)) => LimitState { unknown, ..state },
            Err(error) => {
                tracing::error!(%error, "the state of a limit cannot be read");
                LimitState {
                    revision: count(self.revision),
                    ..LimitState::default()
                }
            }
        };
        if self.own {
            state
        } else {
            LimitState {
                backlog: BacklogState {
                    held: state.backlog.held,
                    ..BacklogState::default()
                },
                ..LimitState::default()
            }
        }
    }
}

pub(super) fn find(db: &Connection, key: &str, worker: &WorkerId) -> rusqlite::Result<Option<Row>> {
    db.prepare_cached(
        "SELECT state, pump = ?2, revision FROM line_states WHERE line = ?1 ORDER BY pump = ?2 DESC LIMIT 1",
    )?
    .query_row([key, worker.as_str()], |row| Ok(Row { json: row.get(0)?, own: row.get(1)?, revision: row.get(2)? }))
    .optional()
}

/// A limit's next state. `json` is `None` for the state of a new limit. That state is not
/// stored, because locks can have any number of names.
pub(super) struct Next {
    key: String,
    from_revision: i64,
    revision: i64,
    json: Option<String>,
}

impl Next {
    pub(super) fn of(
        key: &LimitKey,
        before: &LimitState,
        after: &LimitState,
    ) -> Result<Self, PortError> {
        let forgotten = *after
            == LimitState {
                revision: after.revision,
                ..LimitState::default()
            };
        let json = if forgotten {
            None
        } else {
            Some(form::json(after, &after.unknown)?)
        };
        let (from_revision, revision) = (integer(before.revision), integer(after.revision));
        Ok(Self {
            key: key.to_string(),
            from_revision,
            revision,
            json,
        })
    }
}

pub(super) fn set(db: &Connection, next: &Next, worker: &WorkerId) -> rusqlite::Result<bool> {
    let found: Option<i64> = db
        .prepare_cached("SELECT revision FROM line_states WHERE line = ?1 AND pump = ?2")?
        .query_row([next.key.as_str(), worker.as_str()], |row| row.get(0))
        .optional()?;
    if found.unwrap_or_default() != next.from_revision {
        return Ok(false);
    }
    match &next.json {
        Some(json) => db
            .prepare_cached("INSERT OR REPLACE INTO line_states (line, pump, revision, state) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![next.key, worker.as_str(), next.revision, json])?,
        None => db
            .prepare_cached("DELETE FROM line_states WHERE line = ?1 AND pump = ?2")?
            .execute([next.key.as_str(), worker.as_str()])?,
    };
    Ok(true)
}
