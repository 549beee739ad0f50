//! The state of a backlog as a whole: what holds it, how fast it moves, and how much its pool
//! accepts.
//!
//! All of it is advisory: the entries are in the records, and the used capacity is in the counters.
//! A lost write costs an extra look at the backlog or an extra wakeup, never a launch.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    adaptive_limit::{AdaptiveLimit, Allowance},
    id::ExecutionId,
    stored::Unknown,
};

/// The age at which a backlog's measured pace is halved. Ten minutes give a steady figure for the
/// estimate, and old starts soon count little.
const PACE: TimeDelta = TimeDelta::minutes(10);

/// The state of a backlog. The default is the state of a backlog that no launcher has looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BacklogState {
    /// The number of writes so far; the store's condition for the next one.
    pub revision: u64,
    /// What held its head when a launcher last looked; `None` while it moves.
    pub held: Option<Held>,
    /// When the next look is certain, without another wakeup: a launcher waits until then, or a
    /// delayed wakeup is on its way.
    pub next_look: Option<Timestamp>,
    /// The time until which a launcher looks at the backlog again without a wakeup. Capacity that
    /// is released before then needs no wakeup. If that launcher dies, the sweep notices.
    pub watched_until: Option<Timestamp>,
    /// The execution whose turn it is, while it waits in its pool's backlog. No later entry starts
    /// before it does. For a lock's or a group's backlog only.
    #[serde(rename = "called")]
    pub promoted: Option<ExecutionId>,
    /// The quota that Service Quotas last reported. For a pool only.
    pub quota: Option<AccountQuota>,
    /// The adaptive limit, derived from ECS's refusals. For a pool only.
    #[serde(rename = "ceiling")]
    pub adaptive_limit: Option<AdaptiveLimit>,
    /// Fields of the stored form that only a newer release knows; the store writes them back.
    #[serde(skip)]
    pub unknown: Unknown,
}

/// The quota that the account has of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountQuota {
    /// CPU units; `None` if AWS gives no number.
    pub cpu: Option<u32>,
    /// When it was read.
    pub read_at: Timestamp,
}

/// Why a backlog does not move, or moves only as others release capacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The kind of limit that holds it.
    pub by: HeldBy,
    /// Since when it is held.
    pub since: Timestamp,
    /// How many executions started from it since then, as others released capacity.
    pub started: u32,
}

/// The cause that holds a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// The limit is used up by our own executions.
    Full,
    /// Launches already come as fast as the launch rate allows.
    Rate,
    /// ECS accepts no more: others use the quota, or there is no capacity.
    Refusals,
    /// The lock or the group has room, but the pool has not: the first entry waits in the pool's
    /// backlog.
    Pool,
}

/// How much more a pool accepts now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// This many CPU units may be in use, all our tasks together; `None` for no limit.
    UpTo(Option<u32>),
    /// One launcher may try this many launches, beyond what ECS surely accepts.
    Probe(u32),
}

impl BacklogState {
    /// The CPU units of a pool that may be in use at all: the stack's setting, else the account's
    /// quota.
    #[must_use]
    pub fn quota(&self, set: Option<u32>) -> Option<u32> {
        set.or_else(|| self.quota?.cpu)
    }

    /// The state with the account's quota as just read. If the quota was raised, the adaptive limit
    /// is dropped, so that the new quota is used at once.
    #[must_use]
    pub fn with_quota(&self, cpu: Option<u32>, now: Timestamp) -> Self {
        let raised = self.quota.is_some_and(|before| before.cpu < cpu);
        let adaptive_limit = self.adaptive_limit.clone().filter(|_| !raised);
        Self {
            quota: Some(AccountQuota { cpu, read_at: now }),
            adaptive_limit,
            ..self.clone()
        }
    }

    /// What a pool accepts now, with `used` CPU units in use and `wanted` CPU units in the next
    /// launch.
    #[must_use]
    pub fn room(&self, set: Option<u32>, used: u32, wanted: u32, now: Timestamp) -> Room {
        let quota = self.quota(set);
        match self
            .adaptive_limit
            .as_ref()
            .map(|adaptive_limit| adaptive_limit.allows(used, wanted, now))
        {
            Some(Allowance::Probe(count))
                if quota.is_none_or(|quota| used.saturating_add(wanted) <= quota) =>
            {
                Room::Probe(count)
            }
            Some(Allowance::UpTo(cpu)) => {
                Room::UpTo(Some(quota.map_or(cpu, |quota| quota.min(cpu))))
            }
            Some(Allowance::Probe(_)) | None => Room::UpTo(quota),
        }
    }

    /// Whether a launcher waits for the launch rate to continue, so that another launcher has
    /// nothing to do here.
    #[must_use]
    pub fn is_attended(&self, now: Timestamp) -> bool {
        let by_rate = self
            .held
            .as_ref()
            .is_some_and(|held| held.by == HeldBy::Rate);
        by_rate && self.next_look.is_some_and(|at| now < at)
    }

    /// Whether capacity that is released now will be noticed without a wakeup.
    #[must_use]
    pub fn is_watched(&self, now: Timestamp) -> bool {
        self.watched_until.is_some_and(|until| now < until)
    }

    /// The state with this hold, from now on unless it was held so before.
    #[must_use]
    pub fn held_by(&self, by: HeldBy, now: Timestamp) -> Self {
        let held = match &self.held {
            Some(held) if held.by == by => held.clone(),
            _ => Held {
                by,
                since: now,
                started: 0,
            },
        };
        Self {
            held: Some(held),
            ..self.clone()
        }
    }

    /// The state after this many executions started although it is held.
    #[must_use]
    pub fn moved(&self, started: u32, now: Timestamp) -> Self {
        let held = self.held.as_ref().map(|held| {
            let started = held.started.saturating_add(started);
            // Old starts count less.
            let old = now - held.since > PACE;
            let (since, started) = if old {
                (now - PACE / 2, started.div_ceil(2))
            } else {
                (held.since, started)
            };
            Held {
                since,
                started,
                ..held.clone()
            }
        });
        Self {
            held,
            ..self.clone()
        }
    }

    /// The state with nothing that holds the backlog.
    #[must_use]
    pub fn free(&self) -> Self {
        Self {
            held: None,
            next_look: None,
            ..self.clone()
        }
    }

    /// The state without this watch. A watch that another launcher set stays.
    #[must_use]
    pub fn unwatched(&self, watch: Option<Timestamp>) -> Self {
        Self {
            watched_until: self.watched_until.filter(|until| Some(*until) != watch),
            ..self.clone()
        }
    }

    /// About how many seconds the entry at this position (from 1) still waits, at the pace since
    /// the backlog was held; `None` if none started since.
    #[must_use]
    pub fn estimate_seconds(&self, place: u32, now: Timestamp) -> Option<u64> {
        let held = self.held.as_ref().filter(|held| held.started > 0)?;
        let millis = (now - held.since).num_milliseconds().max(0);
        let wait = i64::from(place).saturating_mul(millis) / i64::from(held.started) / 1000;
        u64::try_from(wait).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adaptive_limit::Shortage;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_764_000_000 + second, 0).expect("in range")
    }

    #[test]
    fn the_stacks_own_number_goes_before_the_accounts() {
        let state = BacklogState {
            quota: Some(AccountQuota {
                cpu: Some(6144),
                read_at: at(0),
            }),
            ..BacklogState::default()
        };
        assert_eq!(state.room(None, 0, 256, at(0)), Room::UpTo(Some(6144)));
        assert_eq!(
            state.room(Some(1024), 0, 256, at(0)),
            Room::UpTo(Some(1024))
        );
        assert_eq!(
            BacklogState::default().room(None, 0, 256, at(0)),
            Room::UpTo(None)
        );
    }

    #[test]
    fn an_adaptive_limit_is_below_the_quota_and_is_probed() {
        let adaptive_limit =
            AdaptiveLimit::refused(None, 512, (Shortage::Quota, String::new()), at(0), 0);
        let state = BacklogState {
            adaptive_limit: Some(adaptive_limit),
            ..BacklogState::default()
        };
        assert_eq!(
            state.room(Some(6144), 512, 256, at(1)),
            Room::UpTo(Some(512))
        );
        assert_eq!(state.room(Some(6144), 512, 256, at(15)), Room::Probe(1));
        assert_eq!(
            state.room(Some(512), 512, 256, at(15)),
            Room::UpTo(Some(512)),
            "no probe above the quota"
        );
    }

    #[test]
    fn the_estimate_follows_the_pace() {
        let held = BacklogState::default().held_by(HeldBy::Full, at(0));
        assert_eq!(
            held.estimate_seconds(3, at(60)),
            None,
            "nothing has started yet"
        );
        let moved = held.moved(30, at(60));
        assert_eq!(moved.estimate_seconds(10, at(60)), Some(20));
        assert_eq!(moved.held_by(HeldBy::Full, at(70)), moved, "held as before");
    }

    #[test]
    fn an_old_pace_is_forgotten_by_and_by() {
        let mut state = BacklogState::default()
            .held_by(HeldBy::Full, at(0))
            .moved(10_000, at(60));
        for minute in 2..120 {
            state = state.moved(1, at(minute * 60));
        }
        let wait = state.estimate_seconds(1, at(120 * 60)).expect("a pace");
        assert!((30..=120).contains(&wait), "one a minute, said {wait} s");
    }

    #[test]
    fn only_who_waits_for_the_rate_attends() {
        let rate = BacklogState {
            next_look: Some(at(1)),
            ..BacklogState::default().held_by(HeldBy::Rate, at(0))
        };
        assert!(rate.is_attended(at(0)) && !rate.is_attended(at(1)));
        assert!(
            !rate.held_by(HeldBy::Full, at(0)).is_attended(at(0)),
            "room may have come"
        );
    }

    #[test]
    fn a_watch_is_good_until_it_is_over_or_taken_back_by_whose_it_is() {
        let watched = BacklogState {
            watched_until: Some(at(2)),
            ..BacklogState::default().held_by(HeldBy::Full, at(0))
        };
        assert!(watched.is_watched(at(1)) && !watched.is_watched(at(2)));
        assert!(
            watched.unwatched(Some(at(1))).is_watched(at(1))
                && watched.unwatched(None).is_watched(at(1))
        );
        assert!(!watched.unwatched(Some(at(2))).is_watched(at(1)));
    }
}
