//! The quotas of an installation: how much of each pool may be in use, and how fast ECS may be
//! called.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Timestamp, limit::CapacityPool};

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
    /// The pools that have settings.
    pub fn pools(&self) -> impl Iterator<Item = CapacityPool> {
        self.0.keys().copied()
    }

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

    /// Whether at least half of the tokens are there.
    #[must_use]
    pub fn is_half_full(self, rate: Rate, now: Timestamp) -> bool {
        self.spent_at(rate, now) * 2.0 <= rate.burst
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
