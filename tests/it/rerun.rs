//! The submit function's rerun over a store in memory, for the cases that one machine cannot show.

use aws::system::System;
use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use chrono::DateTime;
use domain::{
    ecs::{RunTaskInput, Task, TaskArn},
    group::GroupRerun,
    id::{AttemptId, ExecutionId},
    key::{Caller, Role},
    ports::{
        Clock, Described, LaunchError, LogLine, LogPage, Logs, PortError, ReadError, ReadStore,
        Tasks, WriteStore,
    },
    secret::SecretRecord,
    task::TaskDefinition,
};
use pipeline::{
    auth::Auth,
    definitions::Registered,
    launcher::{Heads, Launcher, Pace},
    submit::Submit,
};
use serde_json::{Value, json};
use tests::{
    memory::{MemoryQueue, MemoryStore},
    simulation,
};

fn caller(role: Role) -> Caller {
    Caller {
        role,
        ..tests::callers::caller(&format!("{role:?}"))
    }
}

/// The submit function's answer to a `POST`.
async fn post(store: &MemoryStore, caller: &Caller, path: &str, body: &Value) -> (i64, Value) {
    let (queue, auth, settings) = (
        MemoryQueue::new(System),
        Auth::default(),
        simulation::settings(&simulation::account(7, 6)),
    );
    let submit = Submit {
        store,
        keys: store,
        queue: &queue,
        secrets: store,
        system: &System,
        auth: &auth,
        settings: &settings,
    };
    let mut request = ApiGatewayProxyRequest::default();
    request.http_method = axum::http::Method::POST;
    request.path = Some(path.into());
    request.body = Some(body.to_string());
    let answer = submit.answer(caller, &request).await;
    (
        answer.status_code,
        serde_json::from_slice(&answer.body.unwrap()).unwrap(),
    )
}

/// An administrator's run that names a secret for administrators only.
async fn privileged(store: &MemoryStore) -> ExecutionId {
    let set_at = Some(DateTime::UNIX_EPOCH);
    store.set_secret(SecretRecord {
        name: "PROD".into(),
        role: Role::Admin,
        set_at,
        hosts: Vec::new(),
    });
    let request = json!({"command": "make", "secrets": ["PROD"], "env": {"A": "a"}});
    let (status, answer) = post(store, &caller(Role::Admin), "/execute", &request).await;
    assert_eq!(status, 202, "{answer}");
    answer["execution_id"].as_str().unwrap().parse().unwrap()
}

/// A rerun of an administrator's run must not open a secret that the caller's own request could not
/// name.
#[tokio::test]
async fn a_secret_is_checked_against_who_runs_it_again() {
    let store = MemoryStore::default();
    let path = format!("/executions/{}/rerun", privileged(&store).await);
    let (status, answer) = post(&store, &caller(Role::Submit), &path, &json!({})).await;
    assert_eq!(
        (status, &answer["errors"]),
        (
            422,
            &json!([{"field": "secrets[0]", "message": "`PROD` may be used only by keys of role admin"}])
        )
    );
    let without = json!({"secrets": []});
    let (status, answer) = post(&store, &caller(Role::Submit), &path, &without).await;
    assert_eq!(status, 202, "{answer}");
    let again = answer["execution_id"].as_str().unwrap().parse().unwrap();
    let request = store.load(&again).await.unwrap().unwrap().request;
    assert!(request.secrets.is_empty() && request.env.iter().eq([(&"A".parse().unwrap(), "a")]));
    let (status, _) = post(&store, &caller(Role::Admin), &path, &json!({})).await;
    assert_eq!(status, 202);
}

#[tokio::test]
async fn what_cannot_be_read_cannot_be_run_again_and_says_so() {
    let store = MemoryStore::default();
    let id = privileged(&store).await;
    store.spoil(&id);
    let (status, answer) = post(
        &store,
        &caller(Role::Admin),
        &format!("/executions/{id}/rerun"),
        &json!({}),
    )
    .await;
    assert_eq!(
        (status, &answer["code"]),
        (500, &json!("unreadable_record"))
    );
    assert!(
        answer["title"].as_str().unwrap().contains(id.as_str()),
        "{answer}"
    );
}

/// Tasks and logs that do nothing: no task is started and no log is read.
struct Idle;

impl Tasks for Idle {
    async fn register_definition(&self, _: &TaskDefinition) -> Result<String, LaunchError> {
        Err(LaunchError::Throttled("nothing is registered here".into()))
    }

    async fn run_task(&self, _: &RunTaskInput) -> Result<Task, LaunchError> {
        Err(LaunchError::Throttled("nothing is started here".into()))
    }

    async fn stop_task(&self, _: &TaskArn, _: &str) -> Result<(), PortError> {
        Ok(())
    }

    async fn describe_tasks(&self, _: &[TaskArn]) -> Result<Described, PortError> {
        Ok(Described::default())
    }

    async fn list_tasks(&self, _: &AttemptId) -> Result<Vec<TaskArn>, PortError> {
        Ok(Vec::new())
    }
}

impl Logs for Idle {
    async fn read(&self, _: &str, _: Option<&str>) -> Result<LogPage, ReadError> {
        Ok(LogPage::default())
    }

    async fn last(&self, _: &str) -> Result<Vec<LogLine>, ReadError> {
        Ok(Vec::new())
    }
}

/// Handles the launcher's message about the rerun into this group.
async fn work(store: &MemoryStore, group: &str) {
    let (queue, settings) = (
        MemoryQueue::new(System),
        simulation::settings(&simulation::account(7, 6)),
    );
    let (registered, pace) = (Registered::default(), Pace::default());
    let heads = Heads::default();
    let launcher = Launcher {
        store,
        queue: &queue,
        tasks: &Idle,
        logs: &Idle,
        secrets: store,
        registered: &registered,
        pace: &pace,
        heads: &heads,
        system: &System,
        settings: &settings,
    };
    let message = json!({"kind": "rerun_group", "group": group, "v": 1}).to_string();
    let event = json!({"Records": [{"messageId": "1", "body": message}]});
    let response = launcher
        .handle(serde_json::from_value(event).unwrap())
        .await;
    assert!(response.batch_item_failures.is_empty(), "{response:?}");
}

/// A member that ended as LOST, because that end needs nothing but the store.
async fn lost(store: &MemoryStore, request: &Value) -> ExecutionId {
    let (status, answer) = post(store, &caller(Role::Admin), "/execute", request).await;
    assert_eq!(status, 202, "{answer}");
    let id: ExecutionId = answer["execution_id"].as_str().unwrap().parse().unwrap();
    let before = store.load(&id).await.unwrap().unwrap();
    let started = crate::contract::records::launch(store, &before).await;
    let lost = started
        .lost("nobody knows of its task", System.now())
        .unwrap();
    store.update(&started, lost, &[]).await.unwrap();
    // A rerun covers executions submitted before it, and the clock counts milliseconds.
    while System.now() <= before.submitted_at {
        tokio::task::yield_now().await;
    }
    id
}

/// A member that this caller may not rerun is reported with its reason. It does not stop the
/// others.
#[tokio::test]
async fn a_member_that_the_caller_may_not_run_is_rejected_by_itself() {
    let store = MemoryStore::default();
    let set_at = Some(DateTime::UNIX_EPOCH);
    store.set_secret(SecretRecord {
        name: "PROD".into(),
        role: Role::Admin,
        set_at,
        hosts: Vec::new(),
    });
    let secret = lost(
        &store,
        &json!({"command": "make", "secrets": ["PROD"], "group": "nightly"}),
    )
    .await;
    lost(&store, &json!({"command": "make", "group": "nightly"})).await;
    let spoilt = lost(&store, &json!({"command": "make", "group": "nightly"})).await;
    store.spoil(&spoilt);
    let asked = json!({"submission_id": "again"});
    let (status, answer) = post(
        &store,
        &caller(Role::Submit),
        "/groups/nightly/rerun-failed",
        &asked,
    )
    .await;
    assert_eq!(status, 202, "{answer}");
    work(&store, "again").await;
    let done: GroupRerun = store
        .group_work(&"again".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    let counts = (
        done.counts.accepted,
        done.counts.rejected,
        done.counts.passed_over,
    );
    assert_eq!((counts, done.progress.done), ((1, 1, 1), true), "{done:?}");
    assert_eq!(done.rejections[0].execution_id, secret);
    assert_eq!(
        done.rejections[0].errors[0].message,
        "`PROD` may be used only by keys of role admin"
    );
}

#[tokio::test]
async fn one_rerun_at_a_time_goes_into_a_group() {
    let store = MemoryStore::default();
    lost(&store, &json!({"command": "make", "group": "nightly"})).await;
    let (alice, path) = (caller(Role::Submit), "/groups/nightly/rerun-failed");
    let first = json!({"submission_id": "one", "changes": {"group": "again"}});
    assert_eq!(post(&store, &alice, path, &first).await.0, 202);
    assert_eq!(
        post(&store, &alice, path, &first).await.0,
        202,
        "the same again is no harm"
    );
    let other = json!({"submission_id": "two", "changes": {"group": "again"}});
    let (status, answer) = post(&store, &alice, path, &other).await;
    assert_eq!((status, &answer["code"]), (409, &json!("rerun_under_way")));
    work(&store, "again").await;
    assert_eq!(
        post(&store, &alice, path, &other).await.0,
        202,
        "the first is over"
    );
}

/// The cancel also reaches the members that the server has not rerun yet.
#[tokio::test]
async fn a_cancel_of_the_new_group_ends_a_rerun() {
    let store = MemoryStore::default();
    let before = lost(&store, &json!({"command": "make", "group": "nightly"})).await;
    let alice = caller(Role::Submit);
    let asked = json!({"submission_id": "again"});
    assert_eq!(
        post(&store, &alice, "/groups/nightly/rerun-failed", &asked)
            .await
            .0,
        202
    );
    assert_eq!(
        post(&store, &alice, "/groups/again/cancel", &json!({}))
            .await
            .0,
        202
    );
    work(&store, "again").await;
    let done: GroupRerun = store
        .group_work(&"again".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (done.progress.done, done.cancelled, done.counts.accepted),
        (true, true, 0)
    );
    let mut all = Vec::new();
    store.for_each(|execution| all.push(execution.id.clone()));
    assert_eq!(all, [before]);
}
