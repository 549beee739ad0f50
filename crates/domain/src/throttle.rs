//! What may be started now, and why the rest may not. Pure decisions over `(Quota, Usage, now)`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    adaptive_limit::{AdaptiveLimit, Shortage},
    execution::Execution,
    limit::{Admission, CapacityPool, LimitKey, RateKey},
    request::LaunchRequest,
};

/// The settings of an installation for a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// CPU units in use at once, 1024 being one vCPU. `None` leaves it to the account's quota,
    /// where there is one.
    pub cpu: Option<u32>,
    /// How fast tasks may be launched.
    pub rate: Option<Rate>,
}

/// The settings of each pool. A pool that is missing here has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quotas(pub BTreeMap<CapacityPool, Quota>);

impl Quotas {
    /// The settings of one pool.
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

/// The size and the refill of a token bucket. On Fargate: 100, refilled at 20 a second, for each
/// kind of capacity (ECS Developer Guide, "Fargate throttling quotas").
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The most tokens there can be.
    pub burst: f64,
    /// The tokens that are refilled each second.
    pub per_second: f64,
}

/// How much of a limit is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU units of a pool, or holders of a lock or a group.
    pub used: u32,
}

/// The level of a token bucket at a moment. The default is a full bucket at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenBucket {
    /// Tokens that are spent and not refilled, at `at`.
    pub spent: f64,
    /// The moment of that level.
    pub at: Timestamp,
}

impl TokenBucket {
    /// Takes up to `want` whole tokens now. A clock that runs backwards refills nothing.
    #[must_use]
    pub fn take(self, rate: Rate, want: u32, now: Timestamp) -> (u32, Self) {
        let spent = self.spent_at(rate, now);
        let free = (rate.burst - spent).max(0.0).floor();
        let granted = f64::from(want).min(free);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and want"
        )]
        (
            granted as u32,
            Self {
                spent: spent + granted,
                at: self.at.max(now),
            },
        )
    }

    /// Milliseconds from `now` until a whole token is available.
    #[must_use]
    pub fn wait_millis(self, rate: Rate, now: Timestamp) -> u64 {
        let missing = 1.0 - (rate.burst - self.spent_at(rate, now));
        if missing <= 0.0 {
            return 0;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and a float saturates"
        )]
        ((missing / rate.per_second * 1000.0).ceil() as u64)
    }

    fn spent_at(self, rate: Rate, now: Timestamp) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds of a pause, far below 2^52"
        )]
        let seconds = (now - self.at).num_milliseconds().max(0) as f64 / 1000.0;
        (self.spent - seconds * rate.per_second).max(0.0)
    }
}

/// The rate at which ECS accepts task definitions. RegisterTaskDefinition and
/// DeregisterTaskDefinition share a bucket of 20, refilled at 1 a second (ECS API reference,
/// "Request throttling for the Amazon ECS API").
pub const DEFINITIONS_RATE: Rate = Rate {
    burst: 20.0,
    per_second: 1.0,
};

/// The rate at which Fargate accepts calls of `RunTask`, over all kinds of capacity. It publishes
/// no burst beyond one second's calls (ECS Developer Guide, "AWS Fargate throttling quotas").
pub const RUN_TASK_RATE: Rate = Rate {
    burst: 20.0,
    per_second: 20.0,
};

/// How many of these amounts, in their order, fit under a limit together. The first one that does
/// not fit ends the count, so that small requests never overtake and starve a large one.
#[must_use]
pub fn fitting(amounts: impl IntoIterator<Item = u32>, used: u32, max: Option<u32>) -> usize {
    let Some(max) = max else {
        return amounts.into_iter().count();
    };
    let mut then = used;
    let fits = |amount: &u32| {
        then = then.saturating_add(*amount);
        then <= max
    };
    amounts.into_iter().take_while(fits).count()
}

/// The conditions under which an execution may be launched. `pool` is the most that may be in use
/// of its pool.
#[must_use]
pub fn admissions(execution: &Execution, pool: Option<u32>) -> Vec<Admission> {
    let max = |key: &LimitKey| max_of(key, &execution.request, pool);
    execution
        .demand()
        .into_iter()
        .map(|allocation| Admission {
            max: max(&allocation.key),
            key: allocation.key,
        })
        .collect()
}

/// The reason why an execution can never be launched under this quota of its pool, so that it would
/// wait for ever; `None` if it can.
#[must_use]
pub fn impossible(cpu: u32, quota: Option<u32>) -> Option<String> {
    let max = quota.filter(|max| cpu > *max)?;
    Some(format!(
        "needs {} vCPU at once, and the limit here is {}; ask for less with --cpu or raise the limit",
        vcpu(cpu),
        vcpu(max)
    ))
}

/// The most of a limit that may be in use for this request to start; `pool` for its pool.
#[must_use]
pub fn max_of(key: &LimitKey, request: &LaunchRequest, pool: Option<u32>) -> Option<u32> {
    match key {
        LimitKey::Pool(_) => pool,
        LimitKey::Lock(_) => Some(1),
        LimitKey::Group(_) => request.max_parallel,
    }
}

/// The reason why a limit holds an execution, in words: "Fargate Spot vCPU 6 of 6 in use".
#[must_use]
pub fn reason(key: &LimitKey, usage: Usage, max: Option<u32>) -> String {
    match (key, max) {
        (LimitKey::Pool(pool), Some(max)) => {
            format!(
                "{} vCPU {} of {} in use",
                title(*pool),
                vcpu(usage.used),
                vcpu(max)
            )
        }
        (LimitKey::Pool(pool), None) => {
            format!("{} vCPU {} in use", title(*pool), vcpu(usage.used))
        }
        (LimitKey::Lock(name), _) => format!("lock '{name}' is held by another execution"),
        (LimitKey::Group(name), max) => {
            format!(
                "group '{name}': {} of {} at a time run",
                usage.used,
                max.unwrap_or(usage.used)
            )
        }
    }
}

/// The reason why a pool holds an execution, in words: it is full, or ECS refuses more below that.
#[must_use]
pub fn pool_reason(
    pool: CapacityPool,
    used: u32,
    quota: Option<u32>,
    adaptive_limit: Option<&AdaptiveLimit>,
) -> String {
    let usage = reason(&LimitKey::Pool(pool), Usage { used }, quota);
    let Some(adaptive_limit) = adaptive_limit.filter(|_| quota.is_none_or(|quota| used < quota))
    else {
        return usage;
    };
    let why = match adaptive_limit.shortage {
        Shortage::Quota => "the account's quota is used up, by others too",
        Shortage::Capacity => "AWS has no capacity of this kind now",
    };
    format!(
        "{usage} by mycli, and {why}; tried again every 5 to 15 s ({})",
        adaptive_limit.words
    )
}

/// The reason why a rate holds an execution, in words.
#[must_use]
pub fn rate_reason(key: RateKey, rate: Rate) -> String {
    match key {
        RateKey::Launches(pool) => {
            format!("{} launch rate: {} a second", title(pool), rate.per_second)
        }
        RateKey::RunTask => format!("rate of RunTask: {} a second", rate.per_second),
        RateKey::Definitions => {
            format!(
                "a task definition for it is to be registered, and ECS takes {} a second",
                rate.per_second
            )
        }
    }
}

fn title(pool: CapacityPool) -> &'static str {
    pool.title()
}

/// How many seconds `count` tokens take at a rate, rounded up.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and a float saturates"
)]
pub fn seconds(count: u32, per_second: f64) -> u64 {
    (f64::from(count) / per_second).ceil() as u64
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

    const RATE: Rate = Rate {
        burst: 100.0,
        per_second: 20.0,
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(1_764_000_000_000 + millis).expect("in range")
    }

    #[test]
    fn a_full_pool_is_named_with_usage_and_limit() {
        let key = LimitKey::Pool(CapacityPool::FargateSpot);
        assert_eq!(
            reason(&key, Usage { used: 6 * 1024 }, Some(6 * 1024)),
            "Fargate Spot vCPU 6 of 6 in use"
        );
    }

    #[test]
    fn the_small_do_not_overtake_the_large() {
        assert_eq!(fitting([256, 4096, 256], 0, Some(1024)), 1);
        assert_eq!(fitting([256, 256, 256], 512, Some(1024)), 2);
        assert_eq!(
            fitting([256; 3], 2048, Some(1024)),
            0,
            "more in use than allowed"
        );
        assert_eq!(fitting([u32::MAX; 3], 0, None), 3);
    }

    #[test]
    fn what_can_never_fit_is_said_at_once() {
        assert!(impossible(2048, Some(1024)).is_some_and(|why| why.contains("2 vCPU")));
        assert_eq!(impossible(2048, Some(2048)), None);
        assert_eq!(impossible(2048, None), None);
    }

    proptest! {
        /// A bucket never grants more in any span than its burst and the refill of that span.
        #[test]
        fn a_bucket_never_grants_more_than_its_rate(steps in prop::collection::vec((0_i64..2_000, 0_u32..60), 1..80)) {
            let (mut bucket, mut now, mut granted) = (TokenBucket { spent: 0.0, at: at(0) }, 0, 0_u32);
            for (pause, want) in steps {
                now += pause;
                let (got, next) = bucket.take(RATE, want, at(now));
                prop_assert!(got <= want);
                granted += got;
                bucket = next;
                prop_assert!(f64::from(granted) <= 100.0 + 20.0 * f64::from(i32::try_from(now).expect("small")) / 1000.0 + 1e-6);
            }
        }

        /// After the wait that a bucket names, a token is available.
        #[test]
        fn the_wait_is_long_enough(spent in 0.0_f64..300.0) {
            let bucket = TokenBucket { spent, at: at(0) };
            let wait = i64::try_from(bucket.wait_millis(RATE, at(0))).expect("small");
            prop_assert_eq!(bucket.take(RATE, 1, at(wait)).0, 1);
        }
    }
}
