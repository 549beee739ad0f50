//! The input of RunTask, and what ECS refuses in it at once.

use domain::{ecs::RunTaskInput, task::OVERRIDES_MAX};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{account::Kind, definition, definition::Definition, refusal::Refusal, task::Shown};

/// The most tasks that one call starts (API Reference, RunTask, `count`).
const COUNT_MAX: u32 = 10;
/// The most characters of `startedBy`, each one of `[A-Za-z0-9-_/]` (ibid.).
const STARTED_BY_MAX: usize = 128;
/// The most characters of a client token, each in the range of ASCII 33 to 126 (API Reference,
/// "Ensuring idempotency").
const TOKEN_MAX: usize = 64;
/// The most tags of a task (API Reference, RunTask, `tags`).
const TAGS_MAX: usize = 50;

/// The input of RunTask, in ECS's own JSON.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(
    missing_docs,
    reason = "the fields are ECS's, documented in its API reference under RunTask"
)]
pub struct RunTask {
    pub cluster: String,
    pub task_definition: String,
    pub client_token: Option<String>,
    pub started_by: Option<String>,
    pub count: u32,
    pub launch_type: Option<String>,
    pub capacity_provider_strategy: Vec<Provider>,
    pub network_configuration: Value,
    pub overrides: Value,
    pub group: Option<String>,
    pub propagate_tags: Option<String>,
    pub tags: Vec<Value>,
}

/// One item of a capacity provider strategy. The model takes the first, since no caller gives two.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the field is ECS's")]
pub struct Provider {
    pub capacity_provider: String,
}

impl Default for RunTask {
    fn default() -> Self {
        Self {
            cluster: "default".into(),
            task_definition: String::new(),
            client_token: None,
            started_by: None,
            count: 1,
            launch_type: None,
            capacity_provider_strategy: Vec::new(),
            network_configuration: Value::Null,
            overrides: json!({}),
            group: None,
            propagate_tags: None,
            tags: Vec::new(),
        }
    }
}

impl From<&RunTaskInput> for RunTask {
    /// Converts the stored input as the adapter does.
    fn from(input: &RunTaskInput) -> Self {
        let provider = |name: &String| Provider {
            capacity_provider: name.clone(),
        };
        let network = input
            .network_configuration
            .as_ref()
            .map_or(Value::Null, |network| {
                json!({ "awsvpcConfiguration": {
                    "subnets": network.subnets,
                    "securityGroups": network.security_groups,
                    "assignPublicIp": if network.assign_public_ip { "ENABLED" } else { "DISABLED" },
                }})
            });
        Self {
            cluster: input.cluster.clone(),
            task_definition: input.task_definition.clone(),
            client_token: Some(input.client_token.clone()),
            started_by: Some(input.started_by.clone()),
            count: input.count,
            capacity_provider_strategy: input.capacity_provider.iter().map(provider).collect(),
            network_configuration: network,
            overrides: json!(input.overrides),
            ..Self::default()
        }
    }
}

impl RunTask {
    /// The request's digest. A client token treats two requests of the same digest as one.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::digest(json!(self).to_string()).into()
    }

    /// Checks what the request alone shows, with ECS's own words where they are known.
    pub(super) fn check(&self) -> Result<Kind, Refusal> {
        let characters = self.overrides.to_string().chars().count();
        let plain = |text: &str| {
            text.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_/".contains(c))
        };
        let started_by = self.started_by.as_deref().unwrap_or_default();
        let token = self.client_token.as_deref().unwrap_or_default();
        let fault = if characters > OVERRIDES_MAX {
            // Seen so by artilleryio/artillery#2584.
            Some("Container Overrides length must be at most 8192")
        } else if !(1..=COUNT_MAX).contains(&self.count) {
            Some("Count must be between 1 and 10.")
        } else if started_by.len() > STARTED_BY_MAX || !plain(started_by) {
            Some(
                "startedBy is invalid: at most 128 letters, digits, hyphens, underscores and slashes.",
            )
        } else if token.len() > TOKEN_MAX || !token.bytes().all(|byte| (33..=126).contains(&byte)) {
            Some("clientToken is invalid: at most 64 printable ASCII characters.")
        } else if self.tags.len() > TAGS_MAX {
            Some("There are more than 50 tags.")
        } else if self.propagate_tags.as_deref() == Some("SERVICE") {
            Some("propagateTags must be TASK_DEFINITION or NONE.")
        } else {
            None
        };
        fault.map_or_else(|| self.kind(), |words| Err(Refusal::parameter(words)))
    }

    /// The kind of capacity. Spot needs a strategy, and a strategy excludes a launch type (API
    /// Reference, RunTask).
    fn kind(&self) -> Result<Kind, Refusal> {
        let Some(provider) = self.capacity_provider_strategy.first() else {
            return self.launch_kind();
        };
        if self.launch_type.is_some() {
            let words = "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.";
            return Err(Refusal::parameter(words));
        }
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.provider() == provider.capacity_provider);
        kind.ok_or_else(|| Refusal::parameter("The specified capacity provider was not found."))
    }

    /// The kind of capacity without a strategy in the request. If no launch type is given either,
    /// the cluster's default strategy applies: Spot, as the template has it.
    fn launch_kind(&self) -> Result<Kind, Refusal> {
        match self.launch_type.as_deref() {
            None => Ok(Kind::Spot),
            Some("FARGATE") => Ok(Kind::OnDemand),
            Some(_) => Err(Refusal::parameter(
                "No Container Instances were found in your cluster.",
            )),
        }
    }

    /// The CPU units and memory of the task, which need the definition too.
    pub(super) fn size(&self, definition: &Definition) -> Result<(u32, String, String), Refusal> {
        if definition.needs_network && self.network_configuration.is_null() {
            let words =
                "Network Configuration must be provided when networkMode 'awsvpc' is specified.";
            return Err(Refusal::parameter(words));
        }
        let overridden =
            |name: &str, own: &str| self.overrides[name].as_str().unwrap_or(own).to_owned();
        let (cpu, memory) = (
            overridden("cpu", &definition.cpu),
            overridden("memory", &definition.memory),
        );
        Ok((definition::size(&cpu, &memory)?.cpu(), cpu, memory))
    }
}

/// A task that was not placed or is not known. It is part of a 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The ARN of the task or cluster, if it has one.
    pub arn: Option<String>,
    /// The reason, in ECS's words.
    pub reason: String,
}

impl Failure {
    /// All vCPUs of the quota are in use (AWS-FACTS §1).
    pub(super) fn vcpus() -> Self {
        Self::of(
            None,
            "You've reached the limit on the number of vCPUs you can run concurrently",
        )
    }

    /// Fargate has no capacity (Developer Guide, "API failure reasons").
    pub(super) fn no_capacity() -> Self {
        let words = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
        Self::of(None, words)
    }

    /// ECS does not know the task, or no longer knows it.
    pub(super) fn missing(arn: String) -> Self {
        Self::of(Some(arn), "MISSING")
    }

    fn of(arn: Option<String>, reason: &str) -> Self {
        Self {
            arn,
            reason: reason.to_owned(),
        }
    }

    /// The failure as JSON, as it goes over the wire.
    #[must_use]
    pub fn json(&self) -> Value {
        match &self.arn {
            Some(arn) => json!({ "arn": arn, "reason": self.reason }),
            None => json!({ "reason": self.reason }),
        }
    }
}

/// The content of a 200 of RunTask or DescribeTasks: tasks, and why some are missing.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    /// The tasks.
    pub tasks: Vec<Shown>,
    /// Why some tasks are missing.
    pub failures: Vec<Failure>,
}

impl Answered {
    /// The answer as JSON, as it goes over the wire.
    #[must_use]
    pub fn json(&self) -> Value {
        let tasks: Vec<_> = self.tasks.iter().map(Shown::described).collect();
        let failures: Vec<_> = self.failures.iter().map(Failure::json).collect();
        json!({ "tasks": tasks, "failures": failures })
    }
}
