//! Work on groups: the marks of cancelled groups, and reruns of failed executions.

use domain::{Timestamp, group::GroupWork, ports::PortError};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    database::{integer, millis},
    form,
};

/// Group work that is about to be written.
pub(super) struct Next {
    kind: &'static str,
    name: String,
    from_revision: i64,
    done: bool,
    expires_at: i64,
    json: String,
}

impl Next {
    pub(super) fn of<W: GroupWork>(work: &W) -> Result<Self, PortError> {
        let (before, after) = (work.progress(), work.next_revision());
        Ok(Self {
            kind: W::KIND.as_str(),
            name: before.group.to_string(),
            from_revision: integer(before.revision),
            done: before.done,
            expires_at: millis(work.expires_at()),
            json: form::json(&after, &before.unknown)?,
        })
    }
}

/// Parses group work from its column.
pub(super) fn parsed<W: GroupWork>(json: &str) -> Result<W, PortError> {
    let (work, unknown) =
        form::read::<W>(json.as_bytes()).map_err(|error| PortError::corrupt(W::WHAT, error))?;
    Ok(work.with_unknown(unknown))
}

pub(super) fn find(
    db: &Connection,
    kind: &str,
    name: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<String>> {
    db.prepare_cached(
        "SELECT form FROM group_work WHERE kind = ?1 AND name = ?2 AND expires_at > ?3",
    )?
    .query_row(params![kind, name, millis(now)], |row| row.get(0))
    .optional()
}

pub(super) fn set(db: &Connection, next: &Next, now: Timestamp) -> rusqlite::Result<bool> {
    let found: Option<i64> = db
        .prepare_cached(
            "SELECT revision FROM group_work WHERE kind = ?1 AND name = ?2 AND expires_at > ?3",
        )?
        .query_row(params![next.kind, next.name, millis(now)], |row| row.get(0))
        .optional()?;
    if found.is_some_and(|revision| revision != next.from_revision) {
        return Ok(false);
    }
    db.prepare_cached(
        "INSERT OR REPLACE INTO group_work (kind, name, revision, done, expires_at, form) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![next.kind, next.name, next.from_revision + 1, next.done, next.expires_at, next.json])?;
    Ok(true)
}

pub(super) fn open(db: &Connection, kind: &str, now: Timestamp) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare_cached(
        "SELECT form FROM group_work WHERE kind = ?1 AND NOT done AND expires_at > ?2",
    )?;
    statement
        .query_map(params![kind, millis(now)], |row| row.get(0))?
        .collect()
}

/// Deletes expired group work.
pub(crate) fn forget(db: &Connection, before: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM group_work WHERE expires_at <= ?1")?
        .execute([millis(before)])
        .map(drop)
}
