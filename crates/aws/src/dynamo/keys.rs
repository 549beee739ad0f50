//! The API keys: each is there twice, by its id for the callers and by its name for the administrator, written as one.

use aws_sdk_dynamodb::{
    operation::transact_write_items::TransactWriteItemsError,
    types::{Delete, Put, TransactWriteItem},
};
use domain::{
    Timestamp,
    error::{PASSED_OVER, PortError},
    key::KeyRecord,
};

use super::{
    DynamoStore, SERVICE,
    item::{Item, Key, expiry, item_of, number, text, text_of, value_of},
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

/// The id of the key in whose place this one came.
fn previous_of(item: &Item) -> Option<String> {
    text_of(item.get("previous")?.as_m().ok()?, "id").map(str::to_owned)
}

fn key_of(mut item: Item) -> Result<KeyRecord, PortError> {
    // It stands beside the form, and follows from it.
    item.remove("expires");
    let (key, unknown) = value_of::<KeyRecord>(WHAT, item)?;
    Ok(KeyRecord { unknown, ..key })
}

impl DynamoStore {
    pub(super) async fn read_key(&self, id: &str) -> Result<Option<KeyRecord>, PortError> {
        self.get(by_id(id)).await?.map(key_of).transpose()
    }

    /// One that cannot be read is left out, and said in the log.
    pub(super) async fn read_keys(&self) -> Result<Vec<KeyRecord>, PortError> {
        let items = self.collection(KEYS, "").await?.into_iter();
        let note = |error: &PortError| tracing::error!(%error, "{PASSED_OVER}");
        Ok(items.filter_map(|item| key_of(item).inspect_err(note).ok()).collect())
    }

    pub(super) async fn write_key(&self, key: &KeyRecord) -> Result<bool, PortError> {
        let free = || Condition::absent();
        self.both(vec![self.put_key(by_id(&key.id), key, free())?, self.put_key(by_name(&key.name), key, free())?])
            .await
    }

    /// The old key stays under its id until it is over.
    pub(super) async fn replace_key(
        &self,
        old: &KeyRecord,
        new: &KeyRecord,
        now: Timestamp,
    ) -> Result<bool, PortError> {
        let unchanged = Condition::new("id = :id", [(":id", text(&old.id))]);
        let mut writes = vec![
            self.put_key(by_id(&new.id), new, Condition::absent())?,
            self.put_key(by_name(&new.name), new, unchanged)?,
        ];
        writes.push(match old.is_good(now) {
            true => self.put_key(by_id(&old.id), old, Condition::new("attribute_exists(pk)", []))?,
            false => self.drop_key(by_id(&old.id))?,
        });
        let before = self.get(by_name(&old.name)).await?.and_then(|item| previous_of(&item));
        if let Some(before) = before {
            writes.push(self.drop_key(by_id(&before))?);
        }
        self.both(writes).await
    }

    /// Needs nothing of the record but its ids, so that one that cannot be read can be revoked too.
    pub(super) async fn delete_key(&self, name: &str) -> Result<bool, PortError> {
        let Some(item) = self.get(by_name(name)).await? else { return Ok(false) };
        let ids = text_of(&item, "id").map(str::to_owned).into_iter().chain(previous_of(&item));
        let mut writes = ids.map(|id| self.drop_key(by_id(&id))).collect::<Result<Vec<_>, _>>()?;
        writes.push(self.drop_key(by_name(name))?);
        self.both(writes).await
    }

    fn put_key(&self, at: Key, key: &KeyRecord, condition: Condition) -> Result<TransactWriteItem, PortError> {
        let mut item = item_of(at, key, &key.unknown)?;
        if let Some(until) = key.expires_at {
            item.insert("expires".to_owned(), number(expiry(until)));
        }
        let values = Some(condition.values).filter(|values| !values.is_empty());
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(condition.text)
            .set_expression_attribute_values(values)
            .build()
            .map_err(|error| PortError::invalid(SERVICE, error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// Whether or not it is there.
    fn drop_key(&self, at: Key) -> Result<TransactWriteItem, PortError> {
        let delete = Delete::builder().table_name(&self.table).set_key(Some(at.into_item()));
        let delete = delete.build().map_err(|error| PortError::invalid(SERVICE, error))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// Says whether all conditions held.
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
