//! A task's order as its variables have it: ECS hands a container nothing else.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use domain::{
    attempt_secret::AttemptSecret,
    container::{self, place, variable},
    ecs::KeyValuePair,
    git::GitHost,
    request::{Artifacts, CommandLine, Depth, RepoUrl},
};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    AttemptAccess, Credential, Credentials, EnvironmentValue, FetchOrder, GitProgram, KeepIn,
    NetworkSettings, Proof, RepositorySource, RunOrder,
};

/// The seconds between TERM and KILL (DESIGN §6).
const GRACE_SECONDS: u64 = 10;
/// The user name that goes with a token, unless the request's host asks for another (GitHub docs,
/// "Authenticating as a GitHub App installation").
const TOKEN_USER: &str = "x-access-token";
/// How many seconds a set-up may take (DESIGN §6).
pub const SET_UP_SECONDS: u64 = 600;

/// The variables of a task, taken apart.
#[derive(Debug, Default)]
pub struct TaskVariables {
    /// The attempt's nonce.
    pub nonce: SecretString,
    /// The way to our API, if the attempt calls it.
    pub access: Option<AttemptAccess>,
    /// Whether the other variables of the request are to be asked for.
    pub asks_for_request: bool,
    /// The command.
    pub command: CommandLine,
    /// How many seconds the command may run.
    pub timeout_seconds: Option<u64>,
    /// The seconds between TERM and KILL.
    pub grace_seconds: u64,
    /// A note for the log.
    pub note: Option<String>,
    /// The address of the repository, if there is one.
    pub repo: Option<String>,
    /// The branch, tag or commit.
    pub reference: Option<String>,
    /// How much of the history is fetched.
    pub depth: Depth,
    /// Whether the submodules are fetched too.
    pub submodules: bool,
    /// Whether the large files are fetched too.
    pub lfs: bool,
    /// The hosts that the token is for, if they are not the repository's.
    pub token_hosts: Option<String>,
    /// The hosts that the key is for, in the same way.
    pub key_hosts: Option<String>,
    /// The user name that goes with the token.
    pub username: Option<String>,
    /// The token for a clone by HTTP.
    pub token: Option<SecretString>,
    /// The private key for a clone by SSH.
    pub key: Option<SecretString>,
    /// The host keys to trust.
    pub known_hosts: Option<String>,
    /// The files to keep.
    pub artifacts: Option<Artifacts>,
    /// The command's own variables.
    pub environment: BTreeMap<String, EnvironmentValue>,
}

impl TaskVariables {
    /// Takes a task's variables apart. Of two with one name the later one counts.
    pub fn of(given: impl IntoIterator<Item = (String, SecretString)>) -> Self {
        let mut given: BTreeMap<_, _> = given.into_iter().collect();
        let attempt = given.get(variable::ATTEMPT_ID).cloned();
        let mut secret = |name: &str| {
            given
                .remove(name)
                .filter(|value| !value.expose_secret().is_empty())
        };
        let attempt = attempt.map(|id| id.expose_secret().to_owned());
        let own = secret(variable::SECRET).map(AttemptSecret::of_text);
        let nonce = match &own {
            Some(own) => own.nonce().into(),
            None => secret(variable::NONCE).unwrap_or_default(),
        };
        let (token, key) = (secret(variable::GIT_TOKEN), secret(variable::SSH_KEY));
        let mut text = |name: &str| secret(name).map(|value| value.expose_secret().to_owned());
        let is_words = text(variable::WORDS).is_some();
        let pieces = (0..).map_while(|number| text(&variable::command_piece(number)));
        let command = pieces.collect::<String>();
        let words = is_words
            .then(|| CommandLine::from_shell(&command))
            .flatten();
        let taken = Self {
            nonce,
            access: own
                .zip(text(variable::API))
                .map(|(own, api)| AttemptAccess {
                    api,
                    attempt: attempt.unwrap_or_default(),
                    token: own.token().expose().to_owned().into(),
                }),
            asks_for_request: text(variable::REQUEST).is_some(),
            token,
            key,
            command: words.unwrap_or(CommandLine::Text(command)),
            timeout_seconds: text(variable::TIMEOUT).and_then(|value| value.parse().ok()),
            grace_seconds: text(variable::GRACE)
                .and_then(|value| value.parse().ok())
                .unwrap_or(GRACE_SECONDS),
            note: text(variable::WITHOUT),
            repo: text(variable::REPO),
            reference: text(variable::REF),
            depth: text(variable::DEPTH)
                .and_then(|depth| depth.parse().ok())
                .unwrap_or_default(),
            submodules: text(variable::SUBMODULES).is_some(),
            lfs: text(variable::LFS).is_some(),
            token_hosts: text(variable::GIT_TOKEN_HOSTS),
            key_hosts: text(variable::SSH_KEY_HOSTS),
            username: text(variable::GIT_USERNAME),
            known_hosts: text(variable::KNOWN_HOSTS),
            artifacts: text(variable::ARTIFACTS).and_then(|globs| {
                let on = text(variable::ARTIFACTS_ON).and_then(|on| on.parse().ok());
                Some(Artifacts {
                    globs: serde_json::from_str(&globs).ok()?,
                    on: on.unwrap_or_default(),
                })
            }),
            environment: BTreeMap::new(),
        };
        for own in [variable::ARTIFACTS_ON, variable::NONCE, variable::API] {
            given.remove(own);
        }
        given.remove(variable::HELD);
        // The request's variables go before those of its container or host with the same name.
        let (held, mut environment): (Vec<_>, Vec<_>) = given
            .into_iter()
            .partition(|(name, _)| name.starts_with(variable::HELD_PREFIX));
        environment.extend(held);
        Self {
            environment: environment
                .into_iter()
                .map(|(name, value)| (own_name(&name).to_owned(), EnvironmentValue(value)))
                .collect(),
            ..taken
        }
    }

    /// This process's variables, and further ones. Engines have them as JSON, so they are text.
    #[must_use]
    pub fn of_this_process(further: Vec<KeyValuePair>) -> Self {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let all = env::vars_os().map(|(name, value)| (text(name), text(value).into()));
        let further = further.into_iter();
        Self::of(all.chain(further.map(|pair| (pair.name, pair.value.into()))))
    }

    /// The order to fetch this repository into a folder. It takes the credentials out.
    #[must_use]
    pub fn fetch_order(&mut self, repo: RepoUrl, into: PathBuf) -> FetchOrder {
        let reference = self.reference.take();
        FetchOrder {
            reference: reference.and_then(|reference| reference.parse().ok()),
            depth: self.depth.commits(),
            into,
            submodules: self.submodules,
            lfs: self.lfs,
            credentials: self.credentials(&repo),
            known_hosts: self
                .known_hosts
                .take()
                .unwrap_or_else(|| container::KNOWN_HOSTS.to_owned()),
            network: NetworkSettings::default(),
            git: GitProgram::default(),
            repo,
        }
    }

    /// The credentials of a clone. Without hosts of their own they were chosen for the repository's.
    fn credentials(&mut self, repo: &RepoUrl) -> Credentials {
        let hosts = |given: Option<String>| match given {
            Some(given) => given
                .split(' ')
                .filter_map(|host| host.parse().ok())
                .collect(),
            None => GitHost::of(repo).into_iter().collect(),
        };
        let username = self.username.take();
        let basic = self.token.take().map(|password| Credential {
            hosts: hosts(self.token_hosts.take()),
            proof: Proof::Basic {
                username: username.unwrap_or_else(|| TOKEN_USER.to_owned()),
                password,
            },
        });
        let key = self.key.take().map(|key| Credential {
            hosts: hosts(self.key_hosts.take()),
            proof: Proof::Key(key),
        });
        Credentials(basic.into_iter().chain(key).collect())
    }

    /// The order for the command's keeper. It keeps no files: where they go is for the caller to say.
    #[must_use]
    pub fn into_order(
        self,
        folder: Option<PathBuf>,
        source: Option<RepositorySource>,
        log: Option<PathBuf>,
    ) -> RunOrder {
        RunOrder {
            nonce: self.nonce,
            command: self.command,
            environment: self.environment,
            folder,
            source,
            request: None,
            note: self.note,
            artifacts: None,
            timeout_seconds: self.timeout_seconds,
            grace_seconds: self.grace_seconds,
            set_up_seconds: SET_UP_SECONDS,
            log,
        }
    }
}

impl RunOrder {
    /// The order that this process's variables and further ones are: those of a container.
    #[must_use]
    pub fn of_this_process(further: Vec<KeyValuePair>) -> Self {
        let mut task = TaskVariables::of_this_process(further);
        let has_repository = task.repo.is_some();
        let request = task.access.clone().filter(|_| task.asks_for_request);
        let artifacts = task.artifacts.take();
        let artifacts = artifacts.map(|artifacts| (artifacts, keep_in(task.access.take())));
        let handed_over =
            || RepositorySource::HandedOver(Path::new(place::WORKSPACE).join(place::HANDED_OVER));
        Self {
            request,
            artifacts,
            ..task.into_order(None, has_repository.then(handed_over), None)
        }
    }
}

/// The place for the files that a container's command leaves: by our API if its task calls it, else
/// in the folder that mycli has put into the container on one machine.
fn keep_in(access: Option<AttemptAccess>) -> KeepIn {
    let folder = || Path::new(place::ARTIFACTS).join(place::KEPT);
    access.map_or_else(|| KeepIn::Prepared(folder()), KeepIn::Api)
}

/// The name of a variable as the request has it.
fn own_name(name: &str) -> &str {
    name.strip_prefix(variable::HELD_PREFIX).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use domain::request::ArtifactsOn;

    use super::*;

    fn taken(pairs: &[(&str, &str)]) -> TaskVariables {
        let pairs = pairs.iter();
        TaskVariables::of(pairs.map(|(name, value)| ((*name).to_owned(), (*value).into())))
    }

    #[test]
    fn all_that_is_ours_is_kept_from_the_command() {
        let variables = taken(&[
            (variable::COMMAND, "exec true"),
            (variable::NONCE, "0123"),
            (variable::SECRET, "4567"),
            (variable::API, "https://api.example/prod"),
            (variable::REQUEST, "1"),
            (variable::TIMEOUT, "7"),
            (variable::REPO, "https://git.example/x"),
            (variable::REF, "main"),
            (variable::GIT_TOKEN, "token"),
            (variable::SSH_KEY, "key"),
            (variable::GIT_USERNAME, "user"),
            (variable::KNOWN_HOSTS, "hosts"),
            (variable::DEPTH, "full"),
            (variable::SUBMODULES, "1"),
            (variable::LFS, "1"),
            (variable::GIT_TOKEN_HOSTS, "a b"),
            (variable::SSH_KEY_HOSTS, "a"),
            (variable::WORDS, "1"),
            (variable::WITHOUT, "why"),
            (variable::GRACE, "3"),
            (variable::ARTIFACTS, "[\"dist/**\"]"),
            (variable::ARTIFACTS_ON, "success"),
            (variable::HELD, "PATH"),
            ("MYCLI_ENV_PATH", "/of/the/request"),
            ("PATH", "/of/the/image"),
            (variable::ATTEMPT_ID, "a-1"),
            ("OWN", ""),
        ]);
        let names: Vec<_> = variables.environment.keys().map(String::as_str).collect();
        assert_eq!(names, [variable::ATTEMPT_ID, "OWN", "PATH"]);
        let path = variables.environment["PATH"].0.expose_secret();
        assert_eq!(path, "/of/the/request");
        assert_eq!(variables.command, CommandLine::Words(vec!["true".into()]));
        assert_eq!(variables.depth, Depth::Full);
        let artifacts = variables.artifacts.expect("files to keep");
        assert_eq!(artifacts.globs, ["dist/**".parse().expect("a pattern")]);
        assert_eq!(artifacts.on, ArtifactsOn::Success);
        assert_eq!(
            (variables.timeout_seconds, variables.grace_seconds),
            (Some(7), 3)
        );
    }

    #[test]
    fn words_are_read_back_from_quoted_text() {
        let variables = taken(&[(variable::COMMAND, "exec a 'b c'"), (variable::WORDS, "1")]);
        let words = vec!["a".to_owned(), "b c".into()];
        assert_eq!(variables.command, CommandLine::Words(words));
        assert_eq!(variables.grace_seconds, GRACE_SECONDS);
    }
}
