//! Many bulk lines of one submitter. Their backlog entries share one key of an index, and one key
//! takes 1,000 writes a second.
//!
//! Everything but DynamoDB and the network is real: the submit function with its store and the SDK,
//! and the command line's own rule of when to repeat a body. A process of the function needs no CPU
//! time here, so it sends more than a real one could.

use std::{cell::RefCell, collections::BTreeMap, pin::pin, rc::Rc, time::Duration};

use aws::dynamo::DynamoStore;
use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    api::{BULK_IN_FLIGHT, BULK_MAX, BulkAnswer},
    id::ExecutionId,
    message::QueueName,
    patience::{self, Patience, Setback},
    ports::{Clock, Entropy},
    request::Defaults,
    settings::Settings,
};
use futures_util::{
    future::{self, Either},
    stream::{self, StreamExt as _},
};
use pipeline::{auth::Auth, submit::Submit};
use serde_json::json;
use tests::{callers::caller, memory::MemoryQueue, random::Random, simulation::time::Virtual};

use crate::contract::records::{at, settings};

use table::Table;

mod table;

/// The lines of one submitter.
const LINES: usize = 10_000;
/// How long API Gateway waits for a function (AWS-FACTS §7).
const GATEWAY: TimeDelta = TimeDelta::seconds(29);

/// The clock, and numbers that are the same in each run.
#[derive(Debug)]
struct VirtualSystem {
    time: Virtual,
    random: std::sync::Mutex<Random>,
}

impl Clock for VirtualSystem {
    fn now(&self) -> Timestamp {
        self.time.now()
    }

    async fn sleep(&self, span: TimeDelta) {
        self.time.sleep(span).await;
    }
}

impl Entropy for VirtualSystem {
    fn bits(&self) -> u128 {
        u128::from(self.random.lock().unwrap().bits()) << 64
    }
}

/// A stack as its submitters see it.
struct Stack {
    time: Virtual,
    table: Table,
    queue: MemoryQueue<Virtual>,
    system: VirtualSystem,
    auth: Auth,
    settings: Settings,
    /// The function's processes that wait for an invocation.
    idle: RefCell<Vec<DynamoStore>>,
    answers: RefCell<BTreeMap<u16, usize>>,
}

/// The answers to a submitter, and their times.
#[derive(Debug, Default)]
struct Told {
    accepted: usize,
    existing: usize,
    runs: BTreeMap<u32, ExecutionId>,
    took: TimeDelta,
    /// The longest time that one body took.
    longest: TimeDelta,
}

impl Stack {
    fn new(time: &Virtual) -> Self {
        Self {
            time: time.clone(),
            table: Table::new(time.clone()),
            queue: MemoryQueue::new(time.clone()),
            system: VirtualSystem {
                time: time.clone(),
                random: Random::keyed(0, "hot key", 0).into(),
            },
            auth: Auth::default(),
            settings: Settings {
                defaults: Defaults::aws(),
                ..settings()
            },
            idle: RefCell::default(),
            answers: RefCell::default(),
        }
    }

    /// One invocation, by a warm process or a new one. An invocation that takes longer than the
    /// gateway waits is ended with its process.
    async fn invoke(&self, who: &str, body: &str) -> ApiGatewayProxyResponse {
        let new = || DynamoStore::new(self.table.client(), "mycli", 90).with_clock(|| at(0));
        let warm = self.idle.borrow_mut().pop();
        let store = warm.unwrap_or_else(new);
        let submit = Submit {
            store: &store,
            keys: &store,
            queue: &self.queue,
            secrets: &store,
            system: &self.system,
            auth: &self.auth,
            settings: &self.settings,
        };
        let mut request = ApiGatewayProxyRequest::default();
        request.http_method = reqwest::Method::POST;
        request.path = Some("/executions/bulk".to_owned());
        request.body = Some(body.to_owned());
        let caller = caller(who);
        let answer = pin!(submit.answer(&caller, &request));
        let answer = match future::select(answer, pin!(self.time.sleep(GATEWAY))).await {
            Either::Left((answer, _)) => {
                self.idle.borrow_mut().push(store.clone());
                answer
            }
            Either::Right(_) => {
                let mut late = ApiGatewayProxyResponse::default();
                late.status_code = 504;
                late
            }
        };
        *self
            .answers
            .borrow_mut()
            .entry(u16::try_from(answer.status_code).unwrap())
            .or_default() += 1;
        answer
    }

    /// Sends one body until it is accepted, as the command line does. Returns the answer and the
    /// time it took.
    async fn hand_in(&self, who: &str, body: String) -> (BulkAnswer, TimeDelta) {
        let begun = self.time.now();
        for tried in 1.. {
            let answer = self.invoke(who, &body).await;
            let spent = self.time.now() - begun;
            let status = u16::try_from(answer.status_code).unwrap();
            if !patience::is_passing(status) {
                assert_eq!(status, 202, "{:?}", answer.body);
                return (
                    serde_json::from_slice(answer.body.as_deref().unwrap()).unwrap(),
                    spent,
                );
            }
            let asked = answer
                .headers
                .get("retry-after")
                .map(|value| value.to_str().unwrap().parse().unwrap());
            let setback = Setback::NotNow(asked.map(Duration::from_secs));
            let chance = u32::try_from(self.system.bits() >> 96).unwrap();
            let pause = Patience::HandingIn.pause(tried, spent.to_std().unwrap(), setback, chance);
            let pause =
                pause.unwrap_or_else(|| panic!("{who} gives up after {tried} tries and {spent}"));
            self.time.sleep(TimeDelta::from_std(pause).unwrap()).await;
        }
        unreachable!("tries do not end")
    }

    /// Sends a batch, as `mycli bulk` does.
    async fn bulk(&self, batch: &Batch) -> Told {
        let (begun, id) = (self.time.now(), &batch.id);
        let line =
            |number: usize| json!({ "command": format!("python fold.py {number}"), "group": id });
        let numbers: Vec<_> = (0..batch.lines).collect();
        let body = |numbers: &[usize]| {
            let executions: Vec<_> = numbers.iter().map(|number| line(*number)).collect();
            json!({ "submission_id": id, "first_index": numbers[0], "executions": executions })
                .to_string()
        };
        let bodies: Vec<_> = numbers.chunks(BULK_MAX).map(body).collect();
        let handed_in = bodies.into_iter().map(|body| self.hand_in(batch.by, body));
        let mut answers = stream::iter(handed_in).buffer_unordered(BULK_IN_FLIGHT);
        let mut told = Told::default();
        while let Some((answer, took)) = answers.next().await {
            assert!(answer.rejected.is_empty(), "{:?}", answer.rejected);
            told.accepted += answer.accepted.len();
            told.existing += answer.existing.len();
            for entry in answer.accepted.into_iter().chain(answer.existing) {
                let twice = told.runs.insert(entry.index, entry.execution_id);
                assert_eq!(twice, None, "line {} was told of twice", entry.index);
            }
            told.longest = told.longest.max(took);
        }
        told.took = self.time.now() - begun;
        told
    }

    /// The number of answers with this status.
    fn answers(&self, status: u16) -> usize {
        self.answers
            .borrow()
            .get(&status)
            .copied()
            .unwrap_or_default()
    }
}

/// The input of one `mycli bulk`.
struct Batch {
    by: &'static str,
    id: String,
    lines: usize,
}

/// Sends all batches at once. Asserts that each line was reported once, with its own run, and that
/// there are no other runs. Returns the stack, and how long the last batch took.
#[expect(
    clippy::print_stdout,
    reason = "the figures are what the test is run for"
)]
fn play(batches: Vec<Batch>) -> (Rc<Stack>, f64) {
    // The SDK draws its pauses from this source.
    fastrand::seed(0);
    let time = Virtual::new(at(0));
    let stack = Rc::new(Stack::new(&time));
    let (there, batches) = (Rc::clone(&stack), Rc::new(batches));
    let handed_in = Rc::clone(&batches);
    let all =
        time.run(
            async move { future::join_all(handed_in.iter().map(|batch| there.bulk(batch))).await },
        );
    for (batch, told) in batches.iter().zip(&all) {
        assert!(
            told.runs
                .keys()
                .copied()
                .eq(0..u32::try_from(batch.lines).unwrap()),
            "each line is told of"
        );
    }
    let mut runs: Vec<_> = all
        .iter()
        .flat_map(|told| told.runs.values())
        .map(ToString::to_string)
        .collect();
    runs.sort();
    let states = stack.table.values("id");
    assert!(
        states == runs,
        "{} states of {} runs",
        states.len(),
        runs.len()
    );
    let requests: Vec<_> = stack
        .table
        .values("sk")
        .into_iter()
        .filter(|sk| sk.starts_with("exec_"))
        .collect();
    assert!(
        requests == runs,
        "{} requests of {} runs",
        requests.len(),
        runs.len()
    );
    assert_eq!(
        stack.table.values("place").len(),
        runs.len(),
        "each stands in a line"
    );
    let (wakeups, _) = stack.queue.counts(QueueName::Launch);
    assert!(wakeups > 0, "the launcher is told");
    let longest =
        |span: fn(&Told) -> TimeDelta| all.iter().map(span).max().unwrap().as_seconds_f64();
    let took = longest(|told| told.took);
    println!(
        "{} lines in {took:.3} s; a body in up to {:.3} s; accepted {}, existing {}; answers {:?}; refused writes {:?}",
        runs.len(),
        longest(|told| told.longest),
        all.iter().map(|told| told.accepted).sum::<usize>(),
        all.iter().map(|told| told.existing).sum::<usize>(),
        stack.answers.borrow(),
        stack.table.throttled()
    );
    (stack, took)
}

fn batch(by: &'static str, number: usize, lines: usize) -> Batch {
    Batch {
        by,
        id: format!("sub_{by}_{number}"),
        lines,
    }
}

/// The least time in seconds that the key needs: one second's worth of writes passes at once.
const LEAST: f64 = 9.0;
/// The most: the key's time at 1,000 a second, plus the SDK's two pauses before a third attempt, of
/// at most one and two seconds.
const MOST: f64 = 10.0 + 3.0;

/// The four concurrent requests write far more than the key takes. The SDK's pauses reduce that to
/// what it takes.
#[test]
fn ten_thousand_lines_on_one_index_key_are_recorded_once_each() {
    let (stack, took) = play(vec![batch("alice", 0, LINES)]);
    assert!(
        stack.table.throttled().contains_key("a key of by_standing"),
        "the key is what bounds them"
    );
    assert!((LEAST..=MOST).contains(&took), "{took} s");
}

/// Twenty thousand lines are 40,000 write units of the table. At 4,000 a second that takes as long
/// as each key takes.
#[test]
#[ignore = "nightly: a minute of one core"]
fn two_submitters_have_a_key_each_and_share_the_table() {
    let (stack, took) = play(vec![batch("alice", 0, LINES), batch("bob", 0, LINES)]);
    assert!(
        stack.table.throttled().contains_key("the table"),
        "the table bounds them too"
    );
    assert!((LEAST..=MOST).contains(&took), "{took} s");
}

/// Twenty requests at once on one key. For some lines three attempts are too few, and their
/// requests are answered with 503. The lines recorded by then cost the key nothing when they are
/// sent again.
#[test]
fn ten_batches_of_one_submitter_share_its_key_and_wait_for_it() {
    let (stack, took) = play(
        (0..10)
            .map(|number| batch("alice", number, LINES / 10))
            .collect(),
    );
    assert!(
        stack.answers(503) > 0,
        "more is asked for than the function can wait for"
    );
    assert!((LEAST..=2.0 * MOST).contains(&took), "{took} s");
}
