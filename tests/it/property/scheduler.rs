//! Properties of the scheduler's decisions, whatever waits and whatever ECS answers.
//!
//! The account here is a model on virtual time with one launcher. It loads a snapshot, asks
//! [`decide`], and does what the decision says. Several launchers at once, lost messages and crashes
//! are the simulation's part.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    execution::{Execution, Outcome, State},
    limit::{CapacityPool, LimitKey},
    request::TaskSize,
    scheduler::{
        Decision, Launches, LimitSnapshot, PoolSnapshot, Settlement, Snapshot,
        adaptive_limit::Shortage,
        decide, fair, foresee,
        snapshot::admissions,
        state::{Answer, Change, HeldChange, Learned, LimitState, PromotedChange},
    },
};
use proptest::prelude::*;

use crate::contract::records::{Wish, at, launching, stopped};

const SPOT: LimitKey = LimitKey::Pool(CapacityPool::FargateSpot);
const SLOT: u32 = 256;
/// The largest task of these tests, in slots.
const LARGEST: u32 = 4;
/// More virtual time than any of these tests needs.
const LONG: TimeDelta = TimeDelta::hours(12);

/// What ECS does with launches on Spot beyond `room`.
#[derive(Clone, Copy, Debug)]
struct Ecs {
    room: u32,
    shortage: Shortage,
}

/// A launch that ECS answered.
#[derive(Clone, Debug)]
struct Answered {
    id: String,
    submitter: String,
    pool: CapacityPool,
    accepted: bool,
    at: Timestamp,
    /// The CPU units of the pool in use before it.
    used: u32,
}

struct Account {
    now: Timestamp,
    executions: Vec<Execution>,
    states: BTreeMap<LimitKey, LimitState>,
    /// Each submitter's virtual time in each backlog, and each backlog's own.
    served: BTreeMap<LimitKey, BTreeMap<String, u64>>,
    reached: BTreeMap<LimitKey, u64>,
    ends: BTreeMap<String, Timestamp>,
    quota: Option<u32>,
    spot_fallback_after: Option<u32>,
    ecs: Ecs,
    answers: Vec<Answered>,
}

impl Account {
    fn new(executions: Vec<Execution>, quota: u32) -> Self {
        Self {
            now: at(0),
            executions,
            states: BTreeMap::new(),
            served: BTreeMap::new(),
            reached: BTreeMap::new(),
            ends: BTreeMap::new(),
            quota: Some(quota),
            spot_fallback_after: None,
            ecs: Ecs {
                room: u32::MAX,
                shortage: Shortage::Quota,
            },
            answers: Vec::new(),
        }
    }

    fn used(&self, key: &LimitKey) -> u32 {
        self.executions
            .iter()
            .flat_map(Execution::allocations)
            .filter(|allocation| allocation.key == *key)
            .map(|allocation| allocation.amount)
            .sum()
    }

    fn limit(&self, key: &LimitKey) -> LimitSnapshot {
        LimitSnapshot {
            key: key.clone(),
            state: self.states.get(key).cloned().unwrap_or_default(),
            used: self.used(key),
        }
    }

    fn set(&self, key: &LimitKey) -> Option<u32> {
        self.quota.filter(|_| *key == SPOT)
    }

    fn snapshot(&self, key: &LimitKey) -> Snapshot {
        let limit = self.limit(key);
        let in_backlog = |execution: &&Execution| {
            let entry = execution.backlog_entry();
            entry.is_some_and(|entry| {
                entry.backlog == *key && entry.not_before.is_none_or(|due| due <= self.now)
            })
        };
        let waiting: Vec<_> = self.executions.iter().filter(in_backlog).collect();
        let served = self.served.get(key).cloned().unwrap_or_default();
        let reached = self.reached.get(key).copied().unwrap_or_default();
        let begins = waiting
            .iter()
            .map(|execution| {
                let submitter = execution.submitter();
                let own = served.get(&submitter).copied().unwrap_or_default();
                (submitter, own.max(reached))
            })
            .collect();
        let entries = waiting
            .iter()
            .filter_map(|one| one.backlog_entry())
            .collect();
        let entries: Vec<_> = fair::order(entries, &begins)
            .iter()
            .take(limit.entries_to_read(self.set(key), self.now) as usize)
            .filter_map(|entry| self.executions.iter().find(|one| one.id == entry.id))
            .cloned()
            .collect();
        let pool = entries.first().map(|first| {
            let key = LimitKey::Pool(first.pool);
            PoolSnapshot {
                pool: first.pool,
                set: self.set(&key),
                limit: self.limit(&key),
            }
        });
        let promoted = limit.state.backlog.promoted.as_ref();
        let is_promoted = self.executions.iter().any(|one| {
            Some(&one.id) == promoted
                && one
                    .backlog_entry()
                    .is_some_and(|entry| entry.backlog != *key)
        });
        Snapshot {
            limit,
            entries,
            index_lags: false,
            pool,
            is_promoted,
        }
    }

    fn change(&mut self, key: &LimitKey, change: &Change) {
        let after = self.limit(key).state.after(change, self.now);
        self.states.insert(key.clone(), after);
    }

    fn replace(&mut self, after: Option<Execution>) {
        let after = after.expect("the decision can be carried out");
        let before = self.executions.iter_mut().find(|one| one.id == after.id);
        *before.expect("it is known") = after;
    }

    fn find(&self, id: &domain::id::ExecutionId) -> Execution {
        let found = self.executions.iter().find(|one| one.id == *id);
        found.expect("it is known").clone()
    }

    /// Launches on record, all or none: each must fit under every limit of its own. Returns whether
    /// all started.
    fn launch(&mut self, backlog: &LimitKey, launch: Launches) -> bool {
        let wanted = launch.executions.len();
        assert!(wanted > 0, "a launch of nothing");
        let pool = launch.pool.limit.key.clone();
        if launch.is_probe {
            let state = self.limit(&pool).state;
            let probing = state.with_pool(state.pool.probing(self.now));
            self.states.insert(pool.clone(), probing);
        }
        let (mut accepted, mut refused) = (0, false);
        for execution in launch.executions {
            let used = self.used(&pool);
            let full = admissions(&execution, launch.max)
                .into_iter()
                .find(|admission| {
                    let demand = execution.demand().into_iter();
                    let amount: u32 = demand
                        .filter(|allocation| allocation.key == admission.key)
                        .map(|allocation| allocation.amount)
                        .sum();
                    let after = self.used(&admission.key) + amount;
                    admission.max.is_some_and(|max| after > max)
                });
            if let Some(full) = full.map(|admission| admission.key) {
                // It has a lock and is of a group, and only the first of the two was looked at.
                assert!(full != *backlog && full != pool, "{full} has no room");
                self.replace(execution.parked(full, "full".into(), self.now));
                continue;
            }
            let fits = execution.pool != CapacityPool::FargateSpot
                || used + execution.request.size.cpu() <= self.ecs.room;
            self.answers.push(Answered {
                id: execution.id.to_string(),
                submitter: execution.submitter(),
                pool: execution.pool,
                accepted: fits,
                at: self.now,
                used,
            });
            let launched = launching(&execution, self.now);
            if fits {
                for key in launched.started_from() {
                    let reached = self.reached.get(&key).copied().unwrap_or_default();
                    let served = self.served.entry(key.clone()).or_default();
                    let own = served.entry(execution.submitter()).or_default();
                    let begins = (*own).max(reached);
                    *own = fair::charge(*own, reached);
                    self.reached.insert(key, begins);
                }
                let runs = 1 + execution.id.as_str().bytes().map(i64::from).sum::<i64>() % 90;
                self.ends.insert(
                    execution.id.to_string(),
                    self.now + TimeDelta::seconds(runs),
                );
                self.replace(Some(launched));
                accepted += 1;
            } else {
                let token = launched.open_attempt().and_then(|a| a.run_task.clone());
                let token = token.expect("it is launching").client_token;
                self.replace(launched.refused(&token, backlog.clone(), "no", self.now));
                refused = true;
            }
        }
        let answer = if refused {
            Some(Answer::Short(self.ecs.shortage, "no".into()))
        } else {
            (launch.is_probe && accepted > 0).then_some(Answer::ProbeAccepted)
        };
        let learned = answer.map(|answer| Learned {
            answer,
            used: self.used(&pool),
            quota: launch.pool.quota(),
            spread: 0,
        });
        self.change(
            &pool,
            &Change {
                learned,
                ..Change::default()
            },
        );
        accepted == wanted
    }

    /// Goes on with a backlog until it is held. Returns the backlogs that entries moved to, and
    /// when to look again.
    fn drain(&mut self, key: &LimitKey) -> (BTreeSet<LimitKey>, Option<Timestamp>) {
        let mut next = BTreeSet::new();
        for _ in 0..10_000 {
            let snapshot = self.snapshot(key);
            let decision = decide(&snapshot, self.spot_fallback_after, self.now);
            let (held, look_at) = match decision {
                Decision::Idle => (HeldChange::Free, None),
                Decision::LookAgain => unreachable!("the index of this model does not lag"),
                Decision::Settle(settled) => {
                    for (id, settlement) in settled {
                        let before = self.find(&id);
                        self.replace(match settlement {
                            Settlement::Reject(why) => before.rejected(why, self.now),
                            Settlement::FallBack(why) => before.falls_back(&why, self.now),
                        });
                        next.extend(self.find(&id).backlog_entry().map(|entry| entry.backlog));
                    }
                    continue;
                }
                Decision::Launch(launch) => {
                    let foreseen = foresee(&snapshot, &launch, self.spot_fallback_after, self.now);
                    if self.launch(key, *launch)
                        && let Some(hold) = foreseen
                    {
                        let looked =
                            decide(&self.snapshot(key), self.spot_fallback_after, self.now);
                        assert_eq!(looked, Decision::Hold(hold), "{key} was foreseen wrongly");
                    }
                    continue;
                }
                Decision::Promote(hold, id, pool) => {
                    let parked = self
                        .find(&id)
                        .parked(pool.clone(), hold.reason.clone(), self.now);
                    self.replace(parked);
                    next.insert(pool);
                    let instead_of = self.limit(key).state.backlog.promoted;
                    let promoted = Change {
                        promoted: Some(PromotedChange { instead_of, id }),
                        ..Change::default()
                    };
                    self.change(key, &promoted);
                    (HeldChange::By(hold.clone()), hold.look_at)
                }
                Decision::Hold(hold) => (HeldChange::By(hold.clone()), hold.look_at),
            };
            let change = Change {
                held,
                ..Change::default()
            };
            self.change(key, &change);
            return (next, look_at);
        }
        panic!("{key} is never held");
    }

    fn backlogs(&self) -> BTreeSet<LimitKey> {
        let waiting = self.executions.iter().filter_map(Execution::backlog_entry);
        waiting.map(|entry| entry.backlog).collect()
    }

    /// Asserts that of each lock at most one execution waits in a pool's backlog for all behind it.
    /// Executions that are of a group too may be there for their group.
    fn assert_one_is_promoted(&self) {
        let mut promoted = BTreeSet::new();
        let of_no_group = |execution: &&Execution| execution.request.group.is_none();
        for execution in self.executions.iter().filter(of_no_group) {
            let backlog = execution.backlog_entry().map(|entry| entry.backlog);
            if let (Some(LimitKey::Pool(_)), Some(lock)) = (backlog, &execution.request.lock) {
                assert!(
                    promoted.insert(lock),
                    "two of lock {lock} wait for the pool"
                );
            }
        }
    }

    /// Drains every backlog, again and again while entries move.
    fn launch_all(&mut self) -> Option<Timestamp> {
        let (mut todo, mut look_at) = (self.backlogs(), None::<Timestamp>);
        for _ in 0..10_000 {
            let Some(key) = todo.pop_first() else {
                return look_at;
            };
            let answered = self.answers.len();
            let (next, again) = self.drain(&key);
            self.assert_one_is_promoted();
            todo.extend(next);
            if self.answers.len() > answered {
                // A launch from a pool's backlog may let the next of a group be promoted.
                todo.extend(self.backlogs().into_iter().filter(|other| *other != key));
            }
            look_at = look_at.into_iter().chain(again).min();
        }
        panic!("the backlogs never rest");
    }

    /// Lets time pass until everything has ended or `until` is reached.
    fn run(&mut self, until: Timestamp) {
        while self.now < until {
            let look_at = self.launch_all();
            let next = look_at
                .into_iter()
                .chain(self.ends.values().copied())
                .filter(|at| *at > self.now)
                .min();
            let Some(next) = next else { return };
            self.now = next;
            let over: Vec<_> = self
                .ends
                .extract_if(.., |_, at| *at <= next)
                .map(|(id, _)| id)
                .collect();
            for id in over {
                let ended = self.executions.iter().find(|one| one.id.to_string() == id);
                let ended = stopped(ended.expect("it is known"), 0);
                self.replace(Some(ended));
            }
        }
    }

    fn unfinished(&self) -> Vec<&State> {
        let open = self.executions.iter().filter(|one| one.end().is_none());
        open.map(|one| &one.state).collect()
    }
}

/// A run on Spot of this many slots.
fn spot(wish: &Wish, slots: u32) -> Execution {
    let mut execution = wish.execution();
    let size = TaskSize::SMALLEST.with_cpu(u64::from(slots * SLOT));
    execution.pool = CapacityPool::FargateSpot;
    execution.request.size = size
        .or(TaskSize::new(1024, 2048))
        .expect("a size of Fargate");
    execution.state = match execution.state {
        State::Queued {
            backlog: LimitKey::Pool(_),
        } => State::Queued { backlog: SPOT },
        other => other,
    };
    execution
}

/// Runs of several submitters, sizes, priorities, locks and groups.
fn mixed() -> impl Strategy<Value = Vec<Execution>> {
    let one = (
        prop::sample::select(vec!["alice", "bob", "carol"]),
        prop::sample::select(vec![None, None, Some("deploy"), Some("plan")]),
        prop::sample::select(vec![None, None, Some("matrix"), Some("nightly")]),
        prop::sample::select(vec![1_u32, 1, 2, LARGEST]),
        0_i64..3,
    );
    prop::collection::vec(one, 1..40).prop_map(|all| {
        let each = all.into_iter().zip(1_u32..);
        each.map(|((by, lock, group, slots, priority), number)| {
            let wish = Wish {
                by,
                at: i64::from(number),
                entropy: u128::from(number),
                priority,
                lock,
                group,
                max_parallel: group.map(|_| 2),
                ..Wish::default()
            };
            spot(&wish, slots)
        })
        .collect()
    })
}

/// `each` runs of one slot for each of these submitters, all there from the start. Each submitter
/// came after the one before, so that time alone would serve one after the other.
fn crowd(submitters: &[&'static str], each: u32) -> Vec<Execution> {
    let mut all = Vec::new();
    for (by, came) in submitters.iter().zip(0_i64..) {
        for number in 1..=each {
            let wish = Wish {
                entropy: u128::from(number),
                ..Wish::of(by, came)
            };
            all.push(spot(&wish, 1));
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// All or none, no starvation: whatever waits ends, and no limit is ever exceeded on the way
    /// ([`Account::launch`] checks each launch), although ECS has less room than the quota says.
    #[test]
    fn whatever_waits_is_started_under_all_its_limits(
        executions in mixed(),
        quota in LARGEST..12,
        others in 0_u32..8,
    ) {
        let mut account = Account::new(executions, quota * SLOT);
        account.ecs.room = (quota - others.min(quota - LARGEST)) * SLOT;
        account.run(at(0) + LONG);
        prop_assert!(account.unfinished().is_empty(), "{:?}", account.unfinished());
        prop_assert!(account.backlogs().is_empty());
    }

    /// Of one lock, one submitter's runs start in the order of priority and time, even if they were
    /// promoted to the pool's backlog or ECS refused them meanwhile.
    #[test]
    fn a_lock_is_taken_in_order(
        priorities in prop::collection::vec(0_i64..3, 2..12),
        room in 1_u32..3,
        beside in 0_u32..4,
    ) {
        let mut executions = crowd(&["bob"], beside);
        let mut wanted: Vec<_> = priorities.iter().zip(1_u32..).map(|(priority, number)| {
            let wish = Wish {
                entropy: u128::from(100 + number),
                priority: *priority,
                lock: Some("deploy"),
                ..Wish::default()
            };
            spot(&wish, 1)
        }).collect();
        executions.extend(wanted.iter().cloned());
        wanted.sort_by_key(|one| (-one.request.priority, one.id.to_string()));
        let mut account = Account::new(executions, 8 * SLOT);
        account.ecs.room = room * SLOT;
        account.run(at(0) + LONG);
        let started = account.answers.iter().filter(|answered| answered.accepted);
        let started: Vec<_> = started.map(|answered| answered.id.clone())
            .filter(|id| wanted.iter().any(|one| one.id.to_string() == *id)).collect();
        let wanted: Vec<_> = wanted.iter().map(|one| one.id.to_string()).collect();
        prop_assert_eq!(started, wanted);
    }

    /// Fairness: while several submitters wait, none is ever more than one start ahead of another.
    #[test]
    fn submitters_who_wait_are_served_in_turn(each in 3_u32..20, slots in 1_u32..6) {
        let mut account = Account::new(crowd(&["alice", "bob", "carol"], each), slots * SLOT);
        account.run(at(0) + LONG);
        let mut counts = BTreeMap::from([("alice", 0), ("bob", 0), ("carol", 0)]);
        for answered in &account.answers {
            let by = answered.submitter.trim_start_matches("key:");
            *counts.get_mut(by).expect("one of the three") += 1;
            let waiting: Vec<_> = counts.values().filter(|count| **count < each).collect();
            let (least, most) = (waiting.iter().min(), waiting.iter().max());
            prop_assert!(least.zip(most).is_none_or(|(least, most)| **most - **least <= 1), "{counts:?}");
        }
    }

    /// Fallback: a run leaves Spot only for lack of capacity, and only after enough refusals in a
    /// row. Then it runs on demand.
    #[test]
    fn spot_gives_way_after_enough_refusals(count in 1_u32..12, after in 1_u32..5, quota_is_short: bool) {
        let mut account = Account::new(crowd(&["alice"], count), 64 * SLOT);
        account.spot_fallback_after = Some(after);
        account.ecs = Ecs {
            room: 0,
            shortage: if quota_is_short { Shortage::Quota } else { Shortage::Capacity },
        };
        account.run(at(0) + TimeDelta::minutes(30));
        let on_spot: BTreeSet<_> = account.answers.iter()
            .filter(|answered| answered.pool == CapacityPool::FargateSpot)
            .map(|answered| answered.at)
            .collect();
        if quota_is_short {
            prop_assert_eq!(account.unfinished().len(), count as usize);
            prop_assert!(account.executions.iter().all(|one| one.pool == CapacityPool::FargateSpot));
        } else {
            prop_assert!(account.unfinished().is_empty());
            prop_assert!(account.executions.iter().all(|one| one.pool == CapacityPool::Fargate));
            prop_assert!(on_spot.len() >= after as usize, "{} of {after} tries", on_spot.len());
        }
    }

    /// Probing: after a refusal nothing is launched beyond what was in use, except one probe every
    /// five seconds at most.
    #[test]
    fn refusals_come_one_at_a_time(count in 8_u32..40, room in 1_u32..8) {
        let mut account = Account::new(crowd(&["alice"], count), 64 * SLOT);
        account.ecs.room = room * SLOT;
        account.run(at(0) + LONG);
        let refused: Vec<_> = account.answers.iter().filter(|answered| !answered.accepted).collect();
        let mut rounds: Vec<_> = refused.iter().map(|answered| answered.at).collect();
        rounds.dedup();
        for pair in rounds.windows(2) {
            prop_assert!(pair[1] - pair[0] >= TimeDelta::seconds(5), "{:?}", pair);
        }
        for at in rounds.iter().skip(1) {
            let probes = refused.iter().filter(|answered| answered.at == *at).count();
            prop_assert_eq!(probes, 1, "one probe is refused, not several");
        }
        prop_assert!(account.unfinished().is_empty());
    }

    /// Probing: room that others give back is found and used within a minute, up to the quota.
    #[test]
    fn room_that_others_give_back_is_used(room in 1_u32..8, quota in 12_u32..24) {
        let mut account = Account::new(crowd(&["alice", "bob"], 200), quota * SLOT);
        account.ecs.room = room * SLOT;
        account.run(at(60_000));
        account.ecs.room = u32::MAX;
        let from = account.now;
        account.run(from + TimeDelta::minutes(1));
        let most = account.answers.iter().map(|answered| answered.used + SLOT).max();
        prop_assert_eq!(most, Some(quota * SLOT));
    }
}

/// Records that no limit can ever admit end at once, and hold up nobody.
#[test]
fn what_can_never_fit_is_rejected_with_the_limit_and_the_fix() {
    let large = spot(&Wish::of("alice", 0), LARGEST);
    let mut executions = crowd(&["bob"], 3);
    executions.push(large.clone());
    let mut account = Account::new(executions, 2 * SLOT);
    account.run(at(0) + LONG);
    assert!(account.unfinished().is_empty());
    let State::Final(end) = account.find(&large.id).state else {
        panic!("it is final")
    };
    let Outcome::Failed { reason, .. } = end.outcome else {
        panic!("it failed")
    };
    assert!(
        reason.contains("needs 1 vCPU at once, and the limit here is 0.5"),
        "{reason}"
    );
}
