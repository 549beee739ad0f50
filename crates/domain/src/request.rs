//! A user's request: first untrusted ([`SubmitRequest`]), then validated once
//! ([`LaunchRequest`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

mod artifacts;
mod bytes;
mod changes;
mod choice;
mod command;
mod depth;
mod duration;
mod env;
mod git_ref;
mod given;
mod image;
mod keys;
mod name;
mod repo;
mod role;
mod scalar;
mod size;
mod storage;
mod text;
mod validate;
mod written;

pub use artifacts::{
    ARTIFACT_GLOB_MAX, ARTIFACT_GLOBS_MAX, ArtifactGlob, ArtifactGlobError, ArtifactPatterns,
    Artifacts,
};
pub use bytes::{PART_BYTES_MAX, REQUEST_BYTES_MAX};
pub use changes::Changes;
pub use choice::{Arch, ArtifactsOn, Capacity, ChoiceError, RetryOn};
pub use command::CommandLine;
pub use depth::{Depth, DepthError};
pub use duration::{TIMEOUT_MAX, Timeout, TimeoutError};
pub use env::{Env, EnvError, EnvName, RESERVED_PREFIX, SecretName, without_value};
pub use git_ref::{GitRef, REF_MAX, RefError, RefRule};
pub use image::{IMAGE_NAME_MAX, ImageError, ImageRef, TAG_MAX};
pub use keys::{KEYS, RequestKey, key_of_one_run};
pub use name::{
    IDEMPOTENCY_KEY_MAX, IdempotencyKey, IdempotencyKeyError, NAME_MAX, Name, NameError,
};
pub use repo::{REPO_MAX, RepoError, RepoKind, RepoUrl, is_host};
pub use role::{RegistrySecret, ResourceError, TaskRole};
pub use scalar::Scalar;
pub use size::{SizeError, TaskSize};
pub use storage::{StorageError, TaskStorage};
pub use written::written_keys;

/// The greatest distance of a priority from the default 0, either way. A hundred levels each way
/// are enough for people to order their runs.
pub const PRIORITY_MAX: i32 = 100;

/// The largest `max_parallel`. A larger number would hardly be a limit.
pub const MAX_PARALLEL_MAX: u32 = 100_000;

/// The most retries of one execution. A command that failed eleven times needs a person.
pub const RETRIES_MAX: u8 = 10;

/// A request as a user wrote it: the body of `POST /execute`, a line of a bulk file, a
/// `.mycli.yaml`, or flags.
///
/// Nothing in it can be trusted; [`SubmitRequest::validate`] is the only way to use it. A key that
/// is absent takes the stack's default. A key that is not listed here is an error, and so is a list
/// of values without keys. `Debug` shows no value of `env` and no credentials in `repo`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct SubmitRequest {
    /// `exec`, the only action there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Shell text to run, or a program and its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandLine>,
    /// The git repository to run it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// Branch, tag or commit to check out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// How much of the history to fetch: a number of commits, or `full`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<Scalar>,
    /// Whether to fetch the submodules too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submodules: Option<bool>,
    /// Whether to fetch the large files (Git LFS) too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lfs: Option<bool>,
    /// The Docker image to run it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Environment variables by name.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "given::variables"
    )]
    pub env: BTreeMap<String, String>,
    /// Secrets to give to the command, by name.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "given::texts"
    )]
    pub secrets: Vec<String>,
    /// How long it may run: `30m`, `1h30m`, or seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Scalar>,
    /// CPU units; 1024 are one vCPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Scalar>,
    /// Memory in MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Scalar>,
    /// Disk in GB, 20 to 200; 20 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Scalar>,
    /// `arm64` or `x86_64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// `spot` or `on-demand`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<String>,
    /// The lock to hold. Only one execution with the same lock runs at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// The group that this execution belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How many executions of the group may run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<i64>,
    /// -100 to 100; a higher one starts first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// How often to run it again, 0 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
    /// For which causes to run it again: `spot`, `host`, `failure`.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "given::texts"
    )]
    pub retry_on: Vec<String>,
    /// A short name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Patterns for the files to keep, below the folder that the command starts in.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "given::texts"
    )]
    pub artifacts: Vec<String>,
    /// After which end to keep them: `always`, `success`, `failure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts_on: Option<String>,
    /// The caller's own key. A request sent twice with it within 24 hours is the same execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The IAM role the command runs with, by name or ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_role: Option<String>,
    /// The Secrets Manager secret with a private registry's credentials, by name or ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_secret: Option<String>,
}

impl Serialize for SubmitRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for SubmitRequest {
    /// Reads an object only. The derived code would take the elements of a list as the keys in
    /// their order: `["exec", "true"]`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RequestKeys;

        impl<'de> Visitor<'de> for RequestKeys {
            type Value = SubmitRequest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a request, which is keys with values")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SubmitRequest, A::Error> {
                SubmitRequest::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(RequestKeys)
    }
}

/// A request that passed validation: everything that shapes a run, as history keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// The command: not blank, no NUL.
    #[serde(flatten, with = "command::stored")]
    pub command: CommandLine,
    /// The repository to clone; none means the image's own directory.
    pub source: Option<Source>,
    /// The image to run in; none means the host's own shell, on one machine only.
    pub image: Option<ImageRef>,
    /// Variables for the command.
    pub env: Env,
    /// Secrets for the command, in the order given, each once.
    pub secrets: Vec<SecretName>,
    /// How long the command may run.
    pub timeout: Timeout,
    /// CPU and memory.
    pub size: TaskSize,
    /// The task's disk, if it is to be larger than usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<TaskStorage>,
    /// The processor.
    pub arch: Arch,
    /// How its capacity is bought.
    pub capacity: Capacity,
    /// The lock that it holds while it runs; a lock has one holder at a time.
    pub lock: Option<Name>,
    /// The group that it belongs to.
    pub group: Option<Name>,
    /// It starts only while fewer than this many executions of its group that also set
    /// `max_parallel` are running; at least 1, and only with a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
    /// -100 to 100; a higher one starts first.
    pub priority: i32,
    /// How often it may be run again, 0 to 10.
    pub retries: u8,
    /// The causes to retry for; empty means all of them. See [`LaunchRequest::retries_on`].
    pub retry_on: BTreeSet<RetryOn>,
    /// A short name for people.
    pub name: Option<Name>,
    /// The files to keep; none means no files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// The caller's own key.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The IAM role the command runs with; none means the stack's.
    pub task_role: Option<TaskRole>,
    /// Credentials for a private registry. None means a public registry, or one that the execution
    /// role may read.
    pub registry_secret: Option<RegistrySecret>,
}

impl LaunchRequest {
    /// Whether the user allowed the command to run again after `cause`.
    ///
    /// `retries` alone allows it after any failure, including a non-zero exit of the command;
    /// `retry_on` restricts it to the causes that it lists.
    pub fn retries_on(&self, cause: RetryOn) -> bool {
        self.retries > 0 && (self.retry_on.is_empty() || self.retry_on.contains(&cause))
    }
}

/// The repository that is cloned before the command starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The repository.
    pub repo: RepoUrl,
    /// The ref to check out; none means the repository's default branch.
    pub reference: Option<GitRef>,
    /// How much of the history.
    #[serde(default, skip_serializing_if = "is_default")]
    pub depth: Depth,
    /// Whether the submodules are fetched too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub submodules: bool,
    /// Whether the large files are fetched too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lfs: bool,
}

impl Source {
    /// The usual clone of a repository: one commit, without submodules and large files.
    #[must_use]
    pub fn new(repo: RepoUrl, reference: Option<GitRef>) -> Self {
        Self {
            repo,
            reference,
            depth: Depth::default(),
            submodules: false,
            lfs: false,
        }
    }
}

/// Whether a value need not be stored. Releases of before it existed do not know it.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The values for keys that a request leaves out, and the limit for its timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// The image; none means the host's shell.
    pub image: Option<ImageRef>,
    /// CPU and memory.
    pub size: TaskSize,
    /// The processor.
    pub arch: Arch,
    /// How capacity is bought.
    pub capacity: Capacity,
    /// How long a command may run.
    pub timeout: Timeout,
    /// How long a request may ask for.
    pub max_timeout: Timeout,
    /// Where commands run, which decides which repositories can be reached.
    pub place: Place,
}

impl Defaults {
    /// Returns a stack's defaults before its parameters are applied: `ubuntu:22.04`, 256 CPU units,
    /// 512 MB, arm64, Spot, one hour.
    pub fn aws() -> Self {
        Self {
            image: Some(ImageRef::ubuntu()),
            size: TaskSize::SMALLEST,
            arch: Arch::Arm64,
            capacity: Capacity::Spot,
            timeout: Timeout::HOUR,
            max_timeout: Timeout::MAX,
            place: Place::Aws,
        }
    }

    /// Returns the defaults of one machine: its own shell and processor.
    pub fn one_machine(arch: Arch) -> Self {
        Self {
            image: None,
            arch,
            capacity: Capacity::OnDemand,
            place: Place::OneMachine,
            ..Self::aws()
        }
    }
}

/// Where commands run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// As Fargate tasks in the user's account.
    Aws,
    /// On the machine that mycli itself runs on.
    OneMachine,
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The request's key, with `.name` or `[index]` for a part of it.
    pub field: String,
    /// The fault, the limit, and the fix. The text continues the field's name and holds no
    /// value that may be secret.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl fmt::Debug for SubmitRequest {
    /// Writes the request as JSON, with lengths in place of `env`'s values and `repo` without
    /// anything that may be a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.clone();
        let length = |(name, value): (&String, &String)| {
            (env::without_value(name).to_owned(), env::length_of(value))
        };
        shown.env = self.env.iter().map(length).collect();
        shown.repo = self.repo.as_deref().map(repo::without_credentials);
        let text = serde_json::to_string(&shown).map_err(|_| fmt::Error)?;
        write!(f, "SubmitRequest {text}")
    }
}

impl From<&LaunchRequest> for SubmitRequest {
    /// Returns the request for exactly this run again, with nothing left to defaults. A rerun
    /// applies its [`Changes`] to it.
    fn from(launch: &LaunchRequest) -> Self {
        let source = launch.source.as_ref();
        Self {
            action: None,
            command: Some(launch.command.clone()),
            repo: source.map(|source| text_of(&source.repo)),
            branch: source
                .and_then(|source| source.reference.as_ref())
                .map(text_of),
            depth: source.map(|source| source.depth.to_string().into()),
            submodules: source.map(|source| source.submodules),
            lfs: source.map(|source| source.lfs),
            image: launch.image.as_ref().map(text_of),
            env: launch
                .env
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_owned()))
                .collect(),
            secrets: launch.secrets.iter().map(text_of).collect(),
            timeout: Some(launch.timeout.to_string().into()),
            cpu: Some(launch.size.cpu().to_string().into()),
            memory: Some(launch.size.memory().to_string().into()),
            storage: launch.storage.map(|storage| text_of(&storage).into()),
            arch: Some(launch.arch.to_string()),
            capacity: Some(launch.capacity.to_string()),
            lock: launch.lock.as_ref().map(text_of),
            group: launch.group.as_ref().map(text_of),
            max_parallel: launch.max_parallel.map(i64::from),
            priority: Some(i64::from(launch.priority)),
            retries: Some(i64::from(launch.retries)),
            retry_on: launch.retry_on.iter().map(text_of).collect(),
            name: launch.name.as_ref().map(text_of),
            artifacts: launch
                .artifacts
                .iter()
                .flat_map(|artifacts| &artifacts.globs)
                .map(text_of)
                .collect(),
            artifacts_on: launch
                .artifacts
                .as_ref()
                .map(|artifacts| artifacts.on.to_string()),
            idempotency_key: launch.idempotency_key.as_ref().map(text_of),
            task_role: launch.task_role.as_ref().map(text_of),
            registry_secret: launch.registry_secret.as_ref().map(text_of),
        }
    }
}

fn text_of(value: &impl fmt::Display) -> String {
    value.to_string()
}
