//! Checking executions that are not final: carrying out a cancel, finding out what came of a
//! `RunTask` call without an answer, and reading the end of a log.

use chrono::TimeDelta;
use domain::{
    ecs::{RunTaskInput, Task},
    execution::{Attempt, Execution},
    id::ExecutionId,
    limit::LimitKey,
    message::Message,
    ports::{
        Clock, Definitions, Entropy, LaunchError, LaunchStore, Logs, PortError, Queue, Secrets,
        Tasks, WriteStore,
    },
};

use super::Launcher;
use crate::{
    advance::{Changed, advance, advance_quietly, delayed},
    task_log::read_log,
};

/// How long a client token surely lives. ECS keeps it for at least an hour after the task ends;
/// this leaves ten minutes of margin (AWS-FACTS §1).
const TOKEN_LIVES: TimeDelta = TimeDelta::minutes(50);
/// How long a launcher may still be in the middle of its `RunTask` call. Until then no other
/// launcher asks about the outcome, because the caller usually records it itself.
pub(super) const IN_FLIGHT: TimeDelta = TimeDelta::seconds(5);
/// The longest pause between two questions about an unknown outcome. It is this long because more
/// calls do not help while ECS fails many calls.
const ASKED_MAX: TimeDelta = TimeDelta::seconds(60);

/// The outcome of a repeated `RunTask` call.
enum Called {
    /// The task exists.
    Started,
    /// ECS did not answer.
    Unknown,
    /// Another launcher found out, or is asking now, and schedules the next check. If it dies, the
    /// sweep schedules one.
    Elsewhere,
    /// This call started nothing.
    Refused {
        error: LaunchError,
        /// The record as it is after the refusal.
        execution: Box<Execution>,
    },
}

impl<S, Q, T, L, X, A> Launcher<'_, S, Q, T, L, X, A>
where
    S: WriteStore + LaunchStore + Definitions,
    Q: Queue,
    T: Tasks,
    L: Logs,
    X: Secrets,
    A: Clock + Entropy,
{
    /// Takes an execution that is not final as far as possible: carries out a cancel, finds out
    /// what came of an unknown launch, or reads the end of a log.
    ///
    /// # Errors
    /// When a service does not answer. The call may be repeated.
    pub async fn attend(&self, id: &ExecutionId) -> Result<(), PortError> {
        let Some(found) = self.store.load(id).await? else {
            return Ok(());
        };
        match self.heeding_its_mark(&found).await? {
            Some(execution) => self.attend_to(&execution).await,
            None => Ok(()),
        }
    }

    async fn attend_to(&self, execution: &Execution) -> Result<(), PortError> {
        let Some(attempt) = execution.open_attempt() else {
            return Ok(());
        };
        if attempt.needs_its_log() {
            return read_log(
                self.store,
                self.queue,
                self.logs,
                self.system,
                self.settings,
                execution,
                attempt,
            )
            .await;
        }
        match &attempt.task_arn {
            None => self.find_out(execution, attempt).await,
            Some(arn) if execution.cancel.is_some() || attempt.overdue => {
                self.tasks.stop_task(arn, &execution.stop_reason()).await
            }
            Some(_) => Ok(()),
        }
    }

    /// Finds out what came of a `RunTask` call whose outcome is unknown. While the client token
    /// lives, repeating the same call returns the task, if there is one. A refusal of the repeated
    /// call proves nothing: a throttle, for example, comes before ECS looks at the token. Only
    /// ECS's lists can show that there is no task, and only once a task of the last call would
    /// surely be listed. An execution whose outcome stays unknown is `LOST` and is never launched
    /// again.
    async fn find_out(&self, execution: &Execution, attempt: &Attempt) -> Result<(), PortError> {
        let (now, number, id) = (self.system.now(), attempt.number, &execution.id);
        let age = now - attempt.launched_at;
        let pause = (age / 4).clamp(IN_FLIGHT, ASKED_MAX);
        let unlisted = TimeDelta::seconds(i64::from(self.settings.unlisted_seconds));
        let surely_listed = |attempt: &Attempt| now - attempt.last_called_at() >= unlisted;
        let mut refusal = None;
        if let Some(input) = attempt
            .run_task
            .as_ref()
            .filter(|_| execution.cancel.is_none() && age < TOKEN_LIVES)
        {
            if age < IN_FLIGHT {
                return self.ask_again(id, IN_FLIGHT).await;
            }
            match self.call_again(execution, number, input, pause / 2).await? {
                Called::Started | Called::Elsewhere => return Ok(()),
                Called::Refused { error, execution }
                    if execution.open_attempt().is_some_and(surely_listed) =>
                {
                    refusal = Some((execution, input, error));
                }
                Called::Refused { .. } | Called::Unknown => return self.ask_again(id, pause).await,
            }
        }
        let arns = self
            .tasks
            .list_tasks(&execution.attempt_id(attempt))
            .await?;
        let tasks = if arns.is_empty() {
            Vec::new()
        } else {
            self.tasks.describe_tasks(&arns).await?.tasks
        };
        if let Some(task) = tasks.first() {
            return self.started(execution.clone(), number, task).await;
        }
        if let Some((execution, input, error)) = refusal {
            let backlog = LimitKey::Pool(attempt.pool);
            self.refused(*execution, input, backlog.clone(), error)
                .await?;
            // No launcher is at this backlog now.
            let wakeup = Message::Wakeup { backlog, id: None };
            return self.queue.send(vec![wakeup.into()]).await;
        }
        if !surely_listed(attempt) {
            return self.ask_again(id, pause).await;
        }
        let given_up = |execution: &Execution| {
            execution
                .open_attempt()
                .filter(|attempt| surely_listed(attempt))?;
            execution.cancelled_unlaunched(now).or_else(|| {
                execution.lost(
                    "RunTask was called, its answer never came, and ECS has no such task",
                    now,
                )
            })
        };
        advance(self.store, self.queue, now, id, given_up)
            .await
            .map(|_| ())
    }

    /// Calls `RunTask` again, unless another launcher did so less than `pause` ago. The call is
    /// recorded first: a launcher that does not find the task must know since when it may be
    /// unlisted.
    async fn call_again(
        &self,
        execution: &Execution,
        number: u32,
        input: &RunTaskInput,
        pause: TimeDelta,
    ) -> Result<Called, PortError> {
        let (now, token) = (self.system.now(), &*input.client_token);
        let calling = |execution: &Execution| execution.calling_again(token, pause, now);
        let calls = advance_quietly(self.store, execution.clone(), calling).await?;
        let Changed::Yes { after, .. } = calls else {
            return Ok(Called::Elsewhere);
        };
        // This check comes last because the write before it may have taken long, and a member that
        // was cancelled in the meantime must not start.
        if self
            .heeding_its_mark(&after)
            .await?
            .is_none_or(|execution| execution.cancel.is_some())
        {
            return Ok(Called::Unknown);
        }
        let error = match self.tasks.run_task(input).await {
            Ok(task) => {
                return self
                    .started(*after, number, &task)
                    .await
                    .map(|()| Called::Started);
            }
            Err(error) if is_unknown(&error) => return Ok(Called::Unknown),
            Err(error) => error,
        };
        let was_refused = |execution: &Execution| execution.call_refused(token, now);
        Ok(
            match advance_quietly(self.store, *after, was_refused).await? {
                Changed::Yes {
                    after: execution, ..
                }
                | Changed::No(Some(execution)) => Called::Refused { error, execution },
                Changed::No(None) => Called::Elsewhere,
            },
        )
    }

    /// Asks for a check of this execution after a pause.
    pub(super) async fn ask_again(
        &self,
        id: &ExecutionId,
        pause: TimeDelta,
    ) -> Result<(), PortError> {
        self.queue
            .send(vec![delayed(
                Message::Check { id: id.clone() },
                pause.num_milliseconds(),
            )])
            .await
    }

    /// Stops a task whose execution was cancelled or given up while the task was being started.
    pub(super) async fn stop_if_unwanted(
        &self,
        execution: &Execution,
        number: u32,
        task: &Task,
    ) -> Result<(), PortError> {
        let open = execution
            .open_attempt()
            .is_some_and(|attempt| attempt.number == number);
        if open && execution.cancel.is_none() && !execution.is_stray(number, task) {
            return Ok(());
        }
        let over = execution
            .attempts
            .iter()
            .any(|a| a.number == number && a.is_stopped());
        if over {
            Ok(())
        } else {
            self.tasks
                .stop_task(&task.task_arn, &execution.stop_reason())
                .await
        }
    }
}

pub(super) fn is_unknown(error: &LaunchError) -> bool {
    matches!(error, LaunchError::Unknown(_))
}
