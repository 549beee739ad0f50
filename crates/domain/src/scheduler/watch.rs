//! A launcher's watch over a backlog that moves fast. While it lasts, capacity that is given back
//! needs no wakeup, because the launcher looks again by itself.
//!
//! A watch is worth its writes where wakeups are messages that cost something, and only while starts
//! come without a pause. On one machine a wakeup costs nothing and a slot is to be used at once, so
//! there is no watch.

use chrono::TimeDelta;

use super::state::{HeldBy, Hold, WatchChange};
use crate::Timestamp;

/// After how long another launcher is woken to help. A launcher that never had to wait for this
/// long does not keep up: a round takes a few tenths of a second (SCALING: 100 starts a second).
const HELP: TimeDelta = TimeDelta::seconds(1);
/// The longest that a launcher waits within an invocation (DESIGN §5).
pub const NAP_MAX: TimeDelta = TimeDelta::seconds(1);
/// The shortest wait. Tokens gather meanwhile, so that a backlog held by its rate alone is looked
/// at twice a second and not at each token.
pub const NAP_MIN: TimeDelta = TimeDelta::milliseconds(500);
/// How long a watch lasts unless it is renewed. A round takes some tenths of a second, and a
/// launcher that dies leaves its backlog unwatched for at most this long.
pub const WATCH: TimeDelta = TimeDelta::seconds(2);

/// The progress of one launcher on a backlog, and its watch over it.
#[derive(Clone, Debug)]
pub struct Watch {
    /// How many starts without a pause are worth a watch; `None` if none are.
    fast_from: Option<usize>,
    /// Since when the launcher has not had to wait.
    since: Timestamp,
    /// How many executions it started since then.
    started: usize,
    /// Until when nobody needs to send a wakeup for what they give back: the value that this
    /// launcher last wrote into the backlog's state.
    until: Option<Timestamp>,
    /// Whether it has woken another launcher to help.
    has_help: bool,
}

/// The follow-up of a round that started executions or moved entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The change of the watch.
    pub watch: WatchChange,
    /// Whether another launcher is to be woken, because this one does not keep up.
    pub needs_help: bool,
}

/// The follow-up of a round on a backlog that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// How long to wait before the next round; `None` if waiting is not worth it, or would delay
    /// other backlogs.
    pub nap: Option<TimeDelta>,
    /// The change of the watch.
    pub watch: WatchChange,
    /// Whether the watch ends, so that another look is due: whoever gave something back under the
    /// watch sent no wakeup.
    pub ends_watch: bool,
}

impl Watch {
    /// A launcher's progress as it begins with a backlog. `fast_from` is how many starts without a
    /// pause are worth a watch; `None` where wakeups cost nothing.
    #[must_use]
    pub fn begin(fast_from: Option<usize>, now: Timestamp) -> Self {
        Self {
            fast_from,
            since: now,
            started: 0,
            until: None,
            has_help: false,
        }
    }

    /// Until when the backlog may be watched, as far as this launcher knows.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    fn is_fast(&self) -> bool {
        self.fast_from.is_some_and(|fast| self.started >= fast)
    }

    /// Counts the starts of a round. Returns whether another launcher is to be woken, because this
    /// one does not keep up.
    pub fn count(&mut self, started: usize, now: Timestamp) -> bool {
        self.started += started;
        let needs_help = self.is_fast() && !self.has_help && now - self.since >= HELP;
        self.has_help |= needs_help;
        needs_help
    }

    /// Counts the starts of a round, and renews the watch when it is half over.
    pub fn moved(&mut self, started: usize, now: Timestamp) -> Moved {
        let needs_help = self.count(started, now);
        let is_fast = self.is_fast();
        let lasts = |until: Timestamp| until - now > WATCH / 2;
        let watch = if is_fast && !self.until.is_some_and(lasts) {
            let until = now + WATCH;
            self.until = Some(until);
            WatchChange::Until(until)
        } else {
            WatchChange::Keep
        };
        Moved { watch, needs_help }
    }

    /// Decides how to wait for a backlog that is held: for its rate, or for slots of a full backlog
    /// that moves fast, unless other backlogs wait for this launcher. Under a watch the launcher
    /// waits itself; otherwise its watch ends.
    ///
    /// Until the change is written ([`Self::rested`]), the stored state may hold either watch.
    pub fn rest(&mut self, hold: &Hold, others_wait: bool, now: Timestamp) -> Pause {
        let nap = match hold.by {
            HeldBy::Rate => hold
                .look_at
                .map(|at| at - now)
                .filter(|left| *left <= NAP_MAX),
            HeldBy::Full => Some(NAP_MIN).filter(|_| self.is_fast() && !others_wait),
            HeldBy::Refusals | HeldBy::Pool => None,
        };
        let until = nap
            .filter(|_| self.fast_from.is_some())
            .map(|nap| now + nap + WATCH);
        let (watch, ends_watch) = match (until, self.until) {
            (Some(until), _) => (WatchChange::Until(until), false),
            (None, Some(mine)) => (WatchChange::End(mine), true),
            (None, None) => (WatchChange::Keep, false),
        };
        self.until = until.or(self.until);
        Pause {
            nap,
            watch,
            ends_watch,
        }
    }

    /// Notes that the change of [`Self::rest`] is written.
    pub fn rested(&mut self, rest: &Pause) {
        if rest.ends_watch {
            self.until = None;
        }
    }

    /// How to end the watch, and whether there is one to end. Until the change is written
    /// ([`Self::ended`]), the watch may still be stored.
    #[must_use]
    pub fn end(&self) -> (WatchChange, bool) {
        match self.until {
            Some(mine) => (WatchChange::End(mine), true),
            None => (WatchChange::Keep, false),
        }
    }

    /// Notes that the watch has ended.
    pub fn ended(&mut self) {
        self.until = None;
    }

    /// Notes a pause until now in which the starts did not end: the backlog's index lagged.
    pub fn paused(&mut self, now: Timestamp) {
        self.since = now;
    }

    /// Notes that the launcher had to wait until now.
    pub fn waited(&mut self, now: Timestamp) {
        (self.since, self.started) = (now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_764_000_000_000 + millis).expect("in range")
    }

    fn full() -> Hold {
        Hold {
            by: HeldBy::Full,
            reason: String::new(),
            look_at: None,
        }
    }

    #[test]
    fn a_fast_backlog_is_watched_and_the_watch_renewed_when_half_over() {
        let mut watch = Watch::begin(Some(10), at(0));
        assert_eq!(watch.moved(9, at(0)).watch, WatchChange::Keep);
        assert_eq!(
            watch.moved(1, at(100)).watch,
            WatchChange::Until(at(100) + WATCH)
        );
        assert_eq!(watch.moved(20, at(500)).watch, WatchChange::Keep);
        assert_eq!(
            watch.moved(20, at(1100)).watch,
            WatchChange::Until(at(1100) + WATCH)
        );
    }

    #[test]
    fn nothing_is_watched_where_wakeups_cost_nothing() {
        let mut watch = Watch::begin(None, at(0));
        assert_eq!(watch.moved(1000, at(0)).watch, WatchChange::Keep);
        assert_eq!(watch.rest(&full(), false, at(0)).nap, None);
    }

    #[test]
    fn help_is_asked_for_once() {
        let mut watch = Watch::begin(Some(10), at(0));
        let asked: Vec<_> = (0..5)
            .map(|second| watch.moved(20, at(second * 1000)).needs_help)
            .collect();
        assert_eq!(asked, [false, true, false, false, false]);
    }

    #[test]
    fn a_full_backlog_is_waited_for_only_while_no_other_waits() {
        let mut watch = Watch::begin(Some(10), at(0));
        watch.moved(20, at(0));
        let alone = watch.clone().rest(&full(), false, at(100));
        assert_eq!((alone.nap, alone.ends_watch), (Some(NAP_MIN), false));
        let rest = watch.rest(&full(), true, at(100));
        assert_eq!((rest.nap, rest.ends_watch), (None, true));
        assert_eq!(rest.watch, WatchChange::End(at(0) + WATCH));
        assert!(watch.until().is_some(), "it may still be stored");
        watch.rested(&rest);
        assert_eq!(watch.until(), None);
    }

    /// A round that fills a pool is followed by its hold at once, in one write. If that ends the
    /// watch, it must end the one that is stored.
    #[test]
    fn starts_that_are_followed_by_a_hold_leave_the_watch_as_it_is_stored() {
        let mut watch = Watch::begin(Some(10), at(0));
        watch.moved(20, at(0));
        watch.count(20, at(1500));
        let rest = watch.rest(&full(), true, at(1500));
        assert_eq!(rest.watch, WatchChange::End(at(0) + WATCH));
    }

    #[test]
    fn a_rate_is_waited_for_up_to_a_second() {
        let mut watch = Watch::begin(Some(10), at(0));
        let rate = |millis| Hold {
            by: HeldBy::Rate,
            look_at: Some(at(millis)),
            ..full()
        };
        assert_eq!(
            watch.rest(&rate(700), true, at(0)).nap,
            Some(TimeDelta::milliseconds(700))
        );
        assert_eq!(watch.rest(&rate(1700), true, at(0)).nap, None);
    }
}
