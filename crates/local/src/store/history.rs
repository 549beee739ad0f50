//! Reads history: pages of executions, and searches for a fragment of an id.

use domain::{
    Timestamp,
    ecs::TaskId,
    execution::ExecutionStatus,
    history::{Cursor, Filter},
    id::ExecutionId,
};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter, types::Value};

use super::columns::Raw;
use crate::database::{WorkerId, millis, moment};

/// The meanings of a fragment: ids that begin or end with it, or the execution of this task.
pub(super) enum WantedRows {
    Id {
        prefix: String,
        reversed_suffix: String,
    },
    Task(TaskId),
}

impl WantedRows {
    /// Returns `None` for text that can be neither part of an id nor an ARN.
    pub(super) fn of(fragment: &str) -> Option<Self> {
        let fragment = fragment.trim();
        let task_id = fragment.rsplit('/').next().unwrap_or_default();
        if fragment.contains(':') || is_task_id(task_id) {
            return Some(Self::Task(task_id.into()));
        }
        let upper = fragment.to_uppercase();
        let of_ulid = upper.strip_prefix("EXEC_").unwrap_or(&upper);
        of_ulid
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric())
            .then(|| Self::Id {
                prefix: format!("exec_{of_ulid}"),
                reversed_suffix: of_ulid.chars().rev().collect(),
            })
    }
}

/// Whether the text is 32 hexadecimal digits, like ECS's task ids. No part of an execution's id is
/// that long.
fn is_task_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(super) fn find(
    db: &Connection,
    wanted: &WantedRows,
    limit: u32,
) -> rusqlite::Result<Vec<String>> {
    match wanted {
        WantedRows::Task(task_id) => Ok(of_task(db, task_id)?.into_iter().collect()),
        // No character of an id comes after '~', so it ends the range of ids with this prefix.
        // `+id` keeps the second search in the index of reversed ids, which has few matches.
        WantedRows::Id { prefix, reversed_suffix } => db
            .prepare_cached(
                "SELECT id FROM (SELECT id FROM executions WHERE id >= ?1 AND id < ?1 || '~' ORDER BY id DESC LIMIT ?3)
                 UNION
                 SELECT id FROM (SELECT id FROM executions WHERE reversed >= ?2 AND reversed < ?2 || '~' ORDER BY +id DESC LIMIT ?3)
                 ORDER BY id DESC LIMIT ?3",
            )?
            .query_map(params![prefix, reversed_suffix, limit], |row| row.get(0))?
            .collect(),
    }
}

/// Returns the id of the execution that a task was started for.
pub(super) fn of_task(db: &Connection, task: &TaskId) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT execution FROM task_ids WHERE task_id = ?1")?
        .query_row([task.as_str()], |row| row.get(0))
        .optional()
}

/// A query for one page of records, and one more record that shows whether there is a next page.
pub(super) struct HistoryQuery {
    sql: String,
    values: Vec<Value>,
}

impl HistoryQuery {
    /// Newest first. Each condition has an index in this order, so a page of any age costs the
    /// same.
    pub(super) fn list(filter: &Filter, after: Option<&Cursor>, limit: u32) -> Self {
        let since = filter
            .since
            .map(|since| ExecutionId::new(first_milli(since), 0));
        let conditions = [
            status_is(filter.status.as_ref()),
            ("grp = ?", filter.group.as_ref().map(ToString::to_string)),
            by(filter),
            ("id >= ?", since.map(String::from)),
            ("id < ?", after.map(|cursor| cursor.0.to_string())),
        ];
        Self::of(conditions, "id DESC", limit)
    }

    /// This worker's launched executions, oldest first.
    pub(super) fn launched(worker: &WorkerId, after: Option<&Cursor>, limit: u32) -> Self {
        let after = after.map_or_else(String::new, |cursor| cursor.0.to_string());
        Self::of(
            [
                (
                    "ended_at IS NULL AND line IS NULL AND pump = ?",
                    Some(worker.to_string()),
                ),
                ("id > ?", Some(after)),
            ],
            "id",
            limit,
        )
    }

    fn of<const N: usize>(
        conditions: [(&str, Option<String>); N],
        order: &str,
        limit: u32,
    ) -> Self {
        let (texts, mut values): (Vec<_>, Vec<_>) = conditions
            .into_iter()
            .filter_map(|(text, value)| Some((text, Value::Text(value?))))
            .unzip();
        let condition = if texts.is_empty() {
            String::new()
        } else {
            format!("WHERE {}", texts.join(" AND "))
        };
        values.push(Value::Integer(i64::from(limit) + 1));
        Self {
            sql: format!("SELECT id, record FROM executions {condition} ORDER BY {order} LIMIT ?"),
            values,
        }
    }

    pub(super) fn run(self, db: &Connection) -> rusqlite::Result<Vec<Raw>> {
        db.prepare_cached(&self.sql)?
            .query_map(params_from_iter(self.values), Raw::of)?
            .collect()
    }
}

/// The unfinished executions of a worker, at most `most`; `None` if it has an open task.
pub(super) fn unfinished(
    db: &Connection,
    worker: &WorkerId,
    most: usize,
) -> rusqlite::Result<Option<Vec<Raw>>> {
    let mut open =
        db.prepare_cached("SELECT EXISTS (SELECT 1 FROM tasks WHERE open AND pump = ?1)")?;
    if open.query_row([worker.as_str()], |row| row.get(0))? {
        return Ok(None);
    }
    db.prepare_cached(
        "SELECT id, record FROM executions WHERE ended_at IS NULL AND pump = ?1 LIMIT ?2",
    )?
    .query_map(
        params![worker.as_str(), i64::try_from(most).unwrap_or(i64::MAX)],
        Raw::of,
    )?
    .collect::<rusqlite::Result<_>>()
    .map(Some)
}

/// Filters by principal if the filter has one, because several principals may have had the same
/// name.
fn by(filter: &Filter) -> (&'static str, Option<String>) {
    match &filter.by_id {
        Some(principal) => ("submitter = ?", Some(principal.to_string())),
        None => ("by_name = ?", filter.by.clone()),
    }
}

/// Entries of a backlog match both of their statuses (see [`Filter::status`]).
fn status_is(status: Option<&ExecutionStatus>) -> (&'static str, Option<String>) {
    match status {
        Some(ExecutionStatus::Queued | ExecutionStatus::Waiting) => (
            "status IN (?, 'WAITING')",
            Some(ExecutionStatus::Queued.as_str().to_owned()),
        ),
        other => ("status = ?", other.map(|status| status.as_str().to_owned())),
    }
}

/// The first whole millisecond at or after this time, because ids carry no finer time.
fn first_milli(since: Timestamp) -> Timestamp {
    let floor = moment(millis(since));
    if floor < since {
        moment(millis(since) + 1)
    } else {
        floor
    }
}
