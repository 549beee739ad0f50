//! What earlier releases stored can still be loaded, listed, finished and rerun. Each folder in
//! `fixtures/` holds what one commit wrote.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("it/fixtures/80dc43a")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("the fixture is there")
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&text(name)).expect("the fixture is JSON")
}

/// A fixture's expectations of an execution.
#[derive(Clone, Debug, Deserialize)]
struct Expected {
    #[serde(default)]
    id: String,
    what: String,
    status: String,
    exit_code: Option<i32>,
    submitted_by: String,
    command: Value,
    group: Option<String>,
}

/// Asserts that every status occurs.
fn assert_all_statuses<'a>(expected: impl Iterator<Item = &'a Expected>) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    expected.for_each(|expected| *counts.entry(&expected.status).or_default() += 1);
    assert_eq!(counts.len(), 9, "{counts:?}");
}

mod local {
    use std::fs;

    use ::local::{
        database::{Database, WorkerId},
        store::LocalStore,
    };
    use domain::{
        history::Filter,
        ports::{KeyLookup, Keys, ReadStore},
        principal::Principal,
    };
    use tests::{
        loaded::{all, pages},
        sandbox::{Sandbox, eventually},
    };

    use super::*;

    #[derive(Deserialize)]
    struct Store80dc43a {
        ci_key: String,
        executions: Vec<Expected>,
    }

    /// A machine with the fixture as its store.
    fn machine() -> (Sandbox, Store80dc43a) {
        let sandbox = Sandbox::new();
        let place = sandbox.store();
        for part in ["", "logs", "tasks"] {
            let Ok(entries) = fs::read_dir(folder().join(part)) else {
                continue;
            };
            fs::create_dir_all(place.join(part)).expect("it is made");
            for entry in entries
                .map(|entry| entry.expect("it is read"))
                .filter(|entry| entry.path().is_file())
            {
                let is_store = part.is_empty() && entry.file_name() == "store.sqlite";
                if is_store || !part.is_empty() {
                    let to = place.join(part).join(entry.file_name());
                    fs::copy(entry.path(), to).expect("it is copied");
                }
            }
        }
        (sandbox, json("store.json"))
    }

    fn open(sandbox: &Sandbox) -> LocalStore {
        LocalStore::new(
            Database::open(&sandbox.store().join("store.sqlite"), WorkerId::new())
                .expect("it is brought to the newest schema"),
        )
    }

    #[tokio::test]
    async fn every_record_of_80dc43a_loads_and_is_listed() {
        let (sandbox, expected) = machine();
        assert_all_statuses(expected.executions.iter());
        let store = open(&sandbox);
        let listed = async |cursor: Option<&_>| {
            store
                .list(&Filter::default(), cursor, 7)
                .await
                .expect("it is listed")
        };
        let listed = all(pages(listed).await.concat());
        assert_eq!(listed.len(), expected.executions.len());
        for expected in expected.executions {
            let id = expected.id.parse().expect("an id");
            let execution = store
                .load(&id)
                .await
                .expect("it can be read")
                .expect("it is there");
            assert!(listed.contains(&execution), "{}", expected.what);
            assert_eq!(
                execution.status().as_str(),
                expected.status,
                "{}",
                expected.what
            );
            assert_eq!(execution.submitted_by, expected.submitted_by);
            assert_eq!(
                execution.end().and_then(|end| end.outcome.exit_code()),
                expected.exit_code
            );
            assert_eq!(
                Value::from(execution.request.command.to_string()),
                expected.command
            );
            assert_eq!(
                execution.request.group.as_ref().map(ToString::to_string),
                expected.group
            );
        }
    }

    /// A key from before principals existed has a principal of its own. What was submitted with the
    /// key since its creation belongs to that principal.
    #[tokio::test]
    async fn keys_of_80dc43a_are_principals_by_their_id() {
        let (sandbox, expected) = machine();
        let store = open(&sandbox);
        let id = domain::key::ApiKey::parse(&expected.ci_key)
            .expect("a key")
            .id();
        let ci = store
            .find_key(&id)
            .await
            .expect("it can be read")
            .expect("it is there");
        assert_eq!(
            (ci.name.as_str(), ci.principal()),
            ("ci", Principal::Key(id))
        );
        let mine = Filter {
            by: Some("ci".into()),
            by_id: Some(ci.principal()),
            ..Filter::default()
        };
        let mine = all(store
            .list(&mine, None, 100)
            .await
            .expect("it is listed")
            .items);
        let named = expected
            .executions
            .iter()
            .filter(|expected| expected.submitted_by == "ci")
            .count();
        assert_eq!(mine.len(), named);
        assert!(
            mine.iter()
                .all(|execution| execution.submitted_by_id == Some(ci.principal()))
        );
        assert_eq!(store.list_keys().await.expect("they are listed").len(), 4);
    }

    #[test]
    fn what_80dc43a_left_open_finishes() {
        let (sandbox, expected) = machine();
        let is_final =
            |status: &str| !["QUEUED", "WAITING", "LAUNCHING", "RUNNING"].contains(&status);
        // Any command takes over what dead processes left. What is unfinished when it ends goes to
        // a supervisor.
        let history = || {
            sandbox
                .local(&["history", "--limit", "100", "-o", "json"])
                .exits(0)
                .json()
        };
        eventually("everything is over", || {
            let page = history();
            let runs = page["executions"].as_array().expect("a list");
            runs.iter()
                .all(|run| is_final(run["status"].as_str().expect("a word")))
                .then_some(())
        });
        for before in expected
            .executions
            .iter()
            .filter(|expected| is_final(&expected.status))
        {
            let after = sandbox.record(&before.id);
            assert_eq!(after["status"], before.status, "{}", before.what);
        }
        eventually("the supervisor has gone", || {
            sandbox.processes().is_empty().then_some(())
        });
    }

    #[test]
    fn a_run_of_80dc43a_runs_again() {
        let (sandbox, expected) = machine();
        let again = expected
            .executions
            .iter()
            .find(|expected| expected.what == "bulk line 2");
        let again = again.expect("there is one that needs nothing");
        let ran = sandbox.local(&["rerun", &again.id, "-o", "json"]);
        assert_eq!(ran.json()["command"], again.command, "{ran:?}");
        assert_eq!(
            ran.json()["exit_code"],
            Value::from(again.exit_code.unwrap_or_default()),
            "{ran:?}"
        );
    }

    #[test]
    fn a_store_of_a_newer_release_is_refused_with_words() {
        let (sandbox, _) = machine();
        let file =
            rusqlite::Connection::open(sandbox.store().join("store.sqlite")).expect("it opens");
        file.pragma_update(None, "user_version", 99)
            .expect("it is set");
        drop(file);
        let refused = sandbox.local(&["history"]);
        assert!(refused.err.contains("has format 99"), "{refused:?}");
        assert!(refused.err.contains("use the newer mycli"), "{refused:?}");
    }
}

mod dynamo {
    use std::collections::HashMap;

    use aws::dynamo::DynamoStore;
    use aws_sdk_dynamodb::types::AttributeValue;
    use domain::{
        Timestamp,
        execution::ExecutionStatus,
        history::Filter,
        id::ExecutionId,
        limit::{CapacityPool, LimitKey},
        ports::{Created, Definitions, Keys, ReadStore, Secrets, SweepStore, WriteStore},
        transition::Observation,
    };
    use tests::{
        loaded::{all, pages},
        table::Table,
    };

    use super::*;

    /// The time of the fixture, or a little later.
    fn now() -> Timestamp {
        "2026-11-25T00:00:00Z".parse().expect("a time")
    }

    fn value(value: &Value) -> AttributeValue {
        let (kind, value) = value
            .as_object()
            .and_then(|one| one.iter().next())
            .expect("one type each");
        let list = || {
            value
                .as_array()
                .expect("a list")
                .iter()
                .map(self::value)
                .collect()
        };
        let map = || {
            value
                .as_object()
                .expect("a map")
                .iter()
                .map(|(name, inner)| (name.clone(), self::value(inner)))
        };
        match kind.as_str() {
            "S" => AttributeValue::S(value.as_str().expect("text").into()),
            "N" => AttributeValue::N(value.as_str().expect("a number as text").into()),
            "BOOL" => AttributeValue::Bool(value.as_bool().expect("a truth")),
            "L" => AttributeValue::L(list()),
            "M" => AttributeValue::M(map().collect()),
            other => panic!("{other} is in no form of ours"),
        }
    }

    /// A table with all items of the fixture.
    async fn table() -> (DynamoStore, BTreeMap<String, Expected>, Table) {
        let table = Table::create().await;
        let items: Vec<BTreeMap<String, Value>> = json("table.json");
        for item in items {
            let item: HashMap<_, _> = item
                .iter()
                .map(|(name, inner)| (name.clone(), value(inner)))
                .collect();
            let put = table
                .client
                .put_item()
                .table_name(&table.name)
                .set_item(Some(item));
            put.send().await.expect("it is put");
        }
        let store = DynamoStore::new(table.client.clone(), &table.name, 36_500).with_clock(now);
        (store, json("table-expected.json"), table)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_record_of_80dc43a_loads_and_is_listed() {
        let (store, expected, _table) = table().await;
        assert_all_statuses(expected.values());
        let listed = async |cursor: Option<&_>| {
            store
                .list(&Filter::default(), cursor, 50)
                .await
                .expect("it is listed")
        };
        let listed = all(pages(listed).await.concat());
        assert_eq!(listed.len(), expected.len());
        for (id, expected) in &expected {
            let id: ExecutionId = id.parse().expect("an id");
            let execution = store
                .load(&id)
                .await
                .expect("it can be read")
                .expect("it is there");
            assert!(listed.contains(&execution), "{}", expected.what);
            assert_eq!(
                execution.status().as_str(),
                expected.status,
                "{}",
                expected.what
            );
            assert_eq!(execution.submitted_by, expected.submitted_by);
            assert_eq!(
                execution.end().and_then(|end| end.outcome.exit_code()),
                expected.exit_code
            );
            assert_eq!(
                Value::from(execution.request.command.to_string()),
                expected.command
            );
            assert!(
                execution.unknown.is_none(),
                "this release knows all that 80dc43a wrote: {}",
                expected.what
            );
        }
        for status in ExecutionStatus::ALL {
            let filter = Filter {
                status: Some(status.clone()),
                ..Filter::default()
            };
            let page = store.list(&filter, None, 100).await.expect("it is listed");
            assert!(!page.items.is_empty(), "{status}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_80dc43a_left_open_goes_on() {
        let (store, expected, _table) = table().await;
        let launched = all(store.launched(None, 100).await.expect("it is listed").items);
        let open = expected
            .values()
            .filter(|e| e.status == "RUNNING" || e.status == "LAUNCHING")
            .count();
        assert_eq!(launched.len(), open);
        for execution in launched
            .iter()
            .filter(|execution| execution.attempts[0].task_arn.is_some())
        {
            let number = execution.attempts.last().expect("it was launched").number;
            let gone = execution
                .observe(number, &Observation::Gone, now())
                .expect("that is news");
            let gone = store
                .update(execution, gone, &[])
                .await
                .expect("it is written");
            let ended = gone
                .observe(number, &Observation::WholeLog(&[]), now())
                .expect("that is news");
            let ended = store
                .update(&gone, ended, &[])
                .await
                .expect("it is written");
            assert!(
                ended.end().is_some() || ended.backlog_entry().is_some(),
                "{:?}",
                ended.state
            );
        }
        let backlogs = store.backlogs(now()).await.expect("they are listed");
        assert!(
            backlogs.contains(&LimitKey::Pool(CapacityPool::FargateSpot)),
            "{backlogs:?}"
        );
        for backlog in &backlogs {
            assert!(
                !store
                    .backlog(backlog, now(), 20)
                    .await
                    .expect("it is read")
                    .is_empty(),
                "{backlog}"
            );
            store.limit_state(backlog).await.expect("it is read");
        }
        crate::contract::records::sweep(&store).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_else_of_80dc43a_is_read_too() {
        let (store, expected, _table) = table().await;
        assert_eq!(store.list_keys().await.expect("they are listed").len(), 3);
        assert!(
            !store
                .list_secrets()
                .await
                .expect("they are listed")
                .is_empty()
        );
        for secret in store.list_secrets().await.expect("they are listed") {
            let secret = secret.expect("it can be read");
            assert!(
                store
                    .find_secret(&secret.name)
                    .await
                    .expect("it is read")
                    .is_some()
            );
        }
        assert!(store.bookmark().await.expect("it is read").is_some());
        assert_eq!(store.definition("nobody").await.expect("it is read"), None);
        let (id, _) = expected
            .iter()
            .find(|(_, e)| e.status == "SUCCEEDED")
            .expect("there is one");
        let before = store
            .load(&id.parse().expect("an id"))
            .await
            .expect("it is read")
            .expect("it is there");
        let id = ExecutionId::new(now(), 1);
        let caller = tests::callers::caller("ci");
        let again = domain::execution::Execution::submitted(
            id,
            before.request.clone(),
            before.pool,
            &caller,
            now(),
        );
        assert_eq!(
            store.create(&again, None).await.expect("it is recorded"),
            Created::New
        );
        assert_eq!(
            store.load(&again.id).await.expect("it is read"),
            Some(again)
        );
    }
}

mod forms {
    use domain::{
        marker::{self, Marker},
        message::Message,
        stored,
        task::TaskDefinition,
    };

    use super::*;

    #[test]
    fn messages_of_80dc43a_are_read_and_lack_nothing_but_a_version() {
        let bodies: Vec<String> = json("messages.json");
        assert!(bodies.len() > 5);
        for body in bodies {
            let message = Message::read(&body).expect("it is read");
            let mut now: Value =
                serde_json::from_str(&message.body().expect("it is spelled")).expect("JSON");
            assert_eq!(
                now.as_object_mut()
                    .and_then(|form| form.remove(stored::VERSION)),
                Some(stored::FORM.into())
            );
            assert_eq!(now, serde_json::from_str::<Value>(&body).expect("JSON"));
        }
    }

    #[test]
    fn a_message_of_a_newer_release_is_not_taken_for_another() {
        for body in [
            r#"{"kind":"wakeup","backlog":"pool:fargate"}"#,
            r#"{"kind":"line","line":"pool:fargate","v":99}"#,
        ] {
            assert!(Message::read(body).is_err(), "{body}");
        }
    }

    #[test]
    fn markers_of_80dc43a_are_read() {
        let nonce = "0123456789abcdef0123456789abcdef";
        for line in text("markers.txt").lines() {
            let (before, found) = marker::split(nonce, line);
            assert!(
                before.is_none() && found.is_some_and(|marker| marker != Marker::Other),
                "{line}"
            );
        }
    }

    #[test]
    fn a_task_definition_of_80dc43a_is_read() {
        let (definition, unknown) =
            stored::read::<TaskDefinition>(json("definition.json")).expect("it is read");
        assert!(unknown.is_none());
        assert!(definition.image.is_some() && !definition.secrets.is_empty());
    }
}
