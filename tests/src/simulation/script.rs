//! The script of a task. It writes its marker lines, which the logs' subscription delivers to the
//! state tracker.

use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use aws_lambda_events::cloudwatch_logs::{LogEntry, LogsEvent};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::TaskArn,
    ecs::{RunTaskInput, Task},
    id::AttemptId,
    marker,
    ports::{Clock, Described, LaunchError, LogLine, LogPage, Logs, PortError, ReadError, Tasks},
    task::TaskDefinition,
};
use pipeline::state_tracker::DATA_MESSAGE;

use super::{World, time::Time, way::Way};
use crate::ecs::End;

/// How long a line takes to reach the state tracker. Our choice: the subscription filter is near
/// real time.
const SUBSCRIPTION: TimeDelta = TimeDelta::milliseconds(500);

/// Locks the data. A poisoned lock is ignored: the simulation has failed already.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The model, with the duration of calls and the tasks' marker lines added.
pub(super) struct Scripted<W: Way> {
    inner: W::Tasks,
    clock: W::Time,
    world: Weak<World<W>>,
}

impl<W: Way> Scripted<W> {
    pub(super) fn new(inner: W::Tasks, clock: W::Time, world: Weak<World<W>>) -> Self {
        Self {
            inner,
            clock,
            world,
        }
    }

    /// Schedules the marker lines of a task that a call at this time started.
    fn write(&self, input: &RunTaskInput, task: &Task, called_at: Timestamp) {
        let Some(world) = self.world.upgrade() else {
            return;
        };
        let attempt: Option<AttemptId> = input.started_by.parse().ok();
        let id = attempt.map(|attempt| attempt.execution().clone());
        locked(&world.starts).extend(id.map(|id| (called_at, id)));
        let (account, environment) = (
            locked(&world.ecs).account().clone(),
            &input.overrides.container_overrides,
        );
        let life = account.lives.of(account.seed, &input.started_by);
        let variables = environment
            .iter()
            .flat_map(|container| &container.environment);
        let nonce = variables
            .into_iter()
            .find(|variable| variable.name == "MYCLI_NONCE")
            .map(|nonce| nonce.value.clone());
        let (nonce, arn) = (nonce.unwrap_or_default(), task.task_arn.clone());
        if life.end.is_before_main() {
            return;
        }
        self.clock.spawn(async move {
            world.clock.sleep(life.start_up + SUBSCRIPTION).await;
            tell(&world, &arn, &nonce, &["setup".into(), "start".into()]).await;
            world.clock.sleep(life.work).await;
            if let End::Exit(code) = life.end {
                tell(
                    &world,
                    &arn,
                    &nonce,
                    &[format!("exit:{code}"), "ended".into(), "ended".into()],
                )
                .await;
            }
        });
    }
}

async fn tell<W: Way>(world: &World<W>, arn: &TaskArn, nonce: &str, words: &[String]) {
    let mut event = LogsEvent::default();
    event.aws_logs.data.message_type = DATA_MESSAGE.into();
    event.aws_logs.data.log_stream = arn.log_stream();
    let now = world.clock.now().timestamp_millis();
    event.aws_logs.data.log_events = words
        .iter()
        .map(|word| format!("{}{nonce}:{word}", marker::PREFIX))
        .filter(|line| marker::is_delivered(line))
        .map(|line| {
            let mut entry = LogEntry::default();
            entry.timestamp = now;
            entry.message = line;
            entry
        })
        .collect();
    if event.aws_logs.data.log_events.is_empty() {
        return;
    }
    // Lambda retries a failed asynchronous invocation twice, after one and two minutes.
    for pause in [60, 120, 0] {
        let tracker = world.tracker();
        let written = tracker.lines_written(&event);
        if world.invoke("marker lines", written).await.is_ok() {
            return;
        }
        world.clock.sleep(TimeDelta::seconds(pause)).await;
    }
}

impl<W: Way> Tasks for Scripted<W> {
    async fn register_definition(
        &self,
        definition: &TaskDefinition,
    ) -> Result<String, LaunchError> {
        self.clock.sleep(W::CALL).await;
        self.inner.register_definition(definition).await
    }

    async fn run_task(&self, input: &RunTaskInput) -> Result<Task, LaunchError> {
        let called_at = self.clock.now();
        let result = self.inner.run_task(input).await;
        if let Ok(task) = &result {
            self.write(input, task, called_at);
        }
        self.clock.sleep(W::CALL).await;
        result
    }

    async fn stop_task(&self, task_arn: &TaskArn, reason: &str) -> Result<(), PortError> {
        self.clock.sleep(W::CALL).await;
        self.inner.stop_task(task_arn, reason).await
    }

    async fn describe_tasks(&self, task_arns: &[TaskArn]) -> Result<Described, PortError> {
        self.clock.sleep(W::CALL).await;
        self.inner.describe_tasks(task_arns).await
    }

    async fn list_tasks(&self, started_by: &AttemptId) -> Result<Vec<TaskArn>, PortError> {
        self.clock.sleep(W::CALL).await;
        self.inner.list_tasks(started_by).await
    }
}

/// Logs that are always empty: the script's lines arrive by the subscription.
pub(super) struct NoLogs;

impl Logs for NoLogs {
    async fn read(&self, _: &str, _: Option<&str>) -> Result<LogPage, ReadError> {
        Ok(LogPage::default())
    }

    async fn last(&self, _: &str) -> Result<Vec<LogLine>, ReadError> {
        Ok(Vec::new())
    }
}

/// Whether this event reports a stopped task.
pub(super) fn is_stop(task: &Task) -> bool {
    task.last_status == domain::ecs::TaskStatus::Stopped
}

/// Records when the attempt of a task was closed.
pub(super) fn note_freed<W: Way>(world: &World<W>, at: Timestamp, task: &Task) {
    let attempt: Option<AttemptId> = task.started_by.as_ref().and_then(|by| by.parse().ok());
    let id = attempt.map(|attempt| attempt.execution().clone());
    locked(&world.freed).extend(id.map(|id| (at, id)));
}
