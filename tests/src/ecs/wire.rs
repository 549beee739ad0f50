//! The model on the wire. It speaks the real JSON protocol of ECS and Service Quotas, so the real
//! SDK and the real adapters can talk to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_config::SdkConfig;
use axum::{body::Body, http::Response};
use chrono::TimeDelta;
use domain::{Timestamp, ports::Clock};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use super::{Answer, Change, Ecs, Operation, Refusal};
use crate::json_protocol::{Call, Loopback, response};

/// The server, and the task that delivers its events. Both end when this is dropped.
pub struct Wire {
    ecs: Arc<Mutex<Ecs>>,
    call_made: Arc<Notify>,
    server: Loopback,
    postman: JoinHandle<()>,
}

impl Wire {
    /// Serves the model on loopback by this clock, which may be real, faster than real, or moved by
    /// hand. The channel yields each event when it arrives; its envelope is for the state tracker.
    pub async fn serve(
        ecs: Ecs,
        clock: impl Clock + Clone + 'static,
    ) -> (Self, mpsc::UnboundedReceiver<Change>) {
        let (ecs, call_made) = (Arc::new(Mutex::new(ecs)), Arc::new(Notify::new()));
        let (sink, events) = mpsc::unbounded_channel();
        let postman = tokio::spawn(deliver(
            Arc::clone(&ecs),
            clock.clone(),
            Arc::clone(&call_made),
            sink,
        ));
        let (asked, woken) = (Arc::clone(&ecs), Arc::clone(&call_made));
        let server = Loopback::serve(move |call| {
            let answer = answer(&mut lock(&asked), &call, clock.now());
            woken.notify_one();
            written(answer)
        });
        (
            Self {
                server: server.await,
                ecs,
                call_made,
                postman,
            },
            events,
        )
    }

    /// The SDK configuration for clients of this server.
    #[must_use]
    pub fn config(&self) -> SdkConfig {
        self.server.config()
    }

    /// The model itself, for callers that only look at it.
    #[must_use]
    pub fn model(&self) -> Arc<Mutex<Ecs>> {
        Arc::clone(&self.ecs)
    }

    /// Calls `act` on the model, to look at it or to change it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Ecs) -> T) -> T {
        let result = act(&mut lock(&self.ecs));
        self.call_made.notify_one();
        result
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.postman.abort();
    }
}

/// Locks the model. A poisoned lock is ignored: the test that panicked has failed already.
pub(super) fn lock(ecs: &Mutex<Ecs>) -> MutexGuard<'_, Ecs> {
    ecs.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn deliver(
    ecs: Arc<Mutex<Ecs>>,
    clock: impl Clock,
    call_made: Arc<Notify>,
    sink: mpsc::UnboundedSender<Change>,
) {
    loop {
        let (events, next) = {
            let mut ecs = lock(&ecs);
            (ecs.take_events(clock.now()), ecs.next_event_at())
        };
        if events
            .into_iter()
            .any(|(_, change)| sink.send(change).is_err())
        {
            return;
        }
        let Some(at) = next else {
            call_made.notified().await;
            continue;
        };
        let now = clock.now();
        let nap = clock.sleep((at - now).max(TimeDelta::zero()));
        // If a clock moved by hand has moved in the meantime, this sleep would last past the event.
        if clock.now() != now {
            continue;
        }
        tokio::select! {
            () = nap => {}
            () = call_made.notified() => {}
        }
    }
}

fn written(answer: Answer<Value>) -> Response<Body> {
    match answer {
        Ok(body) => response(200, body.to_string()),
        Err(refusal) => response(refusal.status, error(&refusal).to_string()),
    }
}

fn error(refusal: &Refusal) -> Value {
    let mut body = json!({ "__type": refusal.code, "message": refusal.message });
    if !refusal.resource_ids.is_empty() {
        body["resourceIds"] = json!(refusal.resource_ids);
    }
    body
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AboutTasks {
    cluster: String,
    tasks: Vec<String>,
    task: String,
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AboutDefinition {
    task_definition: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AboutQuota {
    service_code: String,
    quota_code: String,
}

fn answer(ecs: &mut Ecs, call: &Call, now: Timestamp) -> Answer<Value> {
    let operation = Operation::named(&call.operation).ok_or_else(Refusal::unknown_operation)?;
    match operation {
        Operation::RunTask => ecs.run_task(&read(call)?, now).map(|answer| answer.json()),
        Operation::ListTasks => ecs.list_tasks(&read(call)?, now).map(|page| page.json()),
        Operation::DescribeTasks => {
            let asked: AboutTasks = read(call)?;
            ecs.describe_tasks(&asked.cluster, &asked.tasks, now)
                .map(|answer| answer.json())
        }
        Operation::StopTask => {
            let asked: AboutTasks = read(call)?;
            let stopped = ecs.stop_task(&asked.cluster, &asked.task, asked.reason.as_deref(), now);
            stopped.map(|shown| json!({ "task": shown.described() }))
        }
        Operation::RegisterTaskDefinition => {
            definition(ecs.register_task_definition(&call.body, now))
        }
        Operation::DeregisterTaskDefinition => definition(
            ecs.deregister_task_definition(&read::<AboutDefinition>(call)?.task_definition, now),
        ),
        Operation::DescribeTaskDefinition => definition(
            ecs.describe_task_definition(&read::<AboutDefinition>(call)?.task_definition, now),
        ),
        Operation::GetServiceQuota => {
            let asked: AboutQuota = read(call)?;
            quota(ecs.get_service_quota(&asked.service_code, &asked.quota_code, now))
        }
        Operation::GetAwsDefaultServiceQuota => {
            let asked: AboutQuota = read(call)?;
            quota(ecs.get_aws_default_service_quota(&asked.service_code, &asked.quota_code, now))
        }
    }
}

fn read<T: DeserializeOwned>(call: &Call) -> Answer<T> {
    serde_json::from_value(call.body.clone())
        .map_err(|error| Refusal::unreadable(error.to_string()))
}

fn definition(shown: Answer<Value>) -> Answer<Value> {
    shown.map(|shown| json!({ "taskDefinition": shown }))
}

fn quota(shown: Answer<Value>) -> Answer<Value> {
    shown.map(|shown| json!({ "Quota": shown }))
}
