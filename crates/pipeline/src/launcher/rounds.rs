//! Working on a backlog, round by round: load a snapshot, let the scheduler decide, carry the
//! decision out, and write the state of the limits once.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use domain::{
    Timestamp,
    execution::{BacklogEntry, Execution, State},
    id::ExecutionId,
    limit::{CapacityPool, LimitKey},
    message::{Message, Outgoing},
    ports::{
        Clock, Definitions, Entropy, LaunchStore, Logs, PortError, Queue, Secrets, Tasks,
        WriteStore,
    },
    scheduler::{
        self, Decision, Hold, LimitSnapshot, PoolSnapshot, Settlement, Snapshot,
        state::{Change, HeldChange, Learned, LimitState, PromotedChange},
        watch::{self, Pause, Watch},
    },
};
use futures_util::future::join_all;

use super::{Launcher, limit_state::change_limit};
use crate::{
    advance::{advance, delayed},
    unreadable::passed_over,
};

/// How many entries are looked at when those at the head cannot be read. This many records are some
/// megabytes.
const HIDDEN_MAX: u32 = 1_000;
/// How long one invocation works on backlogs before it leaves the rest to another wakeup. It is far
/// below the function's timeout.
const DRAIN: TimeDelta = TimeDelta::seconds(5);
/// A pause for the backlog's index to catch up with the records. It lags by some milliseconds.
const INDEX_NAP: TimeDelta = TimeDelta::milliseconds(100);

/// The work of one launcher on a backlog.
struct Drain {
    backlog: LimitKey,
    watch: Watch,
    /// The backlogs that its entries moved to or made room in.
    next: BTreeSet<LimitKey>,
}

/// The outcome of one round on a backlog.
#[derive(Default)]
pub(super) struct RoundOutcome {
    /// How many executions were started.
    pub(super) started: usize,
    /// Whether all that were to be launched surely started.
    pub(super) is_complete: bool,
    /// Whether a rate allowed no more of them. Then a pause lets tokens gather for the next round:
    /// small rounds cost as much as large ones.
    pub(super) is_rate_bound: bool,
    /// The findings about the pool from ECS's answers, and the pool's limit as it was last read.
    pub(super) learned: Option<(LimitSnapshot, Learned)>,
    /// The launcher's next step.
    pub(super) then: Then,
    /// The backlogs that entries moved to or made room in.
    pub(super) next: Vec<LimitKey>,
    /// An error that some of the launches met. The others went on.
    pub(super) failure: Option<PortError>,
}

/// The launcher's next step after a round.
#[derive(Default)]
pub(super) enum Then {
    /// It looks again.
    #[default]
    Again,
    /// It looks again in a moment: the backlog's index lags behind the records.
    AgainSoon,
    /// No entry is due.
    Idle,
    /// This holds the backlog. If an entry is promoted, it moves to the pool's backlog.
    Held(Hold, Option<Promotion>),
}

/// The first entry of a lock's or a group's backlog, which moves to its pool's backlog.
pub(super) struct Promotion {
    id: ExecutionId,
    pool: LimitKey,
}

impl RoundOutcome {
    /// Nothing was started, and this is next.
    pub(super) fn then(then: Then) -> Self {
        Self {
            then,
            ..Self::default()
        }
    }
}

impl<S, Q, T, L, X, A> Launcher<'_, S, Q, T, L, X, A>
where
    S: WriteStore + LaunchStore + Definitions,
    Q: Queue,
    T: Tasks,
    L: Logs,
    X: Secrets,
    A: Clock + Entropy,
{
    /// Drains a backlog, and then the backlogs that its first entries moved to or made room in. No
    /// message is sent for those unless the work fails.
    ///
    /// SQS delivers the message that began this again only after minutes. So after an error each
    /// backlog that is left gets a delayed wakeup.
    pub(super) async fn drain_all(
        &self,
        backlog: LimitKey,
        newcomers: &[ExecutionId],
    ) -> Result<(), PortError> {
        let mut next = BTreeSet::new();
        let drained = self.drain_these(backlog, newcomers, &mut next).await;
        if drained.is_err() && !next.is_empty() {
            let again = next
                .into_iter()
                .map(|backlog| wakeup_in(backlog, watch::NAP_MAX + watch::WATCH));
            if self.queue.send(again.collect()).await.is_err() {
                tracing::warn!(
                    "no wakeup could be sent for backlogs that were left; the sweep sends one"
                );
            }
        }
        drained
    }

    /// Drains a backlog and those that follow. `next` has the backlogs that are still to be looked
    /// at, also after an error.
    async fn drain_these(
        &self,
        backlog: LimitKey,
        newcomers: &[ExecutionId],
        next: &mut BTreeSet<LimitKey>,
    ) -> Result<(), PortError> {
        let until = self.system.now() + DRAIN;
        self.drain(backlog, newcomers, next).await?;
        while let Some(backlog) = next.pop_first() {
            if self.system.now() >= until {
                next.insert(backlog);
                let rest = std::mem::take(next);
                return self
                    .queue
                    .send(rest.into_iter().map(wakeup).collect())
                    .await;
            }
            self.drain(backlog, &[], next).await?;
        }
        Ok(())
    }

    /// Starts the first executions of a backlog while there is room, and records for the newcomers
    /// why they wait. Adds the backlogs to look at next to `next`: after an error the backlog itself
    /// too, if it may be watched, because no wakeup is sent for room that became free under a watch.
    async fn drain(
        &self,
        backlog: LimitKey,
        newcomers: &[ExecutionId],
        next: &mut BTreeSet<LimitKey>,
    ) -> Result<(), PortError> {
        let fast_from = Some(self.pace.fast()).filter(|_| self.settings.wakeups_cost());
        let mut work = Drain {
            backlog,
            watch: Watch::begin(fast_from, self.system.now()),
            next: BTreeSet::new(),
        };
        let drained = self.drain_while(&mut work, newcomers).await;
        next.extend(work.next);
        if drained.is_err() && work.watch.until().is_some() {
            next.insert(work.backlog);
        }
        drained
    }

    async fn drain_while(
        &self,
        work: &mut Drain,
        newcomers: &[ExecutionId],
    ) -> Result<(), PortError> {
        let until = self.system.now() + DRAIN;
        while self.system.now() < until {
            let state = self.store.limit_state(&work.backlog).await?;
            if state.backlog.is_attended(self.system.now()) {
                return self.end_watch(work, &state).await;
            }
            let snapshot = self.snapshot(work.backlog.clone(), state).await?;
            let outcome = if self.close_marked(&snapshot.entries).await? {
                RoundOutcome::default()
            } else {
                self.carry_out(&snapshot).await?
            };
            if !self.conclude(work, snapshot, outcome, newcomers).await? {
                return Ok(());
            }
        }
        // The watch is cleared before the message is sent. No wakeup is sent for room that becomes
        // free under a watch, and the launcher that takes the message may have left by then.
        if work.watch.until().is_some() {
            let state = self.store.limit_state(&work.backlog).await?;
            self.end_watch(work, &state).await?;
        }
        self.queue.send(vec![wakeup(work.backlog.clone())]).await
    }

    /// Does what the scheduler decides.
    async fn carry_out(&self, snapshot: &Snapshot) -> Result<RoundOutcome, PortError> {
        let now = self.system.now();
        match scheduler::decide(snapshot, self.settings.spot_fallback_after, now) {
            Decision::Idle => Ok(RoundOutcome::then(Then::Idle)),
            Decision::LookAgain => Ok(RoundOutcome::then(Then::AgainSoon)),
            Decision::Hold(hold) => Ok(RoundOutcome::then(Then::Held(hold, None))),
            Decision::Promote(hold, id, pool) => Ok(RoundOutcome::then(Then::Held(
                hold,
                Some(Promotion { id, pool }),
            ))),
            Decision::Settle(settled) => Ok(self.settle(&snapshot.limit.key, settled).await),
            Decision::Launch(launch) => {
                let foreseen =
                    scheduler::foresee(snapshot, &launch, self.settings.spot_fallback_after, now);
                let outcome = self.launch(&snapshot.limit.key, *launch).await?;
                Ok(match foreseen {
                    Some(hold) if outcome.is_complete => RoundOutcome {
                        then: Then::Held(hold, None),
                        ..outcome
                    },
                    _ => outcome,
                })
            }
        }
    }

    /// Writes what the round changed in the state of the limits, once for each, and waits if the
    /// backlog is held. Returns whether another round is due.
    async fn conclude(
        &self,
        work: &mut Drain,
        snapshot: Snapshot,
        outcome: RoundOutcome,
        newcomers: &[ExecutionId],
    ) -> Result<bool, PortError> {
        let (now, mut state) = (self.system.now(), snapshot.limit.state);
        // The backlog itself is looked at again anyway.
        let others = outcome
            .next
            .into_iter()
            .filter(|next| *next != work.backlog);
        work.next.extend(others);
        let mut change = Change::default();
        if state.backlog.held.is_some() {
            change.started = self.pace.count(&work.backlog, outcome.started, now);
        }
        match outcome.learned {
            Some((pool, learned)) if pool.key == work.backlog => {
                state = pool.state;
                change.learned = Some(learned);
            }
            Some((pool, learned)) => {
                let learned = Change {
                    learned: Some(learned),
                    ..Change::default()
                };
                change_limit(self.store, &pool.key, &pool.state, &learned, now).await?;
            }
            None => {}
        }
        let again = match outcome.then {
            Then::Again => {
                let moved = work.watch.moved(outcome.started, now);
                change.watch = moved.watch;
                change_limit(self.store, &work.backlog, &state, &change, now).await?;
                if moved.needs_help {
                    self.queue.send(vec![wakeup(work.backlog.clone())]).await?;
                }
                if outcome.is_rate_bound {
                    self.system.sleep(watch::NAP_MIN).await;
                    work.watch.paused(self.system.now());
                }
                true
            }
            Then::AgainSoon => {
                change_limit(self.store, &work.backlog, &state, &change, now).await?;
                self.system.sleep(INDEX_NAP).await;
                work.watch.paused(self.system.now());
                true
            }
            Then::Idle => {
                let (watch, was_watched) = work.watch.end();
                change.watch = watch;
                change.held = HeldChange::Free;
                change_limit(self.store, &work.backlog, &state, &change, now).await?;
                work.watch.ended();
                // No wakeup was sent for room that became free under the watch.
                was_watched
            }
            Then::Held(hold, promotion) => {
                change.promoted = promotion.as_ref().map(|promotion| PromotedChange {
                    instead_of: state.backlog.promoted.clone(),
                    id: promotion.id.clone(),
                });
                if work.watch.count(outcome.started, now) {
                    self.queue.send(vec![wakeup(work.backlog.clone())]).await?;
                }
                let held = self.hold(work, &state, change, &hold).await?;
                if let Some(promotion) = promotion
                    && !self.promote(work, &held.after, promotion, &hold).await?
                {
                    return Ok(true);
                }
                self.tell(newcomers, &work.backlog, &hold.reason).await?;
                if let Some(nap) = held.rest.nap {
                    self.system.sleep(nap).await;
                }
                work.watch.waited(self.system.now());
                held.rest.nap.is_some() || held.rest.ends_watch
            }
        };
        outcome.failure.map_or(Ok(again), Err)
    }

    /// Records what holds a backlog and arranges the next look at it: by this launcher after a
    /// pause, or by a delayed wakeup.
    async fn hold(
        &self,
        work: &mut Drain,
        state: &LimitState,
        change: Change,
        hold: &Hold,
    ) -> Result<HeldNow, PortError> {
        let now = self.system.now();
        let rest = work.watch.rest(hold, !work.next.is_empty(), now);
        let change = Change {
            held: HeldChange::By(hold.clone()),
            watch: rest.watch,
            ..change
        };
        let (before, after) = change_limit(self.store, &work.backlog, state, &change, now).await?;
        work.watch.rested(&rest);
        let is_new = before != after && !before.backlog.is_looked_at_before(hold, now);
        let look_at = hold
            .look_at
            .filter(|at| *at > now && rest.nap.is_none() && is_new);
        if let Some(at) = look_at {
            let again = wakeup_in(work.backlog.clone(), at - now);
            self.queue.send(vec![again]).await?;
        }
        Ok(HeldNow { after, rest })
    }

    /// Moves the first entry of a lock's or a group's backlog to its pool's backlog. Returns
    /// `false` if another entry was promoted first.
    async fn promote(
        &self,
        work: &mut Drain,
        state: &LimitState,
        Promotion { id, pool }: Promotion,
        hold: &Hold,
    ) -> Result<bool, PortError> {
        if state.backlog.promoted.as_ref() != Some(&id) {
            return Ok(false);
        }
        let now = self.system.now();
        let moves = |execution: &Execution| {
            execution
                .backlog_entry()
                .filter(|entry| entry.backlog == work.backlog)?;
            execution.parked(pool.clone(), hold.reason.clone(), now)
        };
        self.heads.forget(&work.backlog, &id);
        advance(self.store, self.queue, now, &id, moves).await?;
        work.next.insert(pool);
        Ok(true)
    }

    /// Clears this launcher's watch, because others go on with the backlog.
    async fn end_watch(&self, work: &mut Drain, state: &LimitState) -> Result<(), PortError> {
        let (watch, was_watched) = work.watch.end();
        if was_watched {
            let change = Change {
                watch,
                ..Change::default()
            };
            let now = self.system.now();
            change_limit(self.store, &work.backlog, state, &change, now).await?;
            work.watch.ended();
        }
        Ok(())
    }

    /// Ends executions that no limit here can ever admit, and moves executions from Spot to
    /// on-demand capacity.
    async fn settle(
        &self,
        backlog: &LimitKey,
        settled: Vec<(ExecutionId, Settlement)>,
    ) -> RoundOutcome {
        let (mut outcome, mut any) = (RoundOutcome::default(), false);
        for (id, settlement) in settled {
            let now = self.system.now();
            let change = |execution: &Execution| match &settlement {
                Settlement::Reject(why) => execution.rejected(why.clone(), now),
                Settlement::FallBack(why) => execution.falls_back(why, now),
            };
            self.heads.forget(backlog, &id);
            match advance(self.store, self.queue, now, &id, change).await {
                Ok(Some(settled)) => {
                    // If nothing changed, the index lists an execution that has left the backlog.
                    any |= settled.end().is_some() || settled.pool == CapacityPool::Fargate;
                    // An execution that fell back waits in another backlog now.
                    let entry = settled.backlog_entry();
                    outcome.next.extend(entry.map(|entry| entry.backlog));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(execution_id = %id, %error, "an execution could not leave its pool");
                    outcome.failure = Some(error);
                }
            }
        }
        if !any {
            outcome.then = Then::AgainSoon;
        }
        outcome
    }

    /// Loads what is to be known about a backlog.
    async fn snapshot(&self, backlog: LimitKey, state: LimitState) -> Result<Snapshot, PortError> {
        let now = self.system.now();
        let used = self.store.usage(&backlog).await?.used;
        let limit = LimitSnapshot {
            key: backlog,
            state,
            used,
        };
        let set = match limit.key {
            LimitKey::Pool(pool) => self.settings.quotas.of(pool).cpu,
            LimitKey::Lock(_) | LimitKey::Group(_) => None,
        };
        let head = self
            .head(&limit.key, limit.entries_to_read(set, now), now)
            .await?;
        let pool = match head.waiting.first() {
            Some(first) => Some(self.pool_snapshot(first, &limit).await?),
            None => None,
        };
        let is_promoted = pool.is_some() && self.is_promoted(&limit).await?;
        Ok(Snapshot {
            limit,
            entries: head.waiting,
            index_lags: head.lags,
            pool,
            is_promoted,
        })
    }

    /// Returns the pool of an execution. `limit` is known already.
    async fn pool_snapshot(
        &self,
        execution: &Execution,
        limit: &LimitSnapshot,
    ) -> Result<PoolSnapshot, PortError> {
        let pool = execution.pool;
        let key = LimitKey::Pool(pool);
        let limit = if limit.key == key {
            limit.clone()
        } else {
            LimitSnapshot {
                state: self.store.limit_state(&key).await?,
                used: self.store.usage(&key).await?.used,
                key,
            }
        };
        Ok(PoolSnapshot {
            pool,
            limit,
            set: self.settings.quotas.of(pool).cpu,
        })
    }

    /// Returns the head of a backlog. If none of the entries looked at can be read, more are looked
    /// at, so that unreadable records do not hide the entries behind them.
    async fn head(
        &self,
        backlog: &LimitKey,
        entries_to_read: u32,
        now: Timestamp,
    ) -> Result<Head, PortError> {
        let mut most = entries_to_read;
        loop {
            let entries = self.store.backlog(backlog, now, most).await?;
            let looked_at = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            let head = self.waiting(backlog, &entries, now).await?;
            let is_hidden = head.waiting.is_empty() && !head.lags && looked_at >= most;
            if !is_hidden || most >= HIDDEN_MAX {
                return Ok(head);
            }
            most = most.saturating_mul(4).min(HIDDEN_MAX);
        }
    }

    /// Returns those of the entries that are still in the backlog, in order. Records that this
    /// process has read before are not read again.
    async fn waiting(
        &self,
        backlog: &LimitKey,
        entries: &[BacklogEntry],
        now: Timestamp,
    ) -> Result<Head, PortError> {
        let (mut head, known) = (Head::default(), self.heads.take(backlog, now));
        let loaded = entries
            .iter()
            .map(async |entry| match known.get(&entry.id) {
                Some(record) => Ok(Some(record.clone())),
                None => self.store.load(&entry.id).await,
            });
        let loaded = join_all(loaded).await;
        for (found, entry) in loaded.into_iter().zip(entries) {
            let is_there = |execution: &Execution| {
                let current = execution.backlog_entry();
                current.is_some_and(|current| {
                    current.backlog == entry.backlog
                        && current.not_before.is_none_or(|due| due <= now)
                })
            };
            match found {
                Ok(Some(execution)) if is_there(&execution) => head.waiting.push(execution),
                // A newer release goes on with a state that this one does not know. A record that
                // cannot be read is skipped.
                Ok(Some(execution)) if matches!(execution.state, State::Other { .. }) => {}
                Err(PortError::Corrupt(corrupt)) => corrupt.note(),
                Ok(_) => head.lags = true,
                Err(error) => return Err(error),
            }
        }
        self.heads.put(backlog, head.waiting.clone(), now);
        Ok(head)
    }

    /// Whether an entry of this lock's or group's backlog waits in a pool's backlog for all behind
    /// it.
    async fn is_promoted(&self, limit: &LimitSnapshot) -> Result<bool, PortError> {
        let Some(id) = &limit.state.backlog.promoted else {
            return Ok(false);
        };
        // A promoted execution with an unreadable record no longer counts, so that the others in
        // its backlog do not wait for it.
        let promoted =
            passed_over(self.store.load(id).await)?.and_then(|execution| execution.backlog_entry());
        Ok(promoted.is_some_and(|entry| entry.backlog != limit.key))
    }

    /// Records the reason in the executions that came with this wakeup and are still in this
    /// backlog.
    async fn tell(
        &self,
        ids: &[ExecutionId],
        backlog: &LimitKey,
        reason: &str,
    ) -> Result<(), PortError> {
        let now = self.system.now();
        let told = ids.iter().map(|id| {
            advance(self.store, self.queue, now, id, |execution| {
                let entry = execution
                    .backlog_entry()
                    .filter(|entry| entry.backlog == *backlog && entry.not_before.is_none())?;
                execution.parked(entry.backlog, reason.to_owned(), now)
            })
        });
        join_all(told)
            .await
            .into_iter()
            .map(passed_over)
            .collect::<Result<Vec<_>, _>>()
            .map(drop)
    }
}

/// The head of a backlog.
#[derive(Default)]
struct Head {
    /// The executions that can be started from the backlog.
    waiting: Vec<Execution>,
    /// Whether the index listed entries that are gone.
    lags: bool,
}

/// A backlog that is held, as just recorded.
struct HeldNow {
    after: LimitState,
    rest: Pause,
}

fn wakeup(backlog: LimitKey) -> Outgoing {
    Message::Wakeup { backlog, id: None }.into()
}

fn wakeup_in(backlog: LimitKey, pause: TimeDelta) -> Outgoing {
    let message = Message::Wakeup { backlog, id: None };
    delayed(message, pause.num_milliseconds())
}
