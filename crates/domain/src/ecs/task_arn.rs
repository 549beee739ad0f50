//! The names of a task: its ARN, its id, and its log stream.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::container::MAIN;

/// The prefix of the log streams of tasks, as the task definition sets it (DESIGN §6).
pub const STREAM_PREFIX: &str = "task";

/// The ARN of a task: `arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID`. Empty for a task that has none
/// yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskArn(String);

impl TaskArn {
    /// The ARN as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The id of the task: the last part of the ARN.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId(self.0.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// The log stream of the task's container `main`.
    #[must_use]
    pub fn log_stream(&self) -> String {
        format!("{STREAM_PREFIX}/{MAIN}/{}", self.id())
    }
}

impl fmt::Display for TaskArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<&str> for TaskArn {
    fn eq(&self, text: &&str) -> bool {
        self.0 == *text
    }
}

impl From<String> for TaskArn {
    fn from(arn: String) -> Self {
        Self(arn)
    }
}

impl From<&str> for TaskArn {
    fn from(arn: &str) -> Self {
        Self(arn.to_owned())
    }
}

impl From<TaskArn> for String {
    fn from(arn: TaskArn) -> Self {
        arn.0
    }
}

/// The id of a task within its cluster: 32 hexadecimal digits. An emulator puts dashes between
/// them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(String);

impl TaskId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the task that writes to this log stream; `None` if the stream belongs to no task of
    /// mycli.
    #[must_use]
    pub fn of_log_stream(stream: &str) -> Option<Self> {
        let rest = stream
            .strip_prefix(STREAM_PREFIX)?
            .strip_prefix('/')?
            .strip_prefix(MAIN)?
            .strip_prefix('/')?;
        let is_id = !rest.is_empty() && !rest.contains('/');
        is_id.then(|| Self(rest.to_owned()))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for TaskId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_names_its_task() {
        let arn = TaskArn::from("arn:aws:ecs:eu-central-1:123456789012:task/c/0123abcd");
        assert_eq!(arn.log_stream(), "task/main/0123abcd");
        assert_eq!(TaskId::of_log_stream(&arn.log_stream()), Some(arn.id()));
        for other in ["task/main/", "task/main/a/b", "task/other/a", "main/a"] {
            assert_eq!(TaskId::of_log_stream(other), None, "{other}");
        }
    }
}
