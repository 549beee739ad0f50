//! The task that runs an execution: its definition, cached by content, and its overrides, which
//! differ from run to run.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    container::{FETCH, MAIN, PROGRAM, place, variable},
    ecs::{ContainerOverride, KeyValuePair, RunTaskInput, Tag, TaskOverride},
    execution::Execution,
    git::{GIT_KNOWN_HOSTS, GIT_SSH_KEY, GIT_TOKEN},
    git_access::GitAccess,
    id::{AttemptId, ExecutionId},
    limit::CapacityPool,
    request::{
        Arch, Depth, EnvName, FieldError, ImageRef, LaunchRequest, Name, RegistrySecret,
        SecretName, Source,
    },
    settings::{RunnerImages, Settings},
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
    nonce: &str,
    git: &GitAccess,
    settings: &Settings,
) -> RunTaskInput {
    let (number, client_token) = execution.next_attempt();
    let attempt = execution.id.attempt(number);
    let with_note = overrides(&execution.request, &attempt, nonce, git);
    // A record from before this note was counted may have no room for it.
    let overrides = match characters(&with_note) > OVERRIDES_MAX {
        true => {
            let git = GitAccess {
                without: None,
                ..git.clone()
            };
            overrides(&execution.request, &attempt, nonce, &git)
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

/// The overrides of a run: sizes, and the environments of `main` and, if there is a repository, of
/// `fetch`.
#[must_use]
pub fn overrides(
    request: &LaunchRequest,
    attempt: &AttemptId,
    nonce: &str,
    git: &GitAccess,
) -> TaskOverride {
    let pair = |name: &str, value: &str| KeyValuePair {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut environment = vec![
        pair(variable::COMMAND, &request.command.for_shell()),
        pair(variable::TIMEOUT, &request.timeout.seconds().to_string()),
        pair(variable::NONCE, nonce),
        pair(variable::EXECUTION_ID, attempt.execution().as_str()),
        pair(variable::ATTEMPT_ID, &attempt.to_string()),
    ];
    let flag = |name: &str, is_set: bool| is_set.then(|| pair(name, "1"));
    environment.extend(flag(variable::WORDS, request.command.is_words()));
    environment.extend(request.source.iter().flat_map(|source| {
        let without = git.without.as_deref();
        let without = without.map(|why| pair(variable::WITHOUT, why));
        [pair(variable::REPO, source.repo.as_str())]
            .into_iter()
            .chain(without)
    }));
    environment.extend(
        request
            .env
            .iter()
            .map(|(name, value)| pair(name.as_str(), value)),
    );
    let main = ContainerOverride {
        name: MAIN.to_owned(),
        environment,
    };
    let fetch = request.source.as_ref().map(|source| {
        let mut environment = vec![pair(variable::REPO, source.repo.as_str())];
        environment.extend(
            source
                .reference
                .iter()
                .map(|reference| pair(variable::REF, reference.as_str())),
        );
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
            let hosts =
                hosts.map(|hosts| hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
            environment.extend(hosts.map(|hosts| pair(variable, &hosts.join(" "))));
        }
        ContainerOverride {
            name: FETCH.to_owned(),
            environment,
        }
    });
    TaskOverride {
        cpu: request.size.cpu().to_string(),
        memory: request.size.memory().to_string(),
        task_role_arn: request.task_role.as_ref().map(ToString::to_string),
        container_overrides: [main].into_iter().chain(fetch).collect(),
    }
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

/// The fault of a request whose overrides would be too large, with the exact count. It names the
/// field that takes the most.
#[must_use]
pub fn budget_fault(request: &LaunchRequest) -> Option<FieldError> {
    let attempt = ExecutionId::new(crate::Timestamp::default(), 0).attempt(99);
    let git = GitAccess {
        without: request.source.as_ref().and_then(GitAccess::longest_note),
        ..GitAccess::default()
    };
    let count = characters(&overrides(request, &attempt, &"0".repeat(32), &git));
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
