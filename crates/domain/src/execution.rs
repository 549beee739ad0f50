//! The record of an execution: its request, its attempts, and what is known of them.

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    Timestamp,
    artifact::Uploaded,
    container::{INIT, RUNNING_WITHIN_MINUTES},
    ecs::{Container, RunTaskInput, Task, TaskArn, TaskStatus},
    id::{AttemptId, ExecutionId},
    key::Role,
    limit::{Allocation, CapacityPool, LimitKey},
    marker::Marker,
    price::AttemptPrice,
    principal::Principal,
    request::LaunchRequest,
    settings::Settings,
    stored::Unknown,
};

mod artifacts;

pub use self::artifacts::ArtifactsState;

/// Everything history keeps of one execution.
///
/// A store writes it whole, and only if `revision` is still the one that was read. So every change
/// is a pure function from one record to the next (see [`crate::transition`]), and two writers
/// never overwrite each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// The execution's id.
    pub id: ExecutionId,
    /// The number of writes so far; the store's condition for the next one.
    pub revision: u64,
    /// The validated request.
    pub request: LaunchRequest,
    /// The pool whose vCPUs it uses.
    pub pool: CapacityPool,
    /// The name of the key that submitted it, for people.
    pub submitted_by: String,
    /// The principal that submitted it; `None` in a record from before principals existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_by_id: Option<Principal>,
    /// The role of the key that submitted it; `None` in a record from before the role was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_role: Option<Role>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// Its current state.
    pub state: State,
    /// The request to cancel it, if there was one.
    pub cancel: Option<Cancel>,
    /// Each attempt, oldest first; the last one is the current one.
    pub attempts: Vec<Attempt>,
    /// The events, in the order in which they became known.
    pub events: Vec<Event>,
    /// Fields of the stored form that only a newer release knows; the store writes them back.
    #[serde(skip)]
    pub unknown: Unknown,
}

/// The state of an execution. Data that only makes sense in one state lives in that state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "SCREAMING_SNAKE_CASE", remote = "Self")]
pub enum State {
    /// Recorded; no launcher has looked at it yet.
    Queued {
        /// The backlog that has its entry.
        #[serde(rename = "line")]
        backlog: LimitKey,
    },
    /// A limit holds it, or a retry is due later.
    Waiting {
        /// The backlog that has its entry.
        #[serde(rename = "line")]
        backlog: LimitKey,
        /// Which limit holds it, in words. It is refreshed whenever a launcher looks at the
        /// backlog.
        reason: String,
        /// The earliest time of the launch (a retry's backoff).
        not_before: Option<Timestamp>,
    },
    /// `RunTask` was called or is about to be called.
    Launching,
    /// The task runs.
    Running,
    /// The execution has ended.
    Final(Final),
    /// A state of a newer release. This release changes nothing in such a record.
    #[serde(untagged)]
    Other {
        /// The newer release's name for the state.
        status: String,
    },
}

/// The `status` of each [`State`] that this release knows, as it is stored.
const KNOWN_STATES: [&str; 5] = ["QUEUED", "WAITING", "LAUNCHING", "RUNNING", "FINAL"];

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for State {
    /// Reads a state. A known state must be complete. A state or an outcome of a newer release
    /// becomes [`State::Other`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let word = |value: &serde_json::Value, name: &str| {
            value
                .get(name)
                .and_then(|word| word.as_str())
                .map(str::to_owned)
        };
        let status = word(&value, "status").ok_or_else(|| D::Error::missing_field("status"))?;
        let outcome = value
            .get("outcome")
            .and_then(|outcome| word(outcome, "outcome"));
        let is_known = KNOWN_STATES.contains(&status.as_str())
            && outcome.is_none_or(|outcome| Outcome::WORDS.contains(&outcome.as_str()));
        if is_known {
            Self::deserialize(value).map_err(D::Error::custom)
        } else {
            Ok(Self::Other { status })
        }
    }
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Final {
    /// The outcome.
    pub outcome: Outcome,
    /// When it ended.
    pub at: Timestamp,
}

/// The end of an attempt, and so of an execution that is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The command exited 0.
    Succeeded,
    /// The command exited with another code, or never ran.
    Failed {
        /// The command's own exit code; `None` when there is none.
        exit_code: Option<i32>,
        /// The reason, in plain words.
        reason: String,
    },
    /// The command exceeded its timeout.
    TimedOut {
        /// The reason, in plain words.
        reason: String,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// The reason, in plain words, with the name of the caller who cancelled.
        reason: String,
    },
    /// It is unknown how it ended.
    Lost {
        /// The reason, in plain words.
        reason: String,
    },
}

impl Outcome {
    /// The stored name of each outcome.
    const WORDS: [&str; 5] = ["succeeded", "failed", "timed_out", "cancelled", "lost"];

    /// The command's exit code, if it is known and its own.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Succeeded => Some(0),
            Self::Failed { exit_code, .. } => *exit_code,
            Self::TimedOut { .. } | Self::Cancelled { .. } | Self::Lost { .. } => None,
        }
    }

    /// The reason, in plain words; `None` for a success.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Succeeded => None,
            Self::Failed { reason, .. }
            | Self::TimedOut { reason }
            | Self::Cancelled { reason }
            | Self::Lost { reason } => Some(reason),
        }
    }

    /// The status for this outcome.
    #[must_use]
    pub fn status(&self) -> ExecutionStatus {
        match self {
            Self::Succeeded => ExecutionStatus::Succeeded,
            Self::Failed { .. } => ExecutionStatus::Failed,
            Self::TimedOut { .. } => ExecutionStatus::TimedOut,
            Self::Cancelled { .. } => ExecutionStatus::Cancelled,
            Self::Lost { .. } => ExecutionStatus::Lost,
        }
    }
}

/// The status of an execution, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ExecutionStatus {
    /// Recorded.
    Queued,
    /// A limit holds it.
    Waiting,
    /// `RunTask` was called.
    Launching,
    /// The task runs.
    Running,
    /// Exit code 0.
    Succeeded,
    /// Another exit code, or the command never ran.
    Failed,
    /// The command exceeded its timeout.
    TimedOut,
    /// Cancelled by somebody.
    Cancelled,
    /// It is unknown how it ended.
    Lost,
    /// A status of a newer release, or one that is only shown ([`UNREADABLE`]).
    Other(String),
}

/// The status shown for an execution whose record cannot be read. It is never stored.
pub const UNREADABLE: &str = "UNREADABLE";

impl ExecutionStatus {
    /// Every status that this release knows, in the order an execution may pass them.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Waiting,
        Self::Launching,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Lost,
    ];

    /// The status as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Queued => "QUEUED",
            Self::Waiting => "WAITING",
            Self::Launching => "LAUNCHING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Cancelled => "CANCELLED",
            Self::Lost => "LOST",
            Self::Other(word) => word,
        }
    }

    /// Whether the status can no longer change.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::TimedOut | Self::Cancelled | Self::Lost
        )
    }

    /// Whether it is a failure: `FAILED`, `TIMED_OUT` or `LOST`. A cancelled execution is none,
    /// because its result was no longer wanted.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut | Self::Lost)
    }
}

impl std::fmt::Display for ExecutionStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<String> for ExecutionStatus {
    /// Any text is a status, because a newer release may have more of them.
    fn from(word: String) -> Self {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == word)
            .unwrap_or(Self::Other(word))
    }
}

impl From<ExecutionStatus> for String {
    fn from(status: ExecutionStatus) -> Self {
        status.as_str().to_owned()
    }
}

impl std::str::FromStr for ExecutionStatus {
    type Err = String;

    /// Reads a status that this release knows, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| {
                let words: Vec<_> = Self::ALL.iter().map(Self::as_str).collect();
                format!("'{text}' is not a status; use one of {}", words.join(", "))
            })
    }
}

/// A request to stop an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// When it was asked for.
    pub at: Timestamp,
    /// The name of the key that asked, for people.
    pub by: String,
    /// The principal that asked; `None` in a record from before principals existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_id: Option<Principal>,
}

/// An event, as history shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened, or became known.
    pub at: Timestamp,
    /// The status from then on.
    pub status: ExecutionStatus,
    /// Details in plain words.
    #[serde(default)]
    pub reason: Option<String>,
}

/// One attempt to run an execution as a task.
///
/// The record keeps *facts* about the task that are only ever merged: the newest snapshot by
/// `detail.version`, and each marker once. The attempt's status is computed from them, so the order
/// in which they arrive does not matter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The pool it runs in.
    pub pool: CapacityPool,
    /// The CPU units of the pool that it holds while it is not closed.
    pub cpu: u32,
    /// Known to the runner and to mycli only, so that the command cannot forge a marker line.
    pub nonce: String,
    /// The hash of the token with which its runner calls our API
    /// ([`AttemptToken::hash`](crate::attempt_secret::AttemptToken::hash)); `None` if it need not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_hash: Option<String>,
    /// The exact input of `RunTask`, from before the call until the task is known.
    pub run_task: Option<RunTaskInput>,
    /// When `RunTask` was about to be called.
    pub launched_at: Timestamp,
    /// The price of an hour, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<AttemptPrice>,
    /// The repeated calls of `RunTask`, made because its outcome was unknown: the latest call, and
    /// the calls before it that may have started the task.
    #[serde(default, rename = "called_again")]
    pub repeated_calls: Vec<RepeatedCall>,
    /// How often `RunTask` refused this attempt for lack of capacity; part of the next client
    /// token.
    pub refusals: u32,
    /// The task, once known.
    pub task_arn: Option<TaskArn>,
    /// The newest snapshot of the task.
    pub task: Option<Task>,
    /// The facts from the marker lines.
    #[serde(rename = "said")]
    pub markers: MarkerFacts,
    /// The sweep asked for a stop because the task was far past its timeout.
    pub overdue: bool,
    /// ECS no longer knows the task.
    pub gone: bool,
    /// How it ended. While this is `None` after the launch, the attempt holds its allocation.
    pub closed: Option<Final>,
}

/// A call of `RunTask` that repeats the input of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatedCall {
    /// When it was about to be made.
    pub at: Timestamp,
    /// The call was refused, and so started nothing.
    pub refused: bool,
}

/// The facts from the runner's marker lines; each line appears at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MarkerFacts {
    /// When set-up began.
    pub set_up_at: Option<Timestamp>,
    /// The commit that was checked out.
    pub commit: Option<String>,
    /// When the command began.
    pub started_at: Option<Timestamp>,
    /// When the command or the set-up ended, however it ended.
    pub ended_at: Option<Timestamp>,
    /// The command's own exit code.
    pub exit: Option<i32>,
    /// The timeout was exceeded.
    pub timed_out: bool,
    /// Why the set-up failed, if it did.
    pub set_up_failure: Option<String>,
    /// The files of the command that are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<Uploaded>,
    /// The log was read to its end after the task stopped: a marker that is missing here was not
    /// written.
    pub complete: bool,
}

impl MarkerFacts {
    /// Merges one marker line.
    pub fn record(&mut self, at: Timestamp, marker: &Marker) {
        match marker {
            Marker::SetUp => self.set_up_at = self.set_up_at.or(Some(at)),
            Marker::Commit(commit) => {
                self.commit = self.commit.take().or_else(|| Some(commit.clone()));
            }
            Marker::Start => self.started_at = self.started_at.or(Some(at)),
            Marker::Exit(code) => self.exit = self.exit.or(Some(*code)),
            Marker::Uploading => self.exit = self.exit.or(Some(0)),
            Marker::Timeout => self.timed_out = true,
            Marker::Fail(why) => {
                self.set_up_failure = self.set_up_failure.take().or_else(|| Some(why.clone()));
            }
            // On one machine a later line corrects the runner's, if the files were lost after it.
            Marker::Uploaded(summary) => {
                let new = Uploaded {
                    at,
                    summary: summary.clone(),
                };
                let is_older = |known: &Uploaded| known.order() < new.order();
                if self.uploaded.as_ref().is_none_or(is_older) {
                    self.uploaded = Some(new);
                }
            }
            Marker::Ended | Marker::Other => {}
        }
        if marker.is_outcome() {
            self.ended_at = self.ended_at.or(Some(at));
        }
    }

    /// Whether a marker line shows that the runner ran in the container of the command.
    #[must_use]
    pub fn of_its_run(&self) -> bool {
        self.set_up_at.is_some() || self.of_its_command() || self.set_up_failure.is_some()
    }

    /// Whether a marker line shows that the command ran.
    #[must_use]
    pub fn of_its_command(&self) -> bool {
        self.started_at.is_some() || self.exit.is_some() || self.timed_out
    }

    /// Whether the marker lines say how it ended.
    #[must_use]
    pub fn is_conclusive(&self) -> bool {
        self.exit.is_some() || self.timed_out || self.set_up_failure.is_some()
    }
}

impl Attempt {
    /// The time of the last `RunTask` call that may have started the task. ECS may take a while
    /// from then on until it lists the task.
    #[must_use]
    pub fn last_called_at(&self) -> Timestamp {
        self.repeated_calls
            .iter()
            .filter(|call| !call.refused)
            .map(|call| call.at)
            .fold(self.launched_at, Timestamp::max)
    }

    /// Whether the attempt holds its allocation.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// Whether the task has stopped, as far as is known.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.gone
            || self
                .task
                .as_ref()
                .is_some_and(|task| task.last_status == TaskStatus::Stopped)
    }

    /// Whether its outcome can only be known from its log: the task stopped, but the runner's last
    /// marker line was not delivered.
    #[must_use]
    pub fn needs_its_log(&self) -> bool {
        self.is_open() && self.is_stopped()
    }

    /// Whether its task may have written output: it was seen running or stopped, or a marker line
    /// was seen.
    #[must_use]
    pub fn may_have_output(&self) -> bool {
        self.markers.set_up_at.is_some() || self.runs() || self.is_stopped()
    }

    /// When all output of a stopped task has surely arrived; `None` while it runs.
    #[must_use]
    pub fn log_settles_at(&self, settings: &Settings) -> Option<Timestamp> {
        let stopped_at = self
            .task
            .as_ref()
            .and_then(|task| task.stopped_at)
            .filter(|_| self.is_stopped())?;
        Some(stopped_at + TimeDelta::seconds(i64::from(settings.log_delay_seconds)))
    }

    /// Whether the command may have started. Such a command is not run again unless the user asked.
    #[must_use]
    pub fn may_have_started(&self) -> bool {
        let task = self.task.as_ref();
        // Without the runner, which `init` brings in, nothing starts.
        let is_without_runner = task
            .and_then(|task| task.named(INIT))
            .is_some_and(Container::has_failed);
        if is_without_runner && !self.markers.of_its_run() {
            return false;
        }
        let container = task.and_then(Task::container);
        self.started_at().is_some() || container.is_some_and(|c| c.exit_code.is_some())
    }

    /// When the command started, as precisely as is known: by its marker line, else by the task.
    #[must_use]
    pub fn started_at(&self) -> Option<Timestamp> {
        self.markers
            .started_at
            .or_else(|| self.task.as_ref()?.started_at)
    }
}

/// An execution's entry in a backlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogEntry {
    /// The execution.
    pub id: ExecutionId,
    /// The backlog.
    pub backlog: LimitKey,
    /// The submitter ([`Execution::submitter`]). Backlogs are fair between submitters.
    pub submitter: String,
    /// The priority: among one submitter's entries the larger one goes first.
    pub priority: i32,
    /// When the execution was accepted: at equal priority the older one goes first. It does not
    /// change when the entry moves to another backlog and back.
    pub submitted_at: Timestamp,
    /// The earliest time of the launch.
    pub not_before: Option<Timestamp>,
}

impl Execution {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> ExecutionStatus {
        match &self.state {
            State::Queued { .. } => ExecutionStatus::Queued,
            State::Waiting { .. } => ExecutionStatus::Waiting,
            State::Launching => ExecutionStatus::Launching,
            State::Running => ExecutionStatus::Running,
            State::Final(end) => end.outcome.status(),
            State::Other { status } => ExecutionStatus::Other(status.clone()),
        }
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<&Final> {
        match &self.state {
            State::Final(end) => Some(end),
            _ => None,
        }
    }

    /// The attempt that is being launched or runs.
    #[must_use]
    pub fn open_attempt(&self) -> Option<&Attempt> {
        self.attempts.last().filter(|attempt| {
            attempt.is_open() && matches!(self.state, State::Launching | State::Running)
        })
    }

    /// The id of the attempt of this number.
    #[must_use]
    pub fn attempt_id(&self, attempt: &Attempt) -> AttemptId {
        self.id.attempt(attempt.number)
    }

    /// The submitter, by which backlogs are fair: the principal, or the key's name in a record from
    /// before principals existed.
    #[must_use]
    pub fn submitter(&self) -> String {
        self.submitted_by_id
            .as_ref()
            .map_or_else(|| self.submitted_by.clone(), ToString::to_string)
    }

    /// Its backlog entry, while it waits.
    #[must_use]
    pub fn backlog_entry(&self) -> Option<BacklogEntry> {
        let (backlog, not_before) = match &self.state {
            State::Queued { backlog } => (backlog, None),
            State::Waiting {
                backlog,
                not_before,
                ..
            } => (backlog, *not_before),
            State::Launching | State::Running | State::Final(_) | State::Other { .. } => {
                return None;
            }
        };
        Some(BacklogEntry {
            id: self.id.clone(),
            backlog: backlog.clone(),
            submitter: self.submitter(),
            priority: self.request.priority,
            submitted_at: self.submitted_at,
            not_before,
        })
    }

    /// The allocations it needs for a launch, all or none. They are in the order in which its entry
    /// passes their backlogs.
    #[must_use]
    pub fn demand(&self) -> Vec<Allocation> {
        let pool = Allocation {
            key: LimitKey::Pool(self.pool),
            amount: self.request.size.cpu(),
        };
        let lock = self.request.lock.clone().map(LimitKey::Lock);
        let group = self
            .request
            .max_parallel
            .and(self.request.group.clone())
            .map(LimitKey::Group);
        let own = lock
            .into_iter()
            .chain(group)
            .map(|key| Allocation { key, amount: 1 });
        own.chain([pool]).collect()
    }

    /// The backlogs in which its start is charged to its submitter, once it is launched: all that
    /// it passed. So an execution that went from a group's backlog to the pool's is charged in
    /// both.
    pub fn started_from(&self) -> impl Iterator<Item = LimitKey> {
        self.allocations()
            .into_iter()
            .map(|allocation| allocation.key)
    }

    /// The allocations it holds now. A store derives its counters from the difference between two
    /// versions of a record, in the write that changes it. So a slot is never leaked and never
    /// released twice.
    #[must_use]
    pub fn allocations(&self) -> Vec<Allocation> {
        let holds = self.open_attempt().is_some() || self.may_hold();
        if holds { self.demand() } else { Vec::new() }
    }

    /// Whether an execution in a state of a newer release may hold the allocations of its last
    /// attempt: that attempt was launched and is not closed.
    fn may_hold(&self) -> bool {
        let launched = |attempt: &Attempt| {
            attempt.is_open() && (attempt.run_task.is_some() || attempt.task_arn.is_some())
        };
        matches!(self.state, State::Other { .. }) && self.attempts.last().is_some_and(launched)
    }

    /// The reason that ECS is given for stopping its task and shows as `stoppedReason`.
    #[must_use]
    pub fn stop_reason(&self) -> String {
        let never_ran = |attempt: &Attempt| attempt.started_at().is_none();
        match &self.cancel {
            Some(cancel) => format!("cancelled by {}", cancel.by),
            None if self.open_attempt().is_some_and(never_ran) => {
                format!("not running {RUNNING_WITHIN_MINUTES} minutes after its launch")
            }
            None => "past its timeout".to_owned(),
        }
    }
}
