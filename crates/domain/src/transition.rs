//! Every change of an execution's record, as pure functions from one record to the next.
//!
//! `None` means that nothing changes. History only moves forward: facts about an attempt are merged
//! (see [`Attempt`]), the status is computed from them, and a closed attempt stays closed. So any
//! order, repetition or loss of a task's events, followed by a sweep, ends in the same state.

use std::time::Duration;

use chrono::TimeDelta;

use crate::{
    Timestamp,
    backoff::Backoff,
    cause::{self, Cause},
    container::{self, RUNNING_WITHIN_MINUTES},
    ecs::{RunTaskInput, StopCode, Task, TaskStatus},
    execution::{
        Attempt, Cancel, Event, Execution, ExecutionStatus, Final, MarkerFacts, Outcome,
        RepeatedCall, State,
    },
    id::ExecutionId,
    key::Caller,
    limit::{CapacityPool, LimitKey},
    marker::Marker,
    price::AttemptPrice,
    request::{LaunchRequest, RetryOn},
    stored::Unknown,
};

/// The most retries that the user did not ask for. They are made only for transient causes, and
/// only before the command started. Three ride out a short fault, and a lasting one is still
/// reported soon.
pub const AUTOMATIC_RETRIES_MAX: usize = 3;
/// The pauses before another attempt. Many faults pass within seconds, so the first pause is short.
/// The longest is 5 minutes, so that a run starts soon after a longer fault has passed.
const RETRY: Backoff = Backoff {
    first: Duration::from_secs(5),
    longest: Duration::from_secs(300),
};
/// How long the set-up of the runner may take (DESIGN §6).
pub const SET_UP_SECONDS: u32 = 600;
/// The time between TERM and KILL (DESIGN §6).
pub const GRACE_SECONDS: u32 = 10;
/// The number of events from which on a record gets no more of them for launches and refusals; the
/// attempt still counts its refusals. This keeps the record small. It is an item of at most 400 kB
/// (AWS-FACTS §6) that is read and written whole, and an execution that waits for capacity may be
/// tried every few seconds for days.
const EVENTS_MAX: usize = 48;
/// The most repeated calls of `RunTask` that a launch remembers. They are between seconds and a
/// minute apart, so ECS surely lists a task that an earlier, forgotten call started.
const CALLS_MAX: usize = 8;
/// How much later than the runner itself the sweep enforces a timeout (DESIGN §5).
const OVERDUE_SECONDS: u32 = 60;

/// An observation about an attempt.
#[derive(Clone, Debug)]
pub enum Observation<'a> {
    /// The task as an event or `DescribeTasks` shows it.
    Task(&'a Task),
    /// Marker lines, with their times.
    Markers(&'a [(Timestamp, Marker)]),
    /// All marker lines of the log of a task that has stopped.
    WholeLog(&'a [(Timestamp, Marker)]),
    /// ECS no longer knows the task.
    Gone,
}

/// The input of a launch: what is fixed when an attempt is about to be launched.
#[derive(Clone, Debug)]
pub struct LaunchPlan {
    /// The new attempt's nonce: 32 hexadecimal digits.
    pub nonce: String,
    /// The hash of the new attempt's token, if it has one.
    pub token_hash: Option<String>,
    /// The exact input of `RunTask`.
    pub run_task: RunTaskInput,
    /// The price of an hour, if it is known.
    pub price: Option<AttemptPrice>,
}

/// The answer to a request to cancel.
#[derive(Clone, Debug, PartialEq)]
pub enum CancelDecision {
    /// The execution has already ended, with this status.
    Final(ExecutionStatus),
    /// Somebody asked for the cancellation before.
    Asked,
    /// The execution is in a state of a newer release. Only that release knows how to stop it.
    NotKnown(ExecutionStatus),
    /// The new record; if it is not final, the task has to be stopped.
    Changed(Box<Execution>),
}

impl Execution {
    /// The record of a request that was just accepted.
    #[must_use]
    pub fn submitted(
        id: ExecutionId,
        request: LaunchRequest,
        pool: CapacityPool,
        by: &Caller,
        now: Timestamp,
    ) -> Self {
        let mut execution = Self {
            id,
            revision: 0,
            request,
            pool,
            submitted_by: by.name.clone(),
            submitted_by_id: Some(by.principal.clone()),
            submitted_role: Some(by.role),
            submitted_at: now,
            state: State::Queued {
                backlog: LimitKey::Pool(pool),
            },
            cancel: None,
            attempts: Vec::new(),
            events: Vec::new(),
            unknown: Unknown::default(),
        };
        execution.state = State::Queued {
            backlog: execution.first_backlog(),
        };
        execution.note(now, None);
        execution
    }

    /// Moves it into this backlog to wait, for this reason.
    #[must_use]
    pub fn parked(&self, backlog: LimitKey, reason: String, now: Timestamp) -> Option<Self> {
        let not_before = self.backlog_entry()?.not_before;
        self.waiting(backlog, reason, not_before, now)
    }

    /// Keeps it in its backlog for this reason, but not due before `until`, so that it does not
    /// hold up other entries.
    #[must_use]
    pub fn postponed(&self, reason: String, until: Timestamp, now: Timestamp) -> Option<Self> {
        let backlog = self.backlog_entry()?.backlog;
        self.waiting(backlog, reason, Some(until), now)
    }

    fn waiting(
        &self,
        backlog: LimitKey,
        reason: String,
        not_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Self> {
        self.changed(|next| {
            let first = !matches!(next.state, State::Waiting { .. });
            next.state = State::Waiting {
                backlog,
                reason: reason.clone(),
                not_before,
            };
            if first {
                next.note(now, Some(reason));
            }
        })
    }

    /// The number of the attempt that a launch now would be, and the client token for it. The token
    /// is new after each refusal, because ECS answers a repeated token with its earlier refusal.
    #[must_use]
    pub fn next_attempt(&self) -> (u32, String) {
        let (number, refusals) = match self.attempts.last() {
            Some(last) if last.is_open() => (last.number, last.refusals),
            last => (last.map_or(0, |a| a.number) + 1, 0),
        };
        let id = self.id.attempt(number);
        (
            number,
            if refusals == 0 {
                id.to_string()
            } else {
                format!("{id}-r{refusals}")
            },
        )
    }

    /// Records the launch, just before `RunTask` is called.
    #[must_use]
    pub fn launching(&self, plan: LaunchPlan, now: Timestamp) -> Option<Self> {
        self.backlog_entry()
            .filter(|entry| entry.not_before.is_none_or(|due| due <= now))?;
        let (number, _) = self.next_attempt();
        self.changed(|next| {
            let refusals = match next.attempts.last() {
                Some(last) if last.number == number => {
                    next.attempts.pop().map_or(0, |a| a.refusals)
                }
                _ => 0,
            };
            next.attempts.push(Attempt {
                number,
                pool: next.pool,
                cpu: next.request.size.cpu(),
                nonce: plan.nonce,
                token_hash: plan.token_hash,
                run_task: Some(plan.run_task),
                launched_at: now,
                price: plan.price,
                repeated_calls: Vec::new(),
                refusals,
                task_arn: None,
                task: None,
                markers: MarkerFacts::default(),
                overdue: false,
                gone: false,
                closed: None,
            });
            next.state = State::Launching;
            next.note_a_try(now, None);
        })
    }

    /// Moves it to on-demand capacity, because Fargate Spot has no room for it. Spot is a
    /// preference, not a condition.
    #[must_use]
    pub fn falls_back(&self, why: &str, now: Timestamp) -> Option<Self> {
        let entry = self
            .backlog_entry()
            .filter(|_| self.pool == CapacityPool::FargateSpot)?;
        let pool = CapacityPool::Fargate;
        let backlog = if entry.backlog == LimitKey::Pool(self.pool) {
            LimitKey::Pool(pool)
        } else {
            entry.backlog
        };
        let reason = format!("{why}; it runs on demand instead of Spot");
        self.changed(|next| {
            next.pool = pool;
            next.state = State::Waiting {
                backlog,
                reason: reason.clone(),
                not_before: entry.not_before,
            };
            next.note(now, Some(reason));
        })
    }

    /// How often Fargate Spot interrupted it.
    #[must_use]
    pub fn spot_interruptions(&self) -> u32 {
        let interrupted = |attempt: &&Attempt| {
            let code = attempt
                .task
                .as_ref()
                .and_then(|task| task.stop_code.as_ref());
            matches!(
                code,
                Some(StopCode::SpotInterruption | StopCode::TerminationNotice)
            )
        };
        u32::try_from(self.attempts.iter().filter(interrupted).count()).unwrap_or(u32::MAX)
    }

    /// Records that `RunTask` is about to be called again with this client token. `None` if the
    /// token is no longer the open launch's, or if the last call was less than `pause` ago: then
    /// another caller is handling it.
    #[must_use]
    pub fn calling_again(&self, token: &str, pause: TimeDelta, now: Timestamp) -> Option<Self> {
        let attempt = self.launched_with(token)?;
        let last = attempt
            .repeated_calls
            .last()
            .map_or(attempt.launched_at, |call| call.at);
        if now - last < pause {
            return None;
        }
        self.with_calls(token, |calls| {
            calls.retain(|call| !call.refused);
            calls.drain(..calls.len().saturating_sub(CALLS_MAX - 1));
            calls.push(RepeatedCall {
                at: now,
                refused: false,
            });
        })
    }

    /// Records that the repeated call at `at` was refused. That call started nothing; other calls
    /// may have started the task.
    #[must_use]
    pub fn call_refused(&self, token: &str, at: Timestamp) -> Option<Self> {
        self.with_calls(token, |calls| {
            calls
                .iter_mut()
                .filter(|call| call.at == at)
                .for_each(|call| call.refused = true);
        })
    }

    fn with_calls(&self, token: &str, change: impl FnOnce(&mut Vec<RepeatedCall>)) -> Option<Self> {
        let number = self.launched_with(token)?.number;
        self.changed(|next| {
            if let Some(attempt) = next.attempt_mut(number) {
                change(&mut attempt.repeated_calls);
            }
        })
    }

    /// Records that `RunTask` with this client token started nothing, for a transient reason. The
    /// execution returns to the backlog, or ends if it was cancelled meanwhile. No retry is used
    /// up. `None` if the token is not the open launch's.
    #[must_use]
    pub fn refused(
        &self,
        token: &str,
        backlog: LimitKey,
        reason: &str,
        now: Timestamp,
    ) -> Option<Self> {
        let number = self.launched_with(token)?.number;
        if let Some(cancelled) = self.cancelled_unlaunched(now) {
            return Some(cancelled);
        }
        self.changed(|next| {
            if let Some(attempt) = next.attempt_mut(number) {
                attempt.refusals += 1;
                attempt.run_task = None;
            }
            next.state = State::Waiting {
                backlog,
                reason: reason.to_owned(),
                not_before: Some(now),
            };
            next.note_a_try(now, Some(reason.to_owned()));
        })
    }

    /// Records that the launch with this client token will never have a task, for this cause.
    #[must_use]
    pub fn never_launched(&self, token: &str, cause: &Cause, now: Timestamp) -> Option<Self> {
        let number = self.launched_with(token)?.number;
        self.changed(|next| next.close(number, cause, now, now))
    }

    /// The open attempt, if this client token is the one of its launch and its task is not known
    /// yet.
    fn launched_with(&self, token: &str) -> Option<&Attempt> {
        let is_it = |attempt: &&Attempt| {
            attempt
                .run_task
                .as_ref()
                .is_some_and(|input| input.client_token == token)
        };
        self.open_attempt().filter(is_it)
    }

    /// Whether a task that runs for this attempt has to be stopped: it is not the task on record,
    /// or the attempt was cancelled and closed before this task stopped.
    #[must_use]
    pub fn is_stray(&self, number: u32, task: &Task) -> bool {
        let Some(attempt) = self
            .attempts
            .iter()
            .find(|attempt| attempt.number == number)
        else {
            return false;
        };
        let is_its_own = attempt.task_arn.as_ref() == Some(&task.task_arn);
        // An old event of a task that is stopped needs no action.
        let given_up = !attempt.is_open() && !attempt.is_stopped() && self.cancel.is_some();
        task.desired_status != TaskStatus::Stopped && (!is_its_own || given_up)
    }

    /// Ends it as failed, because no limit here will ever admit its request.
    #[must_use]
    pub fn rejected(&self, reason: String, now: Timestamp) -> Option<Self> {
        self.backlog_entry()?;
        self.changed(|next| {
            next.finish(
                Outcome::Failed {
                    exit_code: None,
                    reason,
                },
                now,
            );
        })
    }

    /// Ends it as `LOST`, because what became of the open attempt cannot be known. It is never
    /// launched again.
    #[must_use]
    pub fn lost(&self, reason: &str, now: Timestamp) -> Option<Self> {
        let number = self.open_attempt()?.number;
        self.changed(|next| {
            next.conclude(
                number,
                Outcome::Lost {
                    reason: reason.to_owned(),
                },
                now,
            );
        })
    }

    /// Records that the sweep stops the task of this attempt because it is far past its timeout. A task
    /// that was to be stopped by then, for a cancel, did not time out.
    #[must_use]
    pub fn overdue(&self, now: Timestamp) -> Option<Self> {
        let attempt = self
            .open_attempt()
            .filter(|a| !a.overdue && self.cancel.is_none() && self.is_overdue(a, now))?;
        let number = attempt.number;
        self.changed(|next| {
            if let Some(attempt) = next.attempt_mut(number) {
                attempt.overdue = true;
            }
        })
    }

    fn is_overdue(&self, attempt: &Attempt, now: Timestamp) -> bool {
        let upload = match self.request.artifacts {
            Some(_) => container::UPLOAD_SECONDS,
            None => 0,
        };
        let own = self.request.timeout.seconds() + GRACE_SECONDS + upload + OVERDUE_SECONDS;
        let (from, allowed) = match (
            attempt.markers.started_at,
            attempt.task.as_ref().and_then(|t| t.started_at),
        ) {
            (Some(started), _) => (started, own),
            (None, Some(started)) => (started, own + SET_UP_SECONDS),
            (None, None) => {
                let minutes = TimeDelta::minutes(RUNNING_WITHIN_MINUTES);
                return now > attempt.last_called_at() + minutes;
            }
        };
        now > from + TimeDelta::seconds(i64::from(allowed))
    }

    /// Merges an observation about an attempt, and ends the attempt if its outcome follows from it.
    #[must_use]
    pub fn observe(
        &self,
        number: u32,
        observation: &Observation<'_>,
        now: Timestamp,
    ) -> Option<Self> {
        if let State::Other { .. } = self.state {
            return None;
        }
        self.changed(|next| {
            let Some(attempt) = next
                .attempt_mut(number)
                .filter(|attempt| !attempt.has_seen(observation, &self.request))
            else {
                return;
            };
            attempt.join(observation);
            if attempt.is_open()
                && !matches!(
                    next.state,
                    State::Queued { .. } | State::Waiting { .. } | State::Final(_)
                )
            {
                next.draw_conclusion(number, now);
            }
        })
    }

    /// Records that this caller asked to cancel it.
    #[must_use]
    pub fn cancelled(&self, by: &Caller, now: Timestamp) -> CancelDecision {
        self.cancelled_as(
            Cancel {
                at: now,
                by: by.name.clone(),
                by_id: Some(by.principal.clone()),
            },
            now,
        )
    }

    /// Records this request to cancel it.
    #[must_use]
    pub fn cancelled_as(&self, cancel: Cancel, now: Timestamp) -> CancelDecision {
        if let Some(end) = self.end() {
            return CancelDecision::Final(end.outcome.status());
        }
        if let State::Other { .. } = self.state {
            return CancelDecision::NotKnown(self.status());
        }
        if self.cancel.is_some() {
            return CancelDecision::Asked;
        }
        let mut next = self.clone();
        let reason = cancel_reason(&cancel.by, "before it was started");
        next.cancel = Some(cancel);
        if next.backlog_entry().is_some() {
            next.finish(Outcome::Cancelled { reason }, now);
        }
        CancelDecision::Changed(Box::new(next))
    }

    /// Ends a cancelled attempt that surely has no task.
    #[must_use]
    pub fn cancelled_unlaunched(&self, now: Timestamp) -> Option<Self> {
        let by = self.cancel.as_ref()?.by.clone();
        let number = self.open_attempt().filter(|a| a.task_arn.is_none())?.number;
        self.changed(|next| {
            next.conclude(
                number,
                Outcome::Cancelled {
                    reason: cancel_reason(&by, "before it was started"),
                },
                now,
            );
        })
    }

    fn draw_conclusion(&mut self, number: u32, now: Timestamp) {
        let Some(attempt) = self.attempt_mut(number).cloned() else {
            return;
        };
        if attempt.is_stopped() {
            let at = attempt
                .task
                .as_ref()
                .and_then(|t| t.stopped_at.or(t.execution_stopped_at))
                .unwrap_or(now);
            match self.verdict(&attempt) {
                Some(Verdict::Outcome(outcome)) => self.conclude(number, outcome, at),
                Some(Verdict::Cause(cause)) => self.close(number, &cause, at, now),
                None => {}
            }
        } else if matches!(self.state, State::Launching) && attempt.runs() {
            self.state = State::Running;
            let at = attempt
                .started_at()
                .or(attempt.markers.set_up_at)
                .unwrap_or(now);
            self.note(at, None);
        }
    }

    /// The outcome or the cause of a stopped attempt; `None` while its log has to be read first.
    fn verdict(&self, attempt: &Attempt) -> Option<Verdict> {
        let (said, never_ran) = (&attempt.markers, attempt.failed_to_start());
        let is_told = said.is_conclusive() || self.surely_succeeded(attempt);
        if !never_ran && !said.complete && (!is_told || self.awaits_upload(attempt)) {
            return None;
        }
        let timeout = self.request.timeout;
        if said.timed_out {
            return Some(Verdict::Outcome(Outcome::TimedOut {
                reason: format!("timed out after {timeout}"),
            }));
        }
        // A task that was taken away may be past its time by the time it ends.
        let is_overdue = attempt.overdue && !attempt.was_taken_away();
        if is_overdue && attempt.started_at().is_none() && self.cancel.is_none() {
            return Some(Verdict::Cause(Cause::Stuck));
        }
        if is_overdue {
            let reason = format!("stopped because it was far past its timeout of {timeout}");
            return Some(Verdict::Outcome(Outcome::TimedOut { reason }));
        }
        let by_request = attempt
            .task
            .as_ref()
            .is_some_and(|t| t.stop_code == Some(StopCode::UserInitiated));
        if let Some(cancel) = self.cancel.as_ref().filter(|_| by_request || attempt.gone) {
            return Some(Verdict::Outcome(Outcome::Cancelled {
                reason: cancel_reason(&cancel.by, "while it ran"),
            }));
        }
        Some(attempt.cause())
    }

    /// Whether the line is missing that tells what is kept of the command's files. It comes after
    /// the line that tells how the command ended.
    fn awaits_upload(&self, attempt: &Attempt) -> bool {
        let (asked, said) = (self.request.artifacts.is_some(), &attempt.markers);
        asked && said.uploaded.is_none() && said.set_up_failure.is_none()
    }

    /// Whether ECS's report alone proves a success. All marker lines but the last were seen, and
    /// the task ended by itself with exit code 0. The runner exits with 0 only if the command did.
    fn surely_succeeded(&self, attempt: &Attempt) -> bool {
        let ended_well = |task: &Task| {
            task.stop_code == Some(StopCode::EssentialContainerExited)
                && cause::of(task, &attempt.markers).is_none()
        };
        attempt.told_of_its_start(self.request.source.is_some())
            && attempt.task.as_ref().is_some_and(ended_well)
    }

    /// Closes an attempt by its cause, and schedules another attempt if one is allowed.
    fn close(&mut self, number: u32, cause: &Cause, at: Timestamp, now: Timestamp) {
        let outcome = Outcome::Failed {
            exit_code: cause.exit_code(),
            reason: cause.to_string(),
        };
        let Some(pause) = self.retry_pause(number, cause) else {
            self.conclude(number, outcome, at);
            return;
        };
        if let Some(attempt) = self.attempt_mut(number) {
            attempt.close(Final { outcome, at });
        }
        let reason = format!(
            "attempt {number} failed ({cause}); trying again in {} s",
            pause.num_seconds()
        );
        let backlog = self.first_backlog();
        self.state = State::Waiting {
            backlog,
            reason: reason.clone(),
            not_before: Some(now + pause),
        };
        self.note(now, Some(reason));
    }

    /// How long to wait before another attempt; `None` if there is to be none.
    fn retry_pause(&self, number: u32, cause: &Cause) -> Option<TimeDelta> {
        let attempt = self.attempts.iter().find(|a| a.number == number)?;
        let started = self
            .attempts
            .iter()
            .filter(|a| a.may_have_started())
            .count();
        let asked = match cause {
            Cause::Spot(_) => RetryOn::Spot,
            Cause::Host(_) => RetryOn::Host,
            _ => RetryOn::Failure,
        };
        let by_request =
            self.request.retries_on(asked) && started <= usize::from(self.request.retries);
        let by_itself = cause.passes() && !attempt.may_have_started();
        let endless =
            self.attempts.len() > usize::from(self.request.retries) + AUTOMATIC_RETRIES_MAX;
        ((by_request || by_itself) && !endless && self.cancel.is_none())
            .then(|| backoff(number, &self.id))
    }

    /// Closes an attempt and ends the execution.
    fn conclude(&mut self, number: u32, outcome: Outcome, at: Timestamp) {
        if let Some(attempt) = self.attempt_mut(number) {
            attempt.close(Final {
                outcome: outcome.clone(),
                at,
            });
        }
        self.finish(outcome, at);
    }

    fn finish(&mut self, outcome: Outcome, at: Timestamp) {
        let reason = outcome.reason().map(str::to_owned);
        self.state = State::Final(Final { outcome, at });
        self.note(at, reason);
    }

    fn note(&mut self, at: Timestamp, reason: Option<String>) {
        self.events.push(Event {
            at,
            status: self.status(),
            reason,
        });
    }

    /// Adds an event for a launch or its refusal, up to [`EVENTS_MAX`].
    fn note_a_try(&mut self, at: Timestamp, reason: Option<String>) {
        if self.events.len() < EVENTS_MAX {
            self.note(at, reason);
        }
    }

    /// The backlog that its entry starts in: the lock's, else the group's, else the pool's. So an
    /// execution that waits for a lock or a group blocks no other in the pool's backlog.
    fn first_backlog(&self) -> LimitKey {
        self.demand()
            .into_iter()
            .next()
            .map_or(LimitKey::Pool(self.pool), |allocation| allocation.key)
    }

    fn attempt_mut(&mut self, number: u32) -> Option<&mut Attempt> {
        self.attempts
            .iter_mut()
            .find(|attempt| attempt.number == number)
    }

    fn changed(&self, change: impl FnOnce(&mut Self)) -> Option<Self> {
        let mut next = self.clone();
        change(&mut next);
        (next != *self).then_some(next)
    }
}

enum Verdict {
    Outcome(Outcome),
    Cause(Cause),
}

impl Attempt {
    /// Merges an observation. A repeated or older one changes nothing.
    fn join(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Task(task) if !self.may_be_its_own(task) => {}
            Observation::Task(task)
                if self
                    .task
                    .as_ref()
                    .is_none_or(|known| known.version < task.version) =>
            {
                self.task_arn.get_or_insert_with(|| task.task_arn.clone());
                self.run_task = None;
                self.task = Some(task.essence());
            }
            Observation::Task(_) => {}
            Observation::Gone => self.gone = !self.is_stopped() || self.gone,
            Observation::Markers(markers) => markers
                .iter()
                .for_each(|(at, marker)| self.markers.record(*at, marker)),
            Observation::WholeLog(markers) => {
                markers
                    .iter()
                    .for_each(|(at, marker)| self.markers.record(*at, marker));
                self.markers.complete = true;
            }
        }
    }

    /// Whether this may be the task of the recorded launch. A launch that was refused has no task.
    fn may_be_its_own(&self, task: &Task) -> bool {
        match &self.task_arn {
            Some(arn) => *arn == task.task_arn,
            None => self.run_task.is_some() || !self.is_open(),
        }
    }

    /// Whether all marker lines that come before the command's end were seen.
    fn told_of_its_start(&self, has_source: bool) -> bool {
        self.markers.started_at.is_some() && (self.markers.commit.is_some() || !has_source)
    }

    /// Whether this observation need not be stored, which saves a write: nothing follows from it
    /// now, and the task's end will report it again. These are snapshots of a task on its way up or
    /// down, or that runs and whose start the marker lines have already shown; and a success that
    /// the runner reports before ECS does, or after all is known. A success after which files are
    /// uploaded is stored: the upload begins then.
    fn has_seen(&self, observation: &Observation<'_>, request: &LaunchRequest) -> bool {
        match observation {
            Observation::Task(task) => match (&task.last_status, &self.task) {
                (TaskStatus::Running, Some(_)) => self.markers.started_at.is_some(),
                (TaskStatus::Stopped | TaskStatus::Other(_), _) | (_, None) => false,
                (_, Some(_)) => true,
            },
            Observation::Markers(markers) => {
                let success = |(_, marker): &(Timestamp, Marker)| {
                    matches!(marker, Marker::Exit(0) | Marker::Ended)
                };
                (!self.is_stopped() || self.closed.is_some())
                    && request.artifacts.is_none()
                    && self.told_of_its_start(request.source.is_some())
                    && markers.iter().all(success)
            }
            Observation::WholeLog(_) | Observation::Gone => false,
        }
    }

    fn close(&mut self, end: Final) {
        self.run_task = None;
        self.closed.get_or_insert(end);
    }

    pub(crate) fn runs(&self) -> bool {
        let said = self.markers.set_up_at.or(self.markers.started_at).is_some();
        said || self
            .task
            .as_ref()
            .is_some_and(|task| task.last_status == TaskStatus::Running)
    }

    /// Whether Spot took the task's capacity back, or its host failed.
    fn was_taken_away(&self) -> bool {
        let codes = [
            StopCode::SpotInterruption,
            StopCode::TerminationNotice,
            StopCode::InfrastructureHealth,
        ];
        let code = self.task.as_ref().and_then(|task| task.stop_code.as_ref());
        code.is_some_and(|code| codes.contains(code))
    }

    fn failed_to_start(&self) -> bool {
        self.task
            .as_ref()
            .is_some_and(|task| task.stop_code == Some(StopCode::TaskFailedToStart))
    }

    /// Why the task ended. Where ECS has no exit code, the runner's marker lines count. Without
    /// either the attempt is `LOST`.
    fn cause(&self) -> Verdict {
        let cause = match (&self.task, self.gone) {
            (Some(task), false) => cause::of(task, &self.markers),
            _ => Some(Cause::NoExitCode("ECS no longer knows the task".into())),
        };
        match (cause, self.markers.exit, &self.markers.set_up_failure) {
            (None, ..) | (Some(Cause::NoExitCode(_) | Cause::Host(_)), Some(0), _) => {
                Verdict::Outcome(Outcome::Succeeded)
            }
            (Some(Cause::NoExitCode(_) | Cause::Host(_)), Some(code), _) => {
                Verdict::Cause(Cause::Exit(code))
            }
            (Some(Cause::NoExitCode(_) | Cause::Host(_)), None, Some(why)) => {
                Verdict::Cause(Cause::SetUp(why.clone()))
            }
            (Some(Cause::NoExitCode(why)), None, None) => Verdict::Outcome(Outcome::Lost {
                reason: format!("it is unknown how it ended: {why}"),
            }),
            (Some(cause), ..) => Verdict::Cause(cause),
        }
    }
}

fn cancel_reason(by: &str, when: &str) -> String {
    format!("cancelled by {by} {when}")
}

/// The pause before another attempt. It is spread by the id, so that many executions that failed
/// together are not retried together.
fn backoff(number: u32, id: &ExecutionId) -> TimeDelta {
    let chance = id.as_str().bytes().fold(0_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    let pause = RETRY.pause(number.saturating_sub(1), u128::from(chance));
    i64::try_from(pause.as_millis()).map_or(TimeDelta::MAX, TimeDelta::milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attempt_secret::AttemptSecret,
        git_access::GitAccess,
        quota::Quotas,
        request::{Defaults, SubmitRequest},
        settings::Settings,
        task::{self, AttemptProof},
    };
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_764_000_000 + second, 0).expect("in range")
    }

    fn settings() -> Settings {
        Settings {
            cluster: "c".into(),
            log_group: "/aws/mycli/test".into(),
            defaults: Defaults::aws(),
            quotas: Quotas::default(),
            run_task_rate: None,
            runner_images: None,
            spot_fallback_after: None,
            definitions_rate: None,
            allowed: None,
            artifacts: None,
            network: None,
            prices: None,
            task_tags: None,
            unlisted_seconds: 60,
            log_delay_seconds: 15,
        }
    }

    fn submitted(request: SubmitRequest) -> Execution {
        let request = SubmitRequest {
            command: Some("true".into()),
            ..request
        };
        let request = request.validate(&Defaults::aws()).expect("valid");
        Execution::submitted(
            ExecutionId::new(at(0), 1),
            request,
            CapacityPool::FargateSpot,
            &Caller::local("ci"),
            at(0),
        )
    }

    fn launched(request: SubmitRequest) -> Execution {
        relaunched(&submitted(request), at(1))
    }

    fn relaunched(execution: &Execution, now: Timestamp) -> Execution {
        let run_task = task::run_task(
            execution,
            "arn:def",
            AttemptProof::Nonce(&AttemptSecret::of_text(NONCE.into())),
            &GitAccess::default(),
            &settings(),
        );
        execution
            .launching(
                LaunchPlan {
                    nonce: NONCE.into(),
                    token_hash: None,
                    run_task,
                    price: None,
                },
                now,
            )
            .expect("may be launched")
    }

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    fn task(version: i64, status: &str) -> Task {
        Task {
            task_arn: "arn:task/c/1".into(),
            version,
            last_status: status.into(),
            ..Task::default()
        }
    }

    fn stopped(version: i64, code: StopCode, exit_code: Option<i32>) -> Task {
        let container = crate::ecs::Container {
            name: "main".into(),
            exit_code,
            ..Default::default()
        };
        Task {
            stop_code: Some(code),
            containers: vec![container],
            stopped_at: Some(at(60)),
            ..task(version, "STOPPED")
        }
    }

    /// The events of one task, and the status that must result in whatever order they arrive.
    struct Story {
        tasks: Vec<Task>,
        markers: Vec<(Timestamp, Marker)>,
        cancelled: bool,
        ends: ExecutionStatus,
    }

    fn stories() -> Vec<Story> {
        let run = |last: Task| {
            vec![
                task(1, "PENDING"),
                task(2, "RUNNING"),
                task(3, "DEPROVISIONING"),
                last,
            ]
        };
        let exited = |code| stopped(4, StopCode::EssentialContainerExited, Some(code));
        let said = |last: Marker| {
            vec![
                (at(2), Marker::SetUp),
                (at(3), Marker::Start),
                (at(9), last),
            ]
        };
        let story = |tasks, markers, ends| Story {
            tasks,
            markers,
            cancelled: false,
            ends,
        };
        vec![
            story(
                run(exited(0)),
                said(Marker::Exit(0)),
                ExecutionStatus::Succeeded,
            ),
            story(
                run(exited(124)),
                said(Marker::Exit(124)),
                ExecutionStatus::Failed,
            ),
            story(
                run(exited(124)),
                said(Marker::Timeout),
                ExecutionStatus::TimedOut,
            ),
            story(
                run(exited(137)),
                said(Marker::Timeout),
                ExecutionStatus::TimedOut,
            ),
            story(
                run(exited(125)),
                vec![
                    (at(2), Marker::SetUp),
                    (at(3), Marker::Fail("no git".into())),
                ],
                ExecutionStatus::Failed,
            ),
            story(
                vec![
                    task(1, "PENDING"),
                    stopped(2, StopCode::TaskFailedToStart, None),
                ],
                vec![],
                ExecutionStatus::Failed,
            ),
            story(
                run(stopped(4, StopCode::SpotInterruption, Some(143))),
                said(Marker::Exit(143)),
                ExecutionStatus::Failed,
            ),
            Story {
                tasks: run(stopped(4, StopCode::UserInitiated, Some(143))),
                markers: said(Marker::Exit(143)),
                cancelled: true,
                ends: ExecutionStatus::Cancelled,
            },
            Story {
                tasks: run(exited(0)),
                markers: said(Marker::Exit(0)),
                cancelled: true,
                ends: ExecutionStatus::Succeeded,
            },
        ]
    }

    /// Applies part of a story in some order, then sweeps: asks ECS for the newest snapshot, and
    /// reads the log if necessary.
    fn tell(story: &Story, order: &[usize]) -> Execution {
        let mut execution = launched(SubmitRequest::default());
        if story.cancelled {
            let CancelDecision::Changed(asked) = execution.cancelled(&Caller::local("ci"), at(5))
            else {
                panic!("not final yet")
            };
            execution = *asked;
        }
        let events = story.tasks.len() + story.markers.len();
        for index in order.iter().map(|index| index % events) {
            let observation = match story.tasks.get(index) {
                Some(task) => Observation::Task(task),
                None => Observation::Markers(
                    &story.markers[index - story.tasks.len()..=index - story.tasks.len()],
                ),
            };
            execution = swept(
                story,
                execution
                    .observe(1, &observation, at(70))
                    .unwrap_or(execution),
                false,
            );
        }
        swept(story, execution, true)
    }

    fn swept(story: &Story, execution: Execution, describe: bool) -> Execution {
        let last = story.tasks.last().expect("a story has an end");
        let execution = match describe {
            true => execution
                .observe(1, &Observation::Task(last), at(71))
                .unwrap_or(execution),
            false => execution,
        };
        match execution.open_attempt() {
            Some(attempt) if attempt.needs_its_log() => execution
                .observe(1, &Observation::WholeLog(&story.markers), at(72))
                .unwrap_or(execution),
            _ => execution,
        }
    }

    proptest! {
        /// Rule 5: permutation, duplication and loss, followed by a sweep, end in the same final
        /// state.
        #[test]
        fn any_order_ends_alike(order in prop::collection::vec(0_usize..12, 0..16)) {
            for story in stories() {
                let (told, straight) = (tell(&story, &order), tell(&story, &[]));
                prop_assert_eq!(told.status(), story.ends);
                prop_assert_eq!(told.end(), straight.end());
            }
        }

        /// Once an execution is final, nothing changes how it ended.
        #[test]
        fn what_is_final_stays(order in prop::collection::vec(0_usize..12, 0..8), late in prop::collection::vec(0_usize..12, 0..8)) {
            for story in stories() {
                let end = tell(&story, &order);
                let mut later = end.clone();
                for other in stories() {
                    for index in &late {
                        let task = &other.tasks[index % other.tasks.len()];
                        later = later.observe(1, &Observation::Task(task), at(99)).unwrap_or(later);
                    }
                    later = later.observe(1, &Observation::WholeLog(&other.markers), at(99)).unwrap_or(later);
                }
                prop_assert_eq!(later.end(), end.end());
                prop_assert!(later.allocations().is_empty());
            }
        }
    }

    #[test]
    fn what_the_end_tells_again_is_no_write_of_its_own() {
        let known = launched(SubmitRequest::default())
            .observe(1, &Observation::Task(&task(1, "PROVISIONING")), at(2))
            .expect("known");
        let starts = [(at(3), Marker::SetUp), (at(4), Marker::Start)];
        let runs = known
            .observe(1, &Observation::Markers(&starts), at(4))
            .expect("runs");
        assert_eq!(runs.status(), ExecutionStatus::Running);
        assert_eq!(
            runs.observe(1, &Observation::Task(&task(2, "RUNNING")), at(5)),
            None
        );
        assert_eq!(
            runs.observe(1, &Observation::Markers(&[(at(6), Marker::Exit(0))]), at(6)),
            None
        );
        let failed = runs.observe(1, &Observation::Markers(&[(at(6), Marker::Exit(3))]), at(6));
        assert!(
            failed.is_some(),
            "the word of a failure is kept: 124 and 125 have two meanings"
        );
        let over = stopped(4, StopCode::EssentialContainerExited, Some(0));
        let end = runs
            .observe(1, &Observation::Task(&over), at(7))
            .expect("ends");
        assert_eq!(end.status(), ExecutionStatus::Succeeded);
    }

    #[test]
    fn a_success_whose_commit_is_not_known_waits_for_its_log() {
        let request = SubmitRequest {
            repo: Some("https://github.com/a/b".into()),
            ..SubmitRequest::default()
        };
        let runs = launched(request)
            .observe(1, &Observation::Markers(&[(at(4), Marker::Start)]), at(4))
            .expect("runs");
        let over = stopped(4, StopCode::EssentialContainerExited, Some(0));
        let told = runs
            .observe(1, &Observation::Task(&over), at(7))
            .expect("learns");
        assert_eq!(told.status(), ExecutionStatus::Running);
        let commit = [(at(3), Marker::Commit("c".repeat(40)))];
        let end = told
            .observe(1, &Observation::WholeLog(&commit), at(8))
            .expect("ends");
        assert_eq!(end.status(), ExecutionStatus::Succeeded);
    }

    #[test]
    fn a_slot_is_held_from_launch_to_close() {
        let queued = submitted(SubmitRequest {
            lock: Some("deploy".into()),
            ..SubmitRequest::default()
        });
        assert!(queued.allocations().is_empty());
        let launched = relaunched(&queued, at(1));
        assert_eq!(launched.allocations(), launched.demand());
        assert_eq!(launched.demand().len(), 2);
        let over = launched
            .observe(
                1,
                &Observation::Task(&stopped(2, StopCode::TaskFailedToStart, None)),
                at(2),
            )
            .expect("ends");
        assert!(over.allocations().is_empty());
    }

    #[test]
    fn a_command_that_may_have_started_is_not_run_again_unasked() {
        let spot = stopped(4, StopCode::SpotInterruption, Some(143));
        let mut running = task(2, "RUNNING");
        running.started_at = Some(at(3));
        let end = |request: SubmitRequest| {
            let run = launched(request)
                .observe(1, &Observation::Task(&running), at(3))
                .expect("runs");
            run.observe(1, &Observation::Task(&spot), at(60))
                .expect("learns")
                .observe(1, &Observation::WholeLog(&[]), at(61))
                .expect("ends")
        };
        assert_eq!(
            end(SubmitRequest::default()).status(),
            ExecutionStatus::Failed
        );
        let asked = SubmitRequest {
            retries: Some(1),
            retry_on: vec!["spot".into()],
            ..SubmitRequest::default()
        };
        assert_eq!(end(asked.clone()).status(), ExecutionStatus::Waiting);
        let host_only = SubmitRequest {
            retry_on: vec!["host".into()],
            ..asked
        };
        assert_eq!(end(host_only).status(), ExecutionStatus::Failed);
    }

    #[test]
    fn a_failing_command_is_run_again_as_often_as_asked() {
        let failed = stopped(4, StopCode::EssentialContainerExited, Some(1));
        let said = [(at(2), Marker::Start), (at(3), Marker::Exit(1))];
        let mut execution = launched(SubmitRequest {
            retries: Some(2),
            ..SubmitRequest::default()
        });
        for number in 1..=3 {
            execution = execution
                .observe(number, &Observation::Markers(&said), at(4))
                .expect("learns");
            execution = execution
                .observe(number, &Observation::Task(&failed), at(5))
                .expect("fails");
            if number < 3 {
                assert_eq!(execution.status(), ExecutionStatus::Waiting, "{number}");
                execution = relaunched(&execution, at(10_000));
            }
        }
        assert_eq!(
            (execution.status(), execution.attempts.len()),
            (ExecutionStatus::Failed, 3)
        );
    }

    #[test]
    fn a_passing_start_failure_is_tried_again_a_few_times_and_each_try_is_kept() {
        let mut failure = stopped(2, StopCode::TaskFailedToStart, None);
        failure.stopped_reason = Some("CannotPullContainerError: i/o timeout".into());
        let mut execution = launched(SubmitRequest::default());
        for number in 1..=3 {
            execution = execution
                .observe(number, &Observation::Task(&failure), at(2))
                .expect("fails");
            assert_eq!(execution.status(), ExecutionStatus::Waiting, "{number}");
            assert!(
                execution
                    .launching(
                        LaunchPlan {
                            nonce: NONCE.into(),
                            token_hash: None,
                            run_task: task::run_task(
                                &execution,
                                "d",
                                AttemptProof::Nonce(&AttemptSecret::of_text(NONCE.into())),
                                &GitAccess::default(),
                                &settings()
                            ),
                            price: None,
                        },
                        at(2)
                    )
                    .is_none(),
                "too early"
            );
            execution = relaunched(&execution, at(10_000));
        }
        let end = execution
            .observe(4, &Observation::Task(&failure), at(3))
            .expect("fails");
        assert_eq!(
            (end.status(), end.attempts.len()),
            (ExecutionStatus::Failed, 4)
        );
    }

    fn token(execution: &Execution) -> String {
        let input = execution
            .open_attempt()
            .and_then(|attempt| attempt.run_task.as_ref());
        input.expect("it is being launched").client_token.clone()
    }

    fn put_back(launched: &Execution, now: Timestamp) -> Execution {
        let backlog = LimitKey::Pool(CapacityPool::FargateSpot);
        launched
            .refused(&token(launched), backlog, "full", now)
            .expect("goes back")
    }

    #[test]
    fn a_refusal_is_of_the_launch_that_was_refused() {
        let first = launched(SubmitRequest::default());
        let (again, late) = (relaunched(&put_back(&first, at(2)), at(3)), token(&first));
        assert_eq!(
            again.refused(
                &late,
                LimitKey::Pool(CapacityPool::FargateSpot),
                "full",
                at(4)
            ),
            None
        );
        assert_eq!(
            again.never_launched(&late, &Cause::NeverStarted("no".into()), at(4)),
            None
        );
        let known = again
            .observe(1, &Observation::Task(&task(1, "PENDING")), at(4))
            .expect("known");
        assert_eq!(
            known.refused(
                &token(&again),
                LimitKey::Pool(CapacityPool::FargateSpot),
                "full",
                at(5)
            ),
            None,
            "a task is there"
        );
    }

    /// The second and the refusal of each repeated call, and the second of the last call that may
    /// have started the task.
    fn calls_of(execution: &Execution) -> (Vec<(i64, bool)>, i64) {
        let attempt = execution.open_attempt().expect("it is open");
        let second = |moment: Timestamp| (moment - at(0)).num_seconds();
        (
            attempt
                .repeated_calls
                .iter()
                .map(|c| (second(c.at), c.refused))
                .collect(),
            second(attempt.last_called_at()),
        )
    }

    #[test]
    fn a_call_again_that_was_refused_started_nothing_and_those_before_it_may_have() {
        let first = launched(SubmitRequest::default());
        let (token, pause) = (token(&first), TimeDelta::seconds(5));
        let calls =
            |execution: &Execution, second| execution.calling_again(&token, pause, at(second));
        let unanswered = calls(&first, 10).expect("it may be called");
        assert_eq!(calls(&unanswered, 14), None, "somebody else is at it");
        let refused = calls(&unanswered, 15)
            .and_then(|e| e.call_refused(&token, at(15)))
            .expect("it was called");
        assert_eq!(calls_of(&refused), (vec![(10, false), (15, true)], 10));
        assert_eq!(calls(&refused, 19), None, "a refused call was one too");
        let again = calls(&refused, 20).expect("it may be called");
        assert_eq!(calls_of(&again), (vec![(10, false), (20, false)], 20));
        let known = again
            .observe(1, &Observation::Task(&task(1, "PENDING")), at(21))
            .expect("known");
        assert_eq!(calls(&known, 90), None, "a task is there");
    }

    #[test]
    fn what_was_cancelled_while_it_was_launched_ends_with_the_refusal() {
        let CancelDecision::Changed(asked) =
            launched(SubmitRequest::default()).cancelled(&Caller::local("ann"), at(1))
        else {
            panic!()
        };
        let end = put_back(&asked, at(2));
        assert_eq!(
            (end.status(), end.allocations().len()),
            (ExecutionStatus::Cancelled, 0)
        );
    }

    #[test]
    fn a_task_that_is_not_the_launched_one_is_not_believed_and_is_a_stray() {
        let first = launched(SubmitRequest::default());
        let other = Task {
            task_arn: "arn:task/c/2".into(),
            ..stopped(9, StopCode::UserInitiated, Some(143))
        };
        let runs = Task {
            desired_status: TaskStatus::Running,
            ..other.clone()
        };
        let waits = put_back(&first, at(2));
        assert_eq!(
            waits.observe(1, &Observation::Task(&runs), at(3)),
            None,
            "it was refused: it has no task"
        );
        assert!(waits.is_stray(1, &runs));
        let known = relaunched(&waits, at(4))
            .observe(1, &Observation::Task(&task(1, "PENDING")), at(5))
            .expect("known");
        assert_eq!(known.observe(1, &Observation::Task(&other), at(6)), None);
        assert!(known.is_stray(1, &runs) && !known.is_stray(1, &task(2, "RUNNING")));
        assert!(
            !known.is_stray(
                1,
                &Task {
                    desired_status: TaskStatus::Stopped,
                    ..other
                }
            ),
            "it stops already"
        );
    }

    /// A record is read and written whole, so it has to stay small.
    #[test]
    fn however_often_it_is_refused_the_record_stays_small() {
        let mut execution = launched(SubmitRequest::default());
        for turn in 1..2_000 {
            execution = relaunched(&put_back(&execution, at(turn)), at(turn));
        }
        assert_eq!(
            (execution.events.len(), execution.attempts[0].refusals),
            (EVENTS_MAX, 1_999)
        );
        let runs = execution
            .observe(
                1,
                &Observation::Markers(&[(at(2_000), Marker::Start)]),
                at(2_000),
            )
            .expect("runs");
        assert_eq!(
            runs.events.last().map(|event| event.status.clone()),
            Some(ExecutionStatus::Running),
            "what follows is told"
        );
    }

    #[test]
    fn a_refusal_uses_up_no_retry_and_takes_a_new_token() {
        let refused = put_back(&launched(SubmitRequest::default()), at(1));
        assert!(refused.allocations().is_empty());
        let again = relaunched(&refused, at(7));
        assert_eq!(again.attempts.len(), 1);
        let token = again.attempts[0]
            .run_task
            .as_ref()
            .map(|input| input.client_token.clone());
        assert_eq!(token, Some(format!("{}-1-r1", again.id)));
    }

    #[test]
    fn cancelling_what_waits_is_final_at_once_and_what_runs_is_stopped() {
        let CancelDecision::Changed(queued) =
            submitted(SubmitRequest::default()).cancelled(&Caller::local("ann"), at(1))
        else {
            panic!()
        };
        assert_eq!(queued.status(), ExecutionStatus::Cancelled);
        let CancelDecision::Changed(launching) =
            launched(SubmitRequest::default()).cancelled(&Caller::local("ann"), at(1))
        else {
            panic!()
        };
        assert_eq!(launching.status(), ExecutionStatus::Launching);
        assert_eq!(
            launching.cancelled(&Caller::local("bob"), at(2)),
            CancelDecision::Asked
        );
        assert_eq!(
            launching.cancelled_unlaunched(at(2)).map(|e| e.status()),
            Some(ExecutionStatus::Cancelled)
        );
        assert_eq!(
            queued.cancelled(&Caller::local("bob"), at(2)),
            CancelDecision::Final(ExecutionStatus::Cancelled)
        );
    }

    #[test]
    fn a_task_that_nobody_knows_is_lost() {
        let known = launched(SubmitRequest::default())
            .observe(1, &Observation::Task(&task(1, "PENDING")), at(2))
            .expect("known");
        let gone = known.observe(1, &Observation::Gone, at(9)).expect("gone");
        let lost = gone
            .observe(1, &Observation::WholeLog(&[]), at(9))
            .expect("concluded");
        assert_eq!(lost.status(), ExecutionStatus::Lost);
        let told = gone
            .observe(
                1,
                &Observation::WholeLog(&[(at(5), Marker::Exit(3))]),
                at(9),
            )
            .expect("concluded");
        assert_eq!(told.end().and_then(|end| end.outcome.exit_code()), Some(3));
    }

    #[test]
    fn the_sweep_stops_only_what_is_far_past_its_time() {
        let mut running = task(2, "RUNNING");
        running.started_at = Some(at(10));
        let request = SubmitRequest {
            timeout: Some("30s".into()),
            ..SubmitRequest::default()
        };
        let run = launched(request)
            .observe(1, &Observation::Task(&running), at(10))
            .expect("runs");
        let run = run
            .observe(1, &Observation::Markers(&[(at(12), Marker::Start)]), at(12))
            .expect("starts");
        assert!(run.overdue(at(12 + 30 + 70)).is_none());
        let overdue = run.overdue(at(12 + 30 + 71)).expect("overdue");
        let CancelDecision::Changed(cancelled) = run.cancelled(&Caller::local("ann"), at(20))
        else {
            panic!()
        };
        assert!(
            cancelled.overdue(at(500)).is_none(),
            "its task was to stop before"
        );
        let end = overdue
            .observe(
                1,
                &Observation::Task(&stopped(9, StopCode::UserInitiated, Some(137))),
                at(200),
            )
            .expect("learns");
        let end = end
            .observe(1, &Observation::WholeLog(&[]), at(200))
            .expect("ends");
        assert_eq!(
            (
                end.status(),
                end.end().and_then(|end| end.outcome.exit_code())
            ),
            (ExecutionStatus::TimedOut, None)
        );
    }
}
