//! Counters of use, and token buckets. Each is one item.
//!
//! The counter of a lock or a group changes in one transaction with the record: one holder too many
//! would break the limit. A pool's counter does not, because a transaction is billed twice, and
//! because one write can count a whole batch. It is raised before the records are written and
//! lowered afterwards. So a process that dies between the two leaves it too high, never too low,
//! until the sweep corrects it (`drift.rs`). ECS itself enforces the quota; a pool's counter only
//! ever counts this stack's part of it.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::{
    config::{Builder, retry::RetryConfig},
    operation::update_item::UpdateItemError,
    types::{ReturnValuesOnConditionCheckFailure, Update},
};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    execution::Execution,
    limit::{Admission, LimitKey, RateKey, Usage},
    ports::PortError,
    quota::{Rate, TokenBucket},
    stored::FORM,
};

use super::{
    DynamoStore, SERVICE,
    drift::look::Reading,
    item::{Item, Key, expiry, number, number_of, small_item},
    table::{AGAIN, Condition, pause},
};
use crate::error::{Fault, Remedy};

/// How long the counter of a lock or a group is kept after something was given back. Locks and
/// groups can have any number of names, so their counters must expire. Other runs may still hold
/// the limit then, so the time is longer than the longest run. A pool's counter does not expire.
pub(super) const UNUSED: TimeDelta = TimeDelta::days(30);

pub(super) fn counter_key(key: &LimitKey) -> Key {
    Key::single('U', key)
}

/// How much the use of a limit changes, and how much may be in use afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LimitChange {
    pub(super) key: LimitKey,
    pub(super) by: i64,
    pub(super) max: Option<u32>,
}

impl LimitChange {
    /// The changes of all limits that the executions hold before or after.
    pub(super) fn between(
        before: Option<&Execution>,
        after: &Execution,
        admissions: &[Admission],
    ) -> Vec<Self> {
        let mut by: BTreeMap<LimitKey, i64> = BTreeMap::new();
        for allocation in before.map(Execution::allocations).unwrap_or_default() {
            *by.entry(allocation.key).or_default() -= i64::from(allocation.amount);
        }
        for allocation in after.allocations() {
            *by.entry(allocation.key).or_default() += i64::from(allocation.amount);
        }
        let max_of = |key: &LimitKey| {
            admissions
                .iter()
                .find(|a| a.key == *key)
                .and_then(|a| a.max)
        };
        let changes = by.into_iter().map(|(key, by)| Self {
            max: max_of(&key),
            by,
            key,
        });
        changes.filter(|change| change.by != 0).collect()
    }

    /// Whether the change is counted apart from the record, not in one transaction with it.
    pub(super) fn is_apart(&self) -> bool {
        matches!(self.key, LimitKey::Pool(_))
    }

    /// Whether it does not fit even if nothing is in use.
    pub(super) fn never_fits(&self) -> bool {
        self.room().is_some_and(|room| room < 0)
    }

    /// How much may be in use before the change.
    fn room(&self) -> Option<i64> {
        self.max
            .filter(|_| self.by > 0)
            .map(|max| i64::from(max) - self.by)
    }

    /// The change as a write in a transaction, on condition that there is room.
    pub(super) fn update(&self, table: &str, now: Timestamp) -> Result<Update, PortError> {
        let mut update = Update::builder()
            .table_name(table)
            .set_key(Some(counter_key(&self.key).into_item()))
            .expression_attribute_values(":by", number(self.by))
            .expression_attribute_values(":v", number(FORM));
        update = if self.by < 0 {
            let expires = number(expiry(now + UNUSED));
            update
                .update_expression("ADD used :by SET expires = :expires, v = if_not_exists(v, :v)")
                .expression_attribute_values(":expires", expires)
        } else {
            update.update_expression("ADD used :by SET v = if_not_exists(v, :v) REMOVE expires")
        };
        if let Some(room) = self.room() {
            update = update
                .condition_expression(HAS_ROOM)
                .expression_attribute_values(":room", number(room));
        }
        update
            .build()
            .map_err(|error| PortError::invalid(SERVICE, error))
    }
}

/// How many tokens are taken ahead. A process may exceed the rate by so many calls in one moment, for
/// each backlog that it drains at that time. That is little beside the 100 that a bucket holds
/// (AWS-FACTS §2), and ECS refuses what is too much, which is tried again.
const AHEAD: u32 = 7;

/// Takes tokens ahead if the bucket is still half full afterwards and refills them within a second.
fn taken_ahead(bucket: TokenBucket, rate: Rate, now: Timestamp) -> (u32, TokenBucket) {
    match bucket.take(rate, AHEAD, now) {
        (AHEAD, after) if after.is_half_full(rate, now) && rate.per_second >= f64::from(AHEAD) => {
            (AHEAD, after)
        }
        _ => (0, bucket),
    }
}

const HAS_ROOM: &str = "attribute_not_exists(used) OR used <= :room";

/// The result of changing a pool's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    Yes,
    /// This much is in use, which leaves too little room.
    Full(u32),
}

/// A counter's item, as the sweep reads it.
pub(super) fn reading(counter: &Item) -> Reading {
    let of = |name: &str| number_of(counter, name).unwrap_or_default();
    let used = number_of(counter, "used").unwrap_or_default();
    Reading {
        used,
        taken: of("taken"),
        released: of("released"),
    }
}

/// A bucket as it is stored. The next change is conditional on the number of changes so far.
struct KeptCounters {
    bucket: TokenBucket,
    changes: u64,
}

impl KeptCounters {
    fn of(item: Option<Item>) -> Self {
        let item = item.unwrap_or_default();
        let at = number_of(&item, "at").and_then(Timestamp::from_timestamp_millis);
        Self {
            bucket: TokenBucket {
                spent: number_of(&item, "spent").unwrap_or_default(),
                at: at.unwrap_or_default(),
            },
            changes: number_of(&item, "changes").unwrap_or_default(),
        }
    }
}

impl DynamoStore {
    /// Changes a pool's counter. This is not idempotent, so the SDK must not retry it. A change
    /// that got no answer is never made again; at worst it leaves the counter too high.
    pub(super) async fn add(&self, change: &LimitChange) -> Result<Added, PortError> {
        let sum = if change.by < 0 { "released" } else { "taken" };
        let mut call = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(counter_key(&change.key).into_item()))
            .update_expression(format!(
                "ADD used :by, {sum} :amount SET v = if_not_exists(v, :v)"
            ))
            .expression_attribute_values(":by", number(change.by))
            .expression_attribute_values(":amount", number(change.by.abs()))
            .expression_attribute_values(":v", number(FORM))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if let Some(room) = change.room() {
            call = call
                .condition_expression(HAS_ROOM)
                .expression_attribute_values(":room", number(room));
        }
        for round in 0.. {
            let once = Builder::new().retry_config(RetryConfig::disabled());
            let Err(error) = call.clone().customize().config_override(once).send().await else {
                return Ok(Added::Yes);
            };
            if let Some(UpdateItemError::ConditionalCheckFailedException(failed)) =
                error.as_service_error()
            {
                let used = failed
                    .item
                    .as_ref()
                    .and_then(|counter| number_of(counter, "used"));
                return Ok(Added::Full(used.unwrap_or_default()));
            }
            let fault = Fault::of(&error);
            if fault.remedy != Remedy::Wait || round >= AGAIN {
                return Err(fault.of_service(SERVICE));
            }
            pause(round).await;
        }
        Err(PortError::unavailable(
            SERVICE,
            "other writers keep changing a counter",
        ))
    }

    pub(super) async fn usage(&self, key: &LimitKey) -> Result<Usage, PortError> {
        let counter = self.get(counter_key(key)).await?.unwrap_or_default();
        // A counter below zero is wrong. It then counts as if nothing were in use.
        Ok(Usage {
            used: number_of(&counter, "used").unwrap_or_default(),
        })
    }

    /// Tries again if another caller changed the bucket meanwhile. In each such round some caller
    /// has got its tokens.
    ///
    /// Takes some tokens more than are wanted if there are plenty, and keeps them in memory, so that
    /// launches one by one do not write the bucket each. Tokens that a process still has when it
    /// ends are lost, and the bucket fills again.
    pub(super) async fn take_tokens(
        &self,
        key: RateKey,
        rate: Rate,
        want: u32,
        now: Timestamp,
    ) -> Result<(u32, u64), PortError> {
        let had = self.memory.take_tokens(key, want);
        if had == want && want > 0 {
            return Ok((had, 0));
        }
        for round in 0..AGAIN {
            let kept = KeptCounters::of(self.get(Key::single('B', key)).await?);
            let (granted, bucket) = kept.bucket.take(rate, want - had, now);
            let (ahead, bucket) = taken_ahead(bucket, rate, now);
            let answer = (had + granted, bucket.wait_millis(rate, now));
            if granted == 0 {
                // Another call may have taken some ahead meanwhile.
                let more = self.memory.take_tokens(key, want - had);
                return Ok((had + more, answer.1));
            }
            if self.keep(key, bucket, kept.changes).await? {
                self.memory.keep_tokens(key, ahead);
                return Ok(answer);
            }
            pause(round).await;
        }
        if had > 0 {
            return Ok((had, 0));
        }
        Err(PortError::unavailable(
            SERVICE,
            format!("other writers changed the bucket of {key} {AGAIN} times in a row"),
        ))
    }

    async fn keep(
        &self,
        key: RateKey,
        bucket: TokenBucket,
        changes: u64,
    ) -> Result<bool, PortError> {
        let at = number(bucket.at.timestamp_millis());
        let item = [
            ("spent", number(bucket.spent)),
            ("at", at),
            ("changes", number(changes + 1)),
        ];
        let item = small_item(Key::single('B', key), item);
        let unchanged = Condition::new(
            "attribute_not_exists(pk) OR changes = :changes",
            [(":changes", number(changes))],
        );
        self.put_if(item, unchanged)
            .await
            .map(|wrote| wrote.is_yes())
    }
}
