//! What the store of a stack costs, in DynamoDB's own units.

use aws::dynamo::DynamoStore;
use aws_sdk_dynamodb::types::{PutRequest, WriteRequest};
use domain::{
    execution::Execution,
    history::Filter,
    ports::{Created, Store},
    transition::Observation,
};
use tests::{
    meter::{Meter, Spent},
    table::Table,
};

use super::records::{Wish, admissions, at, claim, launching, stopped, task_arn};

const ANSWERS: &str = "the store answers";

fn now() -> domain::Timestamp {
    at(1_000_000)
}

/// A store whose calls are counted.
async fn counted() -> (DynamoStore, Meter, Table) {
    let (table, meter) = (Table::create().await, Meter::default());
    (DynamoStore::new(meter.attach(&table.client), &table.name, 90).with_clock(now), meter, table)
}

/// The writes of a run that nothing goes wrong with: accepted under a claim, launched under a limit, its task known, its task running, two
/// batches of marker lines, stopped and read to its end.
async fn live(store: &DynamoStore, number: i64) {
    let execution = Wish { entropy: u128::try_from(number).expect("small"), ..Wish::of("alice", number) }.execution();
    let claim = claim(&format!("alice/bulk/{number}"), "digest", 86_400_000);
    assert_eq!(store.create(&execution, Some(&claim)).await.expect(ANSWERS), Created::New);
    let launched = store
        .update(&execution, launching(&execution, at(number + 1)), &admissions(&execution, Some(1_000_000)))
        .await
        .expect("there is room");
    let mut record = launched;
    for version in 1..=2 {
        let status = if version == 1 { "PROVISIONING" } else { "RUNNING" };
        let task = domain::ecs::Task {
            task_arn: task_arn(&record),
            last_status: status.into(),
            version,
            started_at: (version == 2).then(|| at(number + 30)),
            ..domain::ecs::Task::default()
        };
        record = written(store, &record, &Observation::Task(&task)).await;
    }
    let nonce_markers = [
        vec![(at(number + 40), domain::marker::Marker::SetUp), (at(number + 41), domain::marker::Marker::Start)],
        vec![(at(number + 60), domain::marker::Marker::Exit(0))],
    ];
    for said in &nonce_markers {
        record = written(store, &record, &Observation::Markers(said)).await;
    }
    store.update(&record, stopped(&record, 0), &[]).await.expect("nobody else writes it");
}

async fn written(store: &DynamoStore, record: &Execution, seen: &Observation<'_>) -> Execution {
    let after = record.observe(1, seen, at(50)).expect("it is news");
    store.update(record, after, &[]).await.expect("nobody else writes it")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_s_whole_life_costs_a_known_number_of_write_units() {
    let (store, meter, _table) = counted().await;
    // What is noted once for many runs (the day, the line) is not counted.
    live(&store, 0).await;
    let _once = meter.take();
    for number in 1..=10 {
        live(&store, number).await;
    }
    let Spent { writes, calls, .. } = meter.take();
    let each = writes / 10.0;
    // BENCHMARKS.md says where they go, and what they ought to be.
    assert!((each, calls / 10) <= (25.0, 10), "a run costs {each} write units in {} calls", calls / 10);
}

/// Two items each, and nothing else: what they note in the directories was noted before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_lines_at_once_cost_two_writes_each() {
    let (store, meter, _table) = counted().await;
    let lines =
        |from: u128| (from..from + 100).map(|entropy| Wish { entropy, ..Wish::default() }.execution()).collect();
    store.create_all(lines(0)).await.expect(ANSWERS);
    let _once = meter.take();
    assert_eq!(store.create_all(lines(100)).await.expect(ANSWERS), vec![Created::New; 100]);
    assert_eq!(meter.take().calls, 200);
}

/// Puts so many executions, of which all but the tenth part are bob's.
async fn fill(store: &DynamoStore, table: &Table, count: i64) {
    let mut requests = Vec::new();
    for number in 0..count {
        let by = if number % 10 == 0 { "alice" } else { "bob" };
        let group = (number % 100 == 0).then_some("nightly");
        let entropy = u128::try_from(number).expect("small");
        let execution = Wish { entropy, group, ..Wish::of(by, -number * 60_000) }.execution();
        // Which days there are is noted by a creation: two of them for each day.
        if number % 720 == 0 {
            store.create(&execution, None).await.expect(ANSWERS);
            continue;
        }
        for item in store.items(&execution).expect("items") {
            let put = PutRequest::builder().set_item(Some(item)).build().expect("complete");
            requests.push(WriteRequest::builder().put_request(put).build());
        }
    }
    for batch in requests.chunks(25) {
        let put = table.client.batch_write_item().request_items(&table.name, batch.to_vec());
        let left = put.send().await.expect("they are written").unprocessed_items;
        assert!(left.is_none_or(|left| left.is_empty()));
    }
}

/// What [`pages`] reads.
const PAGES: [&str; 6] = [
    "all, first page",
    "all, second",
    "by alice, first",
    "by alice, second",
    "of a group, first",
    "of a group, second",
];

/// The cost of a page of each kind with so many executions there.
async fn pages(count: i64) -> Vec<Spent> {
    let (store, meter, table) = counted().await;
    fill(&store, &table, count).await;
    let filters = [
        Filter::default(),
        Filter { by: Some("alice".into()), ..Filter::default() },
        Filter { group: Some("nightly".parse().expect("a name")), ..Filter::default() },
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

/// A page reads its own records, two items each, and some entries of an index.
fn check(costs: &[Spent]) {
    // For BENCHMARKS.md: `--no-capture`.
    #[expect(clippy::print_stderr, reason = "the figures")]
    for (cost, page) in costs.iter().zip(PAGES) {
        eprintln!("{page}: {cost:?}");
    }
    for cost in costs {
        assert!(cost.items <= 2 * 20 + 2, "a page of 20 read {} items: {cost:?}", cost.items);
        assert!(cost.reads <= 100.0, "a page of 20 cost {} read units: {cost:?}", cost.reads);
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
