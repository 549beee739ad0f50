//! Counts, times and costs of the runs that ended on a day.
//!
//! A store keeps a [`Tally`] for each day and for each value that runs are grouped by. Tallies only
//! grow and can be added up in any order, so a store adds a batch of ends without reading their
//! counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    execution::{Execution, ExecutionStatus},
    id::ExecutionId,
    price::NanoUsd,
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

/// The end of a run, as far as statistics need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// The run.
    pub id: ExecutionId,
    /// The moment of its end.
    pub at: Timestamp,
    status: ExecutionStatus,
    group: Option<String>,
    submitter: String,
    name: Option<String>,
    wait_ms: Option<u64>,
    run_ms: Option<u64>,
    cpu_ms: u64,
    cost: Option<(NanoUsd, NanoUsd)>,
    is_unpriced: bool,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All that ended.
    pub runs: u64,
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
    /// The CPU units that tasks had, times the milliseconds that they had them.
    pub cpu_ms: u64,
    /// The cost, at least.
    pub cost_low: NanoUsd,
    /// The cost, at most.
    pub cost_high: NanoUsd,
    /// Those that had a task whose price is not known.
    pub unpriced: u64,
    /// How long they waited for their launches, in milliseconds.
    pub wait: Sketch,
    /// How long their commands ran, in milliseconds.
    pub run: Sketch,
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

/// The place of a tally.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TallyKey {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// The property that the runs are grouped by.
    pub dimension: Dimension,
    /// Their slot.
    pub slot: Slot,
}

/// Adds these ends up. `known` are the values that have tallies of their own already, by day and
/// dimension. Further values get their own, in the order of their names, while there is room for
/// them. Two batches at the same time may each use the last room, so a few more than
/// [`VALUES_MAX`] are possible.
#[must_use]
pub fn add_up(
    ends: &[RunEnd],
    known: &BTreeMap<(NaiveDate, Dimension), BTreeSet<String>>,
) -> BTreeMap<TallyKey, Tally> {
    let mut by_slot: BTreeMap<TallyKey, Tally> = BTreeMap::new();
    for end in ends {
        for dimension in Dimension::ALL {
            let key = TallyKey {
                day: end.day(),
                dimension,
                slot: end.slot(dimension),
            };
            by_slot.entry(key).or_default().add(end);
        }
    }
    let mut room: BTreeMap<(NaiveDate, Dimension), usize> = BTreeMap::new();
    let mut tallies: BTreeMap<TallyKey, Tally> = BTreeMap::new();
    for (mut key, tally) in by_slot {
        if let (Slot::Value(value), true) = (&key.slot, key.dimension.is_open()) {
            let place = (key.day, key.dimension);
            let known = known.get(&place);
            let left = room
                .entry(place)
                .or_insert_with(|| VALUES_MAX.saturating_sub(known.map_or(0, BTreeSet::len)));
            if !known.is_some_and(|known| known.contains(value)) {
                match left.checked_sub(1) {
                    Some(less) => *left = less,
                    None => key.slot = Slot::Other,
                }
            }
        }
        tallies.entry(key).or_default().merge(&tally);
    }
    tallies
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

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
            wait_ms: Some(1_000),
            run_ms: Some(u64::from(number) * 1_000),
            cpu_ms: 256 * 3_600_000,
            cost: Some((NanoUsd(1), NanoUsd(3))),
            is_unpriced: false,
        }
    }

    fn tally<'a>(
        tallies: &'a BTreeMap<TallyKey, Tally>,
        dimension: Dimension,
        slot: &Slot,
    ) -> &'a Tally {
        let found = tallies
            .iter()
            .find(|(key, _)| key.dimension == dimension && key.slot == *slot);
        found.map(|(_, tally)| tally).expect("it is counted")
    }

    #[test]
    fn each_end_is_in_one_slot_of_each_dimension() {
        let ends = [
            end(1, Some("tests"), ExecutionStatus::Succeeded),
            end(2, None, ExecutionStatus::Failed),
            end(3, Some("tests"), ExecutionStatus::Cancelled),
        ];
        let tallies = add_up(&ends, &BTreeMap::new());
        for dimension in Dimension::ALL {
            let of_dimension = tallies.iter().filter(|(key, _)| key.dimension == dimension);
            let runs: u64 = of_dimension.map(|(_, tally)| tally.runs).sum();
            assert_eq!(runs, 3, "{dimension}");
        }
        let day = tally(&tallies, Dimension::Day, &Slot::None);
        assert_eq!(
            day.success_rate(),
            Some(0.5),
            "one of the two not cancelled"
        );
        assert!((day.vcpu_hours() - 0.75).abs() < 1e-9);
        assert_eq!((day.cost_low, day.cost_high), (NanoUsd(3), NanoUsd(9)));
        let named = tally(&tallies, Dimension::Name, &Slot::Value("tests".into()));
        assert_eq!((named.runs, named.run.count()), (2, 2));
        assert_eq!(tally(&tallies, Dimension::Name, &Slot::None).runs, 1);
        assert_eq!(
            tally(&tallies, Dimension::Status, &Slot::Value("FAILED".into())).runs,
            1
        );
    }

    #[test]
    fn tallies_of_parts_are_those_of_the_whole_in_any_order() {
        let ends: Vec<_> = (1..20)
            .map(|number| end(number, Some("tests"), ExecutionStatus::Succeeded))
            .collect();
        let whole = add_up(&ends, &BTreeMap::new());
        for at in 0..ends.len() {
            let (one, other) = ends.split_at(at);
            let mut parts = add_up(other, &BTreeMap::new());
            for (key, tally) in add_up(one, &BTreeMap::new()) {
                parts.entry(key).or_default().merge(&tally);
            }
            assert_eq!(parts, whole, "{at}");
        }
    }

    #[test]
    fn values_beyond_a_thousand_a_day_are_counted_together() {
        let day = end(1, None, ExecutionStatus::Succeeded).day();
        let known: BTreeSet<_> = (1..VALUES_MAX).map(|number| format!("k{number}")).collect();
        let known = BTreeMap::from([((day, Dimension::Name), known)]);
        let ends = [
            end(1, Some("c"), ExecutionStatus::Succeeded),
            end(2, Some("k1"), ExecutionStatus::Succeeded),
            end(3, Some("a"), ExecutionStatus::Succeeded),
            end(4, Some("b"), ExecutionStatus::Succeeded),
        ];
        let tallies = add_up(&ends, &known);
        let names: Vec<_> = tallies
            .iter()
            .filter(|(key, _)| key.dimension == Dimension::Name)
            .map(|(key, tally)| (key.slot.clone(), tally.runs))
            .collect();
        let value = |name: &str| Slot::Value(name.to_owned());
        assert_eq!(names, [(value("a"), 1), (value("k1"), 1), (Slot::Other, 2)]);
    }
}
