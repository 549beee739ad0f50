//! Which task definitions are registered, and which caller's turn it is to register one.

use domain::{
    Timestamp,
    ports::{Definitions, PortError},
};

use super::{
    DynamoStore,
    item::{Key, number, small_item, text, text_of},
    table::Condition,
};

fn key(hash: &str) -> Key {
    Key::single('D', hash)
}

impl Definitions for DynamoStore {
    async fn definition(&self, hash: &str) -> Result<Option<String>, PortError> {
        let item = self.get(key(hash)).await?;
        Ok(item
            .as_ref()
            .and_then(|item| text_of(item, "arn"))
            .map(str::to_owned))
    }

    /// Conditional on no other caller's turn.
    async fn claim_definition(
        &self,
        hash: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, PortError> {
        let free = Condition::new(
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

    /// Idempotent.
    async fn keep_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        self.put(small_item(key(hash), [("arn", text(arn))])).await
    }

    /// Idempotent. Conditional on the ARN being the stored one.
    async fn forget_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        self.delete_if(
            key(hash),
            Condition::new("arn = :arn", [(":arn", text(arn))]),
        )
        .await
        .map(drop)
    }
}
