//! Work on all members of a group by one request: cancelling them, and running the failed ones
//! again ([`rerun`]).
//!
//! A group is cancelled by a mark, which holds a moment: no member that was submitted up to that
//! moment may start.
//!
//! The mark alone decides. Closing the members page by page takes time and runs beside everything
//! else, so a launcher checks the mark before it starts a member.

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

/// How long a mark is kept. The lines of a submission may be sent for 24 hours after the first one
/// (DESIGN §7), and late ones have to find the mark.
pub const KEPT: TimeDelta = TimeDelta::hours(48);
/// How long after the mark the members are looked at once more. A request that was in progress when
/// the mark was set did not see it, and may record a member during the first look. 35 s are more
/// than a request can take (API Gateway's 29 s).
pub const LAST_LOOK: TimeDelta = TimeDelta::seconds(35);

/// The mark of a cancelled group, and the progress of closing its members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupCancel {
    /// The progress. Members that were submitted up to `at` may not start, and running ones are
    /// stopped. The work is done when none of them is left and no more can come.
    #[serde(flatten)]
    pub progress: Progress,
    /// The name of the key that asked, for people.
    pub by: String,
    /// The principal that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_id: Option<Principal>,
    /// How many members were closed because they had not started.
    pub cancelled: u32,
    /// How many members were asked to stop.
    pub stopping: u32,
    /// How many members could not be read, or can be stopped only by a newer release.
    pub passed_over: u32,
    /// How often all members were looked at.
    pub looks: u32,
}

/// The result of a page of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Members closed because they had not started.
    pub cancelled: u32,
    /// Members asked to stop.
    pub stopping: u32,
    /// Members skipped.
    pub passed_over: u32,
}

impl Closed {
    /// Counts one more member, as it is after it was cancelled.
    pub fn count(&mut self, after: &Execution) {
        match after.end() {
            Some(_) => self.cancelled += 1,
            None => self.stopping += 1,
        }
    }

    /// Adds the counts of another page.
    pub fn add(&mut self, other: Self) {
        self.cancelled += other.cancelled;
        self.stopping += other.stopping;
        self.passed_over += other.passed_over;
    }
}

impl GroupCancel {
    /// The mark that is set now. It replaces an earlier one.
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

    /// Whether this execution is a member that may not start or has to stop.
    #[must_use]
    pub fn covers(&self, execution: &Execution) -> bool {
        execution.request.group.as_ref() == Some(&self.progress.group)
            && execution.submitted_at <= self.progress.at
            && execution.end().is_none()
    }

    /// The cancellation for its members.
    #[must_use]
    pub fn cancel(&self) -> Cancel {
        Cancel {
            at: self.progress.at,
            by: self.by.clone(),
            by_id: self.by_id.clone(),
        }
    }

    /// The mark after a page of members was handled. `next` is where the look continues; `None` at
    /// its end.
    #[must_use]
    pub fn after(&self, page: Closed, next: Option<&Cursor>, now: Timestamp) -> Self {
        let is_over = next.is_none();
        // Nothing of an earlier look is counted twice: a member that was closed then is final now,
        // and a member is asked to stop only once. Only skipped members are met again in each look.
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

    /// Whether this is the same mark, and no page of its members was handled since.
    #[must_use]
    pub fn is_at_the_page_of(&self, earlier: &Self) -> bool {
        let page = |mark: &Self| (mark.progress.at, mark.looks, mark.progress.cursor.clone());
        page(self) == page(earlier)
    }

    /// The mark with the members that a caller closed beside the one who works through the group.
    /// This does not count as progress of that work.
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

    /// Whether the look that ends now began after the last moment at which a request that had not
    /// seen the mark could record a member.
    fn began_late_enough(&self) -> bool {
        self.looks > 0
    }

    /// How long to wait before the next look begins; `None` while a look is under way, or once all
    /// is done.
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
