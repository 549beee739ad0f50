//! Converts the file's columns to the domain's types and back. This runs outside of transactions,
//! which other processes wait for.

use domain::{
    error::{Corrupt, PortError},
    execution::{Execution, State},
    history::{Cursor, Loaded, Page},
    id::ExecutionId,
    limit::LimitKey,
};

use crate::form;

/// A record as its row has it: its id and its JSON.
pub(super) struct Raw {
    pub(super) id: String,
    pub(super) record: Vec<u8>,
}

impl Raw {
    /// Reads a row that begins with the id and the record.
    pub(super) fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        // Whatever a column holds, it must not fail the query, which would hide all other rows.
        let bytes = |at| {
            row.get_ref(at)
                .map(|value| value.as_bytes().unwrap_or_default().to_vec())
        };
        Ok(Self {
            id: String::from_utf8_lossy(&bytes(0)?).into_owned(),
            record: bytes(1)?,
        })
    }

    /// Whether the record can be read and has a status that this release handles.
    pub(super) fn can_be_finished(&self) -> bool {
        self.load().is_some_and(|loaded| {
            loaded.is_ok_and(|execution| !matches!(execution.state, State::Other { .. }))
        })
    }

    /// Returns the execution, if it can be read. A row without a valid id belongs to no execution.
    fn load(&self) -> Option<Loaded> {
        let id = self.id.parse::<ExecutionId>();
        let id = id
            .inspect_err(|_| tracing::error!("a row of the store has no id that can be read"))
            .ok()?;
        Some(execution(id, &self.record))
    }
}

pub(super) fn execution(id: ExecutionId, json: &[u8]) -> Loaded {
    match form::read::<Execution>(json) {
        Ok((execution, unknown)) => Ok(Execution {
            unknown,
            ..execution
        }),
        Err(error) => Err(Corrupt::execution(id, error)),
    }
}

pub(super) fn id(text: &str) -> Result<ExecutionId, PortError> {
    text.parse()
        .map_err(|error| PortError::corrupt("an id in the store", error))
}

/// Parses the key of a backlog; `None` for a kind that this release does not know.
pub(super) fn limit_key(text: &str) -> Option<LimitKey> {
    text.parse()
        .inspect_err(|_| tracing::error!("a backlog in the store has a key that cannot be read"))
        .ok()
}

/// Returns the page of these rows. The query asked for one row more than `limit`, to see whether
/// there is a next page.
pub(super) fn page(rows: &[Raw], limit: u32) -> Page<Loaded> {
    let shown = usize::try_from(limit).unwrap_or(usize::MAX).min(rows.len());
    let last = rows[..shown].last().filter(|_| rows.len() > shown);
    // If the last row has no valid id, the next page begins after the last row that has one.
    let next = last
        .and_then(|_| {
            rows[..shown]
                .iter()
                .rev()
                .find_map(|row| row.id.parse().ok())
        })
        .map(Cursor);
    Page {
        items: rows[..shown].iter().filter_map(Raw::load).collect(),
        next,
    }
}
