//! What is known of the secrets: never a value.

use domain::{ports::PortError, secret::SecretRecord};

use super::{
    DynamoStore,
    item::{Key, item_of, value_of},
    table::Condition,
};

/// The partition of all secrets by name: a few, and seldom written.
const SECRETS: &str = "SECRETS";
const WHAT: &str = "a secret's record";

fn key(name: &str) -> Key {
    Key::new(SECRETS, name)
}

impl DynamoStore {
    pub(super) async fn read_secret(&self, name: &str) -> Result<Option<SecretRecord>, PortError> {
        Ok(self.get(key(name)).await?.map(|item| value_of(WHAT, item)).transpose()?.map(|(secret, _)| secret))
    }

    /// Every secret's record, by name.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn list_secrets(&self) -> Result<Vec<SecretRecord>, PortError> {
        let items = self.collection(SECRETS, "").await?.into_iter();
        items.map(|item| value_of(WHAT, item).map(|(secret, _)| secret)).collect()
    }

    /// Keeps that a secret is set, in place of what was known of it. Idempotent.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn put_secret(&self, secret: &SecretRecord) -> Result<(), PortError> {
        // What a newer release keeps with it stays; one that cannot be read is replaced.
        let known = self.get(key(&secret.name)).await?.and_then(|item| value_of::<SecretRecord>(WHAT, item).ok());
        let unknown = known.map(|(_, unknown)| unknown).unwrap_or_default();
        self.put(item_of(key(&secret.name), secret, &unknown)?).await
    }

    /// Forgets a secret; says whether there was one. Idempotent.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn remove_secret(&self, name: &str) -> Result<bool, PortError> {
        self.delete_if(key(name), Condition::new("attribute_exists(pk)", [])).await
    }
}
