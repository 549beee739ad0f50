//! Why a command of mycli's did not do what was asked.

use std::{io, path::PathBuf};

use deploy::{
    CallError as AwsError, StackName, account::AccountError, dead_letters::DeadLetterError,
    forget::ForgetError, install::InstallError, package::PackageError, remove::RemoveError,
    secrets::SecretError, stack::StackError,
};
use domain::{api::Problem, ports::PortError, request::FieldError};

use crate::{
    client::{CallError, EndpointError},
    context::API_KEY,
    env_file::EnvFileError,
    local,
    project::ProjectError,
    settings::SettingsError,
};

/// Everything that ends a command early. `Display` is what follows `error: `; more lines are
/// indented.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something about the command line that clap cannot see.
    #[error("{0}")]
    Usage(String),
    /// Nobody said where to run.
    #[error(
        "nothing is configured yet, and there are two ways to go:
  on this machine, with no account:   mycli --local {0}
  on a stack in your AWS account:     give its address with --endpoint URL, MYCLI_ENDPOINT or `mycli config set endpoint URL`,
                                      and its key in MYCLI_API_KEY or with `mycli config set key`"
    )]
    Unconfigured(String),
    /// There is no key to show.
    #[error("{0}")]
    Key(String),
    /// An address or key that cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No repository was named and none was found.
    #[error("{0}: name a repository with --repo, or run without one with --no-repo")]
    NoRepository(String),
    /// A request that would be refused.
    #[error("the request has {} {}", .0.len(), if .0.len() == 1 { "fault" } else { "faults" })]
    Faults(Vec<FieldError>),
    /// Lines that would be refused: how many in what, and everything that is wrong with each.
    #[error("{0}; nothing was sent")]
    Lines(String, Vec<FieldError>),
    /// The API said no, or could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The configuration file.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// `.mycli.yaml`.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// `--env-file`.
    #[error(transparent)]
    EnvFile(#[from] EnvFileError),
    /// This machine's store.
    #[error("failed to open this machine's history: {0}")]
    Open(#[from] local::OpenError),
    /// This machine's runner or server.
    #[error("{0}")]
    Local(String),
    /// A file of ours.
    #[error("failed to use {}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Standard output or error, or the runtime.
    #[error("failed to {doing}: {error}")]
    Io {
        /// Completes "failed to".
        doing: &'static str,
        /// Why.
        error: io::Error,
    },
    /// There is nothing to show, or nothing was done.
    #[error("{0}")]
    Nothing(String),
    /// The AWS account.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The credentials are for another place than the stack's.
    #[error(
        "the stack `{name}` is in {known}, but these credentials are for {found}: use those of that account and region, or give another \
         name with --stack"
    )]
    Elsewhere {
        /// The stack's name.
        name: StackName,
        /// Where the stack is.
        known: String,
        /// Where we are.
        found: String,
    },
    /// There is no such stack.
    #[error("there is no stack {} in {place}: `mycli init` makes one", name.full())]
    NoStack {
        /// Its name.
        name: StackName,
        /// Where it was looked for.
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
    /// The stack is being used.
    #[error(
        "the stack is in use: {words}. Wait for the end ({command}), or stop them all with --force"
    )]
    UnderWay {
        /// By what.
        words: String,
        /// What shows it.
        command: String,
    },
    /// The stack stands, and its API does not answer as it should.
    #[error(
        "the stack stands, but its API at {endpoint} does not take the key: {error}. Run this again; if it stays so, see `mycli doctor`"
    )]
    Silent {
        /// Its address.
        endpoint: String,
        /// What it said.
        error: CallError,
    },
    /// The functions' code.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Making or changing the stack.
    #[error("{}{}", .0, going_on(.0))]
    Install(#[from] InstallError),
    /// Removing the stack.
    #[error("{0}\nWhat is left is removed by running this again")]
    Remove(#[from] RemoveError),
    /// Looking at the stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// A call to AWS.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The records: a stack's table, or this machine's file.
    #[error(transparent)]
    Table(#[from] PortError),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Dead letters.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
}

impl From<ForgetError> for Failure {
    fn from(error: ForgetError) -> Self {
        match error {
            ForgetError::Refused(problem) => Self::Call(CallError::Refused(problem)),
            ForgetError::Runs(_) => Self::Nothing(error.to_string()),
            ForgetError::Store(error) => Self::Table(error),
        }
    }
}

/// How to go on where a run was cut short by AWS, and not refused at the start.
fn going_on(error: &InstallError) -> &'static str {
    match error {
        InstallError::Stack(StackError::Failed { .. }) => {
            "\nCloudFormation has undone it. Mend the cause and run this again: it goes on where this ended"
        }
        _ => "",
    }
}

impl Failure {
    /// For `map_err`: an I/O error while `doing`.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing, error }
    }

    /// The faults of single fields, shown one a line.
    pub(crate) fn fields(&self) -> &[FieldError] {
        match self {
            Self::Faults(faults) | Self::Lines(_, faults) => faults,
            Self::Call(CallError::Refused(problem)) => &problem.errors,
            _ => &[],
        }
    }

    /// What to do about it, where the API could not know.
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
            Self::Call(CallError::Refused(problem)) if is_of_the_request(problem) => {
                crate::exit::USAGE
            }
            _ => code,
        }
    }
}

/// Whether the caller asked for what cannot be, and nothing was started: the same is refused again
/// until it is asked for otherwise.
fn is_of_the_request(problem: &Problem) -> bool {
    let codes = ["idempotency_key_reused", "invalid_json", "body_too_large"];
    problem.has_faults() || codes.contains(&problem.code.as_str())
}
