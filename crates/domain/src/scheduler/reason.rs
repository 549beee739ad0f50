//! Why a backlog does not move, in words. The launcher records these reasons, and `status` shows
//! them: both come from here.

use super::{
    adaptive_limit::Shortage,
    snapshot::{LimitSnapshot, PoolSnapshot, max_of},
    state::{BacklogState, HeldBy, Hold},
};
use crate::{
    Timestamp,
    execution::{BacklogEntry, Execution, State},
    limit::{LimitKey, RateKey, vcpu},
    quota::Rate,
};

impl Hold {
    /// A lock or a group is used up by our own executions. `max` is the most that the first of its
    /// backlog accepts.
    #[must_use]
    pub fn by_limit(limit: &LimitSnapshot, max: Option<u32>) -> Self {
        Self {
            by: HeldBy::Full,
            reason: usage_words(&limit.key, limit.used, max),
            look_at: None,
        }
    }

    /// A pool has no room: it is full, or ECS refuses more below its quota. `quota` is the CPU units
    /// that may be in use at all, and `wanted` those of the next launch.
    #[must_use]
    pub fn by_pool(limit: &LimitSnapshot, quota: Option<u32>, wanted: u32) -> Self {
        let usage = usage_words(&limit.key, limit.used, quota);
        let would_use = limit.used.saturating_add(wanted);
        let adaptive_limit = limit.state.pool.adaptive_limit.as_ref();
        let Some(adaptive_limit) =
            adaptive_limit.filter(|_| quota.is_none_or(|quota| would_use <= quota))
        else {
            return Self {
                by: HeldBy::Full,
                reason: usage,
                look_at: None,
            };
        };
        let why = match adaptive_limit.shortage {
            Shortage::Quota => "the account's quota is used up, in part by others",
            Shortage::Capacity => "AWS has no capacity of this kind now",
        };
        Self {
            by: HeldBy::Refusals,
            reason: format!(
                "{usage} by mycli, and {why}; tried again every 5 to 15 s ({})",
                adaptive_limit.words
            ),
            look_at: Some(adaptive_limit.probe_at),
        }
    }

    /// Only the pool has no room, and the first entry of this lock's or group's backlog waits in the
    /// pool's backlog for all behind it. A wakeup comes when that entry starts.
    #[must_use]
    pub fn behind_promoted(pool: &PoolSnapshot, wanted: u32) -> Self {
        Self {
            by: HeldBy::Pool,
            look_at: None,
            ..Self::by_pool(&pool.limit, pool.quota(), wanted)
        }
    }

    /// Launches come as fast as this rate allows. The next one is possible at `look_at`.
    #[must_use]
    pub fn by_rate(key: RateKey, rate: Rate, look_at: Timestamp) -> Self {
        Self {
            by: HeldBy::Rate,
            reason: rate_words(key, rate),
            look_at: Some(look_at),
        }
    }

    /// ECS refused a launch because calls come too fast, in these words.
    #[must_use]
    pub fn throttled(words: String, look_at: Timestamp) -> Self {
        Self {
            by: HeldBy::Rate,
            reason: words,
            look_at: Some(look_at),
        }
    }
}

/// Why one execution waits, as `status` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The reason, for people.
    pub reason: String,
    /// The limit that it waits for.
    pub limit: LimitKey,
    /// How much of the limit is in use: vCPUs of a pool, or executions.
    pub used: f64,
    /// The most that may be in use, in the same unit; `None` for no limit.
    pub max: Option<f64>,
    /// About how many seconds it still waits; `None` if nothing can be said.
    pub estimate_seconds: Option<u64>,
}

/// An entry of a backlog whose wait is to be explained.
#[derive(Clone, Copy, Debug)]
pub struct BacklogWait<'a> {
    /// The execution.
    pub execution: &'a Execution,
    /// Its backlog entry.
    pub entry: &'a BacklogEntry,
    /// Its position, from 1.
    pub position: u32,
    /// The state of its backlog.
    pub backlog: &'a BacklogState,
    /// The slowest of the rates that apply to its launch.
    pub rate: Option<(RateKey, Rate)>,
}

impl BacklogWait<'_> {
    /// The limit that the execution waits for. If the first of a backlog waits for the pool, those
    /// behind it wait for the pool too.
    #[must_use]
    pub fn limit(&self) -> LimitKey {
        match self.held_by() {
            Some(HeldBy::Pool) => LimitKey::Pool(self.execution.pool),
            _ => self.entry.backlog.clone(),
        }
    }

    fn held_by(&self) -> Option<HeldBy> {
        self.backlog.held.as_ref().map(|held| held.by)
    }

    /// Explains why the execution waits: its own reason while it is not due, else what holds its
    /// backlog. `limit` is [`Self::limit`] as read, and `set` what the installation allows of the
    /// execution's pool.
    #[must_use]
    pub fn explain(&self, limit: &LimitSnapshot, set: Option<u32>, now: Timestamp) -> Explanation {
        let by = self.held_by();
        let max = max_of(
            &limit.key,
            &self.execution.request,
            limit.state.pool.quota(set),
        );
        let postponed = self.entry.not_before.filter(|due| *due > now);
        let reason = match (by.filter(|_| postponed.is_none()), self.rate, &limit.key) {
            (None, ..) => self.own_reason(),
            (Some(HeldBy::Rate), Some((key, rate)), _) => rate_words(key, rate),
            (Some(_), _, LimitKey::Pool(_)) => {
                Hold::by_pool(limit, max, self.execution.request.size.cpu()).reason
            }
            (Some(_), ..) => Hold::by_limit(limit, max).reason,
        };
        let estimate_seconds = match postponed {
            Some(due) => u64::try_from((due - now).num_seconds()).ok(),
            None => {
                let rate = self.rate.map(|(_, rate)| rate);
                estimate_seconds(self.backlog, self.position, rate, now)
            }
        };
        let shown = |amount: u32| limit.key.in_units(amount);
        Explanation {
            reason,
            limit: limit.key.clone(),
            used: shown(limit.used),
            max: max.map(shown),
            estimate_seconds,
        }
    }

    fn own_reason(&self) -> String {
        match &self.execution.state {
            State::Waiting { reason, .. } => reason.clone(),
            _ => "recorded; the launcher has not looked at it yet".to_owned(),
        }
    }
}

/// About how many seconds the entry at this position (from 1) of a backlog still waits; `None` if
/// nothing can be said. `rate` is the slowest of the rates that apply to its launch.
#[must_use]
pub fn estimate_seconds(
    backlog: &BacklogState,
    position: u32,
    rate: Option<Rate>,
    now: Timestamp,
) -> Option<u64> {
    match backlog.held.as_ref().map(|held| held.by) {
        Some(HeldBy::Rate) => rate.map(|rate| seconds(position, rate.per_second)),
        _ => backlog.estimate_seconds(position, now),
    }
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

/// The reason why a rate holds an execution, in words.
#[must_use]
pub fn rate_words(key: RateKey, rate: Rate) -> String {
    match key {
        RateKey::Launches(pool) => {
            format!("{} launch rate: {} a second", pool.title(), rate.per_second)
        }
        RateKey::RunTask => format!("rate of RunTask: {} a second", rate.per_second),
        RateKey::Definitions => {
            format!(
                "its task definition must be registered first, and ECS accepts {} a second",
                rate.per_second
            )
        }
    }
}

/// How much of a limit is in use, in words: "Fargate Spot vCPU 6 of 6 in use".
#[must_use]
pub fn usage_words(key: &LimitKey, used: u32, max: Option<u32>) -> String {
    match (key, max) {
        (LimitKey::Pool(pool), Some(max)) => {
            format!(
                "{} vCPU {} of {} in use",
                pool.title(),
                vcpu(used),
                vcpu(max)
            )
        }
        (LimitKey::Pool(pool), None) => format!("{} vCPU {} in use", pool.title(), vcpu(used)),
        (LimitKey::Lock(name), _) => format!("lock '{name}' is held by another execution"),
        (LimitKey::Group(name), max) => {
            format!(
                "group '{name}': {used} run, and at most {} may run at a time",
                max.unwrap_or(used)
            )
        }
    }
}

/// How many seconds `count` tokens take at a rate, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and a float saturates"
)]
fn seconds(count: u32, per_second: f64) -> u64 {
    (f64::from(count) / per_second).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::CapacityPool;

    #[test]
    fn a_full_pool_is_named_with_usage_and_limit() {
        let key = LimitKey::Pool(CapacityPool::FargateSpot);
        assert_eq!(
            usage_words(&key, 6 * 1024, Some(6 * 1024)),
            "Fargate Spot vCPU 6 of 6 in use"
        );
    }

    #[test]
    fn what_can_never_fit_is_said_at_once() {
        assert!(impossible(2048, Some(1024)).is_some_and(|why| why.contains("2 vCPU")));
        assert_eq!(impossible(2048, Some(2048)), None);
        assert_eq!(impossible(2048, None), None);
    }
}
