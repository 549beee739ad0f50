//! The state of a limit: one item for each.

use chrono::TimeDelta;
use domain::{limit::LimitKey, ports::PortError, scheduler::state::LimitState};

use super::{
    DynamoStore,
    item::{Item, Key, expiry, form_of, item_of, number, number_of},
    table::Condition,
};

/// How long the unchanged state of a lock's or a group's backlog is kept. Locks and groups can have
/// any number of names, so their states must expire; a day is long beside the minute between
/// sweeps. A pool's state does not expire.
const UNCHANGED: TimeDelta = TimeDelta::days(1);

fn key(backlog: &LimitKey) -> Key {
    Key::single('L', backlog)
}

/// Reads the state. It is only advice. So a state that cannot be read counts as that of a backlog
/// nobody has looked at, and is replaced at the next look.
fn state_of(mut item: Item) -> LimitState {
    // The expiry is stored beside the form, and is written anew each time.
    item.remove("expires");
    let revision = number_of(&item, "revision").unwrap_or_default();
    match form_of::<LimitState>(item) {
        Ok((state, unknown)) => LimitState { unknown, ..state },
        Err(error) => {
            tracing::error!(%error, "the state of a limit cannot be read");
            LimitState {
                revision,
                ..LimitState::default()
            }
        }
    }
}

impl DynamoStore {
    pub(super) async fn limit_state(&self, backlog: &LimitKey) -> Result<LimitState, PortError> {
        let item: Option<Item> = self.get(key(backlog)).await?;
        Ok(item.map(state_of).unwrap_or_default())
    }

    pub(super) async fn set_limit_state(
        &self,
        backlog: &LimitKey,
        before: &LimitState,
        after: LimitState,
    ) -> Result<bool, PortError> {
        let after = LimitState {
            revision: before.revision + 1,
            ..after
        };
        let mut item = item_of(key(backlog), &after, &after.unknown)?;
        if !matches!(backlog, LimitKey::Pool(_)) {
            item.insert(
                "expires".to_owned(),
                number(expiry((self.now)() + UNCHANGED)),
            );
        }
        let unchanged = Condition::new(
            "attribute_not_exists(pk) OR revision = :revision",
            [(":revision", number(before.revision))],
        );
        self.put_if(item, unchanged)
            .await
            .map(|wrote| wrote.is_yes())
    }
}
