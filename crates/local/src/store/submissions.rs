//! Bulk submissions: when each was opened. Their content is stored with their executions.

use domain::{Timestamp, id::Submission};
use rusqlite::{Connection, OptionalExtension, params};

use crate::database::{millis, moment};

/// Returns this principal's open submission with this id. Opens one if there is none.
pub(super) fn open(
    db: &Connection,
    by: &str,
    id: &str,
    now: Timestamp,
    expires_at: Timestamp,
) -> rusqlite::Result<Submission> {
    let key = format!("{by}/{id}");
    let known: Option<(i64, Option<String>)> = db
        .prepare_cached(
            "SELECT opened_at, seed FROM submissions WHERE key = ?1 AND expires_at > ?2",
        )?
        .query_row(params![key, millis(now)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some((opened_at, seed)) = known {
        return Ok(Submission {
            by: seed.unwrap_or_else(|| by.to_owned()),
            id: id.to_owned(),
            opened_at: moment(opened_at),
        });
    }
    db.prepare_cached(
        "INSERT OR REPLACE INTO submissions (key, opened_at, expires_at) VALUES (?1, ?2, ?3)",
    )?
    .execute(params![key, millis(now), millis(expires_at)])?;
    Ok(Submission {
        by: by.to_owned(),
        id: id.to_owned(),
        opened_at: moment(millis(now)),
    })
}

/// Deletes expired submissions.
pub(crate) fn forget(db: &Connection, before: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM submissions WHERE expires_at <= ?1")?
        .execute([millis(before)])
        .map(drop)
}
