//! Tasks: the model's own records, and what ECS shows of them.

use crate::ecs::{RUNNING, STOPPED};
use std::{fmt, sync::Arc};

use aws_lambda_events::eventbridge::EventBridgeEvent;
use chrono::{SecondsFormat, TimeDelta};
use domain::{
    Timestamp,
    ecs::{Container, StopCode, TASK_STATE_CHANGE, Task},
};
use serde_json::{Value, json};

use super::{
    account::{ACCOUNT, Kind, REGION},
    life::Life,
};

/// `lastStatus` before the task has a network interface (Developer Guide, "Task lifecycle").
pub(super) const PROVISIONING: &str = "PROVISIONING";
/// `lastStatus` while the task's image is pulled (ibid.).
pub(super) const PENDING: &str = "PENDING";

/// The facts of a task that never change and that the domain does not read.
pub(super) struct Facts {
    pub(super) cpu: String,
    pub(super) memory: String,
    /// Kept as text, because a model of a million tasks holds a million of them.
    pub(super) overrides: String,
    pub(super) group: String,
    pub(super) zone: &'static str,
    pub(super) container_arn: String,
}

impl fmt::Debug for Facts {
    /// Leaves out the overrides, which hold the task's variables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("cpu", &self.cpu)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

/// A task at one moment of its life.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The part that the domain reads.
    pub task: Task,
    pub(super) facts: Arc<Facts>,
}

impl Shown {
    /// The task as RunTask, DescribeTasks and StopTask show it, with times in seconds since the
    /// epoch.
    #[must_use]
    pub fn described(&self) -> Value {
        self.json(epoch)
    }

    /// The task as an event shows it, with times in ISO 8601.
    #[must_use]
    pub fn detail(&self) -> Value {
        self.json(iso)
    }

    fn json(&self, time: fn(Timestamp) -> Value) -> Value {
        let (task, facts) = (&self.task, &self.facts);
        let mut shown = json!({
            "attachments": [],
            "availabilityZone": facts.zone,
            "capacityProviderName": task.capacity_provider_name,
            "clusterArn": task.cluster_arn,
            "containers": task.containers,
            "cpu": facts.cpu,
            "desiredStatus": task.desired_status,
            "enableExecuteCommand": false,
            "ephemeralStorage": { "sizeInGiB": 20 },
            "group": facts.group,
            "lastStatus": task.last_status,
            "launchType": "FARGATE",
            "memory": facts.memory,
            "overrides": serde_json::from_str::<Value>(&facts.overrides).unwrap_or_default(),
            "platformFamily": "Linux",
            "platformVersion": "1.4.0",
            "startedBy": task.started_by,
            "stopCode": task.stop_code,
            "stoppedReason": task.stopped_reason,
            "tags": [],
            "taskArn": task.task_arn,
            "taskDefinitionArn": task.task_definition_arn,
            "version": task.version,
        });
        for container in shown["containers"].as_array_mut().into_iter().flatten() {
            container["containerArn"] = json!(facts.container_arn);
            container["taskArn"] = json!(task.task_arn);
            container["cpu"] = json!("0");
            container["networkInterfaces"] = json!([]);
        }
        for (name, at) in times(task) {
            shown[name] = at.map_or(Value::Null, time);
        }
        if let Some(fields) = shown.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        shown
    }
}

fn times(task: &Task) -> [(&'static str, Option<Timestamp>); 7] {
    [
        ("createdAt", task.created_at),
        ("pullStartedAt", task.pull_started_at),
        ("pullStoppedAt", task.pull_stopped_at),
        ("startedAt", task.started_at),
        ("stoppingAt", task.stopping_at),
        ("executionStoppedAt", task.execution_stopped_at),
        ("stoppedAt", task.stopped_at),
    ]
}

/// A time in seconds since the epoch, with milliseconds.
pub(super) fn epoch(at: Timestamp) -> Value {
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of this century are far below 2^52"
    )]
    let millis = at.timestamp_millis() as f64;
    json!(millis / 1000.0)
}

fn iso(at: Timestamp) -> Value {
    json!(at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// An event: one change of a task.
#[derive(Clone, Debug)]
pub struct Change {
    /// The event's id. Duplicates share it (Developer Guide, "Handling Amazon ECS events").
    pub id: String,
    /// When the task changed.
    pub at: Timestamp,
    /// The task after the change.
    pub shown: Shown,
}

impl Change {
    /// The event's envelope, as the state tracker takes it.
    #[must_use]
    pub fn envelope(&self) -> EventBridgeEvent<Task> {
        let mut event = EventBridgeEvent::<Task>::default();
        event.version = Some("0".into());
        event.id = Some(self.id.clone());
        event.detail_type = TASK_STATE_CHANGE.into();
        event.source = "aws.ecs".into();
        event.account = Some(ACCOUNT.into());
        event.time = Some(self.at);
        event.region = Some(REGION.into());
        event.resources = Some(vec![self.shown.task.task_arn.to_string()]);
        event.detail = self.shown.task.clone();
        event
    }

    /// The whole event as EventBridge delivers it, with the fields that the domain does not read.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "version": "0",
            "id": self.id,
            "detail-type": TASK_STATE_CHANGE,
            "source": "aws.ecs",
            "account": ACCOUNT,
            "time": iso(self.at),
            "region": REGION,
            "resources": [self.shown.task.task_arn],
            "detail": self.shown.detail(),
        })
    }
}

/// The model's record of a task.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) shown: Shown,
    pub(super) kind: Kind,
    pub(super) cpu: u32,
    pub(super) life: Life,
    pub(super) stop_timeout: TimeDelta,
    /// When it becomes visible to ListTasks and DescribeTasks.
    pub(super) seen_from: Timestamp,
    /// The place of the essential container among the task's.
    pub(super) essential: usize,
    /// Counts the plans made for the task. A step of an older plan does not happen.
    pub(super) plan: u32,
}

impl Record {
    pub(super) fn task(&mut self) -> &mut Task {
        &mut self.shown.task
    }

    pub(super) fn is(&self, status: &str) -> bool {
        self.shown.task.last_status == status
    }

    /// Whether the task is stopping or has stopped.
    pub(super) fn is_stopping(&self) -> bool {
        self.shown.task.desired_status == STOPPED
    }

    pub(super) fn stopped_at(&self) -> Option<Timestamp> {
        self.shown.task.stopped_at
    }

    pub(super) fn wants_to_stop(&mut self, code: StopCode, reason: &str, at: Timestamp) {
        let task = self.task();
        task.desired_status = STOPPED.into();
        task.stop_code = Some(code);
        task.stopped_reason = Some(reason.into());
        task.stopping_at = Some(at);
    }

    pub(super) fn becomes(&mut self, status: &str) {
        let container_status = match status {
            RUNNING => RUNNING,
            PROVISIONING | PENDING => PENDING,
            _ => STOPPED,
        };
        let task = self.task();
        task.last_status = status.into();
        for container in &mut task.containers {
            container.last_status = Some(container_status.into());
        }
    }

    /// The essential container.
    pub(super) fn container(&mut self) -> Option<&mut Container> {
        let at = self.essential;
        self.task().containers.get_mut(at)
    }
}
