//! The status of a task.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The status of a task or of one of its containers, as `lastStatus` and `desiredStatus` have it
/// (Amazon ECS Developer Guide, "Task lifecycle").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TaskStatus {
    /// ECS prepares the network.
    Provisioning,
    /// ECS waits for resources, or pulls the image.
    Pending,
    /// ECS does the last steps before the containers run.
    Activating,
    /// The containers run.
    Running,
    /// ECS does the first steps towards the end.
    Deactivating,
    /// The containers are being stopped.
    Stopping,
    /// The containers have ended, and the task's resources are being released.
    Deprovisioning,
    /// The task has ended.
    Stopped,
    /// A status that this release does not know. Empty if there is none.
    Other(String),
}

impl TaskStatus {
    /// The status in ECS's spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Activating => "ACTIVATING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Stopping => "STOPPING",
            Self::Deprovisioning => "DEPROVISIONING",
            Self::Stopped => "STOPPED",
            Self::Other(text) => text,
        }
    }

    /// Whether there is no status.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }
}

impl Default for TaskStatus {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq<&str> for TaskStatus {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == *text
    }
}

impl From<&str> for TaskStatus {
    fn from(text: &str) -> Self {
        match text {
            "PROVISIONING" => Self::Provisioning,
            "PENDING" => Self::Pending,
            "ACTIVATING" => Self::Activating,
            "RUNNING" => Self::Running,
            "DEACTIVATING" => Self::Deactivating,
            "STOPPING" => Self::Stopping,
            "DEPROVISIONING" => Self::Deprovisioning,
            "STOPPED" => Self::Stopped,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl From<String> for TaskStatus {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<TaskStatus> for String {
    fn from(status: TaskStatus) -> Self {
        status.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_keeps_ecs_spelling() {
        for text in [
            "PROVISIONING",
            "PENDING",
            "ACTIVATING",
            "RUNNING",
            "DEACTIVATING",
            "STOPPING",
            "DEPROVISIONING",
            "STOPPED",
        ] {
            let status = TaskStatus::from(text);
            assert!(!matches!(status, TaskStatus::Other(_)), "{text}");
            assert_eq!(status.as_str(), text);
        }
        assert_eq!(TaskStatus::from("DELETED").as_str(), "DELETED");
    }
}
