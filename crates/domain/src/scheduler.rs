//! The scheduler: what a launcher does next with a backlog. [`decide`] takes one snapshot and
//! returns one decision; nothing here does I/O.
//!
//! - The order of a backlog is fair between submitters, then by priority, then by time ([`fair`]).
//!   Entries start in that order: the first one that does not fit holds up those behind it, so that
//!   small ones never starve a large one of the same backlog.
//! - A launch takes its lock, its group and its pool in one write, all or none. An execution with a
//!   lock, or of a group with a limit, starts from that limit's backlog. If only the pool has no
//!   room, the first entry of that backlog is promoted: it moves to the pool's backlog and waits
//!   there for all entries behind it.
//! - A pool accepts what its quota and its adaptive limit allow ([`adaptive_limit`]). Beyond the
//!   adaptive limit one launcher at a time makes a probe.
//! - An execution on Fargate Spot falls back to on-demand capacity after enough refusals in a row
//!   or interruptions.
//! - What holds a backlog is a [`Hold`], with its reason in words. `status` explains a wait with
//!   the same reasons ([`reason::BacklogWait::explain`]).

use crate::{
    Timestamp,
    execution::Execution,
    id::ExecutionId,
    limit::{CapacityPool, LimitKey, fitting},
};

pub mod adaptive_limit;
pub mod fair;
pub mod reason;
pub mod snapshot;
pub mod state;
pub mod watch;

pub use snapshot::{LimitSnapshot, PoolSnapshot, Snapshot};
pub use state::Hold;

use adaptive_limit::Shortage;
use snapshot::max_of;
use state::Room;

/// The launcher's next step with a backlog.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing: no entry is due.
    Idle,
    /// Look again in a moment: the backlog's index lags behind the records.
    LookAgain,
    /// Change these first entries, which will not start from here, and look again.
    Settle(Vec<(ExecutionId, Settlement)>),
    /// Launch these, as far as the rates allow.
    Launch(Box<Launches>),
    /// Nothing can start: this holds the backlog.
    Hold(Hold),
    /// Nothing can start here: this holds the backlog until its first entry, which moves to the
    /// backlog of this pool, has started from there.
    Promote(Hold, ExecutionId, LimitKey),
}

/// The fate of an execution that will not start from its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It ends, for this reason: no limit here can ever admit it.
    Reject(String),
    /// It moves to on-demand capacity, for this reason.
    FallBack(String),
}

/// The launches of one round.
#[derive(Clone, Debug, PartialEq)]
pub struct Launches {
    /// The first entries, in their order.
    pub executions: Vec<Execution>,
    /// The pool they all start in.
    pub pool: PoolSnapshot,
    /// The CPU units of the pool that may be in use afterwards; `None` for no limit.
    pub max: Option<u32>,
    /// Whether this is a probe, which one launcher at a time may make.
    pub is_probe: bool,
}

/// Decides what to do next with a backlog. After `spot_fallback_after` refusals in a row, or
/// interruptions of one execution, an execution falls back from Spot; `None` for never.
#[must_use]
pub fn decide(snapshot: &Snapshot, spot_fallback_after: Option<u32>, now: Timestamp) -> Decision {
    let (Some(first), Some(pool)) = (snapshot.entries.first(), &snapshot.pool) else {
        return if snapshot.index_lags {
            Decision::LookAgain
        } else {
            Decision::Idle
        };
    };
    let room = pool.room(first.request.size.cpu(), now);
    let is_pools_own = snapshot.limit.key == pool.limit.key;
    // In the backlog of a lock or a group only the first entry may start, so only that one is
    // checked. In the pool's backlog all entries wait for the pool.
    let checked = if is_pools_own {
        snapshot.entries.as_slice()
    } else {
        std::slice::from_ref(first)
    };
    let settled: Vec<_> = checked
        .iter()
        .filter(|execution| execution.pool == pool.pool)
        .filter_map(|execution| {
            settlement(execution, pool, spot_fallback_after, now)
                .map(|settlement| (execution.id.clone(), settlement))
        })
        .collect();
    if !settled.is_empty() {
        return Decision::Settle(settled);
    }
    let batch: Vec<_> = snapshot
        .entries
        .iter()
        .take_while(|execution| execution.pool == pool.pool)
        .collect();
    let (max, probes) = match room {
        Room::UpTo(max) => (max, None),
        Room::Probe(count) => (pool.quota(), Some(count)),
    };
    let cpu = batch.iter().map(|execution| execution.request.size.cpu());
    let in_pool = match probes {
        None => fitting(cpu, pool.limit.used, max),
        Some(count) => fitting(cpu, pool.limit.used, max).min(usize::try_from(count).unwrap_or(1)),
    };
    let launch = |count: usize| {
        Decision::Launch(Box::new(Launches {
            executions: batch.iter().copied().take(count).cloned().collect(),
            pool: pool.clone(),
            max,
            is_probe: probes.is_some(),
        }))
    };
    if is_pools_own {
        return match in_pool {
            0 => Decision::Hold(Hold::by_pool(
                &pool.limit,
                pool.quota(),
                first.request.size.cpu(),
            )),
            count => launch(count),
        };
    }
    if snapshot.is_promoted {
        return Decision::Hold(Hold::behind_promoted(pool, first.request.size.cpu()));
    }
    let own_max = max_of(&snapshot.limit.key, &first.request, None);
    let own = fitting(batch.iter().map(|_| 1), snapshot.limit.used, own_max);
    match own.min(in_pool) {
        0 if own == 0 => Decision::Hold(Hold::by_limit(&snapshot.limit, own_max)),
        0 => Decision::Promote(
            Hold::behind_promoted(pool, first.request.size.cpu()),
            first.id.clone(),
            pool.limit.key.clone(),
        ),
        count => launch(count),
    }
}

/// Returns the hold of a backlog after these launches from it, if that is certain without another
/// look. `None` where a look is needed: more may fit, no entry is known that waits, or the backlog
/// is that of a lock or a group.
///
/// The hold counts only if each of the launches started. Then the pool's use has grown by theirs
/// alone. If others have released something since, there is a wakeup or a watch for it.
#[must_use]
pub fn foresee(
    snapshot: &Snapshot,
    launched: &Launches,
    spot_fallback_after: Option<u32>,
    now: Timestamp,
) -> Option<Hold> {
    let pool = &launched.pool;
    if launched.is_probe || snapshot.limit.key != pool.limit.key {
        return None;
    }
    let more: u32 = launched
        .executions
        .iter()
        .map(|execution| execution.request.size.cpu())
        .sum();
    let limit = LimitSnapshot {
        used: pool.limit.used.saturating_add(more),
        ..pool.limit.clone()
    };
    let is_launched = |entry: &&Execution| launched.executions.iter().any(|one| one.id == entry.id);
    let after = Snapshot {
        limit: limit.clone(),
        entries: snapshot
            .entries
            .iter()
            .filter(|entry| !is_launched(entry))
            .cloned()
            .collect(),
        pool: Some(PoolSnapshot {
            limit,
            ..pool.clone()
        }),
        ..snapshot.clone()
    };
    match decide(&after, spot_fallback_after, now) {
        Decision::Hold(hold) => Some(hold),
        _ => None,
    }
}

/// Whether an execution must leave its pool, and how.
fn settlement(
    execution: &Execution,
    pool: &PoolSnapshot,
    spot_fallback_after: Option<u32>,
    now: Timestamp,
) -> Option<Settlement> {
    reason::impossible(execution.request.size.cpu(), pool.quota())
        .map(Settlement::Reject)
        .or_else(|| {
            let after = spot_fallback_after.filter(|_| pool.pool == CapacityPool::FargateSpot)?;
            gives_up_spot(execution, pool, after, now).map(Settlement::FallBack)
        })
}

/// Why an execution falls back from Spot to on-demand capacity, or `None` if it does not.
fn gives_up_spot(
    execution: &Execution,
    pool: &PoolSnapshot,
    after: u32,
    now: Timestamp,
) -> Option<String> {
    let interruptions = execution.spot_interruptions();
    if interruptions >= after {
        return Some(format!(
            "Fargate Spot took its capacity back {interruptions} times"
        ));
    }
    // An execution that fits in Spot stays there. A probe that is due is made first, or Spot would
    // be given up for ever.
    let cpu = execution.request.size.cpu();
    let fits = match pool.room(cpu, now) {
        Room::Probe(_) => true,
        Room::UpTo(max) => fitting([cpu], pool.limit.used, max) == 1,
    };
    if fits {
        return None;
    }
    let adaptive_limit = pool
        .limit
        .state
        .pool
        .adaptive_limit
        .as_ref()
        .filter(|adaptive_limit| adaptive_limit.shortage == Shortage::Capacity)?;
    (adaptive_limit.refusals >= after).then(|| {
        format!(
            "Fargate Spot had no capacity {} times in a row ({})",
            adaptive_limit.refusals, adaptive_limit.words
        )
    })
}

/// The backlog of the group for which a launched execution waited in the pool's backlog, if it did.
/// Its next entry is to be promoted.
#[must_use]
pub fn promotes_next(from: &LimitKey, launched: &Execution) -> Option<LimitKey> {
    launched
        .demand()
        .into_iter()
        .map(|allocation| allocation.key)
        .find(|key| matches!(key, LimitKey::Group(_)) && key != from)
}
