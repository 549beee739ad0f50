//! What is known of the secrets: never a value.

use domain::{ports::PortError, secret::SecretRecord};

use super::{
    DynamoStore,
    item::{Item, Key, form_of, item_of, text_of, value_of},
    table::Condition,
};

/// The partition of all secrets by name: a few, and seldom written.
const SECRETS: &str = "SECRETS";
fn key(name: &str) -> Key {
    Key::new(SECRETS, name)
}

fn secret_of(item: Item) -> Result<SecretRecord, PortError> {
    let what = format!(
        "the record of the secret {}",
        text_of(&item, "sk").unwrap_or_default()
    );
    value_of(&what, item).map(|(secret, _)| secret)
}

impl DynamoStore {
    pub(super) async fn read_secret(&self, name: &str) -> Result<Option<SecretRecord>, PortError> {
        self.get(key(name)).await?.map(secret_of).transpose()
    }

    /// Every secret's record, by name, or why it cannot be read.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn list_secrets(&self) -> Result<Vec<Result<SecretRecord, PortError>>, PortError> {
        Ok(self
            .collection(SECRETS, "")
            .await?
            .into_iter()
            .map(secret_of)
            .collect())
    }

    /// Keeps that a secret is set, in place of what was known of it. Idempotent.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn put_secret(&self, secret: &SecretRecord) -> Result<(), PortError> {
        // What a newer release keeps with it stays; one that cannot be read is replaced.
        let known = self
            .get(key(&secret.name))
            .await?
            .and_then(|item| form_of::<SecretRecord>(item).ok());
        let unknown = known.map(|(_, unknown)| unknown).unwrap_or_default();
        self.put(item_of(key(&secret.name), secret, &unknown)?)
            .await
    }

    /// Forgets a secret; says whether there was one. Idempotent.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn remove_secret(&self, name: &str) -> Result<bool, PortError> {
        self.delete_if(key(name), Condition::new("attribute_exists(pk)", []))
            .await
    }
}
