//! Launchers to compare with, over the same model of ECS.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    attempt_secret::AttemptSecret,
    ecs::RunTaskInput,
    execution::Execution,
    git_access::GitAccess,
    ports::{Clock, LaunchError, Tasks},
    quota::{RUN_TASK_RATE, TokenBucket},
    task::{self, AttemptProof},
};

use super::{LaunchPlan, script::locked, settings, start, time::Virtual};
use crate::ecs::{Counts, Ecs, Kind, RunTask, VCPU, port::InProcess};

/// The result of a rival's run.
#[derive(Clone, Debug)]
pub struct Rivalled {
    /// The time from the submission to the end of the last task.
    pub makespan: TimeDelta,
    /// The model's counters.
    pub counts: Counts,
    /// Commands that became dead letters, so they are never started.
    pub dead_letters: usize,
    /// Receives of messages.
    pub receives: u64,
}

impl Rivalled {
    /// Refusals by quotas per RunTask call.
    #[must_use]
    pub fn refusals_per_call(&self) -> f64 {
        super::refusals_per_call(&self.counts)
    }
}

/// The time step of the ideal launcher.
const STEP: TimeDelta = TimeDelta::milliseconds(10);
/// The workers of the plain launcher, each with one call at a time. Our choice: as many as a
/// function's default batch has messages.
const WORKERS: usize = 10;
/// Attempts of the SDK per call (AWS SDKs' standard retry mode: three attempts).
const ATTEMPTS: u32 = 3;
/// The visibility timeout of the plain launcher's queue, and the receives before a dead letter. Our
/// choice: usual numbers.
const VISIBLE_AGAIN: TimeDelta = TimeDelta::seconds(60);
const RECEIVES: u32 = 5;

fn input(execution: &Execution, plan: &LaunchPlan, definition: &str) -> RunTaskInput {
    task::run_task(
        execution,
        definition,
        AttemptProof::Nonce(&AttemptSecret::of_bits(0)),
        &GitAccess::default(),
        &settings(&plan.account),
    )
}

async fn registered(
    tasks: &InProcess<Virtual>,
    plan: &LaunchPlan,
    execution: &Execution,
) -> String {
    let definition = domain::task::TaskDefinition::of(
        &execution.request,
        &GitAccess::default(),
        &settings(&plan.account),
    );
    tasks
        .register_definition(&definition)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

fn last_end(ecs: &Ecs) -> Timestamp {
    ecs.tasks()
        .filter_map(|shown| shown.task.stopped_at)
        .max()
        .unwrap_or_else(start)
}

/// Returns the shortest possible makespan. The ideal launcher sees a free slot at once, never makes
/// a call that is refused, and needs no time for anything.
///
/// # Panics
/// When there is nothing to run, or the model refuses the task definition.
#[must_use]
pub fn ideal(plan: &LaunchPlan) -> TimeDelta {
    let executions: Vec<_> = plan.executions().collect();
    let ecs = Arc::new(Mutex::new(Ecs::new(plan.account.clone())));
    let first = executions
        .first()
        .unwrap_or_else(|| panic!("nothing to run"));
    let (time, tasks) = (
        Virtual::new(start()),
        InProcess::new(Arc::clone(&ecs), Virtual::new(start())),
    );
    let (asked, own) = (plan.clone(), first.clone());
    let definition = time.run(async move { registered(&tasks, &asked, &own).await });
    let mut ecs = locked(&ecs);
    let cap = plan
        .account
        .vcpus
        .get(&Kind::Spot)
        .copied()
        .unwrap_or_default()
        .cpu();
    let mut backlog: VecDeque<_> = executions
        .iter()
        .map(|execution| input(execution, plan, &definition))
        .collect();
    let (mut now, mut bucket) = (start(), TokenBucket::default());
    while !backlog.is_empty() || ecs.next_event_at().is_some() {
        drop(ecs.take_events(now));
        while let Some(next) = backlog.front() {
            let size = next.overrides.cpu.parse().unwrap_or(VCPU);
            let in_use = ecs.in_use(Kind::Spot);
            if in_use + size > cap {
                break;
            }
            let (granted, after) = bucket.take(RUN_TASK_RATE, 1, now);
            if granted == 0 {
                break;
            }
            bucket = after;
            match ecs.run_task(&RunTask::from(next), now) {
                Ok(answered) if !answered.tasks.is_empty() => drop(backlog.pop_front()),
                _ => break,
            }
        }
        now += STEP;
    }
    last_end(&ecs) - start()
}

/// Runs the launcher that one writes in an afternoon. A worker takes a message and calls RunTask
/// with the SDK's retries. If that fails, it leaves the message to be received again.
#[must_use]
pub fn plain(plan: &LaunchPlan) -> Rivalled {
    let (time, plan) = (Virtual::new(start()), plan.clone());
    let clock = time.clone();
    time.run(async move {
        let executions: Vec<_> = plan.executions().collect();
        let ecs = Arc::new(Mutex::new(Ecs::new(plan.account.clone())));
        let tasks = InProcess::new(Arc::clone(&ecs), clock.clone());
        let definition = match executions.first() {
            Some(first) => registered(&tasks, &plan, first).await,
            None => String::new(),
        };
        let queue = PlainQueue::new(
            executions
                .iter()
                .map(|execution| input(execution, &plan, &definition)),
        );
        let workers = (0..WORKERS).map(|number| work(&queue, &tasks, &clock, number));
        futures_util::future::join_all(workers).await;
        while locked(&ecs).next_event_at().is_some() {
            clock.sleep(TimeDelta::seconds(1)).await;
            drop(locked(&ecs).take_events(clock.now()));
        }
        let (state, ecs) = (locked(&queue.0), locked(&ecs));
        Rivalled {
            makespan: last_end(&ecs) - start(),
            counts: ecs.counts().clone(),
            dead_letters: state.dead,
            receives: state.receives,
        }
    })
}

struct PlainQueue(Mutex<PlainState>);

#[derive(Default)]
struct PlainState {
    waiting: VecDeque<(Timestamp, RunTaskInput, u32)>,
    dead: usize,
    receives: u64,
}

impl PlainQueue {
    fn new(inputs: impl Iterator<Item = RunTaskInput>) -> Self {
        let waiting = inputs.map(|input| (start(), input, 0)).collect();
        Self(Mutex::new(PlainState {
            waiting,
            ..PlainState::default()
        }))
    }

    /// Returns the next visible message, `None` if all that are left become visible later, or an
    /// error if none is left.
    fn receive(&self, now: Timestamp) -> Result<Option<(RunTaskInput, u32)>, Empty> {
        let mut state = locked(&self.0);
        let Some((at, ..)) = state.waiting.front() else {
            return Err(Empty);
        };
        if *at > now {
            return Ok(None);
        }
        state.receives += 1;
        Ok(state
            .waiting
            .pop_front()
            .map(|(_, input, receives)| (input, receives + 1)))
    }

    fn again(&self, at: Timestamp, input: RunTaskInput, receives: u32) {
        let mut state = locked(&self.0);
        if receives >= RECEIVES {
            state.dead += 1;
        } else {
            state.waiting.push_back((at, input, receives));
        }
    }
}

struct Empty;

async fn work(queue: &PlainQueue, tasks: &InProcess<Virtual>, clock: &Virtual, number: usize) {
    while let Ok(received) = queue.receive(clock.now()) {
        let Some((input, receives)) = received else {
            clock.sleep(TimeDelta::seconds(1)).await;
            continue;
        };
        if !starts(tasks, clock, &input, number).await {
            queue.again(clock.now() + VISIBLE_AGAIN, input, receives);
        }
    }
}

/// Whether RunTask starts the task. The SDK retries a throttled call after one second, then two,
/// spread by the worker's number. To the SDK a 200 with failures is a success.
async fn starts(
    tasks: &InProcess<Virtual>,
    clock: &Virtual,
    input: &RunTaskInput,
    number: usize,
) -> bool {
    let spread = i64::try_from(number).unwrap_or_default() * 97;
    for attempt in 0..ATTEMPTS {
        clock.sleep(TimeDelta::milliseconds(200)).await;
        match tasks.run_task(input).await {
            Ok(_) => return true,
            Err(LaunchError::Throttled(_)) => {
                clock
                    .sleep(TimeDelta::milliseconds(
                        (1_000 << attempt) * (1_000 - spread) / 1_000,
                    ))
                    .await;
            }
            Err(_) => return false,
        }
    }
    false
}
