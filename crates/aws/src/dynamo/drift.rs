//! The derived items that the sweep brings in line with the records: the launch batches and the
//! counters of the pools.

use std::{collections::BTreeSet, time::Duration};

use domain::{
    Timestamp,
    history::{Cursor, Loaded, Page},
    id::ExecutionId,
    limit::{CapacityPool, LimitKey},
    ports::PortError,
};
use futures_util::{
    future::try_join_all,
    stream::{self, StreamExt, TryStreamExt},
};

pub(super) mod look;
pub(super) mod seen_records;

use look::{Look, Reading, correction};
use seen_records::{HeldUnits, SeenRecords, is_open};

use super::{
    DynamoStore,
    item::{Item, number, number_of},
    launch_batches::LaunchBatch,
    limits::{counter_key, reading},
    table::{Condition, Freshness},
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
#[derive(Debug)]
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

/// The findings of a sweep on its way through the open records.
#[derive(Debug, Default)]
pub struct Survey {
    /// The launch batches, as the sweep found them at its beginning.
    start: Option<SurveyStart>,
    /// The records that are not read yet, the oldest first.
    left: Vec<ExecutionId>,
    seen: SeenRecords,
}

#[derive(Debug)]
struct SurveyStart {
    at: Timestamp,
    /// The counters before the first record was read. There are none if the sweep did not begin
    /// with the first record.
    counters: Option<Vec<Counter>>,
    batches: Vec<LaunchBatch>,
}

impl DynamoStore {
    /// Compares counters and records once. If anything is off by more than what happened meanwhile
    /// explains, it compares again and gives the writes under way time to finish.
    pub(super) async fn reconcile(&self, survey: Survey) -> Result<(), PortError> {
        let (before, held) = match survey {
            Survey {
                start:
                    Some(SurveyStart {
                        at,
                        counters: Some(before),
                        batches,
                    }),
                left,
                mut seen,
            } if left.is_empty() => {
                self.look_at_unsure(&batches, &mut seen, at).await?;
                self.close_launch_batches(&batches, &seen, at).await?;
                self.memory.keep_over(seen.over);
                (before, seen.held)
            }
            _ => (self.counters().await?, self.tidy().await?),
        };
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

    /// A page of the executions that the launch batches name, without those that are not open.
    pub(super) async fn survey(
        &self,
        survey: &mut Survey,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        if survey.start.is_none() {
            self.start_survey(survey, after).await?;
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let rest = survey.left.len().saturating_sub(limit);
        let ids = survey.left.split_off(rest);
        let next = ids.first().filter(|_| rest > 0).cloned().map(Cursor);
        let mut items = self.load_as(&ids, Freshness::Recent).await?;
        items.iter().for_each(|loaded| survey.seen.look_at(loaded));
        items.retain(|loaded| loaded.as_ref().map_or(true, is_open));
        Ok(Page { items, next })
    }

    /// Notes what is to be read. Runs that this process has seen over stay so, and are not read
    /// again.
    async fn start_survey(
        &self,
        survey: &mut Survey,
        after: Option<&Cursor>,
    ) -> Result<(), PortError> {
        let at = (self.now)();
        let counters = match after {
            None => Some(self.counters().await?),
            Some(_) => None,
        };
        let batches = self.launch_batches(Freshness::Recent).await?;
        let named: BTreeSet<_> = batches.iter().flat_map(|batch| &batch.ids).collect();
        let known = self.memory.over();
        for id in named {
            if known.contains(id) {
                survey.seen.over.insert(id.clone());
            } else if after.is_none_or(|after| *id < after.0) {
                survey.left.push(id.clone());
            }
        }
        survey.start = Some(SurveyStart {
            at,
            counters,
            batches,
        });
        Ok(())
    }

    /// Reads those records again, as last written, whose runs would be removed from their launch
    /// batches although they are not over. A record that is out of date may show a run as waiting
    /// that has been launched since.
    async fn look_at_unsure(
        &self,
        batches: &[LaunchBatch],
        seen: &mut SeenRecords,
        at: Timestamp,
    ) -> Result<(), PortError> {
        // Several batches may name the same run, and `BatchGetItem` takes each key once.
        let unsure: BTreeSet<_> = batches
            .iter()
            .filter(|batch| batch.has_departed(at))
            .flat_map(|batch| &batch.ids)
            .filter(|id| !seen.open.contains(*id) && !seen.over.contains(*id))
            .cloned()
            .collect();
        let unsure: Vec<_> = unsure.into_iter().collect();
        for ids in unsure.chunks(LOADED * LOADS) {
            for loaded in self.load_all(ids).await? {
                seen.look_at(&loaded);
            }
        }
        Ok(())
    }

    /// Removes the runs that are over from every launch batch, and sums up what the open ones hold.
    async fn tidy(&self) -> Result<HeldUnits, PortError> {
        let at = (self.now)();
        let batches = self.launch_batches(Freshness::LastWritten).await?;
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
                seen.look_at(&loaded);
                if let Err(corrupt) = loaded {
                    corrupt.note();
                }
            }
        }
        self.close_launch_batches(&batches, &seen, at).await?;
        Ok(seen.held)
    }

    /// `at` is from before the first of the records was read.
    async fn close_launch_batches(
        &self,
        batches: &[LaunchBatch],
        seen: &SeenRecords,
        at: Timestamp,
    ) -> Result<(), PortError> {
        let closed: Vec<_> = batches
            .iter()
            .map(|batch| self.close_launch_batch(batch, seen, at))
            .collect();
        stream::iter(closed)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await
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
        let unchanged = Condition::new(
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
