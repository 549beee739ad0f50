//! Launching executions: preparing their task definitions, taking tokens, recording the launches
//! under their limits, calling `RunTask` and recording the answers.

use chrono::TimeDelta;
use domain::{
    attempt_secret::AttemptSecret,
    cause::Cause,
    ecs::{RunTaskInput, Task},
    execution::{Attempt, Execution},
    git,
    git_access::GitAccess,
    id::ExecutionId,
    key::Role,
    limit::{CapacityPool, LimitKey},
    measure,
    ports::{
        Clock, Definitions, Entropy, LaunchError, LaunchStore, Logs, PortError, Queue, Secrets,
        Tasks, Update, UpdateError, WriteStore,
    },
    scheduler::{
        Hold, Launches, LimitSnapshot, PoolSnapshot,
        adaptive_limit::Shortage,
        promotes_next,
        reason::usage_words,
        snapshot::{ROUND, admissions, max_of},
        state::{Answer, Learned},
        watch::{NAP_MAX, NAP_MIN},
    },
    task::{self, AttemptProof, TaskDefinition},
    transition::{LaunchPlan, Observation},
};
use futures_util::future::{join, join_all};

use super::{
    Launched, Launcher,
    checks::{IN_FLIGHT, is_unknown},
    groups::Marked,
    rounds::{RoundOutcome, Then},
};
use crate::{
    advance::{Changed, advance, advance_from, advance_quietly, wake},
    definitions::Ensured,
    log,
};

/// How long a run waits that needs a secret with an unreadable record, or an upgrade of the stack.
/// An administrator has to set the secret again, and an upgrade takes minutes.
const NAP: TimeDelta = TimeDelta::minutes(1);
/// Why a run waits whose task must call our API, before the launcher has the address.
const BEING_UPGRADED: &str = "the stack is being upgraded: this launcher does not know yet how a task keeps files or asks for \
                              a large request";

/// The outcome of recording launches. The recorded ones go on, whatever became of the others.
#[derive(Default)]
struct Recorded {
    launched: Vec<Launched>,
    /// The backlogs that entries were sent back to.
    next: Vec<LimitKey>,
    failure: Option<PortError>,
}

/// Whether an execution's task definition is ready for a launch.
enum Ready {
    /// The definition is ready.
    Now(Box<Execution>),
    /// The definition will be ready in a moment.
    Soon,
    /// Not in this round: the execution was postponed or has ended.
    Elsewhere,
}

/// The outcome of a first `RunTask` call, as far as it says something about the pool.
pub(super) enum Ran {
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
    S: WriteStore + LaunchStore + Definitions,
    Q: Queue,
    T: Tasks,
    L: Logs,
    X: Secrets,
    A: Clock + Entropy,
{
    /// Starts the executions of this launch, as far as the rates allow.
    pub(super) async fn launch(
        &self,
        backlog: &LimitKey,
        launch: Launches,
    ) -> Result<RoundOutcome, PortError> {
        let Launches {
            executions,
            mut pool,
            max,
            is_probe,
        } = launch;
        let all = executions.len();
        // This comes before taking tokens: a definition may have to be registered first, and nobody
        // else could use the tokens meanwhile.
        let (mut updates, whole) = self.prepared(executions, max).await?;
        if updates.is_empty() {
            let then = if whole { Then::Again } else { Then::AgainSoon };
            return Ok(RoundOutcome::then(then));
        }
        let wanted = updates.len();
        match self.take_tokens(pool.pool, wanted).await? {
            Ok(granted) => updates.truncate(granted),
            Err(hold) => return Ok(RoundOutcome::then(Then::Held(hold, None))),
        }
        let is_rate_bound = updates.len() < wanted;
        if is_probe && !self.claim_probe(&mut pool).await? {
            return Ok(RoundOutcome::then(Then::Again));
        }
        let Recorded {
            launched,
            mut next,
            failure,
        } = self.record(backlog, updates, &pool.limit.key).await;
        if launched.is_empty() {
            // Other launchers were faster, or used up the room.
            return Ok(RoundOutcome {
                then: Then::AgainSoon,
                next,
                failure,
                ..RoundOutcome::default()
            });
        }
        let (launched, marked) = match self.by_their_marks(launched).await {
            Ok(split) => split,
            Err(error) => {
                return Ok(RoundOutcome {
                    next,
                    failure: Some(error),
                    ..RoundOutcome::default()
                });
            }
        };
        next.extend(
            launched
                .iter()
                .filter_map(|launched| promotes_next(backlog, &launched.execution)),
        );
        let (answers, mut failure) = self.run_all(launched, &marked).await;
        let started = answers
            .iter()
            .filter(|answer| matches!(answer, Ran::Started | Ran::Settled))
            .count();
        let surely = answers
            .iter()
            .filter(|answer| matches!(answer, Ran::Started))
            .count();
        let throttled = answers.iter().find_map(|answer| match answer {
            Ran::Throttled(words) => Some(words.clone()),
            Ran::Started | Ran::Settled | Ran::Short(..) => None,
        });
        let look_at = self.system.now() + NAP_MAX;
        let learned = match self.learned(pool, is_probe, answers).await {
            Ok(learned) => learned,
            Err(error) => {
                failure = Some(error);
                None
            }
        };
        Ok(RoundOutcome {
            started,
            is_complete: surely == all,
            is_rate_bound,
            learned,
            then: throttled.map_or(Then::Again, |words| {
                Then::Held(Hold::throttled(words, look_at), None)
            }),
            next,
            failure,
        })
    }

    /// Calls `RunTask` for these launches, and cancels those that a mark covers. Returns the
    /// answers, and an error if there was one. Every call is finished: a launch that cannot be
    /// recorded is no reason to abandon the others in the middle of their calls.
    async fn run_all(
        &self,
        launched: Vec<Launched>,
        marked: &Marked,
    ) -> (Vec<Ran>, Option<PortError>) {
        let runs = join_all(launched.into_iter().map(|launched| self.run(launched)));
        let (results, cancelled) = join(runs, self.cancel_by_mark(marked)).await;
        let (mut answers, mut failure) = (Vec::new(), cancelled.err());
        for result in results {
            match result {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    tracing::warn!(%error, "the answer to a launch could not be recorded");
                    failure = Some(error);
                }
            }
        }
        (answers, failure)
    }

    /// Takes tokens for up to `want` launches, as many as the rates allow now. If there are none,
    /// returns what holds the launches.
    async fn take_tokens(
        &self,
        pool: CapacityPool,
        want: usize,
    ) -> Result<Result<usize, Hold>, PortError> {
        let now = self.system.now();
        let mut granted = u32::try_from(want).unwrap_or(ROUND);
        for (key, rate) in self.settings.launch_rates(pool) {
            let (taken, wait_millis) = self.store.take_tokens(key, rate, granted, now).await?;
            if taken == 0 {
                let wait = TimeDelta::milliseconds(i64::try_from(wait_millis).unwrap_or(i64::MAX));
                return Ok(Err(Hold::by_rate(key, rate, now + wait.max(NAP_MIN))));
            }
            granted = taken;
        }
        Ok(Ok(usize::try_from(granted).unwrap_or_default()))
    }

    /// Claims a probe for this launcher. Returns `false` if somebody else wrote the pool's state
    /// first: another launcher may have claimed the probe, so the next round looks again.
    async fn claim_probe(&self, pool: &mut PoolSnapshot) -> Result<bool, PortError> {
        let limit = &mut pool.limit;
        let probing = limit
            .state
            .with_pool(limit.state.pool.probing(self.system.now()));
        let is_mine = self
            .store
            .set_limit_state(&limit.key, &limit.state, probing)
            .await?;
        if is_mine {
            limit.state = self.store.limit_state(&limit.key).await?;
        }
        Ok(is_mine)
    }

    /// Returns the updates that record the launches with a registered definition, and whether all
    /// of the executions were looked at. Stops at a definition that another launcher is
    /// registering, so that ten thousand executions of the same kind wait for it and are not
    /// postponed one by one.
    async fn prepared(
        &self,
        executions: Vec<Execution>,
        max: Option<u32>,
    ) -> Result<(Vec<Update>, bool), PortError> {
        let mut updates = Vec::new();
        for before in executions {
            match self.launching(&before).await? {
                Ready::Now(after) => {
                    updates.push(Update {
                        admissions: admissions(&before, max),
                        before,
                        after: *after,
                    });
                }
                Ready::Soon => return Ok((updates, false)),
                // Its record has changed, and the backlog's index may lag behind.
                Ready::Elsewhere => {
                    if let Some(entry) = before.backlog_entry() {
                        self.heads.forget(&entry.backlog, &before.id);
                    }
                }
            }
        }
        Ok((updates, true))
    }

    /// Records the launches under their limits, each all or none, before anything is started.
    async fn record(&self, backlog: &LimitKey, updates: Vec<Update>, pool: &LimitKey) -> Recorded {
        let befores: Vec<_> = updates
            .iter()
            .map(|update| (update.before.id.clone(), update.before.status()))
            .collect();
        for (id, _) in &befores {
            self.heads.forget(backlog, id);
        }
        let (mut recorded, mut back) = (Recorded::default(), Vec::new());
        for ((id, status), result) in befores.iter().zip(self.store.update_all(updates).await) {
            match result {
                Ok(execution) => {
                    log::status_changed(status, &execution);
                    recorded.launched.push(Launched {
                        execution,
                        from: backlog.clone(),
                    });
                }
                Err(UpdateError::Full(full)) if full != *backlog && full != *pool => {
                    back.push((id, full));
                }
                Err(UpdateError::Conflict | UpdateError::Full(_)) => {}
                Err(UpdateError::Failed(error)) => {
                    tracing::warn!(execution_id = %id, %error, "a launch could not be recorded");
                    recorded.failure = Some(error);
                }
            }
        }
        for (id, full) in back {
            match self.turn_back(id, backlog, &full).await {
                // The holder may have ended before the entry was there to be woken for.
                Ok(()) => recorded.next.push(full),
                // The entry is tried again from its backlog. The recorded launches do not wait for
                // it.
                Err(error) => {
                    tracing::warn!(execution_id = %id, %error, "an entry could not be sent back to its backlog");
                }
            }
        }
        recorded
    }

    /// Returns the record with its next attempt, once its task definition is registered.
    async fn launching(&self, before: &Execution) -> Result<Ready, PortError> {
        let now = self.system.now();
        let secret = AttemptSecret::of_bits(self.system.bits());
        let Some(proof) = AttemptProof::of(&before.request, &secret, self.settings) else {
            return self.postpone(before, BEING_UPGRADED.to_owned(), NAP).await;
        };
        let git = match self.git_access(before).await {
            // A secret with an unreadable record delays only the executions that need it, not the
            // rest of the backlog.
            Err(PortError::Corrupt(corrupt)) => {
                corrupt.note();
                return self.postpone(before, corrupt.to_string(), NAP).await;
            }
            git => git?,
        };
        let definition = TaskDefinition::of(&before.request, &git, self.settings);
        match self
            .registered
            .ensure(self.store, self.tasks, self.settings, &definition, now)
            .await?
        {
            Ensured::Ready(arn) => {
                let plan = LaunchPlan {
                    nonce: proof.nonce(),
                    token_hash: proof.token_hash(),
                    run_task: task::run_task(before, &arn, proof, &git, self.settings),
                    price: self.settings.attempt_price(&before.request, before.pool),
                };
                let after = before.launching(plan, now);
                Ok(after.map_or(Ready::Elsewhere, |after| Ready::Now(Box::new(after))))
            }
            Ensured::Soon => Ok(Ready::Soon),
            Ensured::Later { reason, pause } => self.postpone(before, reason, pause).await,
            Ensured::Refused(why) => {
                let why = format!("the task definition was refused: {why}");
                let rejected = |execution: &Execution| execution.rejected(why.clone(), now);
                advance(self.store, self.queue, now, &before.id, rejected)
                    .await
                    .map(|_| Ready::Elsewhere)
            }
        }
    }

    /// Lets an execution wait in its backlog for a while, and others go before it.
    async fn postpone(
        &self,
        before: &Execution,
        reason: String,
        pause: TimeDelta,
    ) -> Result<Ready, PortError> {
        let now = self.system.now();
        let postponed =
            |execution: &Execution| execution.postponed(reason.clone(), now + pause, now);
        advance(self.store, self.queue, now, &before.id, postponed)
            .await
            .map(|_| Ready::Elsewhere)
    }

    /// Moves an execution from this backlog back to that of its lock or group, which is used up
    /// again.
    async fn turn_back(
        &self,
        id: &ExecutionId,
        backlog: &LimitKey,
        full: &LimitKey,
    ) -> Result<(), PortError> {
        let (now, usage) = (self.system.now(), self.store.usage(full).await?);
        let goes_back = |execution: &Execution| {
            execution
                .backlog_entry()
                .filter(|entry| entry.backlog == *backlog)?;
            let max = max_of(full, &execution.request, None);
            execution.parked(full.clone(), usage_words(full, usage.used, max), now)
        };
        advance(self.store, self.queue, now, id, goes_back)
            .await
            .map(drop)
    }

    /// Returns what ECS's answers say about the pool. A probe that was neither accepted nor refused
    /// does not count as a success; another probe is made when its time is over.
    async fn learned(
        &self,
        pool: PoolSnapshot,
        is_probe: bool,
        answers: Vec<Ran>,
    ) -> Result<Option<(LimitSnapshot, Learned)>, PortError> {
        let is_accepted = is_probe && answers.iter().any(|ran| matches!(ran, Ran::Started));
        let short = answers.into_iter().find_map(|answer| match answer {
            Ran::Short(shortage, words) => Some(Answer::Short(shortage, words)),
            Ran::Started | Ran::Settled | Ran::Throttled(_) => None,
        });
        let Some(answer) = short.or(is_accepted.then_some(Answer::ProbeAccepted)) else {
            return Ok(None);
        };
        let learned = Learned {
            answer,
            used: self.store.usage(&pool.limit.key).await?.used,
            quota: pool.quota(),
            spread: self.system.bits(),
        };
        Ok(Some((pool.limit, learned)))
    }

    /// Returns the git credentials that an execution may clone with, given the secrets that are set
    /// now.
    async fn git_access(&self, execution: &Execution) -> Result<GitAccess, PortError> {
        let Some(source) = &execution.request.source else {
            return Ok(GitAccess::default());
        };
        let mut set = Vec::new();
        for name in git::secrets_for(source) {
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
                tracing::warn!(execution_id = %execution.id, %error, "the outcome of a launch is unknown; asking again");
                self.ask_again(&execution.id, IN_FLIGHT)
                    .await
                    .map(|()| Ran::Settled)
            }
            Err(error) => self.refused(execution, &input, from, error).await,
        }
    }

    /// Records that the task exists.
    pub(super) async fn started(
        &self,
        execution: Execution,
        number: u32,
        task: &Task,
    ) -> Result<(), PortError> {
        let now = self.system.now();
        let seen = |execution: &Execution| execution.observe(number, &Observation::Task(task), now);
        match advance_from(self.store, self.queue, now, execution, seen)
            .await?
            .now()
        {
            Some(execution) => self.stop_if_unwanted(&execution, number, task).await,
            None => Ok(()),
        }
    }

    /// Records that this call surely started nothing.
    pub(super) async fn refused(
        &self,
        execution: Execution,
        input: &RunTaskInput,
        backlog: LimitKey,
        error: LaunchError,
    ) -> Result<Ran, PortError> {
        let (now, token) = (self.system.now(), &*input.client_token);
        measure::record_refusal(execution.pool, &error);
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
        if let Changed::Yes {
            before: Some(before),
            after,
        } = advance_quietly(self.store, execution, back).await?
            && after.end().is_some()
        {
            wake(self.store, self.queue, now, &before, &after).await?;
        }
        Ok(match error {
            LaunchError::Throttled(why) => Ran::Throttled(why),
            LaunchError::Full { shortage, words } => Ran::Short(shortage, words),
            LaunchError::Refused(_) | LaunchError::NoDefinition(_) | LaunchError::Unknown(_) => {
                Ran::Settled
            }
        })
    }
}
