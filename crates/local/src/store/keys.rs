//! The rows of API keys.

use domain::{key::KeyRecord, ports::PortError};
use rusqlite::{Connection, OptionalExtension, params};

use crate::form;

const WHAT: &str = "an API key's record";

pub(super) fn record(json: &str) -> Result<KeyRecord, PortError> {
    let (key, unknown) = form::read::<KeyRecord>(json.as_bytes())
        .map_err(|error| PortError::corrupt(WHAT, error))?;
    Ok(KeyRecord { unknown, ..key })
}

pub(super) fn find(db: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT record FROM keys WHERE id = ?1 UNION ALL SELECT record FROM retired_keys WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()
}

pub(super) fn list(db: &Connection) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached("SELECT record FROM keys ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .collect()
}

pub(super) fn add(db: &Connection, key: &KeyRecord, json: &str) -> rusqlite::Result<bool> {
    let added = db
        .prepare_cached("INSERT OR IGNORE INTO keys (id, name, record) VALUES (?1, ?2, ?3)")?
        .execute(params![key.id, key.name, json])?;
    Ok(added > 0)
}

/// A key that replaces another one.
pub(super) struct KeyRotation {
    name: String,
    old_id: String,
    /// The old key's record, if the old key stays valid.
    old: Option<String>,
    new_id: String,
    new: String,
    /// The ids of all keys that stay valid, as a JSON list.
    kept: String,
}

impl KeyRotation {
    pub(super) fn of(old: &KeyRecord, new: &KeyRecord) -> Result<Self, PortError> {
        let (name, old_id, new_id) = (new.name.clone(), old.id.clone(), new.id.clone());
        let kept: Vec<_> = new
            .previous
            .iter()
            .map(|previous| previous.id.as_str())
            .collect();
        let kept = serde_json::Value::from(kept).to_string();
        let old = new
            .keeps(&old.id)
            .then(|| form::json(old, &old.unknown))
            .transpose()?;
        Ok(Self {
            name,
            old_id,
            old,
            new_id,
            new: form::json(new, &new.unknown)?,
            kept,
        })
    }
}

pub(super) fn rotate(db: &Connection, rotation: &KeyRotation) -> rusqlite::Result<bool> {
    let KeyRotation {
        name,
        old_id,
        old,
        new_id,
        new,
        kept,
    } = rotation;
    let replaced = db
        .prepare_cached("UPDATE keys SET id = ?3, record = ?4 WHERE name = ?1 AND id = ?2")?
        .execute([name, old_id, new_id, new])?;
    if replaced == 0 {
        return Ok(false);
    }
    let gone =
        "DELETE FROM retired_keys WHERE name = ?1 AND id NOT IN (SELECT value FROM json_each(?2))";
    db.prepare_cached(gone)?.execute([name, kept])?;
    if let Some(old) = old {
        db.prepare_cached("INSERT INTO retired_keys (id, name, record) VALUES (?1, ?2, ?3)")?
            .execute([old_id, name, old])?;
    }
    Ok(true)
}

pub(super) fn remove(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("DELETE FROM retired_keys WHERE name = ?1")?
        .execute([name])?;
    Ok(db
        .prepare_cached("DELETE FROM keys WHERE name = ?1")?
        .execute([name])?
        > 0)
}
