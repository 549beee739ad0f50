//! The backlogs: which entry is next, and how many entries are ahead of another.
//!
//! The order is that of [`fair::order`], over start-time-fair tags. A submitter's k-th entry has
//! the tag `begins + k`. A submitter begins at its own virtual time or at the backlog's, whichever
//! is later, so a new submitter has no credit for the past.

use std::collections::BTreeMap;

use domain::{
    execution::BacklogEntry,
    limit::{BacklogSize, LimitKey},
    scheduler::fair,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::columns;
use crate::database::{WorkerId, count, moment};

/// The most entries of one submitter that are counted to find a position. A position beyond that is
/// estimated from below. The limit bounds the cost of an answer to about a millisecond, however
/// long the backlog is.
pub(super) const COUNT_MAX: u32 = 10_000;

/// One worker's backlog for a limit.
pub(super) struct BacklogRows {
    pub(super) key: LimitKey,
    pub(super) worker: WorkerId,
}

/// A submitter, and the tag of its first entry.
struct RowTurn {
    submitter: String,
    begins: u64,
}

struct Row {
    id: String,
    submitter: String,
    priority: i32,
    submitted_at: i64,
    not_before: Option<i64>,
}

/// Entries as the file has them: enough of them to find the first of the backlog.
pub(super) struct Rows {
    key: LimitKey,
    rows: Vec<Row>,
    begins: BTreeMap<String, u64>,
}

impl Rows {
    /// The first `limit` entries, in order.
    pub(super) fn order(self, limit: u32) -> Vec<BacklogEntry> {
        let entries = self
            .rows
            .into_iter()
            .filter_map(|row| row.backlog_entry(&self.key))
            .collect();
        let mut ordered = fair::order(entries, &self.begins);
        ordered.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        ordered
    }
}

impl Row {
    /// Returns `None` for a row with an invalid id.
    fn backlog_entry(self, backlog: &LimitKey) -> Option<BacklogEntry> {
        let id = columns::id(&self.id)
            .inspect_err(|error| tracing::error!(%error, "a backlog entry is skipped"))
            .ok()?;
        Some(BacklogEntry {
            id,
            backlog: backlog.clone(),
            submitter: self.submitter,
            priority: self.priority,
            submitted_at: moment(self.submitted_at),
            not_before: self.not_before.map(moment),
        })
    }
}

impl BacklogRows {
    /// Returns each submitter's first due entries, for as many submitters as it takes to find the
    /// first `limit` entries of the backlog.
    pub(super) fn rows(self, db: &Connection, now: i64, limit: u32) -> rusqlite::Result<Rows> {
        let snapshot = db.unchecked_transaction()?;
        let mut turns = turns(&snapshot, &self.key.to_string(), &self.worker)?;
        turns.sort_by_key(|turn| turn.begins);
        let (mut rows, mut tags) = (Vec::new(), Vec::new());
        for turn in &turns {
            // Later submitters only have larger tags. Once `limit` tags are smaller, the result is
            // settled.
            let settled = tags.iter().filter(|tag| **tag < turn.begins).count();
            if settled >= usize::try_from(limit).unwrap_or(usize::MAX) {
                break;
            }
            let own = self.due(&snapshot, &turn.submitter, now, limit)?;
            tags.extend((turn.begins..).take(own.len()));
            rows.extend(own);
        }
        let begins = turns
            .into_iter()
            .map(|turn| (turn.submitter, turn.begins))
            .collect();
        Ok(Rows {
            key: self.key,
            rows,
            begins,
        })
    }

    fn due(
        &self,
        db: &Connection,
        submitter: &str,
        now: i64,
        limit: u32,
    ) -> rusqlite::Result<Vec<Row>> {
        db.prepare_cached(
            "SELECT id, priority, submitted_at, not_before FROM executions INDEXED BY executions_line
             WHERE line = ?1 AND pump = ?2 AND submitter = ?3 AND (not_before IS NULL OR not_before <= ?4)
             ORDER BY priority DESC, submitted_at, id LIMIT ?5",
        )?
        .query_map(params![self.key.to_string(), self.worker.as_str(), submitter, now, limit], |row| {
            Ok(Row {
                id: row.get(0)?,
                submitter: submitter.to_owned(),
                priority: row.get(1)?,
                submitted_at: row.get(2)?,
                not_before: row.get(3)?,
            })
        })?
        .collect()
    }
}

/// The submitters that have entries in a backlog. The query jumps from name to name in the index,
/// so ten thousand entries of one submitter cost as much as one entry.
fn turns(db: &Connection, backlog: &str, worker: &WorkerId) -> rusqlite::Result<Vec<RowTurn>> {
    let reached = reached(db, backlog, worker.as_str())?;
    db.prepare_cached(
        "WITH RECURSIVE names (name) AS (
             SELECT min(submitter) FROM executions WHERE line = ?1 AND pump = ?2
             UNION ALL
             SELECT (SELECT min(submitter) FROM executions WHERE line = ?1 AND pump = ?2 AND submitter > name)
             FROM names WHERE name IS NOT NULL
         )
         SELECT name, served FROM names LEFT JOIN shares ON line = ?1 AND pump = ?2 AND submitter = name WHERE name IS NOT NULL",
    )?
    .query_map([backlog, worker.as_str()], |row| {
        let served: Option<i64> = row.get(1)?;
        Ok(RowTurn { submitter: row.get(0)?, begins: reached.max(count(served.unwrap_or_default())) })
    })?
    .collect()
}

/// The virtual time of a backlog: the tag at which the latest start began.
pub(super) fn reached(db: &Connection, backlog: &str, worker: &str) -> rusqlite::Result<u64> {
    let reached = db
        .prepare_cached("SELECT reached FROM line_times WHERE line = ?1 AND pump = ?2")?
        .query_row([backlog, worker], |row| row.get(0))
        .optional()?;
    Ok(count(reached.unwrap_or_default()))
}

/// The worker that owns the oldest entry of a backlog that can be started; `None` if no entry is
/// due.
pub(crate) fn owner_of_head(
    db: &Connection,
    backlog: &str,
    now: i64,
) -> rusqlite::Result<Option<String>> {
    db.prepare_cached(
        "SELECT pump FROM executions INDEXED BY executions_oldest
         WHERE line = ?1 AND (not_before IS NULL OR not_before <= ?2) ORDER BY id LIMIT 1",
    )?
    .query_row(params![backlog, now], |row| row.get(0))
    .optional()
}

/// The backlogs of a worker that have a due entry.
pub(super) fn backlogs(
    db: &Connection,
    worker: &WorkerId,
    now: i64,
) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached(
        "WITH RECURSIVE lines (key) AS (
             SELECT min(line) FROM executions WHERE line IS NOT NULL
             UNION ALL
             SELECT (SELECT min(line) FROM executions WHERE line > key) FROM lines WHERE key IS NOT NULL
         )
         SELECT key FROM lines WHERE key IS NOT NULL AND EXISTS (
             SELECT 1 FROM executions INDEXED BY executions_line
             WHERE line = key AND pump = ?1 AND (not_before IS NULL OR not_before <= ?2))",
    )?
    .query_map(params![worker.as_str(), now], |row| row.get(0))?
    .collect()
}

/// The size of a backlog as the file has it.
pub(super) struct SizeRow {
    backlog: String,
    entries: i64,
    oldest: i64,
}

impl SizeRow {
    /// The size; `None` for a backlog whose name cannot be read.
    pub(super) fn size(self) -> Option<BacklogSize> {
        Some(BacklogSize {
            key: columns::limit_key(&self.backlog)?,
            entries: count(self.entries),
            oldest: moment(self.oldest),
        })
    }
}

/// The sizes of the backlogs of all workers.
pub(super) fn sizes(db: &Connection) -> rusqlite::Result<Vec<SizeRow>> {
    db.prepare_cached(
        "SELECT line, count(*), min(submitted_at) FROM executions WHERE line IS NOT NULL GROUP BY line",
    )?
    .query_map([], |row| {
        Ok(SizeRow {
            backlog: row.get(0)?,
            entries: row.get(1)?,
            oldest: row.get(2)?,
        })
    })?
    .collect()
}

/// How many entries of a backlog come before this one. It counts index entries, and of each
/// submitter at most [`COUNT_MAX`], or `exact` if that is more.
pub(super) fn ahead(
    db: &Connection,
    entry: &BacklogEntry,
    own: &WorkerId,
    exact: u32,
) -> rusqlite::Result<u32> {
    let snapshot = db.unchecked_transaction()?;
    let owner: Option<String> = snapshot
        .prepare_cached("SELECT pump FROM executions WHERE id = ?1")?
        .query_row([entry.id.as_str()], |row| row.get(0))
        .optional()?;
    let counting = RowCount {
        db: &snapshot,
        backlog: entry.backlog.to_string(),
        worker: owner.map_or_else(|| own.clone(), WorkerId::from),
        max: i64::from(exact.max(COUNT_MAX)),
        entry,
    };
    counting.all()
}

struct RowCount<'a> {
    db: &'a Connection,
    backlog: String,
    worker: WorkerId,
    max: i64,
    entry: &'a BacklogEntry,
}

impl RowCount<'_> {
    fn all(&self) -> rusqlite::Result<u32> {
        let turns = turns(self.db, &self.backlog, &self.worker)?;
        let before = self.of_the_same()?;
        let begins = turns
            .iter()
            .find(|turn| turn.submitter == self.entry.submitter)
            .map_or(0, |turn| turn.begins);
        let tag = begins + count::<u64>(before);
        let others = turns
            .iter()
            .filter(|turn| turn.submitter != self.entry.submitter);
        let others: i64 = others
            .map(|turn| self.of_another(turn, tag))
            .sum::<rusqlite::Result<_>>()?;
        Ok(count(before + others))
    }

    /// Counts the submitter's own entries before this one.
    fn of_the_same(&self) -> rusqlite::Result<i64> {
        let BacklogEntry {
            submitter,
            priority,
            submitted_at,
            id,
            ..
        } = self.entry;
        let more_urgent = self
            .db
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM executions INDEXED BY executions_line
                 WHERE line = ?1 AND pump = ?2 AND submitter = ?3 AND priority > ?4 LIMIT ?5)",
            )?
            .query_row(
                params![
                    self.backlog,
                    self.worker.as_str(),
                    submitter,
                    priority,
                    self.max
                ],
                |row| row.get::<_, i64>(0),
            )?;
        let older: i64 = self
            .db
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM executions INDEXED BY executions_line
                 WHERE line = ?1 AND pump = ?2 AND submitter = ?3 AND priority = ?4 AND (submitted_at, id) < (?5, ?6) LIMIT ?7)",
            )?
            .query_row(
                params![self.backlog, self.worker.as_str(), submitter, priority, submitted_at.timestamp_millis(), id.as_str(), self.max - more_urgent],
                |row| row.get(0),
            )?;
        Ok(more_urgent + older)
    }

    /// Counts another submitter's entries with a smaller tag, and its entry with the same tag if
    /// that one comes first.
    fn of_another(&self, turn: &RowTurn, tag: u64) -> rusqlite::Result<i64> {
        let Some(smaller) = tag.checked_sub(turn.begins) else {
            return Ok(0);
        };
        let smaller = crate::database::integer(smaller).min(self.max);
        let counted: i64 = self
            .db
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM executions INDEXED BY executions_line
                 WHERE line = ?1 AND pump = ?2 AND submitter = ?3 LIMIT ?4)",
            )?
            .query_row(
                params![self.backlog, self.worker.as_str(), turn.submitter, smaller],
                |row| row.get(0),
            )?;
        if counted < smaller {
            return Ok(counted);
        }
        Ok(counted + i64::from(self.tie_comes_first(turn, smaller)?))
    }

    fn tie_comes_first(&self, turn: &RowTurn, place: i64) -> rusqlite::Result<bool> {
        let tie = self
            .db
            .prepare_cached(
                "SELECT priority, submitted_at, id FROM executions INDEXED BY executions_line
                 WHERE line = ?1 AND pump = ?2 AND submitter = ?3
                 ORDER BY priority DESC, submitted_at, id LIMIT 1 OFFSET ?4",
            )?
            .query_row(
                params![self.backlog, self.worker.as_str(), turn.submitter, place],
                |row| {
                    Ok((
                        std::cmp::Reverse(row.get::<_, i32>(0)?),
                        row.get::<_, i64>(1)?,
                        row.get::<_, String>(2)?,
                    ))
                },
            )
            .optional()?;
        let BacklogEntry {
            priority,
            submitted_at,
            id,
            ..
        } = self.entry;
        Ok(tie.is_some_and(|tie| {
            tie < (
                std::cmp::Reverse(*priority),
                submitted_at.timestamp_millis(),
                id.to_string(),
            )
        }))
    }
}
