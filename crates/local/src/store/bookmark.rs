//! The position at which a sweep was cut short.

use rusqlite::{Connection, OptionalExtension};

pub(super) fn read(db: &Connection) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT execution FROM bookmark")?
        .query_row([], |row| row.get(0))
        .optional()
}

pub(super) fn write(db: &Connection, at: Option<&str>) -> rusqlite::Result<()> {
    match at {
        Some(id) => db
            .prepare_cached("INSERT OR REPLACE INTO bookmark (only, execution) VALUES (1, ?1)")?
            .execute([id]),
        None => db.prepare_cached("DELETE FROM bookmark")?.execute([]),
    }
    .map(drop)
}
