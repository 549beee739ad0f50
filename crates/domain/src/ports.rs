//! What the handlers need of the world. Adapters in `aws`, in `local` and in the simulation
//! implement these, and one contract suite runs against all of them.
//!
//! Each write says whether it is idempotent or conditional. An error says by its type whether a
//! repetition can mend it.

use std::future::Future;

use chrono::TimeDelta;

use crate::{
    Timestamp,
    adaptive_limit::Shortage,
    announcement::Announcement,
    backlog::BacklogState,
    ecs::{RunTaskInput, Task},
    execution::{BacklogEntry, Execution},
    group::GroupWork,
    history::{Cursor, Filter, Loaded, Page},
    id::{AttemptId, ExecutionId, Submission},
    key::KeyRecord,
    limit::{Admission, CapacityPool, LimitKey, RateKey},
    message::Outgoing,
    principal::Principal,
    request::Name,
    secret::SecretRecord,
    task::TaskDefinition,
    throttle::{Rate, Usage},
};

pub use crate::error::PortError;

/// The clock.
pub trait Clock: Send + Sync {
    /// Now, to the millisecond.
    fn now(&self) -> Timestamp;

    /// Returns when so much time has passed, and no sooner.
    fn sleep(&self, span: TimeDelta) -> impl Future<Output = ()> + Send;
}

/// Random bits for ids and nonces.
pub trait Entropy: Send + Sync {
    /// 128 fresh bits, unpredictable.
    fn bits(&self) -> u128;
}

/// A caller's promise that the same key means the same request, for 24 hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The principal and the key, as one text.
    pub key: String,
    /// SHA-256 of the request, in hexadecimal.
    pub digest: String,
    /// When the key may be used anew.
    pub expires_at: Timestamp,
}

/// What came of a creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is recorded.
    New,
    /// The same request was recorded under the same key before, as this.
    Existing(ExecutionId),
    /// Another request was recorded under the same key.
    Mismatch(ExecutionId),
}

/// Why an update was not made. In each case nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpdateError {
    /// Somebody else wrote the record in the meantime: load it and decide anew.
    #[error("the record was changed by another writer")]
    Conflict,
    /// An admission's limit is reached.
    #[error("{0} is used up")]
    Full(LimitKey),
    /// The call itself failed.
    #[error(transparent)]
    Failed(#[from] PortError),
}

/// One of several updates: `before` is to become `after`, if every admission has room.
#[derive(Clone, Debug)]
pub struct Update {
    /// The record as it was read.
    pub before: Execution,
    /// The record as it is to be.
    pub after: Execution,
    /// What must have room for it.
    pub admissions: Vec<Admission>,
}

/// The records, and all that is derived from them: backlogs, usage, history.
pub trait Store: Send + Sync {
    /// Records a new execution, unless its id exists (then it is `Existing` itself) or the claim is
    /// taken. Idempotent.
    fn create(
        &self,
        execution: &Execution,
        claim: Option<&Claim>,
    ) -> impl Future<Output = Result<Created, PortError>> + Send;

    /// A submission as it was first heard of: with `now` for the first caller, with that same
    /// moment for later ones until the first one's `expires_at`, when it begins anew. Conditional.
    fn open_submission(
        &self,
        by: &Principal,
        id: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> impl Future<Output = Result<Submission, PortError>> + Send;

    /// Records each of these, unless its id exists; says of each, in their order, what came of it
    /// (never [`Created::Mismatch`]). Each stands by itself: after an error some may have been
    /// recorded. Idempotent.
    fn create_all(
        &self,
        executions: Vec<Execution>,
    ) -> impl Future<Output = Result<Vec<Created>, PortError>> + Send;

    /// The record, as last written. One that cannot be read is [`PortError::Corrupt`].
    fn load(
        &self,
        id: &ExecutionId,
    ) -> impl Future<Output = Result<Option<Execution>, PortError>> + Send;

    /// Up to `limit` ids that a user may mean by a fragment: a prefix (with or without `exec_`) or
    /// a suffix of an id, in either case, or a task's ARN or id. Newest first.
    fn find(
        &self,
        fragment: &str,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<ExecutionId>, PortError>> + Send;

    /// Replaces `before` by `after` if `before` is still the record (by revision) and every
    /// admission has room; usage changes by the difference of their holdings in the same write.
    /// Conditional. Returns the record as written, with its new revision.
    fn update(
        &self,
        before: &Execution,
        after: Execution,
        admissions: &[Admission],
    ) -> impl Future<Output = Result<Execution, UpdateError>> + Send;

    /// Several updates of different records, each conditional by itself and answered in its place.
    /// A counter that several of them change may be written once for all: where it has room for the
    /// first few only, the others are `Full`.
    fn update_all(
        &self,
        updates: Vec<Update>,
    ) -> impl Future<Output = Vec<Result<Execution, UpdateError>>> + Send;

    /// A page of history, newest first. A record that cannot be read is on the page that it belongs
    /// to, unless a status is asked for: it has none.
    fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> impl Future<Output = Result<Page<Loaded>, PortError>> + Send;

    /// A page of what is launching or running, in no particular order.
    fn launched(
        &self,
        after: Option<&Cursor>,
        limit: u32,
    ) -> impl Future<Output = Result<Page<Loaded>, PortError>> + Send;

    /// The first entries of a backlog that are due at `now`, in the order of
    /// [`crate::fair::order`].
    fn backlog(
        &self,
        key: &LimitKey,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<BacklogEntry>, PortError>> + Send;

    /// Whether anybody, of whichever process, is in this backlog and due: then a wakeup at it is
    /// worth a message.
    fn has_backlog(
        &self,
        key: &LimitKey,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, PortError>> + Send;

    /// The backlogs that have an entry due at `now`.
    fn backlogs(
        &self,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<LimitKey>, PortError>> + Send;

    /// How many stand before this entry in its backlog: exact up to `exact`, an estimate beyond.
    fn ahead(
        &self,
        entry: &BacklogEntry,
        exact: u32,
    ) -> impl Future<Output = Result<u32, PortError>> + Send;

    /// What is known of a backlog as a whole.
    fn backlog_state(
        &self,
        key: &LimitKey,
    ) -> impl Future<Output = Result<BacklogState, PortError>> + Send;

    /// Replaces the state of a backlog if it is still the one that was read (by revision); says
    /// whether it was. Conditional.
    fn set_backlog_state(
        &self,
        key: &LimitKey,
        before: &BacklogState,
        after: BacklogState,
    ) -> impl Future<Output = Result<bool, PortError>> + Send;

    /// How much of a limit is in use.
    fn usage(&self, key: &LimitKey) -> impl Future<Output = Result<Usage, PortError>> + Send;

    /// Takes up to `want` tokens from a bucket; the second number is the milliseconds until there
    /// is another. Conditional.
    fn take_tokens(
        &self,
        key: RateKey,
        rate: Rate,
        want: u32,
        now: Timestamp,
    ) -> impl Future<Output = Result<(u32, u64), PortError>> + Send;

    /// Brings what is derived from the records and not written together with them back in line with
    /// them. Idempotent; harmless beside launches and ends, and beside itself.
    fn reconcile(&self) -> impl Future<Output = Result<(), PortError>> + Send;

    /// The work of this kind on a group, as last written; work that has expired is none. Strongly
    /// consistent.
    fn group_work<W: GroupWork>(
        &self,
        group: &Name,
    ) -> impl Future<Output = Result<Option<W>, PortError>> + Send;

    /// Writes down work if what is stored has the work's own revision still (0 where none is); says
    /// whether it did, and counts the revision up. Conditional.
    fn set_group_work<W: GroupWork>(
        &self,
        work: &W,
    ) -> impl Future<Output = Result<bool, PortError>> + Send;

    /// The work of this kind that is not done. Work that cannot be read is passed over.
    fn open_group_work<W: GroupWork>(
        &self,
    ) -> impl Future<Output = Result<Vec<W>, PortError>> + Send;

    /// Where the sweep before was cut short, if it was.
    fn bookmark(&self) -> impl Future<Output = Result<Option<Cursor>, PortError>> + Send;

    /// Keeps where a sweep was cut short, or that it came to the end. Idempotent.
    fn set_bookmark(
        &self,
        at: Option<&Cursor>,
    ) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// The ARNs of task definitions by the hash of their content, shared by all launchers.
pub trait Definitions: Send + Sync {
    /// The ARN of the definition with this content, if it is registered.
    fn definition(
        &self,
        hash: &str,
    ) -> impl Future<Output = Result<Option<String>, PortError>> + Send;

    /// Asks for the turn to register it, until that moment: one caller has it at a time, so that a
    /// definition that many wait for is registered once. Conditional.
    fn claim_definition(
        &self,
        hash: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> impl Future<Output = Result<bool, PortError>> + Send;

    /// Keeps the ARN of a definition just registered, and ends the turn. Idempotent.
    fn keep_definition(
        &self,
        hash: &str,
        arn: &str,
    ) -> impl Future<Output = Result<(), PortError>> + Send;

    /// Forgets an ARN that is of no use any more, unless another one is kept by now. Idempotent.
    fn forget_definition(
        &self,
        hash: &str,
        arn: &str,
    ) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// What is known of the secrets that are set: names and who may name them, never values.
pub trait Secrets: Send + Sync {
    /// The secret of this name.
    fn find_secret(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<SecretRecord>, PortError>> + Send;

    /// What to do about one that is not set, in words.
    fn how_to_set(&self, name: &str) -> String;
}

/// Where the ends of executions are made known.
pub trait Announcer: Send + Sync {
    /// Publishes each, at least once, or says that not all could be (some may have been).
    fn announce(
        &self,
        announcements: &[Announcement],
    ) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// The API keys.
pub trait Keys: Send + Sync {
    /// The key with this id.
    fn find_key(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<Option<KeyRecord>, PortError>> + Send;
    /// Every key, by name.
    fn list_keys(&self) -> impl Future<Output = Result<Vec<KeyRecord>, PortError>> + Send;
    /// Adds a key unless its name is taken; says whether it was added. Conditional.
    fn add_key(&self, key: &KeyRecord) -> impl Future<Output = Result<bool, PortError>> + Send;
    /// Puts a key in the place of another one of the same name. The old one and those of before
    /// stay if the new one keeps them ([`KeyRecord::keeps`]), and are gone otherwise. Says whether
    /// the old one was still there. Conditional.
    fn rotate_key(
        &self,
        old: &KeyRecord,
        new: &KeyRecord,
    ) -> impl Future<Output = Result<bool, PortError>> + Send;
    /// Removes the key of this name, and those of before that are still good; says whether there
    /// was one. Idempotent.
    fn remove_key(&self, name: &str) -> impl Future<Output = Result<bool, PortError>> + Send;
}

/// The queues, to send to. Receiving is the event source's business.
pub trait Queue: Send + Sync {
    /// Sends each message, at least once, or says that not all could be sent (some may have been).
    /// Duplicates are harmless.
    fn send(&self, messages: Vec<Outgoing>) -> impl Future<Output = Result<(), PortError>> + Send;
}

/// Why a task could not be launched: each says what to do next.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LaunchError {
    /// Too fast. Nothing was started; the same call is right, later.
    #[error("too fast: {0}")]
    Throttled(String),
    /// The quota or the capacity is used up. Nothing was started; a new client token is needed.
    #[error("{words}")]
    Full {
        /// Of what there is too little.
        shortage: Shortage,
        /// What ECS said.
        words: String,
    },
    /// It can never be started as asked.
    #[error("{0}")]
    Refused(String),
    /// The task definition is not there any more: register it again. Nothing was started.
    #[error("the task definition is gone: {0}")]
    NoDefinition(String),
    /// No answer: it may have been started. The same call with the same token finds out, while the
    /// token lives.
    #[error("no answer: {0}")]
    Unknown(String),
}

impl From<PortError> for LaunchError {
    /// Who did not answer may have acted.
    fn from(error: PortError) -> Self {
        Self::Unknown(error.to_string())
    }
}

/// Tasks as `DescribeTasks` shows them.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// The tasks ECS knows.
    pub tasks: Vec<Task>,
    /// The ARNs it does not know (any more).
    pub missing: Vec<String>,
}

/// ECS, or what stands for it.
pub trait Tasks: Send + Sync {
    /// Registers a definition, and returns its ARN. Repeating it is harmless.
    fn register_definition(
        &self,
        definition: &TaskDefinition,
    ) -> impl Future<Output = Result<String, LaunchError>> + Send;
    /// Starts a task. Idempotent by client token while that lives.
    fn run_task(
        &self,
        input: &RunTaskInput,
    ) -> impl Future<Output = Result<Task, LaunchError>> + Send;
    /// Stops a task: TERM, then KILL after the grace. Idempotent; a task that is over or unknown is
    /// no error.
    fn stop_task(
        &self,
        task_arn: &str,
        reason: &str,
    ) -> impl Future<Output = Result<(), PortError>> + Send;
    /// Looks at up to 100 tasks (ECS API reference, `DescribeTasks`).
    fn describe_tasks(
        &self,
        task_arns: &[String],
    ) -> impl Future<Output = Result<Described, PortError>> + Send;
    /// The ARNs of the tasks an attempt started, running and stopped.
    fn list_tasks(
        &self,
        started_by: &AttemptId,
    ) -> impl Future<Output = Result<Vec<String>, PortError>> + Send;
}

/// Where an account's quotas are asked for.
pub trait AccountQuotas: Send + Sync {
    /// The CPU units that may be in use at once in this pool; `None` if nobody names a number.
    fn cpu(
        &self,
        pool: CapacityPool,
    ) -> impl Future<Output = Result<Option<u32>, PortError>> + Send;
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, as well as is known.
    pub at: Timestamp,
    /// Without its line end. Bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// A part of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The lines, in order.
    pub lines: Vec<LogLine>,
    /// Where to go on. `None` only if the stream does not exist (yet).
    pub next: Option<String>,
    /// There are more lines after these now.
    pub more: bool,
}

/// Why a log cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The cursor is none of this stream's, or not any more.
    #[error("the cursor leads nowhere")]
    Cursor,
    /// Logs are read too often in this account and region: nothing was read, and the same read is
    /// right later.
    #[error("CloudWatch Logs is asked too often in this account and region")]
    Throttled,
    /// The call itself failed.
    #[error(transparent)]
    Failed(#[from] PortError),
}

impl From<ReadError> for PortError {
    /// Of a reader that has its cursors from the log itself.
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Cursor => Self::invalid("the log", error),
            ReadError::Throttled => Self::unavailable("the log", error),
            ReadError::Failed(error) => error,
        }
    }
}

/// Logs of tasks.
pub trait Logs: Send + Sync {
    /// A part of a stream, marker lines included, from the cursor on (`None`: from the start). Each
    /// line is returned once.
    fn read(
        &self,
        stream: &str,
        cursor: Option<&str>,
    ) -> impl Future<Output = Result<LogPage, ReadError>> + Send;

    /// The last lines of a stream, the oldest of them first: as many as a part has. None if there
    /// is no such stream.
    fn last(&self, stream: &str) -> impl Future<Output = Result<Vec<LogLine>, ReadError>> + Send;
}
