//! The command's environment: variables given by value, and variables that ECS fills from secrets.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::{shown, text_type};

/// The prefix of our own variables' names. The runner removes them before the command
/// starts.
pub const RESERVED_PREFIX: &str = "MYCLI_";

text_type! {
    /// The name of an environment variable by POSIX's rules: `[A-Za-z_][A-Za-z0-9_]*`, not starting
    /// with `MYCLI_`.
    EnvName, EnvError
}

text_type! {
    /// The name of a secret. The command finds the value in the variable of that name, so the rules
    /// of [`EnvName`] apply.
    SecretName, EnvError
}

/// Variables and their values. `Debug` shows names and lengths only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<EnvName, String>",
    into = "BTreeMap<EnvName, String>"
)]
pub struct Env(BTreeMap<EnvName, String>);

/// Why a name or a value cannot be in an environment. No variant holds a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvError {
    /// The name is empty.
    #[error("the name is empty: use letters, digits and `_`, starting with a letter or `_`")]
    Empty,
    /// Not a name that every shell can use.
    #[error("{} is not a variable name: use letters, digits and `_`, starting with a letter or `_`", shown(.0))]
    Name(String),
    /// The name belongs to mycli.
    #[error("{} is reserved, because mycli uses the names that start with `MYCLI_`: choose another", shown(.0))]
    Reserved(String),
    /// The value holds a NUL byte, which no process environment can hold.
    #[error(
        "the value holds a NUL byte, which no environment can carry: encode it, for example as base64"
    )]
    Nul,
}

impl EnvName {
    fn check(text: &str) -> Result<(), EnvError> {
        check_name(text)
    }
}

impl SecretName {
    fn check(text: &str) -> Result<(), EnvError> {
        check_name(text)
    }
}

fn check_name(text: &str) -> Result<(), EnvError> {
    if text.is_empty() {
        return Err(EnvError::Empty);
    }
    let starts_with_digit = text.starts_with(|c: char| c.is_ascii_digit());
    if starts_with_digit || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(EnvError::Name(without_value(text).to_owned()));
    }
    if text.starts_with(RESERVED_PREFIX) {
        return Err(EnvError::Reserved(text.to_owned()));
    }
    Ok(())
}

/// Returns a name that was given as `NAME=value` without the value, which may be a secret.
#[must_use]
pub fn without_value(name: &str) -> &str {
    match name.split_once('=') {
        Some((before, _)) => &name[..=before.len()],
        None => name,
    }
}

/// Checks that the value can be put into a process environment.
pub(super) fn check_value(value: &str) -> Result<(), EnvError> {
    if value.contains('\0') {
        Err(EnvError::Nul)
    } else {
        Ok(())
    }
}

impl Env {
    /// Returns the variables in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&EnvName, &str)> {
        self.0.iter().map(|(name, value)| (name, value.as_str()))
    }

    /// Returns the value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find_map(|(known, value)| (known.as_str() == name).then_some(value))
    }
}

impl TryFrom<BTreeMap<EnvName, String>> for Env {
    type Error = EnvError;

    fn try_from(variables: BTreeMap<EnvName, String>) -> Result<Self, Self::Error> {
        variables
            .values()
            .try_for_each(|value| check_value(value))?;
        Ok(Self(variables))
    }
}

impl From<Env> for BTreeMap<EnvName, String> {
    fn from(env: Env) -> Self {
        env.0
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self
            .iter()
            .map(|(name, value)| (name.as_str(), length_of(value)));
        f.debug_map().entries(lengths).finish()
    }
}

/// Returns what `Debug` shows in place of a value.
pub(super) fn length_of(value: &str) -> String {
    format!("{} bytes", value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str) -> String {
        name.parse::<EnvName>().unwrap_err().to_string()
    }

    #[test]
    fn posix_names_are_accepted() {
        for name in ["A", "_", "PATH", "tf_var_1", "__X", "MYCLI", "mycli_x"] {
            assert_eq!(name.parse::<EnvName>().unwrap().as_str(), name);
            assert_eq!(name.parse::<SecretName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_refused_name_says_what_to_change() {
        assert_eq!(
            fault(""),
            "the name is empty: use letters, digits and `_`, starting with a letter or `_`"
        );
        for name in ["1A", "A-B", "A B", "A.B", "É", "A\n", "-A"] {
            let expected = format!(
                "`{}` is not a variable name: use letters, digits and `_`, starting with a letter or `_`",
                name.escape_debug()
            );
            assert_eq!(fault(name), expected);
        }
        assert_eq!(
            fault("MYCLI_REPO"),
            "`MYCLI_REPO` is reserved, because mycli uses the names that start with `MYCLI_`: choose another"
        );
    }

    #[test]
    fn a_value_put_into_the_name_is_not_repeated() {
        assert_eq!(
            fault("TOKEN=hunter2"),
            "`TOKEN=` is not a variable name: use letters, digits and `_`, starting with a letter or `_`"
        );
    }

    #[test]
    fn debug_shows_names_and_lengths_but_no_value() {
        let env: Env = serde_json::from_str(r#"{"A":"hunter2","B":""}"#).unwrap();
        assert_eq!(format!("{env:?}"), r#"{"A": "7 bytes", "B": "0 bytes"}"#);
    }

    #[test]
    fn a_stored_environment_is_checked_again() {
        assert!(serde_json::from_str::<Env>(r#"{"A-B":""}"#).is_err());
        let error = serde_json::from_str::<Env>("{\"A\":\"hun\\u0000ter2\"}")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("the value holds a NUL byte"), "{error}");
        let env: Env = serde_json::from_str(r#"{"A":"1"}"#).unwrap();
        assert_eq!(env.get("A"), Some("1"));
        assert_eq!(env.get("B"), None);
    }
}
