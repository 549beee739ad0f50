//! Counts, times and costs of the runs that ended on a day.
//!
//! A store keeps a [`Tally`] for each day and for each value that runs are grouped by. Ends are
//! added in batches, and a store may be told of the same end several times. So it also keeps which
//! ends it has counted, and adds only the others ([`DayStatistics::with`]).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use chrono::{NaiveDate, TimeDelta};
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    execution::{Execution, ExecutionStatus},
    id::ExecutionId,
    price::NanoUsd,
    stored::Unknown,
};

mod sketch;

pub use self::sketch::Sketch;

/// The most values of a dimension that are counted on their own on one day; those that come later
/// are counted together as [`Slot::Other`]. A thousand are more than anybody reads, and a build
/// that makes up a name for each run must not make a tally for each.
pub const VALUES_MAX: usize = 1_000;

/// A property that runs are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The day of the end, in UTC. It has one slot.
    Day,
    /// The final status.
    Status,
    /// The group.
    Group,
    /// The name of the key that submitted them.
    Submitter,
    /// The name of the run.
    Name,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Day,
        Self::Status,
        Self::Group,
        Self::Submitter,
        Self::Name,
    ];

    /// Its name in the API and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Status => "status",
            Self::Group => "group",
            Self::Submitter => "submitter",
            Self::Name => "name",
        }
    }

    /// Those that have tallies. The tally of a day is the sum of those of its statuses.
    pub const STORED: [Self; 4] = [Self::Status, Self::Group, Self::Submitter, Self::Name];

    /// The dimension whose tallies a store has for this one.
    #[must_use]
    pub fn stored(self) -> Self {
        match self {
            Self::Day => Self::Status,
            stored => stored,
        }
    }

    /// How many days a report by this dimension goes back at most.
    #[must_use]
    pub fn days_max(self) -> u32 {
        if self.is_open() {
            DAYS_MAX_OF_VALUES
        } else {
            DAYS_MAX
        }
    }

    /// Whether people make up its values, so that there may be any number of them.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Group | Self::Submitter | Self::Name)
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Dimension {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|dimension| dimension.as_str() == text)
            .ok_or_else(|| {
                let words = Self::ALL.map(Self::as_str).join(", ");
                format!("'{text}' is no property that runs are grouped by; use one of {words}")
            })
    }
}

/// The place of a run within a dimension.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// The runs with this value.
    Value(String),
    /// The runs without a value: of no group, without a name. The only slot of [`Dimension::Day`].
    None,
    /// The runs with a value that came after [`VALUES_MAX`] others on its day.
    Other,
}

impl fmt::Display for Slot {
    /// Its stored spelling: `=` and the value, `-` or `+`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "={value}"),
            Self::None => f.write_str("-"),
            Self::Other => f.write_str("+"),
        }
    }
}

/// A text that is not the stored spelling of a slot.
#[derive(Debug, thiserror::Error)]
#[error("is not a slot")]
pub struct NoSlot;

impl FromStr for Slot {
    type Err = NoSlot;

    fn from_str(text: &str) -> Result<Self, NoSlot> {
        match (text, text.strip_prefix('=')) {
            (_, Some(value)) => Ok(Self::Value(value.to_owned())),
            ("-", _) => Ok(Self::None),
            ("+", _) => Ok(Self::Other),
            _ => Err(NoSlot),
        }
    }
}

/// The end of a run, as far as statistics need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// The run.
    pub id: ExecutionId,
    /// The moment of its end.
    pub at: Timestamp,
    /// Its final status.
    pub status: ExecutionStatus,
    /// Its group.
    pub group: Option<String>,
    /// The name of the key that submitted it.
    pub submitter: String,
    /// Its name.
    pub name: Option<String>,
    /// The capacity that it ran on or waited for, in the API's words: `spot`, `on-demand`,
    /// `machine`.
    pub capacity: String,
    /// How long it waited for its launches, in milliseconds; `None` if it was never launched.
    pub wait_ms: Option<u64>,
    /// How long its tasks took from their launches to the beginning of the image's pull, in
    /// milliseconds.
    pub provisioning_ms: Option<u64>,
    /// How long its command ran, in milliseconds.
    pub run_ms: Option<u64>,
    /// The CPU units that its tasks had, times the milliseconds that they had them.
    pub cpu_ms: u64,
    /// Its cost, at least and at most.
    pub cost: Option<(NanoUsd, NanoUsd)>,
    /// Whether it had a task whose price is not known.
    pub is_unpriced: bool,
}

impl RunEnd {
    /// The end of this run; `None` while it has not ended.
    #[must_use]
    pub fn of(execution: &Execution) -> Option<Self> {
        let end = execution.end()?;
        let (request, timings) = (&execution.request, execution.timings());
        Some(Self {
            id: execution.id.clone(),
            at: end.at,
            status: execution.status(),
            group: request.group.as_ref().map(ToString::to_string),
            submitter: execution.submitted_by.clone(),
            name: request.name.as_ref().map(ToString::to_string),
            capacity: execution.pool.capacity().to_owned(),
            provisioning_ms: timings.provisioning_ms,
            wait_ms: timings
                .queued_ms
                .filter(|_| execution.launched_attempts().next().is_some()),
            run_ms: timings.running_ms,
            cpu_ms: execution.cpu_ms(),
            cost: execution.cost().map(|cost| (cost.low, cost.high)),
            is_unpriced: execution.is_unpriced(),
        })
    }

    /// The day that it is counted on, in UTC.
    #[must_use]
    pub fn day(&self) -> NaiveDate {
        self.at.date_naive()
    }

    /// The five minutes that it ended in, counted from the epoch. A store keeps the ids that it
    /// counted by these: shorter spans would cost more writes, and longer ones more reads.
    #[must_use]
    pub fn span(&self) -> i64 {
        self.at.timestamp().div_euclid(300)
    }

    /// Its slot in a dimension.
    #[must_use]
    pub fn slot(&self, dimension: Dimension) -> Slot {
        let value = match dimension {
            Dimension::Day => None,
            Dimension::Status => Some(self.status.to_string()),
            Dimension::Group => self.group.clone(),
            Dimension::Submitter => Some(self.submitter.clone()),
            Dimension::Name => self.name.clone(),
        };
        value.map_or(Slot::None, Slot::Value)
    }
}

/// The counts, times and cost of the runs of one slot on one day.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// All that ended.
    pub runs: u64,
    /// Those that succeeded.
    #[serde(rename = "ok", default)]
    pub succeeded: u64,
    /// Those that were cancelled.
    #[serde(default)]
    pub cancelled: u64,
    /// The CPU units that tasks had, times the milliseconds that they had them.
    #[serde(rename = "cpu", default)]
    pub cpu_ms: u64,
    /// The cost, at least.
    #[serde(rename = "low", default)]
    pub cost_low: NanoUsd,
    /// The cost, at most.
    #[serde(rename = "high", default)]
    pub cost_high: NanoUsd,
    /// Those that had a task whose price is not known.
    #[serde(default)]
    pub unpriced: u64,
    /// How long they waited for their launches, in milliseconds.
    #[serde(default)]
    pub wait: Sketch,
    /// How long their commands ran, in milliseconds.
    #[serde(default)]
    pub run: Sketch,
    /// The parts of its stored form that only a newer release knows.
    #[serde(skip)]
    pub unknown: Unknown,
}

impl Tally {
    /// Adds an end.
    pub fn add(&mut self, end: &RunEnd) {
        let (low, high) = end.cost.unwrap_or_default();
        self.runs += 1;
        self.succeeded += u64::from(end.status == ExecutionStatus::Succeeded);
        self.cancelled += u64::from(end.status == ExecutionStatus::Cancelled);
        self.cpu_ms = self.cpu_ms.saturating_add(end.cpu_ms);
        self.cost_low = self.cost_low + low;
        self.cost_high = self.cost_high + high;
        self.unpriced += u64::from(end.is_unpriced);
        self.wait.extend(end.wait_ms);
        self.run.extend(end.run_ms);
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.succeeded += other.succeeded;
        self.cancelled += other.cancelled;
        self.cpu_ms = self.cpu_ms.saturating_add(other.cpu_ms);
        self.cost_low = self.cost_low + other.cost_low;
        self.cost_high = self.cost_high + other.cost_high;
        self.unpriced += other.unpriced;
        self.wait.merge(&other.wait);
        self.run.merge(&other.run);
    }

    /// The part of the runs that succeeded, from 0 to 1, among those whose result was wanted to the
    /// end; `None` if there are none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn success_rate(&self) -> Option<f64> {
        let wanted = self.runs - self.cancelled.min(self.runs);
        (wanted > 0).then(|| self.succeeded as f64 / wanted as f64)
    }

    /// The vCPUs that tasks had, times the hours that they had them.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rounding by a billionth")]
    pub fn vcpu_hours(&self) -> f64 {
        self.cpu_ms as f64 / (1024.0 * 3_600_000.0)
    }
}

/// The place of a tally within its day.
pub type Place = (Dimension, Slot);

/// A tally of some dimension, with its day and its slot.
#[derive(Clone, Debug, PartialEq)]
pub struct DatedTally {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// The slot.
    pub slot: Slot,
    /// The tally.
    pub tally: Tally,
}

/// How long a store remembers which ends it has counted, from the end of their day on.
pub const REMEMBERED: TimeDelta = TimeDelta::days(15);
/// How long after an end it is still counted. A stream keeps changes for 24 hours (DynamoDB
/// Developer Guide, "DynamoDB Streams"). An older end was counted before, and its record has
/// changed since.
pub const COUNTED_WITHIN: TimeDelta = TimeDelta::days(14);
/// How long a tally is kept: a year can be compared with the one before.
pub const TALLY_KEPT: TimeDelta = TimeDelta::days(400);
/// How many days a report by day or by status goes back at most: as many as are kept.
pub const DAYS_MAX: u32 = 400;
/// How many days a report by another property goes back at most. Each day may have [`VALUES_MAX`]
/// tallies of it, and a report has to be made within API Gateway's 29 s (AWS-FACTS §7).
pub const DAYS_MAX_OF_VALUES: u32 = 92;
/// How many days a report goes back for which no day was named.
pub const DAYS_DEFAULT: u32 = 30;
const _: () = assert!(
    REMEMBERED.num_days() > COUNTED_WITHIN.num_days(),
    "an end may be counted twice"
);

/// The statistics of one day, as far as some ends need them: what a store reads before it counts
/// those ends, and writes afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct DayStatistics {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// How often this day's statistics were written.
    pub revision: u64,
    /// How many values of each open dimension have tallies of their own, by the dimension's name. A
    /// newer release may know more dimensions.
    pub values: BTreeMap<String, usize>,
    /// The tallies of all statuses, and those of the ends' slots. A slot without a tally has none
    /// yet.
    pub tallies: BTreeMap<Place, Tally>,
    /// The places whose tallies cannot be read. Nothing is added there.
    pub unreadable: BTreeSet<Place>,
    /// Which of the ends are counted already.
    pub counted: BTreeSet<ExecutionId>,
    /// The parts of the day's stored form that only a newer release knows.
    pub unknown: Unknown,
}

impl DayStatistics {
    /// The statistics of a day on which nothing was counted yet.
    #[must_use]
    pub fn empty(day: NaiveDate) -> Self {
        Self {
            day,
            revision: 0,
            values: BTreeMap::new(),
            tallies: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            counted: BTreeSet::new(),
            unknown: Unknown::default(),
        }
    }

    /// These statistics with the ends of this day that are not counted yet, and which ends those
    /// are. `None` if there are none.
    ///
    /// A value gets a tally of its own while fewer than [`VALUES_MAX`] of its dimension have one.
    #[must_use]
    pub fn with(&self, ends: &[RunEnd]) -> Option<(Self, Vec<RunEnd>)> {
        let mut after = self.clone();
        let mut added = Vec::new();
        for end in ends.iter().filter(|end| end.day() == self.day) {
            if after.counted.insert(end.id.clone()) {
                after.add(end);
                added.push(end.clone());
            }
        }
        after.revision += 1;
        (!added.is_empty()).then_some((after, added))
    }

    fn add(&mut self, end: &RunEnd) {
        for dimension in Dimension::STORED {
            let mut place = (dimension, end.slot(dimension));
            let is_new = !self.tallies.contains_key(&place) && !self.unreadable.contains(&place);
            if dimension.is_open() && is_new && matches!(place.1, Slot::Value(_)) {
                let values = self.values.entry(dimension.to_string()).or_default();
                if *values < VALUES_MAX {
                    *values += 1;
                } else {
                    place.1 = Slot::Other;
                }
            }
            if self.unreadable.contains(&place) {
                continue;
            }
            self.tallies.entry(place).or_default().add(end);
        }
    }
}

/// The most rows of a [`StatsReport`]: no more than anybody reads, and far below Lambda's 6 MB
/// (AWS-FACTS §7).
pub const ROWS_MAX: usize = 1_000;

/// A row of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportRow {
    /// The day, for [`Dimension::Day`] alone.
    pub day: Option<NaiveDate>,
    /// The slot.
    pub slot: Slot,
    /// The tally of all days, or of this one.
    pub tally: Tally,
}

/// The counts of some days, by one dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct StatsReport {
    /// The rows: days with the newest first, others with those of the most runs first, and the
    /// slots without a value last.
    pub rows: Vec<ReportRow>,
    /// All runs of these days.
    pub total: Tally,
}

/// Tallies that are added up for a [`StatsReport`].
#[derive(Clone, Debug)]
pub struct ReportSum {
    by: Dimension,
    rows: BTreeMap<(Option<NaiveDate>, Slot), Tally>,
    total: Tally,
}

impl ReportSum {
    /// Nothing yet, to be grouped by this.
    #[must_use]
    pub fn new(by: Dimension) -> Self {
        Self {
            by,
            rows: BTreeMap::new(),
            total: Tally::default(),
        }
    }

    /// The report.
    #[must_use]
    pub fn report(self) -> StatsReport {
        let row = |((day, slot), tally)| ReportRow { day, slot, tally };
        let mut rows: Vec<_> = self.rows.into_iter().map(row).collect();
        let rank = |row: &ReportRow| match row.slot {
            Slot::Value(_) => 0,
            Slot::None => 1,
            Slot::Other => 2,
        };
        // The rows are in the order of their slots already.
        rows.sort_by_key(|row| (Reverse(row.day), rank(row), Reverse(row.tally.runs)));
        if rows.len() > ROWS_MAX {
            fold_the_rest(&mut rows);
        }
        StatsReport {
            rows,
            total: self.total,
        }
    }
}

impl Extend<DatedTally> for ReportSum {
    /// Adds tallies of the dimension that the report is by.
    fn extend<I: IntoIterator<Item = DatedTally>>(&mut self, tallies: I) {
        for DatedTally { day, slot, tally } in tallies {
            self.total.merge(&tally);
            let place = match self.by {
                Dimension::Day => (Some(day), Slot::None),
                _ => (None, slot),
            };
            self.rows.entry(place).or_default().merge(&tally);
        }
    }
}

/// Leaves the first rows, those without a value, and one for all others.
fn fold_the_rest(rows: &mut Vec<ReportRow>) {
    let (mut without, mut kept): (Vec<_>, Vec<_>) = rows
        .drain(..)
        .partition(|row| row.slot == Slot::None && row.day.is_none());
    let room = ROWS_MAX - without.len() - 1;
    let mut other = ReportRow {
        day: None,
        slot: Slot::Other,
        tally: Tally::default(),
    };
    for row in kept.drain(room..) {
        other.tally.merge(&row.tally);
    }
    rows.extend(kept);
    rows.append(&mut without);
    rows.push(other);
}

/// The most places and spans that are written together. DynamoDB takes 100 items in a transaction
/// (AWS-FACTS §6); one is left for the day.
const WRITTEN_TOGETHER: usize = 99;
/// The most ends that are counted together: their ids have to fit into one item of DynamoDB, of
/// 400 KB (AWS-FACTS §6).
const COUNTED_TOGETHER: usize = 5_000;

/// Parts ends into batches that are counted together. The ends of a batch are of one day.
#[must_use]
pub fn batches(mut ends: Vec<RunEnd>) -> Vec<Vec<RunEnd>> {
    ends.sort_by(|one, other| (one.at, &one.id).cmp(&(other.at, &other.id)));
    let mut batches: Vec<Vec<RunEnd>> = Vec::new();
    let (mut places, mut spans) = (BTreeSet::new(), BTreeSet::new());
    for end in ends {
        let of_end = Dimension::STORED
            .into_iter()
            .filter(|dimension| dimension.is_open())
            // An end whose value has no room is counted at `Other`.
            .flat_map(|dimension| [(dimension, end.slot(dimension)), (dimension, Slot::Other)]);
        let (with_end, with_span): (BTreeSet<_>, BTreeSet<_>) = (
            places.iter().cloned().chain(of_end.clone()).collect(),
            spans.iter().copied().chain([end.span()]).collect(),
        );
        let fits = batches.last().is_some_and(|batch| {
            batch.first().is_some_and(|first| first.day() == end.day())
                && batch.len() < COUNTED_TOGETHER
                && with_end.len() + with_span.len() <= WRITTEN_TOGETHER
        });
        match batches.last_mut().filter(|_| fits) {
            Some(batch) => {
                (places, spans) = (with_end, with_span);
                batch.push(end);
            }
            None => {
                (places, spans) = (of_end.collect(), BTreeSet::from([end.span()]));
                batches.push(vec![end]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(number: u8, name: Option<&str>, status: ExecutionStatus) -> RunEnd {
        let at = Timestamp::default() + TimeDelta::seconds(i64::from(number));
        RunEnd {
            id: ExecutionId::new(at, u128::from(number)),
            at,
            status,
            group: None,
            submitter: "ci".into(),
            name: name.map(str::to_owned),
            capacity: "spot".into(),
            wait_ms: Some(1_000),
            provisioning_ms: None,
            run_ms: Some(u64::from(number) * 1_000),
            cpu_ms: 256 * 3_600_000,
            cost: Some((NanoUsd(1), NanoUsd(3))),
            is_unpriced: false,
        }
    }

    fn counted(ends: &[RunEnd]) -> DayStatistics {
        let empty = DayStatistics::empty(ends[0].day());
        empty.with(ends).expect("some are new").0
    }

    fn value(text: &str) -> Slot {
        Slot::Value(text.to_owned())
    }

    #[test]
    fn each_end_is_in_one_slot_of_each_dimension() {
        let ends = [
            end(1, Some("tests"), ExecutionStatus::Succeeded),
            end(2, None, ExecutionStatus::Failed),
            end(3, Some("tests"), ExecutionStatus::Cancelled),
        ];
        let tallies = counted(&ends).tallies;
        let mut day = Tally::default();
        for dimension in Dimension::STORED {
            let of_dimension = tallies.iter().filter(|(place, _)| place.0 == dimension);
            day = Tally::default();
            of_dimension.for_each(|(_, tally)| day.merge(tally));
            assert_eq!(day.runs, 3, "{dimension}");
        }
        assert_eq!(
            day.success_rate(),
            Some(0.5),
            "one of the two not cancelled"
        );
        assert!((day.vcpu_hours() - 0.75).abs() < 1e-9);
        assert_eq!((day.cost_low, day.cost_high), (NanoUsd(3), NanoUsd(9)));
        let named = &tallies[&(Dimension::Name, value("tests"))];
        assert_eq!((named.runs, named.run.count()), (2, 2));
        assert_eq!(tallies[&(Dimension::Name, Slot::None)].runs, 1);
        assert_eq!(tallies[&(Dimension::Status, value("FAILED"))].runs, 1);
    }

    #[test]
    fn an_end_counts_once_however_batches_are_cut_and_repeated() {
        let ends: Vec<_> = (1..20)
            .map(|number| end(number, Some("tests"), ExecutionStatus::Succeeded))
            .collect();
        let whole = counted(&ends);
        for at in 1..ends.len() {
            let (one, other) = ends.split_at(at);
            let mut statistics = counted(other);
            for part in [other, one, &ends[at / 2..], one] {
                if let Some((after, _)) = statistics.with(part) {
                    statistics = after;
                }
            }
            assert_eq!(statistics.tallies, whole.tallies, "{at}");
            assert_eq!(statistics.with(&ends), None);
        }
        let twice = [ends[0].clone(), ends[0].clone()];
        assert_eq!(counted(&twice), counted(&ends[..1]));
    }

    #[test]
    fn values_beyond_a_thousand_a_day_are_counted_together() {
        let known = end(1, Some("known"), ExecutionStatus::Succeeded);
        let mut statistics = counted(std::slice::from_ref(&known));
        statistics.values.insert("name".into(), VALUES_MAX - 1);
        let ends = [
            end(2, Some("c"), ExecutionStatus::Succeeded),
            end(3, Some("known"), ExecutionStatus::Succeeded),
            end(4, Some("a"), ExecutionStatus::Succeeded),
            end(5, None, ExecutionStatus::Succeeded),
            end(6, Some("b"), ExecutionStatus::Succeeded),
        ];
        let (statistics, added) = statistics.with(&ends).expect("they are new");
        assert_eq!(added.len(), 5);
        let names: Vec<_> = statistics
            .tallies
            .iter()
            .filter(|(place, _)| place.0 == Dimension::Name)
            .map(|(place, tally)| (place.1.clone(), tally.runs))
            .collect();
        let wanted = [
            (value("c"), 1),
            (value("known"), 2),
            (Slot::None, 1),
            (Slot::Other, 2),
        ];
        assert_eq!(names, wanted);
        assert_eq!(statistics.values["name"], VALUES_MAX);
        assert_eq!(statistics.values["submitter"], 1);
    }

    #[test]
    fn a_tally_that_cannot_be_read_keeps_no_end_from_the_others() {
        let both = [
            end(1, Some("a"), ExecutionStatus::Succeeded),
            end(2, Some("b"), ExecutionStatus::Succeeded),
        ];
        let mut statistics = DayStatistics::empty(both[0].day());
        let unreadable = (Dimension::Name, value("a"));
        statistics.unreadable.insert(unreadable.clone());
        let (statistics, _) = statistics.with(&both).expect("they are new");
        assert_eq!(statistics.tallies.get(&unreadable), None);
        assert_eq!(statistics.tallies[&(Dimension::Name, value("b"))].runs, 1);
        let succeeded = (Dimension::Status, value("SUCCEEDED"));
        assert_eq!(statistics.tallies[&succeeded].runs, 2);
        assert_eq!(statistics.values["name"], 1, "only b is new");
    }

    #[test]
    fn a_batch_is_of_one_day_and_fits_into_a_transaction() {
        let names: Vec<_> = (0..=255_u8).map(|number| format!("n{number}")).collect();
        let mut ends: Vec<_> = (0..=255_u8)
            .map(|number| {
                let name = &names[usize::from(number)];
                end(number, Some(name), ExecutionStatus::Succeeded)
            })
            .collect();
        for end in &mut ends[100..] {
            end.at += TimeDelta::days(1);
        }
        let batches = batches(ends.iter().rev().cloned().collect());
        for batch in &batches {
            let days: BTreeSet<_> = batch.iter().map(RunEnd::day).collect();
            let spans: BTreeSet<_> = batch.iter().map(RunEnd::span).collect();
            assert_eq!(days.len(), 1);
            let written = counted(batch).tallies.len() + spans.len();
            assert!(written < 100, "{written}");
        }
        assert!(batches.len() <= 5, "{}", batches.len());
        assert_eq!(batches.concat(), ends, "each once, by time");
        assert!(super::batches(Vec::new()).is_empty());
    }

    #[test]
    fn a_report_has_the_most_used_values_and_all_runs() {
        let day = end(1, None, ExecutionStatus::Succeeded).day();
        let tally = |runs| Tally {
            runs,
            ..Tally::default()
        };
        let dated = |slot, runs| DatedTally {
            day,
            slot,
            tally: tally(runs),
        };
        let many = (0..2_000).map(|number| dated(value(&format!("n{number:04}")), 2));
        let few = [
            dated(Slot::None, 7),
            dated(Slot::Other, 5),
            dated(value("often"), 3),
            dated(value("often"), 6),
        ];
        let report = |by, tallies: Vec<_>| {
            let mut sum = ReportSum::new(by);
            sum.extend(tallies);
            sum.report()
        };
        let named = report(Dimension::Name, many.chain(few).collect());
        assert_eq!((named.rows.len(), named.total.runs), (ROWS_MAX, 4_021));
        let shown: Vec<_> = [0, 1, ROWS_MAX - 2, ROWS_MAX - 1]
            .map(|at| (named.rows[at].slot.clone(), named.rows[at].tally.runs))
            .into();
        let others = 4_021 - 9 - 7 - 2 * 997;
        let wanted = [
            (value("often"), 9),
            (value("n0000"), 2),
            (Slot::None, 7),
            (Slot::Other, others),
        ];
        assert_eq!(shown, wanted);

        let next = DatedTally {
            day: day + TimeDelta::days(1),
            ..dated(value("FAILED"), 1)
        };
        let days = [
            dated(value("FAILED"), 2),
            next,
            dated(value("SUCCEEDED"), 4),
        ];
        let report = report(Dimension::Day, days.into());
        let rows = report.rows.iter().map(|row| (row.day, row.tally.runs));
        let wanted = [(Some(day + TimeDelta::days(1)), 1), (Some(day), 6)];
        assert_eq!(rows.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_tally_is_read_as_it_was_stored() {
        let tally = &counted(&[end(1, None, ExecutionStatus::Failed)]).tallies
            [&(Dimension::Name, Slot::None)];
        let stored = serde_json::to_value(tally).expect("it is JSON");
        assert_eq!(
            serde_json::from_value::<Tally>(stored).expect("it is one"),
            *tally
        );
    }
}
