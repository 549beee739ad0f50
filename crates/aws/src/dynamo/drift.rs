//! The derived items that the sweep brings in line with the records: the launch batches and the
//! counters of the pools.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use domain::{
    execution::Execution,
    id::ExecutionId,
    limit::{CapacityPool, LimitKey},
    ports::PortError,
};
use futures_util::{
    future::try_join_all,
    stream::{self, StreamExt, TryStreamExt},
};

pub(super) mod look;

use look::{Look, Reading, correction};

use super::{
    DynamoStore,
    item::{Item, number, number_of},
    launch_batches::is_open,
    limits::{counter_key, reading},
    table::WriteCondition,
};

/// All pools.
const POOLS: [CapacityPool; 3] = [
    CapacityPool::FargateSpot,
    CapacityPool::Fargate,
    CapacityPool::Machine,
];
/// Time for the writes under way to finish: longer than a healthy process takes from a counter's
/// write to the record's, as both take milliseconds. A slower process has finished by the next
/// look, and a counter is corrected only if two looks agree.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// Records loaded by one call: `BatchGetItem` takes 100 keys, and a record is two items.
const LOADED: usize = 50;
/// Calls at a time. A record usually has some kilobytes, but a large request has 256 KiB, and the
/// function has 256 MB of memory: 100 large records and what is made of them take half of that.
const LOADS: usize = 2;
/// Launch batches that are closed at the same time. Each takes a connection, so their number is
/// bounded.
const PARALLEL: usize = 32;

/// A pool's counter, and what the sweep noted about it.
struct Counter {
    key: LimitKey,
    reading: Reading,
    /// How far off it was at the last look.
    off: i64,
    corrections: u64,
}

impl Counter {
    fn of(pool: CapacityPool, item: &Item) -> Self {
        Self {
            key: LimitKey::Pool(pool),
            reading: reading(item),
            off: number_of(item, "drift").unwrap_or_default(),
            corrections: number_of(item, "corrections").unwrap_or_default(),
        }
    }
}

/// The units of each limit that the open records hold together.
type HeldUnits = BTreeMap<LimitKey, i64>;

/// The facts that remain of the records once they were looked at.
#[derive(Default)]
struct SeenRecords {
    held: HeldUnits,
    /// Runs that are open, or that have a status or a form this release does not know.
    open: BTreeSet<ExecutionId>,
    over: BTreeSet<ExecutionId>,
}

impl SeenRecords {
    fn look_at(&mut self, record: Execution) {
        let allocations = record.allocations();
        // A run with a newer release's status either holds something, or is over and that release
        // removes it from its launch batch.
        let is_open = is_open(&record) || !allocations.is_empty();
        for allocation in allocations {
            *self.held.entry(allocation.key).or_default() += i64::from(allocation.amount);
        }
        if is_open {
            self.open.insert(record.id);
        } else if record.end().is_some() {
            self.over.insert(record.id);
        }
    }
}

impl DynamoStore {
    /// Compares counters and records once. If anything is off by more than what happened meanwhile
    /// explains, it compares again and gives the writes under way time to finish.
    pub(super) async fn reconcile(&self) -> Result<(), PortError> {
        let before = self.counters().await?;
        let held = self.tidy().await?;
        let after = self.counters().await?;
        let explained = looks(&before, &held, &after).all(|(_, look)| look.off() == 0);
        if explained && before.iter().all(|counter| counter.off == 0) {
            return Ok(());
        }
        let before = self.counters().await?;
        tokio::time::sleep(self.settle).await;
        let held = self.tidy().await?;
        tokio::time::sleep(self.settle).await;
        let after = self.counters().await?;
        try_join_all(
            looks(&before, &held, &after).map(|(counter, look)| self.correct(counter, look.off())),
        )
        .await?;
        Ok(())
    }

    async fn counters(&self) -> Result<Vec<Counter>, PortError> {
        try_join_all(POOLS.map(|pool| async move {
            let item = self.get(counter_key(&LimitKey::Pool(pool))).await?;
            Ok(Counter::of(pool, &item.unwrap_or_default()))
        }))
        .await
    }

    /// Removes the runs that are over from every launch batch, and sums up what the open ones hold.
    async fn tidy(&self) -> Result<HeldUnits, PortError> {
        let batches = self.launch_batches().await?;
        let ids: BTreeSet<_> = batches
            .iter()
            .flat_map(|batch| batch.ids.iter().cloned())
            .collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let loads: Vec<_> = ids.chunks(LOADED).map(|ids| self.load_all(ids)).collect();
        let mut loads = stream::iter(loads).buffer_unordered(LOADS);
        let mut seen = SeenRecords::default();
        while let Some(all) = loads.try_next().await? {
            for loaded in all {
                match loaded {
                    Ok(record) => seen.look_at(record),
                    // Its allocation is not known. That stops no correction, and the run stays
                    // among those that may be open.
                    Err(corrupt) => {
                        corrupt.note();
                        seen.open.extend(corrupt.id().cloned());
                    }
                }
            }
        }
        let landings: Vec<_> = batches
            .iter()
            .map(|batch| self.close_launch_batch(batch, &seen.open, &seen.over))
            .collect();
        stream::iter(landings)
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        Ok(seen.held)
    }

    /// Conditional on no other correction meanwhile.
    async fn correct(&self, counter: &Counter, off: i64) -> Result<(), PortError> {
        let by = correction(counter.off, off);
        if by == 0 && off == counter.off {
            return Ok(());
        }
        if by != 0 {
            tracing::warn!(limit_key = %counter.key, correction = by, "a counter was off and is corrected");
        }
        let unchanged = WriteCondition::new(
            "attribute_not_exists(corrections) OR corrections = :corrections",
            [
                (":corrections", number(counter.corrections)),
                (":by", number(by)),
                (":drift", number(off + by)),
                (":one", number(1)),
            ],
        );
        let change = "ADD used :by, corrections :one SET drift = :drift, v = if_not_exists(v, :v)";
        self.update_if(counter_key(&counter.key), change, unchanged)
            .await
            .map(drop)
    }
}

/// Each counter with what was seen of it. A counter that another sweep corrected meanwhile is left
/// alone.
fn looks<'a>(
    before: &'a [Counter],
    held: &HeldUnits,
    after: &[Counter],
) -> impl Iterator<Item = (&'a Counter, Look)> {
    let held = held.clone();
    let untouched = before
        .iter()
        .zip(after)
        .filter(|(before, after)| before.corrections == after.corrections);
    let pairs: Vec<_> = untouched
        .map(|(before, after)| (before, after.reading))
        .collect();
    pairs.into_iter().map(move |(before, after)| {
        let held = held.get(&before.key).copied().unwrap_or_default();
        (
            before,
            Look {
                before: before.reading,
                held,
                after,
            },
        )
    })
}
