//! The common part of all work on the members of a group.
//!
//! A group may have ten thousand members, so a request only stores what it asks for. The control
//! queue does the work page by page, and the sweep resumes work that has stalled.

use std::fmt::Debug;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::KEPT;
use crate::{Timestamp, history::Cursor, message::Message, request::Name, stored::Unknown};

/// The time without progress after which the sweep takes work as abandoned. It is longer than the
/// timeout of the launcher function.
pub const STALLED: TimeDelta = TimeDelta::seconds(90);

/// The kinds of work on a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupWorkKind {
    /// The members are cancelled.
    Cancel,
    /// The failed members are run again.
    Rerun,
}

impl GroupWorkKind {
    /// The stored name of the kind.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Rerun => "rerun",
        }
    }
}

/// The part of a stored record that all work on groups has in common: the group and the progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The group by which the record is found.
    pub group: Name,
    /// The number of writes so far; the store's condition for the next one.
    pub revision: u64,
    /// When the work was asked for.
    pub at: Timestamp,
    /// Where the walk through the members continues; `None` at its beginning.
    pub cursor: Option<String>,
    /// When some of the work was last done.
    pub touched_at: Timestamp,
    /// Whether nothing is left to do.
    pub done: bool,
    /// Fields of the stored form that only a newer release knows; the store writes them back.
    #[serde(skip)]
    pub unknown: Unknown,
}

impl Progress {
    /// The progress of work that begins `now`. It replaces earlier work on the same group.
    #[must_use]
    pub fn new(group: Name, at: Timestamp, now: Timestamp, before: Option<&Self>) -> Self {
        Self {
            group,
            revision: before.map_or(0, |before| before.revision),
            at,
            cursor: None,
            touched_at: now,
            done: false,
            unknown: before
                .map(|before| before.unknown.clone())
                .unwrap_or_default(),
        }
    }

    /// The progress after a page of members. The walk continues at `next`, or has ended.
    #[must_use]
    pub fn after_page(&self, next: Option<&Cursor>, now: Timestamp) -> Self {
        Self {
            cursor: next.map(Cursor::encode),
            touched_at: now,
            ..self.clone()
        }
    }

    /// Where the walk continues. After a cursor that this release cannot read, it begins again.
    #[must_use]
    pub fn next(&self) -> Option<Cursor> {
        self.cursor
            .as_deref()
            .and_then(|cursor| Cursor::decode(cursor).ok())
    }
}

/// Work on the members of one group, as it is stored: one record of each kind for each group.
pub trait GroupWork:
    Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The kind.
    const KIND: GroupWorkKind;
    /// The name of the work in an error.
    const WHAT: &'static str;

    /// The group and the progress.
    fn progress(&self) -> &Progress;

    /// The group and the progress, for changes.
    fn progress_mut(&mut self) -> &mut Progress;

    /// The message that makes the control queue do the work.
    fn message(&self) -> Message;

    /// When the record expires.
    fn expires_at(&self) -> Timestamp {
        self.progress().at + KEPT
    }

    /// Whether the work seems abandoned.
    fn is_stalled(&self, now: Timestamp) -> bool {
        let Progress {
            done, touched_at, ..
        } = self.progress();
        !done && now - *touched_at >= STALLED
    }

    /// The record with the next revision, as the store writes it.
    #[must_use]
    fn next_revision(&self) -> Self {
        let mut next = self.clone();
        next.progress_mut().revision += 1;
        next
    }

    /// The record with the fields that a newer release wrote into its stored form.
    #[must_use]
    fn with_unknown(mut self, unknown: Unknown) -> Self {
        self.progress_mut().unknown = unknown;
        self
    }
}
