//! Work on all members of a group by one request: cancelling them, and running the failed ones
//! again ([`rerun`]).
//!
//! A group is cancelled by one mark, a moment: none of its members that were submitted up to that
//! moment is to start.
//!
//! The mark is what counts. Closing the members one by one takes its time, and is done from page to
//! page beside everything else, so a launcher looks at the mark before it starts a member.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    execution::{Cancel, Execution},
    history::Cursor,
    key::Caller,
    message::Message,
    principal::Principal,
    request::Name,
};

pub mod rerun;
mod work;

pub use rerun::GroupRerun;
pub use work::{GroupWork, GroupWorkKind, Progress, STALLED};

/// How long a mark is kept. A submission's lines may be sent for 24 hours after its first one
/// (DESIGN §7), and those that come late are to find the mark.
pub const KEPT: TimeDelta = TimeDelta::hours(48);
/// How long after the mark the members are looked at once more: who was recorded while they were
/// looked at the first time had not heard of the mark. Ours: above what a request may take (API
/// Gateway's 29 s).
pub const LAST_LOOK: TimeDelta = TimeDelta::seconds(35);

/// The mark of a group, and how far its members are closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupCancel {
    /// How far it is. Members that were submitted up to `at` are not to start, and those that run
    /// are stopped; it is done when none of them is left and none can come any more.
    #[serde(flatten)]
    pub progress: Progress,
    /// The name of the key that asked, for people.
    pub by: String,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_id: Option<Principal>,
    /// The members that were closed, as they had not started.
    pub cancelled: u32,
    /// The members that were asked to stop.
    pub stopping: u32,
    /// The members that could not be read, or that only a newer release knows how to stop.
    pub passed_over: u32,
    /// How often all members were looked at.
    pub looks: u32,
}

/// What a page of members came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Closed, as they had not started.
    pub cancelled: u32,
    /// Asked to stop.
    pub stopping: u32,
    /// Not looked into.
    pub passed_over: u32,
}

impl Closed {
    /// One more, as it stands after it was cancelled.
    pub fn count(&mut self, after: &Execution) {
        match after.end() {
            Some(_) => self.cancelled += 1,
            None => self.stopping += 1,
        }
    }

    /// Those of another look.
    pub fn add(&mut self, other: Self) {
        self.cancelled += other.cancelled;
        self.stopping += other.stopping;
        self.passed_over += other.passed_over;
    }
}

impl GroupCancel {
    /// A mark that is set now, in place of one that was set before.
    #[must_use]
    pub fn new(group: Name, by: &Caller, now: Timestamp, before: Option<&Self>) -> Self {
        let before = before.map(|before| &before.progress);
        let at = before.map_or(now, |before| before.at.max(now));
        Self {
            progress: Progress::new(group, at, now, before),
            by: by.name.clone(),
            by_id: Some(by.principal.clone()),
            cancelled: 0,
            stopping: 0,
            passed_over: 0,
            looks: 0,
        }
    }

    /// Whether this execution is a member that is not to start, or is to stop.
    #[must_use]
    pub fn covers(&self, execution: &Execution) -> bool {
        execution.request.group.as_ref() == Some(&self.progress.group)
            && execution.submitted_at <= self.progress.at
            && execution.end().is_none()
    }

    /// What its members are cancelled by.
    #[must_use]
    pub fn cancel(&self) -> Cancel {
        Cancel {
            at: self.progress.at,
            by: self.by.clone(),
            by_id: self.by_id.clone(),
        }
    }

    /// The mark after a page of members was dealt with; `next` is where the look goes on, `None` at
    /// its end.
    #[must_use]
    pub fn after(&self, page: Closed, next: Option<&Cursor>, now: Timestamp) -> Self {
        let is_over = next.is_none();
        // Of an earlier look nothing is counted twice: who was closed then is final now, and who
        // was asked then is asked only once. Only those that are passed over are met in each look.
        let is_first_page = self.progress.cursor.is_none();
        let passed_over = if is_first_page {
            page.passed_over
        } else {
            self.passed_over + page.passed_over
        };
        let done = is_over && self.began_late_enough();
        Self {
            progress: Progress {
                done,
                ..self.progress.after_page(next, now)
            },
            cancelled: self.cancelled + page.cancelled,
            stopping: self.stopping + page.stopping,
            passed_over,
            looks: self.looks + u32::from(is_over),
            ..self.clone()
        }
    }

    /// Whether it is the same mark, and nobody looked at a page of its members since.
    #[must_use]
    pub fn is_at_the_page_of(&self, earlier: &Self) -> bool {
        let page = |mark: &Self| (mark.progress.at, mark.looks, mark.progress.cursor.clone());
        page(self) == page(earlier)
    }

    /// The mark with what somebody else closed beside whoever moves it on. That is no sign that
    /// somebody moves it on.
    #[must_use]
    pub fn counting(&self, closed: Closed) -> Self {
        let (cancelled, stopping) = (
            self.cancelled + closed.cancelled,
            self.stopping + closed.stopping,
        );
        Self {
            cancelled,
            stopping,
            ..self.clone()
        }
    }

    /// Whether the look that ends now began when nobody could come any more who had not heard of
    /// the mark.
    fn began_late_enough(&self) -> bool {
        self.looks > 0
    }

    /// How long to wait before the next look begins; `None` while one is under way, or once all is
    /// done.
    #[must_use]
    pub fn next_look(&self, now: Timestamp) -> Option<TimeDelta> {
        let waits = self.looks > 0 && self.progress.cursor.is_none() && !self.progress.done;
        waits
            .then(|| self.progress.at + LAST_LOOK - now)
            .filter(|left| *left > TimeDelta::zero())
    }
}

impl GroupWork for GroupCancel {
    const KIND: GroupWorkKind = GroupWorkKind::Cancel;
    const WHAT: &'static str = "the mark of a group";

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn message(&self) -> Message {
        Message::CancelGroup {
            group: self.progress.group.clone(),
        }
    }
}
