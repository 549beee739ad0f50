//! The API keys' rows.

use domain::{key::KeyRecord, ports::PortError};
use rusqlite::{Connection, OptionalExtension, params};

use crate::form;

const WHAT: &str = "an API key's record";

pub(super) fn record(json: &str) -> Result<KeyRecord, PortError> {
    let (key, unknown) = form::read::<KeyRecord>(json.as_bytes()).map_err(|error| PortError::corrupt(WHAT, error))?;
    Ok(KeyRecord { unknown, ..key })
}

pub(super) fn find(db: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT record FROM keys WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()
}

pub(super) fn list(db: &Connection) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached("SELECT record FROM keys ORDER BY name")?.query_map([], |row| row.get(0))?.collect()
}

pub(super) fn add(db: &Connection, key: &KeyRecord, json: &str) -> rusqlite::Result<bool> {
    let added = db
        .prepare_cached("INSERT OR IGNORE INTO keys (id, name, record) VALUES (?1, ?2, ?3)")?
        .execute(params![key.id, key.name, json])?;
    Ok(added > 0)
}

pub(super) fn remove(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    Ok(db.prepare_cached("DELETE FROM keys WHERE name = ?1")?.execute([name])? > 0)
}
