//! The API keys' rows.

use domain::{Timestamp, key::KeyRecord, ports::PortError};
use rusqlite::{Connection, OptionalExtension, params};

use crate::form;

const WHAT: &str = "an API key's record";

pub(super) fn record(json: &str) -> Result<KeyRecord, PortError> {
    let (key, unknown) = form::read::<KeyRecord>(json.as_bytes()).map_err(|error| PortError::corrupt(WHAT, error))?;
    Ok(KeyRecord { unknown, ..key })
}

pub(super) fn find(db: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT record FROM keys WHERE id = ?1 UNION ALL SELECT record FROM retired_keys WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()
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

/// A key that comes in the place of another one.
pub(super) struct Rotation {
    name: String,
    old_id: String,
    /// What is kept of the old one, if it is still good.
    old: Option<String>,
    new_id: String,
    new: String,
}

impl Rotation {
    pub(super) fn of(old: &KeyRecord, new: &KeyRecord, now: Timestamp) -> Result<Self, PortError> {
        let kept = old.is_good(now).then(|| form::json(old, &old.unknown)).transpose()?;
        let (name, old_id, new_id) = (new.name.clone(), old.id.clone(), new.id.clone());
        Ok(Self { name, old_id, old: kept, new_id, new: form::json(new, &new.unknown)? })
    }
}

/// Of several keys that a name had before, the last is good for a while longer, and no others.
pub(super) fn rotate(db: &Connection, rotation: &Rotation) -> rusqlite::Result<bool> {
    let Rotation { name, old_id, old, new_id, new } = rotation;
    let replaced = db
        .prepare_cached("UPDATE keys SET id = ?3, record = ?4 WHERE name = ?1 AND id = ?2")?
        .execute([name, old_id, new_id, new])?;
    if replaced == 0 {
        return Ok(false);
    }
    db.prepare_cached("DELETE FROM retired_keys WHERE name = ?1")?.execute([name])?;
    if let Some(old) = old {
        db.prepare_cached("INSERT INTO retired_keys (id, name, record) VALUES (?1, ?2, ?3)")?
            .execute([old_id, name, old])?;
    }
    Ok(true)
}

pub(super) fn remove(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("DELETE FROM retired_keys WHERE name = ?1")?.execute([name])?;
    Ok(db.prepare_cached("DELETE FROM keys WHERE name = ?1")?.execute([name])? > 0)
}
