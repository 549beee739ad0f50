//! Usage counters and launch rates.

use std::collections::BTreeMap;

use domain::{
    Timestamp,
    limit::{Admission, LimitKey, RateKey, Usage},
    quota::{Rate, TokenBucket},
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::database::{count, millis, moment};

fn used(db: &Connection, key: &str) -> rusqlite::Result<i64> {
    let used = db
        .prepare_cached("SELECT used FROM usage WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    Ok(used.unwrap_or_default())
}

pub(super) fn usage(db: &Connection, key: &str) -> rusqlite::Result<Usage> {
    Ok(Usage {
        used: count(used(db, key)?),
    })
}

/// The usage of every limit, by key.
pub(super) fn all(db: &Connection) -> rusqlite::Result<BTreeMap<String, i64>> {
    let mut select = db.prepare_cached("SELECT key, used FROM usage")?;
    select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// The first limit that this change would exceed.
pub(super) fn first_full(
    db: &Connection,
    admissions: &[Admission],
    change: &BTreeMap<String, i64>,
) -> rusqlite::Result<Option<LimitKey>> {
    for admission in admissions {
        let Some(max) = admission.max else { continue };
        let key = admission.key.to_string();
        let afterwards = used(db, &key)? + change.get(&key).copied().unwrap_or_default();
        if afterwards > i64::from(max) {
            return Ok(Some(admission.key.clone()));
        }
    }
    Ok(None)
}

/// Applies the change. A limit without usage has no row; otherwise every lock ever named would
/// stay.
pub(super) fn change(db: &Connection, change: &BTreeMap<String, i64>) -> rusqlite::Result<()> {
    for (key, difference) in change {
        let after = used(db, key)? + difference;
        if after > 0 {
            db.prepare_cached("INSERT OR REPLACE INTO usage (key, used) VALUES (?1, ?2)")?
                .execute(params![key, after])?;
        } else {
            db.prepare_cached("DELETE FROM usage WHERE key = ?1")?
                .execute([key])?;
        }
    }
    Ok(())
}

pub(super) fn take_tokens(
    db: &Connection,
    key: RateKey,
    rate: Rate,
    want: u32,
    now: Timestamp,
) -> rusqlite::Result<(u32, u64)> {
    let key = key.to_string();
    let bucket = db
        .prepare_cached("SELECT spent, at FROM buckets WHERE key = ?1")?
        .query_row([&key], |row| {
            Ok(TokenBucket {
                spent: row.get(0)?,
                at: moment(row.get(1)?),
            })
        })
        .optional()?;
    let (granted, bucket) = bucket.unwrap_or_default().take(rate, want, now);
    if granted > 0 {
        db.prepare_cached("INSERT OR REPLACE INTO buckets (key, spent, at) VALUES (?1, ?2, ?3)")?
            .execute(params![key, bucket.spent, millis(bucket.at)])?;
    }
    Ok((granted, bucket.wait_millis(rate, now)))
}
