//! The cost of DynamoDB calls: an interceptor that asks every call for its cost and adds the costs
//! up.
//!
//! Writes count what DynamoDB reports. Reads are computed from the size of the items, as DynamoDB
//! would bill them, because the emulator reports one flat unit for any query.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use aws_sdk_dynamodb::{
    Client,
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{
            AfterDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextMut,
        },
    },
    error::BoxError,
    operation::{
        batch_get_item::BatchGetItemOutput,
        batch_write_item::{BatchWriteItemInput, BatchWriteItemOutput},
        delete_item::{DeleteItemInput, DeleteItemOutput},
        get_item::GetItemOutput,
        put_item::{PutItemInput, PutItemOutput},
        query::{QueryInput, QueryOutput},
        transact_write_items::{TransactWriteItemsInput, TransactWriteItemsOutput},
        update_item::{UpdateItemInput, UpdateItemOutput},
    },
    types::{AttributeValue, ConsumedCapacity, ReturnConsumedCapacity},
};

/// The usage since the last [`Meter::take`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Write units, those of the indexes included.
    pub writes: f64,
    /// Read units.
    pub reads: f64,
    /// Items of the table that were read whole.
    pub items: usize,
    /// Entries of indexes, or of directories, that were read.
    pub entries: usize,
    /// Calls that succeeded.
    pub calls: usize,
}

/// Adds up the cost of calls. Clones share the same meter.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    spent: Spent,
    /// Whether the current query reads consistently. Its price depends on that, and only its input
    /// says so.
    consistent: bool,
}

impl Meter {
    /// Returns the same client with its calls counted. Only for calls made one after the other.
    #[must_use]
    pub fn attach(&self, client: &Client) -> Client {
        Client::from_conf(
            client
                .config()
                .to_builder()
                .interceptor(self.clone())
                .build(),
        )
    }

    /// Returns the usage since the last time.
    ///
    /// # Panics
    /// When another thread panicked while it held the lock.
    #[must_use]
    pub fn take(&self) -> Spent {
        std::mem::take(&mut self.0.lock().expect("not poisoned").spent)
    }

    fn add(&self, count: impl FnOnce(&mut Spent, bool)) {
        let mut inner = self.0.lock().expect("not poisoned");
        let consistent = inner.consistent;
        inner.spent.calls += 1;
        count(&mut inner.spent, consistent);
    }
}

/// Asks for the cost if the input is of one of these types.
macro_rules! ask {
    ($input:expr, $($type:ty),*) => {
        $(if let Some(input) = $input.downcast_mut::<$type>() {
            input.return_consumed_capacity = Some(ReturnConsumedCapacity::Total);
        })*
    };
}

impl Intercept for Meter {
    fn name(&self) -> &'static str {
        "meter"
    }

    fn modify_before_serialization(
        &self,
        context: &mut BeforeSerializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let input = context.input_mut();
        ask!(
            input,
            PutItemInput,
            UpdateItemInput,
            DeleteItemInput,
            TransactWriteItemsInput,
            BatchWriteItemInput,
            QueryInput
        );
        if let Some(query) = input.downcast_ref::<QueryInput>() {
            self.0.lock().expect("not poisoned").consistent = query.consistent_read == Some(true);
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Ok(output) = context.output_or_error() else {
            return Ok(());
        };
        if let Some(output) = output.downcast_ref::<QueryOutput>() {
            self.add(|spent, consistent| query(spent, output, consistent));
        } else if let Some(output) = output.downcast_ref::<GetItemOutput>() {
            self.add(|spent, _| {
                spent.items += 1;
                spent.reads += output
                    .item
                    .as_ref()
                    .map_or(1.0, |item| units(size(item), 4096));
            });
        } else if let Some(output) = output.downcast_ref::<BatchGetItemOutput>() {
            self.add(|spent, _| batch(spent, output));
        } else if let Some(written) = written(output) {
            self.add(|spent, _| spent.writes += written);
        }
        Ok(())
    }
}

/// Returns the write units of a call, by its answer.
fn written(output: &aws_smithy_runtime_api::client::interceptors::context::Output) -> Option<f64> {
    let one = |capacity: Option<&ConsumedCapacity>| {
        capacity.and_then(|c| c.capacity_units).unwrap_or_default()
    };
    let all = |capacity: &Option<Vec<ConsumedCapacity>>| {
        capacity.iter().flatten().map(|c| one(Some(c))).sum()
    };
    None.or_else(|| {
        output
            .downcast_ref::<PutItemOutput>()
            .map(|output| one(output.consumed_capacity.as_ref()))
    })
    .or_else(|| {
        output
            .downcast_ref::<UpdateItemOutput>()
            .map(|output| one(output.consumed_capacity.as_ref()))
    })
    .or_else(|| {
        output
            .downcast_ref::<DeleteItemOutput>()
            .map(|output| one(output.consumed_capacity.as_ref()))
    })
    .or_else(|| {
        output
            .downcast_ref::<TransactWriteItemsOutput>()
            .map(|output| all(&output.consumed_capacity))
    })
    .or_else(|| {
        output
            .downcast_ref::<BatchWriteItemOutput>()
            .map(|output| all(&output.consumed_capacity))
    })
}

/// Adds a query, which is billed by the sum of the sizes (DynamoDB Developer Guide, "Read
/// consumption").
fn query(spent: &mut Spent, output: &QueryOutput, consistent: bool) {
    let bytes: usize = output.items.iter().flatten().map(size).sum();
    spent.entries += usize::try_from(output.scanned_count).unwrap_or_default();
    spent.reads += units(bytes, 4096) * if consistent { 1.0 } else { 0.5 };
}

/// Adds a batch, which is billed item by item. All batches of this project read consistently.
fn batch(spent: &mut Spent, output: &BatchGetItemOutput) {
    for item in output
        .responses
        .iter()
        .flatten()
        .flat_map(|(_, items)| items)
    {
        spent.items += 1;
        spent.reads += units(size(item), 4096);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
fn units(bytes: usize, each: usize) -> f64 {
    bytes.div_ceil(each).max(1) as f64
}

/// The size of an item (DynamoDB Developer Guide, "Item sizes and formats").
#[must_use]
pub fn size<S: std::hash::BuildHasher>(item: &HashMap<String, AttributeValue, S>) -> usize {
    item.iter()
        .map(|(name, value)| name.len() + value_size(value))
        .sum()
}

fn value_size(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.len().div_ceil(2) + 1,
        AttributeValue::M(map) => 3 + map.len() + size(map),
        AttributeValue::L(list) => {
            3 + list
                .iter()
                .map(|value| 1 + value_size(value))
                .sum::<usize>()
        }
        _ => 1,
    }
}
