//! The contract suites on the store of a stack.

use aws::dynamo::{DynamoStore, Item};
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use domain::{
    execution::Execution,
    history::Loaded,
    id::ExecutionId,
    limit::LimitKey,
    ports::{Created, ReadStore, SweepStore, WriteStore},
    request::{Artifacts, ArtifactsOn, CommandLine, TaskStorage},
    statistics::Dimension,
    stored::NEWEST,
};
use tests::table::Table;

use super::{
    records::{CPU, POOL, Wish, at, close, launch, sweep},
    spoilt::{Newer, Spoil},
    statistics::{CountEnds, count_in, count_these, end, ended},
};

/// The time of these tests, or a little later.
fn now() -> domain::Timestamp {
    at(1_000_000)
}

pub(crate) async fn fresh_store() -> (DynamoStore, Table) {
    let table = Table::create().await;
    (
        DynamoStore::new(table.client.clone(), &table.name, 90).with_clock(now),
        table,
    )
}

/// Reads and writes items past the store, as another release's function would. The store itself
/// gives the key of an execution's item.
struct Raw {
    table: Table,
    store: DynamoStore,
}

async fn fresh_and_raw() -> (DynamoStore, Raw) {
    let (store, table) = fresh_store().await;
    (store.clone(), Raw { table, store })
}

impl Raw {
    /// The keys of the request item and the state item.
    fn keys(&self, id: &ExecutionId) -> [Item; 2] {
        let any = Execution {
            id: id.clone(),
            ..Wish::default().execution()
        };
        let key = |mut item: Item| {
            item.retain(|name, _| name == "pk" || name == "sk");
            item
        };
        self.store.items(&any).expect("it can be spelled").map(key)
    }

    async fn set(&self, key: Item, path: &str, value: AttributeValue) {
        let names: Vec<_> = path.split('.').collect();
        let mut call = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key));
        let mut places = Vec::new();
        for name in names {
            let (name, index) = name
                .split_once('[')
                .map_or((name, String::new()), |(name, rest)| {
                    (name, format!("[{rest}"))
                });
            call = call.expression_attribute_names(format!("#{name}"), name);
            places.push(format!("#{name}{index}"));
        }
        let change = format!("SET {} = :value", places.join("."));
        call.update_expression(change)
            .expression_attribute_values(":value", value)
            .send()
            .await
            .expect("it is set");
    }

    async fn get(&self, key: Item) -> Item {
        let call = self
            .table
            .client
            .get_item()
            .table_name(&self.table.name)
            .set_key(Some(key))
            .consistent_read(true);
        call.send()
            .await
            .expect("it answers")
            .item
            .expect("it is there")
    }

    fn backlog_key(key: &LimitKey) -> Item {
        [("pk", format!("L#{key}")), ("sk", "L".to_owned())]
            .map(|(name, text)| (name.to_owned(), s(&text)))
            .into()
    }
}

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

const FIELD: &str = "of_a_newer_release";

impl Spoil for Raw {
    async fn spoil(&self, id: &ExecutionId) {
        let [request, _] = self.keys(id);
        self.set(request, "request.arch", s("riscv")).await;
    }
}

impl Newer for Raw {
    async fn add_fields(&self, id: &ExecutionId) {
        let [_, state] = self.keys(id);
        self.set(state.clone(), FIELD, s("new")).await;
        self.set(state, &format!("attempts[0].{FIELD}"), s("new"))
            .await;
    }

    async fn fields(&self, id: &ExecutionId) -> [Option<String>; 2] {
        let [_, state] = self.keys(id);
        let state = self.get(state).await;
        let text = |item: &Item| item.get(FIELD)?.as_s().ok().cloned();
        let attempts = state
            .get("attempts")
            .and_then(|attempts| attempts.as_l().ok())
            .expect("there are some");
        [text(&state), attempts[0].as_m().ok().and_then(text)]
    }

    async fn set_status(&self, id: &ExecutionId, status: &str) {
        let [_, state] = self.keys(id);
        self.set(state, "status", s(status)).await;
    }

    async fn raise_version(&self, id: &ExecutionId) {
        let [_, state] = self.keys(id);
        self.set(state, "v", AttributeValue::N((NEWEST + 1).to_string()))
            .await;
    }

    async fn change_backlog_state(&self, key: &LimitKey, held: Option<&str>) {
        match held {
            Some(held) => self.set(Self::backlog_key(key), "held", s(held)).await,
            None => self.set(Self::backlog_key(key), FIELD, s("new")).await,
        }
    }

    async fn backlog_state_field(&self, key: &LimitKey) -> Option<String> {
        self.get(Self::backlog_key(key))
            .await
            .get(FIELD)?
            .as_s()
            .ok()
            .cloned()
    }
}

mod spoilt {
    crate::contract::spoilt::suite!(super::fresh_and_raw);
    crate::contract::spoilt::newer!(super::fresh_and_raw);
}

impl CountEnds for DynamoStore {
    async fn count_ends(&self, ids: &[ExecutionId]) {
        count_in(self, ids).await;
    }
}

mod statistics {
    crate::contract::statistics::suite!(super::fresh_store);
    crate::contract::statistics::batch_suite!(super::fresh_store);
}

/// The key of an item of the tests' month.
fn statistics_key(sk: &str) -> Item {
    [("pk", "STATS#2025-11"), ("sk", sk)]
        .map(|(name, text)| (name.to_owned(), s(text)))
        .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tallies_keep_what_a_newer_release_wrote() {
    let (store, raw) = fresh_and_raw().await;
    count_these(&store, vec![end(1, "build", 0)]).await;
    let [day, named] = ["day#24", "name#24#=build"].map(statistics_key);
    let inner = [
        format!("statuses.SUCCEEDED.{FIELD}"),
        format!("tally.{FIELD}"),
    ];
    for (key, inner) in [&day, &named].into_iter().zip(&inner) {
        raw.set(key.clone(), FIELD, s("new")).await;
        raw.set(key.clone(), inner, s("new")).await;
    }
    count_these(&store, vec![end(2, "build", 0)]).await;
    for (key, inner) in [day, named].into_iter().zip(inner) {
        let item = raw.get(key).await;
        assert_eq!(item.get(FIELD), Some(&s("new")));
        let mut path = inner.split('.');
        let mut value = item.get(path.next().expect("a name")).expect("it is there");
        for name in path {
            value = &value.as_m().expect("a map")[name];
        }
        assert_eq!(*value, s("new"), "{inner}");
    }
}

/// The day of the end cannot be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_cannot_be_counted_stops_no_other() {
    let (store, raw) = fresh_and_raw().await;
    count_these(&store, vec![end(1, "build", 0)]).await;
    let newer = AttributeValue::N((NEWEST + 1).to_string());
    raw.set(statistics_key("day#24"), "v", newer).await;
    let unread = ended(&store, Wish::default(), 0).await;
    count_in(&store, &[unread.id]).await;
    let next_day = end(2, "build", 24 * 60);
    count_these(&store, vec![next_day.clone()]).await;
    let days = end(1, "", 0).day()..=next_day.day();
    let tallies = store.tallies(Dimension::Day, days).await;
    let days: Vec<_> = tallies
        .expect("the store answers")
        .iter()
        .map(|tally| tally.day)
        .collect();
    assert_eq!(days, [next_day.day()]);
}

mod store {
    crate::contract::store::suite!(super::fresh_store);
}

mod keys {
    crate::contract::keys::suite!(super::fresh_store);
}

mod definitions {
    crate::contract::definitions::suite!(super::fresh_store);
}

/// After some minutes the launch batch is the sweep's only way to a run. The release that can read
/// the record needs it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_run_stays_among_what_was_launched_however_long_it_cannot_be_read() {
    let (store, raw) = fresh_and_raw().await;
    let mut ids = Vec::new();
    for entropy in 1..=4 {
        let execution = Wish {
            entropy,
            ..Wish::default()
        }
        .submit(&store)
        .await;
        ids.push(launch(&store, &execution).await.id);
    }
    raw.spoil(&ids[0]).await;
    raw.set_status(&ids[1], "PAUSED").await;
    let over = store
        .load(&ids[3])
        .await
        .expect("it answers")
        .expect("it is there");
    close(&store, &over, 0).await;
    let later = DynamoStore::new(raw.table.client.clone(), &raw.table.name, 90)
        .with_clock(|| now() + TimeDelta::minutes(10))
        .settling(std::time::Duration::ZERO);
    for _ in 0..3 {
        sweep(&later).await;
    }
    // The release that knows the status finds it so.
    raw.set_status(&ids[1], "LAUNCHING").await;
    let id = |loaded: &Loaded| match loaded {
        Ok(execution) => execution.id.clone(),
        Err(corrupt) => corrupt.id().expect("it names the execution").clone(),
    };
    let mut left: Vec<_> = later
        .launched(None, 9)
        .await
        .expect("it answers")
        .items
        .iter()
        .map(id)
        .collect();
    left.sort();
    ids.truncate(3);
    assert_eq!(left, ids);
    let [readable, of_a_newer_release] = [CPU; 2];
    assert_eq!(
        later.usage(&POOL).await.expect("it answers").used,
        readable + of_a_newer_release
    );
}

/// The launcher of an older release would start such a run without its files or with a small disk,
/// or could not start it.
/// It leaves alone what has a higher version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_an_older_launcher_would_misread_has_a_higher_version() {
    let (store, _table) = fresh_store().await;
    let plain = Wish::default().execution();
    let mut with_files = Wish::of("alice", 1).execution();
    with_files.request.artifacts = Some(Artifacts {
        globs: vec!["dist/**".parse().expect("a pattern")],
        on: ArtifactsOn::default(),
    });
    let mut large = Wish::of("alice", 2).execution();
    large.request.command = CommandLine::Text("x".repeat(20_000));
    let mut with_disk = Wish::of("alice", 3).execution();
    with_disk.request.storage = TaskStorage::new(50).ok();
    for (execution, version) in [
        (plain, "1"),
        (with_files, "2"),
        (large, "2"),
        (with_disk, "2"),
    ] {
        let [request, state] = store.items(&execution).expect("it can be spelled");
        let version = AttributeValue::N(version.into());
        assert_eq!(request.get("v"), Some(&version));
        assert_eq!(state.get("v"), Some(&AttributeValue::N("1".into())));
        let created = store.create(&execution, None).await.expect("it answers");
        assert_eq!(created, Created::New);
        let read = store.load(&execution.id).await.expect("it answers");
        assert_eq!(read.as_ref(), Some(&execution));
        let launched = launch(&store, &execution).await;
        let read = store.load(&execution.id).await.expect("it answers");
        assert_eq!(read, Some(launched), "with its RunTask input");
    }
}

/// A process died after it wrote the request and before it wrote the state. Then another request
/// takes the same id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_a_crash_left_behind_is_replaced_by_the_one_that_is_accepted() {
    let (store, table) = fresh_store().await;
    let abandoned = Wish {
        priority: 7,
        ..Wish::default()
    }
    .execution();
    let [request, _] = store.items(&abandoned).expect("it can be spelled");
    table
        .client
        .put_item()
        .table_name(&table.name)
        .set_item(Some(request))
        .send()
        .await
        .expect("it is put");
    assert_eq!(
        store.load(&abandoned.id).await.expect("the store answers"),
        None
    );
    let accepted = Wish::default().execution();
    assert_eq!(
        store
            .create(&accepted, None)
            .await
            .expect("the store answers"),
        Created::New
    );
    assert_eq!(
        store.load(&accepted.id).await.expect("the store answers"),
        Some(accepted)
    );
}
