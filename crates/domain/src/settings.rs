//! What an installation is set to: the same for every execution it runs.

use crate::{ecs::NetworkConfiguration, request::Defaults, throttle::Quotas};

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
    /// What a request may name of the account; `None` on one machine, where nothing is checked.
    pub allowed: Option<Allowed>,
    /// The network that tasks are in; `None` on one machine.
    pub network: Option<NetworkConfiguration>,
    /// After how many seconds a launch of which ECS lists no task surely made none: ECS is eventually consistent.
    pub unlisted_seconds: u32,
    /// For how many seconds after a task's end lines of its output may still come in: CloudWatch Logs shows a line some time after it
    /// was written, a file at once.
    pub log_delay_seconds: u32,
}

/// What a request may name of the account that the stack is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// What the ARN of a task role begins with: account and path, up to the last slash.
    pub task_role_prefix: String,
    /// What the name of a registry secret begins with.
    pub registry_secret_prefix: String,
}

/// Which secrets for git are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GitAccess {
    /// [`crate::task::GIT_TOKEN`].
    pub token: bool,
    /// [`crate::task::GIT_SSH_KEY`].
    pub ssh_key: bool,
    /// [`crate::task::GIT_KNOWN_HOSTS`]; without it the script's own list is trusted.
    pub known_hosts: bool,
}
