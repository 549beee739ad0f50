//! The rules of DESIGN §4, checked at each write and each launch, and once more at the end.

use crate::ecs::STOPPED;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Mutex,
};

use chrono::{NaiveDate, TimeDelta};
use domain::{
    Timestamp,
    ecs::{RunTaskInput, StopCode, Task},
    execution::{Attempt, Execution, Outcome, State},
    group::rerun::key,
    id::{AttemptId, ExecutionId},
    limit::LimitKey,
    ports::{Clock, ReadStore, SweepStore},
    request::{IdempotencyKey, SubmitRequest},
    statistics::{DatedTally, Dimension, RunEnd, Slot, Tally},
};
use futures_util::FutureExt;
use serde_json::Value;

use super::{super::script::locked, World, script::Ended, story::clock};

/// What the rules observe beyond the records.
#[derive(Default)]
pub(super) struct Rules(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    broken: Vec<String>,
    /// Attempts with a command that has begun.
    started: BTreeSet<String>,
    /// The attempts whose log has a line of the runner.
    spoke: BTreeSet<String>,
    /// How the scripts of attempts ended, by what they reported themselves.
    said: BTreeMap<String, Ended>,
    /// The executions accepted from users, with their requests.
    accepted: BTreeMap<ExecutionId, SubmitRequest>,
    /// The number of users that are not done.
    users: usize,
    /// Cancelled groups: the moment up to which they are cancelled, and when the user got the
    /// answer.
    cancelled: Vec<(String, Timestamp, Timestamp)>,
    /// Groups whose failed members are rerun.
    rerun: Vec<Rerun>,
}

/// A rerun of the failed members of a group.
#[derive(Clone)]
struct Rerun {
    of: String,
    /// The submission, which names the group of the new executions.
    submission: String,
    /// The members that had failed at the time of the request.
    failed: Vec<ExecutionId>,
}

/// How long after the answer to a group's cancel a member may still be started.
const CANCEL_HOLDS_AFTER: TimeDelta = TimeDelta::seconds(1);

/// Returns one line of text for a change of a record.
pub(super) fn change(before: &Execution, after: &Execution) -> String {
    let mut text = format!("{}: {} -> {}", after.id, before.status(), after.status());
    if let State::Waiting {
        backlog,
        reason,
        not_before,
    } = &after.state
    {
        let due = not_before
            .map(|at| format!(" from {} on", clock(at)))
            .unwrap_or_default();
        let _ = write!(text, " in {backlog}{due} ({reason})");
    }
    if let Some(end) = after.end() {
        let _ = write!(text, " ({:?})", end.outcome);
    }
    if let Some(attempt) = after.attempts.last() {
        let _ = write!(text, " attempt {} r{}", attempt.number, attempt.refusals);
        if let Some(closed) = &attempt.closed {
            let _ = write!(text, " closed {:?}", closed.outcome);
        }
    }
    text
}

impl Rules {
    pub(super) fn users_come(&self, count: usize) {
        locked(&self.0).users += count;
    }

    pub(super) fn user_comes(&self) {
        self.users_come(1);
    }

    pub(super) fn user_is_done(&self) {
        locked(&self.0).users -= 1;
    }

    pub(super) fn all_users_are_done(&self) -> bool {
        locked(&self.0).users == 0
    }

    pub(super) fn broken(&self) -> Vec<String> {
        locked(&self.0).broken.clone()
    }

    /// Records a broken rule.
    pub(super) fn break_(&self, world: &World, how: &str) {
        world.story.tell("RULE BROKEN", || how.to_owned());
        locked(&self.0)
            .broken
            .push(format!("{}: {how}", clock(world.time.now())));
    }

    fn check(&self, world: &World, holds: bool, how: impl FnOnce() -> String) {
        if !holds {
            self.break_(world, &how());
        }
    }

    /// Records that a user's request was accepted.
    pub(super) fn accepted(&self, id: &Value, request: SubmitRequest) -> ExecutionId {
        let id: ExecutionId = id
            .as_str()
            .and_then(|id| id.parse().ok())
            .unwrap_or_else(|| ExecutionId::new(super::super::start(), 0));
        locked(&self.0).accepted.insert(id.clone(), request);
        id
    }

    /// Records that the runner of this attempt has written a line.
    pub(super) fn spoke(&self, attempt: &str) {
        locked(&self.0).spoke.insert(attempt.to_owned());
    }

    /// Records that the command of this attempt began.
    pub(super) fn started(&self, attempt: &str) {
        locked(&self.0).started.insert(attempt.to_owned());
    }

    /// Records how the script of this attempt ended.
    pub(super) fn said(&self, attempt: &str, ended: Ended) {
        locked(&self.0).said.insert(attempt.to_owned(), ended);
    }

    fn has_started(&self, attempt: &str) -> bool {
        locked(&self.0).started.contains(attempt)
    }

    /// Records that a user was told that a group is cancelled up to this moment.
    pub(super) fn group_is_cancelled(&self, world: &World, group: &str, at: &Value) {
        let Some(at) = at.as_str().and_then(|at| at.parse().ok()) else {
            return self.break_(
                world,
                &format!("the cancel of {group} was answered without a moment: {at}"),
            );
        };
        locked(&self.0)
            .cancelled
            .push((group.to_owned(), at, world.time.now()));
    }

    /// Records that a user was told of a rerun: it covers the failed members of a group that were
    /// submitted before this moment.
    pub(super) fn group_is_rerun(&self, world: &World, of: &str, submission: &str, at: &Value) {
        let Some(at) = at.as_str().and_then(|at| at.parse::<Timestamp>().ok()) else {
            return self.break_(
                world,
                &format!("the rerun of {of} was answered without a moment: {at}"),
            );
        };
        let mut failed = Vec::new();
        world.store.for_each(|record| {
            if is_of(record, of) && record.status().is_failure() && record.submitted_at < at {
                failed.push(record.id.clone());
            }
        });
        locked(&self.0).rerun.push(Rerun {
            of: of.into(),
            submission: submission.into(),
            failed,
        });
    }

    /// Checks that each failed member is rerun once, and nothing else is.
    fn reruns_are_right(&self, world: &World, records: &BTreeMap<ExecutionId, Execution>) -> usize {
        let mut made = 0;
        // A loop's head is held until its end, and a broken rule is written under the same lock.
        let asked = locked(&self.0).rerun.clone();
        for Rerun {
            of,
            submission,
            failed,
        } in asked
        {
            let reruns: Vec<_> = records
                .values()
                .filter(|record| is_of(record, &submission))
                .collect();
            made += reruns.len();
            let keys: BTreeSet<_> = reruns
                .iter()
                .filter_map(|record| record.request.idempotency_key.as_ref())
                .map(IdempotencyKey::as_str)
                .collect();
            self.check(world, keys.len() == reruns.len(), || {
                format!(
                    "{} runs of {submission} have {} keys (rule 3)",
                    reruns.len(),
                    keys.len()
                )
            });
            for id in failed
                .iter()
                .filter(|id| !keys.contains(&*key(&submission, id)))
            {
                self.break_(
                    world,
                    &format!(
                        "{id} of {of} had failed and is not run again as {submission} (rule 1)"
                    ),
                );
            }
            let may = records
                .values()
                .filter(|record| is_of(record, &of) && record.status().is_failure());
            let may: BTreeSet<_> = may.map(|record| key(&submission, &record.id)).collect();
            for key in keys.iter().filter(|key| !may.contains(**key)) {
                self.break_(
                    world,
                    &format!("{key} of {submission} repeats nothing that failed (rule 4)"),
                );
            }
        }
        made
    }

    /// Checks a launcher's call of RunTask when it is made.
    pub(super) fn asks_to_launch(&self, world: &World, input: &RunTaskInput) {
        let Some(own) = record_of(world, &input.started_by) else {
            return;
        };
        let cancelled = locked(&self.0).cancelled.clone();
        let mark = cancelled.iter().find(|(group, at, answered_at)| {
            own.request
                .group
                .as_ref()
                .is_some_and(|own| own.as_str() == group)
                && own.submitted_at <= *at
                && world.time.now() > *answered_at + CANCEL_HOLDS_AFTER
        });
        if let Some((group, _, answered_at)) = mark {
            let late = world.time.now() - *answered_at;
            self.break_(
                world,
                &format!(
                    "{} of {group} is started {late} after the group was cancelled",
                    own.id
                ),
            );
        }
    }

    /// Checks a call of RunTask when it is carried out.
    pub(super) fn about_to_launch(&self, world: &World, input: &RunTaskInput) {
        let by = &input.started_by;
        let Ok(attempt) = by.parse::<AttemptId>() else {
            return self.break_(
                world,
                &format!("RunTask is called for {by}, which is no attempt"),
            );
        };
        let record = now(world.store.load(attempt.execution()));
        let known = record
            .as_ref()
            .and_then(|r| r.attempts.iter().find(|a| a.number == attempt.number()));
        self.check(world, known.is_some(), || {
            format!("RunTask is called for {by}, which is not on record (rule 2)")
        });
    }

    /// Checks a task that was started.
    pub(super) fn launched(&self, world: &World, input: &RunTaskInput) {
        let Some(own) = record_of(world, &input.started_by) else {
            return;
        };
        let number = input
            .started_by
            .parse::<AttemptId>()
            .map(|attempt| attempt.number())
            .unwrap_or_default();
        let exact = own
            .attempts
            .iter()
            .any(|a| a.number == number && a.is_open() && a.run_task.as_ref() == Some(input));
        self.check(world, exact, || {
            format!(
                "a task of {} was started with an input that is not on record (rule 3)",
                input.started_by
            )
        });
        let alive: Vec<_> = live_tasks(world)
            .iter()
            .filter_map(|by| record_of(world, by))
            .collect();
        if let Some(lock) = &own.request.lock {
            let holders: Vec<_> = alive
                .iter()
                .filter(|e| e.request.lock.as_ref() == Some(lock))
                .map(|e| &e.id)
                .collect();
            self.check(world, holders.len() == 1, || {
                format!("lock {lock} is held by {holders:?} at once (rule 6)")
            });
        }
        if let (Some(group), Some(max)) = (&own.request.group, own.request.max_parallel) {
            let mine = |e: &&Execution| {
                e.request.group.as_ref() == Some(group) && e.request.max_parallel.is_some()
            };
            let count = alive.iter().filter(mine).count();
            // Each member sets its own `max_parallel`; another member of the group may have set a
            // higher one.
            let most = alive
                .iter()
                .filter(mine)
                .filter_map(|e| e.request.max_parallel)
                .max()
                .unwrap_or(max);
            self.check(world, count <= most as usize, || {
                format!("{count} of group {group} run at once, of at most {most} (rule 6)")
            });
        }
    }

    /// Checks a write of a record.
    pub(super) fn changed(&self, world: &World, before: &Execution, after: &Execution) {
        let id = &after.id;
        let same = (
            &before.id,
            &before.request,
            &before.submitted_by,
            before.submitted_at,
        ) == (
            &after.id,
            &after.request,
            &after.submitted_by,
            after.submitted_at,
        );
        self.check(world, same, || {
            format!("{id}: what was asked for has changed (rule 11)")
        });
        self.check(
            world,
            before.end().is_none() || before.end() == after.end(),
            || {
                format!(
                    "{id}: its end {:?} became {:?} (rule 5)",
                    before.end(),
                    after.end()
                )
            },
        );
        self.check(world, after.events.starts_with(&before.events), || {
            format!("{id}: its events were rewritten (rule 5)")
        });
        for (was, is) in before.attempts.iter().zip(&after.attempts) {
            self.check(
                world,
                was.number == is.number && (was.closed.is_none() || was.closed == is.closed),
                || {
                    format!(
                        "{id}: attempt {} ended as {:?} and then as {:?} (rule 5)",
                        was.number, was.closed, is.closed
                    )
                },
            );
            let version = |attempt: &Attempt| attempt.task.as_ref().map_or(0, |task| task.version);
            self.check(world, version(was) <= version(is), || {
                format!(
                    "{id}: attempt {} went back from version {} of its task to {} (rule 5)",
                    was.number,
                    version(was),
                    version(is)
                )
            });
            let forgets = was.task_arn.is_some() && was.task_arn != is.task_arn;
            self.check(world, !forgets, || {
                format!("{id}: attempt {} forgot its task (rule 5)", was.number)
            });
            if let (None, Some(end)) = (&was.closed, &is.closed) {
                let by = after.attempt_id(is).to_string();
                // Nothing here exceeds its quota or is malformed, so an attempt ends only by its
                // task or by a cancel.
                let waited = world.task_of(&by).is_none()
                    && !matches!(end.outcome, Outcome::Cancelled { .. });
                self.check(world, !waited, || {
                    format!(
                        "{by} never had a task and ended as {:?} (rule 7)",
                        end.outcome
                    )
                });
                let alive = live_tasks(world).contains(&by);
                self.check(world, !alive, || {
                    format!(
                        "{by} was closed as {:?} while its task lives (rule 6)",
                        is.closed
                    )
                });
            }
        }
        if !before.allocations().is_empty() && after.allocations().is_empty() {
            let mine = |by: &String| {
                by.parse::<AttemptId>()
                    .is_ok_and(|attempt| attempt.execution() == id)
            };
            let alive: Vec<_> = live_tasks(world).into_iter().filter(mine).collect();
            self.check(world, alive.is_empty(), || {
                format!("{id} gave back what {alive:?} still uses (rule 6)")
            });
        }
        self.check(world, after.attempts.len() >= before.attempts.len(), || {
            format!("{id}: an attempt vanished (rule 5)")
        });
        if after.attempts.len() > before.attempts.len() {
            self.another_attempt(world, after);
        }
        if let State::Waiting { reason, .. } = &after.state {
            self.check(world, !reason.is_empty(), || {
                format!("{id} waits for no reason (rule 7)")
            });
        }
    }

    /// Checks rule 4 when another attempt is recorded.
    fn another_attempt(&self, world: &World, record: &Execution) {
        let Some((_, earlier)) = record.attempts.split_last() else {
            return;
        };
        for attempt in earlier {
            let by = record.attempt_id(attempt).to_string();
            self.check(world, attempt.closed.is_some(), || {
                format!("{by} is tried again before it was closed (rule 3)")
            });
        }
        let started = earlier
            .iter()
            .filter(|a| self.has_started(&record.attempt_id(a).to_string()))
            .count();
        self.check(world, started <= usize::from(record.request.retries), || {
            let allowed = record.request.retries;
            format!("{}: its command had started {started} times, {allowed} retries were asked for, and it is tried again (rule 4)", record.id)
        });
        self.check(world, record.cancel.is_none(), || {
            format!(
                "{} is tried again though it was cancelled (rule 4)",
                record.id
            )
        });
    }

    /// Checks that the statistics count each run once.
    fn are_counted_once(&self, world: &World, records: &BTreeMap<ExecutionId, Execution>) {
        for dimension in Dimension::STORED {
            let each = records.values().filter_map(RunEnd::of).map(|end| {
                let mut tally = Tally::default();
                tally.add(&end);
                DatedTally {
                    day: end.day(),
                    slot: end.slot(dimension),
                    tally,
                }
            });
            let wanted = counts(each);
            let tallies = world
                .store
                .tallies(dimension, NaiveDate::MIN..=NaiveDate::MAX);
            let counted = counts(now(tallies));
            self.check(world, counted == wanted, || {
                format!(
                    "by {dimension}, {counted:?} are counted and {wanted:?} have ended (rule 10)"
                )
            });
        }
    }

    /// Checks the rules once everything is over.
    pub(super) fn at_rest(&self, world: &World) {
        let mut records = BTreeMap::new();
        world
            .store
            .for_each(|record| drop(records.insert(record.id.clone(), record.clone())));
        for record in records.values() {
            self.ended_right(world, record);
        }
        let accepted = locked(&self.0).accepted.clone();
        for id in accepted.keys().filter(|id| !records.contains_key(id)) {
            self.break_(
                world,
                &format!("{id} was accepted and is not on record (rule 1)"),
            );
        }
        let again = self.reruns_are_right(world, &records);
        let wanted: usize = world
            .plan
            .errands
            .iter()
            .map(|e| e.requests.len() + usize::from(e.reruns))
            .sum();
        self.check(world, records.len() == wanted + again, || {
            format!(
                "{wanted} were submitted, {again} run again, and {} are on record (rule 1)",
                records.len()
            )
        });
        self.check(world, accepted.len() == wanted, || {
            format!(
                "{wanted} were submitted and {} accepted (rule 1)",
                accepted.len()
            )
        });
        for (id, request) in &accepted {
            let kept = records
                .get(id)
                .map(|record| SubmitRequest::from(&record.request).name);
            self.check(world, kept.is_none_or(|kept| kept == request.name), || {
                format!("{id} is another's run (rule 11)")
            });
        }
        let doubled = locked(&world.ecs).counts().doubled.clone();
        self.check(world, doubled.is_empty(), || {
            format!("attempts with more than one task: {doubled:?} (rule 3)")
        });
        let pools = [
            domain::limit::CapacityPool::FargateSpot,
            domain::limit::CapacityPool::Fargate,
        ]
        .map(LimitKey::Pool);
        let own = records
            .values()
            .flat_map(Execution::demand)
            .map(|allocation| allocation.key);
        for key in own.chain(pools).collect::<BTreeSet<_>>() {
            let used = now(world.store.usage(&key)).used;
            self.check(world, used == 0, || {
                format!("{used} of {key} are still held (rule 6)")
            });
        }
        let backlogs = now(world.store.backlogs(world.time.now() + TimeDelta::days(1)));
        self.check(world, backlogs.is_empty(), || {
            format!("somebody stands in {backlogs:?} (rule 10)")
        });
        self.are_counted_once(world, &records);
        let alive = live_tasks(world);
        self.check(world, alive.is_empty(), || {
            format!("tasks of {alive:?} still run (rule 6)")
        });
    }

    /// Checks that the recorded end is the actual end.
    fn ended_right(&self, world: &World, record: &Execution) {
        let id = &record.id;
        let Some(end) = record.end() else {
            let backlog = record.backlog_entry().map(|entry| entry.backlog);
            let state = backlog.as_ref().map(|backlog| {
                (
                    now(world.store.limit_state(backlog)),
                    now(world.store.usage(backlog)),
                )
            });
            return self.break_(
                world,
                &format!(
                    "{id} has not ended: {:?}; its backlog: {state:?} (rules 7, 10)",
                    record.state
                ),
            );
        };
        let Some(attempt) = record.attempts.last() else {
            let right = matches!(
                end.outcome,
                Outcome::Cancelled { .. }
                    | Outcome::Failed {
                        exit_code: None,
                        ..
                    }
            );
            return self.check(world, right, || {
                format!(
                    "{id} never had a task and ended as {:?} (rule 8)",
                    end.outcome
                )
            });
        };
        let by = record.attempt_id(attempt).to_string();
        let said = locked(&self.0).said.get(&by).copied();
        let task = locked(&world.ecs)
            .tasks()
            .find(|t| t.task.started_by.as_deref() == Some(&by))
            .map(|t| t.task.clone());
        let code = task
            .as_ref()
            .and_then(Task::container)
            .and_then(|container| container.exit_code);
        let itself = task
            .as_ref()
            .is_some_and(|task| task.stop_code == Some(StopCode::EssentialContainerExited));
        let has_spoken = locked(&self.0).spoke.contains(&by);
        let right = match &end.outcome {
            Outcome::Succeeded => said == Some(Ended::Exit(0)) && code == Some(0),
            Outcome::Failed {
                exit_code: Some(known),
                ..
            } => code == Some(*known),
            Outcome::Failed {
                exit_code: None, ..
            } => !matches!(said, Some(Ended::Exit(_))) || code.is_none() || !itself,
            Outcome::TimedOut { .. } => said == Some(Ended::TimedOut),
            Outcome::Cancelled { .. } => {
                record.cancel.is_some() && !(itself && matches!(said, Some(Ended::Exit(0))))
            }
            // ECS gives exit codes also to what never ran.
            Outcome::Lost { .. } => itself && said.is_none() && (code.is_none() || !has_spoken),
        };
        self.check(world, right, || {
            format!(
                "{id} ended as {:?}, but its script said {said:?} and its task exited with {code:?} ({:?}) (rule 8)",
                end.outcome,
                task.and_then(|t| t.stop_code)
            )
        });
        let wrong_status = record.status() != end.outcome.status() || !record.status().is_final();
        self.check(world, !wrong_status, || {
            format!("{id} is {} at its end (rule 5)", record.status())
        });
        let last = record.events.last().map(|event| event.status.clone());
        self.check(world, last == Some(record.status()), || {
            format!("{id}: its last event is {last:?} (rule 5)")
        });
        let ends = record
            .events
            .iter()
            .filter(|event| event.status.is_final())
            .count();
        self.check(world, ends == 1, || {
            format!("{id} ended {ends} times (rule 5)")
        });
    }
}

/// How many runs are in each slot of a dimension, and how many of them succeeded.
fn counts(
    tallies: impl IntoIterator<Item = DatedTally>,
) -> BTreeMap<(NaiveDate, Slot), (u64, u64)> {
    let mut counts: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for DatedTally { day, slot, tally } in tallies {
        let (runs, succeeded) = counts.entry((day, slot)).or_default();
        *runs += tally.runs;
        *succeeded += tally.succeeded;
    }
    counts
}

/// The store's answer at this moment. It answers at once.
fn now<T: Default, E>(answer: impl Future<Output = Result<T, E>>) -> T {
    answer
        .now_or_never()
        .and_then(Result::ok)
        .unwrap_or_default()
}

fn is_of(record: &Execution, group: &str) -> bool {
    record
        .request
        .group
        .as_ref()
        .is_some_and(|own| own.as_str() == group)
}

fn record_of(world: &World, started_by: &str) -> Option<Execution> {
    now(world
        .store
        .load(started_by.parse::<AttemptId>().ok()?.execution()))
}

/// The attempts whose tasks are not over.
fn live_tasks(world: &World) -> Vec<String> {
    let mut ecs = locked(&world.ecs);
    ecs.pass(world.time.now());
    let alive = ecs
        .tasks()
        .filter(|shown| shown.task.last_status != STOPPED);
    alive
        .filter_map(|shown| shown.task.started_by.clone())
        .collect()
}
