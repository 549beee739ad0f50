//! The rules of statistics: what `ReadStore::tallies` tells of the runs that ended, and
//! `domain::ports::StatisticsStore`.

use std::{collections::BTreeMap, ops::RangeInclusive};

use chrono::{Days, NaiveDate, TimeDelta};
use domain::{
    execution::{Execution, ExecutionStatus},
    id::ExecutionId,
    ports::{ReadStore, StatisticsStore},
    price::NanoUsd,
    statistics::{COUNTED_WITHIN, DatedTally, Dimension, RunEnd, Slot, Tally, VALUES_MAX, batches},
    transition::CancelDecision,
};
use pipeline::statistics::count;
use tests::callers::caller;

use super::{
    records::{Wish, at, close, launch},
    store::{Shared, at_once},
};

const ANSWERS: &str = "the store answers";

/// Makes a test of each rule of counting, for the store that `$fresh` makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::rules! { statistics, $fresh:
            each_end_is_counted_in_every_dimension
            an_end_counts_once_though_its_record_changes_again
            a_run_that_has_not_ended_is_not_counted
            a_run_that_is_recorded_as_ended_is_counted
        }
    };
}
pub(crate) use suite;

/// Makes a test of each rule of batches, for the store that `$fresh` makes.
macro_rules! batch_suite {
    ($fresh:path) => {
        $crate::contract::rules! { statistics, $fresh:
            an_end_counts_once_in_whatever_batches_it_comes
            batches_at_the_same_time_count_each_end_once
            an_end_of_long_ago_is_passed_over
            tallies_are_those_of_the_days_asked_for
            the_values_of_a_day_that_have_tallies_are_bounded
            a_writer_must_have_read_the_newest_statistics
        }
    };
}
pub(crate) use batch_suite;

/// A store whose ends can be counted.
pub(crate) trait CountEnds: Shared {
    /// Counts the ends of these executions, as the table's stream lets it be done.
    async fn count_ends(&self, ids: &[ExecutionId]);
}

/// Counts ends a while after the tests' own time.
pub(crate) async fn count_in(store: &impl StatisticsStore, ids: &[ExecutionId]) {
    count(store, at(600_000), ids).await.expect(ANSWERS);
}

fn today() -> RangeInclusive<NaiveDate> {
    let day = at(0).date_naive();
    day..=day
}

async fn tallies(
    store: &impl ReadStore,
    by: Dimension,
    days: RangeInclusive<NaiveDate>,
) -> BTreeMap<(NaiveDate, Slot), Tally> {
    let tallies = store.tallies(by, days).await.expect(ANSWERS);
    let count = tallies.len();
    let each = |DatedTally { day, slot, tally }| ((day, slot), tally);
    let by_slot: BTreeMap<_, _> = tallies.into_iter().map(each).collect();
    assert_eq!(by_slot.len(), count, "a slot has one tally on a day");
    by_slot
}

/// How many runs of today are in each slot.
async fn runs(store: &impl ReadStore, by: Dimension) -> BTreeMap<String, u64> {
    let tallies = tallies(store, by, today()).await;
    tallies
        .into_iter()
        .map(|((_, slot), tally)| (slot.to_string(), tally.runs))
        .collect()
}

fn counted<const N: usize>(runs: [(&str, u64); N]) -> BTreeMap<String, u64> {
    runs.map(|(slot, runs)| (slot.to_owned(), runs)).into()
}

/// Runs an execution to its end.
pub(super) async fn ended(store: &impl Shared, wish: Wish, exit_code: i32) -> Execution {
    let execution = wish.submit(store).await;
    let launched = launch(store, &execution).await;
    close(store, &launched, exit_code).await
}

pub(crate) async fn each_end_is_counted_in_every_dimension(store: impl CountEnds) {
    let of_group = Wish {
        group: Some("nightly"),
        ..Wish::of("bob", 1)
    };
    let ids = [
        ended(&store, Wish::of("alice", 0), 0).await.id,
        ended(&store, of_group, 3).await.id,
        ended(&store, Wish::of("bob", 2), 0).await.id,
    ];
    store.count_ends(&ids).await;
    let statuses = counted([("=FAILED", 1), ("=SUCCEEDED", 2)]);
    assert_eq!(runs(&store, Dimension::Status).await, statuses);
    assert_eq!(runs(&store, Dimension::Day).await, statuses);
    assert_eq!(
        runs(&store, Dimension::Group).await,
        counted([("=nightly", 1), ("-", 2)])
    );
    assert_eq!(
        runs(&store, Dimension::Submitter).await,
        counted([("=alice", 1), ("=bob", 2)])
    );
    assert_eq!(runs(&store, Dimension::Name).await, counted([("-", 3)]));
    let all = tallies(&store, Dimension::Name, today()).await;
    let [all] = all.values().collect::<Vec<_>>()[..] else {
        panic!("one tally")
    };
    assert_eq!((all.succeeded, all.cancelled), (2, 0));
    // Each waited for a millisecond. Its task was there for 40 seconds, with a quarter of a vCPU.
    assert_eq!((all.wait.count(), all.wait.quantile(0.95)), (3, Some(1)));
    assert_eq!(all.cpu_ms, 3 * 256 * 40_000);
}

pub(crate) async fn an_end_counts_once_though_its_record_changes_again(store: impl CountEnds) {
    let ended = ended(&store, Wish::default(), 0).await;
    store.count_ends(std::slice::from_ref(&ended.id)).await;
    let again = store.update(&ended, ended.clone(), &[]).await;
    again.expect("nobody else writes it");
    store.count_ends(std::slice::from_ref(&ended.id)).await;
    assert_eq!(
        runs(&store, Dimension::Status).await,
        counted([("=SUCCEEDED", 1)])
    );
}

pub(crate) async fn a_run_that_has_not_ended_is_not_counted(store: impl CountEnds) {
    let waiting = Wish::of("alice", 0).submit(&store).await;
    let launched = launch(&store, &Wish::of("bob", 1).submit(&store).await).await;
    let unknown = Wish::of("carol", 2).execution();
    let ids = [waiting.id, launched.id, unknown.id];
    store.count_ends(&ids).await;
    for dimension in Dimension::ALL {
        assert_eq!(runs(&store, dimension).await, counted([]), "{dimension}");
    }
}

/// A member of a cancelled group is recorded as cancelled.
pub(crate) async fn a_run_that_is_recorded_as_ended_is_counted(store: impl CountEnds) {
    let cancelled = |number| {
        let execution = Wish::of("alice", number).execution();
        match execution.cancelled(&caller("bob"), at(number)) {
            CancelDecision::Changed(cancelled) => *cancelled,
            other => panic!("{other:?}"),
        }
    };
    let all = [cancelled(0), cancelled(1), cancelled(2)];
    store.create(&all[0], None).await.expect(ANSWERS);
    store.create(&all[0], None).await.expect(ANSWERS);
    store.create_all(all.to_vec()).await.expect(ANSWERS);
    store.count_ends(&all.map(|execution| execution.id)).await;
    assert_eq!(
        runs(&store, Dimension::Status).await,
        counted([("=CANCELLED", 3)])
    );
}

pub(crate) async fn an_end_counts_once_in_whatever_batches_it_comes<S>(store: S)
where
    S: StatisticsStore + Shared,
{
    let mut ids = Vec::new();
    for number in 0..7 {
        ids.push(ended(&store, Wish::of("alice", number), 0).await.id);
    }
    let backwards: Vec<_> = ids.iter().rev().cloned().collect();
    for batch in [&ids[2..4], &ids[..4], &ids[3..], &backwards, &ids, &[]] {
        count_in(&store, batch).await;
    }
    let twice: Vec<_> = ids.iter().chain(&ids).cloned().collect();
    count_in(&store, &twice).await;
    assert_eq!(
        runs(&store, Dimension::Submitter).await,
        counted([("=alice", 7)])
    );
}

pub(crate) async fn batches_at_the_same_time_count_each_end_once<S>(store: S)
where
    S: StatisticsStore + Shared,
{
    let mut ids = Vec::new();
    for number in 0..8 {
        ids.push(ended(&store, Wish::of("alice", number), 0).await.id);
    }
    at_once(&store, 4, |store, number| {
        let from = usize::try_from(number).expect("small");
        let batch = ids[from..from + 5].to_vec();
        async move { count_in(&store, &batch).await }
    })
    .await;
    assert_eq!(
        runs(&store, Dimension::Status).await,
        counted([("=SUCCEEDED", 8)])
    );
}

pub(crate) async fn an_end_of_long_ago_is_passed_over<S>(store: S)
where
    S: StatisticsStore + Shared,
{
    let ended = ended(&store, Wish::default(), 0).await;
    let later = at(60_000) + COUNTED_WITHIN;
    count(&store, later, &[ended.id]).await.expect(ANSWERS);
    assert_eq!(runs(&store, Dimension::Day).await, counted([]));
}

/// The end of a run of this name, so many minutes after the tests' day began.
pub(super) fn end(number: u64, name: &str, minutes: i64) -> RunEnd {
    let begin = at(0).date_naive().and_hms_opt(0, 0, 0).expect("midnight");
    let at = begin.and_utc() + TimeDelta::minutes(minutes);
    RunEnd {
        id: ExecutionId::new(at, number.into()),
        at,
        status: ExecutionStatus::Succeeded,
        group: None,
        submitter: "ci".into(),
        name: Some(name.to_owned()),
        capacity: "spot".into(),
        wait_ms: None,
        provisioning_ms: None,
        run_ms: Some(1_000),
        cpu_ms: 1,
        cost: Some((NanoUsd(1), NanoUsd(2))),
        is_unpriced: false,
    }
}

/// Counts ends whose runs are not on record.
pub(super) async fn count_these(store: &impl StatisticsStore, ends: Vec<RunEnd>) {
    for batch in batches(ends) {
        let day = batch[0].day();
        let before = store.day_statistics(day, &batch).await.expect(ANSWERS);
        let (after, counted) = before.with(&batch).expect("they are new");
        let set = store.set_day_statistics(&before, &after, &counted).await;
        assert!(set.expect(ANSWERS), "nobody else writes");
    }
}

pub(crate) async fn tallies_are_those_of_the_days_asked_for(store: impl StatisticsStore) {
    // From one month to the next but one.
    let ends = (0..70_i64).map(|day| end(day.unsigned_abs(), "tests", day * 24 * 60));
    count_these(&store, ends.collect()).await;
    let first = at(0).date_naive();
    for by in [Dimension::Day, Dimension::Status, Dimension::Name] {
        for (from, to) in [(0, 0), (3, 9), (0, 69), (10, 45), (60, 80), (70, 71)] {
            let days = first + Days::new(from)..=first + Days::new(to);
            let tallies = tallies(&store, by, days.clone()).await;
            let found: Vec<_> = tallies.keys().map(|(day, _)| *day).collect();
            let last = first + Days::new(to.min(69));
            let days_from = first
                .iter_days()
                .skip(usize::try_from(from).expect("small"));
            let wanted: Vec<_> = days_from.take_while(|day| *day <= last).collect();
            assert_eq!(found, wanted, "{by} {days:?}");
        }
    }
}

pub(crate) async fn the_values_of_a_day_that_have_tallies_are_bounded(store: impl StatisticsStore) {
    let names = VALUES_MAX + 5;
    let numbered = |number: usize| format!("n{number}");
    let ends = (0..names).map(|number| end(number as u64, &numbered(number), 0));
    count_these(&store, ends.collect()).await;
    let more = [
        end(names as u64, "n0", 1),
        end(names as u64 + 1, "late", 1),
        RunEnd {
            name: None,
            ..end(names as u64 + 2, "", 1)
        },
    ];
    count_these(&store, more.into()).await;
    let runs = runs(&store, Dimension::Name).await;
    assert_eq!(
        runs.len(),
        VALUES_MAX + 2,
        "those without a name, and all others"
    );
    assert_eq!((runs["=n0"], runs["+"], runs["-"]), (2, 6, 1));
    let days = tallies(&store, Dimension::Day, today()).await;
    let counted: u64 = days.values().map(|tally| tally.runs).sum();
    assert_eq!(counted, names as u64 + 3);
}

pub(crate) async fn a_writer_must_have_read_the_newest_statistics(store: impl StatisticsStore) {
    let (one, other) = ([end(1, "a", 0)], [end(2, "b", 0)]);
    let day = one[0].day();
    let before = store.day_statistics(day, &one).await.expect(ANSWERS);
    count_these(&store, other.to_vec()).await;
    let (after, counted) = before.with(&one).expect("it is new");
    let set = store.set_day_statistics(&before, &after, &counted).await;
    assert!(!set.expect(ANSWERS), "another wrote meanwhile");
    assert_eq!(
        runs(&store, Dimension::Name).await,
        self::counted([("=b", 1)])
    );
    count_these(&store, one.to_vec()).await;
    let all = tallies(&store, Dimension::Status, today()).await;
    let [all] = all.values().collect::<Vec<_>>()[..] else {
        panic!("one tally")
    };
    assert_eq!(
        (all.runs, all.cost_low, all.cost_high),
        (2, NanoUsd(2), NanoUsd(4))
    );
}
