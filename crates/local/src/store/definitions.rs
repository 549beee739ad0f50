//! The registered task definitions, and the claims to register one.

use rusqlite::{Connection, OptionalExtension, params};

pub(super) fn find(db: &Connection, hash: &str) -> rusqlite::Result<Option<String>> {
    let arn = db
        .prepare_cached("SELECT arn FROM registrations WHERE hash = ?1")?
        .query_row([hash], |row| row.get(0))
        .optional()?;
    Ok(arn.flatten())
}

pub(super) fn claim(db: &Connection, hash: &str, now: i64, until: i64) -> rusqlite::Result<bool> {
    let claimed = db
        .prepare_cached(
            "INSERT INTO registrations (hash, arn, turn_until) VALUES (?1, NULL, ?3)
             ON CONFLICT (hash) DO UPDATE SET turn_until = ?3 WHERE arn IS NULL AND turn_until <= ?2",
        )?
        .execute(params![hash, now, until])?;
    Ok(claimed > 0)
}

pub(super) fn keep(db: &Connection, hash: &str, arn: &str) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO registrations (hash, arn, turn_until) VALUES (?1, ?2, 0)",
    )?
    .execute([hash, arn])
    .map(drop)
}

pub(super) fn forget(db: &Connection, hash: &str, arn: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM registrations WHERE hash = ?1 AND arn = ?2")?
        .execute([hash, arn])
        .map(drop)
}
