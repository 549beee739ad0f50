//! The known facts about a secret, without its value.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Timestamp,
    container::variable,
    git::{self, GIT_KNOWN_HOSTS, GIT_SSH_KEY, GIT_TOKEN, GitHost},
    key::{Caller, Role},
};

/// The most bytes of `NAME=value` in an environment: `MAX_ARG_STRLEN` of Linux
/// (include/uapi/linux/binfmts.h: 32 pages of 4096 bytes), less the byte that ends it. execve
/// accepts no longer string.
pub const VARIABLE_MAX: usize = 131_071;

/// The error of a value that no secret can have. It contains nothing of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// The value contains a NUL byte.
    #[error(
        "the value holds a NUL byte, which no environment can carry: encode it, for example as base64"
    )]
    Nul,
    /// The value is not UTF-8.
    #[error("the value is not UTF-8, and a secret is a text: encode it, for example as base64")]
    NotText,
    /// The value is longer than a variable can be.
    #[error(
        "the value has {bytes} bytes, and the limit for a variable of this name is {most}: keep it in a file that the command can fetch"
    )]
    TooLong {
        /// The number of bytes that it has.
        bytes: usize,
        /// The number of bytes that it may have.
        most: usize,
    },
}

/// Reads the value of a secret as a text that a task's environment can hold.
///
/// # Errors
/// [`ValueError`].
pub fn readable_value(name: &str, bytes: Vec<u8>) -> Result<String, ValueError> {
    let value = String::from_utf8(bytes).map_err(|_| ValueError::NotText)?;
    check_value(name, &value).map(|()| value)
}

/// Checks that a task's environment can hold the value of a secret.
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

/// The longest name of a variable that this secret is given in. For git's secrets that is the
/// variable of the set-up.
fn variable_of(name: &str) -> &str {
    match name {
        GIT_TOKEN => variable::GIT_TOKEN,
        GIT_SSH_KEY => variable::SSH_KEY,
        GIT_KNOWN_HOSTS => variable::KNOWN_HOSTS,
        _ => name,
    }
}

/// A secret that is set. Its value is stored elsewhere, where it is read only when a task starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    /// The secret's name in requests.
    pub name: String,
    /// The lowest role of a key whose requests may name the secret.
    pub role: Role,
    /// When the secret was last set; `None` where that time is not kept.
    pub set_at: Option<Timestamp>,
    /// The hosts of a credential for git. Empty for a credential with the default hosts, and for
    /// all other secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<GitHost>,
}

impl SecretRecord {
    /// Whether a request of this caller may name the secret.
    #[must_use]
    pub fn is_open_to(&self, caller: &Caller) -> bool {
        caller.role >= self.role
    }

    /// The hosts that the secret is for; empty for a secret that is not a credential for git.
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
        // The set-up receives it as MYCLI_GIT_TOKEN=…
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
