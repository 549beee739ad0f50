//! Work on groups: the marks of cancelled groups, and reruns of failed members.

use domain::{
    group::{GroupWork, GroupWorkKind},
    ports::PortError,
    request::Name,
};

use super::{
    DynamoStore,
    item::{Item, Key, expiry, form_of, has_expired, item_of, number},
    table::Condition,
};

/// The partition of all work of a kind, by group. It has few items, each read by whatever starts a
/// member, and kept for two days.
fn partition(kind: GroupWorkKind) -> &'static str {
    match kind {
        GroupWorkKind::Cancel => "GROUPS",
        GroupWorkKind::Rerun => "RERUNS",
    }
}

fn key<W: GroupWork>(group: &Name) -> Key {
    Key::new(partition(W::KIND), group.as_str())
}

fn work_of<W: GroupWork>(item: Item) -> Result<W, PortError> {
    let (work, unknown) = form_of::<W>(item).map_err(|error| PortError::corrupt(W::WHAT, error))?;
    Ok(work.with_unknown(unknown))
}

impl DynamoStore {
    pub(super) async fn group_work<W: GroupWork>(
        &self,
        group: &Name,
    ) -> Result<Option<W>, PortError> {
        let item = self
            .get(key::<W>(group))
            .await?
            .filter(|item| !has_expired(item, (self.now)()));
        item.map(work_of).transpose()
    }

    pub(super) async fn set_group_work<W: GroupWork>(&self, work: &W) -> Result<bool, PortError> {
        let (before, after) = (work.progress(), work.next_revision());
        let mut item = item_of(key::<W>(&before.group), &after, &before.unknown)?;
        item.insert("expires".to_owned(), number(expiry(work.expires_at())));
        // Expired work may still be in the table, and counts as none.
        let unchanged = Condition::new(
            "attribute_not_exists(pk) OR revision = :revision OR expires <= :now",
            [
                (":revision", number(before.revision)),
                (":now", number((self.now)().timestamp())),
            ],
        );
        self.put_if(item, unchanged)
            .await
            .map(|wrote| wrote.is_yes())
    }

    pub(super) async fn open_group_work<W: GroupWork>(&self) -> Result<Vec<W>, PortError> {
        let now = (self.now)();
        let items = self
            .collection(partition(W::KIND), "")
            .await?
            .into_iter()
            .filter(|item| !has_expired(item, now));
        let readable =
            items.filter_map(|item| work_of::<W>(item).inspect_err(PortError::note_corrupt).ok());
        Ok(readable.filter(|work| !work.progress().done).collect())
    }
}
