//! The launcher function: starts the heads of lines, stops what is to be stopped, asks after what is unknown.

use std::collections::BTreeMap;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    cause::Cause,
    ecs::RunTaskInput,
    execution::{Attempt, Execution, Ticket},
    id::ExecutionId,
    limit::{LimitKey, RateKey},
    message::Message,
    ports::{Clock, Definitions, Entropy, LaunchError, Logs, Queue, Secrets, Store, Tasks, Unavailable, UpdateError},
    settings::{GitAccess, Settings},
    task::{self, TaskDefinition},
    throttle,
    transition::{Observation, Plan},
};

use crate::{
    advance::{self, advance, advance_from, delayed},
    definitions::{Ensured, Registered},
    markers,
};

/// How many tickets are looked at in one round. Fargate's RunTask takes 20 calls a second (AWS-FACTS §2).
const ROUND: u32 = 20;
/// Rounds in one invocation, before the rest is left to another hint. Ours.
const ROUNDS: usize = 10;
/// How long a client token surely lives: ECS keeps it for at least an hour after the task ends; ten minutes of margin (AWS-FACTS §1).
const TOKEN_LIVES: TimeDelta = TimeDelta::minutes(50);
/// How long a launcher may still be in the middle of its call before somebody else asks after the outcome. Ours.
const IN_FLIGHT: TimeDelta = TimeDelta::seconds(5);
/// Pause before a pool that refused is asked again: a probe every 5 to 15 s (DESIGN §5).
const PROBE: TimeDelta = TimeDelta::seconds(5);

/// The launcher function.
#[derive(Debug)]
pub struct Launcher<'a, S, Q, T, L, X, A> {
    /// Where executions are recorded.
    pub store: &'a S,
    /// Where hints are sent.
    pub queue: &'a Q,
    /// ECS.
    pub tasks: &'a T,
    /// The tasks' output.
    pub logs: &'a L,
    /// Which secrets are set.
    pub secrets: &'a X,
    /// Which task definitions are registered.
    pub registered: &'a Registered,
    /// Clock and randomness.
    pub ambient: &'a A,
    /// The installation's settings.
    pub settings: &'a Settings,
}

/// What came of a look at the head of a line.
enum Turn {
    /// It was launched, or it is none of this line's any more: look at the next.
    Next,
    /// It cannot start, and so nobody behind it can.
    Blocked { line: LimitKey, reason: String },
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
    /// Takes a batch of messages. What could not be dealt with now comes back as a failure and is received again.
    pub async fn handle(&self, event: SqsEvent) -> SqsBatchResponse {
        let mut lines: BTreeMap<LimitKey, (Vec<String>, Vec<ExecutionId>)> = BTreeMap::new();
        let mut failed = Vec::new();
        for record in event.records {
            let message_id = record.message_id.clone().unwrap_or_default();
            match parse(&record) {
                Ok(Message::Line { line, id }) => {
                    let (messages, ids) = lines.entry(line).or_default();
                    messages.push(message_id);
                    ids.extend(id);
                }
                Ok(Message::Check { id }) => {
                    if let Err(error) = self.attend(&id).await {
                        tracing::warn!(execution = %id, %error, "an execution could not be attended to");
                        failed.push(message_id);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a message cannot be read");
                    failed.push(message_id);
                }
            }
        }
        for (line, (messages, ids)) in lines {
            if let Err(error) = self.drain(&line, &ids).await {
                tracing::warn!(%line, %error, "a line could not be drained");
                failed.extend(messages);
            }
        }
        let mut response = SqsBatchResponse::default();
        failed.into_iter().for_each(|id| response.add_failure(id));
        response
    }

    /// Starts the head of a line as long as there is room, and tells the newly come why they wait.
    async fn drain(&self, line: &LimitKey, newcomers: &[ExecutionId]) -> Result<(), Unavailable> {
        for _ in 0..ROUNDS {
            let now = self.ambient.now();
            let tickets = self.store.line(line, now, ROUND).await?;
            if tickets.is_empty() {
                return Ok(());
            }
            let Some(granted) = self.granted(line, &tickets, newcomers, now).await? else { return Ok(()) };
            for ticket in tickets.iter().take(granted) {
                if let Turn::Blocked { line: blocked, reason } = self.take_turn(ticket).await? {
                    return self.tell(newcomers, line, &blocked, &reason).await;
                }
            }
        }
        self.queue.send(vec![Message::Line { line: line.clone(), id: None }.into()]).await
    }

    /// How many of these may be launched now by the pool's rate; `None` if none, and then a hint comes when one may.
    async fn granted(
        &self,
        line: &LimitKey,
        tickets: &[Ticket],
        newcomers: &[ExecutionId],
        now: Timestamp,
    ) -> Result<Option<usize>, Unavailable> {
        let LimitKey::Pool(pool) = line else { return Ok(Some(tickets.len())) };
        let Some(rate) = self.settings.quotas.of(*pool).rate else { return Ok(Some(tickets.len())) };
        let key = RateKey::Launches(*pool);
        let want = u32::try_from(tickets.len()).unwrap_or(ROUND);
        let (granted, wait_millis) = self.store.take_tokens(key, rate, want, now).await?;
        if granted > 0 {
            return Ok(usize::try_from(granted).ok());
        }
        let millis = i64::try_from(wait_millis).unwrap_or(i64::MAX);
        self.queue.send(vec![delayed(Message::Line { line: line.clone(), id: None }, millis)]).await?;
        self.tell(newcomers, line, line, &throttle::rate_reason(key, rate)).await?;
        Ok(None)
    }

    /// Those who came with this hint and still stand in this line learn why.
    async fn tell(
        &self,
        ids: &[ExecutionId],
        line: &LimitKey,
        blocked: &LimitKey,
        reason: &str,
    ) -> Result<(), Unavailable> {
        for id in ids {
            let now = self.ambient.now();
            advance(self.store, self.queue, now, id, |execution| {
                execution.ticket().filter(|ticket| ticket.line == *line || ticket.line == *blocked)?;
                let line = execution.ticket()?.line;
                execution.parked(line, reason.to_owned(), now)
            })
            .await?;
        }
        Ok(())
    }

    async fn take_turn(&self, ticket: &Ticket) -> Result<Turn, Unavailable> {
        let Some(before) = self.store.load(&ticket.id).await? else { return Ok(Turn::Next) };
        if before.ticket().is_none_or(|current| current.line != ticket.line) {
            return Ok(Turn::Next);
        }
        let now = self.ambient.now();
        if let Some(reason) = throttle::impossible(before.request.size.cpu(), self.settings.quotas.of(before.pool).cpu)
        {
            let rejected = |execution: &Execution| execution.rejected(reason.clone(), now);
            advance(self.store, self.queue, now, &ticket.id, rejected).await?;
            return Ok(Turn::Next);
        }
        let definition = self.definition(&before).await?;
        match self.registered.ensure(self.store, self.tasks, self.settings, &definition, now).await? {
            Ensured::Ready(arn) => self.launch(ticket, &before, &arn, now).await,
            Ensured::Later { reason, pause } => {
                let postponed = |execution: &Execution| execution.postponed(reason.clone(), now + pause, now);
                advance(self.store, self.queue, now, &ticket.id, postponed).await.map(|_| Turn::Next)
            }
            Ensured::Refused(why) => {
                let why = format!("the task definition was refused: {why}");
                let rejected = |execution: &Execution| execution.rejected(why.clone(), now);
                advance(self.store, self.queue, now, &ticket.id, rejected).await.map(|_| Turn::Next)
            }
        }
    }

    /// The definition an execution needs, with the credentials for git that there are now.
    async fn definition(&self, execution: &Execution) -> Result<TaskDefinition, Unavailable> {
        let git = match &execution.request.source {
            None => GitAccess::default(),
            Some(_) => GitAccess {
                token: self.secrets.find_secret(task::GIT_TOKEN).await?.is_some(),
                ssh_key: self.secrets.find_secret(task::GIT_SSH_KEY).await?.is_some(),
                known_hosts: self.secrets.find_secret(task::GIT_KNOWN_HOSTS).await?.is_some(),
            },
        };
        Ok(TaskDefinition::of(&execution.request, git, self.settings))
    }

    /// Records the launch under its limits, all of them or none, and only then starts the task.
    async fn launch(
        &self,
        ticket: &Ticket,
        before: &Execution,
        definition_arn: &str,
        now: Timestamp,
    ) -> Result<Turn, Unavailable> {
        let nonce = format!("{:032x}", self.ambient.bits());
        let run_task = task::run_task(before, definition_arn, &nonce, self.settings);
        let Some(after) = before.launching(Plan { nonce, run_task: run_task.clone() }, now) else {
            return Ok(Turn::Next);
        };
        let admissions = throttle::admissions(before, self.settings.quotas.of(before.pool).cpu);
        match advance::commit(self.store, self.queue, now, before, after, &admissions).await {
            Ok(launching) => self.run(launching, &run_task).await.map(|()| Turn::Next),
            Err(UpdateError::Conflict) => Ok(Turn::Next),
            Err(UpdateError::Full(key)) => self.park(ticket, before, key).await,
            Err(UpdateError::Unavailable(error)) => Err(error),
        }
    }

    /// The ticket moves to the line of the limit that holds it.
    async fn park(&self, ticket: &Ticket, before: &Execution, full: LimitKey) -> Result<Turn, Unavailable> {
        let usage = self.store.usage(&full).await?;
        let max = throttle::max_of(&full, &before.request, self.settings.quotas.of(before.pool).cpu);
        let reason = throttle::reason(&full, usage, max);
        let now = self.ambient.now();
        let parked = |execution: &Execution| {
            execution.ticket().filter(|current| current.line == ticket.line)?;
            execution.parked(full.clone(), reason.clone(), now)
        };
        advance(self.store, self.queue, now, &ticket.id, parked).await?;
        // Who moved on from a lock's line still has its turn at the lock: nobody behind may overtake it.
        let next_may_go = full != ticket.line && !matches!(ticket.line, LimitKey::Lock(_));
        Ok(if next_may_go { Turn::Next } else { Turn::Blocked { line: full, reason } })
    }

    /// Calls `RunTask` and writes down what came of it.
    async fn run(&self, launching: Execution, input: &RunTaskInput) -> Result<(), Unavailable> {
        let result = self.tasks.run_task(input).await;
        let now = self.ambient.now();
        let id = &launching.id.clone();
        let number = input.started_by.parse::<domain::id::AttemptId>().map_or(1, |attempt| attempt.number());
        let written = match &result {
            Ok(task) => {
                let seen = |execution: &Execution| execution.observe(number, &Observation::Task(task), now);
                advance_from(self.store, self.queue, now, launching, seen).await?
            }
            Err(LaunchError::Throttled(why)) => self.refused(id, why, TimeDelta::seconds(1)).await?,
            Err(LaunchError::Full { words, .. }) => self.refused(id, words, PROBE).await?,
            Err(LaunchError::Refused(why)) => {
                let cause = Cause::NeverStarted(why.clone());
                let ended = |execution: &Execution| execution.never_launched(&cause, now);
                advance(self.store, self.queue, now, id, ended).await?
            }
            Err(LaunchError::NoDefinition(why)) => {
                let hash = self.definition(&launching).await?.content_hash();
                self.registered.forget(self.store, &hash, &input.task_definition).await?;
                self.refused(id, why, TimeDelta::zero()).await?
            }
            Err(LaunchError::Unknown(why)) => {
                tracing::warn!(execution = %id, why, "the outcome of a launch is unknown; asking again");
                self.queue.send(vec![delayed(Message::Check { id: id.clone() }, IN_FLIGHT.num_milliseconds())]).await?;
                None
            }
        };
        if let (Some(execution), Ok(task)) = (written, &result) {
            self.stop_if_unwanted(&execution, number, &task.task_arn).await?;
        }
        Ok(())
    }

    async fn refused(&self, id: &ExecutionId, why: &str, pause: TimeDelta) -> Result<Option<Execution>, Unavailable> {
        let now = self.ambient.now();
        advance(self.store, self.queue, now, id, |execution| {
            let line = LimitKey::Pool(execution.pool);
            execution.refused(line, why, now + pause, now)
        })
        .await
    }

    /// A task that was cancelled, or given up, while it was being started.
    async fn stop_if_unwanted(&self, execution: &Execution, number: u32, task_arn: &str) -> Result<(), Unavailable> {
        let open = execution.open_attempt().is_some_and(|attempt| attempt.number == number);
        if open && execution.cancel.is_none() {
            return Ok(());
        }
        let over = execution.attempts.iter().any(|a| a.number == number && a.is_stopped());
        if over { Ok(()) } else { self.tasks.stop_task(task_arn, &stop_reason(execution)).await }
    }

    /// Brings an execution that is not final as far forward as can be: carries out a cancel, finds out about an unknown launch,
    /// reads the end of a log.
    ///
    /// # Errors
    /// When something does not answer; repeating the call is right.
    pub async fn attend(&self, id: &ExecutionId) -> Result<(), Unavailable> {
        let Some(execution) = self.store.load(id).await? else { return Ok(()) };
        let Some(attempt) = execution.open_attempt() else { return Ok(()) };
        if attempt.needs_its_log() {
            return read_log(self.store, self.queue, self.logs, self.ambient, self.settings, &execution, attempt).await;
        }
        match &attempt.task_arn {
            None => self.find_out(&execution, attempt).await,
            Some(arn) if execution.cancel.is_some() || attempt.overdue => {
                self.tasks.stop_task(arn, &stop_reason(&execution)).await
            }
            Some(_) => Ok(()),
        }
    }

    /// The outcome of `RunTask` is unknown. While its token lives the same call tells; after that ECS's lists do; what stays unknown
    /// is lost, and never launched again.
    async fn find_out(&self, execution: &Execution, attempt: &Attempt) -> Result<(), Unavailable> {
        let now = self.ambient.now();
        let age = now - attempt.launched_at;
        let again = delayed(Message::Check { id: execution.id.clone() }, IN_FLIGHT.num_milliseconds());
        if age < IN_FLIGHT && execution.cancel.is_none() {
            return self.queue.send(vec![again]).await;
        }
        if execution.cancel.is_none() && age < TOKEN_LIVES {
            let Some(input) = attempt.run_task.clone() else { return Ok(()) };
            return self.run(execution.clone(), &input).await;
        }
        let arns = self.tasks.list_tasks(&execution.attempt_id(attempt)).await?;
        let tasks = if arns.is_empty() { Vec::new() } else { self.tasks.describe_tasks(&arns).await?.tasks };
        if let Some(task) = tasks.first() {
            let seen = |execution: &Execution| execution.observe(attempt.number, &Observation::Task(task), now);
            let written = advance(self.store, self.queue, now, &execution.id, seen).await?;
            let Some(execution) = written else { return Ok(()) };
            return self.stop_if_unwanted(&execution, attempt.number, &task.task_arn).await;
        }
        if age < TimeDelta::seconds(i64::from(self.settings.unlisted_seconds)) {
            return self.queue.send(vec![again]).await;
        }
        let given_up = |execution: &Execution| {
            execution.cancelled_unlaunched(now).or_else(|| {
                execution.lost("RunTask was called, its answer never came, and ECS knows no such task", now)
            })
        };
        advance(self.store, self.queue, now, &execution.id, given_up).await.map(|_| ())
    }
}

/// A stopped task's last words, from its log; as soon as nothing more can come in.
pub(crate) async fn read_log(
    store: &impl Store,
    queue: &impl Queue,
    logs: &impl Logs,
    clock: &impl Clock,
    settings: &Settings,
    execution: &Execution,
    attempt: &Attempt,
) -> Result<(), Unavailable> {
    let left = attempt.log_settles_at(settings).map_or(TimeDelta::zero(), |at| at - clock.now());
    if left > TimeDelta::zero() {
        let again = delayed(Message::Check { id: execution.id.clone() }, left.num_milliseconds());
        return queue.send(vec![again]).await;
    }
    let said = match attempt.task_arn.as_deref() {
        Some(arn) => markers::read_all(logs, &task::log_stream(arn), &attempt.nonce).await?,
        None => Vec::new(),
    };
    let (now, number) = (clock.now(), attempt.number);
    let heard = |execution: &Execution| execution.observe(number, &Observation::WholeLog(&said), now);
    advance(store, queue, now, &execution.id, heard).await.map(|_| ())
}

fn parse(record: &SqsMessage) -> Result<Message, serde_json::Error> {
    serde_json::from_str(record.body.as_deref().unwrap_or_default())
}

/// What ECS is told, and shows as `stoppedReason`.
pub(crate) fn stop_reason(execution: &Execution) -> String {
    match &execution.cancel {
        Some(cancel) => format!("cancelled by {}", cancel.by),
        None => "past its timeout".to_owned(),
    }
}
