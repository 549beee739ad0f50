//! The JSON of the REST API: what callers see of an execution, and of an error.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    execution::{Attempt, Event, Execution, ExecutionStatus, UNREADABLE},
    group::{
        GroupCancel, GroupRerun,
        rerun::{Rejection, Rerun},
    },
    id::ExecutionId,
    key::{Caller, KeyRecord, Role},
    limit::CapacityPool,
    principal::Principal,
    request::{Changes, FieldError, SubmitRequest},
};

/// The answer to `POST /execute`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The new execution.
    pub execution_id: ExecutionId,
    /// Where it stands.
    pub status: ExecutionStatus,
}

/// Largest body of `POST /executions/bulk`, in bytes: below Lambda's 6 MB (AWS-FACTS §7), with room
/// for the event around it.
pub const BULK_BODY_MAX: usize = 4 * 1024 * 1024;
/// Largest such body as a text within the JSON of Lambda's event, in bytes ([`length_in_event`]).
/// Lambda takes 6 MB of all (AWS-FACTS §7); the rest is for what stands around the body.
pub const BULK_EVENT_MAX: usize = 5 * 1024 * 1024;

/// How long a body is within the JSON of Lambda's event, where each quote and each backslash takes
/// two bytes.
#[must_use]
pub fn length_in_event(body: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..b' ' => 6,
        _ => 1,
    };
    body.bytes().map(escaped).sum()
}

/// Most executions in one `POST /executions/bulk`. Ours.
pub const BULK_MAX: usize = 500;

/// Requests of one submission's lines that a client has under way at once. Ours: enough that the
/// network's delay does not count, few enough for one user of a stack.
pub const BULK_IN_FLIGHT: usize = 4;

/// The body of `POST /executions/bulk`: some consecutive lines of a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    /// The caller's own id for the whole submission.
    pub submission_id: String,
    /// The number of the first entry within the whole submission, from 0.
    #[serde(default)]
    pub first_index: u32,
    /// The lines.
    pub executions: Vec<SubmitRequest>,
}

impl BulkRequest {
    /// What is wrong with a line because it is one: everything else is the request's own
    /// validation.
    #[must_use]
    pub fn line_fault(request: &SubmitRequest) -> Option<FieldError> {
        request.idempotency_key.as_ref().map(|_| FieldError {
            field: "idempotency_key".into(),
            message: "does not belong in a line: the submission's id and the line's number take its place".into(),
        })
    }
}

/// The answer to `POST /executions/bulk`: what became of each line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkAnswer {
    /// Recorded now.
    pub accepted: Vec<BulkEntry>,
    /// Recorded by an earlier request.
    pub existing: Vec<BulkEntry>,
    /// Not recorded.
    pub rejected: Vec<BulkRejection>,
}

/// A line that is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkEntry {
    /// The line's number within the whole submission, from 0.
    pub index: u32,
    /// Its execution.
    pub execution_id: ExecutionId,
}

/// A line that is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkRejection {
    /// The line's number within the whole submission, from 0.
    pub index: u32,
    /// Everything that is wrong with it.
    pub errors: Vec<FieldError>,
}

/// An execution as `GET /executions/{id}` shows it: the request's keys and what became of it. What
/// is not known is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutionView {
    /// Which.
    pub execution_id: ExecutionId,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// The command's own exit code.
    pub exit_code: Option<i32>,
    /// Why it ended as it did, in plain words.
    pub reason: Option<String>,
    /// The name of the key that submitted it.
    pub submitted_by: String,
    /// Who submitted it.
    #[serde(default)]
    pub submitted_by_id: Option<Principal>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When it was first launched.
    pub launched_at: Option<Timestamp>,
    /// When the command last started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// The commit that was checked out.
    pub commit: Option<String>,
    /// The digest of the image that ran.
    pub image_digest: Option<String>,
    /// Why it waits, while it does.
    pub waiting: Option<WaitingView>,
    /// Each try.
    pub attempts: Vec<AttemptView>,
    /// What happened.
    pub events: Vec<Event>,
    /// What was asked, with nothing left to defaults.
    #[serde(flatten)]
    pub request: RequestView,
}

/// The request as history shows it: all keys, `null` where nothing was set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the keys of SubmitRequest, which documents them"
)]
pub struct RequestView {
    pub command: String,
    pub repo: Option<String>,
    pub branch: Option<String>,
    pub image: Option<String>,
    /// `null` stands for a value that is not shown to the caller.
    pub env: BTreeMap<String, Option<String>>,
    pub secrets: Vec<String>,
    pub timeout: String,
    pub cpu: u32,
    pub memory: u32,
    pub arch: String,
    pub capacity: String,
    pub lock: Option<String>,
    pub group: Option<String>,
    #[serde(default)]
    pub max_parallel: Option<u32>,
    pub priority: i32,
    pub retries: u8,
    pub retry_on: Vec<String>,
    pub name: Option<String>,
    pub idempotency_key: Option<String>,
    pub task_role: Option<String>,
    pub registry_secret: Option<String>,
}

/// Why an execution waits, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingView {
    /// In words.
    pub reason: String,
    /// The limit's key.
    pub limit: String,
    /// How much of it is in use: vCPUs of a pool, holders of a lock.
    pub used: f64,
    /// The most that may be; `null` for no limit.
    pub max: Option<f64>,
    /// Its place in line, from 1: exact up to 100.
    pub place: u32,
    /// About how long it will wait, in seconds, if that can be told.
    pub estimate_seconds: Option<u64>,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Counted from 1.
    pub attempt: u32,
    /// The capacity it ran on: `spot`, `on-demand`, `machine`.
    pub capacity: String,
    /// The task.
    pub task_arn: Option<String>,
    /// Its log stream.
    pub log_stream: Option<String>,
    /// When `RunTask` was called.
    pub launched_at: Timestamp,
    /// When the command started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// The command's own exit code.
    pub exit_code: Option<i32>,
    /// Why it ended as it did.
    pub reason: Option<String>,
}

impl From<&Attempt> for AttemptView {
    fn from(attempt: &Attempt) -> Self {
        let end = attempt.closed.as_ref();
        Self {
            attempt: attempt.number,
            capacity: match attempt.pool {
                CapacityPool::FargateSpot => "spot",
                CapacityPool::Fargate => "on-demand",
                CapacityPool::Machine => "machine",
            }
            .into(),
            task_arn: attempt.task_arn.clone(),
            log_stream: attempt.task_arn.as_deref().map(crate::task::log_stream),
            launched_at: attempt.launched_at,
            started_at: attempt.started_at(),
            stopped_at: end.map(|end| end.at),
            exit_code: end.and_then(|end| end.outcome.exit_code()),
            reason: end.and_then(|end| end.outcome.reason()).map(str::to_owned),
        }
    }
}

impl ExecutionView {
    /// Whether nothing will change it any more. A status of a newer release does not tell; that it
    /// has stopped does.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.status {
            ExecutionStatus::Other(_) => self.stopped_at.is_some(),
            _ => self.status.is_final(),
        }
    }

    /// The view of a record; `waiting` is computed by who knows the line.
    #[must_use]
    pub fn new(execution: &Execution, waiting: Option<WaitingView>) -> Self {
        let (end, last) = (execution.end(), execution.attempts.last());
        Self {
            execution_id: execution.id.clone(),
            status: execution.status(),
            exit_code: end.and_then(|end| end.outcome.exit_code()),
            reason: end.map_or_else(
                || {
                    execution
                        .cancel
                        .as_ref()
                        .map(|cancel| format!("cancelled by {}, not over yet", cancel.by))
                },
                |end| end.outcome.reason().map(str::to_owned),
            ),
            submitted_by: execution.submitted_by.clone(),
            submitted_by_id: execution.submitted_by_id.clone(),
            submitted_at: execution.submitted_at,
            launched_at: execution
                .attempts
                .first()
                .map(|attempt| attempt.launched_at),
            started_at: last.and_then(Attempt::started_at),
            stopped_at: end.map(|end| end.at),
            commit: execution
                .attempts
                .iter()
                .rev()
                .find_map(|attempt| attempt.markers.commit.clone()),
            image_digest: last.and_then(|a| a.task.as_ref()?.container()?.image_digest.clone()),
            waiting,
            attempts: execution.attempts.iter().map(AttemptView::from).collect(),
            events: execution.events.clone(),
            request: RequestView::from(&execution.request),
        }
    }

    /// The view as this caller may see it.
    #[must_use]
    pub fn shown_to(mut self, caller: &Caller) -> Self {
        if !caller.sees_values() {
            self.request
                .env
                .values_mut()
                .for_each(|value| *value = None);
        }
        self
    }
}

impl From<&crate::request::LaunchRequest> for RequestView {
    fn from(request: &crate::request::LaunchRequest) -> Self {
        let asked = SubmitRequest::from(request);
        Self {
            command: request.command.clone(),
            repo: asked.repo,
            branch: asked.branch,
            image: asked.image,
            env: asked
                .env
                .into_iter()
                .map(|(name, value)| (name, Some(value)))
                .collect(),
            secrets: asked.secrets,
            timeout: request.timeout.to_string(),
            cpu: request.size.cpu(),
            memory: request.size.memory(),
            arch: request.arch.to_string(),
            capacity: request.capacity.to_string(),
            lock: asked.lock,
            group: asked.group,
            max_parallel: request.max_parallel,
            priority: request.priority,
            retries: request.retries,
            retry_on: asked.retry_on,
            name: asked.name,
            idempotency_key: asked.idempotency_key,
            task_role: asked.task_role,
            registry_secret: asked.registry_secret,
        }
    }
}

impl From<RequestView> for SubmitRequest {
    /// The request that asks for the same again, under no idempotency key. A variable whose value
    /// is hidden is not in it.
    fn from(view: RequestView) -> Self {
        Self {
            action: Some("exec".into()),
            command: Some(view.command),
            repo: view.repo,
            branch: view.branch,
            image: view.image,
            env: view
                .env
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            secrets: view.secrets,
            timeout: Some(view.timeout.into()),
            cpu: Some(view.cpu.to_string().into()),
            memory: Some(view.memory.to_string().into()),
            arch: Some(view.arch),
            capacity: Some(view.capacity),
            lock: view.lock,
            group: view.group,
            max_parallel: view.max_parallel.map(i64::from),
            priority: Some(view.priority.into()),
            retries: Some(view.retries.into()),
            retry_on: view.retry_on,
            name: view.name,
            idempotency_key: None,
            task_role: view.task_role,
            registry_secret: view.registry_secret,
        }
    }
}

/// An entry of a page of history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Listed {
    /// An execution.
    Run(Box<ExecutionView>),
    /// One whose record cannot be read.
    Unreadable(UnreadableView),
}

impl Listed {
    /// Which execution.
    #[must_use]
    pub fn id(&self) -> &ExecutionId {
        match self {
            Self::Run(run) => &run.execution_id,
            Self::Unreadable(unreadable) => &unreadable.execution_id,
        }
    }

    /// Where it stands, as far as can be told.
    #[must_use]
    pub fn status(&self) -> &ExecutionStatus {
        match self {
            Self::Run(run) => &run.status,
            Self::Unreadable(unreadable) => &unreadable.status,
        }
    }

    /// The execution, if its record can be read.
    #[must_use]
    pub fn run(&self) -> Option<&ExecutionView> {
        match self {
            Self::Run(run) => Some(run),
            Self::Unreadable(_) => None,
        }
    }
}

/// What can be told of an execution whose record this release cannot read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableView {
    /// Which.
    pub execution_id: ExecutionId,
    /// Always [`UNREADABLE`].
    pub status: ExecutionStatus,
    /// Why it cannot be read, in plain words.
    pub reason: String,
    /// When it was accepted: its id begins with that.
    pub submitted_at: Timestamp,
}

impl UnreadableView {
    /// The view of this execution.
    #[must_use]
    pub fn new(id: &ExecutionId, reason: String) -> Self {
        let status = ExecutionStatus::Other(UNREADABLE.to_owned());
        Self {
            execution_id: id.clone(),
            status,
            reason,
            submitted_at: id.made_at(),
        }
    }
}

/// The answer to `GET /executions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// Newest first.
    pub executions: Vec<Listed>,
    /// Pass it as `cursor` for the next page; `null` on the last.
    pub next_cursor: Option<String>,
}

/// The answer to `GET /groups/{group}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Its name.
    pub group: String,
    /// How it was last cancelled; `null` if it was not, in the last two days.
    pub cancel: Option<GroupCancelView>,
    /// The failed runs of a group that were last run again as members of this one; `null` if none
    /// were, in the last two days.
    #[serde(default)]
    pub rerun: Option<GroupRerunView>,
}

/// The body of `POST /groups/{group}/rerun-failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupRerunRequest {
    /// Sent again under the same id within 24 hours, nothing is run a second time. Without one a
    /// new id is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submission_id: Option<String>,
    /// The changes of each request; `group` is where the new executions are counted, the
    /// submission's id by default.
    pub changes: Changes,
    /// Secrets that each gets beside its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_secrets: Vec<String>,
}

/// Failed members of a group that are run again, and how far that is. The answer to `POST
/// /groups/{group}/rerun-failed` has it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRerunView {
    /// The group whose failed members are run again.
    pub of: String,
    /// The submission that the new executions are of.
    pub submission_id: String,
    /// Members that were submitted before this moment are run again.
    pub at: Timestamp,
    /// The name of the key that asked.
    pub by: String,
    /// What became of the failed members so far, by number.
    #[serde(flatten)]
    pub counts: Rerun,
    /// The first of those that cannot be run again, with the reasons.
    pub rejections: Vec<Rejection>,
    /// The new group was cancelled meanwhile, so the rest is not run again.
    pub cancelled: bool,
    /// All members were looked at.
    pub done: bool,
}

impl From<GroupRerun> for GroupRerunView {
    fn from(rerun: GroupRerun) -> Self {
        Self {
            of: rerun.of.to_string(),
            submission_id: rerun.submission,
            at: rerun.progress.at,
            by: rerun.by,
            counts: rerun.counts,
            rejections: rerun.rejections,
            cancelled: rerun.cancelled,
            done: rerun.progress.done,
        }
    }
}

/// A group that was cancelled, and how far its members are closed. The answer to `POST
/// /groups/{group}/cancel` has it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCancelView {
    /// Members that were submitted up to this moment do not start any more.
    pub at: Timestamp,
    /// The name of the key that asked.
    pub by: String,
    /// Members that were closed before they were started.
    pub cancelled: u32,
    /// Members that were asked to stop.
    pub stopping: u32,
    /// Members that could not be read, or that only a newer release can stop.
    pub passed_over: u32,
    /// All members were looked at once.
    pub looked_at_all: bool,
    /// All members are closed or asked to stop, and none can come any more.
    pub done: bool,
}

impl From<&GroupCancel> for GroupCancelView {
    fn from(mark: &GroupCancel) -> Self {
        Self {
            at: mark.progress.at,
            by: mark.by.clone(),
            cancelled: mark.cancelled,
            stopping: mark.stopping,
            passed_over: mark.passed_over,
            looked_at_all: mark.looks > 0,
            done: mark.progress.done,
        }
    }
}

/// The answer to `GET /executions/{id}/logs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsPage {
    /// The command's own lines, in order.
    pub lines: Vec<LogLineView>,
    /// Pass it as `cursor` to go on.
    pub next_cursor: Option<String>,
    /// Nothing will follow.
    pub complete: bool,
    /// Nothing was read, because logs are read too often in this account and region: ask again with
    /// the same cursor, not before `Retry-After`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub throttled: bool,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLineView {
    /// When.
    pub at: Timestamp,
    /// Without its line end.
    pub text: String,
}

/// A key as `GET /keys` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whose it is.
    #[serde(default)]
    pub principal: Option<Principal>,
    /// Until when keys of before are good too.
    #[serde(default)]
    pub old_key_until: Option<Timestamp>,
}

impl KeyView {
    /// As it is at this moment.
    #[must_use]
    pub fn new(key: &KeyRecord, now: Timestamp) -> Self {
        let previous = key
            .previous
            .iter()
            .map(|previous| previous.until)
            .filter(|until| now < *until);
        Self {
            name: key.name.clone(),
            role: key.role,
            created_at: key.created_at,
            principal: Some(key.principal()),
            old_key_until: previous.max(),
        }
    }
}

/// The answer to `GET /whoami`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whoami {
    /// The key's name.
    pub name: String,
    /// Whose key it is.
    pub principal: Principal,
    /// What it may do.
    pub role: Role,
}

/// The answer to `GET /version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The release that answers.
    pub version: String,
    /// The newest version of stored forms that it reads (docs/UPGRADING.md).
    pub form: u64,
}

/// The code of a request with faults.
const INVALID_REQUEST: &str = "invalid_request";

/// An error, as RFC 9457 `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub title: String,
    /// What is wrong with which field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem without fields.
    #[must_use]
    pub fn new(status: u16, code: &str, title: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            title: title.into(),
            errors: Vec::new(),
        }
    }

    /// A request with faults: 422.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let title = match errors.len() {
            1 => "the request has a fault".to_owned(),
            n => format!("the request has {n} faults"),
        };
        Self {
            errors,
            ..Self::new(422, INVALID_REQUEST, title)
        }
    }

    /// Whether it is a request with faults: the same request is refused again, and the caller can
    /// mend it.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        self.code == INVALID_REQUEST
    }
}
