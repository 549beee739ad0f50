//! The identity that submits. It outlives names and keys.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::Timestamp;

/// The identity behind a key, or this machine's own user. Records, claims, submissions and fair
/// shares refer to it; names are for people.
///
/// A key that is revoked and then created again under the same name is another principal. A key
/// that is rotated keeps its principal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Principal {
    /// The identity of a key: a ULID made with the key, or the key's own id if it was made before
    /// principals existed.
    Key(String),
    /// This machine's own user.
    Local,
}

const KEY: &str = "key:";
const LOCAL: &str = "local";

/// The error for a text that is not a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a principal is `key:` with letters and digits, or `local`")]
pub struct InvalidPrincipal;

impl Principal {
    /// The principal of a key that is made now. 80 bits of `entropy` (its low ten bytes)
    /// distinguish it from all others of the same millisecond.
    #[must_use]
    pub fn new(now: Timestamp, entropy: u128) -> Self {
        let millis = u64::try_from(now.timestamp_millis()).unwrap_or_default();
        Self::Key(Ulid::from_parts(millis, entropy).to_string())
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(f, "{KEY}{id}"),
            Self::Local => f.write_str(LOCAL),
        }
    }
}

impl FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, InvalidPrincipal> {
        let is_id =
            |id: &&str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match text.strip_prefix(KEY).filter(is_id) {
            Some(id) => Ok(Self::Key(id.to_owned())),
            None if text == LOCAL => Ok(Self::Local),
            None => Err(InvalidPrincipal),
        }
    }
}

impl TryFrom<String> for Principal {
    type Error = InvalidPrincipal;

    fn try_from(text: String) -> Result<Self, InvalidPrincipal> {
        text.parse()
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_read_as_it_is_written() {
        let made = Principal::new(Timestamp::UNIX_EPOCH, 7);
        for principal in [
            made,
            Principal::Key("0123456789abcdef".into()),
            Principal::Local,
        ] {
            assert_eq!(principal.to_string().parse(), Ok(principal));
        }
        for wrong in ["", "key:", "key:a/b", "key:a b", "ci", "Local", "key"] {
            assert_eq!(wrong.parse::<Principal>(), Err(InvalidPrincipal), "{wrong}");
        }
    }
}
