//! The adaptive limit of a pool: how much of it may be used, derived from ECS's refusals. The
//! pool's quota belongs to the account, and others use it too.
//!
//! A refusal sets an adaptive limit at what was in use then. Every 5 to 15 seconds (DESIGN §5) a
//! probe, one launch above the limit, is made. An accepted probe proves little: one of our tasks
//! may just have stopped, and its event may not have arrived yet. So some more launches are tried
//! one by one. Only after that the number doubles each time, until the quota is reached or ECS
//! refuses again. Room that others release is thus found within one probe and used within seconds,
//! and room that others keep costs one refusal for each probe.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The pause before a probe, for each refusal in a row, in seconds (DESIGN §5: every 5 to 15 s).
const PROBE_SECONDS: i64 = 5;
/// The longest pause before a probe, in seconds (DESIGN §5).
const PROBE_MAX_SECONDS: i64 = 15;
/// How many launches are tried one by one before several are tried together. As many of our own
/// tasks may have stopped unnoticed, at 20 ends a second and half a second until an event arrives.
const ONE_BY_ONE: u32 = 10;

/// The resource that was short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortage {
    /// The account's quota is used up, by us or by others.
    Quota,
    /// AWS has no capacity of this kind at the moment.
    Capacity,
}

/// How much of a pool may be used, and how more is tried. All amounts are CPU units of our own
/// tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdaptiveLimit {
    /// The CPU units that were in use when ECS refused more.
    pub cpu: u32,
    /// How many probes in a row were accepted since.
    pub taken: u32,
    /// How many probes in a row were refused.
    pub refusals: u32,
    /// When more may be tried. While a probe is under way: when it counts as abandoned.
    pub probe_at: Timestamp,
    /// Whether a probe is under way.
    pub probing: bool,
    /// Launches below the adaptive limit were refused too. Others take the capacity that we
    /// release, so no launch is certain until a probe is accepted.
    pub shrinking: bool,
    /// The resource that was short.
    pub shortage: Shortage,
    /// ECS's own message.
    pub words: String,
}

/// The use that an adaptive limit allows at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// This many CPU units may be in use.
    UpTo(u32),
    /// One launcher may try this many launches, whatever their size.
    Probe(u32),
}

impl AdaptiveLimit {
    /// The adaptive limit after a refusal while `used` was in use. `spread` is random, so that
    /// several stacks of an account do not probe together.
    ///
    /// Several launches that were under way together are refused together; that counts as one
    /// refusal.
    #[must_use]
    pub fn refused(
        before: Option<&Self>,
        used: u32,
        (shortage, words): (Shortage, String),
        now: Timestamp,
        spread: u128,
    ) -> Self {
        let together = before.filter(|before| !before.probing && now < before.probe_at);
        let (refusals, probe_at) = match together {
            Some(before) => (before.refusals, before.probe_at),
            None => {
                let refusals = before.map_or(0, |before| before.refusals).saturating_add(1);
                (refusals, now + pause(refusals, spread))
            }
        };
        let cpu = before.map_or(used, |before| before.cpu.min(used));
        let below = |before: &Self| before.shrinking || (!before.probing && used < before.cpu);
        let shrinking = before.is_some_and(below);
        Self {
            cpu,
            taken: 0,
            refusals,
            probe_at,
            probing: false,
            shrinking,
            shortage,
            words,
        }
    }

    /// The adaptive limit after accepted launches, with `used` in use now; `None` once no limit is
    /// needed any more.
    #[must_use]
    pub fn accepted(&self, used: u32, now: Timestamp, quota: Option<u32>) -> Option<Self> {
        if !self.probing {
            return Some(self.clone());
        }
        let taken = self.taken.saturating_add(1);
        let proven = taken > ONE_BY_ONE;
        let cpu = if self.shrinking {
            used
        } else {
            used.max(self.cpu)
        };
        let next = Self {
            cpu,
            taken,
            probe_at: now,
            probing: false,
            shrinking: false,
            ..self.clone()
        };
        let enough = quota.map_or(taken > 2 * ONE_BY_ONE, |quota| used >= quota);
        (!enough).then_some(if proven {
            Self {
                refusals: 0,
                ..next
            }
        } else {
            next
        })
    }

    /// The adaptive limit while a due probe is made, so that nobody else makes one.
    #[must_use]
    pub fn probing(&self, now: Timestamp) -> Self {
        Self {
            probe_at: now + TimeDelta::seconds(PROBE_SECONDS),
            probing: true,
            ..self.clone()
        }
    }

    /// The allowance for a launch of `wanted` CPU units now. A launch that needs more than is free
    /// below the adaptive limit is tried like any other probe. Otherwise one that needs more than
    /// was in use at the refusal would wait for ever.
    #[must_use]
    pub fn allows(&self, used: u32, wanted: u32, now: Timestamp) -> Allowance {
        if now >= self.probe_at && (self.shrinking || used.saturating_add(wanted) > self.cpu) {
            return Allowance::Probe(1 << self.taken.saturating_sub(ONE_BY_ONE).min(10));
        }
        Allowance::UpTo(if self.shrinking { 0 } else { self.cpu })
    }
}

/// The pause before a probe: 5, 10, 15, 15… seconds, less up to a fifth, but at least 5.
fn pause(refusals: u32, spread: u128) -> TimeDelta {
    let whole = (PROBE_SECONDS * i64::from(refusals.max(1))).min(PROBE_MAX_SECONDS) * 1000;
    let less = i64::try_from(spread % 200).unwrap_or_default();
    TimeDelta::milliseconds((whole - whole * less / 1000).max(PROBE_SECONDS * 1000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLOT: u32 = 256;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_764_000_000_000 + millis).expect("in range")
    }

    fn refused(before: Option<&AdaptiveLimit>, used: u32, now: Timestamp) -> AdaptiveLimit {
        AdaptiveLimit::refused(before, used, (Shortage::Quota, "no".into()), now, 0)
    }

    /// A probe that is made now and accepted.
    fn taken(adaptive_limit: &AdaptiveLimit, used: u32, now: Timestamp) -> Option<AdaptiveLimit> {
        adaptive_limit
            .probing(now)
            .accepted(used, now, Some(1000 * SLOT))
    }

    #[test]
    fn a_refusal_limits_the_pool_to_what_was_in_use() {
        let adaptive_limit = refused(None, 10 * SLOT, at(0));
        assert_eq!(
            adaptive_limit.allows(10 * SLOT, SLOT, at(0)),
            Allowance::UpTo(10 * SLOT)
        );
        assert_eq!(
            adaptive_limit.allows(10 * SLOT, SLOT, adaptive_limit.probe_at),
            Allowance::Probe(1)
        );
    }

    #[test]
    fn a_slot_of_ours_that_is_free_needs_no_probe() {
        let adaptive_limit = refused(None, 10 * SLOT, at(0));
        assert_eq!(
            adaptive_limit.allows(9 * SLOT, SLOT, adaptive_limit.probe_at),
            Allowance::UpTo(10 * SLOT)
        );
    }

    #[test]
    fn twenty_refused_together_are_one_refusal() {
        let first = refused(None, 10 * SLOT, at(0));
        let second = refused(Some(&first), 9 * SLOT, at(300));
        assert_eq!(
            (second.refusals, second.probe_at, second.cpu),
            (1, first.probe_at, 9 * SLOT)
        );
    }

    #[test]
    fn probes_come_after_5_10_and_15_seconds() {
        let (mut adaptive_limit, mut now, mut pauses) =
            (refused(None, 0, at(0)), at(0), Vec::new());
        for _ in 0..4 {
            pauses.push((adaptive_limit.probe_at - now).num_seconds());
            now = adaptive_limit.probe_at;
            adaptive_limit = refused(Some(&adaptive_limit.probing(now)), 0, now);
        }
        assert_eq!(pauses, [5, 10, 15, 15]);
    }

    #[test]
    fn what_others_give_back_is_used_within_twenty_steps() {
        let (quota, mut used) = (1000 * SLOT, 500 * SLOT);
        let mut adaptive_limit = Some(refused(None, used, at(0)));
        let (now, mut steps) = (adaptive_limit.as_ref().expect("one").probe_at, 0);
        while let Some(known) = adaptive_limit {
            let Allowance::Probe(count) = known.allows(used, SLOT, now) else {
                panic!("held at {used}: {known:?}")
            };
            used = (used + count * SLOT).min(quota);
            adaptive_limit = taken(&known, used, now);
            steps += 1;
        }
        assert!(steps <= 20, "{steps}");
    }

    #[test]
    fn a_few_that_are_taken_prove_nothing() {
        let first = refused(None, 10 * SLOT, at(0));
        let now = first.probe_at;
        let more = taken(&first, 11 * SLOT, now).expect("no end of it");
        assert_eq!(
            more.allows(11 * SLOT, SLOT, now),
            Allowance::Probe(1),
            "one by one"
        );
        let again = refused(Some(&more.probing(now)), 11 * SLOT, now);
        assert_eq!(
            (again.refusals, again.cpu),
            (2, 11 * SLOT),
            "as if it had been refused at once"
        );
    }

    #[test]
    fn who_takes_what_we_give_back_costs_one_refusal_for_each_probe() {
        let first = refused(None, 10 * SLOT, at(0));
        let second = refused(Some(&first), 9 * SLOT, at(300));
        assert_eq!(
            second.allows(8 * SLOT, SLOT, at(400)),
            Allowance::UpTo(0),
            "what is given back is taken by others"
        );
        assert_eq!(
            second.allows(5 * SLOT, SLOT, second.probe_at),
            Allowance::Probe(1)
        );
        let next = taken(&second, 6 * SLOT, second.probe_at).expect("no end of it");
        assert_eq!((next.cpu, next.shrinking), (6 * SLOT, false));
    }

    #[test]
    fn a_probe_that_is_refused_leaves_our_own_slots_alone() {
        let first = refused(None, 10 * SLOT, at(0));
        let probed = refused(
            Some(&first.probing(first.probe_at)),
            9 * SLOT,
            first.probe_at,
        );
        assert_eq!(
            probed.allows(8 * SLOT, SLOT, first.probe_at),
            Allowance::UpTo(9 * SLOT)
        );
    }

    #[test]
    fn one_probe_at_a_time() {
        let adaptive_limit = refused(None, 0, at(0));
        let now = adaptive_limit.probe_at;
        assert_eq!(
            adaptive_limit.probing(now).allows(0, SLOT, now),
            Allowance::UpTo(0)
        );
    }

    #[test]
    fn one_that_is_larger_than_the_adaptive_limit_is_tried_though_nothing_is_in_use() {
        let first = refused(None, 2 * SLOT, at(0));
        assert_eq!(
            first.allows(0, 4 * SLOT, first.probe_at),
            Allowance::Probe(1)
        );
        assert_eq!(
            first.allows(0, 2 * SLOT, first.probe_at),
            Allowance::UpTo(2 * SLOT)
        );
    }

    proptest! {
        /// Whatever is refused, a next probe always comes: nothing is held for ever.
        #[test]
        fn there_is_always_a_next_probe(refusals in prop::collection::vec((0_u32..100, 0_i64..20_000, any::<u128>()), 1..30)) {
            let (mut adaptive_limit, mut now) = (None, 0);
            for (used, pause, spread) in refusals {
                now += pause;
                let next = AdaptiveLimit::refused(adaptive_limit.as_ref(), used * SLOT, (Shortage::Capacity, "no".into()), at(now), spread);
                prop_assert!(next.probe_at > at(now) && next.probe_at <= at(now) + TimeDelta::seconds(PROBE_MAX_SECONDS));
                prop_assert!(next.allows(next.cpu, SLOT, next.probe_at) == Allowance::Probe(1));
                adaptive_limit = Some(next);
            }
        }
    }
}
