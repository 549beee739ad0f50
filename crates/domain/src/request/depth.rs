//! How much of a repository's history a clone has.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::shown;

/// The largest depth: git's own bound, which stands for the whole history (git-fetch,
/// "--unshallow").
const DEPTH_MAX: u32 = 0x7fff_ffff;

/// How much of a repository's history a clone has. As text it is a number of commits, or `full`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Depth {
    /// This many commits, without other branches and tags.
    Commits(NonZeroU32),
    /// All of it, with all branches and tags.
    Full,
}

impl Default for Depth {
    /// Only the commit itself.
    fn default() -> Self {
        Self::Commits(NonZeroU32::MIN)
    }
}

impl Depth {
    /// The number of commits; `None` for all of them.
    #[must_use]
    pub fn commits(self) -> Option<NonZeroU32> {
        match self {
            Self::Commits(commits) => Some(commits),
            Self::Full => None,
        }
    }
}

/// A text that is no depth.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is neither a number of commits from 1 on nor `full`: use one of them", shown(.0))]
pub struct DepthError(String);

impl FromStr for Depth {
    type Err = DepthError;

    fn from_str(text: &str) -> Result<Self, DepthError> {
        if text == "full" {
            return Ok(Self::Full);
        }
        let commits = text.parse().ok().filter(|commits| *commits <= DEPTH_MAX);
        commits
            .and_then(NonZeroU32::new)
            .map(Self::Commits)
            .ok_or_else(|| DepthError(text.to_owned()))
    }
}

impl TryFrom<String> for Depth {
    type Error = DepthError;

    fn try_from(text: String) -> Result<Self, DepthError> {
        text.parse()
    }
}

impl From<Depth> for String {
    fn from(depth: Depth) -> Self {
        depth.to_string()
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commits(commits) => commits.fmt(f),
            Self::Full => f.write_str("full"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_number_or_full() {
        for text in ["1", "50", "2147483647", "full"] {
            let depth: Depth = text.parse().expect(text);
            assert_eq!(depth.to_string(), text);
        }
        for text in ["", "0", "-1", "2147483648", "Full", "1.5", "one"] {
            let error = text.parse::<Depth>().expect_err(text).to_string();
            assert!(error.contains("from 1 on nor `full`"), "{error}");
        }
        assert_eq!(Depth::default().to_string(), "1");
    }
}
