//! The task that runs an execution: its definition, cached by content, and its overrides, which
//! differ from run to run.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    attempt_secret::AttemptSecret,
    container::{FETCH, MAIN, PROGRAM, place, variable},
    ecs::{ContainerOverride, EphemeralStorage, KeyValuePair, RunTaskInput, Tag, TaskOverride},
    execution::Execution,
    git::{GIT_KNOWN_HOSTS, GIT_SSH_KEY, GIT_TOKEN},
    git_access::GitAccess,
    id::{AttemptId, ExecutionId},
    limit::CapacityPool,
    request::{
        Arch, ArtifactsOn, Depth, EnvName, FieldError, ImageRef, LaunchRequest, Name,
        PART_BYTES_MAX, Place, RegistrySecret, SecretName, Source,
    },
    settings::{RunnerImages, Settings, TASK_API_URL_MAX},
};

/// The most characters of a task's overrides, JSON punctuation included (ECS API reference,
/// `RunTask`, `overrides`).
pub const OVERRIDES_MAX: usize = 8192;
/// A task definition: the parts of a task that `RunTask` cannot override, so that it is cached by
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskDefinition {
    /// The image. `None` means the host's own shell, on one machine only.
    pub image: Option<ImageRef>,
    /// The processor's architecture.
    pub arch: Arch,
    /// Always the runner, so that an image's own ENTRYPOINT does not matter.
    pub entry_point: Vec<String>,
    /// The runner's arguments.
    pub command: Vec<String>,
    /// The variables that are filled from secrets when the task starts. Those for the fetch
    /// ([`variable::is_for_fetch`]) are for that container alone.
    pub secrets: Vec<SecretMapping>,
    /// The credentials for a private registry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub registry_secret: Option<RegistrySecret>,
    /// The log group of the output.
    pub log_group: String,
    /// The images of the containers that bring in the runner and the repository; `None` on one
    /// machine, where mycli itself does that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub helpers: Option<RunnerImages>,
    /// Whether there is a repository to fetch.
    #[serde(default)]
    pub fetches: bool,
}

/// A variable filled from a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretMapping {
    /// The variable's name.
    pub name: String,
    /// The secret's name, not its value.
    pub value_from: String,
}

impl TaskDefinition {
    /// The definition that a request needs.
    #[must_use]
    pub fn of(request: &LaunchRequest, git: &GitAccess, settings: &Settings) -> Self {
        let asked = request
            .secrets
            .iter()
            .map(|name| mapping(name.as_str(), name));
        let fetches = request.source.is_some();
        let helpers = settings.runner_images.clone().map(|images| RunnerImages {
            git: images.git.filter(|_| fetches),
            ..images
        });
        Self {
            image: request.image.clone(),
            arch: request.arch,
            entry_point: vec![format!("{}/{PROGRAM}", place::PROGRAMS)],
            command: vec!["run".to_owned()],
            secrets: asked
                .chain(git.secrets.iter().filter_map(|name| git_secret(name)))
                .collect(),
            registry_secret: request.registry_secret.clone(),
            log_group: settings.log_group.clone(),
            helpers,
            fetches,
        }
    }

    /// The first 32 hexadecimal digits of the SHA-256 of the definition's content. Equal
    /// definitions have the same hash, whoever computes it.
    #[must_use]
    pub fn content_hash(&self) -> String {
        let mut hasher = Sha256::new();
        let parts = [
            &self
                .image
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            &self.arch.to_string(),
            &self.log_group,
        ];
        let registry = self
            .registry_secret
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let helpers = self.helpers.as_ref();
        let image = |image: Option<&ImageRef>| image.map(ToString::to_string).unwrap_or_default();
        let helpers = [
            image(helpers.map(|images| &images.runner)),
            image(helpers.and_then(|images| images.git.as_ref())),
            self.fetches.to_string(),
        ];
        let words = self
            .entry_point
            .iter()
            .chain(&self.command)
            .chain([&registry])
            .chain(&helpers);
        let secrets = self
            .secrets
            .iter()
            .flat_map(|secret| [&secret.name, &secret.value_from]);
        for part in parts.into_iter().chain(words).chain(secrets) {
            hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part);
        }
        hex::encode(hasher.finalize())[..32].to_owned()
    }
}

fn mapping(variable: &str, secret: &SecretName) -> SecretMapping {
    SecretMapping {
        name: variable.to_owned(),
        value_from: secret.to_string(),
    }
}

/// The variable in which the set-up finds one of git's secrets.
fn git_secret(name: &str) -> Option<SecretMapping> {
    let variable = match name {
        GIT_TOKEN => variable::GIT_TOKEN,
        GIT_SSH_KEY => variable::SSH_KEY,
        GIT_KNOWN_HOSTS => variable::KNOWN_HOSTS,
        _ => return None,
    };
    Some(SecretMapping {
        name: variable.into(),
        value_from: name.into(),
    })
}

/// The input of `RunTask` for the next attempt of an execution.
#[must_use]
pub fn run_task(
    execution: &Execution,
    definition_arn: &str,
    proof: AttemptProof<'_>,
    git: &GitAccess,
    settings: &Settings,
) -> RunTaskInput {
    let (number, client_token) = execution.next_attempt();
    let attempt = execution.id.attempt(number);
    let with_note = overrides(&execution.request, &attempt, proof, git);
    // A record from before this note was counted may have no room for it.
    let overrides = match characters(&with_note) > OVERRIDES_MAX {
        true => {
            let git = GitAccess {
                without: None,
                ..git.clone()
            };
            overrides(&execution.request, &attempt, proof, &git)
        }
        false => with_note,
    };
    RunTaskInput {
        cluster: settings.cluster.clone(),
        task_definition: definition_arn.to_owned(),
        client_token,
        started_by: attempt.to_string(),
        count: 1,
        capacity_provider: execution.pool.provider().map(str::to_owned),
        network_configuration: settings.network.clone(),
        overrides,
        tags: settings
            .task_tags
            .as_deref()
            .map(|stack| tags(execution, stack))
            .unwrap_or_default(),
    }
}

/// The prefix of the keys of a task's tags.
pub const TAG_PREFIX: &str = "mycli:";

/// The tags of an execution's tasks, for splitting the account's costs.
fn tags(execution: &Execution, stack: &str) -> Vec<Tag> {
    let group = execution.request.group.as_ref().map(Name::as_str);
    let named = [
        ("stack", Some(stack)),
        ("submitter", Some(&*execution.submitted_by)),
        ("group", group),
    ];
    let tag = |(key, value): (&str, Option<&str>)| {
        Some(Tag {
            key: format!("{TAG_PREFIX}{key}"),
            value: value.map(tag_value)?,
        })
    };
    named.into_iter().filter_map(tag).collect()
}

/// A text as the value of a tag: letters, digits, spaces and `+ - = . _ : / @`, at most 256
/// characters (ECS API reference, `Tag`). Any other character becomes `_`.
fn tag_value(text: &str) -> String {
    let allowed = |c: char| {
        if c.is_alphanumeric() || " +-=._:/@".contains(c) {
            c
        } else {
            '_'
        }
    };
    text.chars().map(allowed).take(256).collect()
}

/// The reason for which the task of a request calls our API. Most call none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiNeed {
    /// It has files to keep.
    Files,
    /// The request is larger than the overrides can be. It may have files to keep, too.
    Request,
}

impl ApiNeed {
    /// The reason that a request's task has on AWS, if it has one. On one machine no task calls our
    /// API.
    #[must_use]
    pub fn of(request: &LaunchRequest) -> Option<Self> {
        let files = || request.artifacts.as_ref().map(|_| Self::Files);
        is_large(request).then_some(Self::Request).or_else(files)
    }
}

/// Whether an older launcher would start another task than this request asks for: one that cannot
/// call our API, or has a disk that is too small.
#[must_use]
pub fn needs_this_release(request: &LaunchRequest) -> bool {
    ApiNeed::of(request).is_some() || request.storage.is_some()
}

/// The runner's proof that it is the runner of its attempt.
#[derive(Clone, Copy, Debug)]
pub enum AttemptProof<'a> {
    /// The secret is itself the nonce of the marker lines: the runner calls no API.
    Nonce(&'a AttemptSecret),
    /// The nonce, and the token for our API at this address, are made of the secret.
    Secret(&'a AttemptSecret, &'a str),
    /// The same, and the request is larger than the overrides can be: the runner asks the API for
    /// it.
    Request(&'a AttemptSecret, &'a str),
}

impl<'a> AttemptProof<'a> {
    /// The proof that the runner of a request needs. `None` if its task must call our API, and this
    /// launcher does not know the address: its variables are of an older release than its code.
    #[must_use]
    pub fn of(
        request: &LaunchRequest,
        secret: &'a AttemptSecret,
        settings: &'a Settings,
    ) -> Option<Self> {
        let api = settings.task_api_url();
        match ApiNeed::of(request).filter(|_| settings.defaults.place == Place::Aws) {
            None => Some(Self::Nonce(secret)),
            Some(ApiNeed::Files) => Some(Self::Secret(secret, api?)),
            Some(ApiNeed::Request) => Some(Self::Request(secret, api?)),
        }
    }

    /// The nonce of the marker lines.
    #[must_use]
    pub fn nonce(&self) -> String {
        match self {
            Self::Nonce(secret) => secret.expose().to_owned(),
            Self::Secret(secret, _) | Self::Request(secret, _) => secret.nonce(),
        }
    }

    /// The hash of the token, if there is one.
    #[must_use]
    pub fn token_hash(&self) -> Option<String> {
        match self {
            Self::Nonce(_) => None,
            Self::Secret(secret, _) | Self::Request(secret, _) => Some(secret.token().hash()),
        }
    }
}

/// The overrides of a run: sizes, and the environments of `main` and, if there is a repository, of
/// `fetch`.
#[must_use]
pub fn overrides(
    request: &LaunchRequest,
    attempt: &AttemptId,
    proof: AttemptProof<'_>,
    git: &GitAccess,
) -> TaskOverride {
    let mut environment = match proof {
        AttemptProof::Nonce(_) | AttemptProof::Secret(..) => request_variables(request),
        AttemptProof::Request(..) => vec![pair(variable::REQUEST, "1")],
    };
    match proof {
        AttemptProof::Nonce(secret) => environment.push(pair(variable::NONCE, secret.expose())),
        AttemptProof::Secret(secret, api) | AttemptProof::Request(secret, api) => {
            environment.extend([
                pair(variable::SECRET, secret.expose()),
                pair(variable::API, api),
            ]);
        }
    }
    environment.extend([
        pair(variable::EXECUTION_ID, attempt.execution().as_str()),
        pair(variable::ATTEMPT_ID, &attempt.to_string()),
    ]);
    let note = git.without.as_deref().filter(|_| request.source.is_some());
    environment.extend(note.map(|why| pair(variable::WITHOUT, why)));
    let main = ContainerOverride {
        name: MAIN.to_owned(),
        environment,
    };
    let fetch = request.source.as_ref().map(|source| ContainerOverride {
        name: FETCH.to_owned(),
        environment: fetch_variables(source, git),
    });
    TaskOverride {
        cpu: request.size.cpu().to_string(),
        memory: request.size.memory().to_string(),
        ephemeral_storage: request.storage.map(|storage| EphemeralStorage {
            size_in_gib: storage.gb(),
        }),
        task_role_arn: request.task_role.as_ref().map(ToString::to_string),
        container_overrides: [main].into_iter().chain(fetch).collect(),
    }
}

fn pair(name: &str, value: &str) -> KeyValuePair {
    KeyValuePair {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn flag(name: &str, is_set: bool) -> Option<KeyValuePair> {
    is_set.then(|| pair(name, "1"))
}

/// The variables of `main` that follow from the request alone.
#[must_use]
pub fn request_variables(request: &LaunchRequest) -> Vec<KeyValuePair> {
    let command = request.command.for_shell();
    let mut environment: Vec<_> = pieces(&command)
        .enumerate()
        .map(|(number, piece)| pair(&variable::command_piece(number), piece))
        .collect();
    environment.push(pair(
        variable::TIMEOUT,
        &request.timeout.seconds().to_string(),
    ));
    environment.extend(flag(variable::WORDS, request.command.is_words()));
    let repo = request.source.as_ref().map(|source| source.repo.as_str());
    environment.extend(repo.map(|repo| pair(variable::REPO, repo)));
    environment.extend(request.artifacts.iter().flat_map(|artifacts| {
        let globs = serde_json::to_string(&artifacts.globs).unwrap_or_default();
        let on = Some(artifacts.on).filter(|on| *on != ArtifactsOn::default());
        [pair(variable::ARTIFACTS, &globs)]
            .into_iter()
            .chain(on.map(|on| pair(variable::ARTIFACTS_ON, on.as_str())))
    }));
    let own = request.env.iter();
    environment.extend(own.map(|(name, value)| pair(name.as_str(), value)));
    environment
}

/// A text in pieces that each fit into a variable. Each character stays whole.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut at = text.len().min(PART_BYTES_MAX);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let (piece, after) = text.split_at(at);
        rest = Some(after).filter(|after| !after.is_empty());
        Some(piece)
    })
}

/// The variables of `fetch`.
fn fetch_variables(source: &Source, git: &GitAccess) -> Vec<KeyValuePair> {
    let mut environment = vec![pair(variable::REPO, source.repo.as_str())];
    let reference = source.reference.as_ref();
    environment.extend(reference.map(|reference| pair(variable::REF, reference.as_str())));
    let depth = Some(source.depth).filter(|depth| *depth != Depth::default());
    environment.extend(depth.map(|depth| pair(variable::DEPTH, &depth.to_string())));
    environment.extend(flag(variable::SUBMODULES, source.submodules));
    environment.extend(flag(variable::LFS, source.lfs));
    environment.extend(git_user(source).map(|user| pair(variable::GIT_USERNAME, user)));
    for (secret, variable) in [
        (GIT_TOKEN, variable::GIT_TOKEN_HOSTS),
        (GIT_SSH_KEY, variable::SSH_KEY_HOSTS),
    ] {
        let hosts = git.hosts.get(secret);
        let hosts = hosts.map(|hosts| hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
        environment.extend(hosts.map(|hosts| pair(variable, &hosts.join(" "))));
    }
    environment
}

/// The number of characters that ECS counts.
fn characters(overrides: &TaskOverride) -> usize {
    serde_json::to_string(overrides)
        .unwrap_or_default()
        .chars()
        .count()
}

/// The user name that goes with the token. GitLab requires `oauth2`; the runner's default is right
/// for GitHub (GitLab and GitHub docs on HTTPS tokens).
fn git_user(source: &Source) -> Option<&'static str> {
    source
        .repo
        .host()
        .filter(|host| host.contains("gitlab"))
        .map(|_| "oauth2")
}

/// Whether the overrides of a request would be larger than ECS takes.
#[must_use]
pub fn is_large(request: &LaunchRequest) -> bool {
    largest(request) > OVERRIDES_MAX
}

/// The characters that the overrides of a request can have at most.
fn largest(request: &LaunchRequest) -> usize {
    let attempt = ExecutionId::new(crate::Timestamp::default(), 0).attempt(99);
    let git = GitAccess {
        without: request.source.as_ref().and_then(GitAccess::longest_note),
        ..GitAccess::default()
    };
    let (secret, api) = (AttemptSecret::of_bits(0), "x".repeat(TASK_API_URL_MAX));
    let proof = match request.artifacts {
        Some(_) => AttemptProof::Secret(&secret, &api),
        None => AttemptProof::Nonce(&secret),
    };
    characters(&overrides(request, &attempt, proof, &git))
}

/// The faults of a request that needs more than this stack has yet: a place for files, or an API
/// that tasks can ask for what ECS does not take.
#[must_use]
pub fn too_new(request: &LaunchRequest, settings: &Settings) -> Vec<FieldError> {
    if settings.defaults.place != Place::Aws || settings.artifacts.is_some() {
        return Vec::new();
    }
    let files = request.artifacts.as_ref().map(|_| FieldError {
        field: "artifacts".into(),
        message: "cannot be kept by this stack yet: an administrator can run `mycli upgrade`"
            .into(),
    });
    files.into_iter().chain(budget_fault(request)).collect()
}

/// The fault of a request whose overrides would be too large, with the exact count, for a stack
/// whose tasks cannot ask for it. It names the field that takes the most.
fn budget_fault(request: &LaunchRequest) -> Option<FieldError> {
    let count = largest(request);
    let over = count.checked_sub(OVERRIDES_MAX).filter(|over| *over > 0)?;
    let total = format!(
        "makes the task's overrides {count} characters as JSON, {over} over the limit of {OVERRIDES_MAX} that ECS sets"
    );
    Some(blamed(request, &total))
}

/// The fault of the larger of the command and the variables.
fn blamed(request: &LaunchRequest, total: &str) -> FieldError {
    let of_variable =
        |(name, value): (&EnvName, &str)| json_length(name.as_str()) + json_length(value);
    let (command, env) = (
        json_length(&request.command.for_shell()),
        request.env.iter().map(of_variable).sum::<usize>(),
    );
    match request
        .env
        .iter()
        .max_by_key(|variable| of_variable(*variable))
    {
        Some(largest) if env > command => FieldError {
            field: "env".into(),
            message: format!(
                "{total}: the variables take {env} of them, `{}` alone {}, and the command {command}. Put long values into a \
                 file of the repository or a secret, or give fewer variables",
                largest.0,
                of_variable(largest)
            ),
        },
        _ => FieldError {
            field: "command".into(),
            message: format!(
                "{total}: the command takes {command} of them, and the variables {env}. Put the text into a file of the \
                 repository and run that"
            ),
        },
    }
}

/// The number of characters of a text in JSON.
fn json_length(text: &str) -> usize {
    serde_json::to_string(text)
        .unwrap_or_default()
        .chars()
        .count()
}

/// The pool of an execution with this request.
#[must_use]
pub fn pool(request: &LaunchRequest, settings: &Settings) -> CapacityPool {
    CapacityPool::of(settings.defaults.place, request.capacity)
}
