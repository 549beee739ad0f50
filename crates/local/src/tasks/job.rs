//! A task that is being followed: its record, its input, and the process or container it runs in.

use std::{collections::BTreeMap, io};

use domain::{
    Timestamp,
    attempt_secret::AttemptSecret,
    container::{self, MAIN, variable as names},
    ecs::{Container, RunTaskInput, Task, TaskStatus},
    id::AttemptId,
    ports::PortError,
    request::ImageRef,
    task::TaskDefinition,
};
use serde::{Deserialize, Serialize};

use super::{DEFINITION, RUNTIME, TASK, task_id};
use crate::{database::TaskRow, form, process::ProcessId};

/// How long after TERM a task without files to keep is killed, in seconds.
const STOP_SECONDS: u32 = 15;

/// The process or container of a task, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Runtime {
    Process(ProcessId),
    Container(String),
}

/// Why a task cannot be followed any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error(transparent)]
    Store(#[from] PortError),
    #[error("the task's output or log failed: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Engine(String),
    /// Another follower has closed the task. Its record stays as it is.
    #[error("the task is closed already")]
    Closed,
}

/// A task that is being followed.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) input: RunTaskInput,
    pub(super) definition: TaskDefinition,
    /// The nonce in its marker lines.
    pub(super) nonce: String,
    /// The image it runs in; `None` on the host.
    pub(super) image: Option<ImageRef>,
    /// The process or container that it was seen running in.
    pub(super) runtime: Option<Runtime>,
}

impl Job {
    /// A task stays where it began to run (host or container), whatever `host_only` says now.
    pub(super) fn of(row: &TaskRow, host_only: bool) -> Result<Self, FollowError> {
        let (input, definition): (RunTaskInput, TaskDefinition) = (
            form::parsed(TASK, &row.input)?,
            form::parsed(DEFINITION, &row.definition)?,
        );
        let runtime: Option<Runtime> = row
            .runtime
            .as_deref()
            .map(|json| form::parsed(RUNTIME, json))
            .transpose()?;
        let on_host = match &runtime {
            Some(Runtime::Process(_)) => true,
            Some(Runtime::Container(_)) => false,
            None => host_only,
        };
        let image = definition.image.clone().filter(|_| !on_host);
        let nonce = nonce(&input);
        Ok(Self {
            task: form::parsed(TASK, &row.task)?,
            definition,
            input,
            nonce,
            image,
            runtime,
        })
    }

    /// The id of its container, if it ran in one.
    pub(super) fn container_id(&mut self) -> Option<String> {
        self.image.as_ref()?;
        self.container().runtime_id.clone()
    }

    /// The attempt that it runs.
    pub(super) fn attempt(&self) -> Option<AttemptId> {
        self.input.started_by.parse().ok()
    }

    /// Whether files are to be kept after its end.
    pub(super) fn keeps_files(&self) -> bool {
        !variable(&self.input, names::ARTIFACTS).is_empty()
    }

    /// How long after TERM it is killed: the runner's own grace of 10 s, plus time for it to finish
    /// (DESIGN §6). With files to keep it is as long as on AWS.
    pub(super) fn stop_seconds(&self) -> u32 {
        match self.keeps_files() {
            true => container::STOP_SECONDS,
            false => STOP_SECONDS,
        }
    }

    pub(super) fn arn(&self) -> &str {
        self.task.task_arn.as_str()
    }

    pub(super) fn id(&self) -> &str {
        task_id(self.task.task_arn.as_str())
    }

    pub(super) fn container(&mut self) -> &mut Container {
        if self.task.containers.is_empty() {
            self.task.containers.push(Container {
                name: MAIN.into(),
                ..Container::default()
            });
        }
        &mut self.task.containers[0]
    }

    pub(super) fn runs_since(&mut self, at: Timestamp, runtime_id: String) {
        (self.task.started_at, self.task.last_status) = (Some(at), TaskStatus::Running);
        let container = self.container();
        (container.last_status, container.runtime_id) =
            (Some(TaskStatus::Running), Some(runtime_id));
    }
}

/// The nonce of a task's marker lines: its own variable, or made of its secret.
fn nonce(input: &RunTaskInput) -> String {
    match variable(input, names::SECRET) {
        secret if secret.is_empty() => variable(input, names::NONCE),
        secret => AttemptSecret::of_text(secret.into()).nonce(),
    }
}

pub(super) fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(super) fn environment(input: &RunTaskInput) -> Vec<(String, String)> {
    let variables = input
        .overrides
        .container_overrides
        .iter()
        .flat_map(|container| &container.environment);
    let map: BTreeMap<_, _> = variables
        .map(|pair| (pair.name.clone(), pair.value.clone()))
        .collect();
    map.into_iter().collect()
}

pub(super) fn variable(input: &RunTaskInput, name: &str) -> String {
    environment(input)
        .into_iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value)
        .unwrap_or_default()
}
