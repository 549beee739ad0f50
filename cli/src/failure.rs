//! Why a command of mycli's did not do what was asked.

use std::{io, path::PathBuf};

use domain::request::FieldError;

use crate::{
    client::{CallError, EndpointError},
    context::API_KEY,
    env_file::EnvFileError,
    local,
    project::ProjectError,
    settings::SettingsError,
};

/// Everything that ends a command early. `Display` is what follows `error: `; more lines are indented.
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
    /// There is nothing to show.
    #[error("{0}")]
    Nothing(String),
}

impl Failure {
    /// For `map_err`: an I/O error while `doing`.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing, error }
    }

    /// The faults of single fields, shown one a line.
    pub(crate) fn fields(&self) -> &[FieldError] {
        match self {
            Self::Faults(faults) => faults,
            Self::Call(CallError::Refused(problem)) => &problem.errors,
            _ => &[],
        }
    }

    /// What to do about it, where the API could not know.
    pub(crate) fn hint(&self) -> Option<String> {
        let about_the_key = matches!(self, Self::Call(error) if error.is_about_the_key());
        about_the_key
            .then(|| format!("the key was taken from {API_KEY} if that is set, else from `mycli config show`'s file"))
    }

    /// The exit code, in a command that exits with `code` when it fails.
    pub(crate) fn exit_code(&self, code: u8) -> u8 {
        if matches!(self, Self::Usage(_)) { crate::exit::USAGE } else { code }
    }
}
