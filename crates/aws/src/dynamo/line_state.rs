//! What is known of a line as a whole: one item for each line.

use chrono::TimeDelta;
use domain::{limit::LimitKey, line::LineState, ports::Unavailable};

use super::{
    DynamoStore,
    item::{Item, Key, expiry, item_of, number, value_of},
    table::Condition,
};

/// How long the state of a lock's or a group's line is kept unchanged: they can have any number of names. A pool's stays. Ours.
const UNCHANGED: TimeDelta = TimeDelta::days(1);

fn key(line: &LimitKey) -> Key {
    Key::single('L', line)
}

impl DynamoStore {
    pub(super) async fn read_line_state(&self, line: &LimitKey) -> Result<LineState, Unavailable> {
        let item: Option<Item> = self.get(key(line)).await?;
        item.map_or_else(|| Ok(LineState::default()), |item| value_of("a line's state", item))
    }

    pub(super) async fn write_line_state(
        &self,
        line: &LimitKey,
        before: &LineState,
        after: &LineState,
    ) -> Result<bool, Unavailable> {
        let mut item = item_of(key(line), after)?;
        if !matches!(line, LimitKey::Pool(_)) {
            item.insert("expires".to_owned(), number(expiry((self.now)() + UNCHANGED)));
        }
        let unchanged = Condition::new(
            "attribute_not_exists(pk) OR revision = :revision",
            [(":revision", number(before.revision))],
        );
        self.put_if(item, unchanged).await.map(|wrote| wrote.is_yes())
    }
}
