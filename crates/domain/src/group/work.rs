//! What work on all members of a group has in common, whatever is done with them.
//!
//! A group may have ten thousand members, so one request only writes down what is asked for. The
//! control queue does the work, page by page, and the sweep goes on with work that stands still.

use std::fmt::Debug;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::KEPT;
use crate::{Timestamp, history::Cursor, message::Message, request::Name, stored::Unknown};

/// After how long without progress the sweep takes it that nobody does the work. It is above the
/// time of the launcher function.
pub const STALLED: TimeDelta = TimeDelta::seconds(90);

/// The kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupWorkKind {
    /// They are cancelled.
    Cancel,
    /// The failed ones are run again.
    Rerun,
}

impl GroupWorkKind {
    /// Its stored name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Rerun => "rerun",
        }
    }
}

/// The part of a stored record that all work on groups has in common: which group it is for, and
/// how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The group that the record is found by.
    pub group: Name,
    /// Counts the writes; the store's condition.
    pub revision: u64,
    /// When the work was asked for.
    pub at: Timestamp,
    /// Where the walk through the members goes on; `None` at its beginning.
    pub cursor: Option<String>,
    /// When somebody last did some of it.
    pub touched_at: Timestamp,
    /// Nothing is left to do.
    pub done: bool,
    /// Fields of the stored form that only a newer release knows; the store writes them back.
    #[serde(skip)]
    pub unknown: Unknown,
}

impl Progress {
    /// Work that begins `now`, in place of earlier work on the same group.
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

    /// The same after a page of members; the walk goes on at `next`, or has come to its end.
    #[must_use]
    pub fn after_page(&self, next: Option<&Cursor>, now: Timestamp) -> Self {
        Self {
            cursor: next.map(Cursor::encode),
            touched_at: now,
            ..self.clone()
        }
    }

    /// Where the walk goes on. A cursor that this release cannot read begins anew.
    #[must_use]
    pub fn next(&self) -> Option<Cursor> {
        self.cursor
            .as_deref()
            .and_then(|cursor| Cursor::decode(cursor).ok())
    }
}

/// Work on the members of one group, as it is stored: one record of a kind for each group.
pub trait GroupWork:
    Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Its kind.
    const KIND: GroupWorkKind;
    /// Its name in an error.
    const WHAT: &'static str;

    /// Which group it is for, and how far it is.
    fn progress(&self) -> &Progress;

    /// The same, to be changed.
    fn progress_mut(&mut self) -> &mut Progress;

    /// The message that has it done.
    fn message(&self) -> Message;

    /// Until when it is kept.
    fn expires_at(&self) -> Timestamp {
        self.progress().at + KEPT
    }

    /// Whether nobody seems to do it.
    fn is_stalled(&self, now: Timestamp) -> bool {
        let Progress {
            done, touched_at, ..
        } = self.progress();
        !done && now - *touched_at >= STALLED
    }

    /// The record that replaces this one in the store.
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
