//! The API keys: each is there twice, by its id for the callers and by its name for the administrator, written as one.

use aws_sdk_dynamodb::{
    operation::transact_write_items::TransactWriteItemsError,
    types::{Delete, Put, TransactWriteItem},
};
use domain::{key::KeyRecord, ports::Unavailable};

use super::{
    DynamoStore, SERVICE,
    item::{Key, item_of, value_of},
    table::Condition,
};
use crate::error::unavailable;

/// The partition of all keys by name: a few, and seldom written.
const KEYS: &str = "KEYS";
const WHAT: &str = "an API key's record";

fn by_id(id: &str) -> Key {
    Key::single('K', id)
}

fn by_name(name: &str) -> Key {
    Key::new(KEYS, name)
}

impl DynamoStore {
    pub(super) async fn read_key(&self, id: &str) -> Result<Option<KeyRecord>, Unavailable> {
        self.get(by_id(id)).await?.map(|item| value_of(WHAT, item)).transpose()
    }

    pub(super) async fn read_keys(&self) -> Result<Vec<KeyRecord>, Unavailable> {
        self.collection(KEYS, "").await?.into_iter().map(|item| value_of(WHAT, item)).collect()
    }

    pub(super) async fn write_key(&self, key: &KeyRecord) -> Result<bool, Unavailable> {
        let put = |at: Key| -> Result<TransactWriteItem, Unavailable> {
            let put = Put::builder()
                .table_name(&self.table)
                .set_item(Some(item_of(at, key)?))
                .condition_expression(Condition::absent().text)
                .build()
                .map_err(|error| Unavailable::new(SERVICE, error))?;
            Ok(TransactWriteItem::builder().put(put).build())
        };
        self.both(vec![put(by_id(&key.id))?, put(by_name(&key.name))?]).await
    }

    pub(super) async fn delete_key(&self, name: &str) -> Result<bool, Unavailable> {
        let Some(item) = self.get(by_name(name)).await? else { return Ok(false) };
        let key: KeyRecord = value_of(WHAT, item)?;
        let delete = |at: Key| -> Result<TransactWriteItem, Unavailable> {
            let delete = Delete::builder()
                .table_name(&self.table)
                .set_key(Some(at.into_item()))
                .condition_expression("attribute_exists(pk)")
                .build()
                .map_err(|error| Unavailable::new(SERVICE, error))?;
            Ok(TransactWriteItem::builder().delete(delete).build())
        };
        self.both(vec![delete(by_id(&key.id))?, delete(by_name(name))?]).await
    }

    /// Says whether both conditions held.
    async fn both(&self, writes: Vec<TransactWriteItem>) -> Result<bool, Unavailable> {
        match self.client.transact_write_items().set_transact_items(Some(writes)).send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled))
                    if cancelled
                        .cancellation_reasons()
                        .iter()
                        .any(|reason| reason.code() == Some("ConditionalCheckFailed")) =>
                {
                    Ok(false)
                }
                _ => Err(unavailable(SERVICE)(error)),
            },
        }
    }
}
