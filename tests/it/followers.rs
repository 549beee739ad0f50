//! Many users follow logs at once, within what CloudWatch Logs takes from one account and region.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{
        Mutex,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::ecs::RUNNING;

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use chrono::TimeDelta;
use domain::{
    Timestamp,
    api::LogsPage,
    backoff,
    ecs::Task,
    execution::Execution,
    history::{LogCursor, LogEnds},
    marker::PREFIX,
    ports::{Clock, Entropy, LogLine, LogPage, Logs, ReadError, WriteStore},
    quota::{Rate, TokenBucket},
    transition::Observation,
};
use futures_util::FutureExt as _;
use local::artifacts::LocalArtifacts;
use pipeline::{auth::Auth, query::Query, recent::Recent};
use tests::{callers::caller, memory::MemoryStore};

use crate::contract::records::{Wish, at, launch, settings, stopped, task_arn};

const FOLLOWERS: u128 = 200;
/// How long each run writes a line a second until it ends.
const SECONDS: i64 = 60;
/// The longest that anybody follows. This bounds a hang.
const PATIENCE: i64 = 3_600_000;

/// A clock that is set by the test, and a deterministic source of numbers.
#[derive(Debug, Default)]
struct VirtualSystem {
    millis: AtomicI64,
    number: AtomicU64,
}

impl Clock for VirtualSystem {
    fn now(&self) -> Timestamp {
        at(self.millis.load(Ordering::SeqCst))
    }

    async fn sleep(&self, _: TimeDelta) {
        panic!("a read of a log does not sleep");
    }
}

impl Entropy for VirtualSystem {
    fn bits(&self) -> u128 {
        // A Weyl sequence, which is spread evenly.
        u128::from(
            self.number
                .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst)
                >> 32,
        )
    }
}

/// The logs of the runs. Only this many reads a second are answered.
struct Region<'a> {
    system: &'a VirtualSystem,
    rate: Rate,
    bucket: Mutex<TokenBucket>,
    reads: AtomicUsize,
    refused: AtomicUsize,
}

impl Region<'_> {
    fn has_a_token(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap();
        let (granted, left) = (*bucket).take(self.rate, 1, self.system.now());
        *bucket = left;
        granted == 1
    }
}

impl Logs for &Region<'_> {
    async fn read(&self, _: &str, cursor: Option<&str>) -> Result<LogPage, ReadError> {
        if !self.has_a_token() {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(ReadError::Throttled);
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        let from: i64 = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let second = (self.system.now() - at(0)).num_seconds().min(SECONDS);
        let line = |second| LogLine {
            at: at(1000 * second),
            text: format!("line {second}"),
        };
        let lines: Vec<_> = (from + 1..=second).map(line).collect();
        Ok(LogPage {
            lines,
            next: Some(second.max(from).to_string()),
            more: false,
        })
    }

    async fn last(&self, _: &str) -> Result<Vec<LogLine>, ReadError> {
        panic!("nobody reads the end alone");
    }
}

/// Somebody who follows a run as the command line does.
#[derive(Default)]
struct Follower {
    cursor: Option<String>,
    lines: Vec<String>,
    empty_looks: u32,
    complete_at: Option<i64>,
}

fn request(execution: &Execution, cursor: Option<&str>) -> ApiGatewayProxyRequest {
    let mut request = ApiGatewayProxyRequest::default();
    request.path = Some(format!("/executions/{}/logs", execution.id));
    let parameters: std::collections::HashMap<String, Vec<String>> = cursor
        .map(|cursor| ("cursor".to_owned(), vec![cursor.to_owned()]))
        .into_iter()
        .collect();
    request.query_string_parameters = parameters.into();
    request
}

/// The result: when the last follower had everything, the number of reads, and how many of them
/// were refused.
struct Outcome {
    last: i64,
    reads: usize,
    refused: usize,
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future
        .now_or_never()
        .expect("nothing here has to be waited for")
}

/// Everybody follows a different run from its start. Each reads again when the command line would.
fn follow(rate: Rate) -> Outcome {
    let (store, system, settings, auth) = (
        MemoryStore::default(),
        VirtualSystem::default(),
        settings(),
        Auth::default(),
    );
    let region = Region {
        system: &system,
        rate,
        bucket: Mutex::new(TokenBucket {
            spent: 0.0,
            at: at(0),
        }),
        reads: AtomicUsize::default(),
        refused: AtomicUsize::default(),
    };
    let logs = Recent::new(&region, &system);
    let query = Query {
        store: &store,
        keys: &store,
        logs: &logs,
        artifacts: &LocalArtifacts::new("/nonexistent".into()),
        system: &system,
        auth: &auth,
        settings: &settings,
    };
    let runs: Vec<Execution> = (0..FOLLOWERS)
        .map(|entropy| now(running(&store, entropy)))
        .collect();
    let mut followers: Vec<Follower> = runs.iter().map(|_| Follower::default()).collect();
    let mut looks: BinaryHeap<Reverse<(i64, usize)>> =
        (0..runs.len()).map(|index| Reverse((0, index))).collect();
    let mut over = false;
    while let Some(Reverse((millis, index))) = looks.pop() {
        assert!(
            millis < PATIENCE,
            "follower {index} has {:?}",
            followers[index].lines.last()
        );
        system.millis.store(millis, Ordering::SeqCst);
        if !over && millis >= 1000 * SECONDS {
            over = true;
            runs.iter().for_each(|run| {
                drop(now(store.update(run, stopped(run, 0), &[])).expect("it is recorded"));
            });
        }
        let follower = &mut followers[index];
        let asked = request(&runs[index], follower.cursor.as_deref());
        let answer = now(query.answer(&caller("alice"), &asked));
        assert_eq!(answer.status_code, 200, "{:?}", answer.body);
        let page: LogsPage = serde_json::from_slice(answer.body.as_deref().unwrap()).unwrap();
        let retry = answer
            .headers
            .get("retry-after")
            .map(|value| value.to_str().unwrap().parse().unwrap());
        if page.throttled {
            assert!(
                page.lines.is_empty() && !page.complete && (5..=15).contains(&retry.unwrap()),
                "{page:?}"
            );
            assert!(
                follower.cursor.is_none() || page.next_cursor == follower.cursor,
                "{page:?}"
            );
        }
        follower.empty_looks = if page.lines.is_empty() {
            follower.empty_looks + 1
        } else {
            0
        };
        follower
            .lines
            .extend(page.lines.into_iter().map(|line| line.text));
        follower.cursor = page.next_cursor;
        if page.complete {
            follower.complete_at = Some(millis);
            continue;
        }
        let pause = backoff::before_the_next_look(
            follower.empty_looks,
            retry.map(Duration::from_secs),
            system.bits(),
        );
        looks.push(Reverse((
            millis + i64::try_from(pause.as_millis()).unwrap(),
            index,
        )));
    }
    let all: Vec<String> = (1..=SECONDS)
        .map(|second| format!("line {second}"))
        .collect();
    for follower in &followers {
        assert_eq!(follower.lines, all);
    }
    let last = followers
        .iter()
        .filter_map(|follower| follower.complete_at)
        .max()
        .expect("all are");
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    Outcome {
        last,
        reads: count(&region.reads),
        refused: count(&region.refused),
    }
}

async fn running(store: &MemoryStore, entropy: u128) -> Execution {
    let submitted = Wish {
        entropy,
        ..Wish::default()
    }
    .submit(store)
    .await;
    let launched = launch(store, &submitted).await;
    let task = Task {
        task_arn: task_arn(&launched),
        last_status: RUNNING.into(),
        version: 1,
        ..Task::default()
    };
    let running = launched
        .observe(1, &Observation::Task(&task), at(2))
        .expect("it is news");
    store
        .update(&launched, running, &[])
        .await
        .expect("nobody else writes it")
}

/// GetLogEvents takes 10 to 25 calls a second per account and region. Two hundred followers are
/// twenty times too many, so most reads are refused again and again. No follower sees a failure,
/// and each sees each line once.
#[test]
fn two_hundred_followers_on_what_a_region_takes_fail_nobody_and_lose_no_line() {
    for (per_second, seconds) in [(10.0, 60), (25.0, 30)] {
        let outcome = follow(Rate {
            burst: per_second,
            per_second,
        });
        assert!(
            outcome.refused > 0,
            "the region was asked for more than it takes"
        );
        let late = outcome.last / 1000 - SECONDS;
        assert!(
            late <= seconds,
            "the last one had all {late} s after the end, with {} reads",
            outcome.reads
        );
    }
}

/// Many followers of the same run count as one reader for CloudWatch Logs.
#[test]
fn what_was_read_under_a_second_ago_is_answered_from_memory() {
    let system = VirtualSystem::default();
    let region = Region {
        system: &system,
        rate: Rate {
            burst: 1000.0,
            per_second: 1000.0,
        },
        bucket: Mutex::new(TokenBucket {
            spent: 0.0,
            at: at(0),
        }),
        reads: AtomicUsize::default(),
        refused: AtomicUsize::default(),
    };
    let logs = Recent::new(&region, &system);
    let mut seen = BTreeMap::new();
    for (millis, stream, cursor) in [
        (3000, "a", None),
        (3400, "a", None),
        (3999, "a", None),
        (3999, "b", None),
        (3999, "a", Some("1")),
        (4000, "a", None),
    ] {
        system.millis.store(millis, Ordering::SeqCst);
        let page = now(logs.read(stream, cursor)).unwrap();
        seen.insert(
            (millis, stream, cursor),
            (page.lines.len(), region.reads.load(Ordering::SeqCst)),
        );
    }
    assert_eq!(
        seen.into_values().collect::<Vec<_>>(),
        [(3, 1), (3, 1), (3, 1), (2, 3), (3, 2), (4, 4)],
        "lines, and reads by then; in order of time, stream and cursor"
    );
}

/// A log that grows while it is read.
#[derive(Default)]
struct Growing(Mutex<Vec<String>>);

impl Growing {
    fn grow(&self, lines: &[&str]) {
        self.0.lock().unwrap().extend(
            lines
                .iter()
                .map(|&line| line.replace("mark:", &format!("{PREFIX}{}:1:", "0".repeat(32)))),
        );
    }
}

impl Logs for Growing {
    async fn read(&self, _: &str, cursor: Option<&str>) -> Result<LogPage, ReadError> {
        let lines = self.0.lock().unwrap();
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let new = lines[from..]
            .iter()
            .map(|text| LogLine {
                at: at(3),
                text: text.clone(),
            })
            .collect();
        Ok(LogPage {
            lines: new,
            next: Some(lines.len().to_string()),
            more: false,
        })
    }

    async fn last(&self, _: &str) -> Result<Vec<LogLine>, ReadError> {
        panic!("nobody reads the end alone");
    }
}

/// Stdout and stderr reach the log through two pipes, and one may lag behind the other. The log was
/// once considered complete at the first end, so later lines were shown to nobody.
#[test]
fn a_line_of_stdout_that_comes_after_the_end_of_stderr_is_told() {
    let (store, system, settings, auth) = (
        MemoryStore::default(),
        VirtualSystem::default(),
        settings(),
        Auth::default(),
    );
    let logs = Growing::default();
    let query = Query {
        store: &store,
        keys: &store,
        logs: &logs,
        artifacts: &LocalArtifacts::new("/nonexistent".into()),
        system: &system,
        auth: &auth,
        settings: &settings,
    };
    let run = now(running(&store, 1));
    let over = now(store.update(&run, stopped(&run, 0), &[])).unwrap();
    let settled = over.attempts[0].log_settles_at(&settings).unwrap();
    let look = |cursor: Option<&str>, millis: i64| {
        system.millis.store(millis, Ordering::SeqCst);
        let answer = now(query.answer(&caller("alice"), &request(&run, cursor)));
        let page: LogsPage = serde_json::from_slice(answer.body.as_deref().unwrap()).unwrap();
        let lines: Vec<String> = page.lines.into_iter().map(|line| line.text).collect();
        (lines, page.complete, page.next_cursor.unwrap())
    };
    let before = (settled - at(0)).num_milliseconds() - 1;
    logs.grow(&["early", "mark:exit:0", "mark:ended"]);
    let (lines, complete, cursor) = look(None, before);
    assert_eq!(
        (lines, complete),
        (vec!["early".to_owned()], false),
        "one end"
    );
    let (_, complete, _) = look(Some(&cursor), before + 1);
    assert!(
        complete,
        "whoever said one end alone is waited for as long as a line may take"
    );
    logs.grow(&["late", "unfinishedmark:ended"]);
    let (lines, complete, cursor) = look(Some(&cursor), before);
    assert_eq!(
        (lines, complete),
        (vec!["late".to_owned(), "unfinished".into()], true),
        "both ends"
    );
    assert_eq!(look(Some(&cursor), before), (vec![], true, cursor.clone()));
}

/// A follower from before an upgrade continues after it.
#[test]
fn a_cursor_of_a_release_with_one_end_is_taken() {
    let old = "eyJhIjoyLCJjIjoiZi8zODE2NDk3MjMiLCJlIjp0cnVlfQ";
    let cursor = LogCursor::decode(old).unwrap();
    assert_eq!((cursor.attempt, cursor.ends), (2, LogEnds::Both));
    assert_eq!(cursor.encode(), old);
    let half = LogCursor {
        ends: LogEnds::One,
        ..cursor
    };
    assert_eq!(LogCursor::decode(&half.encode()), Ok(half));
}
