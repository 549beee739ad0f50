//! Why a mycli command failed.

use std::{fmt::Display, io, path::Path};

use deploy::{
    CallError, account::AccountError, dead_letters::DeadLetterError, forget::ForgetError,
    install::InstallError, package::PackageError, remove::RemoveError, secrets::SecretError,
    stack::StackError,
};
use domain::{api::Problem, ports::PortError, request::FieldError};

use crate::{
    config::settings::SettingsError,
    exit, local,
    request::{env_file::EnvFileError, project::ProjectError},
    variables::{API_KEY, NotText},
};

/// Everything that ends a command early, by what a caller does about it. `Display` gives the text
/// after `error: `; further lines are indented.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A mistake in the command line, or in a file or variable that stands for a part of it.
    #[error("{0}")]
    Usage(String),
    /// Requests that the API would refuse: a summary, and every fault. Nothing was sent.
    #[error("{summary}")]
    Faults {
        /// The requests that cannot be run.
        summary: String,
        /// The faults of single fields.
        faults: Vec<FieldError>,
    },
    /// The API refused the request.
    #[error("{}", .0.title)]
    Refused(Problem),
    /// There is nothing to show, or nothing was done.
    #[error("{0}")]
    Nothing(String),
    /// The AWS account cannot be used.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// Anything else that only its text tells of.
    #[error("{0}")]
    Other(String),
}

/// Errors whose text is all that matters.
macro_rules! told_by_their_text {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::other(error)
            }
        }
    )+};
}

told_by_their_text!(
    CallError,
    DeadLetterError,
    PackageError,
    PortError,
    SecretError,
    SettingsError,
    StackError,
);

impl From<ProjectError> for Failure {
    fn from(error: ProjectError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<EnvFileError> for Failure {
    fn from(error: EnvFileError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<NotText> for Failure {
    fn from(error: NotText) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<local::OpenError> for Failure {
    fn from(error: local::OpenError) -> Self {
        Self::Other(format!("failed to open this machine's history: {error}"))
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        Self::Other(format!("{error}{}", going_on(&error)))
    }
}

impl From<RemoveError> for Failure {
    fn from(error: RemoveError) -> Self {
        Self::Other(format!("{error}\nRun this again to remove the rest"))
    }
}

impl From<ForgetError> for Failure {
    fn from(error: ForgetError) -> Self {
        match error {
            ForgetError::Refused(problem) => Self::Refused(problem),
            ForgetError::Runs(_) => Self::Nothing(error.to_string()),
            ForgetError::Store(error) => error.into(),
        }
    }
}

/// How to go on after CloudFormation failed midway. Empty if the change was refused at the start.
fn going_on(error: &InstallError) -> &'static str {
    match error {
        InstallError::Stack(StackError::Failed { .. }) => {
            "\nCloudFormation has undone it. Fix the cause and run this again: it goes on where this ended"
        }
        _ => "",
    }
}

impl Failure {
    /// An error whose text is all that matters.
    pub(crate) fn other(error: impl Display) -> Self {
        Self::Other(error.to_string())
    }

    /// The faults of one request.
    pub(crate) fn faults(faults: Vec<FieldError>) -> Self {
        let count = faults.len();
        let noun = if count == 1 { "fault" } else { "faults" };
        Self::Faults {
            summary: format!("the request has {count} {noun}"),
            faults,
        }
    }

    /// Wraps an I/O error for `map_err`; `doing` says what failed.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Other(format!("failed to {doing}: {error}"))
    }

    /// A file of mycli's own that cannot be used.
    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        Self::Other(format!("failed to use {}: {error}", path.display()))
    }

    /// The faults of single fields, shown one to a line.
    pub(crate) fn fields(&self) -> &[FieldError] {
        match self {
            Self::Faults { faults, .. } => faults,
            Self::Refused(problem) => &problem.errors,
            _ => &[],
        }
    }

    /// Advice about the failure, where the API could not know it.
    pub(crate) fn advice(&self) -> Option<String> {
        matches!(self, Self::Refused(problem) if problem.status == 401).then(about_the_key)
    }

    /// The exit code, in a command that exits with `code` when it fails.
    pub(crate) fn exit_code(&self, code: u8) -> u8 {
        match self {
            Self::Usage(_) | Self::Faults { .. } => exit::USAGE,
            Self::Refused(problem) if is_of_the_request(problem) => exit::USAGE,
            _ => code,
        }
    }
}

/// Where the key that was refused came from.
pub(crate) fn about_the_key() -> String {
    format!("the key comes from {API_KEY}, or else from the file that `mycli config show` names")
}

/// Whether the request itself is at fault and nothing was started. The same request will be refused
/// again until it is changed.
fn is_of_the_request(problem: &Problem) -> bool {
    let codes = ["idempotency_key_reused", "invalid_json", "body_too_large"];
    problem.has_faults() || codes.contains(&problem.code.as_str())
}
