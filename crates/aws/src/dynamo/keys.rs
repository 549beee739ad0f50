//! The API keys. Each is stored twice, by its id for callers and by its name for the administrator;
//! both items are written in one transaction.

use aws_sdk_dynamodb::types::TransactWriteItem;
use domain::{
    key::KeyRecord,
    ports::{KeyLookup, Keys, PortError},
};

use super::{
    DynamoStore, SERVICE,
    item::{Item, Key, expiry, item_of, number, text, text_of, value_of},
    table::{AGAIN, Condition, pause},
};

/// The partition of all keys by name. There are few, and they are seldom written.
const KEYS: &str = "KEYS";
const WHAT: &str = "an API key's record";

fn by_id(id: &str) -> Key {
    Key::single('K', id)
}

fn by_name(name: &str) -> Key {
    Key::new(KEYS, name)
}

/// The ids of the previous keys of this name that still exist.
fn previous_of(item: &Item) -> impl Iterator<Item = &str> {
    let previous = item
        .get("previous")
        .and_then(|list| list.as_l().ok())
        .into_iter()
        .flatten();
    previous.filter_map(|one| text_of(one.as_m().ok()?, "id"))
}

/// The id of the key of this name.
fn id_of(item: &Item) -> Result<&str, PortError> {
    text_of(item, "id").ok_or_else(|| PortError::corrupt(WHAT, "its id cannot be read"))
}

fn key_of(mut item: Item) -> Result<KeyRecord, PortError> {
    // The expiry is stored beside the form, and follows from it.
    item.remove("expires");
    let (key, unknown) = value_of::<KeyRecord>(WHAT, item)?;
    Ok(KeyRecord { unknown, ..key })
}

impl KeyLookup for DynamoStore {
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, PortError> {
        self.get(by_id(id)).await?.map(key_of).transpose()
    }
}

impl Keys for DynamoStore {
    /// A key that cannot be read is left out and logged.
    async fn list_keys(&self) -> Result<Vec<KeyRecord>, PortError> {
        let items = self.collection(KEYS, "").await?.into_iter();
        Ok(items
            .filter_map(|item| key_of(item).inspect_err(PortError::note_corrupt).ok())
            .collect())
    }

    /// Conditional on the name and on the id being free.
    async fn add_key(&self, key: &KeyRecord) -> Result<bool, PortError> {
        let free = Condition::absent;
        let writes = vec![
            self.put_key(by_id(&key.id), key, free())?,
            self.put_key(by_name(&key.name), key, free())?,
        ];
        self.all_or_nothing(&writes).await
    }

    /// Conditional on the old key being the current one of its name. The old key stays under its id
    /// until it expires, if the new one says so.
    async fn rotate_key(&self, old: &KeyRecord, new: &KeyRecord) -> Result<bool, PortError> {
        // The previous keys change only together with the id, and the write is conditional on the
        // id.
        let before = self.get(by_name(&old.name)).await?.unwrap_or_default();
        let unchanged = Condition::new("id = :id", [(":id", text(&old.id))]);
        let mut writes = vec![
            self.put_key(by_id(&new.id), new, Condition::absent())?,
            self.put_key(by_name(&new.name), new, unchanged)?,
            match new.keeps(&old.id) {
                true => self.put_key(
                    by_id(&old.id),
                    old,
                    Condition::new("attribute_exists(pk)", []),
                )?,
                false => self.delete_part(by_id(&old.id), Condition::default())?,
            },
        ];
        for id in previous_of(&before).filter(|id| !new.keeps(id)) {
            writes.push(self.delete_part(by_id(id), Condition::default())?);
        }
        self.all_or_nothing(&writes).await
    }

    /// Idempotent. Uses nothing of the record but its ids, so that a key that cannot be read can be
    /// revoked too. If a rotation happens meanwhile, it reads again; otherwise the rotated key
    /// would stay valid for ever, and no list would show it.
    async fn remove_key(&self, name: &str) -> Result<bool, PortError> {
        for round in 0..AGAIN {
            let Some(item) = self.get(by_name(name)).await? else {
                return Ok(false);
            };
            let id = id_of(&item)?;
            let ids = std::iter::once(id).chain(previous_of(&item));
            let by_ids = ids.map(|id| self.delete_part(by_id(id), Condition::default()));
            let unchanged = Condition::new("id = :id", [(":id", text(id))]);
            let writes: Vec<_> = by_ids
                .chain([self.delete_part(by_name(name), unchanged)])
                .collect::<Result<_, _>>()?;
            if self.all_or_nothing(&writes).await? {
                return Ok(true);
            }
            pause(round).await;
        }
        Err(PortError::unavailable(
            SERVICE,
            format!("other writers keep changing the key '{name}'"),
        ))
    }
}

impl DynamoStore {
    fn put_key(
        &self,
        at: Key,
        key: &KeyRecord,
        condition: Condition,
    ) -> Result<TransactWriteItem, PortError> {
        let mut item = item_of(at, key, &key.unknown)?;
        if let Some(until) = key.expires_at {
            item.insert("expires".to_owned(), number(expiry(until)));
        }
        self.put_part(item, condition)
    }
}
