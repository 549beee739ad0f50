//! What work on all members of a group has in common, whatever is done with them.
//!
//! A group may have ten thousand members, so one request only writes down what is asked for. The control queue does the work, page by page,
//! and the sweep goes on with work that stands still.

use std::fmt::Debug;

use chrono::TimeDelta;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Timestamp, message::Message, request::Name, stored::Unknown};

/// After how long without progress the sweep takes it that nobody does the work. Ours: above the time of the launcher function.
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

/// Work on the members of one group, as it is stored: one of a kind for each group.
pub trait GroupWork: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its kind.
    const KIND: GroupWorkKind;
    /// Its name in an error.
    const WHAT: &'static str;

    /// The group it is found by.
    fn group(&self) -> &Name;

    /// How often it was written: the store's condition.
    fn revision(&self) -> u64;

    /// Whether nothing is left to do.
    fn is_done(&self) -> bool;

    /// When somebody last did some of it.
    fn touched_at(&self) -> Timestamp;

    /// Until when it is kept.
    fn expires_at(&self) -> Timestamp;

    /// The message that has it done.
    fn message(&self) -> Message;

    /// What a newer release wrote into the stored form.
    fn unknown(&self) -> &Unknown;

    /// The same as the store keeps it: with its revision, and what a newer release wrote.
    #[must_use]
    fn stored_as(self, revision: u64, unknown: Unknown) -> Self;

    /// Whether nobody seems to do it.
    #[must_use]
    fn is_stalled(&self, now: Timestamp) -> bool {
        !self.is_done() && now - self.touched_at() >= STALLED
    }
}
