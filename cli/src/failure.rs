//! Why a mycli command failed.

use std::{io, path::PathBuf};

use deploy::{
    CallError as AwsError, StackName, account::AccountError, dead_letters::DeadLetterError,
    forget::ForgetError, install::InstallError, package::PackageError, remove::RemoveError,
    secrets::SecretError, stack::StackError,
};
use domain::{api::Problem, ports::PortError, request::FieldError};

use crate::{
    client::{ApiError, EndpointError},
    context::API_KEY,
    env_file::EnvFileError,
    local,
    project::ProjectError,
    settings::SettingsError,
};

/// Everything that ends a command early. `Display` gives the text after `error: `; further lines
/// are indented.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A mistake in the command line that clap cannot detect.
    #[error("{0}")]
    Usage(String),
    /// Neither a stack nor this machine was chosen. Holds an example command.
    #[error(
        "nothing is configured yet, and there are two ways to go:
  on this machine, with no account:   mycli --local {0}
  on a stack in your AWS account:     give its address with --endpoint URL, MYCLI_ENDPOINT or `mycli config set endpoint URL`,
                                      and its key in MYCLI_API_KEY or with `mycli config set key`"
    )]
    Unconfigured(String),
    /// A key is missing or cannot be used.
    #[error("{0}")]
    Key(String),
    /// An address or key that cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No repository was named and none was found.
    #[error("{0}: name a repository with --repo, or run without one with --no-repo")]
    NoRepository(String),
    /// A request that the API would refuse.
    #[error("the request has {} {}", .0.len(), if .0.len() == 1 { "fault" } else { "faults" })]
    Faults(Vec<FieldError>),
    /// Lines that the API would refuse: how many of which source, and every fault in them.
    #[error("{0}; nothing was sent")]
    Lines(String, Vec<FieldError>),
    /// The API refused, or could not be reached.
    #[error(transparent)]
    Call(#[from] ApiError),
    /// The configuration file cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// `.mycli.yaml` cannot be used.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// A `-e` or `--env-file` cannot be used.
    #[error(transparent)]
    EnvFile(#[from] EnvFileError),
    /// This machine's store cannot be opened.
    #[error("failed to open this machine's history: {0}")]
    Open(#[from] local::OpenError),
    /// This machine's runner or server failed.
    #[error("{0}")]
    Local(String),
    /// A file of mycli's own cannot be used.
    #[error("failed to use {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
    /// Standard output or error, or the async runtime, failed.
    #[error("failed to {doing}: {error}")]
    Io {
        /// Completes "failed to".
        doing: &'static str,
        /// The I/O error.
        error: io::Error,
    },
    /// There is nothing to show, or nothing was done.
    #[error("{0}")]
    Nothing(String),
    /// The AWS account cannot be used.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The credentials belong to another account or region than the stack's.
    #[error(
        "the stack `{name}` is in {known}, but these credentials are for {found}: use those of that account and region, or give another \
         name with --stack"
    )]
    Elsewhere {
        /// The stack's name.
        name: StackName,
        /// The stack's account and region.
        known: String,
        /// The credentials' account and region.
        found: String,
    },
    /// There is no such stack.
    #[error("there is no stack {} in {place}: `mycli init` makes one", name.full())]
    NoStack {
        /// The stack's name.
        name: StackName,
        /// The account and region that were searched.
        place: String,
    },
    /// The stack is of a later version.
    #[error(
        "the stack is of version {theirs}, newer than this mycli ({}): install that version, or go back with --allow-downgrade",
        env!("CARGO_PKG_VERSION")
    )]
    Older {
        /// The stack's version.
        theirs: String,
    },
    /// The stack has unfinished runs.
    #[error(
        "the stack is in use: {words}. Wait for the end ({command}), or stop them all with --force"
    )]
    UnderWay {
        /// What is under way.
        words: String,
        /// The command that shows it.
        command: String,
    },
    /// The stack exists, but its API does not answer as it should.
    #[error(
        "the stack stands, but its API at {endpoint} does not take the key: {error}. Run this again; if it stays so, see `mycli doctor`"
    )]
    Silent {
        /// The API's address.
        endpoint: String,
        /// What the API answered, or why it could not be reached.
        error: ApiError,
    },
    /// The functions' code cannot be used.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The stack could not be made or changed.
    #[error("{}{}", .0, going_on(.0))]
    Install(#[from] InstallError),
    /// The stack could not be removed.
    #[error("{0}\nWhat is left is removed by running this again")]
    Remove(#[from] RemoveError),
    /// The stack could not be read.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// A call to AWS failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The records could not be used: a stack's table, or this machine's file.
    #[error(transparent)]
    Table(#[from] PortError),
    /// A secret could not be set, listed or removed.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The dead letters could not be used.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
}

impl From<ForgetError> for Failure {
    fn from(error: ForgetError) -> Self {
        match error {
            ForgetError::Refused(problem) => Self::Call(ApiError::Refused(problem)),
            ForgetError::Runs(_) => Self::Nothing(error.to_string()),
            ForgetError::Store(error) => Self::Table(error),
        }
    }
}

/// How to go on after CloudFormation failed midway. Empty if the change was refused at the start.
fn going_on(error: &InstallError) -> &'static str {
    match error {
        InstallError::Stack(StackError::Failed { .. }) => {
            "\nCloudFormation has undone it. Mend the cause and run this again: it goes on where this ended"
        }
        _ => "",
    }
}

impl Failure {
    /// Wraps an I/O error for `map_err`; `doing` says what failed.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing, error }
    }

    /// The faults of single fields, shown one to a line.
    pub(crate) fn fields(&self) -> &[FieldError] {
        match self {
            Self::Faults(faults) | Self::Lines(_, faults) => faults,
            Self::Call(ApiError::Refused(problem)) => &problem.errors,
            _ => &[],
        }
    }

    /// What to do about the failure, where the API could not know it.
    pub(crate) fn advice(&self) -> Option<String> {
        let about_the_key = matches!(self, Self::Call(error) if error.is_about_the_key());
        about_the_key
            .then(|| format!("the key was taken from {API_KEY} if that is set, else from `mycli config show`'s file"))
    }

    /// The exit code, in a command that exits with `code` when it fails.
    pub(crate) fn exit_code(&self, code: u8) -> u8 {
        match self {
            Self::Usage(_)
            | Self::NoRepository(_)
            | Self::Faults(_)
            | Self::Lines(..)
            | Self::Project(_)
            | Self::EnvFile(_) => crate::exit::USAGE,
            Self::Call(ApiError::Refused(problem)) if is_of_the_request(problem) => {
                crate::exit::USAGE
            }
            _ => code,
        }
    }
}

/// Whether the request itself is at fault and nothing was started. The same request will be refused
/// again until it is changed.
fn is_of_the_request(problem: &Problem) -> bool {
    let codes = ["idempotency_key_reused", "invalid_json", "body_too_large"];
    problem.has_faults() || codes.contains(&problem.code.as_str())
}
