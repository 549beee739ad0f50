//! How much a pool takes, as ECS's refusals teach it: the quota belongs to the account, and others
//! use it too.
//!
//! A refusal sets an adaptive limit at what was in use then. A probe, one launch above it, is made
//! every 5 to 15 seconds (DESIGN §5). That one is taken proves little: a task of ours may just have
//! stopped and its event not have come. So some more are tried one by one, and only then twice as
//! many each time, until the quota is reached or ECS refuses again. So room that others give back
//! is found within one probe and used within seconds, and what they keep costs one refusal for each
//! probe.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The pause before a probe, for each refusal in a row, in seconds (DESIGN §5: every 5 to 15 s).
const PROBE_SECONDS: i64 = 5;
/// The longest pause before a probe, in seconds (ibid.).
const PROBE_MAX_SECONDS: i64 = 15;
/// How many launches are tried one by one before more are tried together. Ours: as many of our own
/// tasks may have stopped without our knowing yet, at twenty ends a second and half a second for
/// each event.
const ONE_BY_ONE: u32 = 10;

/// Of what there was too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortage {
    /// The account's quota is used up, by whomever.
    Quota,
    /// AWS has no capacity of this kind now.
    Capacity,
}

/// What a pool takes for sure, and how more is tried. All amounts are CPU units of our own tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdaptiveLimit {
    /// So much was in use when ECS refused more.
    pub cpu: u32,
    /// Probes in a row that were taken since.
    pub taken: u32,
    /// Refusals in a row, each of another probe.
    pub refusals: u32,
    /// When more may be tried; while somebody tries, when to think that nobody does any more.
    pub probe_at: Timestamp,
    /// Somebody tries.
    pub probing: bool,
    /// Launches below the adaptive limit were refused too: others take what we give back, so that
    /// nothing is sure until a probe is taken.
    pub shrinking: bool,
    /// What ECS was short of.
    pub shortage: Shortage,
    /// What ECS said.
    pub words: String,
}

/// What an adaptive limit allows at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// So much may be in use.
    UpTo(u32),
    /// So many launches may be tried by one launcher, whatever their size.
    Probe(u32),
}

impl AdaptiveLimit {
    /// After a refusal while `used` was in use. `spread` is random, so that several stacks of an
    /// account do not probe together.
    ///
    /// Several launches that were under way together are refused together: that counts once.
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

    /// After launches were taken, so that `used` is in use; `None` once the adaptive limit is of no
    /// more use.
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

    /// Somebody makes the probe that is due: nobody else does meanwhile.
    #[must_use]
    pub fn probing(&self, now: Timestamp) -> Self {
        Self {
            probe_at: now + TimeDelta::seconds(PROBE_SECONDS),
            probing: true,
            ..self.clone()
        }
    }

    /// What may be in use now, or be tried, for a launch of so many CPU units. One that is larger
    /// than what is free below the adaptive limit is tried like any other: who needs more at once
    /// than was in use at the refusal would wait for ever otherwise.
    #[must_use]
    pub fn allows(&self, used: u32, wanted: u32, now: Timestamp) -> Allowance {
        if now >= self.probe_at && (self.shrinking || used.saturating_add(wanted) > self.cpu) {
            return Allowance::Probe(1 << self.taken.saturating_sub(ONE_BY_ONE).min(10));
        }
        Allowance::UpTo(if self.shrinking { 0 } else { self.cpu })
    }
}

/// 5, 10, 15, 15… seconds, less up to a fifth.
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

    /// A probe that is made now, and taken.
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
        /// Whatever comes, there is always a moment at which more is tried: nothing is held for
        /// ever.
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
