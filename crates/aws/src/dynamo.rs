//! The records of a stack: the ports [`Store`], [`Keys`], [`Definitions`] and [`Secrets`] over one
//! DynamoDB table.
//!
//! ARCHITECTURE.md has the table's design: which item serves which question, and at what cost. Two
//! rules hold for all of it: no question is answered by a scan, and nothing that is written for
//! every run goes to one constant partition.
//!
//! An index is behind the table by some milliseconds on AWS (an emulator has no such delay), so
//! what an index names is a wakeup: the record itself is read before anything is decided or shown.
//! An entry that an index still shows after its launch is skipped by the launcher; one that it does
//! not show yet waits for the next wakeup at its backlog, or for the sweep.

use std::{sync::Arc, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use chrono::{SubsecRound, TimeDelta, Utc};
use domain::{
    Timestamp,
    backlog::BacklogState,
    execution::{BacklogEntry, Execution},
    group::GroupWork,
    history::{Cursor, Filter, Loaded, Page},
    id::{ExecutionId, Submission},
    key::KeyRecord,
    limit::{Admission, LimitKey, RateKey},
    ports::{Claim, Created, Definitions, Keys, PortError, Secrets, Store, Update, UpdateError},
    principal::Principal,
    request::Name,
    secret::SecretRecord,
    throttle::{Rate, Usage},
};

mod backlog;
mod backlog_state;
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
mod limits;
mod memory;
mod record;
mod request;
mod secrets;
mod state;
mod submission;
mod sweep;
mod table;

pub use item::Item;

const SERVICE: &str = "the store";

/// The table of one stack.
///
/// A clone shares what this process remembers: which backlogs and days it has noted already, and
/// whom it last saw in a backlog. Forgetting that costs a write or two and nothing else.
#[derive(Clone, Debug)]
pub struct DynamoStore {
    client: Client,
    table: String,
    retention: TimeDelta,
    now: fn() -> Timestamp,
    settle: Duration,
    memory: Arc<memory::Memory>,
}

impl DynamoStore {
    /// Over this table. A record is kept for that many days after its end.
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

    /// Over this table of this configuration's account.
    #[must_use]
    pub fn of(config: &SdkConfig, table: impl Into<String>, retention_days: u32) -> Self {
        Self::new(Client::new(config), table, retention_days)
    }

    /// The same by another clock, which says what has expired.
    #[must_use]
    pub fn with_clock(self, now: fn() -> Timestamp) -> Self {
        Self { now, ..self }
    }

    /// The same with another time for what is on its way when counters are compared with records.
    #[must_use]
    pub fn settling(self, settle: Duration) -> Self {
        Self { settle, ..self }
    }
}

impl Store for DynamoStore {
    /// Idempotent. The claim is taken first, the record's last write makes it exist: who finds a
    /// claim without a record finishes that creation, under the claimed id.
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

    /// Conditional on there being none that is open.
    async fn open_submission(
        &self,
        by: &Principal,
        id: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Submission, PortError> {
        self.opened(by, id, now, expires_at).await
    }

    /// Idempotent, each by itself. A bounded number is under way at a time.
    async fn create_all(&self, executions: Vec<Execution>) -> Result<Vec<Created>, PortError> {
        self.create_each(executions).await
    }

    async fn load(&self, id: &ExecutionId) -> Result<Option<Execution>, PortError> {
        self.load_one(id).await
    }

    async fn find(&self, fragment: &str, limit: u32) -> Result<Vec<ExecutionId>, PortError> {
        self.find_by_fragment(fragment, limit).await
    }

    /// Conditional on the revision and the admissions. A transaction only where a lock changes
    /// hands; what is held of a pool is counted before or after, and never too low.
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
        self.replace_one(before, &written, admissions).await?;
        Ok(written)
    }

    /// Each conditional by itself; a pool's counter is written once for all of them.
    async fn update_all(&self, updates: Vec<Update>) -> Vec<Result<Execution, UpdateError>> {
        self.change_all(updates).await
    }

    /// Newest first by id, which begins with the moment of submission. A page is short, and not the
    /// last, where its filter admits few of what the best index names: the records read for it are
    /// bounded.
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        self.history(filter, after, limit).await
    }

    /// Newest first.
    async fn launched(
        &self,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        self.open(after, limit).await
    }

    async fn backlog(
        &self,
        key: &LimitKey,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<BacklogEntry>, PortError> {
        self.head(key, now, limit).await
    }

    async fn has_backlog(&self, key: &LimitKey, now: Timestamp) -> Result<bool, PortError> {
        self.anybody_due(key, now).await
    }

    /// Also forgets who has not been in a backlog for a day.
    async fn backlogs(&self, now: Timestamp) -> Result<Vec<LimitKey>, PortError> {
        self.backlogs_due(now).await
    }

    /// Backed-off entries are counted too. Of one submitter, at most `backlog::COUNT_MAX` are.
    async fn ahead(&self, entry: &BacklogEntry, exact: u32) -> Result<u32, PortError> {
        self.count_ahead(entry, exact).await
    }

    async fn backlog_state(&self, key: &LimitKey) -> Result<BacklogState, PortError> {
        self.read_backlog_state(key).await
    }

    /// Conditional on the revision.
    async fn set_backlog_state(
        &self,
        key: &LimitKey,
        before: &BacklogState,
        after: BacklogState,
    ) -> Result<bool, PortError> {
        self.write_backlog_state(
            key,
            before,
            &BacklogState {
                revision: before.revision + 1,
                ..after
            },
        )
        .await
    }

    async fn usage(&self, key: &LimitKey) -> Result<Usage, PortError> {
        self.used(key).await
    }

    /// Conditional on the bucket's last change: what two callers take never adds up to more than it
    /// holds.
    async fn take_tokens(
        &self,
        key: RateKey,
        rate: Rate,
        want: u32,
        now: Timestamp,
    ) -> Result<(u32, u64), PortError> {
        self.take(key, rate, want, now).await
    }

    async fn reconcile(&self) -> Result<(), PortError> {
        self.bring_in_line().await
    }

    async fn group_work<W: GroupWork>(&self, group: &Name) -> Result<Option<W>, PortError> {
        self.read_group_work(group).await
    }

    /// Conditional on the revision.
    async fn set_group_work<W: GroupWork>(&self, work: &W) -> Result<bool, PortError> {
        self.write_group_work(work).await
    }

    async fn open_group_work<W: GroupWork>(&self) -> Result<Vec<W>, PortError> {
        self.list_open_group_work().await
    }

    async fn bookmark(&self) -> Result<Option<Cursor>, PortError> {
        self.read_bookmark().await
    }

    async fn set_bookmark(&self, at: Option<&Cursor>) -> Result<(), PortError> {
        self.write_bookmark(at).await
    }
}

impl Definitions for DynamoStore {
    async fn definition(&self, hash: &str) -> Result<Option<String>, PortError> {
        self.read_definition(hash).await
    }

    /// Conditional on nobody else's turn.
    async fn claim_definition(
        &self,
        hash: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, PortError> {
        self.take_turn(hash, now, until).await
    }

    /// Idempotent.
    async fn keep_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        self.write_definition(hash, arn).await
    }

    /// Idempotent. Conditional on the ARN being the one that is kept.
    async fn forget_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        self.delete_definition(hash, arn).await
    }
}

impl Keys for DynamoStore {
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, PortError> {
        self.read_key(id).await
    }

    async fn list_keys(&self) -> Result<Vec<KeyRecord>, PortError> {
        self.read_keys().await
    }

    /// Conditional on the name, and on the id.
    async fn add_key(&self, key: &KeyRecord) -> Result<bool, PortError> {
        self.write_key(key).await
    }

    /// Conditional on the old key being the one of its name.
    async fn rotate_key(&self, old: &KeyRecord, new: &KeyRecord) -> Result<bool, PortError> {
        self.replace_key(old, new).await
    }

    /// Idempotent.
    async fn remove_key(&self, name: &str) -> Result<bool, PortError> {
        self.delete_key(name).await
    }
}

impl Secrets for DynamoStore {
    async fn find_secret(&self, name: &str) -> Result<Option<SecretRecord>, PortError> {
        self.read_secret(name).await
    }

    fn how_to_set(&self, name: &str) -> String {
        format!(
            "it is not set in this stack; set it with `mycli secrets set {name}`, or leave it out"
        )
    }
}
