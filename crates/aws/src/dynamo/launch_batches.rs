//! The launch batches: one small item for each batch, written before any of its executions is
//! launched. They lead the sweep to every open run, and no run pays for an index entry of its own
//! that is written and deleted again.
//!
//! A launch batch names executions that may be open; only their records tell which are. Only the
//! sweep shrinks it. The process that made it adds to it for some minutes, and it also names the
//! executions that are next in the backlog, so that launches one by one do not cost a write each.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use domain::{
    Timestamp,
    id::ExecutionId,
    limit::LimitKey,
    ports::{Entropy, PortError},
};
use futures_util::future::try_join_all;

use super::{
    DynamoStore,
    drift::seen_records::SeenRecords,
    item::{Item, Key, SHARDS, id_of_ulid, number, number_of, sharded, small_item, text, ulid},
    table::{Condition, Freshness},
};
use crate::system::System;

/// Most executions in one launch batch: so many ids stay below the 1 KB of one write unit.
const TOGETHER: usize = 30;
/// How many of a backlog's next executions a launch batch names ahead: as many as a launcher reads
/// beyond those that can start.
const AHEAD: usize = 4;
/// How long a name that was given ahead serves for a launch.
const NAMED_FOR: TimeDelta = TimeDelta::minutes(1);
/// How long one invocation of the launcher takes at most, in seconds: the template's `Timeout`.
pub const LAUNCHER_TIMEOUT: i64 = 60;
/// How old a launch batch must be before each of its executions surely was launched or surely was
/// not. By then a launcher that took a name for its launch has ended. A minute is left for clocks
/// that differ.
const DEPARTED_AFTER: TimeDelta = TimeDelta::minutes(3);
const _: () = assert!(
    DEPARTED_AFTER.num_seconds() >= NAMED_FOR.num_seconds() + LAUNCHER_TIMEOUT + 60,
    "a launch batch may lose a run that is about to be launched"
);

/// Executions that were launched together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaunchBatch {
    key: Key,
    at: i64,
    /// How often ids were added, and when the last time was.
    additions: Option<(u64, i64)>,
    pub(super) ids: Vec<ExecutionId>,
}

fn partition(shard: usize) -> String {
    sharded("OPEN", shard)
}

impl LaunchBatch {
    fn new(ids: Vec<ExecutionId>, now: Timestamp) -> Self {
        let (at, bits) = (now.timestamp_millis(), System.bits());
        let shard = usize::try_from(bits % SHARDS as u128).unwrap_or_default();
        Self {
            key: Key::new(partition(shard), format!("{at:013}-{:016x}", bits >> 64)),
            at,
            additions: None,
            ids,
        }
    }

    fn of(item: &Item) -> Option<Self> {
        let text = |name: &str| super::item::text_of(item, name).map(str::to_owned);
        let ids = item.get("ids")?.as_l().ok()?.iter();
        Some(Self {
            key: Key::new(text("pk")?, text("sk")?),
            at: number_of(item, "at")?,
            additions: number_of(item, "additions").zip(number_of(item, "added_at")),
            ids: ids.filter_map(|id| id_of_ulid(id.as_s().ok()?)).collect(),
        })
    }

    fn ids(&self) -> AttributeValue {
        AttributeValue::L(self.ids.iter().map(|id| text(ulid(id))).collect())
    }

    fn item(&self) -> Item {
        small_item(
            self.key.clone(),
            [("ids", self.ids()), ("at", number(self.at))],
        )
    }

    /// Whether each of its executions surely was launched by then, or surely was not.
    pub(super) fn has_departed(&self, at: Timestamp) -> bool {
        let last = self.additions.map_or(self.at, |(_, at)| at.max(self.at));
        at.timestamp_millis() - last > DEPARTED_AFTER.num_milliseconds()
    }

    /// This launch batch without the ids that are over.
    fn without(&self, over: impl Fn(&ExecutionId) -> bool) -> Self {
        Self {
            ids: self.ids.iter().filter(|id| !over(id)).cloned().collect(),
            ..self.clone()
        }
    }
}

impl DynamoStore {
    /// Records that these executions of a backlog may be open from now on. Idempotent: naming one
    /// twice is harmless.
    pub(super) async fn record_launch_batch(
        &self,
        launched: &[(ExecutionId, Option<LimitKey>)],
    ) -> Result<(), PortError> {
        let now = (self.now)();
        let unnamed = self.memory.unnamed(launched, NAMED_FOR, now);
        if unnamed.is_empty() {
            return Ok(());
        }
        let ahead = self.memory.next_in(launched, AHEAD);
        let ids: Vec<_> = unnamed.into_iter().chain(ahead.iter().cloned()).collect();
        self.name_in_launch_batch(&ids, now).await?;
        self.memory.name(ahead, NAMED_FOR, now);
        Ok(())
    }

    async fn name_in_launch_batch(
        &self,
        ids: &[ExecutionId],
        now: Timestamp,
    ) -> Result<(), PortError> {
        if let Some(key) = self.memory.take_batch(ids.len(), TOGETHER, now) {
            let added = AttributeValue::L(ids.iter().map(|id| text(ulid(id))).collect());
            let there = Condition::new(
                "attribute_exists(pk)",
                [
                    (":ids", added),
                    (":now", number(now.timestamp_millis())),
                    (":one", number(1)),
                ],
            );
            let change = "SET ids = list_append(ids, :ids), added_at = :now, \
                          v = if_not_exists(v, :v) ADD additions :one";
            if self.update_if(key, change, there).await? {
                return Ok(());
            }
            // The sweep has removed it, since all of its runs were over.
            self.memory.drop_batch();
        }
        let batches: Vec<_> = ids
            .chunks(TOGETHER)
            .map(|ids| LaunchBatch::new(ids.to_vec(), now))
            .collect();
        try_join_all(batches.iter().map(|batch| self.put(batch.item()))).await?;
        if let Some(last) = batches.last().filter(|last| last.ids.len() < TOGETHER) {
            self.memory
                .keep_batch(last.key.clone(), last.ids.len(), now);
        }
        Ok(())
    }

    /// All launch batches.
    pub(super) async fn launch_batches(
        &self,
        freshness: Freshness,
    ) -> Result<Vec<LaunchBatch>, PortError> {
        let shards: Vec<_> = (0..SHARDS).map(partition).collect();
        let reads = shards
            .iter()
            .map(|shard| self.collection_as(shard, "", freshness));
        let items = try_join_all(reads).await?.concat();
        let unread =
            || tracing::error!("a launch batch cannot be read; the sweep does not see its runs");
        let batch = |item: &Item| {
            LaunchBatch::of(item).or_else(|| {
                unread();
                None
            })
        };
        Ok(items.iter().filter_map(batch).collect())
    }

    /// The ids of all executions that may be open, each once.
    pub(super) async fn launched_ids(&self) -> Result<BTreeSet<ExecutionId>, PortError> {
        Ok(self
            .launch_batches(Freshness::LastWritten)
            .await?
            .into_iter()
            .flat_map(|batch| batch.ids)
            .collect())
    }

    /// Removes the runs that are over from a launch batch. If none is left, the item is deleted.
    /// Otherwise it is written only once half of the ids are over, so that no launch batch is
    /// written more than a few times.
    ///
    /// While the batch is young, a run that is not open yet may be about to be launched, so it
    /// stays. `at` is from before the records were read: a run that was launched since is named by
    /// a batch that was young then.
    pub(super) async fn close_launch_batch(
        &self,
        batch: &LaunchBatch,
        seen: &SeenRecords,
        at: Timestamp,
    ) -> Result<(), PortError> {
        let departed = batch.has_departed(at);
        // Ids that were added since the batch was read stay.
        let unchanged = |more: Option<(&'static str, AttributeValue)>| match batch.additions {
            None => Condition::new(
                "attribute_exists(pk) AND attribute_not_exists(additions)",
                more,
            ),
            Some((count, _)) => Condition::new(
                "additions = :additions",
                more.into_iter().chain([(":additions", number(count))]),
            ),
        };
        let left =
            batch.without(|id| seen.over.contains(id) || (departed && !seen.open.contains(id)));
        match left.ids.len() {
            0 => self
                .delete_if(batch.key.clone(), unchanged(None))
                .await
                .map(drop),
            few if few * 2 <= batch.ids.len() => self
                .update_if(
                    batch.key.clone(),
                    "SET ids = :ids, v = if_not_exists(v, :v)",
                    unchanged(Some((":ids", left.ids()))),
                )
                .await
                .map(drop),
            _ => Ok(()),
        }
    }
}
