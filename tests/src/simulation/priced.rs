//! The price of runs. The handlers are the real ones and so is the store, on an emulator of
//! DynamoDB that tells what each call costs. All else is on virtual time, so the figures do not
//! depend on how fast this machine is.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws::dynamo::DynamoStore;
use aws_sdk_dynamodb::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeSerializationInterceptorContextRef, FinalizerInterceptorContextRef},
    },
    error::BoxError,
};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    announcement::Announcement,
    id::ExecutionId,
    ports::{Announcer, Clock, PortError},
};
use pipeline::{announce::announce, statistics};
use tracing_subscriber::{
    Layer as _, filter::LevelFilter, fmt::MakeWriter, layer::SubscriberExt as _,
};

use super::{
    GIVE_UP, Invocations, LaunchPlan, World, drive,
    script::locked,
    start,
    time::{Outside, Time as _, Virtual},
    way::OnDynamo,
};
use crate::{
    ecs::{Ecs, port::InProcess},
    measured,
    meter::{self, Calls, FUNCTION, Meter, Spent},
    price,
    table::Table,
};

/// How often Lambda polls each shard of a table's stream, and how many records it takes at most, as
/// in the template (Lambda Developer Guide, "Polling and batching streams").
const STREAM: (TimeDelta, usize) = (TimeDelta::milliseconds(250), 10);
/// How long Lambda collects the ends of each shard that are to be counted, and how many it takes at
/// most, as in the template.
const TO_COUNT: (TimeDelta, usize) = (TimeDelta::seconds(300), 1_000);
/// The shards of a new table's stream: one for each of its four partitions (AWS-FACTS §6).
const SHARDS: usize = 4;
/// How long a call of DynamoDB takes. Our choice: some milliseconds are usual. Calls at the same
/// time count one after the other, so functions are rather faster than this.
const CALL_SECONDS: f64 = 0.005;
/// How much of a function's time is its own. Our choice.
const OWN_SECONDS: f64 = 0.002;
/// How many calls the submit function makes at the same time.
const SUBMITTING: f64 = 32.0;
/// The memory of the functions in gigabytes, as in the template: submit's and the others'.
const MEMORY: [f64; 2] = [0.5, 0.25];
/// The runs of one request to the API, as the CLI sends them.
const REQUEST: f64 = 500.0;
/// The bytes of a line in the API's access log, by the template's format.
const ACCESS_LINE: f64 = 330.0;

/// The simulation's time in milliseconds, for the store. There is one such simulation in a process.
static NOW: AtomicI64 = AtomicI64::new(0);

fn now() -> Timestamp {
    Timestamp::from_timestamp_millis(NOW.load(Ordering::SeqCst)).unwrap_or_default()
}

/// Whether somebody listens to the ends of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A rule of the event bus takes them.
    Rule,
    /// Nobody does.
    Nobody,
}

/// The usage of all runs of a plan.
#[derive(Debug)]
pub struct Priced {
    /// How many runs there were.
    pub runs: f64,
    /// From the submission to the end of the last run.
    pub makespan: TimeDelta,
    /// The calls of DynamoDB.
    pub calls: Calls,
    /// The invocations of functions.
    pub invocations: Invocations,
    /// The requests of SQS.
    pub sqs: f64,
    /// The events that were published.
    pub events: f64,
    /// The bytes that the functions logged.
    pub log_bytes: f64,
    /// The bytes that are kept in the table.
    pub kept: f64,
}

impl Priced {
    /// The bill as a table, and its sum in US$ for a million runs.
    #[must_use]
    pub fn bill(&self) -> (String, f64) {
        let sum = |of: fn(&Spent) -> f64| self.calls.values().map(of).sum::<f64>();
        let requests = (self.runs / REQUEST).ceil();
        let invocations: f64 = self
            .invocations
            .values()
            .map(|(count, _)| f64::from(*count))
            .sum();
        let items = [
            (
                "DynamoDB write units",
                sum(|spent| spent.writes),
                price::WRITES,
            ),
            (
                "DynamoDB read units",
                sum(|spent| spent.reads),
                price::READS,
            ),
            ("SQS requests", self.sqs, price::SQS),
            ("Lambda requests", invocations + requests, price::LAMBDA),
            (
                "Lambda GB-seconds",
                self.lambda_time(invocations),
                price::LAMBDA_TIME,
            ),
            ("API Gateway requests", requests, price::GATEWAY),
            ("EventBridge events", self.events, price::EVENTS),
            (
                "CloudWatch Logs, bytes taken in",
                self.log_bytes + requests * ACCESS_LINE,
                price::LOGS,
            ),
            (
                "DynamoDB, bytes kept for 90 days",
                self.kept,
                price::STORAGE,
            ),
        ];
        price::bill(&items, self.runs)
    }

    /// The calls of DynamoDB for each run as a table, by the function that made them.
    #[must_use]
    pub fn by_call(&self) -> String {
        let mut table = String::from(
            "| invoked by | call | calls | write units | read units |\n|---|---|---|---|---|\n",
        );
        for ((function, call), spent) in &self.calls {
            let [calls, writes, reads] =
                [float(spent.calls), spent.writes, spent.reads].map(|count| count / self.runs);
            let _infallible = writeln!(
                table,
                "| {function} | {call} | {calls:.2} | {writes:.2} | {reads:.2} |"
            );
        }
        table
    }

    /// The write units of a run.
    #[must_use]
    pub fn writes(&self) -> f64 {
        self.calls.values().map(|spent| spent.writes).sum::<f64>() / self.runs
    }

    fn lambda_time(&self, invocations: f64) -> f64 {
        let calls = |is_submit: bool| -> f64 {
            let theirs = self
                .calls
                .iter()
                .filter(|((function, _), _)| (*function == SUBMIT) == is_submit);
            theirs.map(|(_, spent)| float(spent.calls)).sum()
        };
        let virtual_time: f64 = self
            .invocations
            .values()
            .map(|(_, time)| time.as_seconds_f64())
            .sum();
        let others = virtual_time + calls(false) * CALL_SECONDS + invocations * OWN_SECONDS;
        calls(true) * CALL_SECONDS / SUBMITTING * MEMORY[0] + others * MEMORY[1]
    }
}

/// The function that has no invocations of its own here.
const SUBMIT: &str = "submit";

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

/// Tells virtual time of the calls that are under way.
#[derive(Clone, Debug)]
struct UnderWay(Outside);

impl Intercept for UnderWay {
    fn name(&self) -> &'static str {
        "under way"
    }

    fn read_before_execution(
        &self,
        _context: &BeforeSerializationInterceptorContextRef<'_>,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.begin();
        Ok(())
    }

    fn read_after_execution(
        &self,
        _context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.end();
        Ok(())
    }
}

/// Counts what is published.
struct Bus {
    audience: Audience,
    events: AtomicUsize,
}

impl Announcer for Bus {
    async fn is_heard(&self) -> Result<bool, PortError> {
        Ok(self.audience == Audience::Rule)
    }

    async fn announce(&self, announcements: &[Announcement]) -> Result<(), PortError> {
        self.events.fetch_add(announcements.len(), Ordering::SeqCst);
        Ok(())
    }
}

/// The bytes and the lines of a log.
#[derive(Clone, Debug, Default)]
struct LogSize(Arc<Mutex<f64>>);

impl std::io::Write for LogSize {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        *locked(&self.0) += float(line.len());
        if line.ends_with(b"\n") {
            *locked(&self.0) += price::LOG_EVENT_OVERHEAD;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogSize {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Runs a plan to its end. Each of its runs must end by its first attempt.
///
/// # Panics
/// When the emulator cannot be used, or the runs do not end.
#[must_use]
pub fn run(plan: &LaunchPlan, audience: Audience) -> Priced {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("{error}"));
    // The table is removed within the runtime, too.
    let _entered = runtime.enter();
    let (table, time) = (runtime.block_on(Table::create()), Virtual::new(start()));
    NOW.store(start().timestamp_millis(), Ordering::SeqCst);
    let (meter, size) = (Meter::default(), LogSize::default());
    let config = meter.attach(&table.client).config().to_builder();
    let client = Client::from_conf(config.interceptor(UnderWay(time.outside())).build());
    let store = DynamoStore::new(client, &table.name, 90)
        .with_clock(now)
        .settling(Duration::ZERO);
    let of_functions = logging::json(size.clone())
        .with_filter(logging::filter(LevelFilter::INFO, LevelFilter::WARN));
    let _logged =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(of_functions));
    let _measured = measured::on_this_thread();
    let ecs = Arc::new(Mutex::new(Ecs::new(plan.account.clone())));
    let port = InProcess::new(Arc::clone(&ecs), time.clone());
    let world = World::<OnDynamo>::new(plan, &time, store, ecs, port.clone(), port);
    let bus = Arc::new(Bus {
        audience,
        events: AtomicUsize::new(0),
    });
    time.spawn(drive::look_for_events(Arc::clone(&world)));
    time.spawn(follow(time.clone()));
    time.spawn(read_stream(Arc::clone(&world), Arc::clone(&bus)));
    let counted = Arc::new(AtomicUsize::new(0));
    time.spawn(count_all(Arc::clone(&world), Arc::clone(&counted)));
    let count: usize = plan.submissions.iter().map(|one| one.count).sum();
    let (there, plan) = (Arc::clone(&world), plan.clone());
    let makespan = time.run(async move {
        FUNCTION.scope(SUBMIT, there.begin(&plan)).await;
        while locked(&there.freed).len() < count {
            assert!(there.clock.now() < start() + GIVE_UP, "not all runs end");
            there.clock.sleep(TimeDelta::seconds(1)).await;
        }
        let makespan = there.clock.now() - start();
        // Time for the work that follows from the last end, and at most one sweep.
        there.clock.sleep(TimeDelta::seconds(30)).await;
        count_ends(&there, &counted).await;
        makespan
    });
    let metrics = locked(&world.metrics);
    let log_bytes = *locked(&size.0)
        + float(metrics.len())
        + float(metrics.lines().count()) * price::LOG_EVENT_OVERHEAD;
    drop(metrics);
    Priced {
        runs: float(count),
        makespan,
        calls: meter.take_calls(),
        invocations: locked(&world.invocations).clone(),
        sqs: float(usize::try_from(world.queue.requests()).unwrap_or(usize::MAX)),
        events: float(bus.events.load(Ordering::SeqCst)),
        log_bytes,
        kept: runtime.block_on(meter::kept(&table.client, &table.name)),
    }
}

/// Keeps the store's clock near the simulation's.
async fn follow(time: Virtual) {
    loop {
        NOW.store(time.now().timestamp_millis(), Ordering::SeqCst);
        time.sleep(TimeDelta::milliseconds(200)).await;
    }
}

/// The table's stream: the ends, to the function that counts them.
async fn count_all(world: Arc<World<OnDynamo>>, counted: Arc<AtomicUsize>) {
    loop {
        world.clock.sleep(TO_COUNT.0).await;
        count_ends(&world, &counted).await;
    }
}

/// Counts the ends that are not counted yet.
async fn count_ends(world: &World<OnDynamo>, counted: &AtomicUsize) {
    let mut shards = vec![Vec::new(); SHARDS];
    {
        let freed = locked(&world.freed);
        let new = counted.swap(freed.len(), Ordering::SeqCst)..freed.len();
        new.for_each(|at| shards[at % SHARDS].push(freed[at].1.clone()));
    }
    for batch in shards.iter().flat_map(|ids| ids.chunks(TO_COUNT.1)) {
        let work = statistics::count(&world.store, world.clock.now(), batch);
        let counted = world.invoke("ends to count", work).await;
        counted.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The table's stream: each end, to the function that announces it.
async fn read_stream(world: Arc<World<OnDynamo>>, bus: Arc<Bus>) {
    let (mut seen, mut waiting) = (0, HashMap::<usize, Vec<ExecutionId>>::new());
    loop {
        world.clock.sleep(STREAM.0).await;
        let new: Vec<_> = locked(&world.freed)[seen..]
            .iter()
            .map(|(_, id)| id.clone())
            .collect();
        for id in new {
            waiting.entry(seen % SHARDS).or_default().push(id);
            seen += 1;
        }
        for ids in waiting.values_mut().filter(|ids| !ids.is_empty()) {
            let batch: Vec<_> = ids.drain(..ids.len().min(STREAM.1)).collect();
            let (world, bus) = (Arc::clone(&world), Arc::clone(&bus));
            let clock = world.clock.clone();
            clock.spawn(async move {
                let work = announce(&world.store, &*bus, batch);
                let announced = world.invoke("ends in the table's stream", work).await;
                announced.unwrap_or_else(|error| panic!("{error}"));
            });
        }
    }
}
