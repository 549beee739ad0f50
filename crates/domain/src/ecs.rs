//! ECS's own JSON: tasks as `DescribeTasks` and the Task State Change event show them, and the
//! input of `RunTask`.
//!
//! Only the fields that this project reads or writes are here. Unknown fields are tolerated (Amazon
//! ECS Developer Guide, "Amazon ECS events").

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    Timestamp,
    container::{FETCH, INIT, MAIN},
    id::AttemptId,
};

mod task_arn;
mod task_status;

pub use task_arn::{STREAM_PREFIX, TaskArn, TaskId};
pub use task_status::TaskStatus;

/// The `detail-type` of the events that the state tracker reads.
pub const TASK_STATE_CHANGE: &str = "ECS Task State Change";

/// A task, as in the `detail` of an event (times are ISO 8601) and in `DescribeTasks` (times are
/// seconds since the epoch).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    missing_docs,
    reason = "the fields are ECS's, documented in its API reference under Task"
)]
pub struct Task {
    #[serde(skip_serializing_if = "TaskArn::is_empty")]
    pub task_arn: TaskArn,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_arn: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_definition_arn: String,
    pub last_status: TaskStatus,
    #[serde(skip_serializing_if = "TaskStatus::is_empty")]
    pub desired_status: TaskStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_provider_name: Option<String>,
    pub containers: Vec<Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_code: Option<StopCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_reason: Option<String>,
    /// The number of the task's changes; duplicates of an event have the same one.
    pub version: i64,
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<Timestamp>,
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<Timestamp>,
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub stopping_at: Option<Timestamp>,
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<Timestamp>,
    #[serde(deserialize_with = "time", skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
}

impl Task {
    /// The container of the command, once the task shows it.
    #[must_use]
    pub fn container(&self) -> Option<&Container> {
        self.named(MAIN)
    }

    /// The container of this name, once the task shows it.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|one| one.name == name)
    }

    /// The containers of ours, which prepare the one of the command.
    pub fn helpers(&self) -> impl Iterator<Item = &Container> {
        [INIT, FETCH]
            .into_iter()
            .filter_map(|name| self.named(name))
    }

    /// The fields of a snapshot that a record keeps: those that a decision or a phase's length
    /// depends on. The attempt has the ARN.
    #[must_use]
    pub fn essence(&self) -> Self {
        let essence = |container: &Container| Container {
            name: container.name.clone(),
            image_digest: container
                .image_digest
                .clone()
                .filter(|_| container.name == MAIN),
            exit_code: container.exit_code,
            reason: container.reason.clone(),
            ..Container::default()
        };
        // A container of ours that did its work is not worth the room.
        let told = self.helpers().filter(|container| container.has_failed());
        Self {
            last_status: self.last_status.clone(),
            containers: self
                .container()
                .into_iter()
                .chain(told)
                .map(essence)
                .collect(),
            stop_code: self.stop_code.clone(),
            stopped_reason: self.stopped_reason.clone(),
            version: self.version,
            pull_started_at: self.pull_started_at,
            pull_stopped_at: self.pull_stopped_at,
            started_at: self.started_at,
            execution_stopped_at: self.execution_stopped_at,
            stopped_at: self.stopped_at,
            ..Self::default()
        }
    }

    /// The attempt that started the task; `None` if mycli did not start it.
    #[must_use]
    pub fn attempt(&self) -> Option<AttemptId> {
        self.started_by.as_deref()?.parse().ok()
    }
}

/// A container of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    missing_docs,
    reason = "the fields are ECS's, documented in its API reference under Container"
)]
pub struct Container {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_status: Option<TaskStatus>,
    /// Absent when the container never ran; an absent code is not zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Container {
    /// Whether it ended otherwise than with 0. ECS gives a reason to one that could not be started.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.reason.is_some() || self.exit_code.is_some_and(|code| code != 0)
    }
}

/// Why a task stopped (ECS API model, `TaskStopCode`). A new code becomes [`StopCode::Other`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[expect(missing_docs, reason = "the names are ECS's")]
pub enum StopCode {
    TaskFailedToStart,
    EssentialContainerExited,
    UserInitiated,
    ServiceSchedulerInitiated,
    SpotInterruption,
    TerminationNotice,
    InfrastructureHealth,
    Other(String),
}

const STOP_CODES: [StopCode; 7] = [
    StopCode::TaskFailedToStart,
    StopCode::EssentialContainerExited,
    StopCode::UserInitiated,
    StopCode::ServiceSchedulerInitiated,
    StopCode::SpotInterruption,
    StopCode::TerminationNotice,
    StopCode::InfrastructureHealth,
];

impl fmt::Display for StopCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => f.write_str(code),
            known => fmt::Debug::fmt(known, f),
        }
    }
}

impl From<String> for StopCode {
    fn from(code: String) -> Self {
        STOP_CODES
            .into_iter()
            .find(|known| known.to_string() == code)
            .unwrap_or(Self::Other(code))
    }
}

impl From<StopCode> for String {
    fn from(code: StopCode) -> Self {
        code.to_string()
    }
}

/// The input of `RunTask`. It is stored unchanged before the call, so that a repetition under the
/// same client token is the same call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "the fields are ECS's, documented in its API reference under RunTask"
)]
pub struct RunTaskInput {
    pub cluster: String,
    pub task_definition: String,
    pub client_token: String,
    pub started_by: String,
    pub count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network_configuration: Option<NetworkConfiguration>,
    pub overrides: TaskOverride,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tags: Vec<Tag>,
}

/// A tag of a task, for splitting the account's costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are ECS's, documented in its API reference under Tag"
)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

/// The network of a task in `awsvpc` mode, which is the only mode of Fargate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "the fields are ECS's, documented in its API reference under AwsVpcConfiguration"
)]
pub struct NetworkConfiguration {
    /// Subnets in several zones, so that one zone without capacity does not stop everything.
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    /// Needed in public subnets to reach image registries and AWS itself.
    pub assign_public_ip: bool,
}

/// The values that differ between the runs of one task definition. At most 8192 characters as JSON
/// (ECS API reference, `RunTask`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "the fields are ECS's, documented in its API reference under TaskOverride"
)]
pub struct TaskOverride {
    /// CPU units as a string, which ECS requires.
    pub cpu: String,
    /// MiB as a string, which ECS requires.
    pub memory: String,
    /// A disk that is larger than usual.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ephemeral_storage: Option<EphemeralStorage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_role_arn: Option<String>,
    pub container_overrides: Vec<ContainerOverride>,
}

/// The size of a task's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the field is ECS's")]
pub struct EphemeralStorage {
    #[serde(rename = "sizeInGiB")]
    pub size_in_gib: u32,
}

/// The environment given to the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "the fields are ECS's, documented in its API reference under ContainerOverride"
)]
pub struct ContainerOverride {
    pub name: String,
    pub environment: Vec<KeyValuePair>,
}

/// One environment variable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are ECS's")]
pub struct KeyValuePair {
    pub name: String,
    pub value: String,
}

impl fmt::Debug for KeyValuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=<{} bytes>", self.name, self.value.len())
    }
}

/// Reads a time in the form of an event (ISO 8601) or of `DescribeTasks` (seconds since the epoch).
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Time {
        Iso(Timestamp),
        Epoch(f64),
    }
    let time = Option::<Time>::deserialize(deserializer)?;
    Ok(time.and_then(|time| match time {
        Time::Iso(time) => Some(time),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "milliseconds since the epoch fit by far"
        )]
        Time::Epoch(seconds) => Timestamp::from_timestamp_millis((seconds * 1000.0).round() as i64),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let iso: Task =
            serde_json::from_str(r#"{"startedAt":"2026-11-24T00:00:00.500Z"}"#).expect("ISO");
        let epoch: Task =
            serde_json::from_str(r#"{"startedAt":1795478400.5,"attributes":[]}"#).expect("epoch");
        assert!(iso.started_at.is_some());
        assert_eq!(iso.started_at, epoch.started_at);
    }

    #[test]
    fn an_unknown_stop_code_is_kept() {
        let task: Task =
            serde_json::from_str(r#"{"stopCode":"Flood","containers":[{"name":"main"}]}"#)
                .expect("a task");
        assert_eq!(task.stop_code, Some(StopCode::Other("Flood".into())));
        assert_eq!(task.container().and_then(|c| c.exit_code), None);
        assert_eq!(
            serde_json::to_value(StopCode::SpotInterruption).expect("JSON"),
            "SpotInterruption"
        );
    }
}
