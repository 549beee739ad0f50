//! The marks of groups that were cancelled.

use domain::{Timestamp, group::GroupCancel, ports::PortError};
use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    database::{integer, millis},
    form,
};

/// A mark as it is to be written.
pub(super) struct Next {
    name: String,
    from_revision: i64,
    done: bool,
    expires_at: i64,
    json: String,
}

impl Next {
    pub(super) fn of(mark: &GroupCancel) -> Result<Self, PortError> {
        let after = GroupCancel { revision: mark.revision + 1, ..mark.clone() };
        Ok(Self {
            name: mark.group.to_string(),
            from_revision: integer(mark.revision),
            done: mark.done,
            expires_at: millis(mark.expires_at()),
            json: form::json(&after, &after.unknown)?,
        })
    }
}

/// A mark out of its column.
pub(super) fn parsed(json: &str) -> Result<GroupCancel, PortError> {
    let (mark, unknown) =
        form::read::<GroupCancel>(json.as_bytes()).map_err(|error| PortError::corrupt("the mark of a group", error))?;
    Ok(GroupCancel { unknown, ..mark })
}

pub(super) fn find(db: &Connection, name: &str, now: Timestamp) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT mark FROM group_cancels WHERE name = ?1 AND expires_at > ?2")?
        .query_row(params![name, millis(now)], |row| row.get(0))
        .optional()
}

pub(super) fn set(db: &Connection, next: &Next, now: Timestamp) -> rusqlite::Result<bool> {
    let found: Option<i64> = db
        .prepare_cached("SELECT revision FROM group_cancels WHERE name = ?1 AND expires_at > ?2")?
        .query_row(params![next.name, millis(now)], |row| row.get(0))
        .optional()?;
    if found.is_some_and(|revision| revision != next.from_revision) {
        return Ok(false);
    }
    db.prepare_cached(
        "INSERT OR REPLACE INTO group_cancels (name, revision, done, expires_at, mark) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![next.name, next.from_revision + 1, next.done, next.expires_at, next.json])?;
    Ok(true)
}

pub(super) fn open(db: &Connection, now: Timestamp) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare_cached("SELECT mark FROM group_cancels WHERE NOT done AND expires_at > ?1")?;
    statement.query_map([millis(now)], |row| row.get(0))?.collect()
}

/// Forgets those that are over.
pub(crate) fn forget(db: &Connection, before: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM group_cancels WHERE expires_at <= ?1")?.execute([millis(before)]).map(drop)
}
