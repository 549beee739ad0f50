//! The whole pipeline: the real handlers over the model of ECS, with a store and queues in memory.
//!
//! On virtual time ([`run`]) an hour takes seconds, and the same plan is the same run each time.
//! Over the wire ([`run_over_the_wire`]) the real adapters talk to the model through the SDK, on a
//! clock that is only so many times as fast as the real one. Beside them stand two launchers to
//! compare with, over the same model, the same tasks and the same order: one that knows everything
//! ([`rivals::ideal`]) and one that calls RunTask as the SDK would have it ([`rivals::plain`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use crate::callers::caller;
use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::NetworkConfiguration,
    execution::{Execution, ExecutionStatus},
    id::ExecutionId,
    limit::CapacityPool,
    message::{Message, QueueName},
    ports::{Clock, Queue, Store},
    request::{Defaults, SubmitRequest},
    settings::Settings,
    throttle::{Quota, Quotas, Rate},
};
use pipeline::{
    definitions::Registered,
    launcher::{Launcher, Pace},
    state_tracker::StateTracker,
};

use crate::{
    clock::Scaled,
    ecs::{Account, Counts, Delivery, Ecs, Kind, Operation, Shape, port::InProcess, wire::Wire},
    memory::{MemoryQueue, MemoryStore, Meter},
};

pub mod chaos;
mod drive;
mod news;
pub mod rivals;
mod script;
mod system;
pub mod time;
mod way;

use script::Scripted;
use system::VirtualSystem;
use time::{Time, Virtual};
use way::{InThisProcess, OverTheWire, Way};

/// How many commands of a bulk submission come with one wakeup.
const CHUNK: usize = 500;
/// When to give up, in virtual time.
const GIVE_UP: TimeDelta = TimeDelta::hours(6);

/// So many commands of one submitter, all at once.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The name of the key.
    pub by: String,
    /// How many.
    pub count: usize,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The account, and how its tasks live.
    pub account: Account,
    /// Who submits how much, in this order.
    pub submissions: Vec<Submission>,
    /// What each of them asks for.
    pub request: SubmitRequest,
    /// After how many refusals or interruptions Spot is given up.
    pub spot_fallback_after: Option<u32>,
}

impl Plan {
    /// So many commands of one submitter.
    #[must_use]
    pub fn of(account: Account, count: usize) -> Self {
        let request = SubmitRequest {
            command: Some("true".into()),
            ..SubmitRequest::default()
        };
        let submissions = vec![Submission {
            by: "alice".into(),
            count,
        }];
        Self {
            account,
            submissions,
            request,
            spot_fallback_after: None,
        }
    }

    /// The executions, in the order of their submission.
    pub fn executions(&self) -> impl Iterator<Item = Execution> {
        let at = start();
        let commands = self
            .submissions
            .iter()
            .flat_map(|submission| std::iter::repeat_n(&submission.by, submission.count));
        let request = self
            .request
            .clone()
            .validate(&Defaults::aws())
            .unwrap_or_else(|faults| panic!("{faults:?}"));
        let execution = move |(number, by): (usize, &String)| {
            let id = ExecutionId::new(at, number as u128);
            Execution::submitted(
                id,
                request.clone(),
                CapacityPool::FargateSpot,
                &caller(by),
                at,
            )
        };
        commands.enumerate().map(execution)
    }
}

/// An account with default buckets and so many vCPUs of Spot, whose events take a tenth of a second
/// to one.
#[must_use]
pub fn account(seed: u64, vcpus: u32) -> Account {
    let delay = TimeDelta::milliseconds(100)..=TimeDelta::milliseconds(1_000);
    let mut account = Account::new(seed, "simulated").with_vcpus(Kind::Spot, vcpus);
    account.delivery = Delivery {
        delay,
        ..Delivery::default()
    };
    account
}

/// When every simulation begins.
#[must_use]
pub fn start() -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).unwrap_or_default()
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the submission to the end of the last task.
    pub makespan: TimeDelta,
    /// What the account counted.
    pub counts: Counts,
    /// How many ended like this.
    pub ends: BTreeMap<ExecutionStatus, usize>,
    /// How often messages were received, of both queues.
    pub receives: u64,
    /// Messages that became dead letters.
    pub dead_letters: usize,
    /// Who was started when, in order.
    pub starts: Vec<(Timestamp, String)>,
    /// When the tracker closed an attempt, in order.
    pub freed: Vec<Timestamp>,
    /// What the store was asked.
    pub meter: Meter,
    /// Messages sent, and received, of both queues.
    pub messages: (u64, u64),
    /// The records as they were in the end, in the order of their submission.
    pub records: Vec<Execution>,
}

impl Outcome {
    /// Executions that have not ended, or of which nothing can tell how.
    #[must_use]
    pub fn lost(&self, of: usize) -> usize {
        let known = |(status, _): &(&ExecutionStatus, &usize)| **status != ExecutionStatus::Lost;
        of - self
            .ends
            .iter()
            .filter(known)
            .map(|(_, count)| count)
            .sum::<usize>()
    }

    /// Refusals by quotas, for each call of RunTask.
    #[must_use]
    pub fn refusals_per_call(&self) -> f64 {
        refusals_per_call(&self.counts)
    }

    /// How long after the tracker closed an attempt its slot was in use again, where `slots` are
    /// all there are and only their number holds the line: so from when on they were all in use.
    #[must_use]
    pub fn reuse(&self, slots: usize) -> Vec<TimeDelta> {
        let Some((full, _)) = slots.checked_sub(1).and_then(|last| self.starts.get(last)) else {
            return Vec::new();
        };
        let later = self.starts.iter().skip(slots).map(|(at, _)| *at);
        later
            .zip(&self.freed)
            .filter(|(_, freed)| *freed > full)
            .map(|(started, freed)| started - *freed)
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn refusals_per_call(counts: &Counts) -> f64 {
    let calls = counts
        .calls
        .get(&Operation::RunTask)
        .copied()
        .unwrap_or_default();
    counts.refused_by_quotas() as f64 / calls.max(1) as f64
}

/// The functions of a stack, and their queues.
type LauncherOf<'a, W> = Launcher<
    'a,
    MemoryStore,
    Mail<W>,
    Scripted<W>,
    script::NoLogs,
    MemoryStore,
    VirtualSystem<<W as Way>::Time>,
>;
type TrackerOf<'a, W> = StateTracker<
    'a,
    MemoryStore,
    Mail<W>,
    Scripted<W>,
    script::NoLogs,
    <W as Way>::Quotas,
    VirtualSystem<<W as Way>::Time>,
>;
type Mail<W> = MemoryQueue<<W as Way>::Time>;

/// The stack: what its functions share.
struct World<W: Way> {
    clock: W::Time,
    system: VirtualSystem<W::Time>,
    store: MemoryStore,
    queue: Mail<W>,
    ecs: Arc<Mutex<Ecs>>,
    tasks: Scripted<W>,
    quotas: W::Quotas,
    logs: script::NoLogs,
    registered: Registered,
    pace: Pace,
    settings: Settings,
    starts: Mutex<Vec<(Timestamp, ExecutionId)>>,
    freed: Mutex<Vec<Timestamp>>,
}

impl<W: Way> World<W> {
    /// In front of this model, which is reached by these.
    fn new(
        plan: &Plan,
        clock: &W::Time,
        ecs: Arc<Mutex<Ecs>>,
        tasks: W::Tasks,
        quotas: W::Quotas,
    ) -> Arc<Self> {
        Arc::new_cyclic(|world| Self {
            system: VirtualSystem::new(clock.clone(), plan.account.seed),
            store: MemoryStore::default(),
            queue: MemoryQueue::new(clock.clone()),
            tasks: Scripted::new(tasks, clock.clone(), world.clone()),
            quotas,
            clock: clock.clone(),
            ecs,
            logs: script::NoLogs,
            registered: Registered::default(),
            pace: Pace::default(),
            settings: Settings {
                spot_fallback_after: plan.spot_fallback_after,
                ..settings(&plan.account)
            },
            starts: Mutex::default(),
            freed: Mutex::default(),
        })
    }

    fn launcher(&self) -> LauncherOf<'_, W> {
        let Self {
            store,
            queue,
            tasks,
            logs,
            registered,
            pace,
            system,
            settings,
            ..
        } = self;
        Launcher {
            store,
            queue,
            tasks,
            logs,
            secrets: store,
            registered,
            pace,
            system,
            settings,
        }
    }

    fn tracker(&self) -> TrackerOf<'_, W> {
        let Self {
            store,
            queue,
            tasks,
            logs,
            quotas,
            system,
            settings,
            ..
        } = self;
        StateTracker {
            store,
            queue,
            tasks,
            logs,
            quotas,
            system,
            settings,
        }
    }

    /// Submits all of a plan, and sees it to its end.
    async fn run(self: &Arc<Self>, plan: &Plan) -> Outcome {
        drive::start(self);
        // As `init` does: the quotas are known before anything is submitted.
        self.tracker()
            .next_sweep(start() + TimeDelta::minutes(1))
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        self.submit(plan.executions()).await;
        while self.store.unfinished() > 0 && self.clock.now() < start() + GIVE_UP {
            self.clock.sleep(TimeDelta::seconds(1)).await;
            self.store.second();
        }
        self.outcome()
    }

    /// As the submit function does: recorded, then woken, a wakeup for each chunk.
    async fn submit(&self, mut executions: impl Iterator<Item = Execution>) {
        loop {
            let chunk: Vec<_> = executions.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return;
            }
            for execution in &chunk {
                self.store
                    .create(execution, None)
                    .await
                    .unwrap_or_else(|error| panic!("{error}"));
            }
            let backlogs: BTreeSet<_> = chunk
                .iter()
                .filter_map(|execution| Some(execution.backlog_entry()?.backlog))
                .collect();
            let wakeups = backlogs
                .into_iter()
                .map(|backlog| Message::Wakeup { backlog, id: None }.into());
            let sent = self.queue.send(wakeups.collect()).await;
            sent.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// Takes the records out of the store: there may be a million.
    fn outcome(&self) -> Outcome {
        let (mut ends, mut last) = (BTreeMap::new(), start());
        let records = self.store.take_all();
        for end in records.iter().filter_map(Execution::end) {
            *ends.entry(end.outcome.status()).or_default() += 1;
            last = last.max(end.at);
        }
        let submitters: BTreeMap<_, _> = records
            .iter()
            .map(|record| (&record.id, &record.submitted_by))
            .collect();
        let name = |id| {
            submitters
                .get(id)
                .map_or_else(String::new, |by| (*by).clone())
        };
        let mut starts: Vec<_> = script::locked(&self.starts)
            .iter()
            .map(|(at, id)| (*at, name(id)))
            .collect();
        // Calls that are under way together are noted in the order of their answers.
        starts.sort_by_key(|(at, _)| *at);
        Outcome {
            makespan: last - start(),
            counts: script::locked(&self.ecs).counts().clone(),
            ends,
            meter: self.store.meter(),
            messages: QueueName::ALL
                .into_iter()
                .map(|queue| self.queue.counts(queue))
                .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1)),
            receives: QueueName::ALL
                .into_iter()
                .map(|queue| self.queue.counts(queue).1)
                .sum(),
            dead_letters: self.queue.dead_letters().len(),
            starts,
            freed: script::locked(&self.freed).clone(),
            records,
        }
    }
}

/// What a stack in such an account is set to: nothing but what is Fargate's own.
#[must_use]
pub fn settings(account: &Account) -> Settings {
    let rate = |shape: Shape| {
        Some(Rate {
            burst: shape.burst.into(),
            per_second: shape.per_second.into(),
        })
    };
    let quota = || Quota {
        cpu: None,
        rate: rate(account.rates.launches),
    };
    Settings {
        cluster: account.cluster.clone(),
        log_group: "/aws/mycli/simulated".into(),
        defaults: Defaults::aws(),
        quotas: Quotas::from([
            (CapacityPool::FargateSpot, quota()),
            (CapacityPool::Fargate, quota()),
        ]),
        run_task_rate: rate(account.rates.run_task),
        spot_fallback_after: None,
        definitions_rate: rate(account.rates.register),
        allowed: None,
        network: Some(NetworkConfiguration {
            subnets: vec!["subnet-a".into()],
            security_groups: vec!["sg-a".into()],
            assign_public_ip: true,
        }),
        task_tags: Some("default".into()),
        unlisted_seconds: 120,
        log_delay_seconds: 10,
    }
}

/// Runs a plan to its end, on virtual time.
///
/// # Panics
/// When everybody waits for somebody else.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let (time, plan) = (Virtual::new(start()), plan.clone());
    let ecs = Arc::new(Mutex::new(Ecs::new(plan.account.clone())));
    let port = InProcess::new(Arc::clone(&ecs), time.clone());
    let world = World::<InThisProcess>::new(&plan, &time, ecs, port.clone(), port);
    time.spawn(drive::look_for_events(Arc::clone(&world)));
    time.run(async move { world.run(&plan).await })
}

/// Runs a plan to its end with the real adapters, which talk to the model over the wire, on a clock
/// that is so many times as fast as the real one. So a call takes so many times as long as on
/// loopback.
///
/// # Panics
/// When there is no runtime.
#[must_use]
pub fn run_over_the_wire(plan: &Plan, factor: u32) -> Outcome {
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async {
        let time = Scaled::new(start(), factor);
        let (wire, events) = Wire::serve(Ecs::new(plan.account.clone()), time).await;
        let (tasks, quotas) = way::adapters(&wire, &plan.account);
        let world = World::<OverTheWire>::new(plan, &time, wire.model(), tasks, quotas);
        time.spawn(drive::watch_events(Arc::clone(&world), events));
        world.run(plan).await
    })
}
