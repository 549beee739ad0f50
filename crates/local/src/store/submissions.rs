//! Submissions of many lines: when each was first heard of. What stands in them is with their executions.

use domain::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::database::{millis, moment};

/// The moment of a submission that is open, else of this opening.
pub(super) fn open(db: &Connection, key: &str, now: Timestamp, expires_at: Timestamp) -> rusqlite::Result<Timestamp> {
    let opened_at: Option<i64> = db
        .prepare_cached("SELECT opened_at FROM submissions WHERE key = ?1 AND expires_at > ?2")?
        .query_row(params![key, millis(now)], |row| row.get(0))
        .optional()?;
    if let Some(opened_at) = opened_at {
        return Ok(moment(opened_at));
    }
    db.prepare_cached("INSERT OR REPLACE INTO submissions (key, opened_at, expires_at) VALUES (?1, ?2, ?3)")?
        .execute(params![key, millis(now), millis(expires_at)])?;
    Ok(moment(millis(now)))
}

/// Forgets those that are over.
pub(crate) fn forget(db: &Connection, before: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM submissions WHERE expires_at <= ?1")?.execute([millis(before)]).map(drop)
}
