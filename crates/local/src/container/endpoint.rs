//! Finds the address of the container engine: first as the `docker` command does, then at Podman's
//! sockets.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::EngineError;

/// Docker's default socket.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// The socket of Podman's socket unit for root. A user's socket has the same path below
/// `XDG_RUNTIME_DIR`.
const PODMAN_SOCKET: &str = "/run/podman/podman.sock";

/// The context that means "no context" (docker's own name for it).
const NO_CONTEXT: &str = "default";

/// The address of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EngineEndpoint {
    /// A socket in the file system.
    Unix(PathBuf),
    /// Plain HTTP, as `tcp://host:port`.
    Tcp(String),
}

/// An address to try, and the setting that named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) endpoint: EngineEndpoint,
    /// The setting for the user to check, for error messages.
    pub(super) named_by: String,
}

/// Returns the addresses to try, in order. An address that the user has named is the only one:
/// another engine would be a surprise.
pub(super) fn candidates(
    environment: impl Fn(&str) -> Option<String>,
    home: &Path,
) -> Result<Vec<Candidate>, EngineError> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(host) = set("DOCKER_HOST") {
        let secured = set("DOCKER_TLS_VERIFY").is_some();
        return Ok(vec![parse("DOCKER_HOST", &host, secured)?]);
    }
    let directory = set("DOCKER_CONFIG").map_or_else(|| home.join(".docker"), PathBuf::from);
    let context = match set("DOCKER_CONTEXT") {
        Some(name) => Some(name),
        None => current_context(&directory)?,
    };
    match context.filter(|name| name != NO_CONTEXT) {
        Some(name) => Ok(vec![of_context(&directory, &name)?]),
        None => Ok(usual(set("XDG_RUNTIME_DIR").as_deref())),
    }
}

fn usual(runtime_directory: Option<&str>) -> Vec<Candidate> {
    let podman_of_user =
        runtime_directory.map(|directory| Path::new(directory).join("podman/podman.sock"));
    let docker = ("Docker's socket", PathBuf::from(DOCKER_SOCKET));
    let podman = ("Podman's socket", PathBuf::from(PODMAN_SOCKET));
    [
        Some(docker),
        podman_of_user.map(|path| ("Podman's socket", path)),
        Some(podman),
    ]
    .into_iter()
    .flatten()
    .map(|(named_by, path)| Candidate {
        endpoint: EngineEndpoint::Unix(path),
        named_by: named_by.to_owned(),
    })
    .collect()
}

/// Parses an address. `secured` means that the user asks for TLS. This client does not speak TLS,
/// and plain HTTP instead would be a downgrade.
fn parse(named_by: &str, host: &str, secured: bool) -> Result<Candidate, EngineError> {
    let endpoint = match host.split_once("://") {
        Some(("unix", path)) => EngineEndpoint::Unix(PathBuf::from(path)),
        Some(("tcp" | "http", _)) | None if secured => return Err(unusable(named_by, host)),
        Some(("tcp" | "http", address)) => EngineEndpoint::Tcp(format!("tcp://{address}")),
        None => EngineEndpoint::Tcp(format!("tcp://{host}")),
        Some(_) => return Err(unusable(named_by, host)),
    };
    Ok(Candidate {
        endpoint,
        named_by: named_by.to_owned(),
    })
}

fn unusable(named_by: &str, host: &str) -> EngineError {
    EngineError::Unusable {
        named_by: named_by.to_owned(),
        host: host.to_owned(),
    }
}

/// The part of `config.json` that is used here.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

/// A context's `meta.json`.
#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Option<DockerEndpoint>,
}

#[derive(Deserialize)]
struct DockerEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
}

fn current_context(directory: &Path) -> Result<Option<String>, EngineError> {
    let path = directory.join("config.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        // A configuration that is missing or not readable counts as none, as for docker.
        Err(_) => return Ok(None),
    };
    let config: DockerConfig =
        serde_json::from_slice(&text).map_err(|error| EngineError::Configuration {
            path,
            reason: error.to_string(),
        })?;
    Ok(config.current_context.filter(|name| !name.is_empty()))
}

/// Reads a context's address. Docker keeps a context in a directory that is named by the SHA-256 of
/// the context's name.
fn of_context(directory: &Path, name: &str) -> Result<Candidate, EngineError> {
    let id = hex::encode(Sha256::digest(name));
    let path = directory.join("contexts/meta").join(&id).join("meta.json");
    let configuration = |reason: String| EngineError::Configuration {
        path: path.clone(),
        reason,
    };
    let text = std::fs::read(&path)
        .map_err(|error| configuration(format!("docker context `{name}`: {error}")))?;
    let meta: Meta =
        serde_json::from_slice(&text).map_err(|error| configuration(error.to_string()))?;
    let host = meta
        .endpoints
        .docker
        .map(|docker| docker.host)
        .filter(|host| !host.is_empty());
    let host =
        host.ok_or_else(|| configuration(format!("docker context `{name}` names no host")))?;
    let secured = directory.join("contexts/tls").join(&id).is_dir();
    parse(&format!("docker context `{name}`"), &host, secured)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        variables: &[(&str, &str)],
        home: &Path,
    ) -> Result<Vec<(EngineEndpoint, String)>, String> {
        let environment = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        };
        candidates(environment, home)
            .map(|all| {
                all.into_iter()
                    .map(|candidate| (candidate.endpoint, candidate.named_by))
                    .collect()
            })
            .map_err(|error| error.to_string())
    }

    fn unix(path: &str) -> EngineEndpoint {
        EngineEndpoint::Unix(PathBuf::from(path))
    }

    fn home_with(config: &str, contexts: &[(&str, &str)]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".docker")).unwrap();
        std::fs::write(home.path().join(".docker/config.json"), config).unwrap();
        for (name, host) in contexts {
            let id = hex::encode(Sha256::digest(name));
            let directory = home.path().join(".docker/contexts/meta").join(id);
            std::fs::create_dir_all(&directory).unwrap();
            let meta = format!(
                r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"{host}"}}}}}}"#
            );
            std::fs::write(directory.join("meta.json"), meta).unwrap();
        }
        home
    }

    #[test]
    fn with_nothing_said_the_usual_sockets_are_tried_docker_first() {
        let home = tempfile::tempdir().unwrap();
        let paths: Vec<_> = found(&[("XDG_RUNTIME_DIR", "/run/user/7")], home.path()).unwrap();
        let paths: Vec<_> = paths.into_iter().map(|(endpoint, _)| endpoint).collect();
        assert_eq!(
            paths,
            [
                unix("/var/run/docker.sock"),
                unix("/run/user/7/podman/podman.sock"),
                unix("/run/podman/podman.sock")
            ]
        );
    }

    #[test]
    fn docker_host_stands_alone_and_goes_before_contexts() {
        let home = home_with(
            r#"{"currentContext":"desk"}"#,
            &[("desk", "unix:///desk.sock")],
        );
        let variables = [
            ("DOCKER_HOST", "unix:///a/b.sock"),
            ("DOCKER_CONTEXT", "desk"),
        ];
        assert_eq!(
            found(&variables, home.path()).unwrap(),
            [(unix("/a/b.sock"), "DOCKER_HOST".to_owned())]
        );
        let tcp = EngineEndpoint::Tcp("tcp://10.0.0.1:2375".to_owned());
        for host in [
            "tcp://10.0.0.1:2375",
            "http://10.0.0.1:2375",
            "10.0.0.1:2375",
        ] {
            assert_eq!(
                found(&[("DOCKER_HOST", host)], home.path()).unwrap()[0].0,
                tcp,
                "{host}"
            );
        }
    }

    #[test]
    fn a_context_is_followed_to_its_host() {
        let contexts = [
            ("desk", "unix:///desk.sock"),
            ("other", "unix:///other.sock"),
        ];
        let home = home_with(r#"{"auths":{},"currentContext":"desk"}"#, &contexts);
        let desk = (unix("/desk.sock"), "docker context `desk`".to_owned());
        let other = (unix("/other.sock"), "docker context `other`".to_owned());
        assert_eq!(found(&[("DOCKER_HOST", "")], home.path()).unwrap(), [desk]);
        assert_eq!(
            found(&[("DOCKER_CONTEXT", "other")], home.path()).unwrap(),
            std::slice::from_ref(&other)
        );
        assert_eq!(
            found(&[("DOCKER_CONTEXT", "default")], home.path())
                .unwrap()
                .len(),
            2
        );
        let elsewhere = tempfile::tempdir().unwrap();
        let config = home.path().join(".docker");
        let variables = [
            ("DOCKER_CONFIG", config.to_str().unwrap()),
            ("DOCKER_CONTEXT", "other"),
        ];
        assert_eq!(found(&variables, elsewhere.path()).unwrap(), [other]);
    }

    #[test]
    fn what_cannot_be_followed_says_what_to_look_at() {
        let home = home_with("{", &[]);
        let fault = found(&[], home.path()).unwrap_err();
        assert!(
            fault.contains("config.json") && fault.contains("EOF"),
            "{fault}"
        );
        let fault = found(&[("DOCKER_CONTEXT", "gone")], home.path()).unwrap_err();
        assert!(
            fault.contains("docker context `gone`: No such file"),
            "{fault}"
        );
        let fault = found(&[("DOCKER_HOST", "ssh://me@host")], home.path()).unwrap_err();
        assert!(
            fault.contains("DOCKER_HOST names `ssh://me@host`"),
            "{fault}"
        );
        let tls = [
            ("DOCKER_HOST", "tcp://host:2376"),
            ("DOCKER_TLS_VERIFY", "1"),
        ];
        assert!(found(&tls, home.path()).is_err());
    }
}
