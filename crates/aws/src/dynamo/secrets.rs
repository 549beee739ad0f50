//! The records of secrets, which never contain a value.

use domain::{
    ports::{PortError, Secrets},
    secret::SecretRecord,
};

use super::{
    DynamoStore,
    item::{Item, Key, form_of, item_of, text_of, value_of},
    table::Condition,
};

/// The partition of all secrets by name. There are few, and they are seldom written.
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

impl Secrets for DynamoStore {
    async fn find_secret(&self, name: &str) -> Result<Option<SecretRecord>, PortError> {
        self.get(key(name)).await?.map(secret_of).transpose()
    }

    fn how_to_set(&self, name: &str) -> String {
        format!(
            "it is not set in this stack; set it with `mycli secrets set {name}`, or leave it out"
        )
    }
}

impl DynamoStore {
    /// The record of every secret, by name, or why it cannot be read.
    ///
    /// # Errors
    /// If the table does not answer.
    pub async fn list_secrets(&self) -> Result<Vec<Result<SecretRecord, PortError>>, PortError> {
        Ok(self
            .collection(SECRETS, "")
            .await?
            .into_iter()
            .map(secret_of)
            .collect())
    }

    /// Records that a secret is set, and replaces what was recorded before. Idempotent.
    ///
    /// # Errors
    /// If the table does not answer.
    pub async fn put_secret(&self, secret: &SecretRecord) -> Result<(), PortError> {
        // Fields that a newer release wrote are kept. A record that cannot be read is replaced.
        let known = self
            .get(key(&secret.name))
            .await?
            .and_then(|item| form_of::<SecretRecord>(item).ok());
        let unknown = known.map(|(_, unknown)| unknown).unwrap_or_default();
        self.put(item_of(key(&secret.name), secret, &unknown)?)
            .await
    }

    /// Removes the record of a secret; returns whether there was one. Idempotent.
    ///
    /// # Errors
    /// If the table does not answer.
    pub async fn remove_secret(&self, name: &str) -> Result<bool, PortError> {
        self.delete_if(key(name), Condition::new("attribute_exists(pk)", []))
            .await
    }
}
