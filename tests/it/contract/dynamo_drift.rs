//! Counters left wrong by a process that died between its two writes, and the sweep that corrects
//! them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aws::dynamo::{DynamoStore, Survey};
use aws_sdk_dynamodb::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::BeforeSerializationInterceptorContextMut,
    },
    error::BoxError,
    operation::{put_item::PutItemInput, update_item::UpdateItemInput},
    types::AttributeValue,
};
use domain::{
    execution::Execution,
    ports::{ReadStore, SweepStore, Update, UpdateError, WriteStore},
};
use tests::table::Table;

use super::{
    records::{CPU, POOL, Wish, admissions, at, launch, launching, stopped, sweep},
    store::at_once,
};

const ANSWERS: &str = "the store answers";

fn now() -> domain::Timestamp {
    at(1_000_000)
}

fn later() -> domain::Timestamp {
    at(1_200_000)
}

/// Fails writes to items with this partition prefix, to leave what a process leaves that dies just
/// before them.
#[derive(Clone, Debug, Default)]
struct Cut(Arc<Mutex<Option<&'static str>>>);

/// The partition prefix of the states.
const STATES: &str = "X#";
/// The partition prefix of the launch batches.
const BATCHES: &str = "OPEN#";
/// The partition prefix of the counters.
const COUNTERS: &str = "U#";

impl Cut {
    fn before(&self, partition: Option<&'static str>) {
        *self.0.lock().expect("not poisoned") = partition;
    }
}

impl Intercept for Cut {
    fn name(&self) -> &'static str {
        "cut"
    }

    fn modify_before_serialization(
        &self,
        context: &mut BeforeSerializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let input = context.input();
        let put = input
            .downcast_ref::<PutItemInput>()
            .and_then(|put| put.item.as_ref());
        let update = input
            .downcast_ref::<UpdateItemInput>()
            .and_then(|update| update.key.as_ref());
        let Some(AttributeValue::S(pk)) = put.or(update).and_then(|item| item.get("pk")) else {
            return Ok(());
        };
        match *self.0.lock().expect("not poisoned") {
            Some(partition) if pk.starts_with(partition) => Err("the process died here".into()),
            _ => Ok(()),
        }
    }
}

struct World {
    store: DynamoStore,
    cut: Cut,
    table: Table,
}

async fn world() -> World {
    let (table, cut) = (Table::create().await, Cut::default());
    let client = Client::from_conf(
        table
            .client
            .config()
            .to_builder()
            .interceptor(cut.clone())
            .build(),
    );
    let store = DynamoStore::new(client, &table.name, 90)
        .with_clock(now)
        .settling(Duration::from_millis(20));
    World { store, cut, table }
}

async fn used(store: &DynamoStore) -> u32 {
    store.usage(&POOL).await.expect(ANSWERS).used
}

async fn sweep_twice(store: &DynamoStore) {
    for _ in 0..2 {
        sweep(store).await;
    }
}

async fn submit(store: &DynamoStore, entropy: u128) -> Execution {
    Wish {
        entropy,
        ..Wish::default()
    }
    .submit(store)
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launcher_that_dies_after_it_took_a_slot_leaves_it_free_after_two_sweeps() {
    let World {
        store,
        cut,
        table: _table,
    } = world().await;
    let held = submit(&store, 1).await;
    launch(&store, &held).await;
    let execution = submit(&store, 2).await;
    cut.before(Some(STATES));
    let died = store
        .update(
            &execution,
            launching(&execution, at(9)),
            &admissions(&execution, Some(2 * CPU)),
        )
        .await;
    assert!(matches!(died, Err(UpdateError::Failed(_))), "{died:?}");
    cut.before(None);
    assert_eq!(used(&store).await, 2 * CPU);
    let full = store
        .update(
            &execution,
            launching(&execution, at(9)),
            &admissions(&execution, Some(2 * CPU)),
        )
        .await;
    assert!(
        matches!(full, Err(UpdateError::Full(_))),
        "the slot is lost until the sweep: {full:?}"
    );

    sweep(&store).await;
    assert_eq!(
        used(&store).await,
        2 * CPU,
        "one look is not enough: somebody may be slow"
    );
    sweep(&store).await;
    assert_eq!(used(&store).await, CPU);
    sweep_twice(&store).await;
    assert_eq!(used(&store).await, CPU, "it was corrected twice");
    store
        .update(
            &execution,
            launching(&execution, at(9)),
            &admissions(&execution, Some(2 * CPU)),
        )
        .await
        .expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_for_a_launch_that_could_not_be_announced_is_given_back_at_once() {
    let World {
        store,
        cut,
        table: _table,
    } = world().await;
    let execution = submit(&store, 1).await;
    cut.before(Some(BATCHES));
    let failed = store
        .update(
            &execution,
            launching(&execution, at(9)),
            &admissions(&execution, Some(CPU)),
        )
        .await;
    assert!(matches!(failed, Err(UpdateError::Failed(_))), "{failed:?}");
    cut.before(None);
    assert_eq!(used(&store).await, 0);
    store
        .update(
            &execution,
            launching(&execution, at(9)),
            &admissions(&execution, Some(CPU)),
        )
        .await
        .expect("room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_runs_that_are_not_loaded_together_are_counted_together() {
    let World {
        store,
        table: _table,
        ..
    } = world().await;
    let executions: Vec<_> = (1..=300)
        .map(|entropy| {
            Wish {
                entropy,
                ..Wish::default()
            }
            .execution()
        })
        .collect();
    store.create_all(executions.clone()).await.expect(ANSWERS);
    let launches = executions.into_iter().map(|before| Update {
        after: launching(&before, at(9)),
        admissions: admissions(&before, None),
        before,
    });
    assert!(
        store
            .update_all(launches.collect())
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(used(&store).await, 300 * CPU);
    sweep_twice(&store).await;
    assert_eq!(used(&store).await, 300 * CPU);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_that_dies_before_it_gives_back_leaves_the_slot_free_after_two_sweeps() {
    let World {
        store,
        cut,
        table: _table,
    } = world().await;
    let (first, second) = (submit(&store, 1).await, submit(&store, 2).await);
    launch(&store, &first).await;
    let launched = launch(&store, &second).await;
    cut.before(Some(COUNTERS));
    store
        .update(&launched, stopped(&launched, 0), &[])
        .await
        .expect("the end is recorded");
    cut.before(None);
    assert_eq!(used(&store).await, 2 * CPU);
    sweep_twice(&store).await;
    assert_eq!(used(&store).await, CPU);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_is_too_low_is_raised() {
    let World { store, table, .. } = world().await;
    launch(&store, &submit(&store, 1).await).await;
    launch(&store, &submit(&store, 2).await).await;
    let key = format!("U#{POOL}");
    let lower = table
        .client
        .update_item()
        .table_name(&table.name)
        .key("pk", AttributeValue::S(key));
    let lower = lower
        .key("sk", AttributeValue::S("U".into()))
        .update_expression("ADD used :by");
    lower
        .expression_attribute_values(":by", AttributeValue::N("-256".into()))
        .send()
        .await
        .expect("it is written");
    assert_eq!(used(&store).await, CPU);
    sweep_twice(&store).await;
    assert_eq!(used(&store).await, 2 * CPU);
}

/// Sweeps run all the time beside launches and ends. The sweep takes no write in progress for a
/// fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_corrected_that_is_not_wrong_while_runs_come_and_go() {
    let World {
        store,
        table: _table,
        ..
    } = world().await;
    let runs = at_once(&store, 8, |store, number| async move {
        let mut last = submit(&store, u128::from(number) * 100).await;
        for round in 1..=6 {
            let launched = launch(&store, &last).await;
            store
                .update(&launched, stopped(&launched, 0), &[])
                .await
                .expect("nobody else writes it");
            last = submit(&store, u128::from(number) * 100 + round).await;
        }
        launch(&store, &last).await;
    });
    let sweeps = async {
        for _ in 0..12 {
            sweep(&store).await;
            // As a sweep that did not begin with the first record.
            store.reconcile(Survey::default()).await.expect(ANSWERS);
        }
    };
    tokio::join!(runs, sweeps);
    assert_eq!(used(&store).await, 8 * CPU);
    sweep_twice(&store).await;
    assert_eq!(used(&store).await, 8 * CPU);
    assert_eq!(
        store.launched(None, 100).await.expect(ANSWERS).items.len(),
        8
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_launched_slowly_is_not_forgotten_by_a_sweep_in_between() {
    let World { store, cut, table } = world().await;
    let execution = submit(&store, 1).await;
    // Its launch batch is written, its record not yet.
    cut.before(Some(STATES));
    let slow = store
        .update(
            &execution,
            launching(&execution, at(9)),
            &admissions(&execution, None),
        )
        .await;
    assert!(slow.is_err());
    cut.before(None);
    sweep(&store).await;
    assert_eq!(
        batches(&table).await,
        1,
        "the sweep took a launch that was on its way for none"
    );
    let much_later = store.with_clock(later);
    sweep(&much_later).await;
    assert_eq!(
        batches(&table).await,
        0,
        "what was never launched is swept for ever"
    );
}

/// A launch batch names the next of the backlog, too. So launches one by one are not a write each,
/// and the sweep finds all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_named_ahead_is_found_once_it_is_launched_and_forgotten_if_it_is_not() {
    let World { store, table, .. } = world().await;
    let mut waiting = Vec::new();
    for entropy in 1..=5 {
        waiting.push(submit(&store, entropy).await);
    }
    let entries = ReadStore::backlog(&store, &POOL, now(), 9)
        .await
        .expect(ANSWERS);
    assert_eq!(entries.len(), 5);
    for execution in &waiting[..3] {
        launch(&store, execution).await;
    }
    let named = named(&table).await;
    assert_eq!(
        named.len(),
        1,
        "three launches in a row are one write: {named:?}"
    );
    assert_eq!(named[0].len(), 5);
    sweep(&store).await;
    let open = store.launched(None, 9).await.expect(ANSWERS).items;
    assert_eq!(open.len(), 3, "those that wait are not open");
    // Much later those that still wait are no longer named, and a launch names its own run.
    let much_later = store.clone().with_clock(later);
    sweep(&much_later).await;
    launch(&much_later, &waiting[3]).await;
    sweep(&much_later).await;
    let open = much_later.launched(None, 9).await.expect(ANSWERS).items;
    assert_eq!(open.len(), 4);
}

/// Two launchers name the same of a backlog's next runs. DynamoDB reads no record twice in one call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_two_launchers_named_ahead_do_not_stop_the_sweep() {
    let World { store, table, .. } = world().await;
    let other = DynamoStore::new(table.client.clone(), &table.name, 90).with_clock(now);
    let mut waiting = Vec::new();
    for entropy in 1..=4 {
        waiting.push(submit(&store, entropy).await);
    }
    for (store, execution) in [(&store, &waiting[0]), (&other, &waiting[1])] {
        ReadStore::backlog(store, &POOL, now(), 9)
            .await
            .expect(ANSWERS);
        launch(store, execution).await;
    }
    let lengths = async || {
        let named = named(&table).await;
        let mut lengths: Vec<_> = named.iter().map(Vec::len).collect();
        lengths.sort_unstable();
        lengths
    };
    assert_eq!(lengths().await, [3, 4]);
    sweep(&store.clone().with_clock(later)).await;
    assert_eq!(
        lengths().await,
        [1, 2],
        "those that were not launched are named no more"
    );
}

/// The ids in each launch batch.
async fn named(table: &Table) -> Vec<Vec<AttributeValue>> {
    let scan = table.client.scan().table_name(&table.name).send().await;
    let items = scan.expect(ANSWERS).items.unwrap_or_default();
    let of_batch = |item: &std::collections::HashMap<String, AttributeValue>| {
        item["pk"].as_s().is_ok_and(|pk| pk.starts_with(BATCHES))
    };
    let ids = items.iter().filter(|item| of_batch(item));
    ids.map(|item| item["ids"].as_l().expect("a list").clone())
        .collect()
}

async fn batches(table: &Table) -> usize {
    let items = table
        .client
        .scan()
        .table_name(&table.name)
        .send()
        .await
        .expect("it answers")
        .items
        .unwrap_or_default();
    let is_launch_batch = |item: &&std::collections::HashMap<String, AttributeValue>| {
        item.get("pk")
            .and_then(|pk| pk.as_s().ok())
            .is_some_and(|pk| pk.starts_with("OPEN"))
    };
    items.iter().filter(is_launch_batch).count()
}
