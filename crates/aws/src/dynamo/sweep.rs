//! Where a sweep was cut short.

use domain::{history::Cursor, ports::Unavailable};

use super::{
    DynamoStore,
    item::{Key, text, text_of, unreadable},
    table::Condition,
};

fn key() -> Key {
    Key::new("SWEEP", "SWEEP")
}

impl DynamoStore {
    pub(super) async fn read_bookmark(&self) -> Result<Option<Cursor>, Unavailable> {
        let item = self.get(key()).await?;
        let id = item.as_ref().and_then(|item| text_of(item, "at"));
        id.map(|id| id.parse().map(Cursor).map_err(|error| unreadable("the bookmark", error))).transpose()
    }

    pub(super) async fn write_bookmark(&self, at: Option<&Cursor>) -> Result<(), Unavailable> {
        let Some(at) = at else {
            return self.delete_if(key(), Condition::new("attribute_exists(pk)", [])).await.map(drop);
        };
        let mut item = key().into_item();
        item.insert("at".to_owned(), text(at.0.as_str()));
        self.put(item).await
    }
}
