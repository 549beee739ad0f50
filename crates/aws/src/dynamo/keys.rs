//! The API keys: each is there twice, by its id for the callers and by its name for the administrator, written as one.

use aws_sdk_dynamodb::{
    operation::transact_write_items::TransactWriteItemsError,
    types::{Delete, Put, TransactWriteItem},
};
use domain::{key::KeyRecord, ports::PortError};

use super::{
    DynamoStore, SERVICE,
    item::{Item, Key, item_of, value_of},
    table::Condition,
};
use crate::error::failed;

/// The partition of all keys by name: a few, and seldom written.
const KEYS: &str = "KEYS";
const WHAT: &str = "an API key's record";

fn by_id(id: &str) -> Key {
    Key::single('K', id)
}

fn by_name(name: &str) -> Key {
    Key::new(KEYS, name)
}

fn key_of(item: Item) -> Result<KeyRecord, PortError> {
    let (key, unknown) = value_of::<KeyRecord>(WHAT, item)?;
    Ok(KeyRecord { unknown, ..key })
}

impl DynamoStore {
    pub(super) async fn read_key(&self, id: &str) -> Result<Option<KeyRecord>, PortError> {
        self.get(by_id(id)).await?.map(key_of).transpose()
    }

    pub(super) async fn read_keys(&self) -> Result<Vec<KeyRecord>, PortError> {
        self.collection(KEYS, "").await?.into_iter().map(key_of).collect()
    }

    pub(super) async fn write_key(&self, key: &KeyRecord) -> Result<bool, PortError> {
        let put = |at: Key| -> Result<TransactWriteItem, PortError> {
            let put = Put::builder()
                .table_name(&self.table)
                .set_item(Some(item_of(at, key, &key.unknown)?))
                .condition_expression(Condition::absent().text)
                .build()
                .map_err(|error| PortError::invalid(SERVICE, error))?;
            Ok(TransactWriteItem::builder().put(put).build())
        };
        self.both(vec![put(by_id(&key.id))?, put(by_name(&key.name))?]).await
    }

    pub(super) async fn delete_key(&self, name: &str) -> Result<bool, PortError> {
        let Some(item) = self.get(by_name(name)).await? else { return Ok(false) };
        let key = key_of(item)?;
        let delete = |at: Key| -> Result<TransactWriteItem, PortError> {
            let delete = Delete::builder()
                .table_name(&self.table)
                .set_key(Some(at.into_item()))
                .condition_expression("attribute_exists(pk)")
                .build()
                .map_err(|error| PortError::invalid(SERVICE, error))?;
            Ok(TransactWriteItem::builder().delete(delete).build())
        };
        self.both(vec![delete(by_id(&key.id))?, delete(by_name(name))?]).await
    }

    /// Says whether both conditions held.
    async fn both(&self, writes: Vec<TransactWriteItem>) -> Result<bool, PortError> {
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
                _ => Err(failed(SERVICE)(error)),
            },
        }
    }
}
