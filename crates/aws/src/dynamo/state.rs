//! The item of an execution that changes, spelled so that it stays below the 1 KB of one write unit
//! during a whole normal run.
//!
//! Times are milliseconds since the epoch. Usual values, and values found elsewhere in the record,
//! are left out. Everything stays legible.

use chrono::serde::{ts_milliseconds, ts_milliseconds_option};
use domain::{
    Timestamp,
    artifact::{UploadSummary, Uploaded},
    container::MAIN,
    ecs::{Container, StopCode, Task, TaskArn, TaskStatus},
    error::Corrupt,
    execution::{
        Attempt, Cancel, Event, Execution, ExecutionStatus, Final, MarkerFacts, Outcome,
        RepeatedCall, State,
    },
    history::Loaded,
    id::ExecutionId,
    limit::{CapacityPool, LimitKey},
    price::{AttemptPrice, NanoUsd},
    principal::Principal,
    stored::Unknown,
};
use serde::{Deserialize, Serialize};

use super::{
    input::{InputItem, KnownInputs},
    item::{
        Contradiction, Item, backlog_partition, day, day_name, ended_partition, expiry, form_of,
        place, shard, sharded,
    },
    request::RequestItem,
};

/// Everything that changes, and what the status index needs of it.
#[derive(Serialize, Deserialize)]
pub(super) struct StateItem {
    /// For readers of the table's stream.
    id: ExecutionId,
    revision: u64,
    /// Functions that read the table's stream filter by it.
    status: ExecutionStatus,
    pool: CapacityPool,
    /// The backlog that its entry is in.
    #[serde(rename = "line")]
    backlog: Option<LimitKey>,
    /// Why it waits.
    reason: Option<String>,
    /// The earliest moment it may start, if it waits.
    #[serde(default, with = "ts_milliseconds_option")]
    not_before: Option<Timestamp>,
    /// How it ended, unless it ended as its last attempt did.
    end: Option<End>,
    cancel: Option<CancelItem>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptItem>,
    events: Vec<EventItem>,
    #[serde(rename = "standing")]
    index_partition: Option<String>,
    place: Option<String>,
    expires: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum End {
    Known(EndItem),
    /// An end that only a newer release knows; the status is then unknown too.
    Other(serde_json::Value),
}

#[derive(Serialize, Deserialize)]
struct EndItem {
    #[serde(with = "ts_milliseconds")]
    at: Timestamp,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
struct CancelItem {
    #[serde(with = "ts_milliseconds")]
    at: Timestamp,
    by: String,
    #[serde(default)]
    by_id: Option<Principal>,
}

#[derive(Serialize, Deserialize)]
struct EventItem {
    #[serde(with = "ts_milliseconds")]
    at: Timestamp,
    status: ExecutionStatus,
    reason: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RepeatedCallItem {
    #[serde(with = "ts_milliseconds")]
    at: Timestamp,
    #[serde(default, skip_serializing_if = "is_default")]
    refused: bool,
}

#[derive(Serialize, Deserialize)]
struct AttemptItem {
    number: u32,
    /// Stored only if it is not the execution's.
    pool: Option<CapacityPool>,
    cpu: u32,
    nonce: String,
    /// Only an attempt whose runner calls our API has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    input: Option<InputItem>,
    #[serde(with = "ts_milliseconds")]
    launched: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    price: Option<PriceItem>,
    #[serde(
        default,
        rename = "called_again",
        skip_serializing_if = "Vec::is_empty"
    )]
    repeated_calls: Vec<RepeatedCallItem>,
    #[serde(default, skip_serializing_if = "is_default")]
    refusals: u32,
    /// The task's ARN.
    arn: Option<TaskArn>,
    task: Option<TaskItem>,
    #[serde(default, rename = "said", skip_serializing_if = "is_default")]
    markers: MarkerFactsItem,
    #[serde(default, skip_serializing_if = "is_default")]
    overdue: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    gone: bool,
    closed: Option<EndItem>,
}

/// The price of an hour, in billionths of a dollar. Each run keeps it for months, so its names are
/// short.
#[derive(Serialize, Deserialize)]
struct PriceItem {
    #[serde(rename = "l")]
    low: NanoUsd,
    /// Stored only if it is not the lowest.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    high: Option<NanoUsd>,
    /// The source of the prices.
    #[serde(rename = "b")]
    basis: String,
}

/// The newest snapshot of a task, as far as anything depends on it.
#[derive(Serialize, Deserialize)]
struct TaskItem {
    version: i64,
    status: TaskStatus,
    stop_code: Option<StopCode>,
    why: Option<String>,
    #[serde(default, with = "ts_milliseconds_option")]
    pull: Option<Timestamp>,
    #[serde(default, with = "ts_milliseconds_option")]
    pulled: Option<Timestamp>,
    #[serde(default, with = "ts_milliseconds_option")]
    started: Option<Timestamp>,
    #[serde(default, with = "ts_milliseconds_option")]
    ended: Option<Timestamp>,
    #[serde(default, with = "ts_milliseconds_option")]
    stopped: Option<Timestamp>,
    main: Option<MainItem>,
    /// The containers of ours that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    helpers: Vec<HelperItem>,
}

/// The container of the command.
#[derive(Serialize, Deserialize)]
struct MainItem {
    exit: Option<i32>,
    why: Option<String>,
    digest: Option<String>,
}

/// A container of ours.
#[derive(Serialize, Deserialize)]
struct HelperItem {
    name: String,
    exit: Option<i32>,
    why: Option<String>,
}

#[derive(PartialEq, Default, Serialize, Deserialize)]
struct MarkerFactsItem {
    #[serde(default, with = "ts_milliseconds_option")]
    set_up: Option<Timestamp>,
    commit: Option<String>,
    #[serde(default, with = "ts_milliseconds_option")]
    start: Option<Timestamp>,
    #[serde(default, with = "ts_milliseconds_option")]
    end: Option<Timestamp>,
    exit: Option<i32>,
    #[serde(default, skip_serializing_if = "is_default")]
    timed_out: bool,
    failure: Option<String>,
    /// A record from before artifacts has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uploaded: Option<UploadedItem>,
    #[serde(default, skip_serializing_if = "is_default")]
    complete: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct UploadedItem {
    #[serde(with = "ts_milliseconds")]
    at: Timestamp,
    files: u32,
    bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl StateItem {
    /// `expires` is set once the run is over: a run that is not over must not expire.
    pub(super) fn of(execution: &Execution, expires: Option<Timestamp>) -> Self {
        let (backlog, reason, not_before) = match &execution.state {
            State::Queued { backlog } => (Some(backlog), None, None),
            State::Waiting {
                backlog,
                reason,
                not_before,
            } => (Some(backlog), Some(reason), *not_before),
            State::Launching | State::Running | State::Final(_) | State::Other { .. } => {
                (None, None, None)
            }
        };
        let last = execution
            .attempts
            .last()
            .and_then(|attempt| attempt.closed.as_ref());
        let (index_partition, place) = index_entry(execution).unzip();
        Self {
            id: execution.id.clone(),
            revision: execution.revision,
            status: execution.status(),
            pool: execution.pool,
            backlog: backlog.cloned(),
            reason: reason.cloned(),
            not_before,
            end: execution
                .end()
                .filter(|end| Some(*end) != last)
                .map(|end| End::Known(EndItem::of(end))),
            cancel: execution.cancel.as_ref().map(|cancel| CancelItem {
                at: cancel.at,
                by: cancel.by.clone(),
                by_id: cancel.by_id.clone(),
            }),
            attempts: execution
                .attempts
                .iter()
                .map(|attempt| AttemptItem::of(execution, attempt))
                .collect(),
            events: execution.events.iter().map(EventItem::of).collect(),
            index_partition,
            place,
            expires: expires.map(expiry),
        }
    }

    fn state(&mut self) -> Result<State, Contradiction> {
        let backlog = || {
            self.backlog
                .clone()
                .ok_or(Contradiction("it waits, and has no backlog"))
        };
        Ok(match &self.status {
            ExecutionStatus::Queued => State::Queued {
                backlog: backlog()?,
            },
            ExecutionStatus::Waiting => State::Waiting {
                backlog: backlog()?,
                reason: self.reason.take().unwrap_or_default(),
                not_before: self.not_before,
            },
            ExecutionStatus::Launching => State::Launching,
            ExecutionStatus::Running => State::Running,
            ExecutionStatus::Succeeded
            | ExecutionStatus::Failed
            | ExecutionStatus::TimedOut
            | ExecutionStatus::Cancelled
            | ExecutionStatus::Lost => {
                let last = || {
                    self.attempts
                        .last()
                        .and_then(|attempt| attempt.closed.as_ref())
                        .map(EndItem::end)
                };
                let end = match &self.end {
                    Some(End::Known(end)) => Some(end.end()),
                    Some(End::Other(_)) => None,
                    None => last(),
                };
                State::Final(end.ok_or(Contradiction("it is over, and has no end"))?)
            }
            ExecutionStatus::Other(status) => State::Other {
                status: status.clone(),
            },
        })
    }
}

/// An execution's entry in the status index: its entry in a backlog, or how it ended. Open runs are
/// found through their launch batch, and a success, the usual end, by its day: neither has an entry
/// here.
fn index_entry(execution: &Execution) -> Option<(String, String)> {
    if let Some(entry) = execution.backlog_entry() {
        return Some((
            backlog_partition(&entry.backlog, &entry.submitter),
            place(&entry),
        ));
    }
    let status = execution
        .end()
        .map(|end| end.outcome.status())
        .filter(has_entry)?;
    let name = ended_partition(&status, &day_name(day(&execution.id)));
    Some((
        sharded(&name, shard(&execution.id)),
        execution.id.to_string(),
    ))
}

/// Whether the status index has an entry for each end with this status.
pub(super) fn has_entry(status: &ExecutionStatus) -> bool {
    status.is_final() && *status != ExecutionStatus::Succeeded
}

impl EndItem {
    fn of(end: &Final) -> Self {
        Self {
            at: end.at,
            outcome: end.outcome.clone(),
        }
    }

    fn end(&self) -> Final {
        Final {
            at: self.at,
            outcome: self.outcome.clone(),
        }
    }
}

impl EventItem {
    fn of(event: &Event) -> Self {
        Self {
            at: event.at,
            status: event.status.clone(),
            reason: event.reason.clone(),
        }
    }

    fn event(self) -> Event {
        Event {
            at: self.at,
            status: self.status,
            reason: self.reason,
        }
    }
}

impl RepeatedCallItem {
    fn of(call: &RepeatedCall) -> Self {
        Self {
            at: call.at,
            refused: call.refused,
        }
    }

    fn call(self) -> RepeatedCall {
        RepeatedCall {
            at: self.at,
            refused: self.refused,
        }
    }
}

impl AttemptItem {
    fn of(execution: &Execution, attempt: &Attempt) -> Self {
        let known = KnownInputs {
            request: &execution.request,
            attempt: execution.attempt_id(attempt),
            nonce: &attempt.nonce,
            submitted_by: &execution.submitted_by,
        };
        Self {
            number: attempt.number,
            pool: Some(attempt.pool).filter(|pool| *pool != execution.pool),
            cpu: attempt.cpu,
            nonce: attempt.nonce.clone(),
            token: attempt.token_hash.clone(),
            input: attempt
                .run_task
                .as_ref()
                .map(|input| InputItem::of(input, &known)),
            launched: attempt.launched_at,
            price: attempt.price.as_ref().map(PriceItem::of),
            repeated_calls: attempt
                .repeated_calls
                .iter()
                .map(RepeatedCallItem::of)
                .collect(),
            refusals: attempt.refusals,
            arn: attempt.task_arn.clone(),
            task: attempt.task.as_ref().map(TaskItem::of),
            markers: MarkerFactsItem::of(&attempt.markers),
            overdue: attempt.overdue,
            gone: attempt.gone,
            closed: attempt.closed.as_ref().map(EndItem::of),
        }
    }

    fn attempt(
        self,
        id: &ExecutionId,
        pool: CapacityPool,
        asked: &RequestItem,
    ) -> Result<Attempt, Contradiction> {
        let known = KnownInputs {
            request: &asked.request,
            attempt: id.attempt(self.number),
            nonce: &self.nonce,
            submitted_by: &asked.submitted_by,
        };
        let run_task = self.input.map(|input| input.input(&known)).transpose()?;
        Ok(Attempt {
            number: self.number,
            pool: self.pool.unwrap_or(pool),
            cpu: self.cpu,
            run_task,
            launched_at: self.launched,
            price: self.price.map(PriceItem::price),
            repeated_calls: self
                .repeated_calls
                .into_iter()
                .map(RepeatedCallItem::call)
                .collect(),
            refusals: self.refusals,
            task: self.task.map(TaskItem::task),
            task_arn: self.arn,
            markers: self.markers.facts(),
            overdue: self.overdue,
            gone: self.gone,
            closed: self.closed.as_ref().map(EndItem::end),
            nonce: self.nonce,
            token_hash: self.token,
        })
    }
}

impl PriceItem {
    fn of(price: &AttemptPrice) -> Self {
        Self {
            low: price.low,
            high: Some(price.high).filter(|high| *high != price.low),
            basis: price.basis.clone(),
        }
    }

    fn price(self) -> AttemptPrice {
        AttemptPrice {
            low: self.low,
            high: self.high.unwrap_or(self.low),
            basis: self.basis,
        }
    }
}

impl TaskItem {
    fn of(task: &Task) -> Self {
        let main = |container: &Container| MainItem {
            exit: container.exit_code,
            why: container.reason.clone(),
            digest: container.image_digest.clone(),
        };
        let helper = |container: &Container| HelperItem {
            name: container.name.clone(),
            exit: container.exit_code,
            why: container.reason.clone(),
        };
        Self {
            version: task.version,
            status: task.last_status.clone(),
            stop_code: task.stop_code.clone(),
            why: task.stopped_reason.clone(),
            pull: task.pull_started_at,
            pulled: task.pull_stopped_at,
            started: task.started_at,
            ended: task.execution_stopped_at,
            stopped: task.stopped_at,
            main: task.container().map(main),
            helpers: task.helpers().map(helper).collect(),
        }
    }

    fn task(self) -> Task {
        let container = |main: MainItem| Container {
            name: MAIN.to_owned(),
            exit_code: main.exit,
            reason: main.why,
            image_digest: main.digest,
            ..Container::default()
        };
        let helper = |helper: HelperItem| Container {
            name: helper.name,
            exit_code: helper.exit,
            reason: helper.why,
            ..Container::default()
        };
        let helpers = self.helpers.into_iter().map(helper);
        Task {
            version: self.version,
            last_status: self.status,
            stop_code: self.stop_code,
            stopped_reason: self.why,
            pull_started_at: self.pull,
            pull_stopped_at: self.pulled,
            started_at: self.started,
            execution_stopped_at: self.ended,
            stopped_at: self.stopped,
            containers: self
                .main
                .into_iter()
                .map(container)
                .chain(helpers)
                .collect(),
            ..Task::default()
        }
    }
}

impl UploadedItem {
    fn of(uploaded: &Uploaded) -> Self {
        Self {
            at: uploaded.at,
            files: uploaded.summary.files,
            bytes: uploaded.summary.bytes,
            why: uploaded.summary.reason.clone(),
        }
    }

    fn uploaded(self) -> Uploaded {
        Uploaded {
            at: self.at,
            summary: UploadSummary {
                files: self.files,
                bytes: self.bytes,
                reason: self.why,
            },
        }
    }
}

impl MarkerFactsItem {
    fn of(facts: &MarkerFacts) -> Self {
        Self {
            set_up: facts.set_up_at,
            commit: facts.commit.clone(),
            start: facts.started_at,
            end: facts.ended_at,
            exit: facts.exit,
            timed_out: facts.timed_out,
            failure: facts.set_up_failure.clone(),
            uploaded: facts.uploaded.as_ref().map(UploadedItem::of),
            complete: facts.complete,
        }
    }

    fn facts(self) -> MarkerFacts {
        MarkerFacts {
            set_up_at: self.set_up,
            commit: self.commit,
            started_at: self.start,
            ended_at: self.end,
            exit: self.exit,
            timed_out: self.timed_out,
            set_up_failure: self.failure,
            uploaded: self.uploaded.map(UploadedItem::uploaded),
            complete: self.complete,
        }
    }
}

/// The indexes of an execution's two items among its unknown fields.
pub(super) const REQUEST: usize = 0;
pub(super) const STATE: usize = 1;

/// The record that these two items make up.
pub(super) fn execution(id: ExecutionId, request: Item, state: Item) -> Loaded {
    joined(request, state).map_err(|error| Corrupt::execution(id, error))
}

fn joined(
    request: Item,
    state: Item,
) -> Result<Execution, Box<dyn std::error::Error + Send + Sync>> {
    let (request, of_request): (RequestItem, _) = form_of(request)?;
    let (mut state, of_state): (StateItem, _) = form_of(state)?;
    let stands = state.state()?;
    let attempt = |attempt: AttemptItem| attempt.attempt(&state.id, state.pool, &request);
    let attempts = state
        .attempts
        .into_iter()
        .map(attempt)
        .collect::<Result<_, _>>()?;
    Ok(Execution {
        id: state.id,
        revision: state.revision,
        pool: state.pool,
        request: request.request,
        submitted_by: request.submitted_by,
        submitted_by_id: request.submitted_by_id,
        submitted_role: request.submitted_role,
        submitted_at: request.submitted_at,
        state: stands,
        cancel: state.cancel.map(|cancel| Cancel {
            at: cancel.at,
            by: cancel.by,
            by_id: cancel.by_id,
        }),
        attempts,
        events: state.events.into_iter().map(EventItem::event).collect(),
        unknown: Unknown::of_forms([of_request, of_state]),
    })
}
