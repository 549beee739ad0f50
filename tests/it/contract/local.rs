//! The contract suites on the store and the queue of one machine, and the rules for a file that
//! several processes share.

use std::{
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::ecs::STOPPED;

use chrono::{SubsecRound, Utc};
use domain::{
    ecs::{RunTaskInput, Task},
    execution::{Execution, ExecutionStatus},
    group::{GroupCancel, GroupRerun},
    history::Filter,
    id::ExecutionId,
    limit::{LimitKey, RateKey},
    message::{Message, Outgoing, QueueName},
    ports::{Definitions, LaunchStore, PortError, Queue, ReadStore, SweepStore, WriteStore},
    principal::Principal,
    quota::Rate,
    request::Name,
    scheduler::state::LimitState,
    stored::NEWEST,
    task::TaskDefinition,
};
use local::{
    database::{Database, Limits, OpenError, WorkerId},
    queue::{LocalQueue, LocalReceived, MAX_RECEIVES},
    store::LocalStore,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{callers::caller, loaded::all};

use super::{
    queue::{Got, Receiver},
    records::{CPU, POOL, Wish, at, close, launch, lock, run_task_input, task_arn, task_id},
    spoilt::{Newer, Spoil},
    statistics::CountEnds,
};

const ANSWERS: &str = "the file answers";
const LONG: Duration = Duration::from_secs(300);

pub(crate) struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("machine/store.sqlite")
    }

    fn open(&self) -> Database {
        Database::open(&self.path(), WorkerId::new()).expect("it opens")
    }
}

fn arn_of(execution: &Execution) -> String {
    task_arn(execution).to_string()
}

pub(crate) async fn fresh_store() -> (LocalStore, Dir) {
    let dir = Dir::new();
    (LocalStore::new(dir.open()), dir)
}

async fn fresh_queue() -> (LocalQueue, Dir) {
    let dir = Dir::new();
    (
        LocalQueue::new(dir.open(), |worker| panic!("{worker} is nobody here")),
        dir,
    )
}

/// Reaches the records past the store, as another release's process would.
impl Dir {
    fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).expect("it opens")
    }

    fn change(&self, id: &ExecutionId, change: impl FnOnce(&mut Value)) {
        let file = self.raw();
        let mut record = self.record(id);
        change(&mut record);
        let set = "UPDATE executions SET record = ?2 WHERE id = ?1";
        assert_eq!(file.execute(set, [id.as_str(), &record.to_string()]), Ok(1));
    }

    fn record(&self, id: &ExecutionId) -> Value {
        let select = "SELECT record FROM executions WHERE id = ?1";
        let json: String = self
            .raw()
            .query_row(select, [id.as_str()], |row| row.get(0))
            .expect("it is there");
        serde_json::from_str(&json).expect("JSON")
    }

    fn backlog_state(&self, key: &LimitKey) -> Value {
        let select = "SELECT state FROM line_states WHERE line = ?1";
        let json: String = self
            .raw()
            .query_row(select, [key.to_string()], |row| row.get(0))
            .expect("it is there");
        serde_json::from_str(&json).expect("JSON")
    }
}

impl Spoil for Dir {
    async fn spoil(&self, id: &ExecutionId) {
        self.change(id, |record| record["request"]["arch"] = json!("riscv"));
    }
}

impl Newer for Dir {
    async fn add_fields(&self, id: &ExecutionId) {
        self.change(id, |record| {
            record["of_a_newer_release"] = json!("new");
            record["attempts"][0]["of_a_newer_release"] = json!("new");
        });
    }

    async fn fields(&self, id: &ExecutionId) -> [Option<String>; 2] {
        let record = self.record(id);
        let text = |value: &Value| value["of_a_newer_release"].as_str().map(str::to_owned);
        [text(&record), text(&record["attempts"][0])]
    }

    async fn set_status(&self, id: &ExecutionId, status: &str) {
        self.change(id, |record| {
            record["state"] = json!({"status": status, "after": ["exec_1"]});
        });
    }

    async fn raise_version(&self, id: &ExecutionId) {
        self.change(id, |record| record["v"] = json!(NEWEST + 1));
    }

    async fn change_backlog_state(&self, key: &LimitKey, held: Option<&str>) {
        let mut state = self.backlog_state(key);
        match held {
            Some(held) => state["held"] = json!(held),
            None => state["of_a_newer_release"] = json!("new"),
        }
        let set = "UPDATE line_states SET state = ?2 WHERE line = ?1";
        assert_eq!(
            self.raw()
                .execute(set, [key.to_string(), state.to_string()]),
            Ok(1)
        );
    }

    async fn backlog_state_field(&self, key: &LimitKey) -> Option<String> {
        self.backlog_state(key)["of_a_newer_release"]
            .as_str()
            .map(str::to_owned)
    }
}

mod spoilt {
    crate::contract::spoilt::suite!(super::fresh_store);
    crate::contract::spoilt::newer!(super::fresh_store);
}

impl CountEnds for LocalStore {
    /// The write that ends a run has counted it.
    async fn count_ends(&self, _ids: &[ExecutionId]) {}
}

mod statistics {
    crate::contract::statistics::suite!(super::fresh_store);
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

mod queue {
    crate::contract::queue::suite!(super::fresh_queue);
}

impl Receiver for LocalQueue {
    type Handle = LocalReceived;
    const MAX_RECEIVES: u32 = MAX_RECEIVES;

    async fn receive(
        &self,
        queue: QueueName,
        max: u32,
        visibility: Duration,
    ) -> Vec<Got<LocalReceived>> {
        let received = Self::receive(self, queue, max, visibility)
            .await
            .expect(ANSWERS);
        let got = |handle: LocalReceived| Got {
            message: message(&handle.body),
            receives: handle.receives,
            handle,
        };
        received.into_iter().map(got).collect()
    }

    async fn delete(&self, handles: Vec<LocalReceived>) {
        Self::delete(self, handles).await.expect(ANSWERS);
    }

    async fn release(&self, handles: Vec<LocalReceived>) {
        Self::release(self, handles, Duration::ZERO)
            .await
            .expect(ANSWERS);
    }

    async fn dead_letters(&self) -> Vec<Message> {
        Self::dead_letters(self)
            .await
            .expect(ANSWERS)
            .iter()
            .map(|letter| message(&letter.body))
            .collect()
    }
}

fn message(body: &str) -> Message {
    serde_json::from_str(body).expect("a message")
}

/// Two processes with different workers on one file.
struct Two {
    _dir: Dir,
    here: Database,
    there: Database,
}

impl Two {
    fn new() -> Self {
        let dir = Dir::new();
        let (here, there) = (dir.open(), dir.open());
        Self {
            _dir: dir,
            here,
            there,
        }
    }

    fn stores(&self) -> (LocalStore, LocalStore) {
        (
            LocalStore::new(self.here.clone()),
            LocalStore::new(self.there.clone()),
        )
    }

    /// The queue of the first process, and the workers it woke.
    fn queue(&self) -> (LocalQueue, Arc<Mutex<Vec<WorkerId>>>) {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let wake = Arc::clone(&woken);
        (
            LocalQueue::new(self.here.clone(), move |worker| {
                wake.lock().expect("not poisoned").push(worker.clone());
            }),
            woken,
        )
    }
}

#[tokio::test]
async fn a_worker_has_its_own_backlogs_and_shares_all_else() {
    let two = Two::new();
    let (here, there) = two.stores();
    let mine = Wish::of("a", 0).submit(&here).await;
    let theirs = Wish::of("a", 1).submit(&there).await;
    let (mine_too, theirs_too) = (
        Wish::of("a", 2).submit(&here).await,
        Wish::of("a", 3).submit(&there).await,
    );
    let launched = launch(&here, &mine_too).await;
    launch(&there, &theirs_too).await;
    let backlog = here.backlog(&POOL, at(9), 9).await.expect(ANSWERS);
    assert_eq!(
        backlog
            .iter()
            .map(|backlog_entry| &backlog_entry.id)
            .collect::<Vec<_>>(),
        [&mine.id]
    );
    let place = here
        .ahead(&theirs.backlog_entry().expect("it waits"), 9)
        .await
        .expect(ANSWERS);
    assert_eq!(place, 0, "the place counts those in its own pump's line");
    assert_eq!(
        all(here.launched(None, 9).await.expect(ANSWERS).items),
        [launched]
    );

    launch(&here, &mine).await;
    assert_eq!(here.backlogs(at(9)).await.expect(ANSWERS), []);
    assert_eq!(there.backlogs(at(9)).await.expect(ANSWERS), [POOL]);
    assert_eq!(there.usage(&POOL).await.expect(ANSWERS).used, 3 * CPU);
    assert_eq!(
        there
            .list(&Filter::default(), None, 9)
            .await
            .expect(ANSWERS)
            .items
            .len(),
        4
    );
}

#[tokio::test]
async fn what_a_dead_worker_left_is_taken_over_once() {
    let two = Two::new();
    let (here, there) = two.stores();
    let running = Wish::of("a", 0).submit(&there).await;
    let running = launch(&there, &running).await;
    let waiting = Wish::of("a", 1).submit(&there).await;
    let over = Wish::of("a", 2).submit(&there).await;
    close(&there, &launch(&there, &over).await, 0).await;
    insert_task(&two.there, &running).await;
    let (queue, _) = two.queue();
    queue
        .send(vec![
            Message::Check {
                id: running.id.clone(),
            }
            .into(),
        ])
        .await
        .expect(ANSWERS);

    assert!(two.there.has_unfinished_here().await.expect(ANSWERS));
    let dead = two.there.worker().clone();
    assert!(
        two.here.workers().await.expect(ANSWERS).contains(&dead),
        "who has recorded something is known"
    );
    assert!(
        two.here
            .adopt(&dead, Limits::default())
            .await
            .expect(ANSWERS)
    );
    assert!(
        !two.here
            .adopt(&dead, Limits::default())
            .await
            .expect(ANSWERS),
        "there is nothing left to take"
    );
    assert!(!two.here.workers().await.expect(ANSWERS).contains(&dead));

    let mine: Vec<_> = all(here.launched(None, 9).await.expect(ANSWERS).items)
        .into_iter()
        .map(|execution| execution.id)
        .collect();
    assert_eq!(mine, std::slice::from_ref(&running.id));
    assert_eq!(
        here.backlog(&POOL, at(9), 9).await.expect(ANSWERS)[0].id,
        waiting.id
    );
    assert_eq!(two.here.open_tasks().await.expect(ANSWERS).len(), 1);
    assert_eq!(two.there.open_tasks().await.expect(ANSWERS), []);
    assert_eq!(
        queue
            .receive(QueueName::Control, 9, LONG)
            .await
            .expect(ANSWERS)
            .len(),
        1
    );
    assert!(!two.there.has_unfinished_here().await.expect(ANSWERS));
    assert_eq!(
        here.usage(&POOL).await.expect(ANSWERS).used,
        CPU,
        "the slot is still held, once"
    );
}

#[test]
fn of_two_limits_the_tighter_one_holds() {
    let limits = |vcpus, launch_rate| Limits { vcpus, launch_rate };
    for (one, other, both) in [
        (
            limits(None, None),
            limits(Some(4.0), Some(0.5)),
            limits(Some(4.0), Some(0.5)),
        ),
        (
            limits(Some(2.0), None),
            limits(Some(4.0), Some(0.5)),
            limits(Some(2.0), Some(0.5)),
        ),
        (
            limits(Some(4.0), Some(9.0)),
            limits(Some(2.0), None),
            limits(Some(2.0), Some(9.0)),
        ),
    ] {
        assert_eq!((one.and(other), other.and(one)), (both, both));
        assert!(!both.is_none());
    }
}

#[tokio::test]
async fn limits_go_with_the_work_that_they_are_for() {
    let two = Two::new();
    let (bounded, dead) = (
        Limits {
            vcpus: Some(2.0),
            launch_rate: Some(0.5),
        },
        two.there.worker().clone(),
    );
    two.there.register_worker(bounded).await.expect(ANSWERS);
    assert_eq!(
        two.here.limits(&dead).await.expect(ANSWERS),
        Limits::default(),
        "there is nothing to be run"
    );
    Wish::of("a", 0).submit(&two.stores().1).await;
    assert_eq!(two.here.limits(&dead).await.expect(ANSWERS), bounded);
    assert!(two.here.adopt(&dead, bounded).await.expect(ANSWERS));
    assert_eq!(
        two.there.limits(two.here.worker()).await.expect(ANSWERS),
        bounded,
        "whoever comes next finds them"
    );
}

#[tokio::test]
async fn a_worker_with_unfinished_work_is_not_forgotten() {
    let dir = Dir::new();
    let database = dir.open();
    let store = LocalStore::new(database.clone());
    database
        .register_worker(Limits::default())
        .await
        .expect(ANSWERS);
    let execution = Wish::default().submit(&store).await;
    assert!(!database.unregister_worker().await.expect(ANSWERS));
    assert_eq!(
        database.workers().await.expect(ANSWERS),
        [database.worker().clone()]
    );
    let launched = launch(&store, &execution).await;
    insert_task(&database, &launched).await;
    close(&store, &launched, 0).await;
    assert!(
        !database.unregister_worker().await.expect(ANSWERS),
        "its task is not stopped"
    );
    stop_task(&database, &launched).await;
    assert!(database.unregister_worker().await.expect(ANSWERS));
    assert_eq!(database.workers().await.expect(ANSWERS), []);
}

#[tokio::test]
async fn a_message_goes_to_the_worker_that_runs_what_it_is_about() {
    let two = Two::new();
    let (here, there) = two.stores();
    let (queue, woken) = two.queue();
    let mine = Wish::of("a", 0).submit(&here).await;
    let theirs = Wish::of("a", 1).submit(&there).await;
    let there_queue = LocalQueue::new(two.there.clone(), |_| {});

    let about = |id| Message::Wakeup { backlog: POOL, id };
    let messages = [
        Message::Check {
            id: theirs.id.clone(),
        },
        about(Some(theirs.id.clone())),
        about(Some(mine.id.clone())),
    ];
    queue
        .send(messages.into_iter().map(Outgoing::from).collect())
        .await
        .expect(ANSWERS);
    assert_eq!(
        *woken.lock().unwrap(),
        [two.there.worker().clone()],
        "once for two messages, and never ourselves"
    );
    assert_eq!(
        there_queue
            .receive(QueueName::Control, 9, LONG)
            .await
            .expect(ANSWERS)
            .len(),
        1
    );
    assert_eq!(
        there_queue
            .receive(QueueName::Launch, 9, LONG)
            .await
            .expect(ANSWERS)
            .len(),
        1
    );
    assert_eq!(
        queue
            .receive(QueueName::Launch, 9, LONG)
            .await
            .expect(ANSWERS)
            .len(),
        1
    );

    // A backlog wakeup that names no execution goes to the worker with the oldest entry, or else to
    // our own.
    queue.send(vec![about(None).into()]).await.expect(ANSWERS);
    assert_eq!(
        queue
            .receive(QueueName::Launch, 9, LONG)
            .await
            .expect(ANSWERS)
            .len(),
        1
    );
    launch(&here, &mine).await;
    queue.send(vec![about(None).into()]).await.expect(ANSWERS);
    assert_eq!(
        there_queue
            .receive(QueueName::Launch, 9, LONG)
            .await
            .expect(ANSWERS)
            .len(),
        1
    );
    launch(&there, &theirs).await;
    queue.send(vec![about(None).into()]).await.expect(ANSWERS);
    assert_eq!(
        queue
            .receive(QueueName::Launch, 9, LONG)
            .await
            .expect(ANSWERS)
            .len(),
        1
    );
}

#[tokio::test]
async fn a_waiter_hears_of_new_and_of_delayed_messages() {
    let dir = Dir::new();
    let queue = LocalQueue::new(dir.open(), |_| {});
    let arrived = async |name| {
        tokio::time::timeout(LONG, queue.arrived(name))
            .await
            .expect("it is told");
    };
    let check = Message::Check {
        id: Wish::default().execution().id,
    };
    let (sent, ()) = tokio::join!(
        queue.send(vec![check.clone().into()]),
        arrived(QueueName::Control)
    );
    sent.expect(ANSWERS);
    assert_eq!(
        queue
            .receive(QueueName::Control, 9, LONG)
            .await
            .expect(ANSWERS)
            .len(),
        1
    );

    // A delayed message wakes the worker twice: when it is sent and when it is due.
    queue
        .send(vec![Outgoing {
            message: check,
            delay_seconds: 1,
        }])
        .await
        .expect(ANSWERS);
    arrived(QueueName::Control).await;
    assert_eq!(
        queue
            .receive(QueueName::Control, 9, LONG)
            .await
            .expect(ANSWERS),
        []
    );
    let due = queue
        .next_due(QueueName::Control)
        .await
        .expect(ANSWERS)
        .expect("it waits");
    assert!(
        due > chrono::Utc::now() - chrono::TimeDelta::seconds(1)
            && due < chrono::Utc::now() + chrono::TimeDelta::seconds(2)
    );
    arrived(QueueName::Control).await;
    assert_eq!(
        queue
            .receive(QueueName::Control, 9, LONG)
            .await
            .expect(ANSWERS)
            .len(),
        1
    );
}

#[tokio::test]
async fn a_dead_letter_is_told_until_it_is_settled() {
    let dir = Dir::new();
    let queue = LocalQueue::new(dir.open(), |_| {});
    let check = Message::Check {
        id: Wish::default().execution().id,
    };
    queue.send(vec![check.clone().into()]).await.expect(ANSWERS);
    for _ in 0..=MAX_RECEIVES {
        queue
            .receive(QueueName::Control, 9, Duration::ZERO)
            .await
            .expect(ANSWERS);
    }
    for _ in 0..2 {
        let letters = queue.unsettled_dead_letters().await.expect(ANSWERS);
        assert_eq!(letters.len(), 1);
        assert_eq!(
            (message(&letters[0].body), letters[0].receives),
            (check.clone(), MAX_RECEIVES)
        );
    }
    let letters = queue.unsettled_dead_letters().await.expect(ANSWERS);
    queue.settle(letters).await.expect(ANSWERS);
    assert_eq!(queue.unsettled_dead_letters().await.expect(ANSWERS), []);
    let listed = queue.dead_letters().await.expect(ANSWERS);
    assert_eq!(listed.len(), 1, "it stays on the list");
    assert!(
        listed[0].reason.contains("received 5 times"),
        "{}",
        listed[0].reason
    );
}

fn definition() -> TaskDefinition {
    serde_json::from_value(serde_json::json!({
        "image": null, "arch": "x86_64", "entryPoint": ["/bin/sh", "-c"], "command": ["true"], "secrets": [], "logGroup": "g",
    }))
    .expect("a definition")
}

fn task(execution: &Execution, status: &str) -> Task {
    Task {
        task_arn: task_arn(execution),
        last_status: status.into(),
        ..Task::default()
    }
}

async fn insert_task(database: &Database, execution: &domain::execution::Execution) {
    let input = RunTaskInput {
        started_by: execution.id.attempt(1).to_string(),
        ..run_task_input(&Wish::default().execution())
    };
    let input = RunTaskInput {
        client_token: input.started_by.clone(),
        ..input
    };
    database
        .ensure_definition("hash", &definition())
        .await
        .expect(ANSWERS);
    database
        .insert_task(&input, "hash", &task(execution, "PROVISIONING"))
        .await
        .expect(ANSWERS);
}

async fn stop_task(database: &Database, execution: &domain::execution::Execution) {
    let stopped = serde_json::to_string(&task(execution, STOPPED)).expect("JSON");
    database
        .update_task(&arn_of(execution), None, stopped, true)
        .await
        .expect(ANSWERS);
}

#[tokio::test]
async fn a_client_token_names_one_task() {
    let two = Two::new();
    let execution = Wish::default().execution();
    insert_task(&two.here, &execution).await;
    let input = RunTaskInput {
        client_token: execution.id.attempt(1).to_string(),
        ..run_task_input(&execution)
    };
    let other = Task {
        task_arn: "arn:other".into(),
        ..task(&execution, "PENDING")
    };
    let row = two
        .there
        .insert_task(&input, "hash", &other)
        .await
        .expect(ANSWERS);
    assert_eq!(
        (row.arn, row.worker),
        (arn_of(&execution), two.here.worker().clone())
    );
    assert_eq!(
        two.here
            .tasks_started_by(&execution.id.attempt(1))
            .await
            .expect(ANSWERS),
        [arn_of(&execution)]
    );
    assert_eq!(
        two.here
            .tasks_started_by(&execution.id.attempt(11))
            .await
            .expect(ANSWERS),
        [] as [String; 0]
    );
    let unknown = RunTaskInput {
        client_token: "new".into(),
        ..input
    };
    assert!(matches!(
        two.here.insert_task(&unknown, "unknown", &other).await,
        Err(PortError::Rejected(_))
    ));
    assert_eq!(two.here.task("arn:other").await.expect(ANSWERS), None);
}

#[tokio::test]
async fn a_stop_is_asked_for_once_and_of_who_runs_the_task() {
    let two = Two::new();
    let execution = Wish::default().execution();
    insert_task(&two.there, &execution).await;
    let arn = arn_of(&execution);
    assert_eq!(two.here.stop_requested(&arn).await.expect(ANSWERS), None);
    assert_eq!(
        two.here.request_stop(&arn, "first").await.expect(ANSWERS),
        Some(two.there.worker().clone())
    );
    two.here.request_stop(&arn, "second").await.expect(ANSWERS);
    assert_eq!(
        two.there
            .stop_requested(&arn)
            .await
            .expect(ANSWERS)
            .as_deref(),
        Some("first")
    );
    two.there
        .update_task(&arn, Some("{\"pid\":7}".into()), "{}".into(), false)
        .await
        .expect(ANSWERS);
    two.there
        .update_task(&arn, None, "{\"version\":3}".into(), false)
        .await
        .expect(ANSWERS);
    let row = two
        .here
        .task(&arn)
        .await
        .expect(ANSWERS)
        .expect("it is there");
    assert_eq!(
        (row.runtime.as_deref(), row.task.as_str()),
        (Some("{\"pid\":7}"), "{\"version\":3}")
    );
    stop_task(&two.there, &execution).await;
    assert_eq!(
        two.here.request_stop(&arn, "late").await.expect(ANSWERS),
        None
    );
    assert_eq!(two.there.open_tasks().await.expect(ANSWERS), []);
}

#[tokio::test]
async fn what_ended_long_ago_is_pruned_with_all_that_is_its_own() {
    let dir = Dir::new();
    let database = dir.open();
    let store = LocalStore::new(database.clone());
    let old = Wish::of("a", 0).submit(&store).await;
    let old = launch(&store, &old).await;
    insert_task(&database, &old).await;
    stop_task(&database, &old).await;
    close(&store, &old, 0).await;
    let open = Wish::of("a", 1).submit(&store).await;
    // It ended at 60 s.
    assert_eq!(
        database.prune(at(60_000)).await.expect(ANSWERS).executions,
        0
    );
    let pruned = database.prune(at(60_001)).await.expect(ANSWERS);
    assert_eq!(
        (pruned.executions, pruned.task_ids),
        (1, vec![task_id(&old)])
    );
    assert_eq!(store.load(&old.id).await.expect(ANSWERS), None);
    assert_eq!(store.find(&arn_of(&old), 9).await.expect(ANSWERS), []);
    assert_eq!(database.task(&arn_of(&old)).await.expect(ANSWERS), None);
    assert_eq!(store.load(&open.id).await.expect(ANSWERS), Some(open));
}

#[tokio::test]
async fn what_was_launched_and_has_no_open_task_is_unsettled() {
    let dir = Dir::new();
    let database = dir.open();
    let store = LocalStore::new(database.clone());
    let execution = Wish::default().submit(&store).await;
    assert_eq!(
        database.unsettled().await.expect(ANSWERS),
        0,
        "it only waits"
    );
    let launched = launch(&store, &execution).await;
    assert_eq!(database.unsettled().await.expect(ANSWERS), 1);
    insert_task(&database, &launched).await;
    assert_eq!(database.unsettled().await.expect(ANSWERS), 0);
    stop_task(&database, &launched).await;
    assert_eq!(database.unsettled().await.expect(ANSWERS), 1);
    close(&store, &launched, 0).await;
    assert_eq!(database.unsettled().await.expect(ANSWERS), 0);
}

/// A lock may be named once and never again.
#[tokio::test]
async fn what_is_over_leaves_no_counter_behind() {
    let dir = Dir::new();
    let store = LocalStore::new(dir.open());
    for moment in 0..3 {
        Wish {
            lock: Some("once"),
            ..Wish::of("a", moment)
        }
        .submit(&store)
        .await;
    }
    for backlog_entry in store.backlog(&lock("once"), at(9), 9).await.expect(ANSWERS) {
        let execution = store
            .load(&backlog_entry.id)
            .await
            .expect(ANSWERS)
            .expect("it waits");
        close(&store, &launch(&store, &execution).await, 0).await;
    }
    drop(store);
    let connection = rusqlite::Connection::open(dir.path()).expect("it opens");
    for table in ["usage", "shares", "line_times"] {
        let rows: u32 = connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get(0)
            })
            .expect("a count");
        assert_eq!(rows, 0, "{table}");
    }
}

/// The index returns the backlog's first entries at a cost that does not grow with the backlog.
#[tokio::test]
async fn a_long_backlog_of_one_does_not_hide_another() {
    let dir = Dir::new();
    let store = LocalStore::new(dir.open());
    for chunk in 0..30 {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..100_i64 {
            let store = store.clone();
            tasks.spawn(async move { Wish::of("many", chunk * 100 + number).submit(&store).await });
        }
        tasks.join_all().await;
    }
    let one = Wish::of("one", 90_000).submit(&store).await;
    let backlog = store.backlog(&POOL, at(99_999), 2).await.expect(ANSWERS);
    assert_eq!(backlog[1].id, one.id);
    let last = Wish::of("many", 2_999)
        .execution()
        .backlog_entry()
        .expect("it waits");
    assert_eq!(store.ahead(&last, 100).await.expect(ANSWERS), 3_000);
}

#[test]
fn the_files_are_the_owners_alone() {
    let dir = Dir::new();
    let _database = dir.open();
    let mode = |path: &Path| {
        std::fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };
    let directory = dir.path().parent().expect("it has one").to_owned();
    assert_eq!(mode(&directory), 0o700);
    let files: Vec<_> = std::fs::read_dir(&directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date() {
    a_file_is_brought_up_to_date(
        "DROP TABLE group_work; DROP TABLE submissions; DROP TABLE line_states; DROP TABLE bookmark; DROP TABLE registrations; DROP INDEX executions_launched;
         ALTER TABLE buckets RENAME COLUMN key TO pool; DROP TABLE tallies; PRAGMA user_version = 1;",
    )
    .await;
}

#[tokio::test]
async fn a_file_of_the_version_before_is_brought_up_to_date() {
    a_file_is_brought_up_to_date(
        "DROP TABLE group_work; DROP TABLE submissions; DROP TABLE line_states; DROP TABLE tallies; PRAGMA user_version = 2;",
    )
    .await;
}

#[tokio::test]
async fn the_mark_of_a_group_in_a_file_of_the_version_before_is_kept() {
    let dir = Dir::new();
    let store = LocalStore::new(dir.open());
    let group: Name = "nightly".parse().expect("a name");
    let mark = GroupCancel::new(
        group.clone(),
        &caller("alice"),
        Utc::now().trunc_subsecs(3),
        None,
    );
    assert!(store.set_group_work(&mark).await.expect(ANSWERS));
    let before: Option<GroupCancel> = store.group_work(&group).await.expect(ANSWERS);
    drop(store);
    let connection = rusqlite::Connection::open(dir.path()).expect("it opens");
    connection
        .execute_batch(
            "CREATE TABLE group_cancels (name TEXT PRIMARY KEY, revision INTEGER NOT NULL, done INTEGER NOT NULL, expires_at INTEGER NOT NULL,
                 mark TEXT NOT NULL) WITHOUT ROWID;
             INSERT INTO group_cancels SELECT name, revision, done, expires_at, form FROM group_work;
             DROP TABLE group_work; DROP TABLE tallies; PRAGMA user_version = 6;",
        )
        .expect("what it was");
    drop(connection);
    let store = LocalStore::new(dir.open());
    assert!(before.is_some());
    assert_eq!(
        store
            .group_work::<GroupCancel>(&group)
            .await
            .expect(ANSWERS),
        before
    );
    assert_eq!(
        store.open_group_work::<GroupRerun>().await.expect(ANSWERS),
        []
    );
}

/// Several names belong to the machine's own user from this version on.
#[tokio::test]
async fn two_names_that_used_one_idempotency_key_are_brought_up_to_date() {
    let dir = Dir::new();
    drop(dir.open());
    let connection = rusqlite::Connection::open(dir.path()).expect("it opens");
    connection
        .execute_batch(BEFORE_PRINCIPALS)
        .expect("what it was");
    connection
        .execute_batch(
            "DROP TABLE group_work; ALTER TABLE submissions DROP COLUMN seed; DROP TABLE tallies; PRAGMA user_version = 3;
             INSERT INTO claims VALUES
                 ('alice/nightly', 'd', 'exec_A', 99999999999999), ('uid-7/nightly', 'd', 'exec_B', 99999999999998),
                 ('bob/old', 'd', 'exec_C', 5);
             INSERT INTO submissions VALUES ('alice/big', 1, 99999999999998), ('uid-7/big', 2, 99999999999999);",
        )
        .expect("what it was");
    drop(connection);
    drop(dir.open());
    let connection = rusqlite::Connection::open(dir.path()).expect("it opens");
    let rows = |sql: &str| -> Vec<(String, String)> {
        let mut select = connection.prepare(sql).expect("SQL");
        let rows = select
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("rows");
        rows.map(|row| row.expect("a row")).collect()
    };
    let text = |one: &str, other: &str| vec![(one.to_owned(), other.to_owned())];
    assert_eq!(
        rows("SELECT key, execution FROM claims"),
        text("local/nightly", "exec_A")
    );
    assert_eq!(
        rows("SELECT key, seed FROM submissions"),
        text("local/big", "uid-7")
    );
}

/// Removes the columns and tables that versions 4 and 5 added.
const BEFORE_PRINCIPALS: &str =
    "DROP INDEX executions_by_name; ALTER TABLE executions DROP COLUMN by_name; DROP TABLE retired_keys;
     ALTER TABLE pumps DROP COLUMN vcpus; ALTER TABLE pumps DROP COLUMN launch_rate;";

/// `back` turns the file into what it was in an earlier version.
async fn a_file_is_brought_up_to_date(back: &str) {
    let dir = Dir::new();
    let execution = Wish::default().submit(&LocalStore::new(dir.open())).await;
    let connection = rusqlite::Connection::open(dir.path()).expect("it opens");
    connection
        .execute_batch(BEFORE_PRINCIPALS)
        .expect("what it was");
    connection.execute_batch(back).expect("what it was");
    drop(connection);
    let store = LocalStore::new(dir.open());
    assert_eq!(
        store.load(&execution.id).await.expect(ANSWERS).as_ref(),
        Some(&execution)
    );
    launch(&store, &execution).await;
    let rate = Rate {
        burst: 3.0,
        per_second: 1.0,
    };
    assert_eq!(
        store
            .take_tokens(RateKey::Definitions, rate, 9, at(0))
            .await
            .expect(ANSWERS)
            .0,
        3
    );
    assert_eq!(
        all(store.launched(None, 9).await.expect(ANSWERS).items),
        [],
        "it is the other process's"
    );
    assert_eq!(store.bookmark().await.expect(ANSWERS), None);
    assert_eq!(store.definition("x").await.expect(ANSWERS), None);
    assert_eq!(
        store.limit_state(&POOL).await.expect(ANSWERS),
        LimitState::default()
    );
    assert_eq!(
        store
            .open_submission(&Principal::Local, "s", at(1), at(2))
            .await
            .expect(ANSWERS)
            .opened_at,
        at(1)
    );
}

#[test]
fn a_newer_file_is_left_alone_and_said_to_be_so() {
    let dir = Dir::new();
    drop(dir.open());
    let connection = rusqlite::Connection::open(dir.path()).expect("it opens");
    connection
        .pragma_update(None, "user_version", 99)
        .expect("it is set");
    drop(connection);
    let error = Database::open(&dir.path(), WorkerId::new()).expect_err("it is newer");
    assert!(
        matches!(error, OpenError::Newer { found: 99, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("newer mycli"), "{error}");
}

#[test]
fn what_is_no_store_is_named_and_kept() {
    let dir = Dir::new();
    std::fs::create_dir_all(dir.path().parent().expect("it has one")).expect("made");
    std::fs::write(
        dir.path(),
        "not a database, but long enough to be looked at as one: ".repeat(50),
    )
    .expect("written");
    let error = Database::open(&dir.path(), WorkerId::new())
        .expect_err("it is no database")
        .to_string();
    assert!(
        error.contains("store.sqlite") && error.contains("damaged or is not mycli's"),
        "{error}"
    );
    assert!(
        std::fs::read_to_string(dir.path())
            .expect("still text")
            .starts_with("not a database")
    );

    let below_a_file = dir.path().join("store.sqlite");
    let error = Database::open(&below_a_file, WorkerId::new()).expect_err("a file is no directory");
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
}

/// The variables that make this test program, run as a child, one of many writers.
const CHILD_PATH: &str = "MYCLI_TEST_STORE";
const CHILD_NUMBER: &str = "MYCLI_TEST_WRITER";
/// The number of writes of each writer.
const WRITES: u32 = 40;

/// Not a test by itself: the children of the tests below run it.
#[tokio::test]
#[ignore = "a part of the tests of several processes"]
async fn child_that_writes() {
    let (Ok(path), Ok(number)) = (std::env::var(CHILD_PATH), std::env::var(CHILD_NUMBER)) else {
        return;
    };
    let number: u128 = number.parse().expect("a number");
    let database =
        Database::open(Path::new(&path), WorkerId::new()).expect("it opens beside the others");
    let (store, queue) = (
        LocalStore::new(database.clone()),
        LocalQueue::new(database, |_| {}),
    );
    for write in 0..WRITES {
        let execution = Wish {
            entropy: number * 1000 + u128::from(write),
            ..Wish::default()
        }
        .submit(&store)
        .await;
        let launched = launch(&store, &execution).await;
        queue
            .send(vec![
                Message::Check {
                    id: launched.id.clone(),
                }
                .into(),
            ])
            .await
            .expect(ANSWERS);
        close(&store, &launched, 0).await;
        let got = queue
            .receive(QueueName::Control, 9, LONG)
            .await
            .expect(ANSWERS);
        queue.delete(got).await.expect(ANSWERS);
    }
}

/// A child of this program. It is killed when dropped.
struct Writer(Child);

impl Writer {
    fn start(path: &Path, number: u32, failpoint: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([
            "--exact",
            "contract::local::child_that_writes",
            "--ignored",
            "--nocapture",
        ]);
        command
            .env(CHILD_PATH, path)
            .env(CHILD_NUMBER, number.to_string());
        if !failpoint.is_empty() {
            command.env(local::failpoint::VARIABLE, failpoint);
        }
        Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it starts"),
        )
    }

    /// Returns its exit status and its standard error.
    fn finish(mut self) -> (std::process::ExitStatus, String) {
        use std::io::Read;
        let mut said = String::new();
        self.0
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut said)
            .expect("text");
        self.0
            .stdout
            .take()
            .expect("piped")
            .read_to_string(&mut said)
            .expect("text");
        (self.0.wait().expect("it ends"), said)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn processes_that_open_and_write_at_once_do_not_see_a_lock() {
    let dir = Dir::new();
    let writers: Vec<_> = (0..8)
        .map(|number| Writer::start(&dir.path(), number, ""))
        .collect();
    for writer in writers {
        let (status, said) = writer.finish();
        assert!(status.success(), "{said}");
        assert!(said.contains("1 passed"), "the child ran nothing: {said}");
    }
    let store = LocalStore::new(dir.open());
    let page = store
        .list(&Filter::default(), None, 1_000)
        .await
        .expect(ANSWERS);
    assert_eq!(page.items.len(), 8 * WRITES as usize);
    assert!(
        all(page.items)
            .iter()
            .all(|execution| execution.status() == ExecutionStatus::Succeeded)
    );
    assert_eq!(store.usage(&POOL).await.expect(ANSWERS).used, 0);
}

#[tokio::test]
async fn a_killed_writer_leaves_whole_writes_only() {
    // Each turn of the child makes six commits: created, launched, sent, closed, received, deleted.
    let places = [
        ("store.create.before:5", 4, 0),
        ("store.create.after:5", 5, 0),
        ("store.update.before:5", 3, 0),
        ("store.update.after:5", 3, CPU),
        ("queue.send.after:5", 5, CPU),
        ("database.commit.before:8", 2, 0),
        ("database.commit.after:8", 2, CPU),
    ];
    for (place, recorded, held) in places {
        let dir = Dir::new();
        let (status, said) = Writer::start(&dir.path(), 1, place).finish();
        assert_eq!(status.signal(), Some(9), "{place}: {said}");
        let store = LocalStore::new(dir.open());
        let items = all(store
            .list(&Filter::default(), None, 99)
            .await
            .expect(ANSWERS)
            .items);
        let used = store.usage(&POOL).await.expect(ANSWERS).used;
        assert_eq!((items.len(), used), (recorded, held), "{place}");
        let allocation: u32 = items
            .iter()
            .flat_map(Execution::allocations)
            .map(|allocation| allocation.amount)
            .sum();
        assert_eq!(
            used, allocation,
            "{place}: the counter is what the records hold"
        );
    }
}
