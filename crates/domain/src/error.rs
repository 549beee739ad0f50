//! Why a call to something outside failed, by what can mend it.
//!
//! The type decides whether a call is made again: only [`Unavailable`] is. Each error keeps its
//! cause as [`std::error::Error::source`]. Its text names the cause as well, because it ends in one
//! line of a log or of a terminal.

use std::{error::Error, fmt, sync::Arc};

use crate::{id::ExecutionId, stored::FormError};

/// The cause of an error. Shared, because one failed call may fail many things that waited for it.
pub type Source = Arc<dyn Error + Send + Sync>;

/// Why a port's call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PortError {
    /// There is no answer that can be used. The same call may succeed later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The answer is no. The same call is refused again until somebody changes something.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// What is stored cannot be read. It stays so until a release that can read it comes, or
    /// somebody removes it.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

impl PortError {
    /// A service did not answer, or not in a way that can be used.
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

    /// A service found a fault with a request that mycli made. That is a fault of mycli.
    pub fn invalid(service: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Rejected {
            service,
            rejection: Rejection::Invalid,
            source: Arc::from(source.into()),
        }
        .into()
    }

    /// A stored thing that is no execution cannot be read. `what` names it: "an API key's record".
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

    /// Says in the log that it is passed over, if it is about something that cannot be read.
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

/// A service did not answer, or not in a way that can be used.
#[derive(Clone, Debug)]
pub struct Unavailable {
    /// Which one: "the store", "the queue", "ECS".
    pub service: &'static str,
    /// What happened.
    pub source: Source,
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
    /// Which one: "the store", "the queue", "ECS".
    pub service: &'static str,
    /// For what kind of reason.
    pub rejection: Rejection,
    /// What it said.
    pub source: Source,
}

/// The kinds of refusals, by who can mend them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The caller lacks a permission: an administrator can give it.
    Denied {
        /// The permission, `dynamodb:PutItem`, if the service named it.
        permission: Option<String>,
    },
    /// What the call is about is not there: a table, a queue, a cluster.
    Missing,
    /// The request itself is at fault, and so mycli is.
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
            Rejection::Denied {
                permission: Some(permission),
            } => {
                write!(
                    f,
                    "{service} denied access, the permission {permission} is missing: {source}"
                )
            }
            Rejection::Denied { permission: None } => {
                write!(f, "{service} denied access: {source}")
            }
            Rejection::Missing => write!(f, "{service} does not have what was asked for: {source}"),
            Rejection::Invalid => write!(f, "{service} rejected the request: {source}"),
        }
    }
}

impl Error for Rejected {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

/// A stored thing that cannot be read. Neither this nor its cause shows any of its content.
#[derive(Clone, Debug)]
pub struct Corrupt {
    /// Which thing.
    pub what: What,
    /// Why it cannot be read.
    pub source: Source,
}

/// A stored thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The record of this execution.
    Execution(ExecutionId),
    /// Something else, in words.
    Other(String),
}

/// What the log says of each record that is passed over because it cannot be read. A metric filter
/// of the stack counts these lines (`UnreadableRecords` in infra/template.yaml).
pub const PASSED_OVER: &str = "a record cannot be read and is passed over";

impl Corrupt {
    /// The execution whose record it is.
    #[must_use]
    pub fn id(&self) -> Option<&ExecutionId> {
        match &self.what {
            What::Execution(id) => Some(id),
            What::Other(_) => None,
        }
    }

    /// Says in the log that it is passed over, in the words that are counted.
    pub fn note(&self) {
        tracing::error!(record = %self.what, error = %self.source, "{PASSED_OVER}");
    }

    /// Whether a newer release wrote it, in a form that this one does not read.
    #[must_use]
    pub fn is_newer(&self) -> bool {
        matches!(
            self.source.downcast_ref::<FormError>(),
            Some(FormError::Newer { .. })
        )
    }

    /// The record of this execution cannot be read.
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
