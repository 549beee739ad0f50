//! Selects the git secrets that a clone may use: only those for the repository's host, and only if
//! the submitter may use them.

use std::collections::BTreeMap;

use crate::{
    git::{GitHost, has_hosts, secrets_of},
    key::Role,
    request::{RepoUrl, Source},
    secret::SecretRecord,
};

/// The secrets that the set-up of a run gets for its clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitAccess {
    /// The names of the secrets.
    pub secrets: Vec<String>,
    /// The hosts of each credential, for a clone with submodules: one may be on another host than
    /// the repository.
    pub hosts: BTreeMap<String, Vec<GitHost>>,
    /// Why the clone goes without a credential that is set, as a sentence for the run's log.
    pub without: Option<String>,
}

impl GitAccess {
    /// The longest note about a missing credential that a clone of `source` may need.
    #[must_use]
    pub fn longest_note(source: &Source) -> Option<String> {
        let secret = |name: &&str| SecretRecord {
            name: (*name).into(),
            role: Role::Admin,
            set_at: None,
            hosts: Vec::new(),
        };
        let notes = |name: &&str| {
            [Role::Submit, Role::Admin]
                .map(|submitter| withheld(&secret(name), &source.repo, submitter))
        };
        secrets_of(&source.repo)
            .iter()
            .flat_map(notes)
            .flatten()
            .max_by_key(String::len)
    }

    /// The access of a clone of `source`, given the secrets that are set, for a run submitted by a
    /// key of this role.
    #[must_use]
    pub fn of<'a>(
        source: &Source,
        submitter: Role,
        set: impl IntoIterator<Item = &'a SecretRecord>,
    ) -> Self {
        let mut access = Self::default();
        for secret in set {
            let why = withheld(secret, &source.repo, submitter);
            let may_be_used = submitter >= secret.role;
            if source.submodules && may_be_used && has_hosts(&secret.name) {
                access.hosts.insert(secret.name.clone(), secret.git_hosts());
            }
            if why.is_none() || (source.submodules && may_be_used) {
                access.secrets.push(secret.name.clone());
            }
            if secrets_of(&source.repo).contains(&secret.name.as_str()) {
                access.without = access.without.or(why);
            }
        }
        access
    }
}

/// Why a clone goes without this secret; `None` if it gets the secret.
fn withheld(secret: &SecretRecord, repo: &RepoUrl, submitter: Role) -> Option<String> {
    let name = &secret.name;
    if submitter < secret.role {
        return Some(format!(
            "{name} is for runs that a key of role {} submits, so the clone does not use it",
            secret.role
        ));
    }
    let hosts = secret.git_hosts();
    if !has_hosts(name) || hosts.iter().any(|host| host.has(repo)) {
        return None;
    }
    let host = repo.host().unwrap_or_default();
    Some(format!(
        "{name} is not for {host}, so the clone does not use it (`mycli secrets set --host` changes its hosts)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{GIT_KNOWN_HOSTS, GIT_SSH_KEY, GIT_TOKEN};

    fn source(repo: &str) -> Source {
        Source::new(repo.parse().expect("a repository"), None)
    }

    fn secret(name: &str, role: Role, hosts: &[&str]) -> SecretRecord {
        let hosts = hosts
            .iter()
            .map(|host| host.parse().expect("a host"))
            .collect();
        SecretRecord {
            name: name.into(),
            role,
            set_at: None,
            hosts,
        }
    }

    fn gets(repo: &str, submitter: Role, secret: &SecretRecord) -> bool {
        let access = GitAccess::of(&source(repo), submitter, [secret]);
        assert_eq!(
            access.secrets.is_empty(),
            access.without.is_some(),
            "{access:?}"
        );
        !access.secrets.is_empty()
    }

    #[test]
    fn a_credential_goes_to_its_hosts_only() {
        let usual = secret(GIT_TOKEN, Role::Submit, &[]);
        let own = secret(
            GIT_TOKEN,
            Role::Submit,
            &[
                "Git.Example.com",
                "10.0.0.1:8443",
                "[2001:db8::1]:444",
                "::1",
            ],
        );
        for (repo, to_usual, to_own) in [
            ("https://github.com/me/a", true, false),
            ("https://GitHub.com:443/me/a", true, false),
            ("https://gitlab.com/me/a", true, false),
            ("https://evil.example/x.git", false, false),
            ("https://github.com.evil.example/x.git", false, false),
            ("https://evil-github.com/x.git", false, false),
            ("https://gist.github.com/x.git", false, false),
            ("https://git.example.com/a", false, true),
            ("https://git.example.com:8443/a", false, true),
            ("https://10.0.0.1:8443/a", false, true),
            ("https://10.0.0.1/a", false, false),
            ("https://10.0.0.1:443/a", false, false),
            ("https://[2001:db8::1]:444/a", false, true),
            ("https://[2001:db8::1]/a", false, false),
            ("http://[::1]:3000/a", false, true),
        ] {
            assert_eq!(gets(repo, Role::Submit, &usual), to_usual, "{repo}");
            assert_eq!(gets(repo, Role::Submit, &own), to_own, "{repo}");
        }
    }

    #[test]
    fn a_key_for_ssh_goes_to_its_hosts_only_and_public_host_keys_to_all() {
        let (key, pins) = (
            secret(GIT_SSH_KEY, Role::Submit, &[]),
            secret(GIT_KNOWN_HOSTS, Role::Submit, &[]),
        );
        assert!(gets("git@github.com:me/a.git", Role::Submit, &key));
        assert!(!gets(
            "ssh://git@git.example.com/me/a.git",
            Role::Submit,
            &key
        ));
        assert!(gets(
            "ssh://git@git.example.com/me/a.git",
            Role::Submit,
            &pins
        ));
    }

    /// A submodule may be on another host than its repository.
    #[test]
    fn a_clone_with_submodules_gets_all_credentials_with_their_hosts() {
        let source = Source {
            submodules: true,
            ..source("https://git.example.com/me/a")
        };
        let set = [
            secret(GIT_TOKEN, Role::Submit, &[]),
            secret(GIT_SSH_KEY, Role::Admin, &[]),
            secret(GIT_KNOWN_HOSTS, Role::Submit, &[]),
        ];
        let access = GitAccess::of(&source, Role::Submit, &set);
        assert_eq!(access.secrets, [GIT_TOKEN, GIT_KNOWN_HOSTS]);
        let hosts: Vec<_> = access.hosts[GIT_TOKEN]
            .iter()
            .map(GitHost::to_string)
            .collect();
        assert_eq!(hosts, ["github.com", "gitlab.com"]);
        assert_eq!(access.hosts.len(), 1);
        let why = access.without.expect("the repository itself goes without");
        assert!(why.contains("not for git.example.com"), "{why}");
    }

    #[test]
    fn a_role_counts_for_a_clone_too() {
        let token = secret(GIT_TOKEN, Role::Admin, &[]);
        assert!(gets("https://github.com/me/a", Role::Admin, &token));
        assert!(!gets("https://github.com/me/a", Role::Submit, &token));
    }

    #[test]
    fn the_log_says_what_the_clone_goes_without_and_how_to_allow_it() {
        let without = |repo, secret| GitAccess::of(&source(repo), Role::Submit, [&secret]).without;
        assert_eq!(
            without(
                "https://evil.example/x.git",
                secret(GIT_TOKEN, Role::Submit, &[])
            )
            .as_deref(),
            Some(
                "GIT_TOKEN is not for evil.example, so the clone does not use it (`mycli secrets set --host` changes its \
                 hosts)"
            )
        );
        assert_eq!(
            without(
                "https://github.com/x.git",
                secret(GIT_TOKEN, Role::Admin, &[])
            )
            .as_deref(),
            Some(
                "GIT_TOKEN is for runs that a key of role admin submits, so the clone does not use it"
            )
        );
    }
}
