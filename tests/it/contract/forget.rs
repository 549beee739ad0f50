//! Removing an unreadable record: the rules for one machine and for a table, then the rules of
//! each.

use domain::ecs::TaskArn;
use std::{collections::HashMap, future::Future};
use tests::ecs::RUNNING;

use aws::dynamo::DynamoStore;
use aws_sdk_dynamodb::types::AttributeValue;
use domain::{
    ecs::Task,
    execution::Execution,
    forget::{Forgetting, Forgotten, Untold},
    history::Filter,
    id::ExecutionId,
    limit::LimitKey,
    ports::{Claim, Created, ReadStore, UpdateError, WriteStore},
    transition::Observation,
};
use local::{
    database::{Database, WorkerId},
    store::LocalStore,
};
use tempfile::TempDir;
use tests::Store;
use tests::table::Table;

use super::records::{
    CPU, POOL, Wish, admissions, at, launch, launching, lock, sweep, task_arn, task_id,
};

const ANSWERS: &str = "the store answers";

/// A store with records that a test can spoil.
pub(crate) trait Case: Sync {
    /// The adapter.
    type Adapter: Store;
    fn store(&self) -> &Self::Adapter;
    /// `stopped` is a task that is known to be over.
    fn forget(
        &self,
        id: &ExecutionId,
        stopped: Option<&TaskArn>,
    ) -> impl Future<Output = Forgetting> + Send;
    /// Gives the request a value that this release does not know.
    fn spoil(&self, id: &ExecutionId) -> impl Future<Output = ()> + Send;
}

/// Makes a test of each rule, for the case that `$fresh` makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::rules! { forget, $fresh:
            a_record_that_can_be_read_stays
            what_is_not_there_is_missing
            a_lock_and_a_place_of_a_group_are_free_again
            what_others_hold_stays_held
            what_waits_leaves_its_backlog
        }
    };
}

fn group(name: &str) -> LimitKey {
    LimitKey::Group(name.parse().expect("a name"))
}

fn locked(at: i64) -> Wish {
    Wish {
        lock: Some("deploy"),
        group: Some("nightly"),
        max_parallel: Some(1),
        ..Wish::of("a", at)
    }
}

/// An execution with a running task.
async fn running(store: &impl Store, wish: Wish) -> Execution {
    let launched = launch(store, &wish.submit(store).await).await;
    let task = Task {
        task_arn: task_arn(&launched),
        last_status: RUNNING.into(),
        version: 2,
        ..Task::default()
    };
    let seen = launched
        .observe(1, &Observation::Task(&task), at(5_000))
        .expect("it is news");
    store
        .update(&launched, seen, &[])
        .await
        .expect("nobody else writes it")
}

/// Removes a record. Its task, if it has one, is over.
async fn forgotten(case: &impl Case, id: &ExecutionId) -> Forgotten {
    let mut stopped = None;
    loop {
        match case.forget(id, stopped.as_ref()).await {
            Forgetting::Forgotten(forgotten) => return forgotten,
            Forgetting::Runs { task_arn } if stopped.is_none() => stopped = Some(task_arn),
            other => panic!("{other:?}"),
        }
    }
}

async fn used(store: &impl Store, key: &LimitKey) -> u32 {
    store.usage(key).await.expect(ANSWERS).used
}

pub(crate) async fn a_record_that_can_be_read_stays<C: Case>(case: C) {
    let running = running(case.store(), locked(0)).await;
    assert_eq!(case.forget(&running.id, None).await, Forgetting::Readable);
    assert_eq!(
        case.store().load(&running.id).await.expect(ANSWERS),
        Some(running)
    );
    assert_eq!(used(case.store(), &lock("deploy")).await, 1);
}

pub(crate) async fn what_is_not_there_is_missing<C: Case>(case: C) {
    assert_eq!(
        case.forget(&Wish::default().execution().id, None).await,
        Forgetting::Missing
    );
    let id = Wish::of("a", 0).submit(case.store()).await.id;
    case.spoil(&id).await;
    forgotten(&case, &id).await;
    assert_eq!(
        case.forget(&id, None).await,
        Forgetting::Missing,
        "once is enough"
    );
}

pub(crate) async fn a_lock_and_a_place_of_a_group_are_free_again<C: Case>(case: C) {
    let store = case.store();
    let spoilt = running(store, locked(0)).await;
    // The other submitter gives it an id with another end.
    let next = Wish {
        by: "b",
        ..locked(1)
    }
    .submit(store)
    .await;
    case.spoil(&spoilt.id).await;
    assert!(store.load(&spoilt.id).await.is_err(), "it cannot be read");
    let held = store
        .update(&next, launching(&next, at(10)), &admissions(&next, None))
        .await;
    assert!(matches!(held, Err(UpdateError::Full(_))), "{held:?}");

    let Forgotten {
        id,
        released,
        untold,
        ..
    } = forgotten(&case, &spoilt.id).await;
    assert_eq!((&id, untold), (&spoilt.id, vec![]));
    assert!(
        released.contains(&lock("deploy")) && released.contains(&group("nightly")),
        "{released:?}"
    );
    assert_eq!(
        (
            used(store, &lock("deploy")).await,
            used(store, &group("nightly")).await
        ),
        (0, 0)
    );
    launch(store, &next).await;

    assert_eq!(store.load(&spoilt.id).await.expect(ANSWERS), None);
    for fragment in [
        spoilt.id.to_string(),
        spoilt.id.as_str()[20..].to_owned(),
        task_id(&spoilt),
    ] {
        assert_eq!(
            store.find(&fragment, 9).await.expect(ANSWERS),
            [],
            "{fragment}"
        );
    }
    let listed = store
        .list(&Filter::default(), None, 9)
        .await
        .expect(ANSWERS)
        .items;
    let ids: Vec<_> = listed
        .into_iter()
        .map(|loaded| loaded.expect("it can be read").id)
        .collect();
    assert_eq!(ids, [next.id]);
}

pub(crate) async fn what_others_hold_stays_held<C: Case>(case: C) {
    let store = case.store();
    let other = running(
        store,
        Wish {
            lock: Some("other"),
            ..Wish::of("b", 1)
        },
    )
    .await;
    let spoilt = running(store, locked(0)).await;
    case.spoil(&spoilt.id).await;
    forgotten(&case, &spoilt.id).await;
    assert_eq!(
        (
            used(store, &lock("other")).await,
            used(store, &lock("deploy")).await
        ),
        (1, 0)
    );
    assert_eq!(store.load(&other.id).await.expect(ANSWERS), Some(other));
}

pub(crate) async fn what_waits_leaves_its_backlog<C: Case>(case: C) {
    let store = case.store();
    let holder = running(store, locked(0)).await;
    let (spoilt, next) = (locked(1).submit(store).await, locked(2).submit(store).await);
    case.spoil(&spoilt.id).await;
    assert_eq!(forgotten(&case, &spoilt.id).await.released, []);
    let backlog = store
        .backlog(&lock("deploy"), at(9), 9)
        .await
        .expect(ANSWERS);
    assert_eq!(
        backlog
            .into_iter()
            .map(|entry| entry.id)
            .collect::<Vec<_>>(),
        [next.id]
    );
    assert_eq!(used(store, &lock("deploy")).await, 1);
    assert_eq!(store.load(&holder.id).await.expect(ANSWERS), Some(holder));
}

/// A database file, and a connection that writes past mycli.
struct OneMachine {
    store: LocalStore,
    folder: TempDir,
}

impl OneMachine {
    fn sql(&self, sql: &str, id: &ExecutionId) {
        let file =
            rusqlite::Connection::open(self.folder.path().join("store.sqlite")).expect("it opens");
        assert_eq!(file.execute(sql, [id.as_str()]).expect("it is written"), 1);
    }
}

impl Case for OneMachine {
    type Adapter = LocalStore;

    fn store(&self) -> &LocalStore {
        &self.store
    }

    async fn forget(&self, id: &ExecutionId, stopped: Option<&TaskArn>) -> Forgetting {
        self.store.forget(id, stopped).await.expect(ANSWERS)
    }

    async fn spoil(&self, id: &ExecutionId) {
        self.sql("UPDATE executions SET record = json_set(record, '$.request.arch', 'mips') WHERE id = ?1", id);
    }
}

#[expect(clippy::unused_async, reason = "as the other is")]
async fn on_one_machine() -> (OneMachine, ()) {
    let folder = tempfile::tempdir().expect("a folder");
    let database =
        Database::open(&folder.path().join("store.sqlite"), WorkerId::new()).expect("it opens");
    (
        OneMachine {
            store: LocalStore::new(database),
            folder,
        },
        (),
    )
}

mod one_machine {
    crate::contract::forget::suite!(super::on_one_machine);
}

/// The usage of each limit is the sum over all other records, so nothing of this record has to be
/// read.
#[tokio::test]
async fn a_row_that_tells_nothing_gives_back_all_the_same() {
    let (machine, ()) = on_one_machine().await;
    let other = running(&machine.store, Wish::of("b", 1)).await;
    let broken = running(&machine.store, locked(0)).await;
    machine.sql(
        "UPDATE executions SET record = 'no JSON', status = x'ff' WHERE id = ?1",
        &broken.id,
    );
    let Forgotten {
        released, untold, ..
    } = forgotten(&machine, &broken.id).await;
    assert_eq!(
        (released, untold),
        (vec![group("nightly"), lock("deploy"), POOL], vec![])
    );
    assert_eq!(used(&machine.store, &POOL).await, CPU);
    assert_eq!(
        machine.store.load(&other.id).await.expect(ANSWERS),
        Some(other)
    );
}

#[tokio::test]
async fn what_another_broken_row_may_hold_is_not_given_away() {
    let (machine, ()) = on_one_machine().await;
    let (broken, spoilt) = (
        running(&machine.store, locked(0)).await,
        Wish {
            lock: Some("other"),
            ..Wish::of("b", 1)
        },
    );
    let spoilt = running(&machine.store, spoilt).await;
    machine.sql(
        "UPDATE executions SET record = 'no JSON' WHERE id = ?1",
        &broken.id,
    );
    machine.spoil(&spoilt.id).await;
    assert_eq!(
        forgotten(&machine, &spoilt.id).await.released,
        [lock("other"), POOL]
    );
    assert_eq!(
        (
            used(&machine.store, &lock("deploy")).await,
            used(&machine.store, &POOL).await
        ),
        (1, CPU)
    );
}

/// A table, and a client that writes past mycli.
struct Stack {
    store: DynamoStore,
    table: Table,
}

impl Stack {
    /// Every item of an execution: its request, its state and its task.
    async fn items(&self, execution: &ExecutionId) -> Vec<HashMap<String, AttributeValue>> {
        let backwards: String = execution.as_str()["exec_".len()..].chars().rev().collect();
        let all = self
            .table
            .client
            .scan()
            .table_name(&self.table.name)
            .send()
            .await
            .expect(ANSWERS);
        let is = |item: &HashMap<String, AttributeValue>, name: &str, text: &str| {
            item.get(name) == Some(&AttributeValue::S(text.to_owned()))
        };
        let own = |item: &HashMap<String, AttributeValue>| {
            is(item, "sk", execution.as_str())
                || is(item, "sk", &backwards)
                || is(item, "execution", execution.as_str())
        };
        all.items
            .unwrap_or_default()
            .into_iter()
            .filter(own)
            .collect()
    }

    async fn set(&self, id: &ExecutionId, of_request: &str, value: AttributeValue) {
        let items = self.items(id).await;
        let request = items
            .iter()
            .find(|item| item.get("sk") == Some(&AttributeValue::S(id.to_string())));
        let key = request
            .expect("it has a request")
            .clone()
            .into_iter()
            .filter(|(name, _)| name == "pk" || name == "sk");
        let update = self
            .table
            .client
            .update_item()
            .table_name(&self.table.name)
            .set_key(Some(key.collect()));
        let update = update
            .update_expression(format!("SET {of_request} = :value"))
            .expression_attribute_names("#request", "request");
        update
            .expression_attribute_values(":value", value)
            .send()
            .await
            .expect(ANSWERS);
    }
}

impl Case for Stack {
    type Adapter = DynamoStore;

    fn store(&self) -> &DynamoStore {
        &self.store
    }

    async fn forget(&self, id: &ExecutionId, stopped: Option<&TaskArn>) -> Forgetting {
        self.store.forget(id, stopped).await.expect(ANSWERS)
    }

    async fn spoil(&self, id: &ExecutionId) {
        self.set(id, "#request.arch", AttributeValue::S("mips".into()))
            .await;
    }
}

fn now() -> domain::Timestamp {
    at(1_000_000)
}

async fn on_a_stack() -> (Stack, ()) {
    let table = Table::create().await;
    let store = DynamoStore::new(table.client.clone(), &table.name, 90)
        .with_clock(now)
        .settling(std::time::Duration::ZERO);
    (Stack { store, table }, ())
}

mod stack {
    crate::contract::forget::suite!(super::on_a_stack);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_it_stays_in_the_table_and_its_task_is_named() {
    let (stack, ()) = on_a_stack().await;
    let spoilt = running(&stack.store, locked(0)).await;
    stack.spoil(&spoilt.id).await;
    assert_eq!(stack.items(&spoilt.id).await.len(), 3);
    // Nobody else gets its lock while its task runs.
    assert_eq!(
        stack.forget(&spoilt.id, None).await,
        Forgetting::Runs {
            task_arn: task_arn(&spoilt)
        }
    );
    assert_eq!(
        stack.forget(&spoilt.id, Some(&"arn:another".into())).await,
        Forgetting::Runs {
            task_arn: task_arn(&spoilt)
        }
    );
    assert_eq!(
        (
            stack.items(&spoilt.id).await.len(),
            used(&stack.store, &lock("deploy")).await
        ),
        (3, 1)
    );
    let forgotten = forgotten(&stack, &spoilt.id).await;
    assert_eq!(forgotten.task_arn, Some(task_arn(&spoilt)));
    assert_eq!(stack.items(&spoilt.id).await, []);
    assert_eq!(
        used(&stack.store, &POOL).await,
        CPU,
        "pools are the sweep's"
    );
    for _ in 0..3 {
        sweep(&stack.store).await;
    }
    assert_eq!(used(&stack.store, &POOL).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broken_request_does_not_tell_is_said() {
    let (stack, ()) = on_a_stack().await;
    let broken = running(&stack.store, locked(0)).await;
    stack
        .set(&broken.id, "#request", AttributeValue::N("1".into()))
        .await;
    let Forgotten {
        released, untold, ..
    } = forgotten(&stack, &broken.id).await;
    assert_eq!(
        (released, untold),
        (vec![], vec![Untold::Lock, Untold::Group])
    );
    assert_eq!(
        used(&stack.store, &lock("deploy")).await,
        1,
        "nobody knows that it held it"
    );
}

/// A repeated request would otherwise create it again, under its old id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_idempotency_key_is_free_again() {
    let (stack, ()) = on_a_stack().await;
    let mut execution = Wish::of("a", 0).execution();
    execution.request.idempotency_key = Some("nightly".parse().expect("a key"));
    let claim = |id| Claim {
        key: format!(
            "{}/nightly",
            execution.submitted_by_id.clone().expect("a principal")
        ),
        digest: format!("digest of {id}"),
        expires_at: now() + chrono::TimeDelta::hours(24),
    };
    let created = stack
        .store
        .create(&execution, Some(&claim(1)))
        .await
        .expect(ANSWERS);
    assert_eq!(created, Created::New);
    stack.spoil(&execution.id).await;
    forgotten(&stack, &execution.id).await;
    let again = Wish::of("a", 1).execution();
    assert_eq!(
        stack
            .store
            .create(&again, Some(&claim(2)))
            .await
            .expect(ANSWERS),
        Created::New
    );
}

/// A counter below zero would let two runs hold the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_not_counted_is_not_given_back() {
    let (stack, ()) = on_a_stack().await;
    let spoilt = running(&stack.store, locked(0)).await;
    stack.spoil(&spoilt.id).await;
    let key = HashMap::from([
        ("pk".to_owned(), AttributeValue::S("U#lock:deploy".into())),
        ("sk".to_owned(), AttributeValue::S("U".into())),
    ]);
    let delete = stack
        .table
        .client
        .delete_item()
        .table_name(&stack.table.name)
        .set_key(Some(key));
    delete.send().await.expect(ANSWERS);
    assert_eq!(
        forgotten(&stack, &spoilt.id).await.released,
        [group("nightly")]
    );
    launch(&stack.store, &locked(1).submit(&stack.store).await).await;
    assert_eq!(used(&stack.store, &lock("deploy")).await, 1);
}

pub(crate) use suite;
