//! The names of a stack's parts. The template, the functions and the commands rely on the same
//! names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest name of a stack. With it, `mycli-<name>-<account>-<region>-files` fits the 63 characters
/// of a bucket's name (Amazon S3, "General purpose bucket naming rules") in every region.
pub const STACK_NAME_MAX: usize = 20;

/// The tag on everything that belongs to a stack. Its value is the stack's short name.
pub const TAG: &str = "mycli:stack";

/// The short name of a stack: 1 to 20 of `a-z 0-9 -`, starting with a letter and not ending with
/// `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StackName(String);

/// The error for a text that is no [`StackName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a stack's name: 1 to {STACK_NAME_MAX} of a-z, 0-9 and -, starting with a letter, not ending with -"
)]
pub struct StackNameError(String);

impl StackName {
    /// Returns the short name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the CloudFormation stack, which is also the prefix of most names in it.
    #[must_use]
    pub fn full(&self) -> String {
        format!("mycli-{}", self.0)
    }

    /// Returns the name of the table with the history.
    #[must_use]
    pub fn table(&self) -> String {
        self.full()
    }

    /// Returns the name of the bucket with the functions' code.
    #[must_use]
    pub fn bucket(&self, account: &str, region: &str) -> String {
        format!("{}-{account}-{region}", self.full())
    }

    /// Returns the name of the bucket with the files that runs leave.
    #[must_use]
    pub fn files_bucket(&self, account: &str, region: &str) -> String {
        format!("{}-files", self.bucket(account, region))
    }

    /// Returns the path of the parameters that hold secrets, with a slash at both ends.
    #[must_use]
    pub fn secrets_path(&self) -> String {
        format!("/mycli/{}/secrets/", self.0)
    }

    /// Returns the prefix of the stack's task definition families. A hash in hexadecimal follows
    /// it.
    #[must_use]
    pub fn family_prefix(&self) -> String {
        format!("{}-", self.full())
    }

    /// Whether a task definition's family belongs to this stack, and not to a stack with a longer
    /// name that begins like this one's.
    #[must_use]
    pub fn owns_family(&self, family: &str) -> bool {
        let hash = family.strip_prefix(&self.family_prefix());
        hash.is_some_and(|hash| {
            !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    }
}

impl Default for StackName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for StackName {
    type Err = StackNameError;

    fn from_str(text: &str) -> Result<Self, StackNameError> {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let whole = (1..=STACK_NAME_MAX).contains(&text.len()) && text.bytes().all(known);
        let ends = text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.ends_with('-');
        if whole && ends {
            Ok(Self(text.to_owned()))
        } else {
            Err(StackNameError(text.chars().take(64).collect()))
        }
    }
}

impl TryFrom<String> for StackName {
    type Error = StackNameError;

    fn try_from(text: String) -> Result<Self, StackNameError> {
        text.parse()
    }
}

impl From<StackName> for String {
    fn from(name: StackName) -> Self {
        name.0
    }
}

impl fmt::Display for StackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_into_every_name_made_of_it() {
        let longest: StackName = "a2345678901234567890".parse().unwrap();
        assert!(longest.files_bucket("123456789012", "ap-southeast-1").len() <= 63);
        for wrong in [
            "",
            "A",
            "1a",
            "a_b",
            "a-",
            "-a",
            "a23456789012345678901",
            "a.b",
        ] {
            assert!(wrong.parse::<StackName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_family_of_a_longer_name_is_another_stack_s() {
        let stack: StackName = "ci".parse().unwrap();
        assert!(stack.owns_family("mycli-ci-0a1b2c3d"));
        for other in [
            "mycli-ci-two-0a1b2c3d",
            "mycli-cii-0a1b",
            "mycli-ci-",
            "ci-0a1b",
        ] {
            assert!(!stack.owns_family(other), "{other}");
        }
    }
}
