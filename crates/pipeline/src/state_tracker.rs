//! The state tracker function: turns ECS's events and the runner's marker lines into history, and
//! repairs in a sweep each minute what was missed.

use std::collections::HashMap;

use aws_lambda_events::{cloudwatch_logs::LogsEvent, dynamodb, eventbridge::EventBridgeEvent};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::{Task, TaskArn, TaskId},
    execution::{Attempt, Execution},
    group::{GroupCancel, GroupRerun, GroupWork},
    history::Cursor,
    id::{AttemptId, ExecutionId},
    limit::{CapacityPool, LimitKey},
    marker::{self, Marker},
    message::Message,
    ports::{AccountQuotas, Clock, LaunchStore, Logs, PortError, Queue, SweepStore, Tasks},
    settings::Settings,
    transition::Observation,
};

use serde_dynamo::AttributeValue;
use serde_json::Value;

use crate::{
    advance::{advance, advance_from},
    task_log::read_log,
    unreadable::{passed_over, readable},
};

/// How many executions are looked at together: `DescribeTasks` takes 100 (ECS API reference).
const PAGE: u32 = 100;
/// How long a quota that was read from Service Quotas is used before it is read again. It is read
/// this seldom because quotas are changed by people.
const QUOTA_HOLDS: TimeDelta = TimeDelta::minutes(10);
/// After how long the sweep asks about a launch without news. By then the launcher's own checks,
/// the first after five seconds, have usually found out.
const SILENT: TimeDelta = TimeDelta::seconds(30);

/// The type that CloudWatch Logs gives a message that carries log lines (CloudWatch Logs user
/// guide, subscription filters).
pub const DATA_MESSAGE: &str = "DATA_MESSAGE";
/// The alias of the function through which the stack hands it the ends that are to be counted.
pub const STATISTICS_ALIAS: &str = "statistics";
/// The log text for a message that carries no line of a task. The stack counts such messages by
/// this text.
pub const NO_TASKS_LINES: &str = "lines of no task are passed over";

/// An event that the function is invoked with, told apart by its shape.
#[derive(Clone, Debug)]
pub enum Input {
    /// The state of a task changed.
    Task(Box<EventBridgeEvent<Task>>),
    /// The runner wrote marker lines.
    Lines(LogsEvent),
    /// These executions ended, according to the table's stream.
    Ended(Vec<ExecutionId>),
    /// These executions ended, and their ends are to be counted.
    ToCount(Vec<ExecutionId>),
    /// It is time to sweep: `{"sweep":true}`.
    Sweep,
}

impl Input {
    /// Reads an event. `invoked_arn` is the ARN by which the function was invoked; it ends with the
    /// name of the alias, if it was invoked through one.
    ///
    /// # Errors
    /// When the event is none of these. The error text repeats nothing of the event, which may hold
    /// a task's variables.
    pub fn read(event: Value, invoked_arn: &str) -> Result<Self, UnknownInput> {
        let has = |name: &str| event.get(name).is_some();
        let unreadable = |what| {
            move |error: serde_json::Error| UnknownInput {
                what,
                error: Some(error.classify()),
            }
        };
        if has("sweep") {
            Ok(Self::Sweep)
        } else if has("awslogs") {
            serde_json::from_value(event)
                .map(Self::Lines)
                .map_err(unreadable("log lines"))
        } else if has("detail") {
            serde_json::from_value(event)
                .map(Self::Task)
                .map_err(unreadable("a task's change"))
        } else if has("Records") {
            let event: dynamodb::Event =
                serde_json::from_value(event).map_err(unreadable("changes of records"))?;
            let ids = ended(&event);
            let is_to_count = invoked_arn.rsplit(':').next() == Some(STATISTICS_ALIAS);
            Ok(if is_to_count {
                Self::ToCount(ids)
            } else {
                Self::Ended(ids)
            })
        } else {
            Err(UnknownInput {
                what: "it",
                error: None,
            })
        }
    }
}

/// An event that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state tracker was sent an event that it does not know: {what} cannot be read ({error:?})"
)]
pub struct UnknownInput {
    what: &'static str,
    error: Option<serde_json::error::Category>,
}

/// Returns the executions in the new images of a stream's records.
fn ended(event: &dynamodb::Event) -> Vec<ExecutionId> {
    let id = |record: &dynamodb::EventRecord| match record.change.new_image.get("id") {
        Some(AttributeValue::S(id)) => id.parse().ok(),
        _ => None,
    };
    event.records.iter().filter_map(id).collect()
}

/// The progress of one sweep.
#[derive(Debug)]
pub struct Swept<V> {
    /// Where the next sweep goes on; `None` at the end.
    pub next: Option<Cursor>,
    /// The notes of the store on the way.
    pub survey: V,
    /// Why an execution could not be looked at, if any could not.
    pub failure: Option<PortError>,
}

/// The state tracker function.
#[derive(Debug)]
pub struct StateTracker<'a, S, Q, T, L, U, A> {
    /// Where executions are recorded.
    pub store: &'a S,
    /// Where wakeups are sent.
    pub queue: &'a Q,
    /// ECS.
    pub tasks: &'a T,
    /// The tasks' output.
    pub logs: &'a L,
    /// The account's quotas.
    pub quotas: &'a U,
    /// The clock.
    pub system: &'a A,
    /// The installation's settings.
    pub settings: &'a Settings,
}

impl<S: LaunchStore + SweepStore, Q: Queue, T: Tasks, L: Logs, U: AccountQuotas, A: Clock>
    StateTracker<'_, S, Q, T, L, U, A>
{
    /// Handles a Task State Change event. Order, repetition and loss do not matter (see
    /// [`Observation`]).
    ///
    /// # Errors
    /// When a service does not answer. The event may be delivered again.
    pub async fn task_changed(&self, event: &EventBridgeEvent<Task>) -> Result<(), PortError> {
        let Some(attempt) = event.detail.attempt() else {
            return Ok(());
        };
        self.observed(&attempt, &Observation::Task(&event.detail))
            .await
    }

    /// Handles marker lines from the logs' subscription. Anything else is logged, so that the stack
    /// counts it ([`NO_TASKS_LINES`]), and has no effect: CloudWatch Logs sends control messages to
    /// check the destination, and others may write streams into the log group.
    ///
    /// # Errors
    /// When a service does not answer, or the task is not on record yet. The event may be delivered
    /// again.
    pub async fn lines_written(&self, event: &LogsEvent) -> Result<(), PortError> {
        let data = &event.aws_logs.data;
        let stream =
            TaskId::of_log_stream(&data.log_stream).filter(|_| data.message_type == DATA_MESSAGE);
        let Some(task_id) = stream else {
            tracing::info!(
                message_type = data.message_type,
                log_stream = data.log_stream,
                "{NO_TASKS_LINES}"
            );
            return Ok(());
        };
        let Some(id) = self.store.of_task(&task_id).await? else {
            return Err(PortError::unavailable(
                "the store",
                format!("no execution is on record for task {task_id} yet"),
            ));
        };
        let Some(execution) = passed_over(self.store.load(&id).await)? else {
            return Ok(());
        };
        let mine = |attempt: &&domain::execution::Attempt| {
            attempt
                .task_arn
                .as_ref()
                .is_some_and(|arn| arn.log_stream() == data.log_stream)
        };
        let Some(attempt) = execution.attempts.iter().find(mine) else {
            return Ok(());
        };
        let said: Vec<(Timestamp, Marker)> = data
            .log_events
            .iter()
            .filter_map(|entry| {
                let marker =
                    marker::split(&attempt.nonce, entry.message.trim_end_matches('\n')).1?;
                Some((Timestamp::from_timestamp_millis(entry.timestamp)?, marker))
            })
            .collect();
        let (number, now) = (attempt.number, self.system.now());
        let seen =
            |execution: &Execution| execution.observe(number, &Observation::Markers(&said), now);
        match advance_from(self.store, self.queue, now, execution, seen)
            .await?
            .now()
        {
            Some(execution) => self.read_last_words(&execution).await,
            None => Ok(()),
        }
    }

    async fn observed(
        &self,
        attempt: &AttemptId,
        observation: &Observation<'_>,
    ) -> Result<(), PortError> {
        let now = self.system.now();
        let seen = |execution: &Execution| execution.observe(attempt.number(), observation, now);
        let advanced = advance(self.store, self.queue, now, attempt.execution(), seen).await;
        let Some(execution) = passed_over(advanced)? else {
            tracing::debug!(
                execution_id = %attempt.execution(),
                attempt = attempt.number(),
                "an event of a task that is not on record here"
            );
            return Ok(());
        };
        if let Observation::Task(task) = observation
            && execution.is_stray(attempt.number(), task)
        {
            tracing::warn!(
                execution_id = %attempt.execution(),
                attempt = attempt.number(),
                task_id = %task.task_arn.id(),
                "a task that is not wanted is stopped"
            );
            self.tasks
                .stop_task(&task.task_arn, &execution.stop_reason())
                .await?;
        }
        self.read_last_words(&execution).await
    }

    async fn read_last_words(&self, execution: &Execution) -> Result<(), PortError> {
        match execution
            .open_attempt()
            .filter(|attempt| attempt.needs_its_log())
        {
            Some(attempt) => {
                read_log(
                    self.store,
                    self.queue,
                    self.logs,
                    self.system,
                    self.settings,
                    execution,
                    attempt,
                )
                .await
            }
            None => Ok(()),
        }
    }

    /// Sweeps once, from where the last sweep stopped.
    ///
    /// # Errors
    /// As [`Self::sweep`]. Also when an execution could not be looked at; the others were, and the
    /// next sweep goes on behind them.
    pub async fn next_sweep(&self, until: Timestamp) -> Result<(), PortError> {
        let from = self.store.bookmark().await?;
        let swept = self.sweep(from.clone(), until).await?;
        if swept.next != from {
            self.store.set_bookmark(swept.next.as_ref()).await?;
        }
        // This comes after the bookmark, so that a sweep that ends early here is not repeated.
        if swept.next.is_none()
            && self.system.now() < until
            && let Err(error) = self.store.reconcile(swept.survey).await
        {
            tracing::warn!(%error, "what is derived from the records could not be compared with them");
        }
        swept.failure.map_or(Ok(()), Err)
    }

    /// Sends wakeups for the backlogs and looks at every execution that is launching or running,
    /// from the cursor on, until the time is up.
    ///
    /// Repairs what was lost on the way (wakeups, events, stop requests) and stops tasks that are
    /// long past their timeout.
    ///
    /// # Errors
    /// When the store does not answer, or a queue before the first execution was looked at. The next
    /// sweep goes on.
    pub async fn sweep(
        &self,
        from: Option<Cursor>,
        until: Timestamp,
    ) -> Result<Swept<S::Survey>, PortError> {
        self.send_wakeups().await?;
        self.go_on_with_groups::<GroupCancel>().await?;
        self.go_on_with_groups::<GroupRerun>().await?;
        if from.is_none() {
            self.refresh_quotas().await?;
        }
        let (mut next, mut failure, mut survey) = (from, None, S::Survey::default());
        loop {
            let page = self.store.survey(&mut survey, next.as_ref(), PAGE).await?;
            // If ECS or a queue does not answer, the records are still compared at the end.
            let asked = self.ask_after(&readable(page.items)).await;
            let asked = asked.inspect_err(|error| {
                tracing::warn!(%error, "executions could not be looked at");
            });
            failure = asked.unwrap_or_else(Some).or(failure);
            next = page.next;
            if next.is_none() || self.system.now() >= until {
                return Ok(Swept {
                    next,
                    survey,
                    failure,
                });
            }
        }
    }

    /// Reads the account's quotas again, because they may be raised or lowered at any time. A
    /// failed read stops nothing: the last value stays in use, and ECS's refusals set the adaptive
    /// limit.
    async fn refresh_quotas(&self) -> Result<(), PortError> {
        for pool in [CapacityPool::FargateSpot, CapacityPool::Fargate] {
            let (backlog, now) = (LimitKey::Pool(pool), self.system.now());
            let before = self.store.limit_state(&backlog).await?;
            if before
                .pool
                .quota
                .is_some_and(|quota| now - quota.read_at < QUOTA_HOLDS)
            {
                continue;
            }
            match self.quotas.cpu(pool).await {
                // If somebody else wrote in between, the next sweep asks again.
                Ok(cpu) => drop(
                    self.store
                        .set_limit_state(
                            &backlog,
                            &before,
                            before.with_pool(before.pool.with_quota(cpu, now)),
                        )
                        .await?,
                ),
                Err(error) => {
                    tracing::warn!(%backlog, %error, "the account's quota cannot be read");
                }
            }
        }
        Ok(())
    }

    /// Sends a message for each group whose work of this kind seems to have stopped.
    async fn go_on_with_groups<W: GroupWork>(&self) -> Result<(), PortError> {
        let (now, open) = (self.system.now(), self.store.open_group_work::<W>().await?);
        let stalled = open.into_iter().filter(|work| work.is_stalled(now));
        let messages: Vec<_> = stalled.map(|work| work.message().into()).collect();
        if messages.is_empty() {
            Ok(())
        } else {
            self.queue.send(messages).await
        }
    }

    /// Sends one wakeup for each backlog with a due entry. One is enough, because a launcher drains
    /// the whole backlog.
    async fn send_wakeups(&self) -> Result<(), PortError> {
        let backlogs = self.store.backlogs(self.system.now()).await?;
        let wakeups: Vec<_> = backlogs
            .into_iter()
            .map(|backlog| Message::Wakeup { backlog, id: None }.into())
            .collect();
        if wakeups.is_empty() {
            Ok(())
        } else {
            self.queue.send(wakeups).await
        }
    }

    /// Looks at these executions. A failure does not stop the others; the last failure is returned.
    async fn ask_after(&self, executions: &[Execution]) -> Result<Option<PortError>, PortError> {
        let now = self.system.now();
        let mut known = Vec::new();
        for execution in executions {
            let Some(attempt) = execution.open_attempt() else {
                continue;
            };
            match &attempt.task_arn {
                Some(arn) => known.push((execution, attempt, arn)),
                None if now - attempt.launched_at >= SILENT || execution.cancel.is_some() => {
                    self.queue
                        .send(vec![
                            Message::Check {
                                id: execution.id.clone(),
                            }
                            .into(),
                        ])
                        .await?;
                }
                None => {}
            }
        }
        if known.is_empty() {
            return Ok(None);
        }
        let arns: Vec<_> = known.iter().map(|(_, _, arn)| (*arn).clone()).collect();
        let described = self.tasks.describe_tasks(&arns).await?;
        let tasks: HashMap<_, _> = described
            .tasks
            .iter()
            .map(|task| (&task.task_arn, task))
            .collect();
        let mut failure = None;
        for (execution, attempt, arn) in known {
            // ECS is eventually consistent: a task that was just started may not be listed yet.
            let surely_listed = now - attempt.last_called_at()
                >= TimeDelta::seconds(i64::from(self.settings.unlisted_seconds));
            let observation = match tasks.get(arn) {
                Some(task) => Some(Observation::Task(task)),
                None if surely_listed && described.missing.contains(arn) => Some(Observation::Gone),
                None => None,
            };
            if let Err(error) = self.look_at(execution, attempt, observation.as_ref()).await {
                tracing::warn!(execution_id = %execution.id, %error, "an execution could not be looked at");
                failure = Some(error);
            }
        }
        Ok(failure)
    }

    /// Looks at one execution. An observation that would not change the record at hand does not
    /// load a newer one.
    async fn look_at(
        &self,
        execution: &Execution,
        attempt: &Attempt,
        observation: Option<&Observation<'_>>,
    ) -> Result<(), PortError> {
        let now = self.system.now();
        if let Some(observation) = observation
            && (attempt.needs_its_log()
                || execution
                    .observe(attempt.number, observation, now)
                    .is_some())
        {
            self.observed(&execution.attempt_id(attempt), observation)
                .await?;
        }
        match &attempt.task_arn {
            Some(arn)
                if attempt.overdue
                    || execution.cancel.is_some()
                    || execution.overdue(now).is_some() =>
            {
                self.enforce(execution, arn).await
            }
            _ => Ok(()),
        }
    }

    /// Stops a task that is past its time, or that was cancelled and still runs.
    async fn enforce(&self, execution: &Execution, task_arn: &TaskArn) -> Result<(), PortError> {
        let now = self.system.now();
        let written = advance(self.store, self.queue, now, &execution.id, |execution| {
            execution.overdue(now)
        })
        .await?;
        let Some(execution) = written else {
            return Ok(());
        };
        let unwanted = execution
            .open_attempt()
            .is_some_and(|a| a.overdue || execution.cancel.is_some());
        if unwanted {
            self.tasks
                .stop_task(task_arn, &execution.stop_reason())
                .await
        } else {
            Ok(())
        }
    }
}
