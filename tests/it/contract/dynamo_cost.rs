//! The cost of a stack's store, in DynamoDB's own units.

use std::time::Duration;

use aws::dynamo::DynamoStore;
use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
use domain::{
    ecs::Task,
    execution::Execution,
    history::Filter,
    marker::Marker,
    ports::{Created, ReadStore, Update, UpdateError, WriteStore},
    statistics::RunEnd,
    transition::Observation,
};
use tests::{
    meter::{Meter, Spent},
    table::Table,
};

use super::{
    records::{Wish, admissions, at, claim, sweep},
    statistics::{count_these, end},
};

const ANSWERS: &str = "the store answers";

fn now() -> domain::Timestamp {
    at(1_000_000)
}

/// A store with counted calls.
async fn counted() -> (DynamoStore, Meter, Table) {
    let (table, meter) = (Table::create().await, Meter::default());
    let store = DynamoStore::new(meter.attach(&table.client), &table.name, 90);
    (store.with_clock(now).settling(Duration::ZERO), meter, table)
}

/// A typical run in an account: names of common length, and the usual snapshots of a task.
mod typical {
    use domain::{
        Timestamp,
        attempt_secret::AttemptSecret,
        container::MAIN,
        ecs::{Container, NetworkConfiguration, StopCode, Task, TaskStatus},
        execution::Execution,
        git_access::GitAccess,
        id::ExecutionId,
        key::Caller,
        limit::CapacityPool,
        marker::Marker,
        price::PriceList,
        principal::Principal,
        quota::Quotas,
        request::{Defaults, SubmitRequest},
        settings::Settings,
        task::{self, AttemptProof},
        transition::LaunchPlan,
    };

    use tests::callers::caller;

    use super::super::records::{at, task_id};

    const NONCE: &str = "0123456789abcdef0123456789abcdef";
    const ACCOUNT: &str = "arn:aws:ecs:eu-central-1:123456789012";

    /// A principal of the usual length.
    fn ci_nightly() -> Caller {
        Caller {
            principal: Principal::new(at(0), 1),
            ..caller("ci-nightly")
        }
    }

    pub(super) fn submitted(number: i64, lock: Option<&str>) -> Execution {
        let request = SubmitRequest {
            command: Some(
                format!("python train.py --fold {number} --epochs 40 --out s3://acme-models/runs/{number}")
                    .into(),
            ),
            repo: Some("https://github.com/acme-research/forecasting.git".into()),
            branch: Some("experiments/tune".into()),
            image: Some("ghcr.io/acme-research/train:2026-11".into()),
            env: [
                ("STAGE", "production"),
                ("AWS_DEFAULT_REGION", "eu-central-1"),
                ("WANDB_PROJECT", "forecasting"),
            ]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
            lock: lock.map(str::to_owned),
            ..SubmitRequest::default()
        };
        let request = request.validate(&Defaults::aws()).expect("a sound request");
        let (now, entropy) = (at(number), u128::try_from(number).expect("small") << 5);
        Execution::submitted(
            ExecutionId::new(now, entropy),
            request,
            CapacityPool::FargateSpot,
            &ci_nightly(),
            now,
        )
    }

    fn settings() -> Settings {
        let network = NetworkConfiguration {
            subnets: ["a", "b", "c"]
                .map(|zone| format!("subnet-0123456789abcde{zone}"))
                .into(),
            security_groups: vec!["sg-0123456789abcdef0".into()],
            assign_public_ip: true,
        };
        Settings {
            cluster: "mycli-default".into(),
            log_group: "/aws/mycli/default".into(),
            defaults: Defaults::aws(),
            quotas: Quotas::default(),
            run_task_rate: None,
            runner_images: Some(tests::ecs::runner_images()),
            artifacts: None,
            spot_fallback_after: None,
            definitions_rate: None,
            allowed: None,
            network: Some(network),
            prices: PriceList::of_region("us-east-1"),
            task_tags: Some("default".into()),
            unlisted_seconds: 60,
            log_delay_seconds: 10,
        }
    }

    pub(super) fn launching(execution: &Execution) -> Execution {
        let definition =
            format!("{ACCOUNT}:task-definition/mycli-default-0123456789abcdef0123456789abcdef:1");
        let run_task = task::run_task(
            execution,
            &definition,
            AttemptProof::Nonce(&AttemptSecret::of_text(NONCE.into())),
            &GitAccess::default(),
            &settings(),
        );
        let now = at(10_000);
        execution
            .launching(
                LaunchPlan {
                    nonce: NONCE.into(),
                    token_hash: None,
                    run_task,
                    price: settings().attempt_price(&execution.request, execution.pool),
                },
                now,
            )
            .expect("it has a due ticket")
    }

    fn task(execution: &Execution, status: &str, version: i64) -> Task {
        Task {
            task_arn: format!("{ACCOUNT}:task/mycli-default/{}", task_id(execution)).into(),
            cluster_arn: format!("{ACCOUNT}:cluster/mycli-default"),
            task_definition_arn: format!("{ACCOUNT}:task-definition/mycli-default-x:1"),
            last_status: status.into(),
            desired_status: "RUNNING".into(),
            started_by: Some(execution.id.attempt(1).to_string()),
            capacity_provider_name: Some("FARGATE_SPOT".into()),
            containers: vec![Container {
                name: MAIN.into(),
                image: Some("ghcr.io/acme-research/train:2026-11".into()),
                last_status: Some(status.into()),
                ..Container::default()
            }],
            version,
            created_at: Some(at(10_400)),
            ..Task::default()
        }
    }

    pub(super) fn provisioning(execution: &Execution) -> Task {
        task(execution, "PROVISIONING", 1)
    }

    pub(super) fn running(execution: &Execution) -> Task {
        let mut task = Task {
            started_at: Some(at(40_000)),
            ..task(execution, "RUNNING", 4)
        };
        task.containers[0].image_digest = Some(format!("sha256:{}", "5".repeat(64)));
        task
    }

    pub(super) fn over(execution: &Execution, exit_code: i32) -> Task {
        let mut task = Task {
            last_status: TaskStatus::Stopped,
            desired_status: TaskStatus::Stopped,
            stop_code: Some(StopCode::EssentialContainerExited),
            stopped_reason: Some("Essential container in task exited".into()),
            stopping_at: Some(at(90_000)),
            execution_stopped_at: Some(at(95_000)),
            stopped_at: Some(at(99_000)),
            version: 7,
            ..running(execution)
        };
        task.containers[0].exit_code = Some(exit_code);
        task
    }

    pub(super) fn begins() -> Vec<(Timestamp, Marker)> {
        let commit = Marker::Commit("c".repeat(40));
        vec![
            (at(41_000), Marker::SetUp),
            (at(44_000), commit),
            (at(44_001), Marker::Start),
        ]
    }

    pub(super) fn ends(exit_code: i32) -> Vec<(Timestamp, Marker)> {
        vec![(at(89_000), Marker::Exit(exit_code))]
    }
}

/// The life of a test's runs.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    /// Whether each is accepted under its own claim, as the API's single runs are.
    claimed: bool,
    lock: Option<&'static str>,
    exit_code: i32,
    /// How many are launched together, under a limit of their pool.
    together: usize,
}

/// The writes of each step of a run's life.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Steps {
    accepted: f64,
    launched: f64,
    known: f64,
    runs: f64,
    ended: f64,
    /// The sweep's writes once the run is over.
    swept: f64,
}

impl Steps {
    fn sum(self) -> f64 {
        self.accepted + self.launched + self.known + self.runs + self.ended + self.swept
    }
}

impl Life {
    /// The writes per run since the last look, to the hundredth.
    #[expect(clippy::cast_precision_loss, reason = "a few dozen runs")]
    fn each(self, meter: &Meter) -> f64 {
        (meter.take().writes / self.together as f64 * 100.0).round() / 100.0
    }

    /// The write units of each step, for each of these runs.
    async fn cost(self, store: &DynamoStore, meter: &Meter, first: i64) -> Steps {
        let numbers = first..first + i64::try_from(self.together).expect("small");
        let mut records: Vec<_> = numbers
            .map(|number| typical::submitted(number, self.lock))
            .collect();
        let _before = meter.take();
        for record in &records {
            let claim = claim(&format!("ci-nightly/{}", record.id), "digest", 86_400_000);
            let created = store
                .create(record, self.claimed.then_some(&claim))
                .await
                .expect(ANSWERS);
            assert_eq!(created, Created::New);
        }
        let accepted = self.each(meter);
        let updates = records.iter().map(|record| Update {
            before: record.clone(),
            after: typical::launching(record),
            admissions: admissions(record, Some(1_000_000)),
        });
        records = all(store.update_all(updates.collect()).await);
        let launched = self.each(meter);
        let known = |record: &Execution| vec![typical::provisioning(record)];
        let known = self
            .observed(store, meter, &mut records, &|record| tasks(known(record)))
            .await;
        let runs = self
            .observed(store, meter, &mut records, &|record| {
                let mut seen = vec![Seen::Lines(typical::begins())];
                seen.extend(tasks(vec![typical::running(record)]));
                seen
            })
            .await;
        let ended = self
            .observed(store, meter, &mut records, &|record| {
                let mut seen = vec![Seen::Lines(typical::ends(self.exit_code))];
                seen.extend(tasks(vec![typical::over(record, self.exit_code)]));
                seen
            })
            .await;
        assert!(
            records.iter().all(|record| record.end().is_some()),
            "{:?}",
            records[0]
        );
        sweep(store).await;
        Steps {
            accepted,
            launched,
            known,
            runs,
            ended,
            swept: self.each(meter),
        }
    }

    /// Applies everything observed of each run, one observation after the other, as the state
    /// tracker does.
    async fn observed(
        self,
        store: &DynamoStore,
        meter: &Meter,
        records: &mut [Execution],
        seen: &(dyn Fn(&Execution) -> Vec<Seen> + Sync),
    ) -> f64 {
        for record in records {
            for seen in seen(record) {
                let observation = match &seen {
                    Seen::Task(task) => Observation::Task(task),
                    Seen::Lines(lines) => Observation::Markers(lines),
                };
                if let Some(after) = record.observe(1, &observation, at(50_000)) {
                    *record = store
                        .update(record, after, &[])
                        .await
                        .expect("nobody else writes it");
                }
            }
        }
        self.each(meter)
    }
}

enum Seen {
    Task(Box<Task>),
    Lines(Vec<(domain::Timestamp, Marker)>),
}

fn tasks(tasks: Vec<Task>) -> Vec<Seen> {
    tasks
        .into_iter()
        .map(|task| Seen::Task(Box::new(task)))
        .collect()
}

fn all(written: Vec<Result<Execution, UpdateError>>) -> Vec<Execution> {
    written
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("there is room")
}

/// The steps of a life, in a store that has already written what is written once for many runs (the
/// day, the backlog).
async fn steps(life: Life) -> Steps {
    let (store, meter, _table) = counted().await;
    life.cost(&store, &meter, 0).await;
    life.cost(&store, &meter, 1_000).await
}

/// Checks the figures that BENCHMARKS.md shows.
fn check_steps(steps: Steps, most: Steps) {
    let pairs = [
        (steps.accepted, most.accepted),
        (steps.launched, most.launched),
        (steps.known, most.known),
        (steps.runs, most.runs),
        (steps.ended, most.ended),
        (steps.swept, most.swept),
    ];
    assert!(
        pairs.iter().all(|(step, most)| step <= most),
        "{steps:?} are more than {most:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_many_costs_at_most_twelve_write_units() {
    let bulk = steps(Life {
        together: 20,
        ..Life::default()
    })
    .await;
    check_steps(
        bulk,
        Steps {
            accepted: 4.0,
            launched: 2.1,
            known: 2.0,
            runs: 1.0,
            ended: 2.0,
            swept: 0.1,
        },
    );
    assert!(bulk.sum() <= 12.0, "{bulk:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_run_costs_the_counter_and_the_launch_batch_alone() {
    let single = steps(Life {
        claimed: true,
        together: 1,
        ..Life::default()
    })
    .await;
    check_steps(
        single,
        Steps {
            accepted: 5.0,
            launched: 4.0,
            known: 2.0,
            runs: 1.0,
            ended: 2.0,
            swept: 1.0,
        },
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_costs_its_last_word_and_its_place_among_the_ends() {
    let failed = steps(Life {
        together: 20,
        exit_code: 3,
        ..Life::default()
    })
    .await;
    check_steps(
        failed,
        Steps {
            accepted: 4.0,
            launched: 2.1,
            known: 2.0,
            runs: 1.0,
            ended: 4.0,
            swept: 0.1,
        },
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_costs_two_transactions() {
    let locked = steps(Life {
        claimed: true,
        lock: Some("deploy"),
        together: 1,
        ..Life::default()
    })
    .await;
    check_steps(
        locked,
        Steps {
            accepted: 5.0,
            launched: 7.0,
            known: 2.0,
            runs: 1.0,
            ended: 5.0,
            swept: 1.0,
        },
    );
}

/// Two items each and nothing else: their directory entries exist already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_lines_at_once_cost_two_writes_each() {
    let (store, meter, _table) = counted().await;
    let lines = |from: u128| {
        (from..from + 100)
            .map(|entropy| {
                Wish {
                    entropy,
                    ..Wish::default()
                }
                .execution()
            })
            .collect()
    };
    store.create_all(lines(0)).await.expect(ANSWERS);
    let _once = meter.take();
    assert_eq!(
        store.create_all(lines(100)).await.expect(ANSWERS),
        vec![Created::New; 100]
    );
    assert_eq!(meter.take().calls, 200);
}

/// How long history is kept: 90 days.
const KEPT_MS: i64 = 90 * 24 * 3_600_000;
/// How many executions are written together, in as many requests as they need.
const TOGETHER: i64 = 200;

/// Writes this many executions, spread over the whole time that history is kept. Nine in ten are
/// bob's.
async fn fill(store: &DynamoStore, table: &Table, count: i64) {
    for from in (0..count).step_by(usize::try_from(TOGETHER).expect("small")) {
        let mut requests = Vec::new();
        for number in from..(from + TOGETHER).min(count) {
            let by = if number % 10 == 0 { "alice" } else { "bob" };
            let group = (number % 100 == 0).then_some("nightly");
            let entropy = u128::try_from(number).expect("small");
            let execution = Wish {
                entropy,
                group,
                ..Wish::of(by, -number * (KEPT_MS / count))
            }
            .execution();
            // `create` also writes the directory of days, so at least two executions of each day go
            // through it.
            if number % (count / 200) == 0 {
                store.create(&execution, None).await.expect(ANSWERS);
                continue;
            }
            for item in store.items(&execution).expect("items") {
                let put = PutRequest::builder()
                    .set_item(Some(item))
                    .build()
                    .expect("complete");
                requests.push(WriteRequest::builder().put_request(put).build());
            }
        }
        let puts = requests.chunks(25).map(|batch| async {
            let put = table
                .client
                .batch_write_item()
                .request_items(&table.name, batch.to_vec());
            let left = put
                .send()
                .await
                .expect("they are written")
                .unprocessed_items;
            assert!(left.is_none_or(|left| left.is_empty()));
        });
        futures_util::future::join_all(puts).await;
    }
}

/// The pages that [`pages`] reads.
const PAGES: [&str; 6] = [
    "all, first page",
    "all, second",
    "by alice, first",
    "by alice, second",
    "of a group, first",
    "of a group, second",
];

/// The cost of a page of each kind with this many executions.
async fn pages(count: i64) -> Vec<Spent> {
    let (store, meter, table) = counted().await;
    fill(&store, &table, count).await;
    let filters = [
        Filter::default(),
        Filter {
            by: Some("alice".into()),
            ..Filter::default()
        },
        Filter {
            group: Some("nightly".parse().expect("a name")),
            ..Filter::default()
        },
    ];
    let mut costs = Vec::new();
    for filter in filters {
        let _before = meter.take();
        let page = store.list(&filter, None, 20).await.expect(ANSWERS);
        assert_eq!(page.items.len(), 20);
        let first = meter.take();
        let next = page.next.as_ref();
        store.list(&filter, next, 20).await.expect(ANSWERS);
        costs.extend([first, meter.take()]);
    }
    costs
}

/// Checks that a page reads only its own records, two items each, and some entries of an index.
fn check(costs: &[Spent]) {
    // The figures are for BENCHMARKS.md: run with `--no-capture`.
    #[expect(clippy::print_stderr, reason = "the figures")]
    for (cost, page) in costs.iter().zip(PAGES) {
        eprintln!("{page}: {cost:?}");
    }
    for cost in costs {
        assert!(
            cost.items <= 2 * 20 + 2,
            "a page of 20 read {} items: {cost:?}",
            cost.items
        );
        assert!(
            cost.reads <= 100.0,
            "a page of 20 cost {} read units: {cost:?}",
            cost.reads
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_history_reads_no_more_than_the_page_among_three_thousand() {
    check(&pages(3_000).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "fills a table with 100,000 executions, which takes the emulator minutes: just nightly"]
async fn a_page_of_history_reads_no_more_than_the_page_among_a_hundred_thousand() {
    check(&pages(100_000).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "fills a table with a million executions, which takes the emulator long: just nightly"]
async fn a_page_of_history_reads_no_more_than_the_page_among_a_million() {
    check(&pages(1_000_000).await);
}

/// Ten thousand runs that end within some minutes, as a stream's shards tell of them: a thousand at
/// a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_the_ends_of_many_costs_less_than_a_tenth_of_a_write_unit_each() {
    let (store, meter, _table) = counted().await;
    let ends = |batch: i64| -> Vec<_> {
        let end = |number: i64| {
            let millis = 31 * number;
            RunEnd {
                wait_ms: Some(millis.unsigned_abs() * 7),
                run_ms: Some(20_000 + millis.unsigned_abs() % 70_000),
                ..end(number.unsigned_abs(), "resize", millis / 60_000)
            }
        };
        (batch * 1_000..(batch + 1) * 1_000).map(end).collect()
    };
    for batch in 0..10 {
        count_these(&store, ends(batch)).await;
    }
    let spent = meter.take();
    assert!(spent.writes < 1_000.0, "{spent:?}");
    assert!(spent.reads < 1_000.0, "{spent:?}");
}

/// Names that a build makes up cost most: each of the first thousand of a day has a tally of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_ends_of_as_many_names_costs_at_most_a_write_unit_each() {
    let (store, meter, _table) = counted().await;
    let ends = (0..8_000).map(|number| end(number, &format!("build-{number}"), 0));
    count_these(&store, ends.collect()).await;
    let spent = meter.take();
    assert!(spent.writes < 8_000.0, "{spent:?}");
}
