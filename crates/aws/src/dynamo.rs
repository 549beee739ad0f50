//! The records of a stack: the ports of a store, [`Keys`](domain::ports::Keys),
//! [`Definitions`](domain::ports::Definitions) and [`Secrets`](domain::ports::Secrets) over one
//! DynamoDB table. Each method of a port is in the module of its subject.
//!
//! docs/internals/storage.md has the table's design: which item serves which question, and at what
//! cost. Two rules hold for all of it. No question is answered by a scan. Nothing that is written
//! for every run goes to one constant partition.
//!
//! On AWS an index lags behind the table by some milliseconds (an emulator has no such delay). So
//! an index only says where to look: the record itself is read before anything is decided or shown.
//! The launcher skips a backlog entry that an index still shows after its launch. A backlog entry
//! that the index does not show yet waits for the next wakeup of its backlog, or for the sweep.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use chrono::{NaiveDate, SubsecRound, TimeDelta, Utc};
use domain::{
    Timestamp,
    ecs::TaskId,
    execution::{BacklogEntry, Execution},
    group::GroupWork,
    history::{Cursor, Filter, Loaded, Page},
    id::{ExecutionId, Submission},
    limit::{Admission, BacklogSize, LimitKey, RateKey, Usage},
    ports::{
        Claim, Created, LaunchStore, PortError, ReadStore, StatisticsStore, SweepStore, Update,
        UpdateError, WriteStore,
    },
    principal::Principal,
    quota::Rate,
    request::Name,
    scheduler::state::LimitState,
    statistics::{DatedTally, DayStatistics, Dimension, RunEnd},
};

mod backlog;
mod batch;
mod definitions;
mod directory;
mod drift;
mod find;
mod forget;
mod groups;
mod history;
mod input;
mod item;
mod keys;
mod launch_batches;
mod limit_state;
mod limits;
mod memory;
mod record;
mod request;
mod secrets;
mod state;
mod statistics;
mod submission;
mod sweep;
mod table;
mod uploads;

pub use drift::Survey;
pub use item::Item;
pub use launch_batches::LAUNCHER_TIMEOUT;

const SERVICE: &str = "the store";

/// The table of one stack.
///
/// Clones share what this process remembers: which backlogs and days it has already noted in the
/// directories, and which submitters it last saw in a backlog. Losing that memory costs a write or
/// two, nothing else.
#[derive(Clone, Debug)]
pub struct DynamoStore {
    client: Client,
    table: String,
    retention: TimeDelta,
    now: fn() -> Timestamp,
    settle: Duration,
    memory: Arc<memory::StoreMemory>,
}

impl DynamoStore {
    /// Uses the table of this name. A record is kept for `retention_days` after its end.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>, retention_days: u32) -> Self {
        Self {
            client,
            table: table.into(),
            retention: TimeDelta::days(i64::from(retention_days)),
            now: || Utc::now().trunc_subsecs(3),
            settle: drift::SETTLE,
            memory: Arc::default(),
        }
    }

    /// Uses the table of this name in this configuration's account.
    #[must_use]
    pub fn of(config: &SdkConfig, table: impl Into<String>, retention_days: u32) -> Self {
        Self::new(Client::new(config), table, retention_days)
    }

    /// Replaces the clock, which decides what has expired.
    #[must_use]
    pub fn with_clock(self, now: fn() -> Timestamp) -> Self {
        Self { now, ..self }
    }

    /// Replaces the time that writes under way are given when counters are compared with records.
    #[must_use]
    pub fn settling(self, settle: Duration) -> Self {
        Self { settle, ..self }
    }
}

impl ReadStore for DynamoStore {
    async fn load(&self, id: &ExecutionId) -> Result<Option<Execution>, PortError> {
        self.load(id).await
    }

    async fn find(&self, fragment: &str, limit: u32) -> Result<Vec<ExecutionId>, PortError> {
        self.find(fragment, limit).await
    }

    /// Newest first by id, because an id begins with the time of submission. The number of records
    /// read for a page is bounded. So a page can be short, and still not be the last, if its filter
    /// admits few of the ids that the best index names.
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        self.list(filter, after, limit).await
    }

    async fn group_work<W: GroupWork>(&self, group: &Name) -> Result<Option<W>, PortError> {
        self.group_work(group).await
    }

    /// Counts backed-off entries too, and at most `backlog::COUNT_MAX` entries of each submitter.
    async fn ahead(&self, entry: &BacklogEntry, exact: u32) -> Result<u32, PortError> {
        self.ahead(entry, exact).await
    }

    async fn backlog(
        &self,
        key: &LimitKey,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<BacklogEntry>, PortError> {
        self.backlog(key, now, limit).await
    }

    /// Eventually consistent.
    async fn backlog_sizes(&self, most: u32) -> Result<Vec<BacklogSize>, PortError> {
        self.backlog_sizes(most).await
    }

    async fn limit_state(&self, key: &LimitKey) -> Result<LimitState, PortError> {
        self.limit_state(key).await
    }

    async fn usage(&self, key: &LimitKey) -> Result<Usage, PortError> {
        self.usage(key).await
    }

    /// Eventually consistent.
    async fn tallies(
        &self,
        dimension: Dimension,
        days: RangeInclusive<NaiveDate>,
    ) -> Result<Vec<DatedTally>, PortError> {
        self.tallies(dimension, days).await
    }
}

impl WriteStore for DynamoStore {
    /// Idempotent. The claim is written first, and the record exists once its last item is written.
    /// A caller that finds a claim without a record finishes that creation, under the claimed id.
    async fn create(
        &self,
        execution: &Execution,
        claim: Option<&Claim>,
    ) -> Result<Created, PortError> {
        match claim {
            Some(claim) => self.create_claimed(execution, claim).await,
            None => self.create_unclaimed(execution).await,
        }
    }

    /// Idempotent, each by itself. A bounded number is written at a time.
    async fn create_all(&self, executions: Vec<Execution>) -> Result<Vec<Created>, PortError> {
        self.create_all(executions).await
    }

    /// Conditional on there being no open submission of this id.
    async fn open_submission(
        &self,
        by: &Principal,
        id: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Submission, PortError> {
        self.open_submission(by, id, now, expires_at).await
    }

    /// Conditional on the revision and the admissions. A transaction is used only where the counter
    /// of a lock or a group changes. A pool's counter is written before or after the record, so
    /// that it is never too low.
    async fn update(
        &self,
        before: &Execution,
        after: Execution,
        admissions: &[Admission],
    ) -> Result<Execution, UpdateError> {
        self.update(before, after, admissions).await
    }

    /// Each is conditional by itself. A pool's counter is written once for all of them.
    async fn update_all(&self, updates: Vec<Update>) -> Vec<Result<Execution, UpdateError>> {
        self.update_all(updates).await
    }

    /// Conditional on the revision.
    async fn set_group_work<W: GroupWork>(&self, work: &W) -> Result<bool, PortError> {
        self.set_group_work(work).await
    }

    async fn has_backlog(&self, key: &LimitKey, now: Timestamp) -> Result<bool, PortError> {
        self.has_backlog(key, now).await
    }
}

impl LaunchStore for DynamoStore {
    /// Conditional on the revision.
    async fn set_limit_state(
        &self,
        key: &LimitKey,
        before: &LimitState,
        after: LimitState,
    ) -> Result<bool, PortError> {
        self.set_limit_state(key, before, after).await
    }

    /// Conditional on the bucket's last change, so that concurrent callers together never take more
    /// than it holds.
    async fn take_tokens(
        &self,
        key: RateKey,
        rate: Rate,
        want: u32,
        now: Timestamp,
    ) -> Result<(u32, u64), PortError> {
        self.take_tokens(key, rate, want, now).await
    }
}

impl SweepStore for DynamoStore {
    type Survey = Survey;

    async fn of_task(&self, task: &TaskId) -> Result<Option<ExecutionId>, PortError> {
        self.of_task_of_lines(task).await
    }

    /// Newest first.
    async fn launched(
        &self,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        self.launched(after, limit).await
    }

    /// Also removes submitters from the directory that have not been in a backlog for a day.
    async fn backlogs(&self, now: Timestamp) -> Result<Vec<LimitKey>, PortError> {
        self.backlogs(now).await
    }

    async fn open_group_work<W: GroupWork>(&self) -> Result<Vec<W>, PortError> {
        self.open_group_work().await
    }

    /// Newest first, by reads at half price.
    async fn survey(
        &self,
        survey: &mut Survey,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        self.survey(survey, after, limit).await
    }

    async fn reconcile(&self, survey: Survey) -> Result<(), PortError> {
        self.reconcile(survey).await
    }

    async fn bookmark(&self) -> Result<Option<Cursor>, PortError> {
        self.bookmark().await
    }

    async fn set_bookmark(&self, at: Option<&Cursor>) -> Result<(), PortError> {
        self.set_bookmark(at).await
    }
}

impl StatisticsStore for DynamoStore {
    /// Eventually consistent, at half the price.
    async fn load_all(&self, ids: &[ExecutionId]) -> Result<Vec<Loaded>, PortError> {
        self.load_as(ids, table::Freshness::Recent).await
    }

    async fn day_statistics(
        &self,
        day: NaiveDate,
        ends: &[RunEnd],
    ) -> Result<DayStatistics, PortError> {
        self.day_statistics(day, ends).await
    }

    /// One transaction, conditional on the revision of the day.
    async fn set_day_statistics(
        &self,
        before: &DayStatistics,
        after: &DayStatistics,
        counted: &[RunEnd],
    ) -> Result<bool, PortError> {
        self.set_day_statistics(before, after, counted).await
    }
}
