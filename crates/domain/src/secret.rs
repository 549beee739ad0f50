//! What is known of a secret without its value.

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    git::{self, GitHost},
    key::{Caller, Role},
};

/// A secret that is set. Its value stands elsewhere, where only a task's start reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    /// Its name, as requests name it.
    pub name: String,
    /// The least role of a key whose requests may name it.
    pub role: Role,
    /// When it was last set; `None` where that is not kept.
    pub set_at: Option<Timestamp>,
    /// The hosts that a credential for git is for; empty for those that it is for by default, and for all other secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<GitHost>,
}

impl SecretRecord {
    /// Whether a request of this caller may name it.
    #[must_use]
    pub fn is_open_to(&self, caller: &Caller) -> bool {
        caller.role >= self.role
    }

    /// The hosts that it is for; none of a secret that is no credential for git.
    #[must_use]
    pub fn git_hosts(&self) -> Vec<GitHost> {
        match (git::has_hosts(&self.name), self.hosts.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => git::default_hosts(),
            (true, false) => self.hosts.clone(),
        }
    }
}
