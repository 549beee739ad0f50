//! A simulation of the whole pipeline under faults: the real handlers, many processes at once, on
//! virtual time, and everything that can go wrong.
//!
//! Everything follows from one seed, so a run that breaks a rule can be repeated with its story
//! printed. The rules are those of DESIGN §4. They are checked at each write and each launch, and
//! again at the end.

use crate::ecs::STOPPED;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use domain::{
    ecs::TaskArn,
    ecs::{StopCode, Task},
    group::GroupRerun,
    id::ExecutionId,
    ports::{Clock, ReadStore},
    settings::Settings,
};

use super::{
    news::News,
    script::locked,
    settings, start,
    time::{Time, Virtual},
};
use crate::{
    ecs::{Ecs, VcpuQuota, port::InProcess},
    memory::{MemoryQueue, MemoryStore},
};

mod fate;
mod lambda;
mod plan;
mod rules;
mod script;
mod story;
mod stream;
mod users;
mod wire;

pub use plan::{Errand, LaunchPlan, Weather};

use fate::Fate;
use rules::Rules;
use script::LogGroup;
use story::Story;
use stream::Stream;

/// When the simulation gives up. It is longer than any promised delay, a message's fifth receive
/// included.
const GIVE_UP: TimeDelta = TimeDelta::hours(3);
/// How long the simulation goes on after the end, for what arrives late.
const AFTERWARDS: TimeDelta = TimeDelta::minutes(6);

/// The state that the processes share.
struct World {
    plan: LaunchPlan,
    time: Virtual,
    fate: Fate,
    story: Story,
    rules: Rules,
    news: News,
    store: MemoryStore,
    queue: MemoryQueue<Virtual>,
    ecs: Arc<Mutex<Ecs>>,
    tasks: InProcess<Virtual>,
    logs: LogGroup,
    settings: Settings,
    stream: Stream,
}

impl World {
    fn new(plan: &LaunchPlan, time: &Virtual, told: bool) -> Arc<Self> {
        let ecs = Arc::new(Mutex::new(Ecs::new(plan.account.clone())));
        Arc::new(Self {
            fate: Fate::new(plan, time.clone()),
            story: Story::new(time.clone(), told),
            rules: Rules::default(),
            news: News::default(),
            store: MemoryStore::default(),
            queue: MemoryQueue::new(time.clone()),
            tasks: InProcess::new(Arc::clone(&ecs), time.clone()),
            ecs,
            logs: LogGroup::default(),
            settings: Settings {
                spot_fallback_after: plan.spot_fallback_after,
                ..settings(&plan.account)
            },
            stream: Stream::default(),
            time: time.clone(),
            plan: plan.clone(),
        })
    }

    /// Whether a task is stopping or has stopped.
    fn is_stopping(&self, arn: &TaskArn) -> bool {
        self.task(arn, |task| {
            task.stop_code.is_some() || task.last_status == STOPPED
        })
    }

    /// Whether something other than its own end stopped a task.
    fn was_told_to_stop(&self, arn: &TaskArn) -> bool {
        self.task(arn, |task| {
            task.stop_code
                .as_ref()
                .is_some_and(|code| *code != StopCode::EssentialContainerExited)
        })
    }

    fn task(&self, arn: &TaskArn, look: impl Fn(&Task) -> bool) -> bool {
        let mut ecs = locked(&self.ecs);
        ecs.pass(self.time.now());
        ecs.tasks()
            .find(|shown| shown.task.task_arn == *arn)
            .is_some_and(|shown| look(&shown.task))
    }

    /// The task that an attempt started.
    fn task_of(&self, attempt: &str) -> Option<Task> {
        let ecs = locked(&self.ecs);
        ecs.tasks()
            .find(|shown| shown.task.started_by.as_deref() == Some(attempt))
            .map(|shown| shown.task.clone())
    }

    async fn store_has_no_end(&self, id: &ExecutionId) -> bool {
        self.store
            .load(id)
            .await
            .is_ok_and(|record| record.is_some_and(|record| record.end().is_none()))
    }

    async fn rerun_is_open(&self, group: &str) -> bool {
        let Ok(group) = group.parse() else {
            return false;
        };
        self.store
            .group_work::<GroupRerun>(&group)
            .await
            .is_ok_and(|rerun| rerun.is_some_and(|rerun| !rerun.progress.done))
    }

    fn is_at_rest(&self) -> bool {
        self.store.unfinished() == 0
            && self.fate.is_clear()
            && self.rules.all_users_are_done()
            && self.stream.is_read()
    }
}

/// The result of a simulation.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The broken rules: when, and how.
    pub broken: Vec<String>,
    /// The number of awaits at which a process could have died.
    pub awaits: u64,
    /// The duration, in virtual time.
    pub took: TimeDelta,
    /// The number of tasks started.
    pub tasks: usize,
    /// The story, if it was asked for: what each process did.
    pub story: Vec<String>,
}

/// Runs a plan to its end.
///
/// # Panics
/// When every process waits for another: a deadlock.
#[must_use]
pub fn run(plan: &LaunchPlan) -> Outcome {
    play(plan, false)
}

/// Like [`run`], with the story.
///
/// # Panics
/// As [`run`].
#[must_use]
pub fn tell(plan: &LaunchPlan) -> Outcome {
    play(plan, true)
}

fn play(plan: &LaunchPlan, told: bool) -> Outcome {
    let time = Virtual::new(start());
    let world = World::new(plan, &time, told);
    time.run(async move {
        world.rules.users_come(world.plan.errands.len());
        lambda::start(&world);
        users::start(&world);
        stream::start(&world);
        world.time.spawn(change_quotas(Arc::clone(&world)));
        while !world.is_at_rest() && world.time.now() < start() + GIVE_UP {
            world.time.sleep(TimeDelta::seconds(5)).await;
        }
        let took = world.time.now() - start();
        world.time.sleep(AFTERWARDS).await;
        world.rules.at_rest(&world);
        let tasks = locked(&world.ecs).tasks().count();
        Outcome {
            broken: world.rules.broken(),
            awaits: world.fate.awaits(),
            took,
            tasks,
            story: world.story.lines(),
        }
    })
}

async fn change_quotas(world: Arc<World>) {
    let mut changes = world.plan.quotas.clone();
    changes.sort_by_key(|(at, ..)| *at);
    for (at, kind, vcpus) in changes {
        world.time.sleep(start() + at - world.time.now()).await;
        world
            .story
            .tell("AWS", || format!("{kind:?}: {vcpus} vCPUs from now on"));
        locked(&world.ecs).set_quota(kind, VcpuQuota::applied(vcpus), world.time.now());
    }
}
