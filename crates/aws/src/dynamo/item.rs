//! Items and their keys: everything that says how a thing is spelled in the table.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{NaiveDate, TimeDelta};
use domain::{
    Timestamp,
    execution::{Attempt, Cancel, Event, Execution, ExecutionStatus, State, Ticket},
    id::ExecutionId,
    limit::{CapacityPool, LimitKey},
    ports::Unavailable,
    request::LaunchRequest,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::SERVICE;

/// An item of the table, by attribute.
pub type Item = HashMap<String, AttributeValue>;

/// Partitions that a day, a submitter's history, and what is open are spread over. Ours: one takes 1,000 writes a second
/// (AWS-FACTS §6), and all that a stack launches is less than eight times that.
pub(super) const SHARDS: usize = 8;

const PREFIX: &str = "exec_";
const DIGITS: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// An item's primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) pk: String,
    pub(super) sk: String,
}

impl Key {
    pub(super) fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }

    /// A key whose partition has one item.
    pub(super) fn single(kind: char, name: impl std::fmt::Display) -> Self {
        Self::new(format!("{kind}#{name}"), kind)
    }

    pub(super) fn into_item(self) -> Item {
        HashMap::from([("pk".to_owned(), text(self.pk)), ("sk".to_owned(), text(self.sk))])
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

/// The error of an item that is not what it should be. It shows nothing of the item.
pub(super) fn unreadable(what: &str, error: impl std::fmt::Display) -> Unavailable {
    Unavailable::new(SERVICE, format_args!("{what} in it cannot be read: {error}"))
}

/// A value as an item, with its key. What is `None` leaves no attribute.
pub(super) fn item_of(key: Key, value: &impl Serialize) -> Result<Item, Unavailable> {
    let value: Item = serde_dynamo::aws_sdk_dynamodb_1::to_item(value).map_err(|e| Unavailable::new(SERVICE, e))?;
    let mut item = pruned(value);
    item.extend(key.into_item());
    Ok(item)
}

/// The value of an item. `what` names it in the error.
pub(super) fn value_of<T: DeserializeOwned>(what: &str, item: Item) -> Result<T, Unavailable> {
    serde_dynamo::aws_sdk_dynamodb_1::from_item(item).map_err(|error| unreadable(what, error))
}

/// Without its nulls: an attribute that is not there costs nothing to write.
fn pruned(item: Item) -> Item {
    let kept = item.into_iter().filter(|(_, value)| !value.is_null());
    kept.map(|(name, value)| (name, pruned_value(value))).collect()
}

fn pruned_value(value: AttributeValue) -> AttributeValue {
    match value {
        AttributeValue::M(map) => AttributeValue::M(pruned(map)),
        AttributeValue::L(list) => AttributeValue::L(list.into_iter().map(pruned_value).collect()),
        other => other,
    }
}

/// Seconds since the epoch, as DynamoDB's time to live wants them; rounded up, so that nothing goes before its time.
pub(super) fn expiry(at: Timestamp) -> i64 {
    (at + TimeDelta::milliseconds(999)).timestamp()
}

/// Whether an item's time is over. DynamoDB deletes it within days of that.
pub(super) fn has_expired(item: &Item, now: Timestamp) -> bool {
    number_of::<i64>(item, "expires").is_some_and(|expires| expires <= now.timestamp())
}

/// The id without its prefix.
pub(super) fn ulid(id: &ExecutionId) -> &str {
    id.as_str().trim_start_matches(PREFIX)
}

/// Which of the [`SHARDS`] an execution is in: by its id's last digit, which is random.
pub(super) fn shard(id: &ExecutionId) -> usize {
    let last = ulid(id).chars().next_back();
    last.and_then(|last| DIGITS.find(last)).unwrap_or_default() % SHARDS
}

/// The partition of the ids that end in these two digits.
pub(super) fn partition_of_suffix(two: &str) -> String {
    format!("X#{two}")
}

/// The partitions of the ids that end in this digit.
pub(super) fn partitions_of_last(last: char) -> impl Iterator<Item = String> {
    DIGITS.chars().map(move |before| partition_of_suffix(&format!("{before}{last}")))
}

/// Where both items of an execution are: the table itself is the index by the id's end.
pub(super) fn partition(id: &ExecutionId) -> String {
    let ulid = ulid(id);
    partition_of_suffix(&ulid[ulid.len() - 2..])
}

pub(super) fn reversed(ulid: &str) -> String {
    ulid.chars().rev().collect()
}

pub(super) fn request_key(id: &ExecutionId) -> Key {
    Key::new(partition(id), format!("{}#r", reversed(ulid(id))))
}

pub(super) fn state_key(id: &ExecutionId) -> Key {
    Key::new(partition(id), format!("{}#s", reversed(ulid(id))))
}

/// The execution whose item has this sort key.
pub(super) fn id_of_sort_key(sk: &str) -> Option<ExecutionId> {
    let (reversed_ulid, _) = sk.split_once('#')?;
    format!("{PREFIX}{}", reversed(reversed_ulid)).parse().ok()
}

/// The day, UTC, as partitions name it: `2026-11-24`.
pub(super) fn day_name(day: NaiveDate) -> String {
    day.format("%Y-%m-%d").to_string()
}

/// The day of an execution's submission.
pub(super) fn day(id: &ExecutionId) -> NaiveDate {
    id.made_at().date_naive()
}

/// A partition of an index, and one of its shards.
pub(super) fn sharded(name: &str, shard: usize) -> String {
    format!("{name}#{shard}")
}

/// The partition of `by_standing` with the tickets that one submitter has in one line.
pub(super) fn standing_in_line(line: &LimitKey, submitter: &str) -> String {
    format!("line#{line}#{submitter}")
}

/// The partitions of what is launching or running, without the shard.
pub(super) const STANDING_OPEN: &str = "open";

/// The partitions of what was submitted on a day and ended like this, without the shard.
pub(super) fn standing_final(status: ExecutionStatus, day: &str) -> String {
    format!("final#{status}#{day}")
}

/// Bounds an inverted priority to three digits (`domain::request::PRIORITY_MAX` is 100).
const PRIORITY_TOP: i32 = 500;

/// A ticket's place among its submitter's: priority, time, id, so that the text's order is the line's.
pub(super) fn place(ticket: &Ticket) -> String {
    format!("{:03}#{:013}#{}", PRIORITY_TOP - ticket.priority, ticket.submitted_at.timestamp_millis(), ticket.id)
}

/// The ticket of an entry of `by_standing`.
pub(super) fn ticket(line: &LimitKey, submitter: &str, entry: &Item) -> Option<Ticket> {
    let mut parts = text_of(entry, "place")?.splitn(3, '#');
    let priority: i32 = parts.next()?.parse().ok()?;
    let millis = parts.next()?.parse().ok()?;
    let not_before = number_of(entry, "not_before").and_then(Timestamp::from_timestamp_millis);
    Some(Ticket {
        id: parts.next()?.parse().ok()?,
        line: line.clone(),
        submitter: submitter.to_owned(),
        priority: PRIORITY_TOP - priority,
        submitted_at: Timestamp::from_timestamp_millis(millis)?,
        not_before,
    })
}

/// Everything of an execution that never changes, and what the indexes by day, submitter and group need of it.
#[derive(Serialize, Deserialize)]
pub(super) struct RequestItem {
    id: ExecutionId,
    day: String,
    submitter: String,
    grp: Option<String>,
    request: LaunchRequest,
    submitted_by: String,
    submitted_at: Timestamp,
    /// When it may go: later than the state, which counts from the end.
    pub(super) expires: i64,
}

/// Everything that changes, and what the index by standing needs of it.
#[derive(Serialize, Deserialize)]
pub(super) struct StateItem {
    id: ExecutionId,
    revision: u64,
    /// The word for the state: functions that listen to the table's stream choose by it.
    status: ExecutionStatus,
    state: State,
    pool: CapacityPool,
    cancel: Option<Cancel>,
    attempts: Vec<Attempt>,
    events: Vec<Event>,
    standing: String,
    place: String,
    /// Milliseconds since the epoch.
    not_before: Option<i64>,
    pub(super) expires: Option<i64>,
}

impl RequestItem {
    pub(super) fn of(execution: &Execution, expires: Timestamp) -> Self {
        let shard = shard(&execution.id);
        Self {
            id: execution.id.clone(),
            day: sharded(&day_name(day(&execution.id)), shard),
            submitter: sharded(&execution.submitted_by, shard),
            grp: execution.request.group.as_ref().map(|group| sharded(group.as_str(), shard)),
            request: execution.request.clone(),
            submitted_by: execution.submitted_by.clone(),
            submitted_at: execution.submitted_at,
            expires: expiry(expires),
        }
    }
}

impl StateItem {
    /// `expires` counts once it is over: what is not must not vanish.
    pub(super) fn of(execution: &Execution, expires: Option<Timestamp>) -> Self {
        let (standing, place) = standing(execution);
        let not_before = execution.ticket().and_then(|ticket| ticket.not_before);
        Self {
            id: execution.id.clone(),
            revision: execution.revision,
            status: execution.status(),
            state: execution.state.clone(),
            pool: execution.pool,
            cancel: execution.cancel.clone(),
            attempts: execution.attempts.clone(),
            events: execution.events.clone(),
            standing,
            place,
            not_before: not_before.map(|at| at.timestamp_millis()),
            expires: expires.map(expiry),
        }
    }
}

fn standing(execution: &Execution) -> (String, String) {
    let shard = shard(&execution.id);
    match execution.ticket() {
        Some(ticket) => (standing_in_line(&ticket.line, &ticket.submitter), place(&ticket)),
        None if execution.end().is_none() => (sharded(STANDING_OPEN, shard), execution.id.to_string()),
        None => {
            let name = standing_final(execution.status(), &day_name(day(&execution.id)));
            (sharded(&name, shard), execution.id.to_string())
        }
    }
}

/// The record of these two items.
pub(super) fn execution(request: Item, state: Item) -> Result<Execution, Unavailable> {
    let request: RequestItem = value_of("a request", request)?;
    let state: StateItem = value_of("a state", state)?;
    Ok(Execution {
        id: request.id,
        revision: state.revision,
        request: request.request,
        pool: state.pool,
        submitted_by: request.submitted_by,
        submitted_at: request.submitted_at,
        state: state.state,
        cancel: state.cancel,
        attempts: state.attempts,
        events: state.events,
    })
}
