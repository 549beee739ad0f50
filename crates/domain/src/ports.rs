//! The ports: what the handlers need from outside. Adapters in `aws`, in `local` and in the
//! simulation implement these traits, and one contract suite runs against all of them.
//!
//! Each write says whether it is idempotent or conditional. The type of an error says whether a
//! repetition can succeed.

use std::{future::Future, ops::RangeInclusive};

use chrono::{NaiveDate, TimeDelta};

use crate::{
    Timestamp,
    announcement::Announcement,
    artifact::Manifest,
    ecs::{RunTaskInput, Task, TaskArn, TaskId},
    execution::{BacklogEntry, Execution},
    group::GroupWork,
    history::{Cursor, Filter, Loaded, Page},
    id::{AttemptId, ExecutionId, Submission},
    key::KeyRecord,
    limit::{Admission, BacklogSize, CapacityPool, LimitKey, RateKey, Usage},
    message::Outgoing,
    principal::Principal,
    quota::Rate,
    request::Name,
    scheduler::adaptive_limit::Shortage,
    scheduler::state::LimitState,
    secret::SecretRecord,
    statistics::{DatedTally, DayStatistics, Dimension, RunEnd},
    task::TaskDefinition,
    upload::{LargeUpload, SignedRequest, UploadBatch, UploadedPart},
};

pub use crate::error::PortError;

/// The clock.
pub trait Clock: Send + Sync {
    /// Now, to the millisecond.
    fn now(&self) -> Timestamp;

    /// Returns once this much time has passed, and no sooner.
    fn sleep(&self, span: TimeDelta) -> impl Future<Output = ()> + Send;
}

/// Random bits for ids and nonces.
pub trait Entropy: Send + Sync {
    /// 128 fresh bits, unpredictable.
    fn bits(&self) -> u128;
}

/// A claim on an idempotency key: the caller promises that the same key means the same request, for
/// 24 hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The principal and the idempotency key, as one text.
    pub key: String,
    /// SHA-256 of the request, in hexadecimal.
    pub digest: String,
    /// When the idempotency key may be used again.
    pub expires_at: Timestamp,
}

/// The result of a creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// The execution is recorded.
    New,
    /// The same request was recorded under the same key before, as this execution.
    Existing(ExecutionId),
    /// Another request was recorded under the same key, as this execution.
    Mismatch(ExecutionId),
}

/// Why an update was not made. In each case nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpdateError {
    /// Another writer changed the record in the meantime: load it and decide again.
    #[error("the record was changed by another writer")]
    Conflict,
    /// An admission's limit is reached.
    #[error("{0} is used up")]
    Full(LimitKey),
    /// The call itself failed.
    #[error(transparent)]
    Failed(#[from] PortError),
}

/// One of several updates: `before` becomes `after` if every admission has room.
#[derive(Clone, Debug)]
pub struct Update {
    /// The record as it was read.
    pub before: Execution,
    /// The new record.
    pub after: Execution,
    /// The limits that must have room for it.
    pub admissions: Vec<Admission>,
}

/// Reading what is recorded: executions, their backlogs, the use of limits. This is all that `query`
/// is given.
pub trait ReadStore: Send + Sync {
    /// Returns the record as last written. A record that cannot be read is [`PortError::Corrupt`].
    fn load(
        &self,
        id: &ExecutionId,
    ) -> impl Future<Output = Result<Option<Execution>, PortError>> + Send;

    /// Returns up to `limit` ids that match a user's fragment: a prefix (with or without `exec_`)
    /// or a suffix of an id, in either case, or a task's ARN or id. Newest first.
    fn find(
        &self,
        fragment: &str,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<ExecutionId>, PortError>> + Send;

    /// Returns a page of history, newest first. The page includes records that cannot be read,
    /// unless the filter asks for a status, which such a record does not have.
    fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> impl Future<Output = Result<Page<Loaded>, PortError>> + Send;

    /// Returns the work of this kind on a group, as last written; `None` for expired work. Strongly
    /// consistent.
    fn group_work<W: GroupWork>(
        &self,
        group: &Name,
    ) -> impl Future<Output = Result<Option<W>, PortError>> + Send;

    /// Returns how many entries are before this one in its backlog: exactly up to `exact`,
    /// estimated beyond.
    fn ahead(
        &self,
        entry: &BacklogEntry,
        exact: u32,
    ) -> impl Future<Output = Result<u32, PortError>> + Send;

    /// Returns the first entries of a backlog that are due at `now`, in the order of
    /// [`crate::scheduler::fair::order`]. On one machine these are the entries of this process.
    fn backlog(
        &self,
        key: &LimitKey,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<BacklogEntry>, PortError>> + Send;

    /// Returns the size of each backlog that is not empty, in any order, of every process on one
    /// machine. Of one submitter at least `most` entries are counted, those first in line, and
    /// beyond them the size is a lower bound.
    fn backlog_sizes(
        &self,
        most: u32,
    ) -> impl Future<Output = Result<Vec<BacklogSize>, PortError>> + Send;

    /// Returns the state of a limit.
    fn limit_state(
        &self,
        key: &LimitKey,
    ) -> impl Future<Output = Result<LimitState, PortError>> + Send;

    /// Returns how much of a limit is in use.
    fn usage(&self, key: &LimitKey) -> impl Future<Output = Result<Usage, PortError>> + Send;

    /// Returns the tallies of a dimension on these days, in any order. Ends of the last minutes may
    /// be missing. A tally that cannot be read is left out.
    fn tallies(
        &self,
        dimension: Dimension,
        days: RangeInclusive<NaiveDate>,
    ) -> impl Future<Output = Result<Vec<DatedTally>, PortError>> + Send;
}

/// Recording executions and what becomes of them. A write also changes everything that is derived
/// from the record: backlogs, usage, history.
pub trait WriteStore: ReadStore {
    /// Records a new execution, unless its id exists (then it is `Existing` itself) or the claim is
    /// taken. Idempotent.
    fn create(
        &self,
        execution: &Execution,
        claim: Option<&Claim>,
    ) -> impl Future<Output = Result<Created, PortError>> + Send;

    /// Records each of these, unless its id exists. Returns the result of each, in their order,
    /// never [`Created::Mismatch`]. They are not one transaction: after an error some may have been
    /// recorded. Idempotent.
    fn create_all(
        &self,
        executions: Vec<Execution>,
    ) -> impl Future<Output = Result<Vec<Created>, PortError>> + Send;

    /// Returns a submission as it was first opened. The first caller opens it at `now`, and later
    /// callers get that same time. Once the first caller's `expires_at` has passed, the next caller
    /// opens it again. Conditional.
    fn open_submission(
        &self,
        by: &Principal,
        id: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<Submission, PortError>> + Send;

    /// Replaces `before` by `after` if `before` is still the record (by revision) and every
    /// admission has room. The same write changes usage by the difference of their allocations.
    /// Conditional. Returns the record as written, with its new revision.
    fn update(
        &self,
        before: &Execution,
        after: Execution,
        admissions: &[Admission],
    ) -> impl Future<Output = Result<Execution, UpdateError>> + Send;

    /// Makes several updates of different records. Each is conditional by itself; the results are
    /// in the order of the updates. A counter that several of them change may be written once for
    /// all: if it has room for only the first few, the others are `Full`.
    fn update_all(
        &self,
        updates: Vec<Update>,
    ) -> impl Future<Output = Vec<Result<Execution, UpdateError>>> + Send;

    /// Writes work down if the stored revision is still the work's own (0 where none is stored),
    /// and increments the revision. Returns whether it was written. Conditional.
    fn set_group_work<W: GroupWork>(
        &self,
        work: &W,
    ) -> impl Future<Output = Result<bool, PortError>> + Send;

    /// Whether this backlog has a due entry, of any process. If so, a wakeup for it is worth a
    /// message.
    fn has_backlog(
        &self,
        key: &LimitKey,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, PortError>> + Send;
}

/// The launcher's view of a limit: the entries that wait for it, its state, and its launch rate.
pub trait LaunchStore: ReadStore {
    /// Replaces the state of a limit if it is still the one that was read (by revision). Returns
    /// whether it was. Conditional.
    fn set_limit_state(
        &self,
        key: &LimitKey,
        before: &LimitState,
        after: LimitState,
    ) -> impl Future<Output = Result<bool, PortError>> + Send;

    /// Takes up to `want` tokens from a bucket. Returns how many it took, and the milliseconds
    /// until the next token. Conditional.
    fn take_tokens(
        &self,
        key: RateKey,
        rate: Rate,
        want: u32,
        now: Timestamp,
    ) -> impl Future<Output = Result<(u32, u64), PortError>> + Send;
}

/// The store for the sweep, which reads and corrects everything that is under way, whatever it
/// waits for.
pub trait SweepStore: WriteStore {
    /// The notes of the store while a sweep goes through the open records, for [`Self::reconcile`].
    type Survey: Default + Send;

    /// Returns the execution that this task was started for.
    fn of_task(
        &self,
        task: &TaskId,
    ) -> impl Future<Output = Result<Option<ExecutionId>, PortError>> + Send;

    /// Returns a page of the executions that are launching or running, in no particular order.
    fn launched(
        &self,
        after: Option<&Cursor>,
        limit: u32,
    ) -> impl Future<Output = Result<Page<Loaded>, PortError>> + Send;

    /// Returns the backlogs that have an entry due at `now`.
    fn backlogs(
        &self,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<LimitKey>, PortError>> + Send;

    /// Returns the unfinished work of this kind. Work that cannot be read is skipped.
    fn open_group_work<W: GroupWork>(
        &self,
    ) -> impl Future<Output = Result<Vec<W>, PortError>> + Send;

    /// Returns the next page of the executions that are launching or running, for a sweep. The
    /// records may be a moment out of date, where that is cheaper. A page may have fewer than
    /// `limit`, and even none, and still not be the last.
    fn survey(
        &self,
        _survey: &mut Self::Survey,
        after: Option<&Cursor>,
        limit: u32,
    ) -> impl Future<Output = Result<Page<Loaded>, PortError>> + Send {
        self.launched(after, limit)
    }

    /// Corrects the data that is derived from the records but not written together with them, by
    /// what a survey saw. A survey that did not see all records is no help; then they are read
    /// again. Idempotent, and safe beside launches, ends and another reconcile.
    fn reconcile(&self, survey: Self::Survey)
    -> impl Future<Output = Result<(), PortError>> + Send;

    /// Returns where the previous sweep was cut short, if it was.
    fn bookmark(&self) -> impl Future<Output = Result<Option<Cursor>, PortError>> + Send;

    /// Stores where a sweep was cut short, or that it reached the end. Idempotent.
    fn set_bookmark(
        &self,
        at: Option<&Cursor>,
    ) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// Counting the ends of runs in a store that does not count them itself as it records them. The
/// state tracker is given this.
pub trait StatisticsStore: ReadStore {
    /// Returns these executions, in any order, perhaps as they were a moment ago. Those that no
    /// longer exist are left out.
    fn load_all(
        &self,
        ids: &[ExecutionId],
    ) -> impl Future<Output = Result<Vec<Loaded>, PortError>> + Send;

    /// Returns the statistics of a day as far as these ends need them, as last written. The ends are
    /// of that day, and of one [batch](crate::statistics::batches).
    fn day_statistics(
        &self,
        day: NaiveDate,
        ends: &[RunEnd],
    ) -> impl Future<Output = Result<DayStatistics, PortError>> + Send;

    /// Writes the statistics of a day, and that these ends are counted. All or nothing. Conditional:
    /// returns false if they were written by others since they were read.
    fn set_day_statistics(
        &self,
        before: &DayStatistics,
        after: &DayStatistics,
        counted: &[RunEnd],
    ) -> impl Future<Output = Result<bool, PortError>> + Send;
}

/// The ARNs of task definitions by the hash of their content, shared by all launchers.
pub trait Definitions: Send + Sync {
    /// Returns the ARN of the definition with this content, if it is registered.
    fn definition(
        &self,
        hash: &str,
    ) -> impl Future<Output = Result<Option<String>, PortError>> + Send;

    /// Claims the registration of a definition until `until`, and returns whether the claim was
    /// granted. One caller has it at a time, so that a definition that many wait for is registered
    /// once. Conditional.
    fn claim_definition(
        &self,
        hash: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Result<bool, PortError>> + Send;

    /// Stores the ARN of a definition that was just registered, and ends the claim. Idempotent.
    fn keep_definition(
        &self,
        hash: &str,
        arn: &str,
    ) -> impl Future<Output = Result<(), PortError>> + Send;

    /// Removes an ARN that is no longer usable, unless another one is stored by now. Idempotent.
    fn forget_definition(
        &self,
        hash: &str,
        arn: &str,
    ) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// The known facts about the secrets that are set: their names and which keys may use them, never
/// their values.
pub trait Secrets: Send + Sync {
    /// Returns the secret of this name.
    fn find_secret(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<SecretRecord>, PortError>> + Send;

    /// Returns an instruction for the user to set a missing secret.
    fn how_to_set(&self, name: &str) -> String;
}

/// The publisher of the ends of executions.
pub trait Announcer: Send + Sync {
    /// Whether somebody may listen. If nobody does, nothing need be published. The answer may be a
    /// minute old.
    fn is_heard(&self) -> impl Future<Output = Result<bool, PortError>> + Send;

    /// Publishes each at least once. An error says that not all were published (some may have
    /// been).
    fn announce(
        &self,
        announcements: &[Announcement],
    ) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// Looking up API keys. This is all that `query` is given of them.
pub trait KeyLookup: Send + Sync {
    /// Returns the key with this id.
    fn find_key(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<KeyRecord>, PortError>> + Send;
}

/// The API keys.
pub trait Keys: KeyLookup {
    /// Returns every key, by name.
    fn list_keys(&self) -> impl Future<Output = Result<Vec<KeyRecord>, PortError>> + Send;
    /// Adds a key unless its name is taken. Returns whether it was added. Conditional.
    fn add_key(&self, key: &KeyRecord) -> impl Future<Output = Result<bool, PortError>> + Send;
    /// Replaces a key by another one of the same name. The old key and its predecessors stay if the
    /// new one keeps them ([`KeyRecord::keeps`]), and are removed otherwise. Returns whether the
    /// old key was still there. Conditional.
    fn rotate_key(
        &self,
        old: &KeyRecord,
        new: &KeyRecord,
    ) -> impl Future<Output = Result<bool, PortError>> + Send;
    /// Removes the key of this name and its predecessors that are still valid. Returns whether
    /// there was one. Idempotent.
    fn remove_key(&self, name: &str) -> impl Future<Output = Result<bool, PortError>> + Send;
}

/// The queues, for sending. The event source receives.
pub trait Queue: Send + Sync {
    /// Sends each message at least once. An error says that not all were sent (some may have been).
    /// Duplicates are harmless.
    fn send(&self, messages: Vec<Outgoing>) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// Why a task could not be launched. Each variant says what to do next.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LaunchError {
    /// The call was throttled. Nothing was started; repeat the same call later.
    #[error("too fast: {0}")]
    Throttled(String),
    /// The quota or the capacity is used up. Nothing was started; the next call needs a new client
    /// token.
    #[error("{words}")]
    Full {
        /// The resource that was short.
        shortage: Shortage,
        /// ECS's message.
        words: String,
    },
    /// The task can never be started as requested.
    #[error("{0}")]
    Refused(String),
    /// The task definition no longer exists: register it again. Nothing was started.
    #[error("the task definition is gone: {0}")]
    NoDefinition(String),
    /// There was no answer, so the task may have been started. The same call with the same token
    /// finds out, while the token lives.
    #[error("no answer: {0}")]
    Unknown(String),
}

impl From<PortError> for LaunchError {
    /// A call without an answer may have taken effect.
    fn from(error: PortError) -> Self {
        Self::Unknown(error.to_string())
    }
}

/// Tasks as `DescribeTasks` shows them.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// The tasks that ECS knows.
    pub tasks: Vec<Task>,
    /// The ARNs that ECS does not know, or no longer knows.
    pub missing: Vec<TaskArn>,
}

/// ECS, or its replacement outside AWS.
pub trait Tasks: Send + Sync {
    /// Registers a definition and returns its ARN. Repeating it is harmless.
    fn register_definition(
        &self,
        definition: &TaskDefinition,
    ) -> impl Future<Output = Result<String, LaunchError>> + Send;
    /// Starts a task. Idempotent by client token while the token lives.
    fn run_task(
        &self,
        input: &RunTaskInput,
    ) -> impl Future<Output = Result<Task, LaunchError>> + Send;
    /// Stops a task: TERM, then KILL after the grace. Idempotent; it is no error if the task has
    /// stopped or is unknown.
    fn stop_task(
        &self,
        task_arn: &TaskArn,
        reason: &str,
    ) -> impl Future<Output = Result<(), PortError>> + Send;
    /// Describes up to 100 tasks (ECS API reference, `DescribeTasks`).
    fn describe_tasks(
        &self,
        task_arns: &[TaskArn],
    ) -> impl Future<Output = Result<Described, PortError>> + Send;
    /// Returns the ARNs of the tasks that an attempt started, running and stopped.
    fn list_tasks(
        &self,
        started_by: &AttemptId,
    ) -> impl Future<Output = Result<Vec<TaskArn>, PortError>> + Send;
}

/// The source of the account's quotas.
pub trait AccountQuotas: Send + Sync {
    /// Returns the CPU units that may be in use at once in this pool; `None` if no number is known.
    fn cpu(
        &self,
        pool: CapacityPool,
    ) -> impl Future<Output = Result<Option<u32>, PortError>> + Send;
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, as precisely as is known.
    pub at: Timestamp,
    /// The text without its line end. Bytes that are not valid UTF-8 are replaced.
    pub text: String,
}

/// A part of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The lines, in order.
    pub lines: Vec<LogLine>,
    /// Where to continue. `None` only if the stream does not exist (yet).
    pub next: Option<String>,
    /// Whether more lines already follow these.
    pub more: bool,
}

/// Why a log cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The cursor does not belong to this stream, or is no longer valid.
    #[error("the cursor is not valid")]
    Cursor,
    /// CloudWatch Logs throttles reads in this account and region. Nothing was read; repeat the
    /// same read later.
    #[error("CloudWatch Logs is read too often in this account and region")]
    Throttled,
    /// The call itself failed.
    #[error(transparent)]
    Failed(#[from] PortError),
}

impl From<ReadError> for PortError {
    /// For a reader whose cursors come from the log itself.
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Cursor => Self::invalid("the log", error),
            ReadError::Throttled => Self::unavailable("the log", error),
            ReadError::Failed(error) => error,
        }
    }
}

/// The files of runs that are kept, for reading.
pub trait ArtifactReads: Send + Sync {
    /// Returns the manifest of a batch of an attempt's files, numbered from 0; `None` if there is
    /// none, not yet or no longer.
    fn manifest(
        &self,
        attempt: &AttemptId,
        batch: u32,
    ) -> impl Future<Output = Result<Option<Manifest>, PortError>> + Send;

    /// Returns the address of a file, from which it can be downloaded for a while without a key. A
    /// browser saves it under `name` and never shows it.
    fn download(
        &self,
        attempt: &AttemptId,
        batch: u32,
        number: u32,
        name: &str,
    ) -> impl Future<Output = Result<String, PortError>> + Send;
}

/// The files of runs that are kept, for the runner that sends them.
pub trait ArtifactWrites: Send + Sync {
    /// Returns a request by which exactly these bytes can be stored as a file of a batch; as its
    /// manifest if `number` is `None`.
    fn sign_file(
        &self,
        attempt: &AttemptId,
        batch: u32,
        number: Option<u32>,
        bytes: u64,
        sha256: &str,
    ) -> impl Future<Output = Result<SignedRequest, PortError>> + Send;

    /// Begins the only file of a batch, which comes in parts. Returns the id of its upload. An
    /// upload that is not ended is removed after a day.
    fn begin_large(
        &self,
        attempt: &AttemptId,
        batch: u32,
    ) -> impl Future<Output = Result<String, PortError>> + Send;

    /// Returns a request by which exactly these bytes can be stored as a part, counted from 1.
    fn sign_part(
        &self,
        attempt: &AttemptId,
        batch: u32,
        upload: &LargeUpload,
        part: u32,
        sha256: &str,
    ) -> impl Future<Output = Result<SignedRequest, PortError>> + Send;

    /// Makes a file of its parts. Idempotent. `Rejected` if the parts are not those that were sent.
    fn complete_large(
        &self,
        attempt: &AttemptId,
        batch: u32,
        upload: &LargeUpload,
        parts: &[UploadedPart],
    ) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// The record of what the runner of an attempt may send.
pub trait UploadRecords: Send + Sync {
    /// Returns a batch of an attempt, as last written. Strongly consistent.
    fn upload_batch(
        &self,
        attempt: &AttemptId,
        number: u32,
    ) -> impl Future<Output = Result<Option<UploadBatch>, PortError>> + Send;

    /// Records a batch unless there is one of its number. Returns the one that is recorded then.
    /// Conditional.
    fn begin_upload_batch(
        &self,
        attempt: &AttemptId,
        batch: &UploadBatch,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<UploadBatch, PortError>> + Send;
}

/// The logs of tasks.
pub trait Logs: Send + Sync {
    /// Returns a part of a stream, marker lines included, from the cursor on (`None`: from the
    /// start). Each line is returned once.
    fn read(
        &self,
        stream: &str,
        cursor: Option<&str>,
    ) -> impl Future<Output = Result<LogPage, ReadError>> + Send;

    /// Returns the last lines of a stream, oldest first, as many as one part has. Empty if there is
    /// no such stream.
    fn last(&self, stream: &str) -> impl Future<Output = Result<Vec<LogLine>, ReadError>> + Send;
}
