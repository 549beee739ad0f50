//! The launcher function: starts the executions at the heads of backlogs, stops tasks that are not
//! wanted any more, and finds out what came of launches whose outcome is unknown.

use std::collections::BTreeMap;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use chrono::TimeDelta;
use domain::{
    adaptive_limit::Shortage,
    backoff,
    cause::Cause,
    ecs::{RunTaskInput, Task},
    execution::{Attempt, Execution},
    git::{self, GitAccess},
    id::ExecutionId,
    key::Role,
    limit::LimitKey,
    message::{Message, Outgoing},
    ports::{
        Clock, Definitions, Entropy, LaunchError, Logs, PortError, Queue, ReadError, Secrets,
        Store, Tasks,
    },
    settings::Settings,
    stored::FormError,
    task::{self, TaskDefinition},
    transition::Observation,
};

use crate::{
    advance::{self, advance, advance_from, delayed},
    definitions::Registered,
    markers,
    unreadable::passed_over,
};

mod backlogs;
mod drain;
mod groups;
mod reruns;

pub use backlogs::Pace;
use drain::Launched;

/// How long a client token surely lives. ECS keeps it for at least an hour after the task ends;
/// this leaves ten minutes of margin (AWS-FACTS §1).
const TOKEN_LIVES: TimeDelta = TimeDelta::minutes(50);
/// How long a launcher may still be in the middle of its `RunTask` call. Until then no other
/// launcher asks about the outcome, because the caller usually records it itself.
const IN_FLIGHT: TimeDelta = TimeDelta::seconds(5);
/// The longest pause between two questions about an unknown outcome. It is this long because more
/// calls do not help while ECS fails many calls.
const ASKED_MAX: TimeDelta = TimeDelta::seconds(60);

/// The launcher function.
#[derive(Debug)]
pub struct Launcher<'a, S, Q, T, L, X, A> {
    /// Where executions are recorded.
    pub store: &'a S,
    /// Where wakeups are sent.
    pub queue: &'a Q,
    /// ECS.
    pub tasks: &'a T,
    /// The tasks' output.
    pub logs: &'a L,
    /// Which secrets are set.
    pub secrets: &'a X,
    /// Which task definitions are registered.
    pub registered: &'a Registered,
    /// How fast held backlogs move, as counted by this process.
    pub pace: &'a Pace,
    /// Clock and randomness.
    pub system: &'a A,
    /// The installation's settings.
    pub settings: &'a Settings,
}

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

/// The outcome of a first `RunTask` call, as far as it says something about the pool.
enum Ran {
    /// The task was started.
    Started,
    /// The record already says something else, or the outcome is not known yet.
    Settled,
    /// ECS refused because calls come too fast.
    Throttled(String),
    /// ECS refused for lack of capacity or quota.
    Short(Shortage, String),
}

impl<S, Q, T, L, X, A> Launcher<'_, S, Q, T, L, X, A>
where
    S: Store + Definitions,
    Q: Queue,
    T: Tasks,
    L: Logs,
    X: Secrets,
    A: Clock + Entropy,
{
    /// Handles a batch of messages. Messages that could not be handled are returned as failures, so
    /// that SQS delivers them again.
    pub async fn handle(&self, event: SqsEvent) -> SqsBatchResponse {
        let mut backlogs: BTreeMap<LimitKey, (Vec<String>, Vec<ExecutionId>)> = BTreeMap::new();
        let mut failed = Vec::new();
        let until = self.system.now() + groups::WORK;
        for record in event.records {
            let message_id = record.message_id.clone().unwrap_or_default();
            match parse(&record) {
                Ok(Message::Wakeup { backlog, id }) => {
                    let (messages, ids) = backlogs.entry(backlog).or_default();
                    messages.push(message_id);
                    ids.extend(id);
                }
                Ok(Message::Check { id }) => {
                    if let Err(error) = passed_over(self.attend(&id).await) {
                        tracing::warn!(execution = %id, %error, "an execution could not be attended to");
                        failed.push(message_id);
                    }
                }
                Ok(Message::CancelGroup { group }) => {
                    if let Err(error) = self.close_group(&group, until).await {
                        tracing::warn!(%group, %error, "the members of a cancelled group could not be closed");
                        failed.push(message_id);
                    }
                }
                Ok(Message::RerunGroup { group }) => {
                    if let Err(error) = self.rerun_group(&group, until).await {
                        tracing::warn!(%group, %error, "the failed members of a group could not be run again");
                        failed.push(message_id);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a message cannot be read");
                    failed.push(message_id);
                }
            }
        }
        // All backlogs are drained at the same time, so that one that has to wait does not delay
        // the others.
        let drained = backlogs
            .into_iter()
            .map(async |(backlog, (messages, ids))| {
                let result = self.drain_all(backlog.clone(), &ids).await;
                result.err().map_or_else(Vec::new, |error| {
                    tracing::warn!(%backlog, %error, "a backlog could not be drained");
                    messages
                })
            });
        failed.extend(
            futures_util::future::join_all(drained)
                .await
                .into_iter()
                .flatten(),
        );
        let mut response = SqsBatchResponse::default();
        failed.into_iter().for_each(|id| response.add_failure(id));
        response
    }

    /// Returns the git credentials that an execution may clone with, given the secrets that are set
    /// now.
    async fn git_access(&self, execution: &Execution) -> Result<GitAccess, PortError> {
        let Some(source) = &execution.request.source else {
            return Ok(GitAccess::default());
        };
        let mut set = Vec::new();
        for name in git::secrets_for(&source.repo) {
            set.extend(self.secrets.find_secret(name).await?);
        }
        // Records written before the role was stored count as the lowest role that may submit.
        let submitter = execution.submitted_role.unwrap_or(Role::Submit);
        Ok(GitAccess::of(source, submitter, &set))
    }

    /// Calls `RunTask` for a launch for the first time and records the outcome.
    async fn run(&self, Launched { execution, from }: Launched) -> Result<Ran, PortError> {
        let Some(attempt) = execution.open_attempt() else {
            return Ok(Ran::Settled);
        };
        let (number, Some(input)) = (attempt.number, attempt.run_task.clone()) else {
            return Ok(Ran::Settled);
        };
        let launched_at = attempt.launched_at;
        match self.tasks.run_task(&input).await {
            Ok(task) => self
                .started(execution, number, &task)
                .await
                .map(|()| Ran::Started),
            // After this long another launcher may have called too, and started the task.
            Err(error) if is_unknown(&error) || self.system.now() - launched_at >= IN_FLIGHT => {
                tracing::warn!(execution = %execution.id, %error, "the outcome of a launch is unknown; asking again");
                self.ask_again(&execution.id, IN_FLIGHT)
                    .await
                    .map(|()| Ran::Settled)
            }
            Err(error) => self.refused(execution, &input, from, error).await,
        }
    }

    /// Records that the task exists.
    async fn started(
        &self,
        execution: Execution,
        number: u32,
        task: &Task,
    ) -> Result<(), PortError> {
        let now = self.system.now();
        let seen = |execution: &Execution| execution.observe(number, &Observation::Task(task), now);
        match advance_from(self.store, self.queue, now, execution, seen).await? {
            Some(execution) => self.stop_if_unwanted(&execution, number, task).await,
            None => Ok(()),
        }
    }

    /// Records that this call surely started nothing.
    async fn refused(
        &self,
        execution: Execution,
        input: &RunTaskInput,
        backlog: LimitKey,
        error: LaunchError,
    ) -> Result<Ran, PortError> {
        let (now, token) = (self.system.now(), &*input.client_token);
        let called_at =
            |execution: &Execution| execution.open_attempt().map(Attempt::last_called_at);
        let known = called_at(&execution);
        // A call made by another launcher in the meantime may have started something.
        let is_last = |execution: &&Execution| called_at(execution) == known;
        let why = match &error {
            LaunchError::Refused(why) => {
                let cause = Cause::NeverStarted(why.clone());
                let ended = |execution: &Execution| {
                    Some(execution)
                        .filter(is_last)?
                        .never_launched(token, &cause, now)
                };
                return advance_from(self.store, self.queue, now, execution, ended)
                    .await
                    .map(|_| Ran::Settled);
            }
            LaunchError::NoDefinition(why) => {
                let git = self.git_access(&execution).await?;
                let hash =
                    TaskDefinition::of(&execution.request, &git, self.settings).content_hash();
                self.registered
                    .forget(self.store, &hash, &input.task_definition)
                    .await?;
                why
            }
            LaunchError::Throttled(why)
            | LaunchError::Full { words: why, .. }
            | LaunchError::Unknown(why) => why,
        };
        // The execution goes back to its position in the backlog it came from. No wakeup is sent,
        // because no room became free.
        let back = |execution: &Execution| {
            Some(execution)
                .filter(is_last)?
                .refused(token, backlog.clone(), why, now)
        };
        if let advance::Changed::Yes { before, after } =
            advance::change(self.store, execution, back).await?
            && after.end().is_some()
        {
            advance::wake(self.store, self.queue, now, &before, &after).await?;
        }
        Ok(match error {
            LaunchError::Throttled(why) => Ran::Throttled(why),
            LaunchError::Full { shortage, words } => Ran::Short(shortage, words),
            LaunchError::Refused(_) | LaunchError::NoDefinition(_) | LaunchError::Unknown(_) => {
                Ran::Settled
            }
        })
    }

    async fn ask_again(&self, id: &ExecutionId, pause: TimeDelta) -> Result<(), PortError> {
        self.queue
            .send(vec![delayed(
                Message::Check { id: id.clone() },
                pause.num_milliseconds(),
            )])
            .await
    }

    /// Stops a task whose execution was cancelled or given up while the task was being started.
    async fn stop_if_unwanted(
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
                .stop_task(&task.task_arn, &stop_reason(execution))
                .await
        }
    }

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
                self.tasks.stop_task(arn, &stop_reason(execution)).await
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
            return self
                .refused(*execution, input, LimitKey::Pool(attempt.pool), error)
                .await
                .map(drop);
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
                    "RunTask was called, its answer never came, and ECS knows no such task",
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
        let calls = advance::change(self.store, execution.clone(), calling).await?;
        let advance::Changed::Yes { after, .. } = calls else {
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
            match advance::change(self.store, *after, was_refused).await? {
                advance::Changed::Yes {
                    after: execution, ..
                }
                | advance::Changed::No(Some(execution)) => Called::Refused { error, execution },
                advance::Changed::No(None) => Called::Elsewhere,
            },
        )
    }
}

fn is_unknown(error: &LaunchError) -> bool {
    matches!(error, LaunchError::Unknown(_))
}

/// Reads a stopped task's last marker lines from its log, once no more lines can arrive.
pub(crate) async fn read_log(
    store: &impl Store,
    queue: &impl Queue,
    logs: &impl Logs,
    clock: &impl Clock,
    settings: &Settings,
    execution: &Execution,
    attempt: &Attempt,
) -> Result<(), PortError> {
    let left = attempt
        .log_settles_at(settings)
        .map_or(TimeDelta::zero(), |at| at - clock.now());
    if left > TimeDelta::zero() {
        let again = delayed(
            Message::Check {
                id: execution.id.clone(),
            },
            left.num_milliseconds(),
        );
        return queue.send(vec![again]).await;
    }
    let said = match attempt.task_arn.as_deref() {
        None => Vec::new(),
        Some(arn) => match markers::read_ends(logs, &task::log_stream(arn), &attempt.nonce).await {
            // Being throttled is not a failure. SQS delivers a failed message only a few more
            // times, so a delayed check is sent instead.
            Err(ReadError::Throttled) => return queue.send(vec![read_later(&execution.id)]).await,
            said => said?,
        },
    };
    let (now, number) = (clock.now(), attempt.number);
    let heard =
        |execution: &Execution| execution.observe(number, &Observation::WholeLog(&said), now);
    advance(store, queue, now, &execution.id, heard)
        .await
        .map(|_| ())
}

/// Returns a delayed check for a time when logs are read too often. The pause depends on the id, so
/// that the checks of many executions are spread out.
fn read_later(id: &ExecutionId) -> Outgoing {
    let chance = id.as_str().bytes().fold(0_u128, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u128::from(byte))
    });
    let pause = i64::from(backoff::throttled_seconds(chance)) * 1000;
    delayed(Message::Check { id: id.clone() }, pause)
}

fn parse(record: &SqsMessage) -> Result<Message, FormError> {
    Message::read(record.body.as_deref().unwrap_or_default())
}

/// The reason that ECS is given for stopping a task and shows as `stoppedReason`.
pub(crate) fn stop_reason(execution: &Execution) -> String {
    match &execution.cancel {
        Some(cancel) => format!("cancelled by {}", cancel.by),
        None => "past its timeout".to_owned(),
    }
}
