//! The messages that the functions send each other through the queues.
//!
//! A message only says that there is something to look at; the state is in the store. So a
//! duplicate is harmless, the sweep repairs a lost message, and an old one finds nothing left to
//! do.

use serde::{Deserialize, Serialize};

use crate::{
    id::ExecutionId,
    limit::LimitKey,
    request::Name,
    stored::{self, FormError},
};

/// The body of a message, tagged and versioned by its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// A backlog has work or room: start its first entries. On the launch queue.
    #[serde(rename = "line")]
    Wakeup {
        /// The backlog.
        #[serde(rename = "line")]
        backlog: LimitKey,
        /// The execution that was just recorded in the backlog, if that is the cause. If it cannot
        /// start at once, the reason for its waiting is recorded.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        id: Option<ExecutionId>,
    },
    /// Look at an execution that is not final: carry out a cancel, ask ECS about a launch whose
    /// outcome is unknown, read the end of its log. On the control queue.
    Check {
        /// The execution.
        id: ExecutionId,
    },
    /// A group's mark has members to close ([`crate::group::GroupCancel`]). On the control queue.
    CancelGroup {
        /// The group.
        group: Name,
    },
    /// Failed members of a group are to be run again ([`crate::group::GroupRerun`]). On the control
    /// queue.
    RerunGroup {
        /// The group of the new executions.
        group: Name,
    },
}

/// The two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueName {
    /// Starts executions. The launcher reads it.
    Launch,
    /// Cancels and checks executions. The launcher reads it too, but its messages never wait behind
    /// ten thousand starts.
    Control,
}

impl QueueName {
    /// Both queues.
    pub const ALL: [Self; 2] = [Self::Launch, Self::Control];

    /// The queue's short name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Control => "control",
        }
    }
}

impl Message {
    /// The body of the message.
    ///
    /// # Errors
    /// When the message cannot be written as JSON.
    pub fn body(&self) -> Result<String, FormError> {
        stored::write_text(self, &stored::Unknown::default())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When this release does not know its kind or its form. The message then stays on its queue:
    /// another function of the stack may know it, and otherwise it becomes a dead letter.
    pub fn read(body: &str) -> Result<Self, FormError> {
        stored::read_text(body.as_bytes()).map(|(message, _)| message)
    }

    /// The queue that the message goes to.
    #[must_use]
    pub fn queue(&self) -> QueueName {
        match self {
            Self::Wakeup { .. } => QueueName::Launch,
            Self::Check { .. } | Self::CancelGroup { .. } | Self::RerunGroup { .. } => {
                QueueName::Control
            }
        }
    }
}

/// A message and the seconds until it may be received: at most 900 (Amazon SQS, `DelaySeconds`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// The delay, in seconds.
    pub delay_seconds: u32,
}

impl From<Message> for Outgoing {
    fn from(message: Message) -> Self {
        Self {
            message,
            delay_seconds: 0,
        }
    }
}
