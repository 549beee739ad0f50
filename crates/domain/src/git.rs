//! The secrets that are credentials for git, and the hosts that each is for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::request::{RepoKind, RepoUrl, Source, is_host};

/// The secret that holds the token for private repositories over HTTPS.
pub const GIT_TOKEN: &str = "GIT_TOKEN";
/// The secret that holds the private key for repositories over SSH.
pub const GIT_SSH_KEY: &str = "GIT_SSH_KEY";
/// The secret that holds the host keys to trust, as lines of a `known_hosts` file. It is stored as
/// a secret so that it takes nothing of the overrides' 8192 characters.
pub const GIT_KNOWN_HOSTS: &str = "GIT_KNOWN_HOSTS";

/// The hosts of a git credential for which no others were named (DESIGN §6).
const DEFAULT_HOSTS: [&str; 2] = ["github.com", "gitlab.com"];

/// A host that a git credential is for: a name or an address in lower case. Without a port it means
/// every port of that host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitHost {
    name: String,
    port: Option<u16>,
}

/// The error for a text that is not a [`GitHost`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GitHostError {
    /// It is the address of a repository, or has a user name.
    #[error(
        "`{0}` is more than a host: write the host alone, as in github.com or git.example.com:8443"
    )]
    MoreThanAHost(String),
    /// It is neither a name nor an address.
    #[error(
        "`{0}` is not a host: write a name or an address, as in github.com or git.example.com:8443"
    )]
    NoHost(String),
}

impl GitHost {
    /// The host of a repository, with its port; none for a directory of this machine.
    #[must_use]
    pub fn of(repo: &RepoUrl) -> Option<Self> {
        Some(Self {
            name: repo.host()?.to_ascii_lowercase(),
            port: repo.port(),
        })
    }

    /// Whether a repository is on this host.
    #[must_use]
    pub fn has(&self, repo: &RepoUrl) -> bool {
        let name_fits = repo
            .host()
            .is_some_and(|host| host.eq_ignore_ascii_case(&self.name));
        name_fits && (self.port.is_none() || self.port == repo.port())
    }
}

impl FromStr for GitHost {
    type Err = GitHostError;

    fn from_str(text: &str) -> Result<Self, GitHostError> {
        let shown = || text.escape_debug().to_string();
        if text.contains(['/', '@']) {
            return Err(GitHostError::MoreThanAHost(shown()));
        }
        // An IPv6 address may come without its brackets, but then it has no port.
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
            _ => (text, None),
        };
        let name = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(name);
        let port = port
            .map(|port| port.parse().ok().filter(|port| *port != 0))
            .map(|port| port.ok_or(()))
            .transpose();
        match port {
            Ok(port) if is_host(name) => Ok(Self {
                name: name.to_ascii_lowercase(),
                port,
            }),
            _ => Err(GitHostError::NoHost(shown())),
        }
    }
}

impl fmt::Display for GitHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.name.contains(':')) {
            (None, _) => f.write_str(&self.name),
            (Some(port), false) => write!(f, "{}:{port}", self.name),
            (Some(port), true) => write!(f, "[{}]:{port}", self.name),
        }
    }
}

impl TryFrom<String> for GitHost {
    type Error = GitHostError;

    fn try_from(text: String) -> Result<Self, GitHostError> {
        text.parse()
    }
}

impl From<GitHost> for String {
    fn from(host: GitHost) -> Self {
        host.to_string()
    }
}

/// Whether a secret of this name is a git credential, which belongs to hosts.
#[must_use]
pub fn has_hosts(secret: &str) -> bool {
    matches!(secret, GIT_TOKEN | GIT_SSH_KEY)
}

/// The hosts of a git credential for which none were named.
#[must_use]
pub fn default_hosts() -> Vec<GitHost> {
    DEFAULT_HOSTS
        .map(|name| GitHost {
            name: name.to_owned(),
            port: None,
        })
        .to_vec()
}

/// The names of the secrets that a clone of this source may use. A submodule may be anywhere.
#[must_use]
pub fn secrets_for(source: &Source) -> &'static [&'static str] {
    match source.submodules {
        true => &[GIT_TOKEN, GIT_SSH_KEY, GIT_KNOWN_HOSTS],
        false => secrets_of(&source.repo),
    }
}

/// The names of the secrets that a clone of this repository alone may use.
#[must_use]
pub fn secrets_of(repo: &RepoUrl) -> &'static [&'static str] {
    match repo.kind() {
        RepoKind::Https | RepoKind::Http => &[GIT_TOKEN],
        RepoKind::Ssh | RepoKind::ScpLike => &[GIT_SSH_KEY, GIT_KNOWN_HOSTS],
        RepoKind::File | RepoKind::Path => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_host_and_nothing_else() {
        for (text, shown) in [
            ("GitHub.com", "github.com"),
            ("[::1]:22", "[::1]:22"),
            ("::1", "::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(text.parse::<GitHost>().expect("a host").to_string(), shown);
        }
        for text in ["https://github.com", "github.com/me", "git@github.com"] {
            assert!(
                matches!(text.parse::<GitHost>(), Err(GitHostError::MoreThanAHost(_))),
                "{text}"
            );
        }
        for text in [
            "",
            "a b",
            "*.github.com",
            "github.com:",
            "github.com:0",
            "github.com:99999",
            "-x",
            "a..b",
            ":1",
        ] {
            assert!(
                matches!(text.parse::<GitHost>(), Err(GitHostError::NoHost(_))),
                "{text}"
            );
        }
    }
}
