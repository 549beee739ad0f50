//! The facts that a launcher has when it decides about a backlog.

use super::state::{LimitState, Room};
use crate::{
    Timestamp,
    execution::Execution,
    limit::{Admission, CapacityPool, LimitKey},
    request::{LaunchRequest, TaskSize},
};

/// How many entries one round looks at: RunTask takes 20 calls a second (AWS-FACTS §2).
pub const ROUND: u32 = 20;
/// How many entries are looked at beyond those that can start. The backlog's index lags the records
/// by some milliseconds, so it may still list entries that were just started.
const SPARE: u32 = 4;

/// The facts that a launcher has when it decides about a backlog.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The limit whose backlog this is.
    pub limit: LimitSnapshot,
    /// The first entries that are due, in their order.
    pub entries: Vec<Execution>,
    /// Whether the backlog's index listed entries that are gone.
    pub index_lags: bool,
    /// The pool of the first entry; `None` if there is no entry.
    pub pool: Option<PoolSnapshot>,
    /// Whether an entry of this lock's or group's backlog waits in a pool's backlog for all behind
    /// it.
    pub is_promoted: bool,
}

/// A limit as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitSnapshot {
    /// Its key.
    pub key: LimitKey,
    /// Its stored state.
    pub state: LimitState,
    /// How much of it is in use: CPU units of a pool, or holders of a lock or a group.
    pub used: u32,
}

/// A pool as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSnapshot {
    /// The pool.
    pub pool: CapacityPool,
    /// Its limit.
    pub limit: LimitSnapshot,
    /// The CPU units of the pool that the installation allows; `None` leaves it to the account's
    /// quota.
    pub set: Option<u32>,
}

impl LimitSnapshot {
    /// How many entries of the backlog to look at: as many as there may be room for, plus a few.
    /// Each costs the read of a record. `set` is what the installation allows of a pool.
    #[must_use]
    pub fn entries_to_read(&self, set: Option<u32>, now: Timestamp) -> u32 {
        let most = match self.key {
            LimitKey::Lock(_) => 1,
            LimitKey::Group(_) => ROUND,
            LimitKey::Pool(_) => {
                let smallest = TaskSize::SMALLEST.cpu();
                match self.state.pool.room(set, self.used, smallest, now) {
                    Room::UpTo(max) => {
                        max.map_or(ROUND, |max| max.saturating_sub(self.used) / smallest)
                    }
                    Room::Probe(count) => count,
                }
            }
        };
        most.saturating_add(SPARE).min(ROUND)
    }
}

impl PoolSnapshot {
    /// The CPU units that may be in use at all.
    #[must_use]
    pub fn quota(&self) -> Option<u32> {
        self.limit.state.pool.quota(self.set)
    }

    /// The room in the pool now, with `wanted` CPU units in the next launch.
    #[must_use]
    pub fn room(&self, wanted: u32, now: Timestamp) -> Room {
        self.limit
            .state
            .pool
            .room(self.set, self.limit.used, wanted, now)
    }
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

/// The most of a limit that may be in use for this request to start; `pool` for its pool.
#[must_use]
pub fn max_of(key: &LimitKey, request: &LaunchRequest, pool: Option<u32>) -> Option<u32> {
    match key {
        LimitKey::Pool(_) => pool,
        LimitKey::Lock(_) => Some(1),
        LimitKey::Group(_) => request.max_parallel,
    }
}
