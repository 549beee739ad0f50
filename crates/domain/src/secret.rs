//! What is known of a secret without its value.

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
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
}

impl SecretRecord {
    /// Whether a request of this caller may name it.
    #[must_use]
    pub fn is_open_to(&self, caller: &Caller) -> bool {
        caller.role >= self.role
    }
}
