//! Launchers side by side: eight warm functions over one store. Their clock stands still until all
//! due work is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use aws_lambda_events::sqs::SqsEvent;
use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::{RunTaskInput, Task, TaskArn},
    execution::{Execution, State},
    git::{GIT_SSH_KEY, GIT_TOKEN},
    id::{AttemptId, ExecutionId},
    key::Role,
    limit::CapacityPool,
    message::{Message, Outgoing},
    ports::{
        Clock, Definitions, Described, Entropy, LaunchError, LogLine, LogPage, Logs, PortError,
        Queue, ReadError, ReadStore, Secrets, Tasks, WriteStore,
    },
    quota::{DEFINITIONS_RATE, Quota, Rate},
    request::{Artifacts, ArtifactsOn, CommandLine, Defaults, Place, Source},
    secret::SecretRecord,
    settings::{ArtifactSettings, Settings},
    task::TaskDefinition,
};
use futures_util::FutureExt as _;
use pipeline::{
    definitions::Registered,
    launcher::{Heads, Launcher, Pace},
};
use serde_json::json;
use tests::Store;
use tests::memory::MemoryStore;
use tokio::task::JoinSet;

use crate::contract::records::{CPU, POOL, Wish, at, launch, settings, stopped};

const LAUNCHERS: usize = 8;
/// The most messages per invocation: SQS's default (AWS-FACTS §5).
const BATCH: usize = 10;

/// A clock that is set by the test, and a source of numbers that never repeat.
#[derive(Debug, Default)]
struct VirtualSystem {
    millis: AtomicI64,
    number: AtomicU64,
    /// Whether the clock moves while somebody sleeps. It is for a single launcher.
    goes: AtomicBool,
}

impl Clock for VirtualSystem {
    fn now(&self) -> Timestamp {
        at(self.millis.load(Ordering::SeqCst))
    }

    /// The clock stands still, unless `goes` is set, but other tasks make progress.
    async fn sleep(&self, time: TimeDelta) {
        if self.goes.load(Ordering::SeqCst) {
            self.millis
                .fetch_add(time.num_milliseconds(), Ordering::SeqCst);
        }
        tokio::task::yield_now().await;
    }
}

impl Entropy for VirtualSystem {
    fn bits(&self) -> u128 {
        self.number.fetch_add(1, Ordering::SeqCst).into()
    }
}

/// Both queues.
#[derive(Debug)]
struct Mail {
    system: Arc<VirtualSystem>,
    messages: Mutex<Vec<(Timestamp, Message)>>,
}

impl Queue for Mail {
    async fn send(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        let due = |delay: u32| self.system.now() + TimeDelta::seconds(delay.into());
        let stamped = messages
            .into_iter()
            .map(|outgoing| (due(outgoing.delay_seconds), outgoing.message));
        self.messages.lock().unwrap().extend(stamped);
        Ok(())
    }
}

impl Mail {
    /// Takes the due messages, at most this many.
    fn due(&self, most: usize) -> Vec<Message> {
        let (now, mut messages) = (self.system.now(), self.messages.lock().unwrap());
        let (mut due, later): (Vec<_>, Vec<_>) = mem::take(&mut *messages)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        *messages = due.split_off(due.len().min(most));
        messages.extend(later);
        due.into_iter().map(|(_, message)| message).collect()
    }

    /// Sets the clock to when the next message is due. `false` if there is none.
    fn wait(&self) -> bool {
        let next = self
            .messages
            .lock()
            .unwrap()
            .iter()
            .map(|(at, _)| *at)
            .min();
        let millis = next.map(|next| (next - at(0)).num_milliseconds());
        millis
            .inspect(|millis| _ = self.system.millis.fetch_max(*millis, Ordering::SeqCst))
            .is_some()
    }
}

/// ECS: its task definitions, and when each was registered.
#[derive(Debug)]
struct Ecs {
    system: Arc<VirtualSystem>,
    registrations: Mutex<Vec<(Timestamp, String)>>,
    gone: Mutex<BTreeSet<String>>,
    started: Mutex<BTreeMap<String, usize>>,
    inputs: Mutex<Vec<RunTaskInput>>,
}

impl Ecs {
    /// The call that launched an execution.
    fn launch_of(&self, execution: &Execution) -> RunTaskInput {
        let inputs = self.inputs.lock().unwrap();
        let is_its_own =
            |input: &&RunTaskInput| input.started_by.starts_with(execution.id.as_str());
        inputs.iter().find(is_its_own).unwrap().clone()
    }

    fn registered(&self) -> Vec<Timestamp> {
        self.registrations
            .lock()
            .unwrap()
            .iter()
            .map(|(at, _)| *at)
            .collect()
    }

    /// Deregisters all definitions, as somebody else might.
    fn forget(&self) {
        let known = self.registrations.lock().unwrap();
        self.gone
            .lock()
            .unwrap()
            .extend(known.iter().map(|(_, arn)| arn.clone()));
    }
}

impl Tasks for Ecs {
    async fn register_definition(
        &self,
        definition: &TaskDefinition,
    ) -> Result<String, LaunchError> {
        // The other launchers make progress meanwhile.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let mut known = self.registrations.lock().unwrap();
        let arn = format!(
            "arn:aws:ecs:x:1:task-definition/{}:{}",
            definition.content_hash(),
            known.len() + 1
        );
        known.push((self.system.now(), arn.clone()));
        Ok(arn)
    }

    async fn run_task(&self, input: &RunTaskInput) -> Result<Task, LaunchError> {
        let known = self
            .registrations
            .lock()
            .unwrap()
            .iter()
            .any(|(_, arn)| *arn == input.task_definition);
        if !known || self.gone.lock().unwrap().contains(&input.task_definition) {
            return Err(LaunchError::NoDefinition(
                "TaskDefinition is inactive".into(),
            ));
        }
        self.inputs.lock().unwrap().push(input.clone());
        *self
            .started
            .lock()
            .unwrap()
            .entry(input.started_by.clone())
            .or_default() += 1;
        Ok(Task {
            task_arn: format!("arn:aws:ecs:x:1:task/cluster/{}", input.started_by).into(),
            last_status: "PROVISIONING".into(),
            started_by: Some(input.started_by.clone()),
            version: 1,
            ..Task::default()
        })
    }

    async fn stop_task(&self, task_arn: &TaskArn, _reason: &str) -> Result<(), PortError> {
        panic!("nobody stops {task_arn} here");
    }

    async fn describe_tasks(&self, _task_arns: &[TaskArn]) -> Result<Described, PortError> {
        Ok(Described::default())
    }

    async fn list_tasks(&self, _started_by: &AttemptId) -> Result<Vec<TaskArn>, PortError> {
        Ok(Vec::new())
    }
}

/// No logs. Of git's secrets one record is spoilt and one is for administrators.
#[derive(Debug)]
struct Nothing;

impl Logs for Nothing {
    async fn read(&self, _stream: &str, _cursor: Option<&str>) -> Result<LogPage, ReadError> {
        Ok(LogPage::default())
    }

    async fn last(&self, _stream: &str) -> Result<Vec<LogLine>, ReadError> {
        Ok(Vec::new())
    }
}

impl Secrets for Nothing {
    /// The record of the git token cannot be read.
    async fn find_secret(&self, name: &str) -> Result<Option<SecretRecord>, PortError> {
        match name {
            GIT_TOKEN => Err(PortError::corrupt(
                "the record of the secret GIT_TOKEN",
                "it was spoilt by a test",
            )),
            GIT_SSH_KEY => Ok(Some(SecretRecord {
                name: name.into(),
                role: Role::Admin,
                set_at: None,
                hosts: Vec::new(),
            })),
            _ => Ok(None),
        }
    }

    fn how_to_set(&self, _name: &str) -> String {
        String::new()
    }
}

struct World<S> {
    store: S,
    system: Arc<VirtualSystem>,
    mail: Mail,
    ecs: Ecs,
    settings: Settings,
    memories: [Registered; LAUNCHERS],
    pace: Pace,
    heads: [Heads; LAUNCHERS],
    submitted: AtomicU64,
}

impl<S: Store + Definitions + 'static> World<S> {
    fn of(store: S) -> Arc<Self> {
        Self::with(
            store,
            Settings {
                definitions_rate: Some(DEFINITIONS_RATE),
                ..settings()
            },
        )
    }

    fn with(store: S, settings: Settings) -> Arc<Self> {
        let system = Arc::new(VirtualSystem::default());
        let mail = Mail {
            system: Arc::clone(&system),
            messages: Mutex::default(),
        };
        let ecs = Ecs {
            system: Arc::clone(&system),
            registrations: Mutex::default(),
            gone: Mutex::default(),
            started: Mutex::default(),
            inputs: Mutex::default(),
        };
        let (memories, pace, submitted) =
            (Default::default(), Pace::default(), AtomicU64::default());
        Arc::new(Self {
            store,
            system,
            mail,
            ecs,
            settings,
            memories,
            pace,
            heads: Default::default(),
            submitted,
        })
    }

    /// Submits this many executions at once. Their tasks need this many different definitions.
    async fn submit(&self, count: usize, contents: usize) -> Vec<ExecutionId> {
        let mut ids = Vec::new();
        for number in 0..count {
            let entropy = self.submitted.fetch_add(1, Ordering::SeqCst).into();
            let image = Some(format!("tool:{}", number % contents));
            let id = Wish {
                entropy,
                image,
                ..Wish::default()
            }
            .submit(&self.store)
            .await
            .id;
            let wakeup = Message::Wakeup {
                backlog: POOL,
                id: Some(id.clone()),
            };
            self.mail.send(vec![wakeup.into()]).await.unwrap();
            ids.push(id);
        }
        ids
    }

    /// Handles a batch in one launcher, with the memory of this function.
    async fn launch(&self, number: usize, messages: &[Message]) {
        let launcher = Launcher {
            store: &self.store,
            queue: &self.mail,
            tasks: &self.ecs,
            logs: &Nothing,
            secrets: &Nothing,
            registered: &self.memories[number],
            pace: &self.pace,
            heads: &self.heads[number],
            system: &*self.system,
            settings: &self.settings,
        };
        let record = |(number, message): (usize, &Message)| json!({"messageId": number.to_string(), "body": serde_json::to_string(message).unwrap()});
        let records: Vec<_> = messages.iter().enumerate().map(record).collect();
        let event: SqsEvent = serde_json::from_value(json!({"Records": records})).unwrap();
        // A busy store may fail a message, which SQS then delivers again.
        for failed in launcher.handle(event).await.batch_item_failures {
            let number: usize = failed.item_identifier.parse().unwrap();
            self.mail
                .send(vec![messages[number].clone().into()])
                .await
                .unwrap();
        }
    }

    /// Runs all launchers at once, until nothing is due at this moment.
    async fn work(self: &Arc<Self>) {
        loop {
            let due = self.mail.due(LAUNCHERS * BATCH);
            if due.is_empty() {
                return;
            }
            let mut busy = JoinSet::new();
            for (number, messages) in due.chunks(BATCH).enumerate() {
                let (world, messages) = (Arc::clone(self), messages.to_vec());
                busy.spawn(async move { world.launch(number, &messages).await });
            }
            busy.join_all().await;
        }
    }

    /// Runs all launchers at once, until there is nothing more to do.
    async fn work_to_the_end(self: &Arc<Self>) {
        self.work().await;
        while self.mail.wait() {
            self.work().await;
        }
    }

    async fn load(&self, ids: &[ExecutionId]) -> Vec<Execution> {
        let mut executions = Vec::new();
        for id in ids {
            executions.push(self.store.load(id).await.unwrap().unwrap());
        }
        executions
    }

    /// Asserts that each of these was started once.
    async fn all_started_once(&self, ids: &[ExecutionId]) {
        let started = self.ecs.started.lock().unwrap().clone();
        for execution in self.load(ids).await {
            assert_eq!(
                started.get(&execution.id.attempt(1).to_string()),
                Some(&1),
                "{execution:#?}"
            );
            assert!(
                execution.attempts.len() == 1 && execution.attempts[0].task_arn.is_some(),
                "{execution:#?}"
            );
        }
    }
}

/// The reasons of the executions that wait. All others must have been started.
fn who_waits(executions: &[Execution]) -> Vec<&str> {
    let mut reasons = Vec::new();
    for execution in executions {
        match &execution.state {
            State::Waiting { reason, .. } => reasons.push(reason.as_str()),
            state => assert!(
                execution.open_attempt().is_some(),
                "{} is {state:?}",
                execution.id
            ),
        }
    }
    assert!(
        reasons
            .iter()
            .all(|reason| reason.contains("task definition must be")),
        "{reasons:#?}"
    );
    reasons
}

/// Asserts that at no moment there are more registrations than the bucket allows: its burst plus
/// the tokens that came back since.
fn within_the_rate(registered: &[Timestamp]) {
    for (number, at_that_time) in (1_u32..).zip(registered) {
        #[expect(clippy::cast_precision_loss, reason = "seconds of a test")]
        let seconds = (*at_that_time - at(0)).num_milliseconds() as f64 / 1000.0;
        let most = DEFINITIONS_RATE.burst + seconds * DEFINITIONS_RATE.per_second;
        assert!(
            f64::from(number) <= most,
            "{number} after {seconds} s: {registered:#?}"
        );
    }
}

async fn each_content_is_registered_once<S: Store + Definitions + 'static>(store: S, each: usize) {
    let world = World::of(store);
    let ids = world.submit(LAUNCHERS * each, 3).await;
    world.work().await;
    who_waits(&world.load(&ids).await);
    world.work_to_the_end().await;
    world.all_started_once(&ids).await;
    assert_eq!(world.ecs.registered().len(), 3, "{:#?}", world.ecs);
    // Later executions find the definitions.
    let more = world.submit(LAUNCHERS, 3).await;
    world.work().await;
    world.all_started_once(&more).await;
    assert_eq!(world.ecs.registered().len(), 3);
}

async fn registrations_keep_to_ecs_rate<S: Store + Definitions + 'static>(
    store: S,
    contents: usize,
) {
    let world = World::of(store);
    let ids = world.submit(contents * 2, contents).await;
    world.work().await;
    let waiting = world.load(&ids).await;
    let reasons = who_waits(&waiting);
    let held_by_rate = reasons
        .iter()
        .filter(|reason| reason.contains("ECS accepts 1 a second"))
        .count();
    assert!(held_by_rate >= contents - 20, "{reasons:#?}");
    world.work_to_the_end().await;
    world.all_started_once(&ids).await;
    let registered = world.ecs.registered();
    assert_eq!(registered.len(), contents);
    within_the_rate(&registered);
    let (last, soonest) = (
        *registered.last().unwrap(),
        i64::try_from(contents - 20).unwrap(),
    );
    assert!(
        last <= at(3_000 * soonest),
        "the rate is used, not only kept to: {registered:#?}"
    );
}

async fn what_is_gone_is_registered_once_more<S: Store + Definitions + 'static>(
    store: S,
    each: usize,
) {
    let world = World::of(store);
    let ids = world.submit(LAUNCHERS * each, 2).await;
    world.work_to_the_end().await;
    world.all_started_once(&ids).await;
    world.ecs.forget();
    // Each launcher remembers definitions that no longer exist.
    let more = world.submit(LAUNCHERS * each, 2).await;
    world.work_to_the_end().await;
    world.all_started_once(&more).await;
    assert_eq!(world.ecs.registered().len(), 4, "{:#?}", world.ecs);
}

/// Each execution was once put off for a second at a time until its definition had its turn. The
/// more there were, the more often each was looked at.
#[tokio::test]
async fn who_waits_for_a_definition_is_not_looked_at_again_and_again() {
    let store = MemoryStore::default();
    let world = World::of(store.clone());
    let ids = world.submit(200, 200).await;
    world.work_to_the_end().await;
    world.all_started_once(&ids).await;
    let registered = world.ecs.registered();
    within_the_rate(&registered);
    assert!(
        *registered.last().unwrap() <= at(1_500 * 180),
        "the rate is used, not only kept to: {registered:#?}"
    );
    let updates = store.meter().calls["update"];
    assert!(
        updates <= 15 * 200,
        "{updates} changes besides the launches of 200"
    );
}

/// The slot is freed between the launcher's last look at a backlog and the clearing of its watch
/// flag. The process that freed it woke nobody.
#[tokio::test]
async fn what_comes_back_while_a_launcher_leaves_a_backlog_is_started() {
    let store = MemoryStore::default();
    let quotas = [CapacityPool::Machine]
        .map(|pool| {
            (
                pool,
                Quota {
                    cpu: Some(12 * CPU),
                    rate: None,
                },
            )
        })
        .into();
    let run_task_rate = Some(Rate {
        burst: 100.0,
        per_second: 100.0,
    });
    let world = World::with(
        store.clone(),
        Settings {
            run_task_rate,
            quotas,
            // Where wakeups are messages, a fast backlog is watched.
            defaults: Defaults {
                place: Place::Aws,
                ..settings().defaults
            },
            ..settings()
        },
    );
    world.system.goes.store(true, Ordering::SeqCst);
    let other = launch(
        &store,
        &Wish {
            entropy: 1_000,
            ..Wish::default()
        }
        .submit(&store)
        .await,
    )
    .await;
    let ids = world.submit(12, 1).await;
    // The launcher watches the backlog, waits for more, and leaves.
    store.interrupt("set_limit_state", 1, move |store| {
        let ended = store.update(&other, stopped(&other, 0), &[]).now_or_never();
        ended
            .expect("it answers at once")
            .expect("nobody else writes it");
    });
    let messages = world.mail.due(BATCH);
    world.launch(0, &messages).await;
    assert_eq!(world.store.usage(&POOL).await.unwrap().used, 12 * CPU);
    world.all_started_once(&ids).await;
}

/// A pool of one machine with room for so many of the smallest tasks.
fn with_slots(slots: u32) -> Settings {
    let quota = Quota {
        cpu: Some(slots * CPU),
        rate: None,
    };
    Settings {
        quotas: [(CapacityPool::Machine, quota)].into(),
        definitions_rate: Some(DEFINITIONS_RATE),
        ..settings()
    }
}

/// ECS refuses a launch whose definition is gone, and that gives its slot back without a wakeup. The
/// launcher must not take the pool for full after such a round.
#[tokio::test]
async fn slots_of_launches_that_were_refused_are_used_by_the_next_entries() {
    let world = World::with(MemoryStore::default(), with_slots(4));
    let first = world.submit(2, 1).await;
    world.work_to_the_end().await;
    world.all_started_once(&first).await;
    world.ecs.forget();
    let more = world.submit(3, 1).await;
    world.work_to_the_end().await;
    world.all_started_once(&more[..2]).await;
}

/// A launcher knows that the pool is full once its launches have filled it.
#[tokio::test]
async fn a_launcher_that_has_filled_a_pool_does_not_look_at_it_again() {
    let store = MemoryStore::default();
    let world = World::with(store.clone(), with_slots(2));
    let ids = world.submit(4, 1).await;
    let messages = world.mail.due(BATCH);
    world.launch(0, &messages).await;
    world.all_started_once(&ids[..2]).await;
    assert_eq!(store.meter().calls["backlog"], 1);
    let State::Waiting { reason, .. } = &world.load(&ids).await[2].state else {
        panic!("the pool has no third slot");
    };
    assert!(
        reason.contains("2 of 2") || reason.contains("in use"),
        "{reason}"
    );
}

/// Makes a test of each rule over the stores of both worlds, with a count for each store.
macro_rules! over_both_stores {
    ($($name:ident: $check:ident, $local:literal, $dynamo:literal;)*) => {
        mod on_one_machine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let (store, _outlives_it) = crate::contract::local::fresh_store().await;
                    super::$check(store, $local).await;
                }
            )*
        }

        mod in_dynamodb {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let (store, _outlives_it) = crate::contract::dynamo::fresh_store().await;
                    super::$check(store, $dynamo).await;
                }
            )*
        }
    };
}

// One machine's store is the faster one.
over_both_stores! {
    many_runs_with_three_contents_register_three: each_content_is_registered_once, 40, 10;
    more_contents_than_the_burst_keep_to_the_rate: registrations_keep_to_ecs_rate, 30, 24;
    what_was_deregistered_is_registered_once_more_by_whoever_notices: what_is_gone_is_registered_once_more, 10, 5;
}

/// There are more unreadable records than a round looks at. The executions behind them still start,
/// and no wakeup for an unreadable record is left.
#[tokio::test]
async fn records_that_are_unreadable_hide_nobody_behind_them() {
    let store = MemoryStore::default();
    let world = World::with(store.clone(), settings());
    let unreadable = world.submit(60, 1).await;
    let behind = world.submit(3, 1).await;
    unreadable.iter().for_each(|id| store.spoil(id));
    world
        .mail
        .send(vec![
            Message::Check {
                id: unreadable[0].clone(),
            }
            .into(),
        ])
        .await
        .unwrap();
    world.work().await;
    world.all_started_once(&behind).await;
    assert_eq!(
        world.ecs.started.lock().unwrap().len(),
        behind.len(),
        "none of the others was started on a guess"
    );
    assert!(
        !world.mail.wait(),
        "no message about them comes again and again"
    );
}

/// Executions that come to a backlog without room get the reason why they wait.
#[tokio::test]
async fn a_newcomer_that_is_unreadable_hides_nobody_where_a_backlog_is_held() {
    let store = MemoryStore::default();
    let quotas = [CapacityPool::Machine]
        .map(|pool| {
            (
                pool,
                Quota {
                    cpu: Some(CPU),
                    rate: None,
                },
            )
        })
        .into();
    let world = World::with(
        store.clone(),
        Settings {
            quotas,
            ..settings()
        },
    );
    let first = world.submit(1, 1).await;
    world.work().await;
    world.all_started_once(&first).await;
    let newcomers = world.submit(3, 1).await;
    store.spoil(&newcomers[0]);
    world.work().await;
    for execution in world.load(&newcomers[1..]).await {
        assert!(
            matches!(execution.state, State::Waiting { .. }),
            "{execution:#?}"
        );
    }
    assert!(
        !world.mail.wait(),
        "no message about it comes again and again"
    );
}

/// It holds back the executions that need it, and they show the reason.
#[tokio::test]
async fn a_secret_that_is_unreadable_holds_up_nobody_who_needs_it_not() {
    let world = World::with(MemoryStore::default(), settings());
    let mut needs_it = Wish {
        entropy: 1_000,
        ..Wish::default()
    }
    .execution();
    let repo = "https://github.com/acme/infra".parse().unwrap();
    needs_it.request.source = Some(Source::new(repo, None));
    world.store.create(&needs_it, None).await.unwrap();
    let others = world.submit(3, 1).await;
    world.work().await;
    world.all_started_once(&others).await;
    let held = world.load(&[needs_it.id]).await.remove(0);
    let State::Waiting { reason, .. } = &held.state else {
        panic!("{held:#?}")
    };
    assert!(
        reason.contains("the record of the secret GIT_TOKEN cannot be read"),
        "{reason}"
    );
}

/// In an upgrade Lambda changes a function's code before its variables, and the address of the API
/// is one of those.
#[tokio::test]
async fn while_a_launcher_does_not_know_the_api_the_runs_that_call_it_wait() {
    let artifacts = Artifacts {
        globs: vec!["dist/**".parse().unwrap()],
        on: ArtifactsOn::default(),
    };
    let mut with_files = Wish {
        entropy: 1_000,
        ..Wish::default()
    }
    .execution();
    with_files.request.artifacts = Some(artifacts);
    let mut large = Wish {
        entropy: 1_001,
        ..Wish::default()
    }
    .execution();
    large.request.command = CommandLine::Text(format!("true {}", "x".repeat(20_000)));
    let both = [with_files.id.clone(), large.id.clone()];
    let mut later = None;
    for api in [None, Some("https://api.test/prod".to_owned())] {
        let artifacts = Some(ArtifactSettings {
            retention_days: None,
            task_api_url: api.clone(),
        });
        let settings = Settings {
            artifacts,
            defaults: Defaults::aws(),
            ..settings()
        };
        let world = World::with(MemoryStore::default(), settings);
        for execution in [&with_files, &large] {
            world.store.create(execution, None).await.unwrap();
        }
        let others = world.submit(3, 1).await;
        world.work().await;
        world.all_started_once(&others).await;
        if api.is_some() {
            world.all_started_once(&both).await;
            later = Some(world);
            continue;
        }
        for held in world.load(&both).await {
            let State::Waiting { reason, .. } = &held.state else {
                panic!("{held:#?}")
            };
            assert!(reason.contains("is being upgraded"), "{reason}");
        }
    }
    let world = later.unwrap();
    for (execution, variable) in [(&with_files, "MYCLI_ARTIFACTS"), (&large, "MYCLI_REQUEST")] {
        let launch = world.ecs.launch_of(execution);
        let environment = &launch.overrides.container_overrides[0].environment;
        for name in [variable, "MYCLI_SECRET", "MYCLI_API"] {
            assert!(environment.iter().any(|pair| pair.name == name), "{name}");
        }
    }
}

/// A git key for administrators' runs only is withheld from the others, and their logs say so.
#[tokio::test]
async fn a_credential_for_administrators_is_given_to_their_runs_alone() {
    let world = World::with(MemoryStore::default(), settings());
    let submitted = |entropy, role| {
        let mut execution = Wish {
            entropy,
            ..Wish::default()
        }
        .execution();
        let repo = "git@github.com:acme/infra.git".parse().unwrap();
        execution.request.source = Some(Source::new(repo, None));
        execution.submitted_role = role;
        execution
    };
    let runs = [
        submitted(1, Some(Role::Admin)),
        submitted(2, Some(Role::Submit)),
        submitted(3, None),
    ];
    for execution in &runs {
        world.store.create(execution, None).await.unwrap();
    }
    world.submit(1, 1).await;
    world.work().await;
    let mut definitions = BTreeSet::new();
    for (execution, gets_it) in runs.iter().zip([true, false, false]) {
        let launch = world.ecs.launch_of(execution);
        let environment = &launch.overrides.container_overrides[0].environment;
        let note = environment
            .iter()
            .find(|pair| pair.name == "MYCLI_WITHOUT")
            .map(|pair| pair.value.as_str());
        let expected = "GIT_SSH_KEY is for runs that a key of role admin submits, so the clone does not use it";
        assert_eq!(note, (!gets_it).then_some(expected));
        definitions.insert((gets_it, launch.task_definition.clone()));
    }
    assert_eq!(
        definitions.len(),
        2,
        "one with the key and one without: {definitions:?}"
    );
}
