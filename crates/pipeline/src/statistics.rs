//! Counting the ends of runs, each once.

use std::collections::BTreeSet;

use domain::{
    Timestamp,
    id::ExecutionId,
    measure,
    ports::{PortError, StatisticsStore},
    statistics::{COUNTED_WITHIN, RunEnd, batches},
};

use crate::unreadable::passed_over;

/// How often a batch is counted anew after others wrote the statistics of its day meanwhile. Each
/// such conflict is the success of another writer, and a table's stream has few shards.
const TRIES: u32 = 20;

/// Counts the ends of these executions. Those that were counted before are left alone, so the ids
/// may come several times, in any order and in any parts. Executions that have not ended or no
/// longer exist are passed over.
///
/// An execution with an unreadable record is passed over too, and so are the ends of a day whose
/// statistics cannot be read: they would block all later ends.
///
/// # Errors
/// When the store does not answer, or others keep writing the same day. The same call may be
/// repeated.
pub async fn count(
    store: &impl StatisticsStore,
    now: Timestamp,
    ids: &[ExecutionId],
) -> Result<(), PortError> {
    for batch in batches(ends(store, now, ids).await?) {
        passed_over(count_batch(store, &batch).await)?;
    }
    Ok(())
}

/// The most executions that are in memory at the same time: a record has up to 400 KB.
const LOADED_TOGETHER: usize = 50;

/// The ends of these executions, each once.
async fn ends(
    store: &impl StatisticsStore,
    now: Timestamp,
    ids: &[ExecutionId],
) -> Result<Vec<RunEnd>, PortError> {
    let each_once: BTreeSet<_> = ids.iter().cloned().collect();
    let ids: Vec<_> = each_once.into_iter().collect();
    let mut ends = Vec::new();
    for ids in ids.chunks(LOADED_TOGETHER) {
        let mut unsure: BTreeSet<_> = ids.iter().collect();
        for loaded in store.load_all(ids).await? {
            let end = match &loaded {
                Ok(execution) => RunEnd::of(execution),
                Err(corrupt) => {
                    corrupt.note();
                    unsure.retain(|id| corrupt.id() != Some(id));
                    continue;
                }
            };
            unsure.retain(|id| end.as_ref().is_none_or(|end| end.id != **id));
            ends.extend(end);
        }
        // These were perhaps read as they were before their ends.
        for id in unsure {
            let loaded = passed_over(store.load(id).await)?;
            ends.extend(loaded.as_ref().and_then(RunEnd::of));
        }
    }
    ends.retain(|end| {
        let is_recent = now - end.at < COUNTED_WITHIN;
        if !is_recent {
            tracing::warn!(execution_id = %end.id, "an end of long ago is not counted");
        }
        is_recent
    });
    Ok(ends)
}

/// Counts a batch of ends of one day.
async fn count_batch(store: &impl StatisticsStore, ends: &[RunEnd]) -> Result<(), PortError> {
    let Some(day) = ends.first().map(RunEnd::day) else {
        return Ok(());
    };
    for _ in 0..TRIES {
        let before = store.day_statistics(day, ends).await?;
        let Some((after, counted)) = before.with(ends) else {
            return Ok(());
        };
        if store.set_day_statistics(&before, &after, &counted).await? {
            counted.iter().for_each(measure::record_end);
            return Ok(());
        }
    }
    Err(PortError::unavailable(
        "the store",
        format!("the statistics of {day} were written by others {TRIES} times in a row"),
    ))
}
