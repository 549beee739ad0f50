//! API keys: `sk_live_` and 64 hexadecimal digits, kept only as a bcrypt hash.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Timestamp, principal::Principal, stored::Unknown};

const PREFIX: &str = "sk_live_";
/// bcrypt reads 72 bytes and no more, so a key has exactly that many (AWS-FACTS §8).
pub const KEY_LENGTH: usize = 72;

/// What a key may do. Each role may do what those before it may.
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

/// A key that a caller showed: of the right form, not yet known to be right.
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

    /// The key made of 32 random bytes.
    #[must_use]
    pub fn from_entropy(bytes: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", hex::encode(bytes)).into())
    }

    /// The key itself, to hash, verify or show once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The id it is found by, which says nothing of the key: the first 16 hexadecimal digits of its
    /// SHA-256.
    #[must_use]
    pub fn id(&self) -> String {
        self.digest()[..16].to_owned()
    }

    /// Its SHA-256 in hexadecimal, under which a verdict is remembered.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.expose()))
    }
}

/// What is kept of a key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// See [`ApiKey::id`].
    pub id: String,
    /// The name shown as `submitted_by`.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// bcrypt, cost 10.
    pub hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whose it is; none for a key of before there were principals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// Until when it is good: of a key that was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Keys of before that are good for a while longer, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Previous>,
    /// What a newer release wrote into the stored form; the store writes it back.
    #[serde(skip)]
    pub unknown: Unknown,
}

/// Most keys of before that are good beside a key. Ours: each costs a write when the key is rotated
/// or revoked, and more rotations than these within a day are a mistake.
const PREVIOUS_MAX: usize = 8;

/// A key that was rotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// See [`ApiKey::id`].
    pub id: String,
    /// Until when it is good.
    pub until: Timestamp,
}

impl KeyRecord {
    /// Whose it is. A key of before there were principals is its own: nobody else ever has its id.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.principal
            .clone()
            .unwrap_or_else(|| Principal::Key(self.id.clone()))
    }

    /// Whether it is good at this moment.
    #[must_use]
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|until| now < until)
    }

    /// This key and the one that comes in its place, with the same principal, name and role. This
    /// one is good until then, and so are those of before for as long as they were. None of them is
    /// if that moment is not in the future: then somebody knows a key who should not.
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

    /// Whether a key of before is still good beside this one.
    #[must_use]
    pub fn keeps(&self, id: &str) -> bool {
        self.previous.iter().any(|previous| previous.id == id)
    }

    /// Who calls with it.
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

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key's name.
    pub name: String,
    /// Whose key it is.
    pub principal: Principal,
    /// The key's role.
    pub role: Role,
}

impl Caller {
    /// This machine's own user, by this name.
    #[must_use]
    pub fn local(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            principal: Principal::Local,
            role: Role::Admin,
        }
    }

    /// Whether the values of a run's variables are shown to it. A key that only reads sees their
    /// names alone.
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
