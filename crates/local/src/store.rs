//! The store of one machine: the ports of a store and [`Keys`] over SQLite.
//!
//! Records are converted to JSON and back outside of transactions, which other processes wait for.

use std::{ops::RangeInclusive, path::Path};

use chrono::NaiveDate;
use domain::{
    Timestamp,
    ecs::{TaskArn, TaskId},
    execution::{BacklogEntry, Execution},
    forget::Forgetting,
    group::GroupWork,
    history::{Cursor, Filter, Loaded, Page},
    id::{ExecutionId, Submission},
    key::KeyRecord,
    limit::{Admission, BacklogSize, LimitKey, RateKey, Usage},
    measure,
    ports::{
        Claim, Clock, Created, Definitions, KeyLookup, Keys, LaunchStore, PortError, ReadStore,
        SweepStore, Update, UpdateError, WriteStore,
    },
    principal::Principal,
    quota::Rate,
    request::Name,
    scheduler::state::LimitState,
    statistics::{DatedTally, Dimension, RunEnd},
};
use rusqlite::Connection;

use crate::{
    database::{self, Database, millis},
    failpoint, form,
    system::System,
};

pub(crate) mod backlog;
mod bookmark;
mod columns;
mod definitions;
mod forget;
pub(crate) mod groups;
mod history;
mod keys;
mod limit_state;
mod limits;
mod record;
pub(crate) mod statistics;
pub(crate) mod submissions;

use statistics::TallyRow;

const SERVICE: &str = "the store";
/// The most unfinished records that are read to find one that can be finished. With 64 or more, the
/// worker counts as having work: to read more would be slow, and so many unreadable records need a
/// person anyway.
const MANY: usize = 64;

/// The records of one machine, and everything that is derived from them.
///
/// All processes on the file share executions, usage, launch rates and history. They do not share
/// backlogs: each worker starts the executions that it accepted, so [`ReadStore::backlog`],
/// [`SweepStore::backlogs`] and [`SweepStore::launched`] show this worker's only.
#[derive(Clone, Debug)]
pub struct LocalStore {
    database: Database,
}

/// The latest executions in the history in this folder, newest first, without those that cannot be
/// read. This takes no part in the machine's work: it makes nothing, takes nothing over, and waits
/// for nobody. `None` if there is no history that can be read so.
#[must_use]
pub fn latest(dir: &Path, limit: u32) -> Option<Vec<Execution>> {
    let db = database::glance(&dir.join("store.sqlite"))?;
    let query = history::HistoryQuery::list(&Filter::default(), None, limit);
    let page = columns::page(&query.run(&db).ok()?, limit);
    Some(page.items.into_iter().filter_map(Result::ok).collect())
}

/// Measures the end of a run that is recorded as ended now.
fn measure_created(came: &record::Came, execution: &Execution) {
    if let (record::Came::New, Some(end)) = (came, RunEnd::of(execution)) {
        measure::record_end(&end);
    }
}

impl LocalStore {
    /// Makes a store over this file.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Removes a record that cannot be read, and releases its allocations. Conditional, in one
    /// transaction: a record that can be read stays. This does not stop a task of the record.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn forget(
        &self,
        id: &ExecutionId,
        stopped: Option<&TaskArn>,
    ) -> Result<Forgetting, PortError> {
        let (id, stopped) = (id.clone(), stopped.cloned());
        self.database
            .write(SERVICE, move |db| forget::forget(db, &id, stopped.as_ref()))
            .await
    }

    /// Whether this worker has an open task, or an execution that this release can finish.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn has_work(&self) -> Result<bool, PortError> {
        let worker = self.database.worker().clone();
        let rows = self
            .database
            .read(SERVICE, move |db| history::unfinished(db, &worker, MANY))
            .await?;
        Ok(rows.is_none_or(|rows| {
            rows.len() == MANY || rows.iter().any(columns::Raw::can_be_finished)
        }))
    }
}

impl ReadStore for LocalStore {
    async fn load(&self, id: &ExecutionId) -> Result<Option<Execution>, PortError> {
        let (id, wanted) = (id.clone(), id.clone());
        let record = self
            .database
            .read(SERVICE, move |db| record::load(db, &wanted))
            .await?;
        let loaded = record
            .map(|raw| columns::execution(id, &raw.record))
            .transpose();
        loaded.map_err(PortError::from)
    }

    async fn find(&self, fragment: &str, limit: u32) -> Result<Vec<ExecutionId>, PortError> {
        let Some(wanted) = history::WantedRows::of(fragment) else {
            return Ok(Vec::new());
        };
        let ids = self
            .database
            .read_long(SERVICE, move |db| history::find(db, &wanted, limit))
            .await?;
        Ok(ids
            .iter()
            .filter_map(|id| columns::id(id).inspect_err(PortError::note_corrupt).ok())
            .collect())
    }

    /// Newest first by id, because an id begins with the time of submission. A filter by status
    /// excludes records that cannot be read.
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        let (query, any_status) = (
            history::HistoryQuery::list(filter, after, limit),
            filter.status.is_none(),
        );
        let records = self
            .database
            .read_long(SERVICE, move |db| query.run(db))
            .await?;
        let Page { items, next } = columns::page(&records, limit);
        let is_shown = |loaded: &Loaded| {
            any_status
                || loaded
                    .as_ref()
                    .inspect_err(|corrupt| corrupt.note())
                    .is_ok()
        };
        Ok(Page {
            items: items.into_iter().filter(is_shown).collect(),
            next,
        })
    }

    async fn group_work<W: GroupWork>(&self, group: &Name) -> Result<Option<W>, PortError> {
        let (name, now) = (group.to_string(), System.now());
        let json = self
            .database
            .read(SERVICE, move |db| {
                groups::find(db, W::KIND.as_str(), &name, now)
            })
            .await?;
        json.as_deref().map(groups::parsed).transpose()
    }

    /// Counts in the backlog of the worker that owns the entry, backed-off entries included. Exact
    /// up to 10,000 entries of one submitter.
    async fn ahead(&self, entry: &BacklogEntry, exact: u32) -> Result<u32, PortError> {
        let (entry, own) = (entry.clone(), self.database.worker().clone());
        self.database
            .read(SERVICE, move |db| backlog::ahead(db, &entry, &own, exact))
            .await
    }

    async fn backlog(
        &self,
        key: &LimitKey,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<BacklogEntry>, PortError> {
        let backlog = backlog::BacklogRows {
            key: key.clone(),
            worker: self.database.worker().clone(),
        };
        let rows = self
            .database
            .read(SERVICE, move |db| backlog.rows(db, millis(now), limit))
            .await?;
        Ok(rows.order(limit))
    }

    /// Exact for backlogs of any length, of all workers.
    async fn backlog_sizes(&self, _most: u32) -> Result<Vec<BacklogSize>, PortError> {
        let rows = self.database.read(SERVICE, backlog::sizes).await?;
        let sizes = rows.into_iter().filter_map(backlog::SizeRow::size);
        Ok(sizes.collect())
    }

    async fn limit_state(&self, key: &LimitKey) -> Result<LimitState, PortError> {
        let (key, worker) = (key.to_string(), self.database.worker().clone());
        let row = self
            .database
            .read(SERVICE, move |db| limit_state::find(db, &key, &worker))
            .await?;
        Ok(row
            .as_ref()
            .map(limit_state::Row::state)
            .unwrap_or_default())
    }

    async fn usage(&self, key: &LimitKey) -> Result<Usage, PortError> {
        let key = key.to_string();
        self.database
            .read(SERVICE, move |db| limits::usage(db, &key))
            .await
    }

    /// Complete: an end is counted as it is recorded.
    async fn tallies(
        &self,
        dimension: Dimension,
        days: RangeInclusive<NaiveDate>,
    ) -> Result<Vec<DatedTally>, PortError> {
        let (from, to) = days.into_inner();
        let rows = self
            .database
            .read_long(SERVICE, move |db| {
                statistics::tallies(db, dimension, from, to)
            })
            .await?;
        Ok(rows.into_iter().filter_map(TallyRow::read).collect())
    }
}

impl WriteStore for LocalStore {
    /// Idempotent. A claim counts as expired if it had expired when the new execution was
    /// submitted.
    async fn create(
        &self,
        execution: &Execution,
        claim: Option<&Claim>,
    ) -> Result<Created, PortError> {
        let (new, claim) = (record::New::of(execution)?, claim.cloned());
        let worker = self.database.worker().clone();
        failpoint!("store.create.before");
        let created = self
            .database
            .write(SERVICE, move |db| {
                record::create(db, &new, claim.as_ref(), &worker)
            })
            .await?;
        failpoint!("store.create.after");
        measure_created(&created, execution);
        created.checked()
    }

    /// Idempotent. Creates all of them in one transaction.
    async fn create_all(&self, executions: Vec<Execution>) -> Result<Vec<Created>, PortError> {
        let new = executions
            .iter()
            .map(record::New::of)
            .collect::<Result<Vec<_>, _>>()?;
        let worker = self.database.worker().clone();
        let write = move |db: &Connection| {
            new.iter()
                .map(|new| record::create(db, new, None, &worker))
                .collect()
        };
        failpoint!("store.create_all.before");
        let created: Vec<record::Came> = self.database.write(SERVICE, write).await?;
        failpoint!("store.create_all.after");
        for (came, execution) in created.iter().zip(&executions) {
            measure_created(came, execution);
        }
        created.into_iter().map(record::Came::checked).collect()
    }

    /// Conditional, in one transaction.
    async fn open_submission(
        &self,
        by: &Principal,
        id: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Submission, PortError> {
        let (by, id) = (by.to_string(), id.to_owned());
        failpoint!("store.open_submission.before");
        let open = move |db: &Connection| submissions::open(db, &by, &id, now, expires_at);
        let submission = self.database.write(SERVICE, open).await?;
        failpoint!("store.open_submission.after");
        Ok(submission)
    }

    /// Conditional on the revision and the admissions.
    async fn update(
        &self,
        before: &Execution,
        after: Execution,
        admissions: &[Admission],
    ) -> Result<Execution, UpdateError> {
        let written = Execution {
            revision: before.revision + 1,
            ..after
        };
        let change = record::RecordChange::between(before, &written, admissions)?;
        failpoint!("store.update.before");
        let verdict = self
            .database
            .write(SERVICE, move |db| record::update(db, &change))
            .await?;
        failpoint!("store.update.after");
        match verdict {
            record::WriteVerdict::Written => {
                let end = RunEnd::of(&written).filter(|_| before.end().is_none());
                end.iter().for_each(measure::record_end);
                Ok(written)
            }
            record::WriteVerdict::Conflict => Err(UpdateError::Conflict),
            record::WriteVerdict::Full(key) => Err(UpdateError::Full(key)),
        }
    }

    /// All updates are asked for at the same moment, so they share a transaction.
    async fn update_all(&self, updates: Vec<Update>) -> Vec<Result<Execution, UpdateError>> {
        let update = async |Update {
                                before,
                                after,
                                admissions,
                            }| self.update(&before, after, &admissions).await;
        futures_util::future::join_all(updates.into_iter().map(update)).await
    }

    /// Conditional on the revision.
    async fn set_group_work<W: GroupWork>(&self, work: &W) -> Result<bool, PortError> {
        let (next, now) = (groups::Next::of(work)?, System.now());
        failpoint!("store.set_group_work.before");
        let set = self
            .database
            .write(SERVICE, move |db| groups::set(db, &next, now))
            .await?;
        failpoint!("store.set_group_work.after");
        Ok(set)
    }

    /// Looks at all workers' entries. Workers share a limit, and an entry that waits for it may
    /// belong to another worker.
    async fn has_backlog(&self, key: &LimitKey, now: Timestamp) -> Result<bool, PortError> {
        let key = key.to_string();
        self.database
            .read(SERVICE, move |db| {
                backlog::owner_of_head(db, &key, millis(now))
            })
            .await
            .map(|head| head.is_some())
    }
}

impl LaunchStore for LocalStore {
    /// Conditional on the revision.
    async fn set_limit_state(
        &self,
        key: &LimitKey,
        before: &LimitState,
        after: LimitState,
    ) -> Result<bool, PortError> {
        let after = LimitState {
            revision: before.revision + 1,
            ..after
        };
        let (next, worker) = (
            limit_state::Next::of(key, before, &after)?,
            self.database.worker().clone(),
        );
        failpoint!("store.set_limit_state.before");
        let set = self
            .database
            .write(SERVICE, move |db| limit_state::set(db, &next, &worker))
            .await?;
        failpoint!("store.set_limit_state.after");
        Ok(set)
    }

    /// Conditional: two callers together never take more than the bucket holds.
    async fn take_tokens(
        &self,
        key: RateKey,
        rate: Rate,
        want: u32,
        now: Timestamp,
    ) -> Result<(u32, u64), PortError> {
        failpoint!("store.take_tokens.before");
        let taken = self
            .database
            .write(SERVICE, move |db| {
                limits::take_tokens(db, key, rate, want, now)
            })
            .await?;
        failpoint!("store.take_tokens.after");
        Ok(taken)
    }
}

impl SweepStore for LocalStore {
    type Survey = ();

    async fn of_task(&self, task: &TaskId) -> Result<Option<ExecutionId>, PortError> {
        let task = task.clone();
        let id = self
            .database
            .read(SERVICE, move |db| history::of_task(db, &task))
            .await?;
        id.map(|id| columns::id(&id)).transpose()
    }

    /// Returns this worker's launched executions, oldest first.
    async fn launched(
        &self,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        let query = history::HistoryQuery::launched(self.database.worker(), after, limit);
        let records = self.database.read(SERVICE, move |db| query.run(db)).await?;
        Ok(columns::page(&records, limit))
    }

    async fn backlogs(&self, now: Timestamp) -> Result<Vec<LimitKey>, PortError> {
        let worker = self.database.worker().clone();
        let keys = self
            .database
            .read(SERVICE, move |db| {
                backlog::backlogs(db, &worker, millis(now))
            })
            .await?;
        Ok(keys
            .iter()
            .filter_map(|key| columns::limit_key(key))
            .collect())
    }

    async fn open_group_work<W: GroupWork>(&self) -> Result<Vec<W>, PortError> {
        let now = System.now();
        let rows = self
            .database
            .read(SERVICE, move |db| groups::open(db, W::KIND.as_str(), now))
            .await?;
        let readable = rows.iter().filter_map(|json| {
            groups::parsed(json)
                .inspect_err(PortError::note_corrupt)
                .ok()
        });
        Ok(readable.collect())
    }

    /// Does nothing. Usage changes in the same transaction as the record, so the two cannot differ.
    async fn reconcile(&self, (): ()) -> Result<(), PortError> {
        Ok(())
    }

    async fn bookmark(&self) -> Result<Option<Cursor>, PortError> {
        let bookmark = self.database.read(SERVICE, bookmark::read).await?;
        // If the bookmark cannot be read, the next sweep starts from the beginning.
        Ok(bookmark.and_then(|id| id.parse().ok()).map(Cursor))
    }

    async fn set_bookmark(&self, at: Option<&Cursor>) -> Result<(), PortError> {
        let at = at.map(|cursor| cursor.0.to_string());
        self.database
            .write(SERVICE, move |db| bookmark::write(db, at.as_deref()))
            .await
    }
}

impl Definitions for LocalStore {
    async fn definition(&self, hash: &str) -> Result<Option<String>, PortError> {
        let hash = hash.to_owned();
        self.database
            .read(SERVICE, move |db| definitions::find(db, &hash))
            .await
    }

    /// Conditional: fails while another caller's claim holds.
    async fn claim_definition(
        &self,
        hash: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, PortError> {
        let hash = hash.to_owned();
        self.database
            .write(SERVICE, move |db| {
                definitions::claim(db, &hash, millis(now), millis(until))
            })
            .await
    }

    /// Idempotent.
    async fn keep_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        let (hash, arn) = (hash.to_owned(), arn.to_owned());
        failpoint!("store.keep_definition.before");
        self.database
            .write(SERVICE, move |db| definitions::keep(db, &hash, &arn))
            .await
    }

    /// Idempotent.
    async fn forget_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        let (hash, arn) = (hash.to_owned(), arn.to_owned());
        self.database
            .write(SERVICE, move |db| definitions::forget(db, &hash, &arn))
            .await
    }
}

impl KeyLookup for LocalStore {
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, PortError> {
        let id = id.to_owned();
        let record = self
            .database
            .read(SERVICE, move |db| keys::find(db, &id))
            .await?;
        record.as_deref().map(keys::record).transpose()
    }
}

impl Keys for LocalStore {
    async fn list_keys(&self) -> Result<Vec<KeyRecord>, PortError> {
        let records = self.database.read(SERVICE, keys::list).await?;
        let readable = |record: &String| {
            keys::record(record)
                .inspect_err(PortError::note_corrupt)
                .ok()
        };
        Ok(records.iter().filter_map(readable).collect())
    }

    /// Conditional on the name and on the id being free.
    async fn add_key(&self, key: &KeyRecord) -> Result<bool, PortError> {
        let (key, json) = (key.clone(), form::json(key, &key.unknown)?);
        failpoint!("store.add_key.before");
        let added = self
            .database
            .write(SERVICE, move |db| keys::add(db, &key, &json))
            .await?;
        failpoint!("store.add_key.after");
        Ok(added)
    }

    /// Conditional on `old` being the current key of its name.
    async fn rotate_key(&self, old: &KeyRecord, new: &KeyRecord) -> Result<bool, PortError> {
        let rotation = keys::KeyRotation::of(old, new)?;
        failpoint!("store.rotate_key.before");
        let rotated = self
            .database
            .write(SERVICE, move |db| keys::rotate(db, &rotation))
            .await?;
        failpoint!("store.rotate_key.after");
        Ok(rotated)
    }

    /// Idempotent.
    async fn remove_key(&self, name: &str) -> Result<bool, PortError> {
        let name = name.to_owned();
        failpoint!("store.remove_key.before");
        let removed = self
            .database
            .write(SERVICE, move |db| keys::remove(db, &name))
            .await?;
        failpoint!("store.remove_key.after");
        Ok(removed)
    }
}
