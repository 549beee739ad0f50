//! The submit function's rerun over a store in memory: what one machine cannot show.

use aws::ambient::System;
use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use chrono::DateTime;
use domain::{
    id::ExecutionId,
    key::{Caller, Role},
    ports::Store,
    secret::SecretRecord,
};
use pipeline::{auth::Auth, submit::Submit};
use serde_json::{Value, json};
use tests::{
    memory::{MemoryQueue, MemoryStore},
    simulation,
};

fn caller(role: Role) -> Caller {
    Caller { role, ..tests::callers::caller(&format!("{role:?}")) }
}

/// What the submit function answers to a `POST`.
async fn post(store: &MemoryStore, caller: &Caller, path: &str, body: &Value) -> (i64, Value) {
    let (queue, auth, settings) =
        (MemoryQueue::new(System), Auth::default(), simulation::settings(&simulation::account(7, 6)));
    let submit = Submit {
        store,
        keys: store,
        queue: &queue,
        secrets: store,
        ambient: &System,
        auth: &auth,
        settings: &settings,
    };
    let mut request = ApiGatewayProxyRequest::default();
    request.http_method = axum::http::Method::POST;
    request.path = Some(path.into());
    request.body = Some(body.to_string());
    let answer = submit.answer(caller, &request).await;
    (answer.status_code, serde_json::from_slice(&answer.body.unwrap()).unwrap())
}

/// A run of an administrator's that names a secret which nobody else's may.
async fn privileged(store: &MemoryStore) -> ExecutionId {
    let set_at = Some(DateTime::UNIX_EPOCH);
    store.set_secret(SecretRecord { name: "PROD".into(), role: Role::Admin, set_at, hosts: Vec::new() });
    let request = json!({"command": "make", "secrets": ["PROD"], "env": {"A": "a"}});
    let (status, answer) = post(store, &caller(Role::Admin), "/execute", &request).await;
    assert_eq!(status, 202, "{answer}");
    answer["execution_id"].as_str().unwrap().parse().unwrap()
}

/// Running what an administrator ran must not open what the caller's own request could not name.
#[tokio::test]
async fn a_secret_is_checked_against_who_runs_it_again() {
    let store = MemoryStore::default();
    let path = format!("/executions/{}/rerun", privileged(&store).await);
    let (status, answer) = post(&store, &caller(Role::Submit), &path, &json!({})).await;
    assert_eq!(
        (status, &answer["errors"]),
        (422, &json!([{"field": "secrets[0]", "message": "`PROD` may be named by keys of role admin only"}]))
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
    let (status, answer) = post(&store, &caller(Role::Admin), &format!("/executions/{id}/rerun"), &json!({})).await;
    assert_eq!((status, &answer["code"]), (500, &json!("unreadable_record")));
    assert!(answer["title"].as_str().unwrap().contains(id.as_str()), "{answer}");
}
