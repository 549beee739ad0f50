//! The few DynamoDB calls that the whole store is built from.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    error::SdkError,
    operation::{
        delete_item::DeleteItemError, put_item::PutItemError,
        transact_write_items::TransactWriteItemsError, update_item::UpdateItemError,
    },
    types::{
        AttributeValue, CancellationReason, Delete, KeysAndAttributes, Put, ReturnValue,
        ReturnValuesOnConditionCheckFailure, TransactWriteItem,
    },
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use domain::{
    backoff::Backoff,
    id::ExecutionId,
    ports::{Entropy, PortError},
    stored::FORM,
};

use super::{
    DynamoStore, SERVICE,
    item::{Item, Key, number, request_key, state_key, text},
};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::{
    error::{Fault, Remedy, failed},
    system::System,
};

/// Most keys in one BatchGetItem (DynamoDB API reference).
const BATCH: usize = 100;
/// Batches requested at the same time, which bounds the connections that one read takes.
const BATCHES: usize = 8;
/// How often DynamoDB is asked again for what it left out of a batch, or a transaction that met
/// another one is tried again. With the pauses below this takes at most about 2.5 seconds.
pub(super) const AGAIN: u32 = 8;
/// The pauses before those retries: from 10 ms, about the length of one call, to somewhat over a
/// second.
const PAUSE: Backoff = Backoff {
    first: Duration::from_millis(10),
    longest: Duration::from_millis(1_280),
};

/// How recent what is read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// As last written.
    LastWritten,
    /// Perhaps a moment out of date, usually less than a second, at half the price.
    Recent,
}

/// A condition on a write or on the keys of a query, and the values it names.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub(super) text: &'static str,
    pub(super) values: HashMap<String, AttributeValue>,
}

impl Condition {
    /// The keys of `values` are the names used in the text, with their colons.
    pub(super) fn new<'a>(
        text: &'static str,
        values: impl IntoIterator<Item = (&'a str, AttributeValue)>,
    ) -> Self {
        let values = values.into_iter();
        Self {
            text,
            values: values
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }

    /// The text; `None` if there is no condition, because DynamoDB refuses an empty one.
    fn expression(&self) -> Option<String> {
        Some(self.text)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    /// The condition that there is no such item yet.
    pub(super) fn absent() -> Self {
        Self::new("attribute_not_exists(pk)", [])
    }
}

/// The result of a conditional write.
#[derive(Debug)]
pub(super) enum Wrote {
    /// It was written; this was there before, if anything.
    Yes(Option<Item>),
    /// The condition did not hold; this is there, if anything.
    No(Option<Item>),
}

impl Wrote {
    pub(super) fn is_yes(&self) -> bool {
        matches!(self, Self::Yes(_))
    }
}

/// Why a transaction wrote nothing.
enum Undone {
    /// A condition did not hold.
    Condition,
    /// It met another transaction, or too much traffic.
    Busy,
}

impl Undone {
    /// `None` if it may have written something, or was refused for another reason.
    fn of(error: &SdkError<TransactWriteItemsError, HttpResponse>) -> Option<Self> {
        if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
            error.as_service_error()
        {
            let codes = || {
                cancelled
                    .cancellation_reasons()
                    .iter()
                    .filter_map(CancellationReason::code)
            };
            let is_busy = |code: &str| {
                [
                    "TransactionConflict",
                    "ThrottlingError",
                    "ProvisionedThroughputExceeded",
                ]
                .contains(&code)
            };
            return match codes().any(|code| code == "ConditionalCheckFailed") {
                true => Some(Self::Condition),
                false => codes().any(is_busy).then_some(Self::Busy),
            };
        }
        let fault = Fault::of(error);
        (fault.remedy == Remedy::Wait || fault.is("TransactionInProgressException"))
            .then_some(Self::Busy)
    }
}

/// Waits before the next try.
pub(super) async fn pause(round: u32) {
    tokio::time::sleep(PAUSE.pause(round, System.bits())).await;
}

impl DynamoStore {
    /// The item, as last written.
    pub(super) async fn get(&self, key: Key) -> Result<Option<Item>, PortError> {
        let call = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key.into_item()))
            .consistent_read(true);
        Ok(call.send().await.map_err(failed(SERVICE))?.item)
    }

    /// An item that never changes once it exists. The first read is eventually consistent, at half
    /// the price. If it finds nothing, a consistent read follows, because the item may be too new.
    pub(super) async fn get_settled(&self, key: Key) -> Result<Option<Item>, PortError> {
        let call = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key.clone().into_item()));
        match call.send().await.map_err(failed(SERVICE))?.item {
            Some(item) => Ok(Some(item)),
            None => self.get(key).await,
        }
    }

    pub(super) async fn put(&self, item: Item) -> Result<(), PortError> {
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item));
        call.send().await.map(drop).map_err(failed(SERVICE))
    }

    pub(super) async fn put_if(
        &self,
        item: Item,
        condition: Condition,
    ) -> Result<Wrote, PortError> {
        let call = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item));
        let call = call
            .condition_expression(condition.text)
            .set_expression_attribute_values(given(condition.values));
        let call = call
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        for round in 0..=AGAIN {
            let error = match call.clone().send().await {
                Ok(output) => return Ok(Wrote::Yes(output.attributes)),
                Err(error) => error,
            };
            match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    return Ok(Wrote::No(failed.item.clone()));
                }
                Some(PutItemError::TransactionConflictException(_)) => pause(round).await,
                _ => return Err(failed(SERVICE)(error)),
            }
        }
        Err(PortError::unavailable(
            SERVICE,
            "a write kept conflicting with transactions",
        ))
    }

    /// Updates an item; returns whether the condition held. `change` is an update expression that
    /// sets `v = if_not_exists(v, :v)`, so that a newer release's form keeps its version.
    pub(super) async fn update_if(
        &self,
        key: Key,
        change: &str,
        condition: Condition,
    ) -> Result<bool, PortError> {
        let call = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key.into_item()));
        let expression = condition.expression();
        let call = call
            .update_expression(change)
            .set_expression_attribute_values(given(condition.values));
        let call = call.expression_attribute_values(":v", number(FORM));
        match call.set_condition_expression(expression).send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(failed(SERVICE)(error)),
            },
        }
    }

    /// Deletes an item; returns whether the condition held. Without a condition it always succeeds.
    pub(super) async fn delete_if(
        &self,
        key: Key,
        condition: Condition,
    ) -> Result<bool, PortError> {
        let call = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key.into_item()));
        let call = call
            .condition_expression(condition.text)
            .set_expression_attribute_values(given(condition.values));
        match call.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(false),
                _ => Err(failed(SERVICE)(error)),
            },
        }
    }

    /// A put as one part of a transaction.
    pub(super) fn put_part(
        &self,
        item: Item,
        condition: Condition,
    ) -> Result<TransactWriteItem, PortError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .set_condition_expression(condition.expression())
            .set_expression_attribute_values(given(condition.values))
            .build()
            .map_err(|error| PortError::invalid(SERVICE, error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    /// A delete as one part of a transaction. Without a condition it succeeds whether the item
    /// exists or not.
    pub(super) fn delete_part(
        &self,
        key: Key,
        condition: Condition,
    ) -> Result<TransactWriteItem, PortError> {
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(key.into_item()))
            .set_condition_expression(condition.expression())
            .set_expression_attribute_values(given(condition.values))
            .build()
            .map_err(|error| PortError::invalid(SERVICE, error))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// Writes all of them or none; returns whether all conditions held. A transaction that meets
    /// another write is tried again.
    pub(super) async fn all_or_nothing(
        &self,
        writes: &[TransactWriteItem],
    ) -> Result<bool, PortError> {
        for round in 0..AGAIN {
            let call = self
                .client
                .transact_write_items()
                .set_transact_items(Some(writes.to_vec()));
            let Err(error) = call.send().await else {
                return Ok(true);
            };
            match Undone::of(&error) {
                Some(Undone::Condition) => return Ok(false),
                Some(Undone::Busy) => pause(round).await,
                None => return Err(failed(SERVICE)(error)),
            }
        }
        Err(PortError::unavailable(
            SERVICE,
            format!("a write conflicted with other writers {AGAIN} times in a row"),
        ))
    }

    /// Every item in a partition of the table whose sort key begins with `begins`, as last written.
    pub(super) async fn collection(&self, pk: &str, begins: &str) -> Result<Vec<Item>, PortError> {
        self.collection_as(pk, begins, Freshness::LastWritten).await
    }

    /// The same, with items that may be out of date.
    pub(super) async fn collection_as(
        &self,
        pk: &str,
        begins: &str,
        freshness: Freshness,
    ) -> Result<Vec<Item>, PortError> {
        let wanted = match begins {
            "" => Condition::new("pk = :pk", [(":pk", text(pk))]),
            begins => Condition::new(
                "pk = :pk AND begins_with(sk, :sk)",
                [(":pk", text(pk)), (":sk", text(begins))],
            ),
        };
        self.all_of(wanted, freshness).await
    }

    /// Every item in a partition of the table whose sort key is between these, which may be out of
    /// date.
    pub(super) async fn range(
        &self,
        pk: &str,
        from: &str,
        to: &str,
    ) -> Result<Vec<Item>, PortError> {
        let wanted = Condition::new(
            "pk = :pk AND sk BETWEEN :from AND :to",
            [(":pk", text(pk)), (":from", text(from)), (":to", text(to))],
        );
        self.all_of(wanted, Freshness::Recent).await
    }

    async fn all_of(
        &self,
        wanted: Condition,
        freshness: Freshness,
    ) -> Result<Vec<Item>, PortError> {
        let mut start = None;
        let mut items = Vec::new();
        loop {
            let call = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(freshness == Freshness::LastWritten)
                .key_condition_expression(wanted.text)
                .set_expression_attribute_values(given(wanted.values.clone()))
                .set_exclusive_start_key(start);
            let output = call.send().await.map_err(failed(SERVICE))?;
            items.extend(output.items.unwrap_or_default());
            start = output.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    /// Both items of each execution, in no particular order.
    pub(super) async fn both_of(
        &self,
        ids: &[ExecutionId],
        freshness: Freshness,
    ) -> Result<Vec<Item>, PortError> {
        let keys: Vec<_> = ids
            .iter()
            .flat_map(|id| [request_key(id), state_key(id)])
            .collect();
        self.items_of(&keys, freshness).await
    }

    /// The items of these keys, each given once, in no particular order.
    pub(super) async fn items_of(
        &self,
        keys: &[Key],
        freshness: Freshness,
    ) -> Result<Vec<Item>, PortError> {
        let batches: Vec<_> = keys
            .chunks(BATCH)
            .map(|keys| self.batch(keys, freshness))
            .collect();
        stream::iter(batches)
            .buffer_unordered(BATCHES)
            .try_concat()
            .await
    }

    async fn batch(&self, keys: &[Key], freshness: Freshness) -> Result<Vec<Item>, PortError> {
        let mut keys: Vec<Item> = keys.iter().cloned().map(Key::into_item).collect();
        let mut items = Vec::new();
        for round in 0..AGAIN {
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(keys))
                .consistent_read(freshness == Freshness::LastWritten)
                .build();
            let wanted = wanted.map_err(|error| PortError::invalid(SERVICE, error))?;
            let output = self
                .client
                .batch_get_item()
                .request_items(&self.table, wanted)
                .send()
                .await;
            let output = output.map_err(failed(SERVICE))?;
            items.extend(
                output
                    .responses
                    .into_iter()
                    .flatten()
                    .flat_map(|(_, items)| items),
            );
            keys = output
                .unprocessed_keys
                .into_iter()
                .flatten()
                .flat_map(|(_, left)| left.keys)
                .collect();
            if keys.is_empty() {
                return Ok(items);
            }
            pause(round).await;
        }
        Err(PortError::unavailable(
            SERVICE,
            "it keeps leaving out parts of a batch",
        ))
    }
}

/// The values; `None` if there are none, because DynamoDB refuses an empty map.
fn given(values: HashMap<String, AttributeValue>) -> Option<HashMap<String, AttributeValue>> {
    Some(values).filter(|values| !values.is_empty())
}
