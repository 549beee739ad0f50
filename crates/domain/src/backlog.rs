//! What is known of a backlog as a whole: what holds it, how fast it moves, and how much its pool
//! takes.
//!
//! All of it is advice: the entries are in the records and the room in the counters. A write that
//! is lost costs a look or a wakeup, and never a launch.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    adaptive_limit::{AdaptiveLimit, Allowance},
    id::ExecutionId,
    stored::Unknown,
};

/// From when on a backlog's pace is forgotten by half, so that it follows what happens: ten
/// minutes. Ours.
const PACE: TimeDelta = TimeDelta::minutes(10);

/// The state of a backlog. The default is that of one that nobody has looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BacklogState {
    /// Counts the writes; the store's condition.
    pub revision: u64,
    /// What held its head when a launcher last looked; `None` while it moves.
    pub held: Option<Held>,
    /// A look is sure to come then, without another wakeup: a launcher waits until then, or a
    /// delayed wakeup is under way.
    pub next_look: Option<Timestamp>,
    /// Until then a launcher looks at it again of its own accord, unless it dies (then the sweep
    /// tells), so that who gives back what others wait for need not tell.
    pub watched_until: Option<Timestamp>,
    /// Of a lock's or a group's backlog: whose turn it is, while it waits in its pool's backlog.
    /// Nobody behind it starts before it does.
    #[serde(rename = "called")]
    pub promoted: Option<ExecutionId>,
    /// Of a pool: what Service Quotas last said.
    pub quota: Option<AccountQuota>,
    /// Of a pool: what ECS's refusals taught.
    #[serde(rename = "ceiling")]
    pub adaptive_limit: Option<AdaptiveLimit>,
    /// What a newer release wrote into the stored form; the store writes it back.
    #[serde(skip)]
    pub unknown: Unknown,
}

/// What the account may use of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountQuota {
    /// CPU units; `None` if AWS names no number.
    pub cpu: Option<u32>,
    /// When it was asked.
    pub read_at: Timestamp,
}

/// A backlog that does not move, or only as others make room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// By what.
    pub by: HeldBy,
    /// Since when.
    pub since: Timestamp,
    /// How many started out of it since then, as others made room.
    pub started: u32,
}

/// What holds a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// Its limit is used up by what we run.
    Full,
    /// Launches come as fast as they may.
    Rate,
    /// ECS takes no more: others use the quota, or there is no capacity.
    Refusals,
    /// There is room under a lock or a group, but not in the pool: its first waits there.
    Pool,
}

/// How much more a pool takes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// So many CPU units may be in use, ours together; `None` for no limit.
    UpTo(Option<u32>),
    /// So many launches may be tried by one launcher, beyond what ECS surely takes.
    Probe(u32),
}

impl BacklogState {
    /// The CPU units of a pool that may be in use at all: what the stack sets, else what the
    /// account has.
    #[must_use]
    pub fn quota(&self, set: Option<u32>) -> Option<u32> {
        set.or_else(|| self.quota?.cpu)
    }

    /// With what the account may use, as just read. An adaptive limit that it contradicts is
    /// forgotten: who raised the quota wants it used.
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

    /// What a pool takes now, with `used` in use and a launch of so many CPU units the next.
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

    /// Whether a launcher waits for the rate to let it go on, so that another one has nothing to do
    /// there.
    #[must_use]
    pub fn is_attended(&self, now: Timestamp) -> bool {
        let by_rate = self
            .held
            .as_ref()
            .is_some_and(|held| held.by == HeldBy::Rate);
        by_rate && self.next_look.is_some_and(|at| now < at)
    }

    /// Whether what is given back now will be seen without a wakeup.
    #[must_use]
    pub fn is_watched(&self, now: Timestamp) -> bool {
        self.watched_until.is_some_and(|until| now < until)
    }

    /// Held by this, from now on unless it was already.
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

    /// So many started out of it although it is held.
    #[must_use]
    pub fn moved(&self, started: u32, now: Timestamp) -> Self {
        let held = self.held.as_ref().map(|held| {
            let started = held.started.saturating_add(started);
            // What was long ago counts less.
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

    /// Nothing holds it.
    #[must_use]
    pub fn free(&self) -> Self {
        Self {
            held: None,
            next_look: None,
            ..self.clone()
        }
    }

    /// Without this watch. Another one, of who goes on, stays.
    #[must_use]
    pub fn unwatched(&self, watch: Option<Timestamp>) -> Self {
        Self {
            watched_until: self.watched_until.filter(|until| Some(*until) != watch),
            ..self.clone()
        }
    }

    /// About how many seconds the one at this place (from 1) still waits, by the pace since the
    /// backlog was held; `None` if none started since.
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
