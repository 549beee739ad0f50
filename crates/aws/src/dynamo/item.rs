//! Items and their keys: the spelling of everything in the table.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{NaiveDate, TimeDelta};
use domain::{
    Timestamp,
    execution::{BacklogEntry, ExecutionStatus},
    id::ExecutionId,
    limit::LimitKey,
    ports::PortError,
    stored::{self, FormError, Unknown},
};
use serde::{Serialize, de::DeserializeOwned};

use super::SERVICE;

/// An item of the table, by attribute.
pub type Item = HashMap<String, AttributeValue>;

/// How many partitions a day, a submitter's history and the launch batches are each spread over.
/// One partition takes 1,000 writes a second (AWS-FACTS §6), and a stack launches less than eight
/// times that.
pub(super) const SHARDS: usize = 8;

/// The attribute by which a write recognises itself when the SDK repeats it.
pub(super) const MARK: &str = "mark";

const PREFIX: &str = "exec_";
const DIGITS: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A contradiction between the items of an execution. Contains nothing of their content.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Contradiction(pub(super) &'static str);

/// An item's primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) pk: String,
    pub(super) sk: String,
}

impl Key {
    pub(super) fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self {
            pk: pk.into(),
            sk: sk.into(),
        }
    }

    /// A key whose partition has one item.
    pub(super) fn single(kind: char, name: impl std::fmt::Display) -> Self {
        Self::new(format!("{kind}#{name}"), kind)
    }

    pub(super) fn into_item(self) -> Item {
        HashMap::from([
            ("pk".to_owned(), text(self.pk)),
            ("sk".to_owned(), text(self.sk)),
        ])
    }
}

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The text in this attribute.
pub(super) fn text_of<'a>(item: &'a Item, attribute: &str) -> Option<&'a str> {
    item.get(attribute)?.as_s().ok().map(String::as_str)
}

/// The number in this attribute.
pub(super) fn number_of<N: std::str::FromStr>(item: &Item, attribute: &str) -> Option<N> {
    item.get(attribute)?.as_n().ok()?.parse().ok()
}

/// A value as an item, with its key and the fields that a newer release wrote. A `None` leaves no
/// attribute.
pub(super) fn item_of(
    key: Key,
    value: &impl Serialize,
    unknown: &Unknown,
) -> Result<Item, PortError> {
    let form = stored::write(value, unknown).map_err(|error| PortError::invalid(SERVICE, error))?;
    let item: Item = serde_dynamo::aws_sdk_dynamodb_1::to_item(form)
        .map_err(|e| PortError::invalid(SERVICE, e))?;
    let mut item = pruned(item);
    item.extend(key.into_item());
    Ok(item)
}

/// The attributes that are not part of an item's form: its key, and the mark of its last write.
const APART: [&str; 3] = ["pk", "sk", MARK];

/// The value of an item, and the fields that a newer release wrote.
pub(super) fn form_of<T: DeserializeOwned + Serialize>(
    mut item: Item,
) -> Result<(T, Unknown), FormError> {
    item.retain(|name, _| !APART.contains(&name.as_str()));
    let form = serde_dynamo::aws_sdk_dynamodb_1::from_item(item).map_err(|_| FormError::NoForm)?;
    stored::read(form)
}

/// Like [`form_of`], with the port's error, in which `what` names the item.
pub(super) fn value_of<T: DeserializeOwned + Serialize>(
    what: &str,
    item: Item,
) -> Result<(T, Unknown), PortError> {
    form_of(item).map_err(|error| PortError::corrupt(what, error))
}

/// A small item, given attribute by attribute, with the version of its form.
pub(super) fn small_item<'a>(
    key: Key,
    attributes: impl IntoIterator<Item = (&'a str, AttributeValue)>,
) -> Item {
    let mut item = key.into_item();
    item.extend(
        attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
    item.insert(stored::VERSION.to_owned(), number(stored::FORM));
    item
}

/// The item without its nulls: an absent attribute costs nothing to write.
fn pruned(item: Item) -> Item {
    let kept = item.into_iter().filter(|(_, value)| !value.is_null());
    kept.map(|(name, value)| (name, pruned_value(value)))
        .collect()
}

fn pruned_value(value: AttributeValue) -> AttributeValue {
    match value {
        AttributeValue::M(map) => AttributeValue::M(pruned(map)),
        AttributeValue::L(list) => AttributeValue::L(list.into_iter().map(pruned_value).collect()),
        other => other,
    }
}

/// Seconds since the epoch, as DynamoDB's time to live requires; rounded up, so that nothing is
/// deleted too early.
pub(super) fn expiry(at: Timestamp) -> i64 {
    (at + TimeDelta::milliseconds(999)).timestamp()
}

/// Whether an item has expired. DynamoDB deletes it within days of that.
pub(super) fn has_expired(item: &Item, now: Timestamp) -> bool {
    number_of::<i64>(item, "expires").is_some_and(|expires| expires <= now.timestamp())
}

/// The id without its prefix.
pub(super) fn ulid(id: &ExecutionId) -> &str {
    id.as_str().trim_start_matches(PREFIX)
}

/// The shard of an execution, one of [`SHARDS`]: from its id's last character, which is random.
pub(super) fn shard(id: &ExecutionId) -> usize {
    let last = ulid(id).chars().next_back();
    last.and_then(|last| DIGITS.find(last)).unwrap_or_default() % SHARDS
}

/// The partition of the ids that end in these two characters.
pub(super) fn partition_of_suffix(two: &str) -> String {
    format!("X#{two}")
}

/// The partitions of the ids that end in this character.
pub(super) fn partitions_of_last(last: char) -> impl Iterator<Item = String> {
    DIGITS
        .chars()
        .map(move |before| partition_of_suffix(&format!("{before}{last}")))
}

/// The partition of an execution's state. The table itself is the index by the id's end.
pub(super) fn partition(id: &ExecutionId) -> String {
    let ulid = ulid(id);
    partition_of_suffix(&ulid[ulid.len() - 2..])
}

pub(super) fn reversed(ulid: &str) -> String {
    ulid.chars().rev().collect()
}

/// The partition of a day's requests in one shard. The table itself is the index by time.
pub(super) fn partition_of_day(day: &str, shard: usize) -> String {
    sharded(&format!("D#{day}"), shard)
}

pub(super) fn request_key(id: &ExecutionId) -> Key {
    Key::new(partition_of_day(&day_name(day(id)), shard(id)), id.as_str())
}

pub(super) fn state_key(id: &ExecutionId) -> Key {
    Key::new(partition(id), reversed(ulid(id)))
}

/// The execution whose request has this sort key.
pub(super) fn id_of_request(sk: &str) -> Option<ExecutionId> {
    sk.starts_with(PREFIX).then(|| sk.parse().ok())?
}

/// The execution whose state has this sort key.
pub(super) fn id_of_state(sk: &str) -> Option<ExecutionId> {
    (!sk.starts_with(PREFIX)).then(|| id_of_ulid(&reversed(sk)))?
}

/// The id with this ULID.
pub(super) fn id_of_ulid(ulid: &str) -> Option<ExecutionId> {
    format!("{PREFIX}{ulid}").parse().ok()
}

/// The day in UTC, as partitions name it: `2026-11-24`.
pub(super) fn day_name(day: NaiveDate) -> String {
    day.format("%Y-%m-%d").to_string()
}

/// The day of an execution's submission.
pub(super) fn day(id: &ExecutionId) -> NaiveDate {
    id.made_at().date_naive()
}

/// The name of one shard of an index partition.
pub(super) fn sharded(name: &str, shard: usize) -> String {
    format!("{name}#{shard}")
}

/// The partition of `by_standing` with the entries that one submitter has in one backlog.
pub(super) fn backlog_partition(backlog: &LimitKey, submitter: &str) -> String {
    format!("line#{backlog}#{submitter}")
}

/// The partition of the runs that were submitted on a day and ended with this status, without the
/// shard.
pub(super) fn ended_partition(status: &ExecutionStatus, day: &str) -> String {
    format!("final#{status}#{day}")
}

/// Bounds an inverted priority to three digits (`domain::request::PRIORITY_MAX` is 100).
const PRIORITY_TOP: i32 = 500;

/// The sort key of an entry among its submitter's entries: priority, time, id. So the order of the
/// texts is the order of the backlog.
pub(super) fn place(backlog_entry: &BacklogEntry) -> String {
    format!(
        "{:03}#{:013}#{}",
        PRIORITY_TOP - backlog_entry.priority,
        backlog_entry.submitted_at.timestamp_millis(),
        backlog_entry.id
    )
}

/// The backlog entry that an item of `by_standing` stands for.
pub(super) fn backlog_entry(
    backlog: &LimitKey,
    submitter: &str,
    entry: &Item,
) -> Option<BacklogEntry> {
    let mut parts = text_of(entry, "place")?.splitn(3, '#');
    let priority: i32 = parts.next()?.parse().ok()?;
    let millis = parts.next()?.parse().ok()?;
    let not_before = number_of(entry, "not_before").and_then(Timestamp::from_timestamp_millis);
    Some(BacklogEntry {
        id: parts.next()?.parse().ok()?,
        backlog: backlog.clone(),
        submitter: submitter.to_owned(),
        priority: PRIORITY_TOP - priority,
        submitted_at: Timestamp::from_timestamp_millis(millis)?,
        not_before,
    })
}
