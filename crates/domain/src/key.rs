//! API keys: `sk_live_` and 64 hexadecimal digits, kept only as a bcrypt hash.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Timestamp, principal::Principal, stored::Unknown};

const PREFIX: &str = "sk_live_";
/// The length of a key: bcrypt reads 72 bytes and no more (AWS-FACTS §8).
pub const KEY_LENGTH: usize = 72;

/// The role of a key. Each role may also do what the roles before it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read executions and logs.
    Read,
    /// Submit and cancel too.
    Submit,
    /// Manage keys too.
    Admin,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        })
    }
}

/// A key that a caller sent. Its form is right; it is not verified yet.
#[derive(Clone, Debug)]
pub struct ApiKey(SecretString);

impl ApiKey {
    /// Reads `sk_live_<64 hex>`; `None` for anything else, in particular for any other length.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == KEY_LENGTH && digits.bytes().all(hex)).then(|| Self(text.to_owned().into()))
    }

    /// Returns the text with each key in it, and each beginning of one, replaced by `sk_live_…`.
    #[must_use]
    pub fn redacted(text: &str) -> String {
        let mut parts = text.split(PREFIX);
        let first = parts.next().unwrap_or_default();
        let rest = parts.map(|rest| {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            format!("{PREFIX}…{rest}")
        });
        std::iter::once(first.to_owned()).chain(rest).collect()
    }

    /// Makes the key of 32 random bytes.
    #[must_use]
    pub fn from_entropy(bytes: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", hex::encode(bytes)).into())
    }

    /// The key itself, to hash, verify or show once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The id by which the key's record is found: the first 16 hexadecimal digits of its SHA-256.
    /// It does not reveal the key.
    #[must_use]
    pub fn id(&self) -> String {
        self.digest()[..16].to_owned()
    }

    /// Its SHA-256 in hexadecimal, by which the result of a verification is remembered.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.expose()))
    }
}

/// The stored record of a key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// See [`ApiKey::id`].
    pub id: String,
    /// The name shown as `submitted_by`.
    pub name: String,
    /// The role of the key.
    pub role: Role,
    /// The bcrypt hash, with cost 10.
    pub hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The principal that the key belongs to; `None` for a key from before principals existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// When the key stops being valid. Set only for a key that was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Earlier keys that are still valid for a while, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Previous>,
    /// Fields of the stored form that only a newer release knows; the store writes them back.
    #[serde(skip)]
    pub unknown: Unknown,
}

/// The most earlier keys that stay valid beside a key. Each costs a write when the key is rotated
/// or revoked, and more rotations than these within a day are a mistake.
const PREVIOUS_MAX: usize = 8;

/// A key that was rotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// See [`ApiKey::id`].
    pub id: String,
    /// When the key stops being valid.
    pub until: Timestamp,
}

impl KeyRecord {
    /// The principal that the key belongs to. A key from before principals existed is its own
    /// principal: no other key ever has its id.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.principal
            .clone()
            .unwrap_or_else(|| Principal::Key(self.id.clone()))
    }

    /// Whether the key is valid at this moment.
    #[must_use]
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|until| now < until)
    }

    /// Returns this key as rotated, and its replacement with the same principal, name and role.
    /// This key stays valid until `until`, and earlier keys stay valid as long as before. If
    /// `until` is not in the future, none of them stays valid: then the key is rotated because it
    /// has become known to somebody else.
    #[must_use]
    pub fn rotated(&self, fresh: Self, until: Timestamp, now: Timestamp) -> (Self, Self) {
        let mut previous: Vec<_> = self
            .previous
            .iter()
            .filter(|previous| now < previous.until)
            .cloned()
            .collect();
        previous.push(Previous {
            id: self.id.clone(),
            until,
        });
        previous.drain(..previous.len().saturating_sub(PREVIOUS_MAX));
        previous.retain(|_| now < until);
        let old = Self {
            expires_at: Some(until),
            previous: Vec::new(),
            ..self.clone()
        };
        let new = Self {
            name: self.name.clone(),
            role: self.role,
            principal: Some(self.principal()),
            expires_at: None,
            previous,
            unknown: self.unknown.clone(),
            ..fresh
        };
        (old, new)
    }

    /// Whether the earlier key with this id is kept beside this one.
    #[must_use]
    pub fn keeps(&self, id: &str) -> bool {
        self.previous.iter().any(|previous| previous.id == id)
    }

    /// The caller who uses this key.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller {
            name: self.name.clone(),
            principal: self.principal(),
            role: self.role,
        }
    }
}

impl std::fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRecord")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// The sender of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key's name.
    pub name: String,
    /// The principal that the key belongs to.
    pub principal: Principal,
    /// The key's role.
    pub role: Role,
}

impl Caller {
    /// This machine's own user, under this name.
    #[must_use]
    pub fn local(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            principal: Principal::Local,
            role: Role::Admin,
        }
    }

    /// Whether this caller may see the values of a run's variables. A read key sees only their
    /// names.
    #[must_use]
    pub fn sees_values(&self) -> bool {
        self.role >= Role::Submit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_key() {
        let key = ApiKey::from_entropy([0xab; 32]);
        let text = key.expose().to_owned();
        assert_eq!(text.len(), KEY_LENGTH);
        assert!(ApiKey::parse(&text).is_some());
        for wrong in [
            format!("{text}0"),
            text[..71].to_owned(),
            text.to_uppercase(),
            text.replace("sk_live", "sk_test"),
            String::new(),
        ] {
            assert!(ApiKey::parse(&wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_not_shown_by_debug() {
        let key = ApiKey::from_entropy([0xab; 32]);
        assert!(!format!("{key:?}").contains("abab"));
        assert_eq!(key.id().len(), 16);
    }
}
