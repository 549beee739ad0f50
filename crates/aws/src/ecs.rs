//! ECS on Fargate.

use std::fmt;

use aws_config::{SdkConfig, retry::RetryConfig};
use aws_sdk_ecs::{
    Client,
    error::SdkError,
    operation::run_task::RunTaskError,
    types::{DesiredStatus, Failure},
};
use domain::{
    ecs::{RunTaskInput, Task, TaskArn},
    id::AttemptId,
    ports::{Described, LaunchError, PortError, Tasks},
    task::TaskDefinition,
};

use crate::{
    connect::Lazily,
    error::{Fault, failed},
};

use answer::Unplaced;

pub mod answer;
mod shape;

const SERVICE: &str = "ECS";
/// Most characters of the reason that `StopTask` keeps (ECS API reference).
const REASON_MAX: usize = 1024;

/// The needs of a task definition besides its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The prefix of the family's name: `mycli-<stack>`.
    pub family_prefix: String,
    /// The role with which ECS pulls images, reads secrets and writes logs.
    pub execution_role: String,
    /// The role that commands run with, unless a request names another.
    pub task_role: String,
    /// The path of the secrets in the Parameter Store, with its trailing slash.
    pub secrets_path: String,
    /// The region of the log group.
    pub region: String,
}

/// The tasks of one cluster.
#[derive(Clone)]
pub struct EcsTasks {
    client: Lazily<Client>,
    /// The same client without the SDK's retries: the outcome of a launch decides what to call
    /// next, and that decision is the launcher's.
    once: Lazily<Client>,
    cluster: String,
    registration: Option<Registration>,
}

impl fmt::Debug for EcsTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcsTasks")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// A client that tries each call once.
fn once(config: &SdkConfig) -> Client {
    Client::from_conf(
        aws_sdk_ecs::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .build(),
    )
}

impl EcsTasks {
    /// The tasks of this cluster. A caller that only looks at tasks and stops them needs no
    /// registration.
    #[must_use]
    pub fn new(config: &SdkConfig, cluster: String, registration: Option<Registration>) -> Self {
        Self {
            client: Lazily::of(config, Client::new),
            once: Lazily::of(config, once),
            cluster,
            registration,
        }
    }

    async fn list(
        &self,
        started_by: &AttemptId,
        status: DesiredStatus,
    ) -> Result<Vec<String>, PortError> {
        // `startedBy` must be the only filter; the desired status does not count as one (ECS API
        // reference, `ListTasks`).
        let pages = self
            .client
            .list_tasks()
            .cluster(&self.cluster)
            .started_by(started_by.to_string())
            .desired_status(status)
            .into_paginator()
            .items();
        pages
            .send()
            .collect::<Result<_, _>>()
            .await
            .map_err(failed(SERVICE))
    }
}

impl Tasks for EcsTasks {
    async fn register_definition(
        &self,
        definition: &TaskDefinition,
    ) -> Result<String, LaunchError> {
        let registration = self.registration.as_ref();
        let registration = registration.ok_or_else(|| {
            LaunchError::Refused("this function registers no task definitions".into())
        })?;
        let input = shape::definition(definition, registration).map_err(LaunchError::Refused)?;
        let sent = input.send_with(&self.once).await;
        let output = sent.map_err(|error| answer::refusal(&Fault::of(&error)))?;
        let arn = output
            .task_definition
            .and_then(|definition| definition.task_definition_arn);
        arn.ok_or_else(|| {
            LaunchError::Unknown("RegisterTaskDefinition answered without an ARN".into())
        })
    }

    async fn run_task(&self, input: &RunTaskInput) -> Result<Task, LaunchError> {
        let request = shape::run_task(input).map_err(LaunchError::Refused)?;
        match request.send_with(&self.once).await {
            Ok(output) => answer::started(
                output.tasks().first().map(shape::task),
                output.failures().first().map(unplaced),
            ),
            Err(error) => match conflict(&error) {
                Some(arns) => {
                    let arns: Vec<_> = arns.iter().map(|arn| TaskArn::from(arn.as_str())).collect();
                    answer::existing(self.describe_tasks(&arns).await?, &Fault::of(&error))
                }
                None => Err(answer::refusal(&Fault::of(&error))),
            },
        }
    }

    async fn stop_task(&self, task_arn: &TaskArn, reason: &str) -> Result<(), PortError> {
        let reason: String = reason.chars().take(REASON_MAX).collect();
        let call = self
            .client
            .stop_task()
            .cluster(&self.cluster)
            .task(task_arn.as_str())
            .reason(reason);
        match call.send().await.map_err(|error| Fault::of(&error)) {
            Ok(_) => Ok(()),
            Err(fault) if answer::is_unknown_task(&fault) => Ok(()),
            Err(fault) => Err(fault.of_service(SERVICE)),
        }
    }

    async fn describe_tasks(&self, task_arns: &[TaskArn]) -> Result<Described, PortError> {
        if task_arns.is_empty() {
            return Ok(Described::default());
        }
        let call = self
            .client
            .describe_tasks()
            .cluster(&self.cluster)
            .set_tasks(Some(task_arns.iter().map(ToString::to_string).collect()));
        let output = call.send().await.map_err(failed(SERVICE))?;
        let missing = output
            .failures()
            .iter()
            .filter(|failure| is_missing(failure))
            .filter_map(|failure| failure.arn());
        Ok(Described {
            tasks: output.tasks().iter().map(shape::task).collect(),
            missing: missing.map(TaskArn::from).collect(),
        })
    }

    async fn list_tasks(&self, started_by: &AttemptId) -> Result<Vec<TaskArn>, PortError> {
        let mut arns = self.list(started_by, DesiredStatus::Running).await?;
        // In this order, a task that stops in between is listed twice, not missed.
        arns.extend(self.list(started_by, DesiredStatus::Stopped).await?);
        arns.sort_unstable();
        arns.dedup();
        Ok(arns.into_iter().map(TaskArn::from).collect())
    }
}

fn unplaced(failure: &Failure) -> Unplaced<'_> {
    Unplaced {
        reason: failure.reason(),
        detail: failure.detail(),
    }
}

/// Whether ECS does not know the task (any more): it then says `MISSING`. Other failures say
/// nothing about the task.
fn is_missing(failure: &Failure) -> bool {
    failure.reason() == Some("MISSING")
}

/// The tasks that the client token was already used for.
fn conflict<R>(error: &SdkError<RunTaskError, R>) -> Option<&[String]> {
    match error.as_service_error()? {
        RunTaskError::ConflictException(conflict) => Some(conflict.resource_ids()),
        _ => None,
    }
}
