//! What is known of a line as a whole: one item for each line.

use chrono::TimeDelta;
use domain::{limit::LimitKey, line::LineState, ports::PortError};

use super::{
    DynamoStore,
    item::{Item, Key, expiry, form_of, item_of, number, number_of},
    table::Condition,
};

/// How long the state of a lock's or a group's line is kept unchanged: they can have any number of names. A pool's stays. Ours.
const UNCHANGED: TimeDelta = TimeDelta::days(1);

fn key(line: &LimitKey) -> Key {
    Key::single('L', line)
}

/// It is advice. So one that cannot be read is taken for that of a line nobody has looked at, and replaced at the next look.
fn state_of(mut item: Item) -> LineState {
    // It stands beside the form, and is written anew each time.
    item.remove("expires");
    let revision = number_of(&item, "revision").unwrap_or_default();
    match form_of::<LineState>(item) {
        Ok((state, unknown)) => LineState { unknown, ..state },
        Err(error) => {
            tracing::error!(%error, "the state of a line cannot be read");
            LineState { revision, ..LineState::default() }
        }
    }
}

impl DynamoStore {
    pub(super) async fn read_line_state(&self, line: &LimitKey) -> Result<LineState, PortError> {
        let item: Option<Item> = self.get(key(line)).await?;
        Ok(item.map(state_of).unwrap_or_default())
    }

    pub(super) async fn write_line_state(
        &self,
        line: &LimitKey,
        before: &LineState,
        after: &LineState,
    ) -> Result<bool, PortError> {
        let mut item = item_of(key(line), after, &after.unknown)?;
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
