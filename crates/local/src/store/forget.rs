//! Removes a record that cannot be read, with everything that is derived from it, in one
//! transaction.

use std::collections::BTreeMap;

use domain::{
    ecs::TaskArn,
    forget::{Forgetting, Forgotten, RawAttempt, RawRecord, Traces, Untold},
    id::ExecutionId,
    limit::LimitKey,
};
use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};
use serde_json::Value;

use super::{
    columns::{self, Raw},
    limits,
};

/// The usage of each limit, by its key.
type Use = BTreeMap<String, i64>;

/// A row with a record that may be broken.
struct KeptRows {
    raw: Raw,
    /// The status column, for a record that is broken as a whole.
    status: Option<String>,
}

impl KeptRows {
    /// Reads a row of the id, the record and the status.
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let status = match row.get_ref(2)? {
            ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        };
        Ok(Self {
            raw: Raw::of(row)?,
            status,
        })
    }

    fn is_readable(&self, id: &ExecutionId) -> bool {
        columns::execution(id.clone(), &self.raw.record).is_ok()
    }

    fn traces(&self) -> Traces {
        let form: Value = serde_json::from_slice(&self.raw.record).unwrap_or_default();
        let part = |at: &str| form.pointer(at).cloned().unwrap_or_default();
        let attempt = |form: &Value| RawAttempt::of(form, "task_arn", "run_task");
        let of_column = || self.status.clone().map_or(Value::Null, Value::String);
        let raw = RawRecord {
            status: Some(part("/state/status"))
                .filter(Value::is_string)
                .unwrap_or_else(of_column),
            request: part("/request"),
            pool: part("/pool"),
            attempts: part("/attempts")
                .as_array()
                .map(|attempts| attempts.iter().map(attempt).collect()),
        };
        raw.traces()
    }

    /// The units that the record holds of each limit; `None` if a broken record does not show all
    /// of them.
    fn holds(&self) -> Option<Use> {
        let id = self.raw.id.parse().ok()?;
        let allocations = match columns::execution(id, &self.raw.record) {
            Ok(execution) => execution.allocations(),
            Err(_) => {
                Some(self.traces())
                    .filter(Traces::tells_all_it_holds)?
                    .allocations
            }
        };
        let mut sum = Use::new();
        for allocation in allocations {
            *sum.entry(allocation.key.to_string()).or_default() += i64::from(allocation.amount);
        }
        Some(sum)
    }
}

/// Conditional: the record exists, it cannot be read, and no task of it runs. The task `stopped`
/// counts as over.
pub(super) fn forget(
    db: &Connection,
    id: &ExecutionId,
    stopped: Option<&TaskArn>,
) -> rusqlite::Result<Forgetting> {
    let kept = db
        .prepare_cached("SELECT id, record, status FROM executions WHERE id = ?1")?
        .query_row([id.as_str()], KeptRows::of)
        .optional()?;
    let Some(kept) = kept else {
        return Ok(Forgetting::Missing);
    };
    if kept.is_readable(id) {
        return Ok(Forgetting::Readable);
    }
    if let Some(task_arn) = open_task(db, id)?.filter(|arn| Some(arn) != stopped) {
        return Ok(Forgetting::Runs { task_arn });
    }
    delete(db, id)?;
    let (released, untold) = release(db, &kept.traces())?;
    let task_arn = stopped.cloned();
    Ok(Forgetting::Forgotten(Forgotten {
        id: id.clone(),
        released,
        untold,
        task_arn,
    }))
}

/// Finds an open task. Tasks have their own table here, so this does not need the record.
fn open_task(db: &Connection, id: &ExecutionId) -> rusqlite::Result<Option<TaskArn>> {
    db.prepare_cached("SELECT arn FROM tasks WHERE open AND started_by > ?1 || '-' AND started_by < ?1 || '.' LIMIT 1")?
        .query_row([id.as_str()], |row| row.get::<_, String>(0).map(TaskArn::from))
        .optional()
}

/// Deletes the record's rows. The row of a task that is still open stays, because the process that
/// follows the task closes it.
fn delete(db: &Connection, id: &ExecutionId) -> rusqlite::Result<()> {
    let statements = [
        "DELETE FROM executions WHERE id = ?1",
        "DELETE FROM task_ids WHERE execution = ?1",
        "DELETE FROM claims WHERE execution = ?1",
        "DELETE FROM tasks WHERE NOT open AND started_by > ?1 || '-' AND started_by < ?1 || '.'",
    ];
    statements
        .iter()
        .try_for_each(|sql| db.prepare_cached(sql)?.execute([id.as_str()]).map(drop))
}

/// Recomputes the usage from all other records. If one of them does not show all that it holds,
/// only the allocations that the removed record shows are released.
fn release(db: &Connection, traces: &Traces) -> rusqlite::Result<(Vec<LimitKey>, Vec<Untold>)> {
    let before = limits::all(db)?;
    let (after, untold) = match still_held(db)? {
        Some(sum) => (sum, Vec::new()),
        None => (less(&before, traces), traces.untold.clone()),
    };
    let mut change = Use::new();
    for key in before.keys().chain(after.keys()) {
        let of = |sum: &Use| sum.get(key).copied().unwrap_or_default();
        change.insert(key.clone(), of(&after) - of(&before));
    }
    limits::change(db, &change)?;
    let fell = change.iter().filter(|(_, by)| **by < 0);
    let released = fell
        .filter_map(|(key, _)| columns::limit_key(key))
        .collect();
    Ok((
        released,
        untold
            .into_iter()
            .filter(|untold| !untold.is_of_a_task())
            .collect(),
    ))
}

fn less(before: &Use, traces: &Traces) -> Use {
    let mut after = before.clone();
    for allocation in &traces.allocations {
        *after.entry(allocation.key.to_string()).or_default() -= i64::from(allocation.amount);
    }
    after
}

/// The sum of the allocations of all records that are launched and not over; `None` if one of them
/// does not show all that it holds.
fn still_held(db: &Connection) -> rusqlite::Result<Option<Use>> {
    let mut sum = Use::new();
    let mut select = db.prepare_cached(
        "SELECT id, record, status FROM executions WHERE ended_at IS NULL AND line IS NULL",
    )?;
    for kept in select.query_map([], KeptRows::of)? {
        let Some(holds) = kept?.holds() else {
            return Ok(None);
        };
        for (key, amount) in holds {
            *sum.entry(key).or_default() += amount;
        }
    }
    Ok(Some(sum))
}
