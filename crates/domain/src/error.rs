//! The errors of calls to something outside, by what can resolve them.
//!
//! The type decides whether a call is repeated: only [`Unavailable`] is. Each error keeps its cause
//! as [`std::error::Error::source`]. Its text contains the cause as well, because it ends up in one
//! line of a log or of a terminal.

use std::{error::Error, fmt, sync::Arc};

use crate::{id::ExecutionId, metric, stored::FormError};

/// The cause of an error. It is shared because one failed call may fail many things that waited for
/// it.
pub type ErrorSource = Arc<dyn Error + Send + Sync>;

/// Why a port's call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PortError {
    /// There is no usable answer. The same call may succeed later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The call was refused. The same call is refused again until somebody changes something.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A stored form cannot be read. It stays unreadable until a release comes that can read it, or
    /// somebody removes it.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

impl PortError {
    /// The error of a service that did not answer, or gave no usable answer.
    pub fn unavailable(
        service: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Unavailable {
            service,
            source: Arc::from(source.into()),
        }
        .into()
    }

    /// The error of a service that found a fault in a request that mycli made. That is a fault of
    /// mycli.
    pub fn invalid(service: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Rejected {
            service,
            rejection: RejectionKind::Invalid,
            source: Arc::from(source.into()),
        }
        .into()
    }

    /// The error of an unreadable stored form that is not an execution. `what` names it: "an API
    /// key's record".
    pub fn corrupt(
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Corrupt {
            what: What::Other(what.into()),
            source: Arc::from(source.into()),
        }
        .into()
    }

    /// Logs that a stored form is skipped, if the error is about an unreadable one.
    pub fn note_corrupt(&self) {
        if let Self::Corrupt(corrupt) = self {
            corrupt.note();
        }
    }

    /// Whether the same call may succeed later without anybody's help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// A service did not answer, or gave no usable answer.
#[derive(Clone, Debug)]
pub struct Unavailable {
    /// The service: "the store", "the queue", "ECS".
    pub service: &'static str,
    /// The cause.
    pub source: ErrorSource,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is unavailable: {}", self.service, self.source)
    }
}

impl Error for Unavailable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// A service refused a call.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// The service: "the store", "the queue", "ECS".
    pub service: &'static str,
    /// The kind of refusal.
    pub rejection: RejectionKind,
    /// The service's own error.
    pub source: ErrorSource,
}

/// The kinds of refusals, by who can resolve them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RejectionKind {
    /// The caller lacks a permission, which an administrator can give.
    Denied {
        /// The permission, `dynamodb:PutItem`, if the service named it.
        permission: Option<String>,
    },
    /// The object of the call does not exist: a table, a queue, a cluster.
    Missing,
    /// The request itself is wrong, which is a fault of mycli.
    Invalid,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            rejection,
            source,
        } = self;
        match rejection {
            RejectionKind::Denied {
                permission: Some(permission),
            } => {
                write!(
                    f,
                    "{service} denied access, the permission {permission} is missing: {source}"
                )
            }
            RejectionKind::Denied { permission: None } => {
                write!(f, "{service} denied access: {source}")
            }
            RejectionKind::Missing => {
                write!(f, "{service} has no such resource: {source}")
            }
            RejectionKind::Invalid => write!(f, "{service} rejected the request: {source}"),
        }
    }
}

impl Error for Rejected {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// A stored form that cannot be read. Neither this error nor its cause shows any of the content.
#[derive(Clone, Debug)]
pub struct Corrupt {
    /// The object that it is about.
    pub what: What,
    /// Why it cannot be read.
    pub source: ErrorSource,
}

/// The object of a stored form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The record of this execution.
    Execution(ExecutionId),
    /// Another object, in words.
    Other(String),
}

/// The log message for each record that is skipped because it cannot be read. A metric filter of
/// the stack counts these messages (`UnreadableRecords` in infra/template.yaml).
pub const PASSED_OVER: &str = "a record cannot be read and is passed over";

impl Corrupt {
    /// The execution whose record is unreadable.
    #[must_use]
    pub fn id(&self) -> Option<&ExecutionId> {
        match &self.what {
            What::Execution(id) => Some(id),
            What::Other(_) => None,
        }
    }

    /// Logs that it is skipped, with the message that is counted.
    pub fn note(&self) {
        let execution_id = self.id().map(tracing::field::display);
        tracing::error!(execution_id, stored_record = %self.what, error = %self.source, "{PASSED_OVER}");
        metric::record_unreadable();
    }

    /// Whether a newer release wrote it, in a form that this one does not read.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(
            self.source.downcast_ref::<FormError>(),
            Some(FormError::Newer { .. })
        )
    }

    /// The error of an execution's record that cannot be read.
    pub fn execution(id: ExecutionId, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            what: What::Execution(id),
            source: Arc::from(source.into()),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Execution(id) => write!(f, "the record of {id}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be read: {}", self.what, self.source)
    }
}

impl Error for Corrupt {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}
