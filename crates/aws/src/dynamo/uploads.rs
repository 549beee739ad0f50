//! The batches of uploads: an item for each, which only ever is written once.

use domain::{
    Timestamp,
    id::AttemptId,
    ports::{PortError, UploadRecords},
    stored::Unknown,
    upload::UploadBatch,
};

use super::{
    DynamoStore, SERVICE,
    item::{Item, Key, expiry, item_of, number, value_of},
    table::{Condition, Wrote},
};

const WHAT: &str = "the record of an upload";

fn key(attempt: &AttemptId, batch: u32) -> Key {
    Key::new(format!("UPLOAD#{attempt}"), format!("{batch:06}"))
}

fn batch_of(mut item: Item) -> Result<UploadBatch, PortError> {
    // The expiry is stored beside the form.
    item.remove("expires");
    value_of(WHAT, item).map(|(batch, _)| batch)
}

impl UploadRecords for DynamoStore {
    async fn upload_batch(
        &self,
        attempt: &AttemptId,
        number: u32,
    ) -> Result<Option<UploadBatch>, PortError> {
        self.get(key(attempt, number))
            .await?
            .map(batch_of)
            .transpose()
    }

    /// Conditional on there being no such item.
    async fn begin_upload_batch(
        &self,
        attempt: &AttemptId,
        batch: &UploadBatch,
        expires_at: Timestamp,
    ) -> Result<UploadBatch, PortError> {
        let mut item = item_of(key(attempt, batch.number), batch, &Unknown::default())?;
        item.insert("expires".to_owned(), number(expiry(expires_at)));
        match self.put_if(item, Condition::absent()).await? {
            Wrote::Yes(_) => Ok(batch.clone()),
            Wrote::No(Some(there)) => batch_of(there),
            Wrote::No(None) => Err(PortError::unavailable(
                SERVICE,
                "an item that was there is gone",
            )),
        }
    }
}
