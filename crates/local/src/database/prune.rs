//! Deletes what ended long ago.

use domain::{Timestamp, ports::PortError};
use rusqlite::{Connection, params};

use super::{Database, SERVICE, millis};
use crate::failpoint;

/// The most executions removed in one transaction. With 500, the writes of others wait only a few
/// milliseconds for it.
const BATCH: u32 = 500;

/// The result of a prune.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The number of removed executions.
    pub executions: u64,
    /// The ids of their tasks (the last part of an ARN), which name their logs.
    pub task_ids: Vec<String>,
}

impl Database {
    /// Removes the records of executions that ended before this time, with their tasks and claims.
    /// Idempotent.
    ///
    /// # Errors
    /// When the file cannot be written. Then some executions may have been removed.
    pub async fn prune(&self, before: Timestamp) -> Result<Pruned, PortError> {
        let mut pruned = Pruned::default();
        loop {
            failpoint!("database.prune.before");
            let part = self.write(SERVICE, move |db| prune(db, before)).await?;
            failpoint!("database.prune.after");
            pruned.executions += part.executions;
            pruned.task_ids.extend(part.task_ids);
            if part.executions < u64::from(BATCH) {
                return Ok(pruned);
            }
        }
    }
}

fn prune(db: &Connection, before: Timestamp) -> rusqlite::Result<Pruned> {
    let mut pruned = Pruned::default();
    let ids: Vec<String> = db
        .prepare_cached("SELECT id FROM executions WHERE ended_at < ?1 LIMIT ?2")?
        .query_map(params![millis(before), BATCH], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in &ids {
        let arns: Vec<String> = db
            .prepare_cached(
                "DELETE FROM tasks WHERE NOT open AND started_by > ?1 || '-' AND started_by < ?1 || '.' RETURNING arn",
            )?
            .query_map([id], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for task_id in arns.iter().map(|arn| crate::tasks::task_id(arn)) {
            db.prepare_cached("DELETE FROM task_ids WHERE task_id = ?1")?
                .execute([task_id])?;
            pruned.task_ids.push(task_id.to_owned());
        }
        db.prepare_cached("DELETE FROM executions WHERE id = ?1")?
            .execute([id])?;
        pruned.executions += 1;
    }
    // A claim must not outlive its execution.
    db.prepare_cached(
        "DELETE FROM claims WHERE NOT EXISTS (SELECT 1 FROM executions WHERE id = execution)",
    )?
    .execute([])?;
    crate::store::submissions::forget(db, before)?;
    crate::store::groups::forget(db, before)?;
    crate::store::statistics::forget(db, before)?;
    Ok(pruned)
}
