//! The limits that a launch must fit under: the concurrent capacity of a pool, locks, and groups.
//! Each limit has its own backlog.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    request::{Capacity, Name, Place},
};

/// The source of a task's vCPUs. Each pool has its own quota, its own launch rate and its own
/// backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityPool {
    /// Fargate Spot of the account and region.
    FargateSpot,
    /// Fargate on demand of the account and region.
    Fargate,
    /// This machine, for `--local`.
    Machine,
}

impl CapacityPool {
    /// The pool that serves a request of this capacity in this place.
    #[must_use]
    pub fn of(place: Place, capacity: Capacity) -> Self {
        match (place, capacity) {
            (Place::OneMachine, _) => Self::Machine,
            (Place::Aws, Capacity::Spot) => Self::FargateSpot,
            (Place::Aws, Capacity::OnDemand) => Self::Fargate,
        }
    }

    /// Its capacity in the API's words: `spot`, `on-demand` or `machine`.
    #[must_use]
    pub fn capacity(self) -> &'static str {
        match self {
            Self::FargateSpot => "spot",
            Self::Fargate => "on-demand",
            Self::Machine => "machine",
        }
    }

    /// ECS's name of the capacity provider; `None` for this machine.
    #[must_use]
    pub fn provider(self) -> Option<&'static str> {
        match self {
            Self::FargateSpot => Some("FARGATE_SPOT"),
            Self::Fargate => Some("FARGATE"),
            Self::Machine => None,
        }
    }

    /// The pool's name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::FargateSpot => "Fargate Spot",
            Self::Fargate => "Fargate",
            Self::Machine => "this machine's",
        }
    }
}

/// CPU units as vCPUs: 1024 units are one.
#[must_use]
pub fn vcpu(units: u32) -> f64 {
    f64::from(units) / 1024.0
}

/// How many executions wait in a backlog, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogSize {
    /// The limit that they wait for.
    pub key: LimitKey,
    /// How many they are, backed-off ones included.
    pub entries: u32,
    /// When the one that waits longest was submitted.
    pub oldest: Timestamp,
}

/// The key of a limit and of its backlog: `pool:machine`, `lock:NAME`, `group:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LimitKey {
    /// The concurrent vCPUs of a pool, counted in CPU units (1024 = one vCPU).
    Pool(CapacityPool),
    /// One execution at a time among those that name this lock.
    Lock(Name),
    /// How many executions of this group run at a time, among those that set `max_parallel`.
    Group(Name),
}

impl LimitKey {
    /// An amount of the limit in the unit that is shown: vCPUs of a pool, else executions.
    #[must_use]
    pub fn in_units(&self, amount: u32) -> f64 {
        match self {
            Self::Pool(_) => vcpu(amount),
            Self::Lock(_) | Self::Group(_) => f64::from(amount),
        }
    }
}

/// The error for a text that is not the key of a limit.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not the key of a limit")]
pub struct InvalidLimitKey(String);

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(CapacityPool::FargateSpot) => f.write_str("pool:fargate-spot"),
            Self::Pool(CapacityPool::Fargate) => f.write_str("pool:fargate"),
            Self::Pool(CapacityPool::Machine) => f.write_str("pool:machine"),
            Self::Lock(name) => write!(f, "lock:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl FromStr for LimitKey {
    type Err = InvalidLimitKey;

    fn from_str(text: &str) -> Result<Self, InvalidLimitKey> {
        match text.split_once(':') {
            Some(("pool", "fargate-spot")) => Ok(Self::Pool(CapacityPool::FargateSpot)),
            Some(("pool", "fargate")) => Ok(Self::Pool(CapacityPool::Fargate)),
            Some(("pool", "machine")) => Ok(Self::Pool(CapacityPool::Machine)),
            Some(("lock", name)) => name
                .parse()
                .map(Self::Lock)
                .map_err(|_| InvalidLimitKey(text.into())),
            Some(("group", name)) => name
                .parse()
                .map(Self::Group)
                .map_err(|_| InvalidLimitKey(text.into())),
            _ => Err(InvalidLimitKey(text.into())),
        }
    }
}

impl TryFrom<String> for LimitKey {
    type Error = InvalidLimitKey;

    fn try_from(text: String) -> Result<Self, InvalidLimitKey> {
        text.parse()
    }
}

impl From<LimitKey> for String {
    fn from(key: LimitKey) -> Self {
        key.to_string()
    }
}

/// The key of a rate. Each has its own token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RateKey {
    /// Launches in a pool.
    Launches(CapacityPool),
    /// Calls of `RunTask`, over all pools.
    RunTask,
    /// Registrations of task definitions, over all pools.
    Definitions,
}

impl fmt::Display for RateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launches(pool) => LimitKey::Pool(*pool).fmt(f),
            Self::RunTask => f.write_str("run-task"),
            Self::Definitions => f.write_str("definitions"),
        }
    }
}

/// The amount of a limit that an attempt holds while it is not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The limit.
    pub key: LimitKey,
    /// CPU units of a pool, or 1 of a lock or a group.
    pub amount: u32,
}

/// The condition for taking an allocation: at most `max` in use afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The limit.
    pub key: LimitKey,
    /// The most that may be in use; `None` for no limit.
    pub max: Option<u32>,
}

/// How much of a limit is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU units of a pool, or holders of a lock or a group.
    pub used: u32,
}

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
