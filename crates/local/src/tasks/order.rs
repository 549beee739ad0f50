//! The orders for the programs of a task, made of what ECS would be given.

use std::{
    env,
    path::{Path, PathBuf},
};

use domain::request::{Place, RepoUrl};
use runner::order::{
    FetchOrder, GitProgram, KeepIn, NetworkSettings, RepositorySource, RunOrder, TaskVariables,
};
use secrecy::SecretString;

use crate::host::{self, Folders};

/// Where systems keep the authorities that their programs trust (Debian, Alpine; Fedora; SUSE;
/// macOS).
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The order for the keeper of a task on the host with these variables and secrets. Files to keep
/// go into the folder `kept`.
pub(super) fn run(
    variables: Vec<(String, String)>,
    secrets: Vec<(String, SecretString)>,
    folders: &Folders,
    log: PathBuf,
    git: GitProgram,
    kept: Option<PathBuf>,
) -> RunOrder {
    let clean = host::clean_environment(folders).into_iter();
    let mut task = task_variables(clean.chain(variables), secrets);
    let fetch = fetch(&mut task, git, |repo| folders.work.join(repo.folder_name()));
    let artifacts = task.artifacts.take();
    RunOrder {
        artifacts: artifacts.zip(kept.map(KeepIn::Folder)),
        ..task.into_order(
            Some(folders.work.clone()),
            fetch.map(|fetch| RepositorySource::Fetch(Box::new(fetch))),
            Some(log),
        )
    }
}

/// The order to fetch the repository of a task in a container, if it has one, into this folder.
pub(super) fn fetch_for_container(
    variables: Vec<(String, String)>,
    secrets: Vec<(String, SecretString)>,
    into: PathBuf,
    git: GitProgram,
) -> Option<FetchOrder> {
    fetch(&mut task_variables(variables, secrets), git, |_| into)
}

fn task_variables(
    variables: impl IntoIterator<Item = (String, String)>,
    secrets: Vec<(String, SecretString)>,
) -> TaskVariables {
    let plain = variables.into_iter();
    TaskVariables::of(
        plain
            .map(|(name, value)| (name, value.into()))
            .chain(secrets),
    )
}

fn fetch(
    task: &mut TaskVariables,
    git: GitProgram,
    into: impl FnOnce(&RepoUrl) -> PathBuf,
) -> Option<FetchOrder> {
    let repo = RepoUrl::parse(task.repo.as_deref()?, Place::OneMachine).ok()?;
    let into = into(&repo);
    Some(FetchOrder {
        network: network(),
        git,
        ..task.fetch_order(repo, into)
    })
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
