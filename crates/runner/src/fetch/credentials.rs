//! The credentials of a fetch. Each belongs to hosts and is shown to no other.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::request::RepoUrl;
use reqwest::{Url, header::HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

use crate::order::{Credentials, Proof};

impl Credentials {
    /// The user name and token for a repository, if there is one.
    pub(super) fn basic_for(&self, repo: &RepoUrl) -> Option<Basic> {
        let url = Url::parse(repo.as_str()).ok()?;
        self.for_repo(repo).find_map(|proof| match proof {
            Proof::Basic { username, password } => Some(Basic {
                origin: Origin::of(&url)?,
                username: username.clone(),
                password: password.clone(),
            }),
            Proof::Key(_) => None,
        })
    }

    /// The private key for a repository, if there is one.
    pub(super) fn key_for(&self, repo: &RepoUrl) -> Option<&SecretString> {
        self.for_repo(repo).find_map(|proof| match proof {
            Proof::Key(key) => Some(key),
            Proof::Basic { .. } => None,
        })
    }

    fn for_repo(&self, repo: &RepoUrl) -> impl Iterator<Item = &Proof> {
        self.0
            .iter()
            .filter(|credential| credential.hosts.iter().any(|host| host.has(repo)))
            .map(|credential| &credential.proof)
    }
}

/// A user name and a token for one server.
#[derive(Clone)]
pub(super) struct Basic {
    origin: Origin,
    username: String,
    password: SecretString,
}

/// Shows neither the user name nor the token.
impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Basic {
    /// Whether a URL is on the server that it is for.
    pub(super) fn is_for(&self, url: &Url) -> bool {
        Origin::of(url).as_ref() == Some(&self.origin)
    }

    /// The header `Authorization`, marked so that no library shows it.
    pub(super) fn header(&self) -> HeaderValue {
        let text = format!("{}:{}", self.username, self.password.expose_secret());
        let encoded = STANDARD.encode(text);
        let mut value = HeaderValue::from_str(&format!("Basic {encoded}"))
            .unwrap_or_else(|_| HeaderValue::from_static("Basic"));
        value.set_sensitive(true);
        value
    }
}

impl Basic {
    /// The server that it is for, as a URL.
    pub(super) fn origin(&self) -> String {
        let Origin(scheme, host, port) = &self.origin;
        format!("{scheme}://{host}:{port}")
    }

    /// The answer of a credential helper of git (git-credential, "input/output format").
    pub(super) fn helper_lines(&self) -> String {
        let (username, password) = (&self.username, self.password.expose_secret());
        format!("username={username}\npassword={password}\n")
    }
}

/// A server: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin(String, String, u16);

impl Origin {
    fn of(url: &Url) -> Option<Self> {
        Some(Self(
            url.scheme().to_owned(),
            url.host_str()?.to_ascii_lowercase(),
            url.port_or_known_default()?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        serde_json::from_str(
            r#"[{"hosts":["github.com","[::1]:8443"],
                 "proof":{"basic":{"username":"x-access-token","password":"t0ken"}}}]"#,
        )
        .expect("credentials")
    }

    fn basic(repo: &str) -> Option<Basic> {
        credentials().basic_for(&repo.parse().expect("a repository"))
    }

    #[test]
    fn a_token_is_for_its_server_only() {
        let basic = basic("https://github.com/me/a").expect("it is for github.com");
        let is_for = |url: &str| basic.is_for(&Url::parse(url).expect("a URL"));
        assert!(is_for("https://GitHub.com:443/other"));
        for other in [
            "http://github.com/me/a",
            "https://github.com:444/me/a",
            "https://github.com.evil.example/",
            "https://gist.github.com/",
        ] {
            assert!(!is_for(other), "{other}");
        }
    }

    #[test]
    fn other_servers_get_none() {
        assert!(basic("https://gitlab.com/me/a").is_none());
        assert!(basic("https://[::1]:8443/a").is_some());
        assert!(basic("https://[::1]:8444/a").is_none());
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let all = format!(
            "{:?} {:?} {:?}",
            credentials(),
            basic("https://github.com/me/a"),
            basic("https://github.com/me/a").map(|basic| basic.header())
        );
        assert!(!all.contains("t0ken"), "{all}");
        assert!(!all.contains("eC1h"), "{all}");
    }
}
