//! What an installation is set to: the same for every execution it runs.

use crate::{request::Defaults, throttle::Quota};

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
    pub quota: Quota,
    /// Which credentials for git there are.
    pub git: GitAccess,
    /// After how many seconds a launch of which ECS lists no task surely made none: ECS is eventually consistent.
    pub unlisted_seconds: u32,
}

/// Which credentials for git there are, by name only; and the host keys to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitAccess {
    /// The secret [`crate::task::GIT_TOKEN`] is set.
    pub token: bool,
    /// The secret [`crate::task::GIT_SSH_KEY`] is set.
    pub ssh_key: bool,
    /// Lines of a `known_hosts` file; `None` trusts the script's own list.
    pub known_hosts: Option<String>,
}
