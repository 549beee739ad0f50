//! The errors that ECS and Service Quotas answer with.

use std::fmt;

/// An error as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// `ThrottlingException`.
    pub code: &'static str,
    /// In ECS's words.
    pub message: String,
    /// The tasks that a client token already stands for (`ConflictException`).
    pub resource_ids: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl Refusal {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            resource_ids: Vec::new(),
        }
    }

    /// Too fast: 400, unmodelled (API Reference, "Request throttling for the Amazon ECS API").
    pub(super) fn throttled() -> Self {
        Self::new(400, "ThrottlingException", "Rate exceeded")
    }

    /// A parameter that cannot be.
    pub(super) fn parameter(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameterException", message)
    }

    /// What the client has got wrong otherwise.
    pub(super) fn client(message: impl Into<String>) -> Self {
        Self::new(400, "ClientException", message)
    }

    /// There is no such cluster.
    pub(super) fn no_cluster() -> Self {
        Self::new(400, "ClusterNotFoundException", "Cluster not found.")
    }

    /// The client token stands for another request (API Reference, `ConflictException`).
    pub(super) fn conflict(token: &str, resource_ids: Vec<String>) -> Self {
        let message =
            format!("The client token {token} is already in use with a different RunTask request.");
        Self {
            resource_ids,
            ..Self::new(400, "ConflictException", message)
        }
    }

    /// The server's own fault: it may have been done.
    pub(super) fn server() -> Self {
        Self::new(
            500,
            "ServerException",
            "Service Unavailable. Please try again later.",
        )
    }

    /// Service Quotas knows no such quota, or no applied value of it.
    pub(super) fn no_resource() -> Self {
        Self::new(
            400,
            "NoSuchResourceException",
            "The specified resource does not exist",
        )
    }

    /// A body that cannot be read.
    pub(super) fn unreadable(message: impl Into<String>) -> Self {
        Self::new(400, "SerializationException", message)
    }

    /// A call that is none of those known here.
    pub(super) fn unknown_operation() -> Self {
        Self::new(400, "UnknownOperationException", "")
    }
}
