//! The marks of groups that were cancelled.

use domain::{group::GroupCancel, ports::PortError, request::Name};

use super::{
    DynamoStore,
    item::{Item, Key, expiry, form_of, has_expired, item_of, number},
    table::Condition,
};

/// The partition of all marks by group: a few, each read by whoever starts a member, and kept for two days.
const GROUPS: &str = "GROUPS";

fn key(group: &str) -> Key {
    Key::new(GROUPS, group)
}

fn mark_of(item: Item) -> Result<GroupCancel, PortError> {
    let (mark, unknown) =
        form_of::<GroupCancel>(item).map_err(|error| PortError::corrupt("the mark of a group", error))?;
    Ok(GroupCancel { unknown, ..mark })
}

impl DynamoStore {
    pub(super) async fn read_group_cancel(&self, group: &Name) -> Result<Option<GroupCancel>, PortError> {
        let item = self.get(key(group.as_str())).await?.filter(|item| !has_expired(item, (self.now)()));
        item.map(mark_of).transpose()
    }

    pub(super) async fn write_group_cancel(&self, mark: &GroupCancel) -> Result<bool, PortError> {
        let after = GroupCancel { revision: mark.revision + 1, ..mark.clone() };
        let mut item = item_of(key(mark.group.as_str()), &after, &after.unknown)?;
        item.insert("expires".to_owned(), number(expiry(after.expires_at())));
        // One that has expired may still be there, and counts as none.
        let unchanged = Condition::new(
            "attribute_not_exists(pk) OR revision = :revision OR expires <= :now",
            [(":revision", number(mark.revision)), (":now", number((self.now)().timestamp()))],
        );
        self.put_if(item, unchanged).await.map(|wrote| wrote.is_yes())
    }

    pub(super) async fn list_open_group_cancels(&self) -> Result<Vec<GroupCancel>, PortError> {
        let now = (self.now)();
        let items = self.collection(GROUPS, "").await?.into_iter().filter(|item| !has_expired(item, now));
        let readable = items.filter_map(|item| mark_of(item).inspect_err(PortError::note_corrupt).ok());
        Ok(readable.filter(|mark| !mark.done).collect())
    }
}
