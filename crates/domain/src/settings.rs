//! What an installation is set to: the same for every execution it runs.

use crate::{limit::CapacityPool, request::Defaults, throttle::Quota};

/// The settings of one installation (a stack on AWS, or one machine).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The ECS cluster that tasks run in.
    pub cluster: String,
    /// The log group their output goes to.
    pub log_group: String,
    /// What a request gets that does not say.
    pub defaults: Defaults,
    /// The quota of the pools; the same for each until quotas are read per pool.
    pub quota: Quota,
}

impl Settings {
    /// The quota of a pool.
    #[must_use]
    pub fn quota(&self, _pool: CapacityPool) -> &Quota {
        &self.quota
    }
}
