//! The record of an execution: what was asked, what was tried, what is known.

use chrono::TimeDelta;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    Timestamp,
    ecs::{RunTaskInput, Task},
    id::{AttemptId, ExecutionId},
    key::Role,
    limit::{Allocation, CapacityPool, LimitKey},
    marker::Marker,
    principal::Principal,
    request::LaunchRequest,
    settings::Settings,
    stored::Unknown,
};

/// Everything history keeps of one execution.
///
/// A store writes it whole and only if `revision` is still the one that was read, so every change
/// is a pure function from one record to the next (see [`crate::transition`]) and two writers never
/// overwrite each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Which execution.
    pub id: ExecutionId,
    /// Counts the writes; the store's condition.
    pub revision: u64,
    /// What was asked, validated.
    pub request: LaunchRequest,
    /// The pool whose vCPUs it uses.
    pub pool: CapacityPool,
    /// The name of the key that submitted it, for people.
    pub submitted_by: String,
    /// Who submitted it; none in a record of before there were principals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_by_id: Option<Principal>,
    /// The role of the key that submitted it; none in a record of before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_role: Option<Role>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// Where it stands.
    pub state: State,
    /// Who asked for it to be cancelled, if anybody did.
    pub cancel: Option<Cancel>,
    /// Each try, oldest first; the last one is the current one.
    pub attempts: Vec<Attempt>,
    /// What happened, in the order it was learned.
    pub events: Vec<Event>,
    /// What a newer release wrote into the stored form; the store writes it back.
    #[serde(skip)]
    pub unknown: Unknown,
}

/// Where an execution stands. What only makes sense in one state lives in that state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "SCREAMING_SNAKE_CASE", remote = "Self")]
pub enum State {
    /// Recorded; nobody has looked at it yet.
    Queued {
        /// The backlog its entry stands in.
        #[serde(rename = "line")]
        backlog: LimitKey,
    },
    /// The throttle holds it, or a retry is due later.
    Waiting {
        /// The backlog its entry stands in.
        #[serde(rename = "line")]
        backlog: LimitKey,
        /// Which limit holds it, in words; refreshed whenever the launcher looks.
        reason: String,
        /// Not before this moment (a retry's backoff).
        not_before: Option<Timestamp>,
    },
    /// `RunTask` was or is about to be called.
    Launching,
    /// The task runs.
    Running,
    /// It is over.
    Final(Final),
    /// A state of a newer release. Nothing here changes such a record: it is for that release to go
    /// on with it.
    #[serde(untagged)]
    Other {
        /// That release's word for it.
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
    /// A known state must be whole. One of a newer release is taken for what it is, also where only
    /// its outcome is new.
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
    /// Which of the final states.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
}

/// The end of an attempt, and so of an execution that is not tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The command exited 0.
    Succeeded,
    /// The command exited otherwise, or never ran.
    Failed {
        /// The command's own exit code; `None` when there is none.
        exit_code: Option<i32>,
        /// In plain words.
        reason: String,
    },
    /// The command ran out of its time.
    TimedOut {
        /// In plain words.
        reason: String,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// In plain words, with the name of who asked.
        reason: String,
    },
    /// Nothing can tell how it ended.
    Lost {
        /// In plain words.
        reason: String,
    },
}

impl Outcome {
    /// The word that each is stored as.
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

    /// Why, in plain words; `None` for a success.
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

    /// The status that says so.
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

/// The word for where an execution stands, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ExecutionStatus {
    /// Recorded.
    Queued,
    /// The throttle holds it.
    Waiting,
    /// `RunTask` called.
    Launching,
    /// The task runs.
    Running,
    /// Exit code 0.
    Succeeded,
    /// Another exit code, or it never ran.
    Failed,
    /// Out of time.
    TimedOut,
    /// Cancelled by somebody.
    Cancelled,
    /// Nothing can tell how it ended.
    Lost,
    /// A word of a newer release, or one that is only shown ([`UNREADABLE`]).
    Other(String),
}

/// What is shown for the status of an execution whose record cannot be read. It is never stored.
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

    /// The word itself.
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

    /// Whether nothing will change it any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::TimedOut | Self::Cancelled | Self::Lost
        )
    }

    /// Whether it ended otherwise than was wanted. A cancelled one was not wanted any more.
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
    /// Any word is a status: a newer release may have more of them.
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

    /// Reads a word that this release knows, in either case.
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
    /// Who asked; none in a record of before there were principals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_id: Option<Principal>,
}

/// Something that happened, as history shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened, or was learned.
    pub at: Timestamp,
    /// The status from then on.
    pub status: ExecutionStatus,
    /// More, in plain words.
    #[serde(default)]
    pub reason: Option<String>,
}

/// One try to run an execution as a task.
///
/// What is learned of the task is kept as *facts* that only ever join: the newest snapshot by
/// `detail.version`, and each marker once. How the attempt stands is computed from them, so the
/// order in which they come cannot matter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// The pool it runs in.
    pub pool: CapacityPool,
    /// CPU units it holds of the pool while it is not closed.
    pub cpu: u32,
    /// Known to the script and to us only, so that the command cannot forge a marker line.
    pub nonce: String,
    /// The exact input of `RunTask`, from before the call until the task is known.
    pub run_task: Option<RunTaskInput>,
    /// When `RunTask` was about to be called.
    pub launched_at: Timestamp,
    /// The calls of `RunTask` again, as its outcome was unknown: the latest, and those before it
    /// that may have started the task.
    #[serde(default, rename = "called_again")]
    pub repeated_calls: Vec<RepeatedCall>,
    /// How often `RunTask` refused this attempt for want of capacity; part of the next client
    /// token.
    pub refusals: u32,
    /// The task, once known.
    pub task_arn: Option<String>,
    /// The newest snapshot of the task.
    pub task: Option<Task>,
    /// What the script said.
    #[serde(rename = "said")]
    pub markers: MarkerFacts,
    /// The sweep asked for a stop because the time was long over.
    pub overdue: bool,
    /// ECS no longer knows the task.
    pub gone: bool,
    /// How it ended. While this is `None` after the launch, the attempt holds its slot.
    pub closed: Option<Final>,
}

/// A call of `RunTask` with an input that it was called with before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatedCall {
    /// When it was about to be made.
    pub at: Timestamp,
    /// It was refused, and so started nothing.
    pub refused: bool,
}

/// What the script said in its marker lines; each is said at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MarkerFacts {
    /// When set-up began.
    pub set_up_at: Option<Timestamp>,
    /// The commit that was checked out.
    pub commit: Option<String>,
    /// When the command began.
    pub started_at: Option<Timestamp>,
    /// When the command or the set-up ended, one way or another.
    pub ended_at: Option<Timestamp>,
    /// The command's own exit code.
    pub exit: Option<i32>,
    /// The time was over.
    pub timed_out: bool,
    /// Set-up failed, and why.
    pub set_up_failure: Option<String>,
    /// The log was read to its end after the task stopped: what is not here was not said.
    pub complete: bool,
}

impl MarkerFacts {
    /// Joins one marker line.
    pub fn record(&mut self, at: Timestamp, marker: &Marker) {
        match marker {
            Marker::SetUp => self.set_up_at = self.set_up_at.or(Some(at)),
            Marker::Commit(commit) => {
                self.commit = self.commit.take().or_else(|| Some(commit.clone()))
            }
            Marker::Start => self.started_at = self.started_at.or(Some(at)),
            Marker::Exit(code) => self.exit = self.exit.or(Some(*code)),
            Marker::Timeout => self.timed_out = true,
            Marker::Fail(why) => {
                self.set_up_failure = self.set_up_failure.take().or_else(|| Some(why.clone()));
            }
            Marker::Ended | Marker::Other => {}
        }
        if marker.is_outcome() {
            self.ended_at = self.ended_at.or(Some(at));
        }
    }

    /// Whether the script told how it ended.
    #[must_use]
    pub fn is_conclusive(&self) -> bool {
        self.exit.is_some() || self.timed_out || self.set_up_failure.is_some()
    }
}

impl Attempt {
    /// The last call of `RunTask` that may have started the task: it may take a while from then on
    /// until ECS lists it.
    #[must_use]
    pub fn last_called_at(&self) -> Timestamp {
        self.repeated_calls
            .iter()
            .filter(|call| !call.refused)
            .map(|call| call.at)
            .fold(self.launched_at, Timestamp::max)
    }

    /// Whether the attempt holds its slot.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// Whether the task is over, as far as is known.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.gone
            || self
                .task
                .as_ref()
                .is_some_and(|task| task.last_status == crate::ecs::STOPPED)
    }

    /// Whether its end can only be told by reading its log: the task stopped, and the script's last
    /// word did not come by itself.
    #[must_use]
    pub fn needs_its_log(&self) -> bool {
        self.is_open() && self.is_stopped()
    }

    /// Whether its task may have written something: it was seen to run or to have stopped, or the
    /// script has spoken.
    #[must_use]
    pub fn may_have_output(&self) -> bool {
        self.markers.set_up_at.is_some() || self.runs() || self.is_stopped()
    }

    /// When the last line of a stopped task's output has surely come in; `None` while it runs.
    #[must_use]
    pub fn log_settles_at(&self, settings: &Settings) -> Option<Timestamp> {
        let stopped_at = self
            .task
            .as_ref()
            .and_then(|task| task.stopped_at)
            .filter(|_| self.is_stopped())?;
        Some(stopped_at + TimeDelta::seconds(i64::from(settings.log_delay_seconds)))
    }

    /// Whether the command may have started: then it is not run again unless the user asked.
    #[must_use]
    pub fn may_have_started(&self) -> bool {
        let container = self.task.as_ref().and_then(Task::container);
        self.started_at().is_some() || container.is_some_and(|c| c.exit_code.is_some())
    }

    /// When the command started, as well as it is known: the script's word, else the task's.
    #[must_use]
    pub fn started_at(&self) -> Option<Timestamp> {
        self.markers
            .started_at
            .or_else(|| self.task.as_ref()?.started_at)
    }
}

/// An execution's place in a backlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogEntry {
    /// Whose.
    pub id: ExecutionId,
    /// The backlog.
    pub backlog: LimitKey,
    /// Who submitted it ([`Execution::submitter`]); backlogs are fair between these.
    pub submitter: String,
    /// Larger goes first among one submitter's.
    pub priority: i32,
    /// Then older goes first. It does not change when the entry moves to another backlog and back.
    pub submitted_at: Timestamp,
    /// Not before this moment.
    pub not_before: Option<Timestamp>,
}

impl Execution {
    /// Where it stands, as one word.
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

    /// The attempt that is launching or running.
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

    /// By what backlogs are fair: who submitted it, or the name in a record of before there were
    /// principals.
    #[must_use]
    pub fn submitter(&self) -> String {
        self.submitted_by_id
            .as_ref()
            .map_or_else(|| self.submitted_by.clone(), ToString::to_string)
    }

    /// Its entry, while it stands in a backlog.
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

    /// What it would hold once launched: all of it or nothing. In the order in which its entry
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

    /// The backlogs that a start of it is charged to, once it is launched: all that it passed, so
    /// that who is sent from a group's backlog to the pool's has had its turn in both.
    pub fn started_from(&self) -> impl Iterator<Item = LimitKey> {
        self.allocations()
            .into_iter()
            .map(|allocation| allocation.key)
    }

    /// What it holds now. A store derives its counters from the difference between two versions of
    /// a record, in the write that makes it, so a slot can be neither leaked nor released twice.
    #[must_use]
    pub fn allocations(&self) -> Vec<Allocation> {
        let holds = self.open_attempt().is_some() || self.may_hold();
        if holds { self.demand() } else { Vec::new() }
    }

    /// Whether a state of a newer release may hold what its last attempt took: that attempt was
    /// launched, and is not over.
    fn may_hold(&self) -> bool {
        let launched = |attempt: &Attempt| {
            attempt.is_open() && (attempt.run_task.is_some() || attempt.task_arn.is_some())
        };
        matches!(self.state, State::Other { .. }) && self.attempts.last().is_some_and(launched)
    }

    /// The log stream of the current attempt, once its task is known.
    #[must_use]
    pub fn log_stream(&self) -> Option<String> {
        self.attempts
            .last()?
            .task_arn
            .as_deref()
            .map(crate::task::log_stream)
    }
}
