//! The stored state of a limit: why its backlog does not move, who looks again and when, how fast
//! it moves, and, for a pool, how much the pool accepts.
//!
//! All of it is advisory: the entries are in the records, and the used capacity is in the counters.
//! A lost write costs an extra look at the backlog or an extra wakeup, never a launch.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::adaptive_limit::{AdaptiveLimit, Allowance, Shortage};
use crate::{Timestamp, id::ExecutionId, stored::Unknown};

/// The age at which a backlog's measured pace is halved. Ten minutes give a steady figure for the
/// estimate, and old starts soon count little.
const PACE: TimeDelta = TimeDelta::minutes(10);

/// The stored state of a limit. The default is the state of a limit that no launcher has looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitState {
    /// The number of writes so far; the store's condition for the next one.
    pub revision: u64,
    /// The state of its backlog.
    #[serde(flatten)]
    pub backlog: BacklogState,
    /// The state of the pool. The default for a lock or a group.
    #[serde(flatten)]
    pub pool: PoolState,
    /// Fields of the stored form that only a newer release knows; the store writes them back.
    #[serde(skip)]
    pub unknown: Unknown,
}

/// The state of a backlog as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BacklogState {
    /// The hold that a launcher last found; `None` once no entry was due.
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
}

/// How much a pool accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolState {
    /// The quota that Service Quotas last reported.
    pub quota: Option<AccountQuota>,
    /// The adaptive limit, derived from ECS's refusals.
    #[serde(rename = "ceiling")]
    pub adaptive_limit: Option<AdaptiveLimit>,
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

/// Why a backlog does not move now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The kind of limit that holds it.
    pub by: HeldBy,
    /// The reason, for people: "Fargate Spot vCPU 6 of 6 in use".
    pub reason: String,
    /// When to look again without a wakeup. A slot that we give back sends a wakeup by itself.
    pub look_at: Option<Timestamp>,
}

/// How much more a pool accepts now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// This many CPU units may be in use, all our tasks together; `None` for no limit.
    UpTo(Option<u32>),
    /// One launcher may try this many launches, beyond what ECS surely accepts.
    Probe(u32),
}

/// The changes of one launcher round to the state of a limit. It is one write, whatever the
/// round did. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// How many executions started from the backlog although it is held.
    pub started: u32,
    /// The change to the reason that holds the backlog.
    pub held: HeldChange,
    /// The execution that moves to the pool's backlog, if one does.
    pub promoted: Option<PromotedChange>,
    /// The launcher's watch over the backlog.
    pub watch: WatchChange,
    /// The findings about the pool from ECS's answers.
    pub learned: Option<Learned>,
}

/// The promotion of an execution. It counts only if nobody promoted another one meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotedChange {
    /// The execution that was promoted before, as the round read it.
    pub instead_of: Option<ExecutionId>,
    /// The execution that is promoted now.
    pub id: ExecutionId,
}

/// How a round changes what holds a backlog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HeldChange {
    /// It stays as it is.
    #[default]
    Keep,
    /// Nothing holds it.
    Free,
    /// This holds it.
    By(Hold),
}

/// How a round changes a launcher's watch over a backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchChange {
    /// It stays as it is.
    #[default]
    Keep,
    /// The launcher watches until then.
    Until(Timestamp),
    /// The launcher ends its watch, which was to last until then. A watch that another launcher set
    /// stays.
    End(Timestamp),
}

/// The findings about the pool from ECS's answers to a round of launches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The answer.
    pub answer: Answer,
    /// The CPU units of the pool that are in use after the round.
    pub used: u32,
    /// The CPU units that may be in use at all.
    pub quota: Option<u32>,
    /// Random bits, which spread the probes of several stacks.
    pub spread: u128,
}

/// An answer of ECS that changes a pool's adaptive limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A launch was refused for lack of this, in these words.
    Short(Shortage, String),
    /// A probe was accepted.
    ProbeAccepted,
}

impl LimitState {
    /// The state after a round that changes this. The revision stays: the store increments it.
    #[must_use]
    pub fn after(&self, change: &Change, now: Timestamp) -> Self {
        Self {
            backlog: self.backlog.after(change, now),
            pool: match &change.learned {
                Some(learned) => self.pool.after(learned, now),
                None => self.pool.clone(),
            },
            ..self.clone()
        }
    }

    /// The state with another state of the pool.
    #[must_use]
    pub fn with_pool(&self, pool: PoolState) -> Self {
        Self {
            pool,
            ..self.clone()
        }
    }
}

impl PoolState {
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
        // No number counts as no limit.
        let raised = match self.quota.map(|before| before.cpu) {
            Some(Some(before)) => cpu.is_none_or(|cpu| cpu > before),
            Some(None) | None => false,
        };
        Self {
            quota: Some(AccountQuota { cpu, read_at: now }),
            adaptive_limit: self.adaptive_limit.clone().filter(|_| !raised),
        }
    }

    /// The room in a pool now, with `used` CPU units in use and `wanted` CPU units in the next
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

    /// The state while a due probe is made, so that nobody else makes one.
    #[must_use]
    pub fn probing(&self, now: Timestamp) -> Self {
        Self {
            adaptive_limit: self
                .adaptive_limit
                .as_ref()
                .map(|adaptive_limit| adaptive_limit.probing(now)),
            ..self.clone()
        }
    }

    /// The state after ECS's answers to a round of launches.
    #[must_use]
    pub fn after(&self, learned: &Learned, now: Timestamp) -> Self {
        let before = self.adaptive_limit.as_ref();
        let adaptive_limit = match &learned.answer {
            Answer::Short(shortage, words) => Some(AdaptiveLimit::refused(
                before,
                learned.used,
                (*shortage, words.clone()),
                now,
                learned.spread,
            )),
            Answer::ProbeAccepted => {
                before.and_then(|before| before.accepted(learned.used, now, learned.quota))
            }
        };
        Self {
            adaptive_limit,
            ..self.clone()
        }
    }
}

impl BacklogState {
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

    /// Whether another look is certain, and no later than this hold asks for one.
    #[must_use]
    pub fn is_looked_at_before(&self, hold: &Hold, now: Timestamp) -> bool {
        self.next_look
            .is_some_and(|at| at > now && hold.look_at.is_some_and(|look_at| at <= look_at))
    }

    /// The state after a round that changes this.
    #[must_use]
    pub fn after(&self, change: &Change, now: Timestamp) -> Self {
        let after = self.moved(change.started, now);
        let after = match &change.held {
            HeldChange::Keep => after,
            HeldChange::Free => Self {
                held: None,
                next_look: None,
                ..after
            },
            HeldChange::By(hold) => after.held_by(hold, now),
        };
        let watched_until = match change.watch {
            WatchChange::Keep => after.watched_until,
            WatchChange::Until(until) => Some(until),
            WatchChange::End(mine) => after.watched_until.filter(|until| *until != mine),
        };
        Self {
            watched_until,
            promoted: match &change.promoted {
                Some(promotion) if promotion.instead_of == after.promoted => {
                    Some(promotion.id.clone())
                }
                Some(_) | None => after.promoted,
            },
            ..after
        }
    }

    /// The state with this hold, from now on unless it was held so before.
    fn held_by(&self, hold: &Hold, now: Timestamp) -> Self {
        let held = match &self.held {
            Some(held) if held.by == hold.by => held.clone(),
            _ => Held {
                by: hold.by,
                since: now,
                started: 0,
            },
        };
        let next_look = if self.is_looked_at_before(hold, now) {
            self.next_look
        } else {
            hold.look_at.filter(|at| *at > now)
        };
        Self {
            held: Some(held),
            next_look,
            ..self.clone()
        }
    }

    /// The state after this many executions started although it is held.
    fn moved(&self, started: u32, now: Timestamp) -> Self {
        if started == 0 {
            return self.clone();
        }
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

    /// About how many seconds the entry at this position (from 1) still waits, at the pace since
    /// the backlog was held; `None` if none started since.
    #[must_use]
    pub fn estimate_seconds(&self, position: u32, now: Timestamp) -> Option<u64> {
        let held = self.held.as_ref().filter(|held| held.started > 0)?;
        let millis = (now - held.since).num_milliseconds().max(0);
        let wait = i64::from(position).saturating_mul(millis) / i64::from(held.started) / 1000;
        u64::try_from(wait).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(1_764_000_000 + second, 0).expect("in range")
    }

    fn hold(by: HeldBy, look_at: Option<Timestamp>) -> Change {
        Change {
            held: HeldChange::By(Hold {
                by,
                reason: String::new(),
                look_at,
            }),
            ..Change::default()
        }
    }

    fn started(started: u32) -> Change {
        Change {
            started,
            ..Change::default()
        }
    }

    fn watch(watch: WatchChange) -> Change {
        Change {
            watch,
            ..Change::default()
        }
    }

    #[test]
    fn the_stacks_own_number_goes_before_the_accounts() {
        let state = PoolState::default().with_quota(Some(6144), at(0));
        assert_eq!(state.room(None, 0, 256, at(0)), Room::UpTo(Some(6144)));
        assert_eq!(
            state.room(Some(1024), 0, 256, at(0)),
            Room::UpTo(Some(1024))
        );
        assert_eq!(
            PoolState::default().room(None, 0, 256, at(0)),
            Room::UpTo(None)
        );
    }

    #[test]
    fn an_adaptive_limit_is_below_the_quota_and_is_probed() {
        let refusal = Learned {
            answer: Answer::Short(Shortage::Quota, String::new()),
            used: 512,
            quota: Some(6144),
            spread: 0,
        };
        let state = PoolState::default().after(&refusal, at(0));
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
        let held = BacklogState::default().after(&hold(HeldBy::Full, None), at(0));
        assert_eq!(
            held.estimate_seconds(3, at(60)),
            None,
            "nothing has started yet"
        );
        let moved = held.after(&started(30), at(60));
        assert_eq!(moved.estimate_seconds(10, at(60)), Some(20));
        assert_eq!(
            moved.after(&hold(HeldBy::Full, None), at(70)),
            moved,
            "held as before"
        );
    }

    #[test]
    fn an_old_pace_is_forgotten_by_and_by() {
        let mut state = BacklogState::default()
            .after(&hold(HeldBy::Full, None), at(0))
            .after(&started(10_000), at(60));
        for minute in 2..120 {
            state = state.after(&started(1), at(minute * 60));
        }
        let wait = state.estimate_seconds(1, at(120 * 60)).expect("a pace");
        assert!((30..=120).contains(&wait), "one a minute, said {wait} s");
    }

    #[test]
    fn only_who_waits_for_the_rate_attends() {
        let rate = BacklogState::default().after(&hold(HeldBy::Rate, Some(at(1))), at(0));
        assert!(rate.is_attended(at(0)) && !rate.is_attended(at(1)));
        let full = rate.after(&hold(HeldBy::Full, Some(at(1))), at(0));
        assert!(!full.is_attended(at(0)), "room may have come");
    }

    #[test]
    fn an_earlier_look_stays() {
        let soon = BacklogState::default().after(&hold(HeldBy::Refusals, Some(at(5))), at(0));
        let later = soon.after(&hold(HeldBy::Refusals, Some(at(9))), at(1));
        assert_eq!(later.next_look, Some(at(5)));
        let past = soon.after(&hold(HeldBy::Refusals, Some(at(9))), at(6));
        assert_eq!(past.next_look, Some(at(9)));
    }

    #[test]
    fn a_watch_is_good_until_it_is_over_or_its_owner_ends_it() {
        let watched = BacklogState::default().after(&watch(WatchChange::Until(at(2))), at(0));
        assert!(watched.is_watched(at(1)) && !watched.is_watched(at(2)));
        let of_another = watched.after(&watch(WatchChange::End(at(1))), at(0));
        assert!(of_another.is_watched(at(1)));
        let ended = watched.after(&watch(WatchChange::End(at(2))), at(0));
        assert!(!ended.is_watched(at(1)));
    }

    #[test]
    fn a_promotion_does_not_replace_one_that_came_first() {
        let id = |number| ExecutionId::new(at(0), number);
        let promote = |instead_of: Option<ExecutionId>, number| Change {
            promoted: Some(PromotedChange {
                instead_of,
                id: id(number),
            }),
            ..Change::default()
        };
        let first = BacklogState::default().after(&promote(None, 1), at(0));
        assert_eq!(first.promoted, Some(id(1)));
        let late = first.after(&promote(None, 2), at(0));
        assert_eq!(late.promoted, Some(id(1)), "it was read before the first");
        let next = first.after(&promote(Some(id(1)), 2), at(0));
        assert_eq!(next.promoted, Some(id(2)));
    }

    #[test]
    fn only_a_raised_quota_drops_the_adaptive_limit() {
        let limited = |cpu| {
            PoolState {
                adaptive_limit: Some(AdaptiveLimit::refused(
                    None,
                    512,
                    (Shortage::Quota, String::new()),
                    at(0),
                    0,
                )),
                ..PoolState::default()
            }
            .with_quota(cpu, at(0))
        };
        for (before, now, is_dropped) in [
            (Some(1024), Some(2048), true),
            (Some(1024), None, true),
            (Some(1024), Some(1024), false),
            (Some(2048), Some(1024), false),
            (None, Some(1024), false),
            (None, None, false),
        ] {
            let after = limited(before).with_quota(now, at(1));
            assert_eq!(
                after.adaptive_limit.is_none(),
                is_dropped,
                "{before:?} {now:?}"
            );
        }
    }

    #[test]
    fn the_stored_form_is_flat() {
        let state = LimitState {
            revision: 3,
            backlog: BacklogState::default().after(&hold(HeldBy::Full, None), at(0)),
            pool: PoolState::default().with_quota(Some(1024), at(0)),
            ..LimitState::default()
        };
        let json = serde_json::to_value(&state).expect("it is plain");
        assert_eq!(json["held"]["by"], "full");
        assert_eq!(json["quota"]["cpu"], 1024);
        assert_eq!(serde_json::from_value::<LimitState>(json).ok(), Some(state));
    }
}
