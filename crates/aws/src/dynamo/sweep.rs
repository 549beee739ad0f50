//! The bookmark: where a sweep was cut short.

use domain::{history::Cursor, ports::PortError};

use super::{
    DynamoStore,
    item::{Key, small_item, text, text_of},
    table::Condition,
};

fn key() -> Key {
    Key::new("SWEEP", "SWEEP")
}

impl DynamoStore {
    pub(super) async fn bookmark(&self) -> Result<Option<Cursor>, PortError> {
        let item = self.get(key()).await?;
        let id = item.as_ref().and_then(|item| text_of(item, "at"));
        // If it cannot be read, the next sweep starts from the beginning.
        Ok(id.and_then(|id| id.parse().ok()).map(Cursor))
    }

    pub(super) async fn set_bookmark(&self, at: Option<&Cursor>) -> Result<(), PortError> {
        let Some(at) = at else {
            return self
                .delete_if(key(), Condition::new("attribute_exists(pk)", []))
                .await
                .map(drop);
        };
        self.put(small_item(key(), [("at", text(at.0.as_str()))]))
            .await
    }
}
