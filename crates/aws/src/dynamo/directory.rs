//! Small directories that save readers from looking where nothing is: the backlogs with the
//! submitters seen in each, and the days with submissions or with ends of one status. A process
//! writes a note once in a while, not once for each run.

use std::str::FromStr;

use chrono::{NaiveDate, TimeDelta};
use domain::{
    Timestamp,
    execution::{Execution, ExecutionStatus},
    limit::LimitKey,
    ports::PortError,
};

use super::{
    DynamoStore,
    item::{Item, Key, day, day_name, expiry, has_expired, number, number_of, small_item, text_of},
    state::has_entry,
    table::{Condition, Freshness},
};

/// The partition of the directory of backlogs. It is read whole, and written a few times an hour.
const LINES: &str = "LINES";
/// How long a submitter that is no longer seen in a backlog stays in its directory: much longer
/// than the ten minutes for which a process trusts its own note (`memory.rs`).
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::days(1);

/// A submitter that is, or was lately, in a backlog.
#[derive(Clone, Debug)]
pub(super) struct BacklogMember {
    pub(super) backlog: LimitKey,
    pub(super) submitter: String,
    /// How many starts it was charged for, in the backlog's virtual time.
    pub(super) served: u64,
    /// Milliseconds since the epoch.
    seen_at: i64,
}

fn member_key(backlog: &LimitKey, submitter: &str) -> Key {
    Key::new(LINES, format!("{backlog}|{submitter}"))
}

impl BacklogMember {
    fn of(item: &Item) -> Option<Self> {
        let (backlog, submitter) = text_of(item, "sk")?.split_once('|')?;
        Some(Self {
            backlog: LimitKey::from_str(backlog).ok()?,
            submitter: submitter.to_owned(),
            served: number_of(item, "served").unwrap_or_default(),
            seen_at: number_of(item, "seen_at").unwrap_or_default(),
        })
    }

    /// When it was last noted, in milliseconds since the epoch.
    pub(super) fn seen(&self) -> i64 {
        self.seen_at
    }

    /// Whether it may be removed if it has no entry.
    pub(super) fn is_old(&self, now: Timestamp) -> bool {
        now.timestamp_millis() - self.seen_at > FORGOTTEN_AFTER.num_milliseconds()
    }
}

/// The partition of the days with submissions, or with ends of one status.
fn days_of(status: Option<&ExecutionStatus>) -> String {
    status.map_or_else(|| "DAYS".to_owned(), |status| format!("DAYS#{status}"))
}

impl DynamoStore {
    /// Notes where this record can be found, before it can be found there: its backlog, and the day
    /// of a run that ended.
    pub(super) async fn note_whereabouts(&self, execution: &Execution) -> Result<(), PortError> {
        if let Some(entry) = execution.backlog_entry() {
            self.note_member(&entry.backlog, &entry.submitter).await?;
        }
        match execution.status() {
            status if has_entry(&status) => self.note_day(Some(&status), day(&execution.id)).await,
            _ => Ok(()),
        }
    }

    /// Notes that something was submitted on this day.
    pub(super) async fn note_submission(&self, execution: &Execution) -> Result<(), PortError> {
        self.note_day(None, day(&execution.id)).await
    }

    async fn note_member(&self, backlog: &LimitKey, submitter: &str) -> Result<(), PortError> {
        let (note, now) = (format!("{backlog}|{submitter}"), (self.now)());
        if self.memory.has_noted(&note, now) {
            return Ok(());
        }
        let seen = Condition::new("", [(":now", number(now.timestamp_millis()))]);
        self.update_if(
            member_key(backlog, submitter),
            "SET seen_at = :now, v = if_not_exists(v, :v)",
            seen,
        )
        .await?;
        self.memory.note(note, now);
        Ok(())
    }

    async fn note_day(
        &self,
        status: Option<&ExecutionStatus>,
        day: NaiveDate,
    ) -> Result<(), PortError> {
        let (pk, sk) = (days_of(status), day_name(day));
        let (note, now) = (format!("{pk}|{sk}"), (self.now)());
        if self.memory.has_noted(&note, now) {
            return Ok(());
        }
        let last =
            day.and_time(chrono::NaiveTime::MIN).and_utc() + self.longest() + TimeDelta::days(2);
        self.put(small_item(
            Key::new(pk, sk),
            [("expires", number(expiry(last)))],
        ))
        .await?;
        self.memory.note(note, now);
        Ok(())
    }

    /// The days with submissions, or with ends of one status, newest first.
    pub(super) async fn days(
        &self,
        status: Option<&ExecutionStatus>,
    ) -> Result<Vec<String>, PortError> {
        let (items, now) = (self.collection(&days_of(status), "").await?, (self.now)());
        let current = items.iter().rev().filter(|item| !has_expired(item, now));
        Ok(current
            .filter_map(|item| text_of(item, "sk"))
            .map(str::to_owned)
            .collect())
    }

    /// The submitters that may be in a backlog.
    pub(super) async fn members(
        &self,
        backlog: &LimitKey,
        freshness: Freshness,
    ) -> Result<Vec<BacklogMember>, PortError> {
        let items = self
            .collection_as(LINES, &format!("{backlog}|"), freshness)
            .await?;
        Ok(items.iter().filter_map(BacklogMember::of).collect())
    }

    /// The submitters that may be in any backlog.
    pub(super) async fn in_any_backlog(&self) -> Result<Vec<BacklogMember>, PortError> {
        let items = self.collection(LINES, "").await?;
        Ok(items.iter().filter_map(BacklogMember::of).collect())
    }

    /// Removes a submitter from a backlog's directory, unless it was seen there again meanwhile.
    pub(super) async fn leave_backlog(&self, who: &BacklogMember) -> Result<(), PortError> {
        let unchanged = Condition::new("seen_at = :seen", [(":seen", number(who.seen_at))]);
        self.delete_if(member_key(&who.backlog, &who.submitter), unchanged)
            .await
            .map(drop)
    }

    /// Charges a submitter for `starts` starts out of a backlog that other submitters are in too.
    ///
    /// The charge is not part of the writes that record the starts. A crash between the two leaves
    /// some starts uncharged. That is acceptable: the order of a backlog is fair over time, and
    /// promises nothing about a single start.
    pub(super) async fn charge(
        &self,
        backlog: &LimitKey,
        submitter: &str,
        starts: u64,
    ) -> Result<(), PortError> {
        let mut seen = self.memory.seen(backlog);
        if seen.len() < 2 {
            return Ok(());
        }
        let (served, reached) = (
            seen.get(submitter).copied().unwrap_or_default(),
            reached(seen.values().copied()),
        );
        let (change, condition) = if served >= reached {
            (
                "ADD served :starts SET v = if_not_exists(v, :v)",
                Condition::new("", [(":starts", number(starts))]),
            )
        } else {
            (
                "SET served = :served, v = if_not_exists(v, :v)",
                Condition::new("", [(":served", number(reached + starts))]),
            )
        };
        self.update_if(member_key(backlog, submitter), change, condition)
            .await?;
        let charged = (0..starts).fold(served, |served, _| {
            domain::scheduler::fair::charge(served, reached)
        });
        seen.insert(submitter.to_owned(), charged);
        self.memory.see(backlog, seen);
        Ok(())
    }
}

/// A backlog's virtual time: the `begins` of the last start. Starts are made in that order, so it
/// is the greatest.
pub(super) fn reached(served: impl Iterator<Item = u64>) -> u64 {
    served.max().unwrap_or_default().saturating_sub(1)
}
