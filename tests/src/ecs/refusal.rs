//! The errors that ECS and Service Quotas answer with.

use std::fmt;

/// An error as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The error code, such as `ThrottlingException`.
    pub code: &'static str,
    /// The message, in ECS's words.
    pub message: String,
    /// The tasks that the client token already started (`ConflictException`).
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

    /// Throttled: 400, unmodelled (API Reference, "Request throttling for the Amazon ECS API").
    pub(super) fn throttled() -> Self {
        Self::new(400, "ThrottlingException", "Rate exceeded")
    }

    /// An invalid parameter.
    pub(super) fn parameter(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameterException", message)
    }

    /// Any other mistake of the client.
    pub(super) fn client(message: impl Into<String>) -> Self {
        Self::new(400, "ClientException", message)
    }

    /// There is no such cluster.
    pub(super) fn no_cluster() -> Self {
        Self::new(400, "ClusterNotFoundException", "Cluster not found.")
    }

    /// The client token belongs to another request (API Reference, `ConflictException`).
    pub(super) fn conflict(token: &str, resource_ids: Vec<String>) -> Self {
        let message =
            format!("The client token {token} is already in use with a different RunTask request.");
        Self {
            resource_ids,
            ..Self::new(400, "ConflictException", message)
        }
    }

    /// A server fault. The call may have been carried out.
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

    /// An operation that the model does not know.
    pub(super) fn unknown_operation() -> Self {
        Self::new(400, "UnknownOperationException", "")
    }
}
