//! The statistics of ended runs. A day has an item with the tallies of its statuses, and one for
//! each other slot. Each transaction also writes the ids that it counts, in an item for each five
//! minutes of their ends. Every transaction is conditional on the revision of the day's item, so
//! the other items need no condition.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta};
use domain::{
    id::ExecutionId,
    ports::PortError,
    statistics::{
        DatedTally, DayStatistics, Dimension, Place, REMEMBERED, RunEnd, Slot, TALLY_KEPT, Tally,
    },
};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    DynamoStore,
    item::{Item, Key, expiry, item_of, number, small_item, text_of, value_of},
    table::{Condition, Freshness},
};

/// The stored form of a day.
#[derive(Serialize, Deserialize)]
struct DayItem {
    rev: u64,
    /// How many values of each open dimension have tallies of their own.
    values: BTreeMap<String, usize>,
    statuses: BTreeMap<String, Tally>,
    expires: i64,
}

/// The stored form of a slot's tally.
#[derive(Serialize, Deserialize)]
struct TallyItem {
    tally: Tally,
    expires: i64,
}

/// The length of an id in a list of those that are counted.
const ID_BYTES: usize = 16;

/// The partition of a month's statistics.
fn partition(day: NaiveDate) -> String {
    format!("STATS#{}", day.format("%Y-%m"))
}

fn day_key(day: NaiveDate) -> Key {
    Key::new(partition(day), format!("day#{:02}", day.day()))
}

/// The beginning of the sort keys of a dimension's tallies on a day. The tallies of statuses are in
/// the day's item.
fn sort_key(dimension: Dimension, day: NaiveDate) -> String {
    format!("{dimension}#{:02}#", day.day())
}

fn tally_key(day: NaiveDate, dimension: Dimension, slot: &Slot) -> Key {
    Key::new(
        partition(day),
        format!("{}{slot}", sort_key(dimension, day)),
    )
}

/// The day in the month and the slot of a tally with this sort key.
fn slot_of(sk: &str) -> Option<(u32, Slot)> {
    let mut parts = sk.splitn(3, '#').skip(1);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The beginning of the sort keys of the ids that are counted for five minutes.
fn span_key(span: i64) -> String {
    format!("counted#{span}#")
}

/// When an item of this day expires that is kept for so long after it.
fn expires(day: NaiveDate, kept: TimeDelta) -> i64 {
    let next = day.checked_add_days(Days::new(1)).unwrap_or(day);
    expiry(next.and_time(NaiveTime::MIN).and_utc() + kept)
}

/// The ids in an item of those that are counted.
fn ids_of(item: &Item) -> Vec<ExecutionId> {
    let bytes = item.get("ids").and_then(|ids| ids.as_b().ok());
    let bytes = bytes.map_or(&[][..], |blob| blob.as_ref());
    let ids = bytes.as_chunks::<ID_BYTES>().0;
    ids.iter().copied().map(ExecutionId::from_bytes).collect()
}

impl DynamoStore {
    pub(super) async fn day_statistics(
        &self,
        day: NaiveDate,
        ends: &[RunEnd],
    ) -> Result<DayStatistics, PortError> {
        // The day is read first. A later write by others shows in its revision.
        let Some(item) = self.get(day_key(day)).await? else {
            return Ok(DayStatistics::empty(day));
        };
        let (
            DayItem {
                rev,
                values,
                statuses,
                ..
            },
            unknown,
        ) = value_of(&format!("the statistics of {day}"), item)?;
        let statuses = statuses
            .into_iter()
            .map(|(status, tally)| ((Dimension::Status, Slot::Value(status)), tally));
        let spans: BTreeSet<_> = ends.iter().map(RunEnd::span).collect();
        let ((tallies, unreadable), counted) = futures_util::future::try_join(
            self.tallies_of(day, ends),
            try_join_all(spans.into_iter().map(|span| self.counted(day, span))),
        )
        .await?;
        Ok(DayStatistics {
            day,
            revision: rev,
            values,
            tallies: statuses.chain(tallies).collect(),
            unreadable,
            counted: counted.concat().into_iter().collect(),
            unknown,
        })
    }

    /// The tallies at the slots of these ends, but for those of statuses, and the places whose
    /// tallies cannot be read.
    async fn tallies_of(
        &self,
        day: NaiveDate,
        ends: &[RunEnd],
    ) -> Result<(Vec<(Place, Tally)>, BTreeSet<Place>), PortError> {
        let open = Dimension::STORED.into_iter().filter(|it| it.is_open());
        let places: BTreeMap<String, Place> = open
            .flat_map(|dimension| {
                let slots = ends.iter().map(move |end| end.slot(dimension));
                slots
                    .chain([Slot::Other])
                    .map(move |slot| (dimension, slot))
            })
            .map(|place| (tally_key(day, place.0, &place.1).sk, place))
            .collect();
        let keys: Vec<_> = places
            .keys()
            .map(|sk| Key::new(partition(day), sk))
            .collect();
        let items = self.items_of(&keys, Freshness::LastWritten).await?;
        let (mut tallies, mut unreadable) = (Vec::new(), BTreeSet::new());
        for item in items {
            let place = text_of(&item, "sk").and_then(|sk| places.get(sk));
            let Some(place) = place.cloned() else {
                continue;
            };
            let read = value_of(&format!("a tally of {day}"), item);
            match read.inspect_err(PortError::note_corrupt) {
                Ok((TallyItem { tally, .. }, unknown)) => {
                    tallies.push((place, Tally { unknown, ..tally }));
                }
                Err(_) => drop(unreadable.insert(place)),
            }
        }
        Ok((tallies, unreadable))
    }

    /// The ids that are counted of the ends of five minutes.
    async fn counted(&self, day: NaiveDate, span: i64) -> Result<Vec<ExecutionId>, PortError> {
        let items = self.collection(&partition(day), &span_key(span)).await?;
        Ok(items.iter().flat_map(ids_of).collect())
    }

    pub(super) async fn set_day_statistics(
        &self,
        before: &DayStatistics,
        after: &DayStatistics,
        counted: &[RunEnd],
    ) -> Result<bool, PortError> {
        let day = after.day;
        let unchanged = match before.revision {
            0 => Condition::absent(),
            revision => Condition::new("rev = :rev", [(":rev", number(revision))]),
        };
        let mut writes = vec![self.put_part(day_item(after)?, unchanged)?];
        let tallies = after.tallies.iter().filter(|(place, tally)| {
            place.0 != Dimension::Status && before.tallies.get(*place) != Some(*tally)
        });
        for ((dimension, slot), tally) in tallies {
            let item = TallyItem {
                tally: tally.clone(),
                expires: expires(day, TALLY_KEPT),
            };
            let item = item_of(tally_key(day, *dimension, slot), &item, &tally.unknown)?;
            writes.push(self.put_part(item, Condition::default())?);
        }
        let mut spans: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
        for end in counted {
            let ids = spans.entry(end.span()).or_default();
            ids.extend(end.id.to_bytes());
        }
        for (span, ids) in spans {
            let sk = format!("{}{}", span_key(span), after.revision);
            let item = small_item(
                Key::new(partition(day), sk),
                [
                    ("ids", AttributeValue::B(Blob::new(ids))),
                    ("expires", number(expires(day, REMEMBERED))),
                ],
            );
            writes.push(self.put_part(item, Condition::default())?);
        }
        self.all_or_nothing(&writes).await
    }

    /// Reads a month at a time.
    pub(super) async fn tallies(
        &self,
        dimension: Dimension,
        days: RangeInclusive<NaiveDate>,
    ) -> Result<Vec<DatedTally>, PortError> {
        let (mut from, last) = days.into_inner();
        let mut tallies = Vec::new();
        while from <= last {
            let next = first_of_next_month(from);
            let to = last.min(next.pred_opt().unwrap_or(from));
            match dimension.stored() {
                Dimension::Status => {
                    tallies.extend(self.tallies_of_statuses(from, to).await?);
                }
                _ => tallies.extend(self.tallies_of_slots(dimension, from, to).await?),
            }
            from = next;
        }
        Ok(tallies)
    }

    async fn tallies_of_statuses(
        &self,
        from: NaiveDate,
        to: NaiveDate,
    ) -> Result<Vec<DatedTally>, PortError> {
        let (first, last) = (day_key(from), day_key(to));
        let items = self.range(&first.pk, &first.sk, &last.sk).await?;
        let mut tallies = Vec::new();
        for item in items {
            let day = text_of(&item, "sk")
                .and_then(|sk| sk.split('#').nth(1)?.parse().ok())
                .and_then(|day| from.with_day(day));
            let Some((day, form)) = day.zip(noted::<DayItem>(item)) else {
                continue;
            };
            tallies.extend(form.statuses.into_iter().map(|(status, tally)| DatedTally {
                day,
                slot: Slot::Value(status),
                tally,
            }));
        }
        Ok(tallies)
    }

    async fn tallies_of_slots(
        &self,
        dimension: Dimension,
        from: NaiveDate,
        to: NaiveDate,
    ) -> Result<Vec<DatedTally>, PortError> {
        // `$` comes after `#`.
        let last = format!("{dimension}#{:02}$", to.day());
        let items = self
            .range(&partition(from), &sort_key(dimension, from), &last)
            .await?;
        let read = |item: Item| {
            let (day, slot) = slot_of(text_of(&item, "sk")?)?;
            Some(DatedTally {
                day: from.with_day(day)?,
                slot,
                tally: noted::<TallyItem>(item)?.tally,
            })
        };
        Ok(items.into_iter().filter_map(read).collect())
    }
}

fn day_item(statistics: &DayStatistics) -> Result<Item, PortError> {
    let statuses = statistics
        .tallies
        .iter()
        .filter_map(|(place, tally)| match place {
            (Dimension::Status, Slot::Value(status)) => Some((status.clone(), tally.clone())),
            _ => None,
        });
    let form = DayItem {
        rev: statistics.revision,
        values: statistics.values.clone(),
        statuses: statuses.collect(),
        expires: expires(statistics.day, TALLY_KEPT),
    };
    item_of(day_key(statistics.day), &form, &statistics.unknown)
}

/// The form, or a note in the log that it cannot be read.
fn noted<T: DeserializeOwned + Serialize>(item: Item) -> Option<T> {
    let read = value_of("a tally", item).inspect_err(PortError::note_corrupt);
    read.ok().map(|(form, _)| form)
}

fn first_of_next_month(day: NaiveDate) -> NaiveDate {
    let first = day.with_day(1).unwrap_or(day);
    first
        .checked_add_months(chrono::Months::new(1))
        .unwrap_or(NaiveDate::MAX)
}
