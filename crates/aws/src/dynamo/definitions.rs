//! Which task definitions are registered, and which caller's turn it is to register one.

use domain::{Timestamp, ports::PortError};

use super::{
    DynamoStore,
    item::{Key, number, small_item, text, text_of},
    table::WriteCondition,
};

fn key(hash: &str) -> Key {
    Key::single('D', hash)
}

impl DynamoStore {
    pub(super) async fn read_definition(&self, hash: &str) -> Result<Option<String>, PortError> {
        let item = self.get(key(hash)).await?;
        Ok(item
            .as_ref()
            .and_then(|item| text_of(item, "arn"))
            .map(str::to_owned))
    }

    pub(super) async fn take_turn(
        &self,
        hash: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, PortError> {
        let free = WriteCondition::new(
            "attribute_not_exists(arn) AND (attribute_not_exists(turn_until) OR turn_until <= :now)",
            [
                (":now", number(now.timestamp_millis())),
                (":until", number(until.timestamp_millis())),
            ],
        );
        self.update_if(
            key(hash),
            "SET turn_until = :until, v = if_not_exists(v, :v)",
            free,
        )
        .await
    }

    pub(super) async fn write_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        self.put(small_item(key(hash), [("arn", text(arn))])).await
    }

    pub(super) async fn delete_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        self.delete_if(
            key(hash),
            WriteCondition::new("arn = :arn", [(":arn", text(arn))]),
        )
        .await
        .map(drop)
    }
}
