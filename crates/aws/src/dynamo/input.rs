//! The exact input of `RunTask`, as it is stored from before the call until the task is known.
//!
//! Texts that are elsewhere in the record already (the command, the repository, the ids, the nonce,
//! the variables) are referred to by name and not repeated. Repeated, they would push most launches
//! over one write unit. Reading restores every text as it was, even if the code that makes an input
//! has changed by then.

use domain::{
    ecs::{
        ContainerOverride, EphemeralStorage, KeyValuePair, NetworkConfiguration, RunTaskInput, Tag,
        TaskOverride,
    },
    id::AttemptId,
    request::LaunchRequest,
    task::TAG_PREFIX,
};
use serde::{Deserialize, Serialize};

use super::item::Contradiction;

/// Separates a variable's name from its literal value.
const IS: char = '=';
/// Separates a variable's name from the word for a text that is elsewhere in the record.
const AS: char = ':';
/// The word for the request's own variable of the same name.
const ENV: &str = "env";

/// The sources of an input's texts.
pub(super) struct KnownInputs<'a> {
    pub(super) request: &'a LaunchRequest,
    pub(super) attempt: AttemptId,
    pub(super) nonce: &'a str,
    pub(super) submitted_by: &'a str,
}

impl KnownInputs<'_> {
    /// The known texts, by their words. None of them changes while an attempt has an input.
    fn words(&self) -> [(&'static str, Option<String>); 8] {
        let source = self.request.source.as_ref();
        [
            ("attempt", Some(self.attempt.to_string())),
            ("execution", Some(self.attempt.execution().to_string())),
            ("nonce", Some(self.nonce.to_owned())),
            ("command", Some(self.request.command.for_shell())),
            ("repo", source.map(|source| source.repo.as_str().to_owned())),
            (
                "ref",
                source
                    .and_then(|source| source.reference.as_ref())
                    .map(|reference| reference.as_str().to_owned()),
            ),
            ("submitter", Some(self.submitted_by.to_owned())),
            (
                "group",
                self.request.group.as_ref().map(ToString::to_string),
            ),
        ]
    }

    fn word_of(&self, name: &str, text: &str) -> Option<&'static str> {
        if self.request.env.get(name) == Some(text) {
            return Some(ENV);
        }
        self.words()
            .into_iter()
            .find(|(_, known)| known.as_deref() == Some(text))
            .map(|(word, _)| word)
    }

    fn text_of(&self, name: &str, word: &str) -> Option<String> {
        if word == ENV {
            return self.request.env.get(name).map(str::to_owned);
        }
        self.words()
            .into_iter()
            .find(|(known, _)| *known == word)
            .and_then(|(_, text)| text)
    }

    /// The variable as `NAME:word` or `NAME=text`. No variable's name contains either separator.
    fn spell(&self, variable: &KeyValuePair) -> String {
        let KeyValuePair { name, value } = variable;
        match self.word_of(name, value) {
            Some(word) => format!("{name}{AS}{word}"),
            None => format!("{name}{IS}{value}"),
        }
    }

    fn read(&self, spelled: &str) -> Result<KeyValuePair, Contradiction> {
        let broken = || Contradiction("a variable of its RunTask input has no text");
        let at = spelled.find([IS, AS]).ok_or_else(broken)?;
        let (name, rest) = spelled.split_at(at);
        let value = match rest.strip_prefix(IS) {
            Some(text) => text.to_owned(),
            None => self
                .text_of(name, &rest[AS.len_utf8()..])
                .ok_or_else(broken)?,
        };
        Ok(KeyValuePair {
            name: name.to_owned(),
            value,
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct InputItem {
    cluster: String,
    definition: String,
    /// Stored only if it is not the attempt's id.
    token: Option<String>,
    /// Stored only if it is not the attempt's id.
    by: Option<String>,
    count: u32,
    provider: Option<String>,
    network: Option<NetworkConfiguration>,
    cpu: String,
    memory: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    storage: Option<u32>,
    role: Option<String>,
    containers: Vec<ContainerItem>,
    /// The tags, spelled like variables, their keys without the common prefix. A record from before
    /// tasks had tags has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ContainerItem {
    name: String,
    env: Vec<String>,
}

fn named(tag: &Tag) -> KeyValuePair {
    let name = tag.key.strip_prefix(TAG_PREFIX).unwrap_or(&tag.key);
    KeyValuePair {
        name: name.to_owned(),
        value: tag.value.clone(),
    }
}

fn tag(KeyValuePair { name, value }: KeyValuePair) -> Tag {
    Tag {
        key: format!("{TAG_PREFIX}{name}"),
        value,
    }
}

impl InputItem {
    pub(super) fn of(input: &RunTaskInput, known: &KnownInputs<'_>) -> Self {
        let own = known.attempt.to_string();
        let other = |text: &String| Some(text.clone()).filter(|text| *text != own);
        let container = |container: &ContainerOverride| ContainerItem {
            name: container.name.clone(),
            env: container
                .environment
                .iter()
                .map(|variable| known.spell(variable))
                .collect(),
        };
        Self {
            cluster: input.cluster.clone(),
            definition: input.task_definition.clone(),
            token: other(&input.client_token),
            by: other(&input.started_by),
            count: input.count,
            provider: input.capacity_provider.clone(),
            network: input.network_configuration.clone(),
            cpu: input.overrides.cpu.clone(),
            memory: input.overrides.memory.clone(),
            storage: input
                .overrides
                .ephemeral_storage
                .map(|storage| storage.size_in_gib),
            role: input.overrides.task_role_arn.clone(),
            containers: input
                .overrides
                .container_overrides
                .iter()
                .map(container)
                .collect(),
            tags: input
                .tags
                .iter()
                .map(|tag| known.spell(&named(tag)))
                .collect(),
        }
    }

    pub(super) fn input(self, known: &KnownInputs<'_>) -> Result<RunTaskInput, Contradiction> {
        let own = known.attempt.to_string();
        let container = |container: ContainerItem| {
            let environment = container
                .env
                .iter()
                .map(|spelled| known.read(spelled))
                .collect::<Result<_, _>>()?;
            Ok(ContainerOverride {
                name: container.name,
                environment,
            })
        };
        let containers = self
            .containers
            .into_iter()
            .map(container)
            .collect::<Result<_, Contradiction>>()?;
        Ok(RunTaskInput {
            cluster: self.cluster,
            task_definition: self.definition,
            client_token: self.token.unwrap_or_else(|| own.clone()),
            started_by: self.by.unwrap_or(own),
            count: self.count,
            capacity_provider: self.provider,
            network_configuration: self.network,
            overrides: TaskOverride {
                cpu: self.cpu,
                memory: self.memory,
                ephemeral_storage: self
                    .storage
                    .map(|size_in_gib| EphemeralStorage { size_in_gib }),
                task_role_arn: self.role,
                container_overrides: containers,
            },
            tags: self
                .tags
                .iter()
                .map(|spelled| known.read(spelled).map(tag))
                .collect::<Result<_, _>>()?,
        })
    }
}
