//! The throttle: what may be started now, and why the rest may not. Pure decisions over `(Quota, Usage, now)`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    limit::{Admission, CapacityPool, Holding, LimitKey, RateKey},
};

/// What a pool allows. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// CPU units in use at once; 1024 are one vCPU.
    pub cpu: Option<u32>,
    /// How fast tasks may be launched.
    pub rate: Option<Rate>,
}

/// What each pool allows. A pool that is not named has no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quotas(pub BTreeMap<CapacityPool, Quota>);

impl Quotas {
    /// What one pool allows.
    #[must_use]
    pub fn of(&self, pool: CapacityPool) -> Quota {
        self.0.get(&pool).cloned().unwrap_or_default()
    }
}

impl<const N: usize> From<[(CapacityPool, Quota); N]> for Quotas {
    fn from(quotas: [(CapacityPool, Quota); N]) -> Self {
        Self(quotas.into())
    }
}

/// A token bucket's shape. On Fargate 100 and 20 a second for each capacity kind (ECS Developer Guide, "Fargate throttling quotas").
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The most tokens there can be.
    pub burst: f64,
    /// Tokens that come back each second.
    pub per_second: f64,
}

/// How much of a limit is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU units of a pool, holders of a lock.
    pub used: u32,
}

/// A token bucket's level at a moment. The default is full at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Tokens spent and not come back, at `at`.
    pub spent: f64,
    /// When that was so.
    pub at: Timestamp,
}

impl Bucket {
    /// Takes up to `want` whole tokens now. Time that runs backwards gives nothing back.
    #[must_use]
    pub fn take(self, rate: Rate, want: u32, now: Timestamp) -> (u32, Self) {
        let spent = self.spent_at(rate, now);
        let free = (rate.burst - spent).max(0.0).floor();
        let granted = f64::from(want).min(free);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and want")]
        (granted as u32, Self { spent: spent + granted, at: self.at.max(now) })
    }

    /// Milliseconds from `now` until a whole token is there.
    #[must_use]
    pub fn wait_millis(self, rate: Rate, now: Timestamp) -> u64 {
        let missing = 1.0 - (rate.burst - self.spent_at(rate, now));
        if missing <= 0.0 {
            return 0;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and a float saturates")]
        ((missing / rate.per_second * 1000.0).ceil() as u64)
    }

    fn spent_at(self, rate: Rate, now: Timestamp) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a pause, far below 2^52")]
        let seconds = (now - self.at).num_milliseconds().max(0) as f64 / 1000.0;
        (self.spent - seconds * rate.per_second).max(0.0)
    }
}

/// What to do with the execution at the head of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchDecision {
    /// Take what it demands under these conditions, all or none, and launch it.
    Launch(Vec<Admission>),
    /// It stays in this line, or moves to it, and this is why.
    Wait {
        /// The limit that holds it.
        line: LimitKey,
        /// In words, with usage and limit.
        reason: String,
    },
}

/// How fast ECS takes task definitions: RegisterTaskDefinition and its opposite share a bucket of 20 and 1 a second (ECS API
/// reference, "Request throttling for the Amazon ECS API").
pub const DEFINITIONS_RATE: Rate = Rate { burst: 20.0, per_second: 1.0 };

/// Decides over one demand. `usage` is asked for each limit in the demand, first come first: the lock before the pool, so that
/// who waits for a lock stands in that lock's line and blocks nobody in the pool's.
#[must_use]
pub fn decide(demand: &[Holding], quotas: &Quotas, usage: impl Fn(&LimitKey) -> Usage) -> LaunchDecision {
    let admissions: Vec<_> =
        demand.iter().map(|h| Admission { key: h.key.clone(), max: max_of(&h.key, quotas) }).collect();
    let blocked = demand.iter().zip(&admissions).find(|(holding, admission)| {
        admission.max.is_some_and(|max| usage(&holding.key).used.saturating_add(holding.amount) > max)
    });
    match blocked {
        None => LaunchDecision::Launch(admissions),
        Some((holding, admission)) => LaunchDecision::Wait {
            line: holding.key.clone(),
            reason: reason(&holding.key, usage(&holding.key), admission.max),
        },
    }
}

/// Whether a demand can never be met under this quota, and why: it would wait for ever.
#[must_use]
pub fn impossible(demand: &[Holding], quotas: &Quotas) -> Option<String> {
    demand.iter().find_map(|holding| {
        let max = max_of(&holding.key, quotas)?;
        (holding.amount > max).then(|| {
            format!(
                "needs {} vCPU at once, and the limit here is {}; ask for less with --cpu or raise the limit",
                vcpu(holding.amount),
                vcpu(max)
            )
        })
    })
}

/// The most of a limit that may be in use.
#[must_use]
pub fn max_of(key: &LimitKey, quotas: &Quotas) -> Option<u32> {
    match key {
        LimitKey::Pool(pool) => quotas.0.get(pool)?.cpu,
        LimitKey::Lock(_) => Some(1),
    }
}

/// Why a limit holds somebody, in words: "Fargate Spot vCPU 6 of 6 in use".
#[must_use]
pub fn reason(key: &LimitKey, usage: Usage, max: Option<u32>) -> String {
    match (key, max) {
        (LimitKey::Pool(pool), Some(max)) => {
            format!("{} vCPU {} of {} in use", title(*pool), vcpu(usage.used), vcpu(max))
        }
        (LimitKey::Pool(pool), None) => format!("{} vCPU {} in use", title(*pool), vcpu(usage.used)),
        (LimitKey::Lock(name), _) => format!("lock '{name}' is held by another execution"),
    }
}

/// Why a rate holds somebody, in words.
#[must_use]
pub fn rate_reason(key: RateKey, rate: Rate) -> String {
    match key {
        RateKey::Launches(pool) => format!("{} launch rate: {} a second", title(pool), rate.per_second),
        RateKey::Definitions => {
            format!("a task definition for it is to be registered, and ECS takes {} a second", rate.per_second)
        }
    }
}

fn title(pool: CapacityPool) -> &'static str {
    pool.title()
}

/// CPU units as vCPUs, without needless zeros.
#[must_use]
pub fn vcpu(units: u32) -> f64 {
    f64::from(units) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POOL: LimitKey = LimitKey::Pool(CapacityPool::FargateSpot);
    fn vcpus(cpu: u32) -> Quotas {
        Quotas::from([(CapacityPool::FargateSpot, Quota { cpu: Some(cpu), rate: None })])
    }

    const RATE: Rate = Rate { burst: 100.0, per_second: 20.0 };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_764_000_000_000 + millis).expect("in range")
    }

    fn lock() -> LimitKey {
        LimitKey::Lock("deploy".parse().expect("a name"))
    }

    #[test]
    fn a_full_pool_is_named_with_usage_and_limit() {
        let decision = decide(&[Holding { key: POOL, amount: 256 }], &vcpus(6 * 1024), |_| Usage { used: 6 * 1024 });
        assert_eq!(decision, LaunchDecision::Wait { line: POOL, reason: "Fargate Spot vCPU 6 of 6 in use".into() });
    }

    #[test]
    fn who_waits_for_a_lock_stands_in_the_locks_line() {
        let demand = [Holding { key: lock(), amount: 1 }, Holding { key: POOL, amount: 256 }];
        let decision = decide(&demand, &vcpus(0), |_| Usage { used: 1 });
        assert!(matches!(decision, LaunchDecision::Wait { line: LimitKey::Lock(_), .. }), "{decision:?}");
    }

    #[test]
    fn no_limit_admits_everything() {
        let decision = decide(&[Holding { key: POOL, amount: 256 }], &Quotas::default(), |_| Usage { used: u32::MAX });
        assert!(matches!(decision, LaunchDecision::Launch(_)));
    }

    #[test]
    fn what_can_never_fit_is_said_at_once() {
        let demand = [Holding { key: POOL, amount: 2048 }];
        assert!(impossible(&demand, &vcpus(1024)).is_some_and(|why| why.contains("2 vCPU")));
        assert_eq!(impossible(&demand, &vcpus(2048)), None);
    }

    proptest! {
        /// Over any span a bucket grants no more than its burst and what came back in that span.
        #[test]
        fn a_bucket_never_grants_more_than_its_rate(steps in prop::collection::vec((0_i64..2_000, 0_u32..60), 1..80)) {
            let (mut bucket, mut now, mut granted) = (Bucket { spent: 0.0, at: at(0) }, 0, 0_u32);
            for (pause, want) in steps {
                now += pause;
                let (got, next) = bucket.take(RATE, want, at(now));
                prop_assert!(got <= want);
                granted += got;
                bucket = next;
                prop_assert!(f64::from(granted) <= 100.0 + 20.0 * f64::from(i32::try_from(now).expect("small")) / 1000.0 + 1e-6);
            }
        }

        /// After the wait it names, a token is there.
        #[test]
        fn the_wait_is_long_enough(spent in 0.0_f64..300.0) {
            let bucket = Bucket { spent, at: at(0) };
            let wait = i64::try_from(bucket.wait_millis(RATE, at(0))).expect("small");
            prop_assert_eq!(bucket.take(RATE, 1, at(wait)).0, 1);
        }
    }
}
