//! The statistics of ended runs. An end is counted in the transaction that records it, so each
//! counts once.

use chrono::NaiveDate;
use domain::{
    Timestamp,
    ports::PortError,
    statistics::{DatedTally, DayStatistics, Dimension, Place, RunEnd, Slot, TALLY_KEPT, Tally},
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::form;

/// A tally as the file has it.
pub(super) struct TallyRow {
    day: String,
    slot: String,
    form: String,
}

impl TallyRow {
    /// The tally; `None` and a note in the log if it cannot be read.
    pub(super) fn read(self) -> Option<DatedTally> {
        Some(DatedTally {
            day: self.day.parse().ok()?,
            slot: self.slot.parse().ok()?,
            tally: tally_of(&self.form)?,
        })
    }
}

fn tally_of(text: &str) -> Option<Tally> {
    let read = form::read(text.as_bytes()).map_err(|error| PortError::corrupt("a tally", error));
    let (tally, unknown) = read.inspect_err(PortError::note_corrupt).ok()?;
    Some(Tally { unknown, ..tally })
}

/// Counts an end, but for the tallies that cannot be read: its record matters more.
pub(super) fn count(db: &Connection, end: &RunEnd) -> rusqlite::Result<()> {
    let before = statistics_for(db, end)?;
    let Some((after, _)) = before.with(std::slice::from_ref(end)) else {
        return Ok(());
    };
    for (place, tally) in &after.tallies {
        if before.tallies.get(place) != Some(tally) {
            put(db, after.day, place, tally)?;
        }
    }
    Ok(())
}

/// The statistics of a day as far as an end needs them.
fn statistics_for(db: &Connection, end: &RunEnd) -> rusqlite::Result<DayStatistics> {
    let day = end.day();
    let mut statistics = DayStatistics::empty(day);
    for dimension in Dimension::STORED {
        let slot = end.slot(dimension);
        let mut places = vec![(dimension, slot.clone())];
        if dimension.is_open() && find(db, day, &places[0])?.is_none() {
            let count = values(db, day, dimension)?;
            statistics.values.insert(dimension.to_string(), count);
            places.push((dimension, Slot::Other));
        }
        for place in places {
            match find(db, day, &place)?.as_deref().map(tally_of) {
                Some(Some(tally)) => drop(statistics.tallies.insert(place, tally)),
                Some(None) => drop(statistics.unreadable.insert(place)),
                None => {}
            }
        }
    }
    Ok(statistics)
}

fn find(db: &Connection, day: NaiveDate, place: &Place) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT form FROM tallies WHERE dimension = ?1 AND day = ?2 AND slot = ?3")?
        .query_row(
            params![place.0.as_str(), day.to_string(), place.1.to_string()],
            |row| Ok(text(row, 0)?.to_owned()),
        )
        .optional()
}

/// The text of a column; empty if it has none, which is no tally, no day and no slot.
fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a str> {
    Ok(row.get_ref(column)?.as_str().unwrap_or_default())
}

/// How many values of a dimension have tallies on a day. Their slots begin with `=`.
fn values(db: &Connection, day: NaiveDate, dimension: Dimension) -> rusqlite::Result<usize> {
    let count: u32 = db
        .prepare_cached(
            "SELECT COUNT(*) FROM tallies WHERE dimension = ?1 AND day = ?2 AND slot >= '=' AND slot < '>'",
        )?
        .query_row(params![dimension.as_str(), day.to_string()], |row| {
            row.get(0)
        })?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn put(db: &Connection, day: NaiveDate, place: &Place, tally: &Tally) -> rusqlite::Result<()> {
    let form = form::json(tally, &tally.unknown)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    db.prepare_cached(
        "INSERT OR REPLACE INTO tallies (dimension, day, slot, form) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        place.0.as_str(),
        day.to_string(),
        place.1.to_string(),
        form
    ])
    .map(drop)
}

/// The tallies of a dimension on these days.
pub(super) fn tallies(
    db: &Connection,
    dimension: Dimension,
    from: NaiveDate,
    to: NaiveDate,
) -> rusqlite::Result<Vec<TallyRow>> {
    db.prepare_cached(
        "SELECT day, slot, form FROM tallies WHERE dimension = ?1 AND day BETWEEN ?2 AND ?3",
    )?
    .query_map(
        params![
            dimension.stored().as_str(),
            from.to_string(),
            to.to_string()
        ],
        |row| {
            Ok(TallyRow {
                day: text(row, 0)?.to_owned(),
                slot: text(row, 1)?.to_owned(),
                form: text(row, 2)?.to_owned(),
            })
        },
    )?
    .collect()
}

/// Removes the tallies of days that were over for [`TALLY_KEPT`] before this time, up to which
/// records are removed.
pub(crate) fn forget(db: &Connection, before: Timestamp) -> rusqlite::Result<()> {
    let Some(first) = before.checked_sub_signed(TALLY_KEPT) else {
        return Ok(());
    };
    let first = first.date_naive().to_string();
    db.prepare_cached("DELETE FROM tallies WHERE day < ?1")?
        .execute([first])
        .map(drop)
}
