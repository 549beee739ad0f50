//! A simulation of the whole pipeline: the real handlers over the model of ECS, with a store and
//! queues in memory.
//!
//! On virtual time ([`run`]) an hour takes seconds, and the same plan gives the same run each time.
//! Over the wire ([`run_over_the_wire`]) the real adapters talk to the model through the SDK, on a
//! clock that runs faster than real time by a given factor. Two launchers serve as a comparison,
//! over the same model, the same tasks and the same order. One knows everything
//! ([`rivals::ideal`]); the other calls RunTask as a plain user of the SDK would
//! ([`rivals::plain`]).

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
    ports::{Clock, Queue, WriteStore},
    price::PriceList,
    quota::{Quota, Quotas, Rate},
    request::{Defaults, SubmitRequest},
    settings::Settings,
};
use pipeline::{
    definitions::Registered,
    launcher::{Heads, Launcher, Pace},
    state_tracker::StateTracker,
};

use crate::{
    clock::Scaled,
    ecs::{Account, Counts, Delivery, Ecs, Kind, Operation, Shape, port::InProcess, wire::Wire},
    measured,
    memory::{MemoryQueue, MemoryStore, Meter},
    meter::FUNCTION,
};

pub mod chaos;
mod drive;
mod news;
pub mod priced;
pub mod rivals;
mod script;
mod system;
pub mod time;
mod way;

use script::Scripted;
use system::VirtualSystem;
use time::{Time, Virtual};
use way::{InThisProcess, OverTheWire, Way};

/// How many commands of a bulk submission share one wakeup.
const CHUNK: usize = 500;
/// When the simulation gives up, in virtual time.
const GIVE_UP: TimeDelta = TimeDelta::hours(6);

/// Commands of one submitter, all sent at once.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The name of the key.
    pub by: String,
    /// How many commands.
    pub count: usize,
}

/// The input of a simulation.
#[derive(Clone, Debug)]
pub struct LaunchPlan {
    /// The account, and how its tasks live.
    pub account: Account,
    /// The submissions, in order.
    pub submissions: Vec<Submission>,
    /// The request of each command.
    pub request: SubmitRequest,
    /// After how many refusals or interruptions Spot falls back to on-demand.
    pub spot_fallback_after: Option<u32>,
}

impl LaunchPlan {
    /// A plan of one submitter with this many commands.
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

/// An account with default buckets and this many Spot vCPUs. Its events take 0.1 s to 1 s.
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

/// The time at which every simulation begins.
#[must_use]
pub fn start() -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).unwrap_or_default()
}

/// The result of a simulation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The time from the submission to the end of the last task.
    pub makespan: TimeDelta,
    /// The model's counters.
    pub counts: Counts,
    /// How many executions ended in each status.
    pub ends: BTreeMap<ExecutionStatus, usize>,
    /// How many receives of messages there were, over both queues.
    pub receives: u64,
    /// Messages that became dead letters.
    pub dead_letters: usize,
    /// The time and the submitter of each start, in order.
    pub starts: Vec<(Timestamp, String)>,
    /// When the state tracker closed each attempt, in order.
    pub freed: Vec<Timestamp>,
    /// The counters of the store.
    pub meter: Meter,
    /// Messages sent and received, over both queues.
    pub messages: (u64, u64),
    /// The lines of metrics that functions wrote, if this thread measures
    /// ([`measured::on_this_thread`]).
    pub metrics: String,
    /// The records at the end, in the order of their submission.
    pub records: Vec<Execution>,
}

impl Outcome {
    /// How many executions have not ended or ended as LOST.
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

    /// Refusals by quotas per RunTask call.
    #[must_use]
    pub fn refusals_per_call(&self) -> f64 {
        refusals_per_call(&self.counts)
    }

    /// How long each freed slot stayed unused: from the close of an attempt by the state tracker to
    /// the next start. It is valid where only the number of `slots` makes executions wait, so it
    /// counts from when all slots were first in use.
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
    <W as Way>::Store,
    Mail<W>,
    Scripted<W>,
    script::NoLogs,
    <W as Way>::Store,
    VirtualSystem<<W as Way>::Time>,
>;
type TrackerOf<'a, W> = StateTracker<
    'a,
    <W as Way>::Store,
    Mail<W>,
    Scripted<W>,
    script::NoLogs,
    <W as Way>::Quotas,
    VirtualSystem<<W as Way>::Time>,
>;
type Mail<W> = MemoryQueue<<W as Way>::Time>;

/// The stack: the state that its functions share.
struct World<W: Way> {
    clock: W::Time,
    system: VirtualSystem<W::Time>,
    store: W::Store,
    queue: Mail<W>,
    ecs: Arc<Mutex<Ecs>>,
    tasks: Scripted<W>,
    quotas: W::Quotas,
    logs: script::NoLogs,
    registered: Registered,
    pace: Pace,
    heads: Heads,
    settings: Settings,
    starts: Mutex<Vec<(Timestamp, ExecutionId)>>,
    /// When the state tracker heard of the end of each attempt, and whose attempt it was.
    freed: Mutex<Vec<(Timestamp, ExecutionId)>>,
    invocations: Mutex<Invocations>,
    /// The lines of metrics that functions wrote, if this thread measures.
    metrics: Mutex<String>,
}

/// The invocations of functions by their source: how many, and how long they took together.
pub type Invocations = BTreeMap<&'static str, (u32, TimeDelta)>;

impl<W: Way> World<W> {
    /// A stack in front of this model, which `tasks` and `quotas` reach.
    fn new(
        plan: &LaunchPlan,
        clock: &W::Time,
        store: W::Store,
        ecs: Arc<Mutex<Ecs>>,
        tasks: W::Tasks,
        quotas: W::Quotas,
    ) -> Arc<Self> {
        Arc::new_cyclic(|world| Self {
            system: VirtualSystem::new(clock.clone(), plan.account.seed),
            store,
            queue: MemoryQueue::new(clock.clone()),
            tasks: Scripted::new(tasks, clock.clone(), world.clone()),
            quotas,
            clock: clock.clone(),
            ecs,
            logs: script::NoLogs,
            registered: Registered::default(),
            pace: Pace::default(),
            heads: Heads::default(),
            settings: Settings {
                spot_fallback_after: plan.spot_fallback_after,
                ..settings(&plan.account)
            },
            starts: Mutex::default(),
            freed: Mutex::default(),
            invocations: Mutex::default(),
            metrics: Mutex::default(),
        })
    }

    /// An invocation of a function, which is counted.
    async fn invoke<T>(&self, source: &'static str, work: impl Future<Output = T>) -> T {
        let begun = self.clock.now();
        let measured = Box::pin(measured::invocation(|| self.clock.now(), work));
        let (done, lines) = FUNCTION.scope(source, measured).await;
        script::locked(&self.metrics).push_str(&lines);
        let mut invocations = script::locked(&self.invocations);
        let (count, time) = invocations.entry(source).or_default();
        *count += 1;
        *time += self.clock.now() - begun;
        done
    }

    fn launcher(&self) -> LauncherOf<'_, W> {
        let Self {
            store,
            queue,
            tasks,
            logs,
            registered,
            pace,
            heads,
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
            heads,
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

    /// Starts all functions, and submits all of a plan.
    async fn begin(self: &Arc<Self>, plan: &LaunchPlan) {
        drive::start(self);
        // As after `init`, the quotas are known before anything is submitted.
        self.tracker()
            .next_sweep(start() + TimeDelta::minutes(1))
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        self.submit(plan.executions()).await;
    }

    /// Submits as the submit function does: it records a chunk, then sends one wakeup for it.
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
}

impl<W: Way<Store = MemoryStore>> World<W> {
    /// Submits all of a plan and runs it to its end.
    async fn run(self: &Arc<Self>, plan: &LaunchPlan) -> Outcome {
        self.begin(plan).await;
        while self.store.unfinished() > 0 && self.clock.now() < start() + GIVE_UP {
            self.clock.sleep(TimeDelta::seconds(1)).await;
            self.store.second();
        }
        self.outcome()
    }

    /// Builds the result. It takes the records out of the store, since there may be a million.
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
        // Concurrent calls are recorded in the order of their answers.
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
            freed: script::locked(&self.freed)
                .iter()
                .map(|(at, _)| *at)
                .collect(),
            metrics: script::locked(&self.metrics).clone(),
            records,
        }
    }
}

/// The settings of a stack in such an account: nothing but Fargate's own limits.
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
        runner_images: Some(crate::ecs::runner_images()),
        artifacts: None,
        spot_fallback_after: None,
        definitions_rate: rate(account.rates.register),
        allowed: None,
        network: Some(NetworkConfiguration {
            subnets: vec!["subnet-a".into()],
            security_groups: vec!["sg-a".into()],
            assign_public_ip: true,
        }),
        prices: PriceList::of_region("us-east-1"),
        task_tags: Some("default".into()),
        unlisted_seconds: 120,
        log_delay_seconds: 10,
    }
}

/// Runs a plan to its end on virtual time.
///
/// # Panics
/// When every process waits for another: a deadlock.
#[must_use]
pub fn run(plan: &LaunchPlan) -> Outcome {
    let (time, plan) = (Virtual::new(start()), plan.clone());
    let ecs = Arc::new(Mutex::new(Ecs::new(plan.account.clone())));
    let port = InProcess::new(Arc::clone(&ecs), time.clone());
    let world = World::<InThisProcess>::new(
        &plan,
        &time,
        MemoryStore::default(),
        ecs,
        port.clone(),
        port,
    );
    time.spawn(drive::look_for_events(Arc::clone(&world)));
    time.run(async move { world.run(&plan).await })
}

/// Runs a plan to its end with the real adapters, which talk to the model over the wire, on a clock
/// that runs `factor` times as fast as real time. So a call takes `factor` times as long as on
/// loopback.
///
/// # Panics
/// When the runtime cannot be created.
#[must_use]
pub fn run_over_the_wire(plan: &LaunchPlan, factor: u32) -> Outcome {
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async {
        let time = Scaled::new(start(), factor);
        let (wire, events) = Wire::serve(Ecs::new(plan.account.clone()), time).await;
        let (tasks, quotas) = way::adapters(&wire, &plan.account);
        let world = World::<OverTheWire>::new(
            plan,
            &time,
            MemoryStore::default(),
            wire.model(),
            tasks,
            quotas,
        );
        time.spawn(drive::watch_events(Arc::clone(&world), events));
        world.run(plan).await
    })
}
