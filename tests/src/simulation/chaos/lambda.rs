//! The functions' processes, and what invokes them: queues, EventBridge, the schedule.

use std::sync::Arc;

use chrono::TimeDelta;
use domain::{
    id::ExecutionId,
    message::QueueName,
    ports::{Clock, PortError},
};
use pipeline::{
    auth::Auth,
    definitions::Registered,
    launcher::{Heads, Launcher, Pace},
    state_tracker::StateTracker,
    statistics,
    submit::Submit,
};

use super::{
    super::{
        drive,
        script::locked,
        system::VirtualSystem,
        time::{Time, Virtual},
    },
    World,
    script::AGAIN,
    wire::Wire,
};
use crate::memory::Received;

/// The visibility timeout, as in the template: six times the function's timeout.
const VISIBILITY: TimeDelta = TimeDelta::seconds(360);
/// The pollers of each queue. They are fewer than the template's: a simulation has few runs, and
/// these pollers already compete.
const LAUNCHERS: [(QueueName, usize); 2] = [(QueueName::Launch, 3), (QueueName::Control, 2)];
/// Messages per invocation (AWS-FACTS §5).
const BATCH: u32 = 10;
/// The longest wait of a poller before it checks again.
const LONG: TimeDelta = TimeDelta::minutes(10);

/// A process: its connections, its clock and its caches.
pub(super) struct Environment {
    world: Arc<World>,
    wire: Wire,
    system: VirtualSystem<Virtual>,
    registered: Registered,
    pace: Pace,
    heads: Heads,
    auth: Auth,
}

impl Environment {
    pub(super) fn new(world: &Arc<World>, who: &str) -> Self {
        let (time, seed) = (
            world.time.clone(),
            world.plan.seed ^ world.fate.below(u64::MAX),
        );
        Self {
            wire: Wire {
                world: Arc::clone(world),
                who: who.to_owned(),
            },
            system: VirtualSystem::skewed(time, seed, world.fate.skew()),
            world: Arc::clone(world),
            registered: Registered::default(),
            pace: Pace::fast_from(world.plan.fast),
            heads: Heads::default(),
            auth: Auth::default(),
        }
    }

    fn launcher(&self) -> Launcher<'_, Wire, Wire, Wire, Wire, Wire, VirtualSystem<Virtual>> {
        let Self {
            wire,
            system,
            registered,
            pace,
            heads,
            ..
        } = self;
        let settings = &self.world.settings;
        Launcher {
            store: wire,
            queue: wire,
            tasks: wire,
            logs: wire,
            secrets: wire,
            registered,
            pace,
            heads,
            system,
            settings,
        }
    }

    pub(super) fn tracker(
        &self,
    ) -> StateTracker<'_, Wire, Wire, Wire, Wire, Wire, VirtualSystem<Virtual>> {
        let Self { wire, system, .. } = self;
        let settings = &self.world.settings;
        StateTracker {
            store: wire,
            queue: wire,
            tasks: wire,
            logs: wire,
            quotas: wire,
            system,
            settings,
        }
    }

    /// Counts the ends of these executions.
    pub(super) async fn count(&self, ids: &[ExecutionId]) -> Result<(), PortError> {
        statistics::count(&self.wire, self.system.now(), ids).await
    }

    pub(super) fn submit(&self) -> Submit<'_, Wire, Wire, Wire, Wire, VirtualSystem<Virtual>> {
        let Self {
            wire, system, auth, ..
        } = self;
        Submit {
            store: wire,
            keys: wire,
            queue: wire,
            secrets: wire,
            system,
            auth,
            settings: &self.world.settings,
        }
    }
}

/// Starts all pollers and schedules. They end with the simulation.
pub(super) fn start(world: &Arc<World>) {
    for (queue, count) in LAUNCHERS {
        for number in 1..=count {
            world.time.spawn(poll(
                Arc::clone(world),
                queue,
                format!("launcher {} {number}", queue.as_str()),
            ));
        }
    }
    world.time.spawn(deliver(Arc::clone(world)));
    world.time.spawn(sweep(Arc::clone(world)));
}

async fn poll(world: Arc<World>, queue: QueueName, who: String) {
    let mut process = Environment::new(&world, &who);
    loop {
        let received = world.queue.receive(queue, BATCH, VISIBILITY);
        if received.is_empty() {
            let until = world
                .queue
                .next_at(queue)
                .unwrap_or(world.time.now() + LONG);
            world
                .news
                .wait(
                    &world.time,
                    until.max(world.time.now() + TimeDelta::milliseconds(1)),
                )
                .await;
            continue;
        }
        world.time.sleep(world.fate.latency()).await;
        let doubled = world.fate.strikes(|weather| weather.wakeup_doubled);
        if doubled {
            world.queue.release(&received);
            world.news.tell();
        }
        let event = drive::event(&received);
        let Some(response) = world.fate.process(process.launcher().handle(event)).await else {
            world.story.tell(&who, || "dies".into());
            process = Environment::new(&world, &who);
            continue;
        };
        let failed = |received: &Received| {
            let id = received.id.to_string();
            response
                .batch_item_failures
                .iter()
                .any(|failure| failure.item_identifier == id)
        };
        let done: Vec<_> = received
            .into_iter()
            .filter(|received| !failed(received))
            .collect();
        world.queue.delete(&done);
    }
}

async fn deliver(world: Arc<World>) {
    loop {
        let events = locked(&world.ecs).take_events(world.time.now());
        for (_, change) in events {
            let world = Arc::clone(&world);
            world.time.clone().spawn(async move {
                let envelope = change.envelope();
                for pause in AGAIN.map(Some).into_iter().chain([None]) {
                    world.story.tell("ECS", || {
                        let task = &envelope.detail;
                        format!(
                            "event {} of {} (version {})",
                            task.last_status, task.task_arn, task.version
                        )
                    });
                    let process = Environment::new(&world, "tracker of events");
                    let told = world
                        .fate
                        .process(async { process.tracker().task_changed(&envelope).await })
                        .await;
                    match (told, pause) {
                        (Some(Ok(())), _) | (_, None) => return,
                        (_, Some(pause)) => world.time.sleep(pause).await,
                    }
                }
            });
        }
        let next = locked(&world.ecs)
            .next_event_at()
            .unwrap_or(world.time.now() + LONG);
        world
            .news
            .wait(
                &world.time,
                next.max(world.time.now() + TimeDelta::milliseconds(1)),
            )
            .await;
    }
}

async fn sweep(world: Arc<World>) {
    loop {
        let process = Environment::new(&world, "sweep");
        let until = world.time.now() + TimeDelta::seconds(45);
        let swept = world
            .fate
            .process(async { process.tracker().next_sweep(until).await })
            .await;
        world.story.tell("sweep", || match &swept {
            None => "dies".into(),
            Some(Err(error)) => format!("{error}"),
            Some(Ok(())) => "done".into(),
        });
        world.time.sleep(TimeDelta::minutes(1)).await;
    }
}
