//! The secret of an attempt: the runner's proof that it is the runner of that attempt.
//!
//! It is in the stored input of `RunTask`, in the overrides and in ECS's events, and nowhere else.
//! The values derived from it tell nothing about it: the nonce of the marker lines, which the
//! record has, and the token for our API, of which the record has a hash.
//!
//! A run that needs nothing of our API has no token. Its nonce is made directly.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// How many bytes of a derived value are used: as many as the secret has.
const BYTES: usize = 16;

/// A secret of 128 bits, as 32 hexadecimal digits.
#[derive(Clone)]
pub struct AttemptSecret(SecretString);

impl fmt::Debug for AttemptSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttemptSecret(…)")
    }
}

impl AttemptSecret {
    /// The secret of these bits, which must be unpredictable.
    #[must_use]
    pub fn of_bits(bits: u128) -> Self {
        Self(format!("{bits:032x}").into())
    }

    /// The secret that a variable holds.
    #[must_use]
    pub fn of_text(text: SecretString) -> Self {
        Self(text)
    }

    /// The secret as a variable's value: only for the overrides of its task.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The nonce of the attempt's marker lines.
    #[must_use]
    pub fn nonce(&self) -> String {
        self.derived("marker")
    }

    /// The token for our API.
    #[must_use]
    pub fn token(&self) -> AttemptToken {
        AttemptToken(self.derived("upload").into())
    }

    /// The first bytes of the HMAC of a purpose under the secret (RFC 2104, with SHA-256), in
    /// hexadecimal digits.
    fn derived(&self, purpose: &str) -> String {
        // HMAC takes keys of any length, so this never fails.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.expose().as_bytes()) else {
            return String::new();
        };
        mac.update(purpose.as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..BYTES])
    }
}

/// The token with which an attempt's runner calls our API. It opens nothing but what belongs to the
/// attempt, while the attempt is open.
#[derive(Clone)]
pub struct AttemptToken(SecretString);

impl fmt::Debug for AttemptToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttemptToken(…)")
    }
}

impl AttemptToken {
    /// The token that a caller shows.
    #[must_use]
    pub fn of_text(text: String) -> Self {
        Self(text.into())
    }

    /// The token as a header's value: only for a request to our API.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The hash by which a record recognises the token. A record tells nobody the token.
    #[must_use]
    pub fn hash(&self) -> String {
        hex::encode(&Sha256::digest(self.expose())[..BYTES])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_derived_differs_by_secret_and_purpose() {
        let (one, other) = (AttemptSecret::of_bits(1), AttemptSecret::of_bits(2));
        let all = [
            one.expose().to_owned(),
            one.nonce(),
            one.token().expose().to_owned(),
            one.token().hash(),
            other.nonce(),
            other.token().expose().to_owned(),
        ];
        for (at, text) in all.iter().enumerate() {
            assert_eq!(text.len(), 32);
            assert!(!all[..at].contains(text));
        }
        let again = AttemptSecret::of_text("00000000000000000000000000000001".into());
        assert_eq!(again.nonce(), one.nonce());
        let shown = AttemptToken::of_text(one.token().expose().to_owned());
        assert_eq!(shown.hash(), one.token().hash());
        assert!(!format!("{one:?} {:?}", one.token()).contains(one.expose()));
    }
}
