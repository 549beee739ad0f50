//! Errors of the container engine.

use std::error::Error;
use std::path::PathBuf;

use bollard::errors::Error as Fault;
use thiserror::Error;

/// Why the container engine cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EngineError {
    /// No engine answers at any address.
    #[error(
        "no container engine answers ({}): start Docker or Podman, or set DOCKER_HOST to where one listens, or give --host to run on this machine's own sh without the image",
        .tried.join("; ")
    )]
    NotFound {
        /// Each address, the setting that named it, and the failure there.
        tried: Vec<String>,
    },
    /// The user has named an address that this client cannot use.
    #[error(
        "{named_by} names `{host}`: use unix://, or tcp:// without TLS, or give --host to run without the image"
    )]
    Unusable {
        /// The variable or context.
        named_by: String,
        /// Its value.
        host: String,
    },
    /// Docker's configuration cannot be used.
    #[error("cannot follow {}: {reason}", .path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// Its fault.
        reason: String,
    },
    /// There is no runner for the engine's containers.
    #[error("{0}")]
    NoRunner(String),
    /// The container no longer exists: something else removed it.
    #[error("the container {0} is gone: something else has removed it")]
    Gone(String),
    /// The engine failed at a request.
    #[error("the container engine failed to {action}: {reason}")]
    Failed {
        /// The request.
        action: &'static str,
        /// The engine's own reason.
        reason: String,
    },
}

/// The engine's own reason on one line, or why there is none.
pub(super) fn plain(fault: &Fault) -> String {
    let text = match fault {
        Fault::DockerResponseServerError {
            status_code,
            message,
        } if message.trim().is_empty() => {
            format!("HTTP status {status_code}")
        }
        Fault::DockerResponseServerError { message, .. } => message.clone(),
        Fault::DockerStreamError { error } | Fault::DockerContainerWaitError { error, .. } => {
            error.clone()
        }
        Fault::RequestTimeoutError => "it did not answer in time".to_owned(),
        other => chain(other),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Joins an error and its sources. HTTP clients say "error trying to connect", and only the sources
/// say why.
fn chain(error: &dyn Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        source = error.source();
    }
    texts.join(": ")
}

/// Whether the engine answers that the object does not exist.
pub(super) fn is_missing(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

/// Whether a container's name is taken: 409 from Docker, 500 from Podman.
pub(super) fn is_conflict(fault: &Fault) -> bool {
    match fault {
        Fault::DockerResponseServerError {
            status_code: 409, ..
        } => true,
        Fault::DockerResponseServerError {
            status_code: 500,
            message,
        } => message.contains("already in use"),
        _ => false,
    }
}

pub(super) fn failed(action: &'static str) -> impl Fn(Fault) -> EngineError {
    move |fault| EngineError::Failed {
        action,
        reason: plain(&fault),
    }
}
