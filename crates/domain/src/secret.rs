//! What is known of a secret without its value.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Timestamp,
    git::{self, GIT_KNOWN_HOSTS, GIT_SSH_KEY, GIT_TOKEN, GitHost},
    key::{Caller, Role},
    script::variable,
};

/// Most bytes of `NAME=value` in an environment: `MAX_ARG_STRLEN` of Linux
/// (include/uapi/linux/binfmts.h: 32 pages of 4096 bytes), less the byte that ends it. execve takes
/// no more of any one.
pub const VARIABLE_MAX: usize = 131_071;

/// Why a value cannot be a secret's. Holds nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// It holds a NUL byte.
    #[error(
        "the value holds a NUL byte, which no environment can carry: encode it, for example as base64"
    )]
    Nul,
    /// It is not UTF-8.
    #[error("the value is not UTF-8, and a secret is a text: encode it, for example as base64")]
    NotText,
    /// It is longer than a variable can be.
    #[error(
        "the value has {bytes} bytes, the limit of a variable of this name is {most}: keep a file where the command can fetch it"
    )]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        most: usize,
    },
}

/// Reads the value of a secret, as what a task's environment can hold.
///
/// # Errors
/// [`ValueError`].
pub fn readable_value(name: &str, bytes: Vec<u8>) -> Result<String, ValueError> {
    let value = String::from_utf8(bytes).map_err(|_| ValueError::NotText)?;
    check_value(name, &value).map(|()| value)
}

/// Whether a task's environment can hold the value of a secret.
///
/// # Errors
/// [`ValueError`].
pub fn check_value(name: &str, value: &str) -> Result<(), ValueError> {
    let most = VARIABLE_MAX.saturating_sub(variable_of(name).len() + "=".len());
    match value.len() {
        _ if value.contains('\0') => Err(ValueError::Nul),
        bytes if bytes > most => Err(ValueError::TooLong { bytes, most }),
        _ => Ok(()),
    }
}

/// The longest name of a variable that a secret is given in: those for git have names of ours in
/// the set-up.
fn variable_of(name: &str) -> &str {
    match name {
        GIT_TOKEN => variable::GIT_TOKEN,
        GIT_SSH_KEY => variable::SSH_KEY,
        GIT_KNOWN_HOSTS => variable::KNOWN_HOSTS,
        _ => name,
    }
}

/// A secret that is set. Its value stands elsewhere, where only a task's start reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    /// Its name, as requests name it.
    pub name: String,
    /// The least role of a key whose requests may name it.
    pub role: Role,
    /// When it was last set; `None` where that is not kept.
    pub set_at: Option<Timestamp>,
    /// The hosts that a credential for git is for; empty for those that it is for by default, and
    /// for all other secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<GitHost>,
}

impl SecretRecord {
    /// Whether a request of this caller may name it.
    #[must_use]
    pub fn is_open_to(&self, caller: &Caller) -> bool {
        caller.role >= self.role
    }

    /// The hosts that it is for; none of a secret that is no credential for git.
    #[must_use]
    pub fn git_hosts(&self) -> Vec<GitHost> {
        match (git::has_hosts(&self.name), self.hosts.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => git::default_hosts(),
            (true, false) => self.hosts.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_what_one_variable_can_hold() {
        let long = |bytes: usize| "x".repeat(bytes);
        assert_eq!(check_value("T", &long(VARIABLE_MAX - 2)), Ok(()));
        let refused = check_value("T", &long(VARIABLE_MAX - 1));
        assert_eq!(
            refused,
            Err(ValueError::TooLong {
                bytes: 131_070,
                most: 131_069
            })
        );
        // As the set-up is given it: MYCLI_GIT_TOKEN=…
        assert_eq!(check_value(GIT_TOKEN, &long(VARIABLE_MAX - 16)), Ok(()));
        assert!(check_value(GIT_TOKEN, &long(VARIABLE_MAX - 15)).is_err());
    }

    #[test]
    fn what_no_environment_can_carry_is_told_without_a_piece_of_it() {
        for (bytes, error) in [
            (&b"hidden\0b"[..], ValueError::Nul),
            (b"hidden\xff", ValueError::NotText),
        ] {
            assert_eq!(readable_value("T", bytes.to_vec()), Err(error));
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
        assert_eq!(
            readable_value("T", b"two\nlines \xc3\xa9".to_vec()).as_deref(),
            Ok("two\nlines é")
        );
    }
}
