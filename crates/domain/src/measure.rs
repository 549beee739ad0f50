//! Recording [metrics](crate::metric): what each stands for in the types of this crate.

use chrono::TimeDelta;
use metrics::{counter, gauge, histogram};

use crate::{
    Timestamp,
    limit::{BacklogSize, CapacityPool, LimitKey, vcpu},
    metric::{
        BACKLOG, BACKLOG_AGE, CAPACITY, CAUSE, COST_HIGH, COST_LOW, LAUNCHES, LIMIT, PROVISIONING,
        REFUSALS, RUN_TIME, RUNS, STATUS, VCPUS_MAX, VCPUS_USED, WAIT,
    },
    ports::LaunchError,
    scheduler::adaptive_limit::Shortage,
    statistics::RunEnd,
};

/// Records that a run ended. Called once for each run, where it is counted for the statistics.
pub fn record_end(end: &RunEnd) {
    let capacity = || end.capacity.clone();
    counter!(RUNS.name, CAPACITY => capacity(), STATUS => end.status.to_string()).increment(1);
    let times = [
        (WAIT, end.wait_ms),
        (PROVISIONING, end.provisioning_ms),
        (RUN_TIME, end.run_ms),
    ];
    for (metric, millis) in times {
        if let Some(millis) = millis {
            histogram!(metric.name, CAPACITY => capacity()).record(seconds(millis));
        }
    }
    if let Some((low, high)) = end.cost {
        histogram!(COST_LOW.name, CAPACITY => capacity()).record(low.usd());
        histogram!(COST_HIGH.name, CAPACITY => capacity()).record(high.usd());
    }
}

/// Records that a task was started.
pub fn record_launch(pool: CapacityPool) {
    counter!(LAUNCHES.name, CAPACITY => pool.capacity()).increment(1);
}

/// Records that a launch was refused. A call without an answer is no refusal.
pub fn record_refusal(pool: CapacityPool, error: &LaunchError) {
    let cause = match error {
        LaunchError::Unknown(_) => return,
        LaunchError::Throttled(_) => "rate",
        LaunchError::Full { shortage, .. } => match shortage {
            Shortage::Quota => "quota",
            Shortage::Capacity => "capacity",
        },
        LaunchError::Refused(_) | LaunchError::NoDefinition(_) => "other",
    };
    counter!(REFUSALS.name, CAPACITY => pool.capacity(), CAUSE => cause).increment(1);
}

/// Records how much of a pool is in use, and how much may be, in CPU units.
pub fn record_use(pool: CapacityPool, used: u32, quota: Option<u32>) {
    let capacity = pool.capacity();
    gauge!(VCPUS_USED.name, CAPACITY => capacity).set(vcpu(used));
    if let Some(quota) = quota {
        gauge!(VCPUS_MAX.name, CAPACITY => capacity).set(vcpu(quota));
    }
}

/// Records how many runs wait for these pools, for locks, and for groups.
pub fn record_backlogs(pools: &[CapacityPool], sizes: &[BacklogSize], now: Timestamp) {
    let pools = pools.iter().map(|pool| pool.capacity());
    for limit in pools.chain(["lock", "group"]) {
        let of_limit = || sizes.iter().filter(|size| kind_of(&size.key) == limit);
        let runs: u64 = of_limit().map(|size| u64::from(size.entries)).sum();
        let oldest = of_limit().map(|size| size.oldest).min();
        let age = oldest.map_or(TimeDelta::zero(), |oldest| now - oldest);
        #[expect(clippy::cast_precision_loss, reason = "runs are fewer than 2^52")]
        gauge!(BACKLOG.name, LIMIT => limit).set(runs as f64);
        gauge!(BACKLOG_AGE.name, LIMIT => limit).set(age.as_seconds_f64().max(0.0));
    }
}

fn kind_of(key: &LimitKey) -> &'static str {
    match key {
        LimitKey::Pool(pool) => pool.capacity(),
        LimitKey::Lock(_) => "lock",
        LimitKey::Group(_) => "group",
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a run takes far less than 2^52 ms"
)]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
