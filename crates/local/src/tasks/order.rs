//! The order for the keeper of a task on the host, made of what ECS would be given.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use domain::{
    git::GitHost,
    request::{Place, RepoUrl},
    script::variable,
};
use runner::order::{
    CommandLine, Credential, Credentials, EnvironmentValue, FetchOrder, GitProgram,
    NetworkSettings, Proof, RunOrder,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::host::{self, Folders};

/// How many seconds a fetch may take (DESIGN §6).
const SET_UP_SECONDS: u64 = 600;
/// The seconds between TERM and KILL (DESIGN §6).
const GRACE_SECONDS: u64 = 10;
/// The user name that goes with a token, unless the request's host asks for another (GitHub docs,
/// "Authenticating as a GitHub App installation").
const TOKEN_USER: &str = "x-access-token";
/// Where systems keep the authorities that their programs trust (Debian, Alpine; Fedora; SUSE;
/// macOS).
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The order for a task with these variables and secrets.
pub(super) fn of(
    variables: Vec<(String, String)>,
    secrets: Vec<(String, SecretString)>,
    nonce: &str,
    folders: &Folders,
    log: PathBuf,
    git: GitProgram,
) -> RunOrder {
    let mut given: BTreeMap<String, SecretString> = variables
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .chain(secrets)
        .collect();
    let mut taken = |name: &str| given.remove(name);
    let text = |value: Option<SecretString>| {
        value
            .map(|value| value.expose_secret().to_owned())
            .filter(|value| !value.is_empty())
    };
    let command = text(taken(variable::COMMAND)).unwrap_or_default();
    let timeout_seconds = text(taken(variable::TIMEOUT)).and_then(|value| value.parse().ok());
    let grace_seconds = text(taken(variable::GRACE)).and_then(|value| value.parse().ok());
    let note = text(taken(variable::WITHOUT));
    let repo = text(taken(variable::REPO));
    let reference = text(taken(variable::REF));
    let username = text(taken(variable::GIT_USERNAME));
    let (token, key) = (taken(variable::GIT_TOKEN), taken(variable::SSH_KEY));
    let known_hosts = text(taken(variable::KNOWN_HOSTS));
    for name in [variable::NONCE, variable::HELD, variable::WORKDIR] {
        taken(name);
    }
    let repo = repo.and_then(|repo| RepoUrl::parse(&repo, Place::OneMachine).ok());
    let fetch = repo.map(|repo| FetchOrder {
        reference: reference.and_then(|reference| reference.parse().ok()),
        depth: Some(std::num::NonZeroU32::MIN),
        into: folders.work.join(repo.folder_name()),
        submodules: false,
        lfs: false,
        credentials: credentials(&repo, username, token, key),
        known_hosts: known_hosts.unwrap_or_else(|| domain::script::KNOWN_HOSTS.to_owned()),
        network: network(),
        git,
        repo,
    });
    let environment = host::clean_environment(folders)
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .chain(
            given
                .into_iter()
                .map(|(name, value)| (own_name(&name), value)),
        )
        .map(|(name, value)| (name, EnvironmentValue(value)))
        .collect();
    RunOrder {
        nonce: nonce.into(),
        command: CommandLine::Text(command),
        environment,
        folder: folders.work.clone(),
        fetch,
        note,
        timeout_seconds,
        grace_seconds: grace_seconds.unwrap_or(GRACE_SECONDS),
        set_up_seconds: SET_UP_SECONDS,
        log,
    }
}

/// The name of a variable as the request has it. Some are held back from the script's set-up.
fn own_name(name: &str) -> String {
    name.strip_prefix(variable::HELD_PREFIX)
        .unwrap_or(name)
        .to_owned()
}

/// The credentials of a clone. They were chosen for the repository's host before.
fn credentials(
    repo: &RepoUrl,
    username: Option<String>,
    token: Option<SecretString>,
    key: Option<SecretString>,
) -> Credentials {
    let Some(host) = GitHost::of(repo) else {
        return Credentials::default();
    };
    let basic = token.map(|password| Proof::Basic {
        username: username.unwrap_or_else(|| TOKEN_USER.to_owned()),
        password,
    });
    let proofs = basic.into_iter().chain(key.map(Proof::Key));
    Credentials(
        proofs
            .map(|proof| Credential {
                hosts: vec![host.clone()],
                proof,
            })
            .collect(),
    )
}

/// How this machine reaches servers: by its proxies, and with the authorities that it trusts.
fn network() -> NetworkSettings {
    let variable = |name: &str| {
        [name.to_owned(), name.to_ascii_uppercase()]
            .iter()
            .find_map(|name| env::var(name).ok())
            .filter(|value| !value.is_empty())
    };
    let named = ["GIT_SSL_CAINFO", "SSL_CERT_FILE"]
        .iter()
        .find_map(|name| env::var_os(name).map(PathBuf::from));
    let usual = || AUTHORITIES.map(PathBuf::from).into_iter();
    NetworkSettings {
        authorities: None,
        authorities_file: named.or_else(|| usual().find(|path| Path::exists(path))),
        https_proxy: variable("https_proxy").or_else(|| variable("all_proxy")),
        // Not HTTP_PROXY: a server passes a request's header `Proxy` on under that name (httpoxy).
        http_proxy: env::var("http_proxy").ok(),
        no_proxy: variable("no_proxy"),
        silence_seconds: None,
    }
}
