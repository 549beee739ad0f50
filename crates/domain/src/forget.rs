//! The removal of a record that cannot be read. Its raw form may still show what it holds, so that
//! these allocations can be released.
//!
//! Only what the raw form says is used. What it does not say is [`Untold`], and is reported to the
//! caller who removes the record.

use std::fmt;

use serde_json::Value;

use crate::{
    ecs::{TaskArn, TaskId},
    execution::ExecutionStatus,
    id::ExecutionId,
    limit::{Allocation, CapacityPool, LimitKey},
    request::Name,
};

/// The parts of a stored record that matter for its removal. A part that is missing or broken is
/// `null`.
#[derive(Clone, Default)]
pub struct RawRecord {
    /// The status.
    pub status: Value,
    /// The request.
    pub request: Value,
    /// The pool.
    pub pool: Value,
    /// The attempts, oldest first; `None` if they cannot be read.
    pub attempts: Option<Vec<RawAttempt>>,
}

impl fmt::Debug for RawRecord {
    /// Hides the request, because it may contain anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRecord")
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// An attempt, as far as its raw form can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawAttempt {
    /// The CPU units that it requested.
    pub cpu: Option<u32>,
    /// Whether `RunTask` was called or about to be called for it.
    pub launched: bool,
    /// The ARN of its task.
    pub task_arn: Option<TaskArn>,
    /// Whether it is closed.
    pub closed: bool,
}

impl RawAttempt {
    /// Reads an attempt's stored form. `arn` and `input` are the store's names for the task's ARN
    /// and for the input of `RunTask`.
    #[must_use]
    pub fn of(form: &Value, arn: &str, input: &str) -> Self {
        let is_there = |name: &str| form.get(name).is_some_and(|value| !value.is_null());
        Self {
            cpu: form.get("cpu").and_then(whole),
            launched: is_there(input) || is_there(arn),
            task_arn: form.get(arn).and_then(Value::as_str).map(TaskArn::from),
            closed: is_there("closed"),
        }
    }
}

fn whole(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

/// A fact that a raw form does not contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// Whether it held anything.
    Anything,
    /// Which lock it held.
    Lock,
    /// Whether it held an allocation of a group's limit, or of which group.
    Group,
    /// Which capacity pool it held, or how much of it.
    Pool,
    /// Which task runs for it.
    Task,
    /// Whether its last launch started a task.
    Launch,
}

impl Untold {
    /// Whether it is about a task, and not about allocations.
    #[must_use]
    pub fn is_of_a_task(self) -> bool {
        matches!(self, Self::Task | Self::Launch)
    }
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anything => "it is unknown whether it held a lock or capacity: its status cannot be read",
            Self::Lock => "it is unknown which lock it held: its request cannot be read",
            Self::Group => "it is unknown which group's limit it held: its request cannot be read",
            Self::Pool => "it is unknown how much capacity it held: its pool or its size cannot be read",
            Self::Task => "it is unknown whether a task runs for it: its attempts cannot be read",
            Self::Launch => "it is unknown whether a task was started for it: no answer to its launch is on record",
        })
    }
}

/// The facts found in a raw record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// The allocations that it holds.
    pub allocations: Vec<Allocation>,
    /// The facts that are not known.
    pub untold: Vec<Untold>,
    /// The task of the last attempt that has one and is not closed.
    pub open_task: Option<TaskArn>,
    /// The last part of the ARN of each task.
    pub task_ids: Vec<TaskId>,
}

impl RawRecord {
    /// Reads everything that can be read.
    #[must_use]
    pub fn traces(&self) -> Traces {
        let mut traces = Traces::default();
        match &self.attempts {
            Some(attempts) => traces.note_tasks(attempts),
            None => traces.untold.push(Untold::Task),
        }
        match self.holds() {
            Some(true) => self.note_allocations(&mut traces),
            Some(false) => {}
            None => traces.untold.push(Untold::Anything),
        }
        traces
    }

    fn last(&self) -> Option<&RawAttempt> {
        self.attempts.as_ref()?.last()
    }

    /// Whether it holds its allocations, by the rule of
    /// [`crate::execution::Execution::allocations`]; `None` if that is not known.
    fn holds(&self) -> Option<bool> {
        let status = self
            .status
            .as_str()
            .map(|word| ExecutionStatus::from(word.to_owned()));
        let open = |launched: fn(&RawAttempt) -> bool| {
            let attempts = self.attempts.as_ref()?;
            Some(
                attempts
                    .last()
                    .is_some_and(|attempt| !attempt.closed && launched(attempt)),
            )
        };
        match status {
            // A record in these states holds allocations even if its attempts cannot be read.
            Some(ExecutionStatus::Launching | ExecutionStatus::Running) => {
                Some(open(|_| true).unwrap_or(true))
            }
            Some(ExecutionStatus::Queued | ExecutionStatus::Waiting) => Some(false),
            Some(status) if status.is_final() || status.as_str() == FINAL => Some(false),
            _ => open(|attempt| attempt.launched),
        }
    }

    fn note_allocations(&self, traces: &mut Traces) {
        let Some(request) = self.request.as_object() else {
            traces.untold.extend([Untold::Lock, Untold::Group]);
            return self.note_pool(traces);
        };
        let given = |name: &str| request.get(name).filter(|value| !value.is_null());
        if let Some(lock) = given("lock") {
            traces.note(name(lock).map(LimitKey::Lock), 1, Untold::Lock);
        }
        if let (Some(_), Some(group)) = (given("max_parallel"), given("group")) {
            traces.note(name(group).map(LimitKey::Group), 1, Untold::Group);
        }
        self.note_pool(traces);
    }

    fn note_pool(&self, traces: &mut Traces) {
        let of_request = || self.request.pointer("/size/cpu").and_then(whole);
        let cpu = self
            .last()
            .and_then(|attempt| attempt.cpu)
            .or_else(of_request);
        let pool = serde_json::from_value::<CapacityPool>(self.pool.clone()).ok();
        traces.note(
            pool.map(LimitKey::Pool).filter(|_| cpu.is_some()),
            cpu.unwrap_or_default(),
            Untold::Pool,
        );
    }
}

/// The status of every ended execution in the records of one machine.
const FINAL: &str = "FINAL";

fn name(value: &Value) -> Option<Name> {
    value.as_str()?.parse().ok()
}

impl Traces {
    fn note(&mut self, key: Option<LimitKey>, amount: u32, otherwise: Untold) {
        match key {
            Some(key) => self.allocations.push(Allocation { key, amount }),
            None => self.untold.push(otherwise),
        }
    }

    fn note_tasks(&mut self, attempts: &[RawAttempt]) {
        let arns = attempts
            .iter()
            .filter_map(|attempt| attempt.task_arn.as_ref());
        self.task_ids = arns.map(TaskArn::id).collect();
        let open = attempts.iter().rev().filter(|attempt| !attempt.closed);
        self.open_task = open.filter_map(|attempt| attempt.task_arn.clone()).next();
        let is_unanswered = |attempt: &RawAttempt| {
            !attempt.closed && attempt.launched && attempt.task_arn.is_none()
        };
        if attempts.last().is_some_and(is_unanswered) {
            self.untold.push(Untold::Launch);
        }
    }

    /// Whether all its allocations are known.
    #[must_use]
    pub fn tells_all_it_holds(&self) -> bool {
        self.untold.iter().all(|untold| untold.is_of_a_task())
    }
}

/// The result of a request to remove a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgetting {
    /// The record is removed.
    Forgotten(Forgotten),
    /// The record stays, because its task may run. The removal can be requested again once the task
    /// has stopped.
    Runs {
        /// The ARN of the task.
        task_arn: TaskArn,
    },
    /// The record can be read, and stays.
    Readable,
    /// There is no such record.
    Missing,
}

/// A record that is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The execution.
    pub id: ExecutionId,
    /// The limits that have room again because of the removal.
    pub released: Vec<LimitKey>,
    /// The facts that were not known, so that what they are about was not released.
    pub untold: Vec<Untold>,
    /// The task that was stopped for the removal.
    pub task_arn: Option<TaskArn>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:ecs:eu-central-1:123456789012:task/mycli-default/0f9d";

    fn record(status: Value, request: Value, attempts: Value) -> RawRecord {
        let Value::Array(attempts) = attempts else {
            return RawRecord {
                status,
                request,
                pool: json!("fargate-spot"),
                attempts: None,
            };
        };
        let attempts = Some(
            attempts
                .iter()
                .map(|form| RawAttempt::of(form, "task_arn", "run_task"))
                .collect(),
        );
        RawRecord {
            status,
            request,
            pool: json!("fargate-spot"),
            attempts,
        }
    }

    fn request() -> Value {
        json!({"lock": "deploy", "group": "nightly", "max_parallel": 2, "size": {"cpu": 512, "memory": 1024}, "arch": "mips"})
    }

    fn running() -> Value {
        json!([
            {"number": 1, "cpu": 512, "task_arn": "arn:task/c/1", "closed": {"outcome": "failed"}},
            {"number": 2, "cpu": 512, "task_arn": ARN, "closed": null},
        ])
    }

    fn keys(traces: &Traces) -> Vec<String> {
        traces
            .allocations
            .iter()
            .map(|allocation| format!("{}={}", allocation.key, allocation.amount))
            .collect()
    }

    #[test]
    fn what_runs_holds_all_that_it_asked_for() {
        let traces = record(json!("RUNNING"), request(), running()).traces();
        assert_eq!(
            keys(&traces),
            ["lock:deploy=1", "group:nightly=1", "pool:fargate-spot=512"]
        );
        assert_eq!(
            (
                traces.open_task.as_ref().map(TaskArn::as_str),
                traces.untold.as_slice()
            ),
            (Some(ARN), &[][..])
        );
        assert_eq!(traces.task_ids, ["1", "0f9d"].map(TaskId::from));
    }

    #[test]
    fn what_waits_or_is_over_holds_nothing() {
        for status in ["QUEUED", "WAITING", "FINAL", "SUCCEEDED", "LOST"] {
            let traces = record(json!(status), request(), running()).traces();
            assert!(
                traces.allocations.is_empty() && traces.untold.is_empty(),
                "{status}: {traces:?}"
            );
        }
        let mut attempts = running();
        attempts[1]["closed"] = json!({"outcome": "lost"});
        let traces = record(json!("RUNNING"), request(), attempts).traces();
        assert_eq!((traces.allocations.len(), traces.open_task), (0, None));
    }

    #[test]
    fn a_status_of_a_newer_release_holds_what_was_launched() {
        let held = |attempts| {
            record(json!("PAUSED"), request(), attempts)
                .traces()
                .allocations
                .len()
        };
        assert_eq!(held(running()), 3);
        assert_eq!(held(json!([{"number": 1, "cpu": 256, "run_task": {}}])), 3);
        assert_eq!(held(json!([{"number": 1, "cpu": 256}])), 0);
        assert_eq!(held(json!([])), 0);
    }

    #[test]
    fn a_group_without_a_limit_holds_no_place() {
        let request = json!({"lock": null, "group": "nightly", "max_parallel": null});
        let traces = record(json!("RUNNING"), request, running()).traces();
        assert_eq!(
            (keys(&traces), traces.untold),
            (vec!["pool:fargate-spot=512".to_owned()], vec![])
        );
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        let untold = |record: RawRecord| record.traces().untold;
        assert_eq!(
            untold(RawRecord::default()),
            [Untold::Task, Untold::Anything]
        );
        assert_eq!(
            untold(record(json!("RUNNING"), Value::Null, running())),
            [Untold::Lock, Untold::Group]
        );
        let odd = json!({"lock": ["deploy"], "max_parallel": 1, "group": "a b"});
        assert_eq!(
            untold(record(json!("RUNNING"), odd, running())),
            [Untold::Lock, Untold::Group]
        );
        let unsized_one = RawRecord {
            pool: json!("moon"),
            ..record(json!("LAUNCHING"), json!({}), Value::Null)
        };
        assert_eq!(untold(unsized_one), [Untold::Task, Untold::Pool]);
        let whole = record(json!("RUNNING"), request(), Value::Null).traces();
        assert!(
            whole.tells_all_it_holds()
                && keys(&whole).contains(&"pool:fargate-spot=512".to_owned())
        );
    }

    #[test]
    fn a_raw_record_does_not_show_its_request() {
        let record = record(
            json!("RUNNING"),
            json!({"env": {"TOKEN": "hunter2"}}),
            running(),
        );
        assert!(!format!("{record:?}").contains("hunter2"));
    }
}
