//! What the container runner and the host runner share: what a task is started with, and what is
//! told of it.

use std::fmt;
use std::path::PathBuf;

use domain::Timestamp;
use domain::request::{Arch, ImageRef};
use secrecy::SecretString;

/// What a runner needs to start a task.
pub struct Launch {
    /// The task's ARN.
    pub task_arn: String,
    /// The attempt it belongs to (ECS's `startedBy`). Unique, so that whatever is named after it is
    /// made at most once.
    pub attempt: String,
    /// The image to run.
    pub image: ImageRef,
    /// Replaces the image's ENTRYPOINT.
    pub entry_point: Vec<String>,
    /// Replaces the image's CMD.
    pub command: Vec<String>,
    /// Variables, on top of the image's own.
    pub environment: Vec<(String, String)>,
    /// Variables whose values are shown nowhere.
    pub secrets: Vec<(String, SecretString)>,
    /// CPU units, 1024 to a vCPU.
    pub cpu: u32,
    /// MiB of memory.
    pub memory: u32,
    /// Paths of this machine that the task may read, at the same path inside.
    pub mounts: Vec<PathBuf>,
    /// What the command is compiled for.
    pub arch: Arch,
}

/// Without the values of variables: users put into them what they would not log.
impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        let secrets: Vec<_> = self.secrets.iter().map(|(name, _)| name).collect();
        f.debug_struct("Launch")
            .field("task_arn", &self.task_arn)
            .field("attempt", &self.attempt)
            .field("image", &self.image)
            .field("environment", &names)
            .field("secrets", &secrets)
            .field("cpu", &self.cpu)
            .field("memory", &self.memory)
            .field("mounts", &self.mounts)
            .field("arch", &self.arch)
            .finish_non_exhaustive()
    }
}

/// When the image was fetched. Both are the same moment if it was there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Begun.
    pub started_at: Timestamp,
    /// Done.
    pub stopped_at: Timestamp,
}

/// A task that runs, or has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The engine's id of the container.
    pub container_id: String,
    /// The digest of the image, `sha256:…`, where the engine knows one.
    pub image_digest: Option<String>,
    /// When the image was fetched.
    pub pull: Pull,
    /// When its first process started.
    pub started_at: Timestamp,
}

/// Why a task does not run, in ECS's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// `CannotPullContainerError: …`, `CannotCreateContainerError: …` or
    /// `CannotStartContainerError: …`, with the engine's own reason.
    pub reason: String,
    /// The engine did not answer: the command may have started.
    pub may_have_started: bool,
}

impl StartFailure {
    /// Its command surely never ran.
    #[must_use]
    pub fn never(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            may_have_started: false,
        }
    }

    /// Whether its command ran is not known.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            may_have_started: true,
        }
    }
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit code; 128 and the signal's number if one ended it. `None` if it never ran.
    pub exit_code: Option<i32>,
    /// What the exit code does not say, in ECS's words.
    pub reason: Option<String>,
    /// When it ended.
    pub stopped_at: Timestamp,
}
