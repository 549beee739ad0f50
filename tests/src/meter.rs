//! The cost of DynamoDB calls: an interceptor that asks every call for its cost and adds the costs
//! up.
//!
//! Writes count what DynamoDB reports. Reads are computed from the size of the items, as DynamoDB
//! would bill them, because the emulator reports one flat unit for any query.

use std::{
    collections::{BTreeMap, HashMap},
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
        batch_get_item::{BatchGetItemInput, BatchGetItemOutput},
        batch_write_item::{BatchWriteItemInput, BatchWriteItemOutput},
        delete_item::{DeleteItemInput, DeleteItemOutput},
        get_item::{GetItemInput, GetItemOutput},
        put_item::{PutItemInput, PutItemOutput},
        query::{QueryInput, QueryOutput},
        transact_write_items::{TransactWriteItemsInput, TransactWriteItemsOutput},
        update_item::{UpdateItemInput, UpdateItemOutput},
    },
    types::{AttributeValue, ConsumedCapacity, ReturnConsumedCapacity},
};
use aws_smithy_types::config_bag::{Storable, StoreReplace};

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

impl Spent {
    fn add(&mut self, more: &Self) {
        self.writes += more.writes;
        self.reads += more.reads;
        self.items += more.items;
        self.entries += more.entries;
        self.calls += more.calls;
    }
}

/// Adds up the cost of calls. Clones share the same meter.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    spent: Spent,
    /// Calls that succeeded, by the function that made them and their names.
    calls: Calls,
}

/// Calls by the function that made them and their names.
pub type Calls = BTreeMap<(&'static str, String), Spent>;

tokio::task_local! {
    /// The function that makes the calls of this task, if that matters.
    pub static FUNCTION: &'static str;
}

/// Whether a read is consistent. Its price depends on that, and only its input says so.
#[derive(Debug)]
struct Consistent(bool);

/// The kind of the item that a call is about: its partition's name up to the first `#`.
#[derive(Debug)]
struct ItemKind(String);

impl Storable for ItemKind {
    type Storer = StoreReplace<Self>;
}

impl Storable for Consistent {
    type Storer = StoreReplace<Self>;
}

impl Meter {
    /// Returns the same client with its calls counted.
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

    /// Returns the usage of each kind of call since the last time.
    ///
    /// # Panics
    /// When another thread panicked while it held the lock.
    #[must_use]
    pub fn take_calls(&self) -> Calls {
        std::mem::take(&mut self.0.lock().expect("not poisoned").calls)
    }

    fn add(&self, name: &str, config: &ConfigBag, count: impl FnOnce(&mut Spent)) {
        let mut one = Spent {
            calls: 1,
            ..Spent::default()
        };
        count(&mut one);
        let mut inner = self.0.lock().expect("not poisoned");
        inner.spent.add(&one);
        let name = match config.load::<ItemKind>() {
            Some(ItemKind(kind)) => format!("{name} {kind}"),
            None => name.to_owned(),
        };
        let function = FUNCTION.try_get().unwrap_or_default();
        inner.calls.entry((function, name)).or_default().add(&one);
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
        config: &mut ConfigBag,
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
        if let Some(kind) = kind(input) {
            config.interceptor_state().store_put(ItemKind(kind));
        }
        let query = input.downcast_ref::<QueryInput>();
        let get = input.downcast_ref::<GetItemInput>();
        let batch = input.downcast_ref::<BatchGetItemInput>();
        let of_batch = |input: &BatchGetItemInput| {
            let tables = input.request_items.iter().flat_map(HashMap::values);
            tables.filter_map(|wanted| wanted.consistent_read).max()
        };
        let is_consistent = query
            .map(|query| query.consistent_read)
            .or_else(|| get.map(|get| get.consistent_read))
            .or_else(|| batch.map(of_batch));
        if let Some(is_consistent) = is_consistent {
            let is_consistent = Consistent(is_consistent == Some(true));
            config.interceptor_state().store_put(is_consistent);
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Ok(output) = context.output_or_error() else {
            return Ok(());
        };
        let is_consistent = config.load::<Consistent>().is_some_and(|given| given.0);
        // A read that need not be consistent costs half.
        let share = if is_consistent { 1.0 } else { 0.5 };
        if let Some(output) = output.downcast_ref::<QueryOutput>() {
            self.add("Query", config, |spent| query(spent, output, share));
        } else if let Some(output) = output.downcast_ref::<GetItemOutput>() {
            self.add("GetItem", config, |spent| {
                spent.items += 1;
                spent.reads += output
                    .item
                    .as_ref()
                    .map_or(1.0, |item| units(size(item), 4096))
                    * share;
            });
        } else if let Some(output) = output.downcast_ref::<BatchGetItemOutput>() {
            self.add("BatchGetItem", config, |spent| batch(spent, output, share));
        } else if let Some((name, written)) = written(output) {
            self.add(name, config, |spent| spent.writes += written);
        }
        Ok(())
    }
}

fn kind(input: &aws_smithy_runtime_api::client::interceptors::context::Input) -> Option<String> {
    let put = input.downcast_ref::<PutItemInput>();
    let get = input.downcast_ref::<GetItemInput>();
    let update = input.downcast_ref::<UpdateItemInput>();
    let delete = input.downcast_ref::<DeleteItemInput>();
    let key = put
        .and_then(|input| input.item.as_ref())
        .or_else(|| get.and_then(|input| input.key.as_ref()))
        .or_else(|| update.and_then(|input| input.key.as_ref()))
        .or_else(|| delete.and_then(|input| input.key.as_ref()))?;
    let partition = key.get("pk")?.as_s().ok()?;
    partition.split('#').next().map(str::to_owned)
}

/// Returns the name and the write units of a call, by its answer.
fn written(
    output: &aws_smithy_runtime_api::client::interceptors::context::Output,
) -> Option<(&'static str, f64)> {
    let one = |capacity: Option<&ConsumedCapacity>| {
        capacity.and_then(|c| c.capacity_units).unwrap_or_default()
    };
    let all = |capacity: &Option<Vec<ConsumedCapacity>>| {
        capacity.iter().flatten().map(|c| one(Some(c))).sum()
    };
    if let Some(output) = output.downcast_ref::<PutItemOutput>() {
        return Some(("PutItem", one(output.consumed_capacity.as_ref())));
    }
    if let Some(output) = output.downcast_ref::<UpdateItemOutput>() {
        return Some(("UpdateItem", one(output.consumed_capacity.as_ref())));
    }
    if let Some(output) = output.downcast_ref::<DeleteItemOutput>() {
        return Some(("DeleteItem", one(output.consumed_capacity.as_ref())));
    }
    if let Some(output) = output.downcast_ref::<TransactWriteItemsOutput>() {
        return Some(("TransactWriteItems", all(&output.consumed_capacity)));
    }
    let output = output.downcast_ref::<BatchWriteItemOutput>()?;
    Some(("BatchWriteItem", all(&output.consumed_capacity)))
}

/// Adds a query, which is billed by the sum of the sizes (DynamoDB Developer Guide, "Read
/// consumption").
fn query(spent: &mut Spent, output: &QueryOutput, share: f64) {
    let bytes: usize = output.items.iter().flatten().map(size).sum();
    spent.entries += usize::try_from(output.scanned_count).unwrap_or_default();
    spent.reads += units(bytes, 4096) * share;
}

/// Adds a batch, which is billed item by item.
fn batch(spent: &mut Spent, output: &BatchGetItemOutput, share: f64) {
    for item in output
        .responses
        .iter()
        .flatten()
        .flat_map(|(_, items)| items)
    {
        spent.items += 1;
        spent.reads += units(size(item), 4096) * share;
    }
}

fn units(bytes: usize, each: usize) -> f64 {
    float(bytes.div_ceil(each).max(1))
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
        AttributeValue::B(bytes) => bytes.as_ref().len(),
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

/// The bytes that DynamoDB adds to each stored item, and to each index entry (Developer Guide,
/// "Item sizes and formats").
const ITEM_OVERHEAD: usize = 100;
/// The table's indexes: the attributes that an index entry has besides the item's key.
const INDEXES: [[&str; 2]; 4] = [
    ["day", "id"],
    ["submitter", "id"],
    ["grp", "id"],
    ["standing", "place"],
];

/// The bytes that DynamoDB bills for a table and its indexes.
///
/// # Panics
/// When the table cannot be read.
pub async fn kept(client: &Client, table: &str) -> f64 {
    let pages = client.scan().table_name(table).into_paginator();
    let items = pages.items().send().collect::<Result<Vec<_>, _>>().await;
    let items = items.expect("the table can be read");
    let bytes: usize = items
        .iter()
        .map(|item| size(item) + ITEM_OVERHEAD + indexed(item))
        .sum();
    float(bytes)
}

fn indexed(item: &HashMap<String, AttributeValue>) -> usize {
    let part = |name: &&str| Some(((*name).to_owned(), item.get(*name)?.clone()));
    let entries = INDEXES
        .iter()
        .filter(|names| names.iter().all(|name| item.contains_key(*name)));
    let entry = |names: &[&str; 2]| -> HashMap<_, _> {
        names.iter().chain(&["pk", "sk"]).filter_map(part).collect()
    };
    entries
        .map(|names| size(&entry(names)) + ITEM_OVERHEAD)
        .sum()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}
