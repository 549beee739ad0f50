//! How much a pool takes, as ECS's refusals teach it: the quota belongs to the account, and others use it too.
//!
//! A refusal sets a ceiling at what was in use then. A probe, one launch above it, is made every 5 to 15 seconds (DESIGN §5); once one is
//! taken, twice as much is tried each time, until the quota is reached or ECS refuses again. So room that others give back is found
//! within one probe and used within seconds, and what they keep costs one refusal for each probe.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The pause before a probe, for each refusal in a row, in seconds (DESIGN §5: every 5 to 15 s).
const PROBE_SECONDS: i64 = 5;
/// The longest pause before a probe, in seconds (ibid.).
const PROBE_MAX_SECONDS: i64 = 15;

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
pub struct Ceiling {
    /// So much was in use when ECS refused more.
    pub cpu: u32,
    /// So much above that may be in use at once: 0 until a probe is taken.
    pub stretch: u32,
    /// Refusals in a row, each of another probe.
    pub refusals: u32,
    /// When one launch above it may be tried.
    pub probe_at: Timestamp,
    /// What ECS was short of.
    pub shortage: Shortage,
    /// What ECS said.
    pub words: String,
}

/// What a ceiling allows at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// So much may be in use.
    UpTo(u32),
    /// One launch may be tried, whatever its size.
    Probe,
}

impl Ceiling {
    /// After a refusal while `used` was in use. `spread` is random, so that several stacks of an account do not probe together.
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
        let together = before.filter(|before| before.stretch == 0 && now < before.probe_at);
        let (refusals, probe_at) = match together {
            Some(before) => (before.refusals, before.probe_at),
            None => {
                let refusals = before.map_or(0, |before| before.refusals).saturating_add(1);
                (refusals, now + pause(refusals, spread))
            }
        };
        let cpu = before.map_or(used, |before| before.cpu.min(used));
        Self { cpu, stretch: 0, refusals, probe_at, shortage, words }
    }

    /// After launches of `amount` were taken, so that `used` is in use; `None` once the ceiling is of no more use.
    #[must_use]
    pub fn accepted(&self, used: u32, amount: u32, quota: Option<u32>) -> Option<Self> {
        if used <= self.cpu {
            return Some(self.clone());
        }
        let stretch = self.stretch.saturating_mul(2).max(amount);
        let enough = quota.map_or(stretch > used, |quota| used.saturating_add(stretch) >= quota);
        (!enough).then(|| Self { cpu: used, stretch, refusals: 0, ..self.clone() })
    }

    /// Somebody makes the probe that is due: nobody else does meanwhile.
    #[must_use]
    pub fn probing(&self, now: Timestamp) -> Self {
        Self { probe_at: now + TimeDelta::seconds(PROBE_SECONDS), ..self.clone() }
    }

    /// What may be in use now.
    #[must_use]
    pub fn allows(&self, used: u32, now: Timestamp) -> Allowance {
        let up_to = self.cpu.saturating_add(self.stretch);
        if self.stretch == 0 && used >= self.cpu && now >= self.probe_at {
            Allowance::Probe
        } else {
            Allowance::UpTo(up_to)
        }
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

    fn refused(before: Option<&Ceiling>, used: u32, now: Timestamp) -> Ceiling {
        Ceiling::refused(before, used, (Shortage::Quota, "no".into()), now, 0)
    }

    #[test]
    fn a_refusal_is_a_ceiling_at_what_was_in_use() {
        let ceiling = refused(None, 10 * SLOT, at(0));
        assert_eq!(ceiling.allows(10 * SLOT, at(0)), Allowance::UpTo(10 * SLOT));
        assert_eq!(ceiling.allows(10 * SLOT, ceiling.probe_at), Allowance::Probe);
    }

    #[test]
    fn a_slot_of_ours_that_is_free_needs_no_probe() {
        let ceiling = refused(None, 10 * SLOT, at(0));
        assert_eq!(ceiling.allows(9 * SLOT, ceiling.probe_at), Allowance::UpTo(10 * SLOT));
    }

    #[test]
    fn twenty_refused_together_are_one_refusal() {
        let first = refused(None, 10 * SLOT, at(0));
        let second = refused(Some(&first), 9 * SLOT, at(300));
        assert_eq!((second.refusals, second.probe_at, second.cpu), (1, first.probe_at, 9 * SLOT));
    }

    #[test]
    fn probes_come_after_5_10_and_15_seconds() {
        let (mut ceiling, mut now, mut pauses) = (refused(None, 0, at(0)), at(0), Vec::new());
        for _ in 0..4 {
            pauses.push((ceiling.probe_at - now).num_seconds());
            now = ceiling.probe_at;
            ceiling = refused(Some(&ceiling), 0, now);
        }
        assert_eq!(pauses, [5, 10, 15, 15]);
    }

    #[test]
    fn what_others_give_back_is_used_within_ten_steps() {
        let (quota, mut used) = (1000 * SLOT, 500 * SLOT);
        let mut ceiling = Some(refused(None, used, at(0)));
        let (now, mut steps) = (ceiling.as_ref().expect("one").probe_at, 0);
        while let Some(known) = ceiling {
            let room = match known.allows(used, now) {
                Allowance::Probe => SLOT,
                Allowance::UpTo(max) => max - used,
            };
            used += room;
            ceiling = known.accepted(used, room, Some(quota));
            steps += 1;
        }
        assert!(steps <= 10, "{steps}");
    }

    #[test]
    fn one_probe_at_a_time() {
        let ceiling = refused(None, 0, at(0));
        let now = ceiling.probe_at;
        assert_eq!(ceiling.probing(now).allows(0, now), Allowance::UpTo(0));
    }

    proptest! {
        /// Whatever comes, there is always a moment at which more is tried: nothing is held for ever.
        #[test]
        fn there_is_always_a_next_probe(refusals in prop::collection::vec((0_u32..100, 0_i64..20_000, any::<u128>()), 1..30)) {
            let (mut ceiling, mut now) = (None, 0);
            for (used, pause, spread) in refusals {
                now += pause;
                let next = Ceiling::refused(ceiling.as_ref(), used * SLOT, (Shortage::Capacity, "no".into()), at(now), spread);
                prop_assert!(next.probe_at > at(now) && next.probe_at <= at(now) + TimeDelta::seconds(PROBE_MAX_SECONDS));
                prop_assert!(next.allows(next.cpu, next.probe_at) == Allowance::Probe);
                ceiling = Some(next);
            }
        }
    }
}
