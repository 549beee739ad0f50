//! Users who submit, cancel and rerun, and repeat each request until it is answered.

use std::sync::Arc;

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use axum::http::Method;
use chrono::TimeDelta;
use domain::{id::ExecutionId, ports::Clock, request::SubmitRequest};
use serde_json::{Value, json};

use crate::callers::caller;

use super::{super::time::Time, World, lambda::Environment, plan::Errand};

/// The pause before a user repeats a request that had no answer.
const AGAIN: TimeDelta = TimeDelta::seconds(3);
/// The pause between two checks of whether a run has ended.
const LOOK: TimeDelta = TimeDelta::seconds(20);

/// Starts all users.
pub(super) fn start(world: &Arc<World>) {
    for (number, errand) in world.plan.errands.iter().cloned().enumerate() {
        let world = Arc::clone(world);
        world.time.clone().spawn(async move {
            run(&world, number, errand).await;
            world.rules.user_is_done();
        });
    }
}

async fn run(world: &Arc<World>, number: usize, errand: Errand) {
    world.time.sleep(errand.at).await;
    let by = errand.by.as_str();
    let ids = match errand.is_bulk {
        true => submit_all(world, by, &format!("submission-{number}"), &errand.requests).await,
        false => vec![submit(world, by, &errand.requests[0]).await],
    };
    for (line, after) in &errand.cancels {
        let (world, id, by, after) = (Arc::clone(world), ids[*line].clone(), by.to_owned(), *after);
        world.rules.user_comes();
        world.time.clone().spawn(async move {
            world.time.sleep(after).await;
            cancel(&world, &by, &id).await;
            world.rules.user_is_done();
        });
    }
    if let Some((group, after)) = errand.cancels_group.clone() {
        let (world, by) = (Arc::clone(world), by.to_owned());
        world.rules.user_comes();
        world.time.clone().spawn(async move {
            world.time.sleep(after).await;
            let (_, answer) = ask(
                &world,
                &by,
                &format!("/groups/{group}/cancel"),
                None,
                &[202],
            )
            .await;
            world
                .rules
                .group_is_cancelled(&world, &group, &answer["cancel"]["at"]);
            world.rules.user_is_done();
        });
    }
    if let Some((group, after)) = errand.reruns_group.clone() {
        let (world, by) = (Arc::clone(world), by.to_owned());
        world.rules.user_comes();
        world.time.clone().spawn(async move {
            world.time.sleep(after).await;
            rerun_group(&world, &by, &group, &format!("again-{number}")).await;
            world.rules.user_is_done();
        });
    }
    if errand.reruns {
        while world.store_has_no_end(&ids[0]).await {
            world.time.sleep(LOOK).await;
        }
        let key = format!("again-{number}");
        rerun(world, by, &ids[0], &key, &errand.requests[0]).await;
    }
}

/// Repeats a request until it is answered. An answer with a status not in `expected` breaks a rule.
async fn ask(
    world: &Arc<World>,
    by: &str,
    path: &str,
    body: Option<Value>,
    expected: &[i64],
) -> (i64, Value) {
    let caller = caller(by);
    let mut request = ApiGatewayProxyRequest::default();
    request.http_method = Method::POST;
    request.path = Some(path.to_owned());
    request.body = body.map(|body| body.to_string());
    loop {
        let process = Environment::new(world, "submit");
        let answer = world
            .fate
            .process(async { process.submit().answer(&caller, &request).await })
            .await;
        let status = answer.as_ref().map(|answer| answer.status_code);
        world.story.tell(by, || {
            format!(
                "POST {path}: {}",
                status.map_or("nobody".into(), |status| status.to_string())
            )
        });
        let text = answer
            .and_then(|answer| answer.body)
            .map(|body| body.to_vec())
            .unwrap_or_default();
        let value = serde_json::from_slice(&text).unwrap_or_default();
        match status {
            Some(status) if expected.contains(&status) => return (status, value),
            Some(503) | None => world.time.sleep(AGAIN).await,
            Some(status) => {
                world.rules.break_(
                    world,
                    &format!("{by} was answered {status} to {path}: {value}"),
                );
                return (status, value);
            }
        }
    }
}

async fn submit(world: &Arc<World>, by: &str, request: &SubmitRequest) -> ExecutionId {
    let mut body = serde_json::to_value(request).unwrap_or_default();
    body["action"] = json!("exec");
    let (_, answer) = ask(world, by, "/execute", Some(body), &[202]).await;
    world
        .rules
        .accepted(&answer["execution_id"], request.clone())
}

async fn rerun(world: &Arc<World>, by: &str, id: &ExecutionId, key: &str, before: &SubmitRequest) {
    let path = format!("/executions/{id}/rerun");
    let (_, answer) = ask(
        world,
        by,
        &path,
        Some(json!({"idempotency_key": key})),
        &[202],
    )
    .await;
    world
        .rules
        .accepted(&answer["execution_id"], before.clone());
}

/// Reruns the failed members of a group into a new group, which is named after the submission. If
/// nobody has submitted a member, the group does not exist (404).
async fn rerun_group(world: &Arc<World>, by: &str, of: &str, submission: &str) {
    let path = format!("/groups/{of}/rerun-failed");
    let body = json!({"submission_id": submission});
    let (status, answer) = ask(world, by, &path, Some(body), &[202, 404]).await;
    if status == 404 {
        return;
    }
    world
        .rules
        .group_is_rerun(world, of, submission, &answer["rerun"]["at"]);
    while world.rerun_is_open(submission).await {
        world.time.sleep(LOOK).await;
    }
}

async fn submit_all(
    world: &Arc<World>,
    by: &str,
    id: &str,
    requests: &[SubmitRequest],
) -> Vec<ExecutionId> {
    let body = json!({"submission_id": id, "executions": requests});
    let (_, answer) = ask(world, by, "/executions/bulk", Some(body), &[202]).await;
    let mut entries: Vec<_> = ["accepted", "existing"]
        .iter()
        .flat_map(|list| answer[list].as_array().into_iter().flatten())
        .collect();
    entries.sort_by_key(|entry| entry["index"].as_u64());
    if entries.len() != requests.len() {
        world.rules.break_(
            world,
            &format!(
                "of {} lines of {id} these were taken: {answer}",
                requests.len()
            ),
        );
    }
    entries
        .iter()
        .zip(requests)
        .map(|(entry, request)| {
            world
                .rules
                .accepted(&entry["execution_id"], request.clone())
        })
        .collect()
}

async fn cancel(world: &Arc<World>, by: &str, id: &ExecutionId) {
    // 409: the execution is over already.
    ask(
        world,
        by,
        &format!("/executions/{id}/cancel"),
        None,
        &[202, 409],
    )
    .await;
}
