//! The JSON of the REST API: executions and errors as callers see them.

use std::{collections::BTreeMap, ops::RangeInclusive};

use chrono::{NaiveDate, TimeDelta};
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    artifact::ArtifactPath,
    cost::Cost,
    ecs::TaskArn,
    execution::{ArtifactsState, Attempt, Event, Execution, ExecutionStatus, UNREADABLE},
    group::{
        GroupCancel, GroupRerun,
        rerun::{Rejection, RerunCounts},
    },
    id::ExecutionId,
    key::{Caller, KeyRecord, Role},
    limit::CapacityPool,
    price::NanoUsd,
    principal::Principal,
    request::{Changes, CommandLine, FieldError, SubmitRequest, TaskStorage},
    statistics::{Dimension, ReportRow, RunEnd, Sketch, Slot, StatsReport, Tally},
    timing::Timings,
};

/// The answer to `POST /execute`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The new execution.
    pub execution_id: ExecutionId,
    /// Its status.
    pub status: ExecutionStatus,
}

/// The largest body of `POST /executions/bulk`, in bytes. It is below Lambda's 6 MB (AWS-FACTS §7),
/// with room for the event around the body.
pub const BULK_BODY_MAX: usize = 4 * 1024 * 1024;
/// The largest such body as a string in the JSON of Lambda's event, in bytes ([`length_in_event`]).
/// Lambda takes 6 MB in all (AWS-FACTS §7); the rest is for the fields around the body.
pub const BULK_EVENT_MAX: usize = 5 * 1024 * 1024;

/// The length of a body as a string in the JSON of Lambda's event, where each quote and each
/// backslash takes two bytes.
#[must_use]
pub fn length_in_event(body: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..b' ' => 6,
        _ => 1,
    };
    body.bytes().map(escaped).sum()
}

/// The most executions in one `POST /executions/bulk`: few enough to be recorded within API
/// Gateway's 29 s (AWS-FACTS §7), and enough that ten thousand lines take only 20 requests.
pub const BULK_MAX: usize = 500;

/// How many requests of one submission a client has under way at once: enough that the network's
/// delay does not matter, few enough for one user of a stack.
pub const BULK_IN_FLIGHT: usize = 4;

/// The body of `POST /executions/bulk`: some consecutive lines of a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BulkRequest {
    /// The caller's own id for the whole submission.
    pub submission_id: String,
    /// The number of the first line within the whole submission, from 0.
    #[serde(default)]
    pub first_index: u32,
    /// The lines.
    pub executions: Vec<SubmitRequest>,
}

impl BulkRequest {
    /// The fault that a request has only as a line of a submission. All other faults are found by
    /// the request's own validation.
    #[must_use]
    pub fn line_fault(request: &SubmitRequest) -> Option<FieldError> {
        request.idempotency_key.as_ref().map(|_| FieldError {
            field: "idempotency_key".into(),
            message: "does not belong in a line: the submission's id and the line's number take its place".into(),
        })
    }
}

/// The answer to `POST /executions/bulk`: the result of each line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkAnswer {
    /// Lines recorded now.
    pub accepted: Vec<BulkEntry>,
    /// Lines recorded by an earlier request.
    pub existing: Vec<BulkEntry>,
    /// Lines not recorded.
    pub rejected: Vec<BulkRejection>,
}

/// A line that is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkEntry {
    /// The line's number within the whole submission, from 0.
    pub index: u32,
    /// The execution of the line.
    pub execution_id: ExecutionId,
}

/// A line that is not recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkRejection {
    /// The line's number within the whole submission, from 0.
    pub index: u32,
    /// Everything that is wrong with the line.
    pub errors: Vec<FieldError>,
}

/// An execution as `GET /executions/{id}` shows it: the request's keys and what is known of the
/// execution. Unknown values are `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutionView {
    /// The execution's id.
    pub execution_id: ExecutionId,
    /// Its status.
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
    /// Why it waits; `null` if it does not.
    pub waiting: Option<WaitingView>,
    /// Each attempt.
    pub attempts: Vec<AttemptView>,
    /// How long each phase took, over all attempts.
    #[serde(default)]
    pub timings: Timings,
    /// The cost of all attempts, once the run has ended; `null` if a price is not known.
    #[serde(default)]
    pub cost: Option<CostView>,
    /// The events.
    pub events: Vec<Event>,
    /// The request, with every default filled in.
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
    pub command: CommandLine,
    pub repo: Option<String>,
    pub branch: Option<String>,
    #[serde(default)]
    pub depth: Option<String>,
    #[serde(default)]
    pub submodules: bool,
    #[serde(default)]
    pub lfs: bool,
    pub image: Option<String>,
    /// The variables; `null` stands for a value that is not shown to the caller.
    pub env: BTreeMap<String, Option<String>>,
    pub secrets: Vec<String>,
    pub timeout: String,
    pub cpu: u32,
    pub memory: u32,
    #[serde(default)]
    pub storage: Option<u32>,
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
    /// The files to keep, and what is known of them; `null` if none are kept.
    #[serde(default)]
    pub artifacts: Option<ArtifactsView>,
    #[serde(default)]
    pub artifacts_on: Option<String>,
    pub idempotency_key: Option<String>,
    pub task_role: Option<String>,
    pub registry_secret: Option<String>,
}

/// The files of a run that are kept: those of its last attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactsView {
    /// The patterns that were asked for. In a request, the key `artifacts` is this list.
    #[serde(default)]
    pub globs: Vec<String>,
    /// How many files are kept; `null` until it is known.
    pub files: Option<u32>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Whether all files that the patterns name are kept.
    pub complete: Option<bool>,
    /// Why not all are.
    pub reason: Option<String>,
    /// When they are removed, if a time is set for that.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl ArtifactsView {
    fn new(execution: &Execution) -> Option<Self> {
        let asked = execution.request.artifacts.as_ref()?;
        let globs = asked.globs.iter().map(ToString::to_string).collect();
        let summary = match execution.artifacts()? {
            ArtifactsState::Pending => None,
            ArtifactsState::Kept(summary) => Some(summary),
        };
        Some(Self {
            globs,
            files: summary.as_ref().map(|summary| summary.files),
            bytes: summary.as_ref().map(|summary| summary.bytes),
            complete: summary.as_ref().map(|summary| summary.reason.is_none()),
            reason: summary.and_then(|summary| summary.reason),
            expires_at: None,
        })
    }
}

/// A cost at list price, in US dollars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostView {
    /// At least so much.
    pub usd_low: f64,
    /// At most so much: the price of Fargate Spot floats, and some times of some tasks are unknown.
    pub usd_high: f64,
    /// The source of the prices, in words.
    pub basis: String,
}

impl From<Cost> for CostView {
    fn from(cost: Cost) -> Self {
        Self {
            usd_low: cost.low.usd(),
            usd_high: cost.high.usd(),
            basis: cost.basis_in_words(),
        }
    }
}

/// A page of a run's artifacts: the answer to `GET /executions/{id}/artifacts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactsPage {
    /// The files.
    pub artifacts: Vec<ArtifactView>,
    /// The cursor of the next page; `null` at the end.
    pub next_cursor: Option<String>,
}

/// A file of a run that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// Its path below the folder that the command started in. `%` and bytes that are no UTF-8 are
    /// percent-encoded.
    pub path: ArtifactPath,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its permissions in octal digits.
    pub mode: String,
    /// Its SHA-256, as 64 hexadecimal digits.
    pub sha256: String,
    /// The number of the attempt that left it.
    pub attempt: u32,
    /// The address from which it can be downloaded for a while, without a key.
    pub url: String,
}

/// A page of the limits and of what waits for them: the answer to `GET /backlogs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BacklogsPage {
    /// The pools, then locks, then groups, each by name.
    pub backlogs: Vec<BacklogView>,
    /// The cursor of the next page; `null` at the end.
    pub next_cursor: Option<String>,
}

/// A limit, and the runs that wait for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BacklogView {
    /// The limit's key: `pool:fargate-spot`, `lock:NAME`, `group:NAME`.
    pub limit: String,
    /// How much of it is in use: vCPUs of a pool, holders of a lock, running members of a group.
    pub used: f64,
    /// The most that may be in use; `null` for no limit.
    pub max: Option<f64>,
    /// How many vCPUs of the pool were in use when ECS refused more, until more was accepted; `null`
    /// if ECS refuses none.
    pub adaptive_limit: Option<f64>,
    /// Why the first run waits, in words; `null` if none waits.
    pub reason: Option<String>,
    /// Since when the backlog does not move by itself.
    pub held_since: Option<Timestamp>,
    /// How many runs wait; of each submitter 1,000 at most are counted.
    pub runs: u32,
    /// When the one that waits longest was submitted.
    pub oldest_at: Option<Timestamp>,
    /// The runs that are next, in order. Those whose time has not come are left out.
    pub entries: Vec<BacklogEntryView>,
}

/// A run that waits for a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogEntryView {
    /// The run.
    pub execution_id: ExecutionId,
    /// Its position, from 1.
    pub position: u32,
    /// About how many seconds it will still wait, if that can be estimated.
    pub estimate_seconds: Option<u64>,
    /// The submitter's principal. An old run without one has the name of its key.
    pub submitted_by_id: String,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Its priority among those of the same submitter.
    pub priority: i32,
}

/// Why an execution waits, and at which position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "WaitingForm", into = "WaitingForm")]
pub struct WaitingView {
    /// The reason, in words.
    pub reason: String,
    /// The limit's key.
    pub limit: String,
    /// How much of the limit is in use: vCPUs of a pool, holders of a lock.
    pub used: f64,
    /// The most that may be in use; `null` for no limit.
    pub max: Option<f64>,
    /// Its position in the backlog, from 1: exact up to 100.
    pub position: u32,
    /// About how many seconds it will still wait, if that can be estimated.
    pub estimate_seconds: Option<u64>,
}

/// The JSON of a [`WaitingView`]. For one release it has the position under its old name, `place`,
/// as well. It is read under either name, from servers of the release before and of those to come.
#[derive(Serialize, Deserialize)]
struct WaitingForm {
    reason: String,
    limit: String,
    used: f64,
    max: Option<f64>,
    position: Option<u32>,
    place: Option<u32>,
    estimate_seconds: Option<u64>,
}

impl From<WaitingView> for WaitingForm {
    fn from(view: WaitingView) -> Self {
        Self {
            reason: view.reason,
            limit: view.limit,
            used: view.used,
            max: view.max,
            position: Some(view.position),
            place: Some(view.position),
            estimate_seconds: view.estimate_seconds,
        }
    }
}

impl From<WaitingForm> for WaitingView {
    fn from(form: WaitingForm) -> Self {
        Self {
            reason: form.reason,
            limit: form.limit,
            used: form.used,
            max: form.max,
            position: form.position.or(form.place).unwrap_or_default(),
            estimate_seconds: form.estimate_seconds,
        }
    }
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The capacity it ran on: `spot`, `on-demand`, `machine`.
    pub capacity: String,
    /// The ARN of its task.
    pub task_arn: Option<TaskArn>,
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
    /// How long each phase took.
    #[serde(default)]
    pub timings: Timings,
    /// The cost, once the attempt has ended; `null` if its price is not known.
    #[serde(default)]
    pub cost: Option<CostView>,
}

impl AttemptView {
    fn new(attempt: &Attempt, timings: Timings) -> Self {
        let end = attempt.closed.as_ref();
        Self {
            attempt: attempt.number,
            capacity: attempt.pool.capacity().into(),
            task_arn: attempt.task_arn.clone(),
            log_stream: attempt.task_arn.as_ref().map(TaskArn::log_stream),
            launched_at: attempt.launched_at,
            started_at: attempt.started_at(),
            stopped_at: end.map(|end| end.at),
            exit_code: end.and_then(|end| end.outcome.exit_code()),
            reason: end.and_then(|end| end.outcome.reason()).map(str::to_owned),
            timings,
            cost: attempt.cost().map(Into::into),
        }
    }
}

impl ExecutionView {
    /// Whether the execution has ended. A status of a newer release does not say so, but
    /// `stopped_at` does.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.status {
            ExecutionStatus::Other(_) => self.stopped_at.is_some(),
            _ => self.status.is_final(),
        }
    }

    /// The end of the run for statistics, but for the vCPUs of its tasks, which a view does not have.
    /// `None` while it has not ended.
    #[must_use]
    pub fn run_end(&self) -> Option<RunEnd> {
        let at = self.stopped_at.filter(|_| self.is_over())?;
        // An attempt without both was refused, and started nothing.
        let launched = |one: &AttemptView| one.task_arn.is_some() || one.stopped_at.is_some();
        let was_launched = self.attempts.iter().any(launched);
        let is_billed = |one: &AttemptView| {
            one.capacity != CapacityPool::Machine.capacity() && one.task_arn.is_some()
        };
        let is_billed = self.attempts.iter().any(is_billed);
        let cost = self.cost.as_ref();
        Some(RunEnd {
            id: self.execution_id.clone(),
            at,
            status: self.status.clone(),
            group: self.request.group.clone(),
            submitter: self.submitted_by.clone(),
            name: self.request.name.clone(),
            capacity: self.attempts.last().map_or_else(
                || self.request.capacity.clone(),
                |last| last.capacity.clone(),
            ),
            wait_ms: self.timings.queued_ms.filter(|_| was_launched),
            provisioning_ms: self.timings.provisioning_ms,
            run_ms: self.timings.running_ms,
            cpu_ms: 0,
            cost: cost.map(|cost| (NanoUsd::of(cost.usd_low), NanoUsd::of(cost.usd_high))),
            is_unpriced: is_billed && cost.is_none(),
        })
    }

    /// The view of a record. `waiting` is computed by a caller that knows the backlog.
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
            attempts: execution
                .attempts
                .iter()
                .zip(execution.attempt_timings())
                .map(|(attempt, timings)| AttemptView::new(attempt, timings))
                .collect(),
            timings: execution.timings(),
            cost: execution.cost().map(Into::into),
            events: execution.events.clone(),
            request: RequestView {
                artifacts: ArtifactsView::new(execution),
                ..RequestView::from(&execution.request)
            },
        }
    }

    /// The view with the time when its artifacts are removed, so many days after its end.
    #[must_use]
    pub fn keeping_artifacts(mut self, days: Option<u32>) -> Self {
        if let (Some(artifacts), Some(at), Some(days)) =
            (&mut self.request.artifacts, self.stopped_at, days)
        {
            artifacts.expires_at = Some(at + TimeDelta::days(days.into()));
        }
        self
    }

    /// The view with only what this caller may see.
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
            depth: asked.depth.map(|depth| depth.as_str().to_owned()),
            submodules: asked.submodules.unwrap_or_default(),
            lfs: asked.lfs.unwrap_or_default(),
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
            storage: request.storage.map(TaskStorage::gb),
            arch: request.arch.to_string(),
            capacity: request.capacity.to_string(),
            lock: asked.lock,
            group: asked.group,
            max_parallel: request.max_parallel,
            priority: request.priority,
            retries: request.retries,
            retry_on: asked.retry_on,
            name: asked.name,
            artifacts: Some(ArtifactsView {
                globs: asked.artifacts,
                ..ArtifactsView::default()
            })
            .filter(|view| !view.globs.is_empty()),
            artifacts_on: asked.artifacts_on,
            idempotency_key: asked.idempotency_key,
            task_role: asked.task_role,
            registry_secret: asked.registry_secret,
        }
    }
}

impl From<RequestView> for SubmitRequest {
    /// The request that asks for the same again, without an idempotency key. A variable whose value
    /// is hidden is left out.
    fn from(view: RequestView) -> Self {
        Self {
            action: Some("exec".into()),
            command: Some(view.command),
            repo: view.repo,
            branch: view.branch,
            depth: view.depth.map(Into::into),
            submodules: Some(view.submodules).filter(|asked| *asked),
            lfs: Some(view.lfs).filter(|asked| *asked),
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
            storage: view.storage.map(|storage| storage.to_string().into()),
            arch: Some(view.arch),
            capacity: Some(view.capacity),
            lock: view.lock,
            group: view.group,
            max_parallel: view.max_parallel.map(i64::from),
            priority: Some(view.priority.into()),
            retries: Some(view.retries.into()),
            retry_on: view.retry_on,
            name: view.name,
            artifacts: view.artifacts.map(|view| view.globs).unwrap_or_default(),
            artifacts_on: view.artifacts_on,
            idempotency_key: None,
            task_role: view.task_role,
            registry_secret: view.registry_secret,
        }
    }
}

/// An item of a page of history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Listed {
    /// An execution.
    Run(Box<ExecutionView>),
    /// An execution whose record cannot be read.
    Unreadable(UnreadableView),
}

impl Listed {
    /// The execution's id.
    #[must_use]
    pub fn id(&self) -> &ExecutionId {
        match self {
            Self::Run(run) => &run.execution_id,
            Self::Unreadable(unreadable) => &unreadable.execution_id,
        }
    }

    /// Its status, as far as is known.
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

/// The view of an execution whose record this release cannot read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableView {
    /// The execution's id.
    pub execution_id: ExecutionId,
    /// Always [`UNREADABLE`].
    pub status: ExecutionStatus,
    /// Why it cannot be read, in plain words.
    pub reason: String,
    /// When it was accepted. This is known because its id begins with that time.
    pub submitted_at: Timestamp,
}

impl UnreadableView {
    /// Makes the view of this execution.
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
    /// The executions, newest first.
    pub executions: Vec<Listed>,
    /// Pass it as `cursor` for the next page; `null` on the last.
    pub next_cursor: Option<String>,
}

/// The answer to `GET /groups/{group}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Its name.
    pub group: String,
    /// The last cancellation of the group; `null` if there was none in the last two days.
    pub cancel: Option<GroupCancelView>,
    /// The last rerun that made members of this group from failed members of a group; `null` if
    /// there was none in the last two days.
    #[serde(default)]
    pub rerun: Option<GroupRerunView>,
}

/// The body of `POST /groups/{group}/rerun-failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupRerunRequest {
    /// The submission's id. Sent again under the same id within 24 hours, the request runs nothing
    /// twice. Without an id a new one is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submission_id: Option<String>,
    /// The changes of each request. `group` is the group of the new executions, by default the
    /// submission's id.
    pub changes: Changes,
    /// Secrets that each request gets in addition to its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_secrets: Vec<String>,
}

/// A rerun of failed members of a group, and its progress. The answer to
/// `POST /groups/{group}/rerun-failed` includes it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRerunView {
    /// The group whose failed members are run again.
    pub of: String,
    /// The submission of the new executions.
    pub submission_id: String,
    /// Members that were submitted before this moment are run again.
    pub at: Timestamp,
    /// The name of the key that asked.
    pub by: String,
    /// The results of the failed members so far, as counts.
    #[serde(flatten)]
    pub counts: RerunCounts,
    /// The first members that cannot be run again, with the reasons.
    pub rejections: Vec<Rejection>,
    /// Whether the new group was cancelled meanwhile, so that the rest is not run again.
    pub cancelled: bool,
    /// Whether all members were looked at.
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

/// A cancellation of a group, and its progress. The answer to `POST /groups/{group}/cancel`
/// includes it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCancelView {
    /// Members that were submitted up to this moment are no longer started.
    pub at: Timestamp,
    /// The name of the key that asked.
    pub by: String,
    /// Members that were closed before they were started.
    pub cancelled: u32,
    /// Members that were asked to stop.
    pub stopping: u32,
    /// Members that could not be read, or that only a newer release can stop.
    pub passed_over: u32,
    /// Whether all members were looked at once.
    pub looked_at_all: bool,
    /// Whether all members are closed or asked to stop, and no more can come.
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
    /// Pass it as `cursor` to continue.
    pub next_cursor: Option<String>,
    /// Whether no line will follow.
    pub complete: bool,
    /// Whether nothing was read, because CloudWatch Logs throttles reads in this account and
    /// region. Ask again with the same cursor, not before `Retry-After`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub throttled: bool,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLineView {
    /// When the line was written.
    pub at: Timestamp,
    /// The text without its line end.
    pub text: String,
}

/// A key as `GET /keys` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Its name.
    pub name: String,
    /// The actions that it may take.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// The principal that the key belongs to.
    #[serde(default)]
    pub principal: Option<Principal>,
    /// The last moment at which an earlier key of this name is still valid; `null` if none is.
    #[serde(default)]
    pub old_key_until: Option<Timestamp>,
}

impl KeyView {
    /// The view of a key at this moment.
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

/// The answer to `GET /stats`: the runs that ended on these days.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatsView {
    /// The first day, in UTC.
    pub since: NaiveDate,
    /// The last day, in UTC.
    pub until: NaiveDate,
    /// The property that the runs are grouped by.
    pub by: Dimension,
    /// A row for each value that runs had: days with the newest first, others with those of the
    /// most runs first.
    pub rows: Vec<StatsRow>,
    /// All runs of these days.
    pub total: TallyView,
}

impl StatsView {
    /// The view of a report on these days.
    #[must_use]
    pub fn new(days: RangeInclusive<NaiveDate>, by: Dimension, report: StatsReport) -> Self {
        let (since, until) = days.into_inner();
        Self {
            since,
            until,
            by,
            rows: report.rows.into_iter().map(StatsRow::from).collect(),
            total: TallyView::from(&report.total),
        }
    }
}

/// The runs with one value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatsRow {
    /// The value: a day, a status, a name. `null` for runs without one, and for `other`.
    pub value: Option<String>,
    /// Whether these are the runs of all values that have no row of their own.
    pub other: bool,
    /// Their counts, times and cost.
    #[serde(flatten)]
    pub tally: TallyView,
}

impl From<ReportRow> for StatsRow {
    fn from(row: ReportRow) -> Self {
        let ReportRow { day, slot, tally } = row;
        let (value, other) = match slot {
            Slot::Value(value) => (Some(value), false),
            Slot::None => (day.map(|day| day.to_string()), false),
            Slot::Other => (None, true),
        };
        Self {
            value,
            other,
            tally: TallyView::from(&tally),
        }
    }
}

/// The counts, times and cost of some runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TallyView {
    /// All runs.
    pub runs: u64,
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
    /// The part of those that were not cancelled that succeeded, from 0 to 1; `null` if there are
    /// none.
    pub success_rate: Option<f64>,
    /// How long they waited for their launches.
    pub wait_ms: QuantilesView,
    /// How long their commands ran.
    pub run_ms: QuantilesView,
    /// The vCPUs that tasks had, times the hours that they had them. `null` where it is not counted.
    pub vcpu_hours: Option<f64>,
    /// The cost at list price of those whose prices are known; `null` if there are none.
    pub cost: Option<CostSum>,
    /// How many runs had a task whose price is not known.
    pub unpriced: u64,
}

impl From<&Tally> for TallyView {
    fn from(tally: &Tally) -> Self {
        Self {
            runs: tally.runs,
            succeeded: tally.succeeded,
            cancelled: tally.cancelled,
            success_rate: tally.success_rate(),
            wait_ms: QuantilesView::from(&tally.wait),
            run_ms: QuantilesView::from(&tally.run),
            vcpu_hours: Some(tally.vcpu_hours()),
            cost: (tally.cost_high.0 > 0).then(|| CostSum {
                usd_low: tally.cost_low.usd(),
                usd_high: tally.cost_high.usd(),
            }),
            unpriced: tally.unpriced,
        }
    }
}

/// Two quantiles of lengths of time, in milliseconds: less than 2 % off, or half a millisecond more.
/// `null` if there are no lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantilesView {
    /// The median.
    pub p50: Option<u64>,
    /// The length that 95 % do not exceed.
    pub p95: Option<u64>,
}

impl From<&Sketch> for QuantilesView {
    fn from(sketch: &Sketch) -> Self {
        Self {
            p50: sketch.quantile(0.5),
            p95: sketch.quantile(0.95),
        }
    }
}

/// A sum of costs at list price, in US dollars.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostSum {
    /// At least so much.
    pub usd_low: f64,
    /// At most so much.
    pub usd_high: f64,
}

/// The answer to `GET /whoami`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whoami {
    /// The key's name.
    pub name: String,
    /// The principal that the key belongs to.
    pub principal: Principal,
    /// The actions that it may take.
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

/// The code of a request that has faults.
const INVALID_REQUEST: &str = "invalid_request";

/// An error, as RFC 9457 `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The code, stable for programs.
    pub code: String,
    /// The message, for people.
    pub title: String,
    /// The faults, by field.
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

    /// The problem of a request that has faults: 422.
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

    /// Whether it is about a request that has faults: the same request is refused again, and the
    /// caller can correct it.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        self.code == INVALID_REQUEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client of this release talks to servers of the release before and of the next one.
    #[test]
    fn a_position_is_sent_under_both_names_and_read_under_either() {
        let view = WaitingView {
            reason: "lock prod is held".into(),
            limit: "lock:prod".into(),
            used: 1.0,
            max: Some(1.0),
            position: 7,
            estimate_seconds: None,
        };
        let sent = serde_json::to_value(&view).expect("it is JSON");
        assert_eq!((&sent["position"], &sent["place"]), (&7.into(), &7.into()));
        for other in ["position", "place"] {
            let mut received = sent.clone();
            received.as_object_mut().expect("an object").remove(other);
            let read: WaitingView = serde_json::from_value(received).expect("it is a view");
            assert_eq!(read, view, "without {other}");
        }
    }
}
