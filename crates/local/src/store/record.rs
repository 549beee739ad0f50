//! Writes one record, with everything that is derived from it, in one transaction.

use std::collections::BTreeMap;

use domain::{
    Timestamp,
    ecs::TaskId,
    execution::{BacklogEntry, Execution},
    id::ExecutionId,
    limit::{Admission, Allocation, LimitKey},
    ports::{Claim, Created, PortError},
    scheduler::fair,
    statistics::RunEnd,
};
use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::{
    columns::{self, Raw},
    limits, statistics,
};
use crate::{
    database::{WorkerId, count, integer, millis},
    form,
};

/// The columns that change with a record.
struct Row {
    id: String,
    revision: i64,
    status: String,
    ended_at: Option<i64>,
    backlog: Option<String>,
    not_before: Option<i64>,
    record: String,
}

impl Row {
    fn of(execution: &Execution) -> Result<Self, PortError> {
        let backlog_entry = execution.backlog_entry();
        Ok(Self {
            id: execution.id.to_string(),
            revision: integer(execution.revision),
            status: execution.status().into(),
            ended_at: execution.end().map(|end| millis(end.at)),
            backlog: backlog_entry
                .as_ref()
                .map(|backlog_entry| backlog_entry.backlog.to_string()),
            not_before: backlog_entry
                .and_then(|backlog_entry| backlog_entry.not_before)
                .map(millis),
            record: form::json(execution, &execution.unknown)?,
        })
    }
}

/// A new execution, and the columns that never change.
pub(super) struct New {
    row: Row,
    submitter: String,
    by_name: String,
    group: Option<String>,
    submitted_at: Timestamp,
    priority: i32,
    task_ids: Vec<TaskId>,
    usage: BTreeMap<String, i64>,
    /// The end of the run, if it is recorded as ended: a member of a cancelled group is.
    end: Option<RunEnd>,
}

impl New {
    pub(super) fn of(execution: &Execution) -> Result<Self, PortError> {
        Ok(Self {
            row: Row::of(execution)?,
            submitter: execution.submitter(),
            by_name: execution.submitted_by.clone(),
            group: execution.request.group.as_ref().map(ToString::to_string),
            submitted_at: execution.submitted_at,
            priority: execution.request.priority,
            task_ids: task_ids(execution).collect(),
            usage: difference(&[], &execution.allocations()),
            end: RunEnd::of(execution),
        })
    }
}

/// The result of a creation, with the id as the file has it.
pub(super) enum Came {
    New,
    Existing(String),
    Mismatch(String),
}

impl Came {
    pub(super) fn checked(self) -> Result<Created, PortError> {
        Ok(match self {
            Self::New => Created::New,
            Self::Existing(id) => Created::Existing(columns::id(&id)?),
            Self::Mismatch(id) => Created::Mismatch(columns::id(&id)?),
        })
    }
}

pub(super) fn create(
    db: &Connection,
    new: &New,
    claim: Option<&Claim>,
    worker: &WorkerId,
) -> rusqlite::Result<Came> {
    if exists(db, &new.row.id)? {
        return Ok(Came::Existing(new.row.id.clone()));
    }
    if let Some(claim) = claim
        && let Some((digest, holder)) = holder(db, claim, new.submitted_at)?
    {
        return Ok(if digest == claim.digest {
            Came::Existing(holder)
        } else {
            Came::Mismatch(holder)
        });
    }
    insert(db, new, worker)?;
    // A worker that owns something must be registered, or no process would take it over after a
    // crash.
    crate::database::register(db, worker)?;
    if let Some(claim) = claim {
        hold(db, claim, &new.row.id)?;
    }
    note_task_ids(db, &new.row.id, &new.task_ids)?;
    limits::change(db, &new.usage)?;
    if let Some(end) = &new.end {
        statistics::count(db, end)?;
    }
    Ok(Came::New)
}

fn exists(db: &Connection, id: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM executions WHERE id = ?1")?
        .exists([id])
}

/// The digest and the execution of this claim, if it is held.
fn holder(
    db: &Connection,
    claim: &Claim,
    now: Timestamp,
) -> rusqlite::Result<Option<(String, String)>> {
    db.prepare_cached("SELECT digest, execution FROM claims WHERE key = ?1 AND expires_at > ?2")?
        .query_row(params![claim.key, millis(now)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
}

fn hold(db: &Connection, claim: &Claim, id: &str) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO claims (key, digest, execution, expires_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![claim.key, claim.digest, id, millis(claim.expires_at)])
        .map(drop)
}

fn insert(db: &Connection, new: &New, worker: &WorkerId) -> rusqlite::Result<()> {
    let reversed: String = new.row.id.chars().rev().collect();
    db.prepare_cached(
        "INSERT INTO executions (id, revision, pump, status, ended_at, submitter, by_name, grp, submitted_at, priority, reversed, line, not_before, record)
         VALUES (:id, :revision, :pump, :status, :ended_at, :submitter, :by_name, :grp, :submitted_at, :priority, :reversed, :line, :not_before, :record)",
    )?
    .execute(named_params! {
        ":id": new.row.id,
        ":revision": new.row.revision,
        ":pump": worker.as_str(),
        ":status": new.row.status,
        ":ended_at": new.row.ended_at,
        ":submitter": new.submitter,
        ":by_name": new.by_name,
        ":grp": new.group,
        ":submitted_at": millis(new.submitted_at),
        ":priority": new.priority,
        ":reversed": reversed,
        ":line": new.row.backlog,
        ":not_before": new.row.not_before,
        ":record": new.row.record,
    })
    .map(drop)
}

pub(super) fn load(db: &Connection, id: &ExecutionId) -> rusqlite::Result<Option<Raw>> {
    db.prepare_cached("SELECT id, record FROM executions WHERE id = ?1")?
        .query_row([id.as_str()], Raw::of)
        .optional()
}

/// A record's next version, with everything that is derived from it.
pub(super) struct RecordChange {
    row: Row,
    from_revision: i64,
    /// Status and backlog entry are as before, so no index changes.
    only_record: bool,
    task_ids: Vec<TaskId>,
    usage: BTreeMap<String, i64>,
    admissions: Vec<Admission>,
    /// The entry that this start uses up, in each backlog that it passed.
    started: Vec<BacklogEntry>,
    /// The end of the run, if this change ends it.
    end: Option<RunEnd>,
}

impl RecordChange {
    pub(super) fn between(
        before: &Execution,
        after: &Execution,
        admissions: &[Admission],
    ) -> Result<Self, PortError> {
        let (held, holds) = (before.allocations(), after.allocations());
        let starts = holds
            .iter()
            .any(|allocation| matches!(allocation.key, LimitKey::Pool(_)));
        let known: Vec<_> = task_ids(before).collect();
        Ok(Self {
            row: Row::of(after)?,
            from_revision: integer(before.revision),
            only_record: before.status() == after.status()
                && before.backlog_entry() == after.backlog_entry(),
            end: RunEnd::of(after).filter(|_| before.end().is_none()),
            task_ids: task_ids(after)
                .filter(|task_id| !known.contains(task_id))
                .collect(),
            usage: difference(&held, &holds),
            admissions: admissions.to_vec(),
            started: before.backlog_entry().filter(|_| starts).map_or_else(
                Vec::new,
                |backlog_entry| {
                    after
                        .started_from()
                        .map(|backlog| BacklogEntry {
                            backlog,
                            ..backlog_entry.clone()
                        })
                        .collect()
                },
            ),
        })
    }
}

/// The result of an update.
pub(super) enum WriteVerdict {
    Written,
    Conflict,
    Full(LimitKey),
}

/// Checks everything before it writes anything, so a refusal leaves nothing behind.
pub(super) fn update(db: &Connection, change: &RecordChange) -> rusqlite::Result<WriteVerdict> {
    let Some(worker) = owner_at(db, change)? else {
        return Ok(WriteVerdict::Conflict);
    };
    if let Some(full) = limits::first_full(db, &change.admissions, &change.usage)? {
        return Ok(WriteVerdict::Full(full));
    }
    write(db, change)?;
    note_task_ids(db, &change.row.id, &change.task_ids)?;
    limits::change(db, &change.usage)?;
    for backlog_entry in &change.started {
        charge(db, backlog_entry, &worker)?;
    }
    if let Some(end) = &change.end {
        statistics::count(db, end)?;
    }
    Ok(WriteVerdict::Written)
}

/// The worker that owns the record, if the record still has the revision that was read.
fn owner_at(db: &Connection, change: &RecordChange) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT pump FROM executions WHERE id = ?1 AND revision = ?2")?
        .query_row(params![change.row.id, change.from_revision], |row| {
            row.get(0)
        })
        .optional()
}

fn write(db: &Connection, change: &RecordChange) -> rusqlite::Result<()> {
    let row = &change.row;
    if change.only_record {
        return db
            .prepare_cached("UPDATE executions SET revision = ?2, record = ?3 WHERE id = ?1")?
            .execute(params![row.id, row.revision, row.record])
            .map(drop);
    }
    db.prepare_cached(
        "UPDATE executions SET revision = ?2, status = ?3, ended_at = ?4, line = ?5, not_before = ?6, record = ?7 WHERE id = ?1",
    )?
    .execute(params![row.id, row.revision, row.status, row.ended_at, row.backlog, row.not_before, row.record])
    .map(drop)
}

fn note_task_ids(db: &Connection, id: &str, task_ids: &[TaskId]) -> rusqlite::Result<()> {
    for task_id in task_ids {
        db.prepare_cached("INSERT OR REPLACE INTO task_ids (task_id, execution) VALUES (?1, ?2)")?
            .execute([task_id.as_str(), id])?;
    }
    Ok(())
}

fn task_ids(execution: &Execution) -> impl Iterator<Item = TaskId> {
    execution
        .attempts
        .iter()
        .filter_map(|attempt| Some(attempt.task_arn.as_ref()?.id()))
}

/// The change in each limit's usage.
fn difference(before: &[Allocation], after: &[Allocation]) -> BTreeMap<String, i64> {
    let mut change = BTreeMap::new();
    for (allocations, sign) in [(before, -1), (after, 1)] {
        for allocation in allocations {
            *change.entry(allocation.key.to_string()).or_default() +=
                sign * i64::from(allocation.amount);
        }
    }
    change.retain(|_, difference| *difference != 0);
    change
}

/// Charges the submitter for one start out of a backlog. If the backlog is then empty, its virtual
/// times are deleted, and the next entry starts a new backlog.
fn charge(db: &Connection, backlog_entry: &BacklogEntry, worker: &str) -> rusqlite::Result<()> {
    let backlog = backlog_entry.backlog.to_string();
    let waiting = db
        .prepare_cached("SELECT 1 FROM executions WHERE line = ?1 AND pump = ?2")?
        .exists([backlog.as_str(), worker])?;
    if !waiting {
        db.prepare_cached("DELETE FROM shares WHERE line = ?1 AND pump = ?2")?
            .execute([backlog.as_str(), worker])?;
        db.prepare_cached("DELETE FROM line_times WHERE line = ?1 AND pump = ?2")?
            .execute([backlog.as_str(), worker])?;
        return Ok(());
    }
    let served: Option<i64> = db
        .prepare_cached(
            "SELECT served FROM shares WHERE line = ?1 AND pump = ?2 AND submitter = ?3",
        )?
        .query_row(params![backlog, worker, backlog_entry.submitter], |row| {
            row.get(0)
        })
        .optional()?;
    let served = fair::charge(
        count(served.unwrap_or_default()),
        super::backlog::reached(db, &backlog, worker)?,
    );
    db.prepare_cached(
        "INSERT OR REPLACE INTO shares (line, pump, submitter, served) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        backlog,
        worker,
        backlog_entry.submitter,
        integer(served)
    ])?;
    // The backlog's virtual time is now the tag of this start.
    db.prepare_cached(
        "INSERT OR REPLACE INTO line_times (line, pump, reached) VALUES (?1, ?2, ?3)",
    )?
    .execute(params![backlog, worker, integer(served.saturating_sub(1))])
    .map(drop)
}
