//! What an installation is set to: the same for every execution it runs.

use crate::{
    ecs::NetworkConfiguration,
    request::{Defaults, FieldError, LaunchRequest},
    throttle::{Quotas, Rate},
};

/// The settings of one installation (a stack on AWS, or one machine).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The ECS cluster that tasks run in.
    pub cluster: String,
    /// The log group their output goes to.
    pub log_group: String,
    /// What a request gets that does not say.
    pub defaults: Defaults,
    /// What each pool allows.
    pub quotas: Quotas,
    /// How fast `RunTask` may be called, over all pools: [`crate::throttle::RUN_TASK_RATE`] unless
    /// AWS raised it; `None` on one machine.
    pub run_task_rate: Option<Rate>,
    /// After how many refusals in a row, or interruptions of one execution, Fargate Spot is given
    /// up for on-demand capacity; `None` for never.
    pub spot_fallback_after: Option<u32>,
    /// How fast task definitions may be registered: [`crate::throttle::DEFINITIONS_RATE`] on AWS;
    /// `None` on one machine.
    pub definitions_rate: Option<Rate>,
    /// What a request may name of the account; `None` on one machine, where nothing is checked.
    pub allowed: Option<Allowed>,
    /// The network that tasks are in; `None` on one machine.
    pub network: Option<NetworkConfiguration>,
    /// The name of the stack, if tasks are tagged for whoever splits the account's costs.
    pub task_tags: Option<String>,
    /// After how many seconds a launch of which ECS lists no task surely made none: ECS is
    /// eventually consistent.
    pub unlisted_seconds: u32,
    /// For how many seconds after a task's end lines of its output may still come in: CloudWatch
    /// Logs shows a line some time after it was written, a file at once.
    pub log_delay_seconds: u32,
}

impl Allowed {
    /// Completes what a request names by a name alone, and says what it must not name.
    #[must_use]
    pub fn apply(&self, request: &mut LaunchRequest) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, message: String| {
            faults.push(FieldError {
                field: field.into(),
                message,
            })
        };
        if let Some(role) = &request.task_role {
            let named = role.as_str();
            let arn = if named.contains(':') {
                named.to_owned()
            } else {
                format!("{}{named}", self.task_role_prefix)
            };
            match arn.parse() {
                Ok(role) if is_below(&arn, &self.task_role_prefix) => {
                    request.task_role = Some(role)
                }
                _ => fault(
                    "task_role",
                    format!(
                        "is none of this stack's: its ARN must begin with {}",
                        self.task_role_prefix
                    ),
                ),
            }
        }
        if let Some(secret) = &request.registry_secret {
            let name = secret
                .as_str()
                .rsplit_once(":secret:")
                .map_or(secret.as_str(), |(_, name)| name);
            if !is_below(name, &self.registry_secret_prefix) {
                let message = format!(
                    "is none of this stack's: its name must begin with {}",
                    self.registry_secret_prefix
                );
                fault("registry_secret", message);
            }
        }
        faults
    }
}

/// Nothing is below an empty prefix: a function that is given none allows nothing.
fn is_below(name: &str, prefix: &str) -> bool {
    !prefix.is_empty() && name.starts_with(prefix)
}

/// What a request may name of the account that the stack is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// What the ARN of a task role begins with: account and path, up to the last slash.
    pub task_role_prefix: String,
    /// What the name of a registry secret begins with.
    pub registry_secret_prefix: String,
}
