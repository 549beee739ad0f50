//! Types that the container runner and the host runner share: a task's input and its results.

use std::fmt;

use domain::Timestamp;
use domain::request::{Arch, ImageRef};
use secrecy::SecretString;

/// The input for starting a task.
pub struct Launch {
    /// The task's ARN.
    pub task_arn: String,
    /// Its attempt (ECS's `startedBy`). The id is unique, so anything that is named after it is
    /// made at most once.
    pub attempt: String,
    /// The image to run.
    pub image: ImageRef,
    /// Variables, on top of the image's own. Some are for the runner, which is the container's
    /// entry point ([`domain::container::variable`]).
    pub environment: Vec<(String, String)>,
    /// Variables with values that are shown nowhere.
    pub secrets: Vec<(String, SecretString)>,
    /// CPU units, 1,024 to a vCPU.
    pub cpu: u32,
    /// MiB of memory.
    pub memory: u32,
    /// The architecture of the command.
    pub arch: Arch,
    /// Whether there are files to keep after its end.
    pub keeps_files: bool,
    /// Whether an earlier process may have started it.
    pub may_have_started: bool,
}

/// Omits the values of variables, because users put secrets into them.
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
            .field("arch", &self.arch)
            .finish_non_exhaustive()
    }
}

/// When the image was pulled. Both times are the same if the engine had it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// When the pull began.
    pub started_at: Timestamp,
    /// When the pull ended.
    pub stopped_at: Timestamp,
}

/// A task that runs or has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedTask {
    /// The engine's id of the container.
    pub container_id: String,
    /// The digest of the image, `sha256:…`, if the engine knows one.
    pub image_digest: Option<String>,
    /// When the image was pulled.
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
    /// Whether the command may have started, because the engine did not answer.
    pub may_have_started: bool,
}

impl StartFailure {
    /// A failure after which the command surely never ran.
    #[must_use]
    pub fn never(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            may_have_started: false,
        }
    }

    /// A failure that leaves open whether the command ran.
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
pub struct TaskEnd {
    /// The exit code, or 128 plus the signal's number if a signal ended it. `None` if it never ran.
    pub exit_code: Option<i32>,
    /// Further facts about the end, in ECS's words.
    pub reason: Option<String>,
    /// When it ended.
    pub stopped_at: Timestamp,
}
