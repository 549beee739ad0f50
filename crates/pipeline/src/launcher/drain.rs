//! Draining a backlog: its first executions are started while there is room, as fast as the limits
//! allow and no faster.
//!
//! A launch takes its lock, its group and its pool in one write, all or none. An execution with a
//! lock, or of a group with a limit, starts from that limit's backlog. If only the pool has no
//! room, the first entry of that backlog moves to the pool's backlog and waits there for all
//! entries behind it.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use domain::{
    Timestamp,
    adaptive_limit::{AdaptiveLimit, Shortage},
    backlog::{BacklogState, HeldBy, Room},
    execution::{BacklogEntry, Execution, State},
    id::ExecutionId,
    limit::{CapacityPool, LimitKey, RateKey},
    message::Message,
    ports::{
        Clock, Definitions, Entropy, Logs, PortError, Queue, Secrets, Store, Tasks, Update,
        UpdateError,
    },
    request::TaskSize,
    task::{self, TaskDefinition},
    throttle::{self, Usage},
    transition::LaunchPlan,
};
use futures_util::future::join_all;

use super::{Launcher, Ran, backlogs};
use crate::{
    advance::{advance, delayed},
    definitions::Ensured,
    unreadable::passed_over,
};

/// How many entries one round looks at: RunTask takes 20 calls a second (AWS-FACTS §2).
const ROUND: u32 = 20;
/// How many entries are looked at beyond those that can start. The backlog's index lags the records
/// by some milliseconds, so it may still list entries that this launcher has just started.
const SPARE: u32 = 4;
/// How many entries are looked at when those at the head cannot be read. This many records are some
/// megabytes.
const HIDDEN_MAX: u32 = 1_000;
/// How long one invocation drains before it leaves the rest to another wakeup. It is far below the
/// function's timeout.
const DRAIN: TimeDelta = TimeDelta::seconds(5);
/// After how long another launcher is woken to help. A launcher that never had to wait for this
/// long does not keep up: a round takes a few tenths of a second (SCALING: 100 starts a second).
const HELP: TimeDelta = TimeDelta::seconds(1);
/// The longest that a launcher waits within an invocation (DESIGN §5).
const NAP_MAX: TimeDelta = TimeDelta::seconds(1);
/// The shortest wait. Tokens gather meanwhile, so that a backlog held by its rate alone is looked
/// at twice a second and not at each token.
const NAP_MIN: TimeDelta = TimeDelta::milliseconds(500);
/// How long a watch lasts unless it is renewed. A round takes some tenths of a second, and a
/// launcher that dies leaves its backlog unwatched for at most this long.
const WATCH: TimeDelta = TimeDelta::seconds(2);
/// How long a run waits that needs a secret with an unreadable record. It is this long because an
/// administrator has to set the secret again.
const UNREADABLE_NAP: TimeDelta = TimeDelta::minutes(1);
/// A pause for the backlog's index to catch up with the records. It lags by some milliseconds.
const STALE_NAP: TimeDelta = TimeDelta::milliseconds(100);

/// The outcome of one round on a backlog.
enum Round {
    /// No entry is due.
    Empty,
    /// Another launcher is waiting until it may go on with this backlog.
    Attended,
    /// This many were started, or entries were moved: look again.
    Moved(usize),
    /// The entries that the index listed are gone.
    Stale,
    /// The first entry cannot start, so no entry behind it can either.
    Held(Hold),
}

/// The head of a backlog.
struct Head {
    /// The executions that can be started from the backlog.
    waiting: Vec<Execution>,
    /// Whether the index listed entries that are gone.
    stale: bool,
}

/// Why a backlog does not move now.
struct Hold {
    by: HeldBy,
    reason: String,
    /// When to look again without a wakeup. A slot that we give back sends a wakeup by itself.
    look_at: Option<Timestamp>,
}

/// The progress of one launcher on a backlog.
struct Watch {
    /// Since when it has not had to wait.
    since: Timestamp,
    /// How many executions it started since then.
    started: usize,
    /// Until when nobody needs to send a wakeup for what they give back: the value that this
    /// launcher last wrote into the backlog's state.
    mark: Option<Timestamp>,
    /// Whether it has woken another launcher to help.
    helped: bool,
}

impl Watch {
    fn since(now: Timestamp) -> Self {
        Self {
            since: now,
            started: 0,
            mark: None,
            helped: false,
        }
    }
}

/// The state of a pool when it was looked at.
struct PoolLook {
    backlog: LimitKey,
    pool: CapacityPool,
    state: BacklogState,
    used: u32,
    room: Room,
    /// The pool's quota as the installation sets it.
    set: Option<u32>,
}

/// Whether an execution's task definition is ready for a launch.
enum Ready {
    /// The definition is ready.
    Now(Box<Execution>),
    /// The definition will be ready in a moment.
    Soon,
    /// Not in this round: the execution was postponed or has ended.
    Elsewhere,
}

/// A launch that is on record.
pub(super) struct Launched {
    pub(super) execution: Execution,
    pub(super) from: LimitKey,
}

impl<S, Q, T, L, X, A> Launcher<'_, S, Q, T, L, X, A>
where
    S: Store + Definitions,
    Q: Queue,
    T: Tasks,
    L: Logs,
    X: Secrets,
    A: Clock + Entropy,
{
    /// Drains a backlog, and then the backlogs that its first entries moved to or made room in. No
    /// message is sent for those: if the work fails, the message that began it is delivered again.
    pub(super) async fn drain_all(
        &self,
        backlog: LimitKey,
        newcomers: &[ExecutionId],
    ) -> Result<(), PortError> {
        let until = self.system.now() + DRAIN;
        let mut next = self.drain(&backlog, newcomers).await?;
        while let Some(backlog) = next.pop_first() {
            if self.system.now() >= until {
                next.insert(backlog);
                return self.queue.send(next.iter().map(wakeup).collect()).await;
            }
            next.extend(self.drain(&backlog, &[]).await?);
        }
        Ok(())
    }

    /// Starts the first executions of a backlog while there is room, and records for the newcomers
    /// why they wait. Returns the backlogs to look at next.
    async fn drain(
        &self,
        backlog: &LimitKey,
        newcomers: &[ExecutionId],
    ) -> Result<BTreeSet<LimitKey>, PortError> {
        let (mut next, mut watch) = (BTreeSet::new(), Watch::since(self.system.now()));
        let drained = self
            .drain_while(backlog, newcomers, &mut next, &mut watch)
            .await;
        if drained.is_err() {
            // SQS delivers the message that began this again only after minutes. Until then no
            // wakeup is sent for the next backlogs, nor for room that became free under the watch.
            // So each gets a delayed wakeup for when the watch is over.
            next.extend(watch.mark.map(|_| backlog.clone()));
            let again = |backlog| {
                delayed(
                    Message::Wakeup { backlog, id: None },
                    (NAP_MAX + WATCH).num_milliseconds(),
                )
            };
            let again: Vec<_> = next.iter().cloned().map(again).collect();
            if !again.is_empty() && self.queue.send(again).await.is_err() {
                tracing::warn!(%backlog, "no wakeup could be sent for a backlog that was left; the sweep sends one");
            }
        }
        drained.map(|()| next)
    }

    async fn drain_while(
        &self,
        backlog: &LimitKey,
        newcomers: &[ExecutionId],
        next: &mut BTreeSet<LimitKey>,
        watch: &mut Watch,
    ) -> Result<(), PortError> {
        let until = self.system.now() + DRAIN;
        while self.system.now() < until {
            match self.round(backlog, next).await? {
                Round::Moved(started) => {
                    watch.started += started;
                    self.watch(backlog, watch).await?;
                }
                Round::Stale => {
                    self.system.sleep(STALE_NAP).await;
                    watch.since = self.system.now();
                }
                Round::Empty => {
                    if !self.is_empty(backlog, watch).await? {
                        return Ok(());
                    }
                }
                Round::Attended => return self.unwatch(backlog, watch).await,
                Round::Held(hold) => {
                    let nap = self.nap(&hold, watch, next);
                    let unwatched = self.hold(backlog, &hold, nap, watch).await?;
                    self.tell(newcomers, backlog, &hold.reason).await?;
                    match nap {
                        Some(nap) => self.system.sleep(nap).await,
                        None if unwatched => {}
                        None => return Ok(()),
                    }
                    (watch.since, watch.started) = (self.system.now(), 0);
                }
            }
        }
        // The watch is cleared before the message is sent. No wakeup is sent for room that becomes
        // free under a watch, and the launcher that takes the message may have left by then.
        self.unwatch(backlog, watch).await?;
        self.queue.send(vec![wakeup(backlog)]).await
    }

    /// Whether starts come so fast that watching the backlog is cheaper than a wakeup for each
    /// slot. Never so on one machine, where no rate applies: there a slot is to be used at once.
    fn is_fast(&self, watch: &Watch) -> bool {
        self.settings.run_task_rate.is_some() && self.pace.is_fast(watch.started)
    }

    /// Records that this launcher keeps watching a fast backlog, and wakes another launcher if it
    /// does not keep up.
    async fn watch(&self, backlog: &LimitKey, watch: &mut Watch) -> Result<(), PortError> {
        let (now, until) = (self.system.now(), self.system.now() + WATCH);
        if !self.is_fast(watch) {
            return Ok(());
        }
        if !watch.helped && now - watch.since >= HELP {
            watch.helped = true;
            self.queue.send(vec![wakeup(backlog)]).await?;
        }
        if watch.mark.is_some_and(|mark| mark - now > WATCH / 2) {
            return Ok(());
        }
        watch.mark = Some(until);
        let watched = |state: &BacklogState| {
            Some(BacklogState {
                watched_until: Some(until),
                ..state.clone()
            })
        };
        backlogs::change_backlog(self.store, backlog, watched)
            .await
            .map(drop)
    }

    /// Clears this launcher's watch, because others go on with the backlog.
    async fn unwatch(&self, backlog: &LimitKey, watch: &mut Watch) -> Result<(), PortError> {
        if watch.mark.is_some() {
            backlogs::change_backlog(self.store, backlog, |state| {
                Some(state.unwatched(watch.mark))
            })
            .await?;
            watch.mark = None;
        }
        Ok(())
    }

    /// Returns how long to wait for the rate, or for slots of a full backlog that moves fast.
    /// Returns `None` if waiting is not worth it or would delay other backlogs.
    fn nap(&self, hold: &Hold, watch: &Watch, next: &BTreeSet<LimitKey>) -> Option<TimeDelta> {
        match hold.by {
            HeldBy::Rate => hold
                .look_at
                .map(|at| at - self.system.now())
                .filter(|left| *left <= NAP_MAX),
            HeldBy::Full => Some(NAP_MIN).filter(|_| self.is_fast(watch) && next.is_empty()),
            HeldBy::Refusals | HeldBy::Pool => None,
        }
    }

    async fn round(
        &self,
        backlog: &LimitKey,
        next: &mut BTreeSet<LimitKey>,
    ) -> Result<Round, PortError> {
        let now = self.system.now();
        let state = self.store.backlog_state(backlog).await?;
        if state.is_attended(now) {
            return Ok(Round::Attended);
        }
        let used = self.store.usage(backlog).await?.used;
        let head = self
            .head(backlog, self.worth_a_look(backlog, &state, used, now), now)
            .await?;
        let waiting = head.waiting;
        let Some(first) = waiting.first() else {
            return Ok(if head.stale {
                Round::Stale
            } else {
                Round::Empty
            });
        };
        if self.close_marked(&waiting).await? {
            return Ok(Round::Moved(0));
        }
        let known = (backlog, &state, used);
        let pool = self.look_at_pool(first, known, now).await?;
        // In the backlog of a lock or a group only the first entry may start, so only that one is
        // checked. In the pool's backlog all entries wait for the pool.
        let waiting_for_pool = if *backlog == pool.backlog {
            waiting.len()
        } else {
            1
        };
        if let Some(moved) = self
            .without_hope(&waiting[..waiting_for_pool], &pool, next)
            .await?
        {
            return Ok(moved);
        }
        let batch: Vec<_> = waiting
            .into_iter()
            .take_while(|execution| execution.pool == pool.pool)
            .collect();
        let (fit, hold) = self.fitting(known, &batch, &pool).await?;
        if fit == 0 {
            return match hold {
                Some(hold) => Ok(Round::Held(hold)),
                None => self.call(backlog, batch, &pool, next).await,
            };
        }
        self.start(backlog, &state, batch.into_iter().take(fit), pool, next)
            .await
    }

    /// Returns the head of a backlog. If none of the entries looked at can be read, more are looked
    /// at, so that unreadable records do not hide the entries behind them.
    async fn head(
        &self,
        backlog: &LimitKey,
        worth_a_look: u32,
        now: Timestamp,
    ) -> Result<Head, PortError> {
        let mut most = worth_a_look;
        loop {
            let entries = self.store.backlog(backlog, now, most).await?;
            let looked_at = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            let head = self.waiting(&entries, now).await?;
            let hidden = head.waiting.is_empty() && !head.stale && looked_at >= most;
            if !hidden || most >= HIDDEN_MAX {
                return Ok(head);
            }
            most = most.saturating_mul(4).min(HIDDEN_MAX);
        }
    }

    /// Returns those of the entries that are still in the backlog, in order.
    async fn waiting(&self, entries: &[BacklogEntry], now: Timestamp) -> Result<Head, PortError> {
        let mut head = Head {
            waiting: Vec::new(),
            stale: false,
        };
        let loaded = join_all(entries.iter().map(|entry| self.store.load(&entry.id))).await;
        for (found, entry) in loaded.into_iter().zip(entries) {
            let is_there = |execution: &Execution| {
                let current = execution.backlog_entry();
                current.is_some_and(|c| {
                    c.backlog == entry.backlog && c.not_before.is_none_or(|due| due <= now)
                })
            };
            match found {
                Ok(Some(execution)) if is_there(&execution) => head.waiting.push(execution),
                // A newer release goes on with a state that this one does not know. A record that
                // cannot be read is skipped.
                Ok(Some(execution)) if matches!(execution.state, State::Other { .. }) => {}
                Err(PortError::Corrupt(corrupt)) => corrupt.note(),
                Ok(_) => head.stale = true,
                Err(error) => return Err(error),
            }
        }
        Ok(head)
    }

    /// Returns how many entries of a backlog to look at: as many as there may be room for, plus a
    /// few. Each costs the read of a record.
    fn worth_a_look(
        &self,
        backlog: &LimitKey,
        state: &BacklogState,
        used: u32,
        now: Timestamp,
    ) -> u32 {
        let most = match backlog {
            LimitKey::Lock(_) => 1,
            LimitKey::Group(_) => ROUND,
            LimitKey::Pool(pool) => {
                let smallest = TaskSize::SMALLEST.cpu();
                match state.room(self.settings.quotas.of(*pool).cpu, used, smallest, now) {
                    Room::UpTo(max) => max.map_or(ROUND, |max| max.saturating_sub(used) / smallest),
                    Room::Probe(count) => count,
                }
            }
        };
        most.saturating_add(SPARE).min(ROUND)
    }

    /// Returns the state of the pool that the first of a backlog needs. State and usage of
    /// `backlog` itself are known already.
    async fn look_at_pool(
        &self,
        first: &Execution,
        (backlog, state, used): (&LimitKey, &BacklogState, u32),
        now: Timestamp,
    ) -> Result<PoolLook, PortError> {
        let pool = first.pool;
        let own = LimitKey::Pool(pool);
        let (state, used) = match *backlog == own {
            true => (state.clone(), used),
            false => (
                self.store.backlog_state(&own).await?,
                self.store.usage(&own).await?.used,
            ),
        };
        let set = self.settings.quotas.of(pool).cpu;
        let room = state.room(set, used, first.request.size.cpu(), now);
        Ok(PoolLook {
            backlog: own,
            pool,
            state,
            used,
            room,
            set,
        })
    }

    /// Ends executions that no limit here can ever admit, and moves executions from Spot to
    /// on-demand capacity after enough refusals or interruptions. Returns `None` if there were
    /// neither.
    async fn without_hope(
        &self,
        waiting: &[Execution],
        pool: &PoolLook,
        next: &mut BTreeSet<LimitKey>,
    ) -> Result<Option<Round>, PortError> {
        let mut moved = false;
        for execution in waiting
            .iter()
            .filter(|execution| execution.pool == pool.pool)
        {
            let now = self.system.now();
            if let Some(why) =
                throttle::impossible(execution.request.size.cpu(), pool.state.quota(pool.set))
            {
                let rejected = |execution: &Execution| execution.rejected(why.clone(), now);
                advance(self.store, self.queue, now, &execution.id, rejected).await?;
                moved = true;
            } else if let Some(why) = self.gives_up_spot(execution, pool) {
                let backlog = self.fall_back(execution, &why).await?;
                moved |= backlog.is_some();
                next.extend(backlog);
            }
        }
        Ok(moved.then_some(Round::Moved(0)))
    }

    /// Returns why an execution falls back from Spot to on-demand capacity, or `None` if it does
    /// not.
    fn gives_up_spot(&self, execution: &Execution, pool: &PoolLook) -> Option<String> {
        let after = self
            .settings
            .spot_fallback_after
            .filter(|_| pool.pool == CapacityPool::FargateSpot)?;
        let interruptions = execution.spot_interruptions();
        if interruptions >= after {
            return Some(format!(
                "Fargate Spot took its capacity back {interruptions} times"
            ));
        }
        // An execution that fits in Spot stays there. A probe that is due is made first, or Spot
        // would be given up for ever.
        let fits = match pool.room {
            Room::Probe(_) => true,
            Room::UpTo(max) => {
                throttle::fitting([execution.request.size.cpu()], pool.used, max) == 1
            }
        };
        if fits {
            return None;
        }
        let adaptive_limit = pool
            .state
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

    /// Moves an execution to on-demand capacity. Returns its new backlog, or `None` if it did not
    /// move.
    async fn fall_back(
        &self,
        execution: &Execution,
        why: &str,
    ) -> Result<Option<LimitKey>, PortError> {
        let now = self.system.now();
        let falls_back = |execution: &Execution| execution.falls_back(why, now);
        let fallen = advance(self.store, self.queue, now, &execution.id, falls_back).await?;
        let fallen = fallen.filter(|fallen| fallen.pool != execution.pool);
        Ok(fallen
            .and_then(|fallen| fallen.backlog_entry())
            .map(|entry| entry.backlog))
    }

    /// Returns how many of `batch` may start now under their limits, and what holds the first one
    /// if none may. Returns `(0, None)` if only the pool has no room for the first of a lock's or a
    /// group's backlog.
    async fn fitting(
        &self,
        (backlog, state, used): (&LimitKey, &BacklogState, u32),
        batch: &[Execution],
        pool: &PoolLook,
    ) -> Result<(usize, Option<Hold>), PortError> {
        let in_pool = match pool.room {
            Room::UpTo(max) => {
                throttle::fitting(batch.iter().map(|e| e.request.size.cpu()), pool.used, max)
            }
            Room::Probe(count) => usize::try_from(count).unwrap_or_default().min(batch.len()),
        };
        if *backlog == pool.backlog {
            let hold = if in_pool == 0 {
                Some(self.held_by_pool(pool))
            } else {
                None
            };
            return Ok((in_pool, hold));
        }
        if self.somebody_is_promoted(backlog, state).await? {
            return Ok((
                0,
                Some(Hold {
                    by: HeldBy::Pool,
                    reason: self.pool_reason(pool),
                    look_at: None,
                }),
            ));
        }
        let usage = Usage { used };
        let max = batch
            .first()
            .and_then(|first| throttle::max_of(backlog, &first.request, None));
        let own = throttle::fitting(batch.iter().map(|_| 1), usage.used, max);
        let hold = (own == 0).then(|| Hold {
            by: HeldBy::Full,
            reason: throttle::reason(backlog, usage, max),
            look_at: None,
        });
        Ok((own.min(in_pool), hold))
    }

    fn held_by_pool(&self, pool: &PoolLook) -> Hold {
        let quota = pool.state.quota(pool.set);
        let adaptive_limit = pool
            .state
            .adaptive_limit
            .as_ref()
            .filter(|_| quota.is_none_or(|quota| pool.used < quota));
        Hold {
            by: if adaptive_limit.is_some() {
                HeldBy::Refusals
            } else {
                HeldBy::Full
            },
            reason: self.pool_reason(pool),
            look_at: adaptive_limit.map(|adaptive_limit| adaptive_limit.probe_at),
        }
    }

    fn pool_reason(&self, pool: &PoolLook) -> String {
        let quota = pool.state.quota(pool.set);
        throttle::pool_reason(
            pool.pool,
            pool.used,
            quota,
            pool.state.adaptive_limit.as_ref(),
        )
    }

    /// Whether an entry of this lock's or group's backlog waits in a pool's backlog for all behind
    /// it.
    async fn somebody_is_promoted(
        &self,
        backlog: &LimitKey,
        state: &BacklogState,
    ) -> Result<bool, PortError> {
        let Some(id) = &state.promoted else {
            return Ok(false);
        };
        // A promoted execution with an unreadable record no longer counts, so that the others in
        // its backlog do not wait for it.
        let promoted =
            passed_over(self.store.load(id).await)?.and_then(|execution| execution.backlog_entry());
        Ok(promoted.is_some_and(|entry| entry.backlog != *backlog))
    }

    /// Moves the first entry of a lock's or a group's backlog to its pool's backlog.
    async fn call(
        &self,
        backlog: &LimitKey,
        batch: Vec<Execution>,
        pool: &PoolLook,
        next: &mut BTreeSet<LimitKey>,
    ) -> Result<Round, PortError> {
        let Some(first) = batch.into_iter().next() else {
            return Ok(Round::Stale);
        };
        let (now, reason) = (self.system.now(), self.pool_reason(pool));
        let promoted = Some(first.id.clone());
        let state = backlogs::change_backlog(self.store, backlog, |state| {
            Some(BacklogState {
                promoted: promoted.clone(),
                ..state.clone()
            })
        });
        if state.await?.1.promoted != promoted {
            return Ok(Round::Stale);
        }
        let goes = |execution: &Execution| {
            execution
                .backlog_entry()
                .filter(|entry| entry.backlog == *backlog)?;
            execution.parked(pool.backlog.clone(), reason.clone(), now)
        };
        advance(self.store, self.queue, now, &first.id, goes).await?;
        next.insert(pool.backlog.clone());
        Ok(Round::Held(Hold {
            by: HeldBy::Pool,
            reason,
            look_at: None,
        }))
    }

    /// Starts these executions, as far as the rate allows.
    async fn start(
        &self,
        backlog: &LimitKey,
        state: &BacklogState,
        batch: impl Iterator<Item = Execution>,
        pool: PoolLook,
        next: &mut BTreeSet<LimitKey>,
    ) -> Result<Round, PortError> {
        // This comes before taking tokens: a definition may have to be registered first, and tokens
        // granted before that would be used later than they were granted.
        let (mut updates, whole) = self.prepared(batch, &pool).await?;
        if updates.is_empty() {
            return Ok(if whole { Round::Moved(0) } else { Round::Stale });
        }
        let (granted, wait) = self.take_tokens(pool.pool, updates.len()).await?;
        if granted == 0 {
            return Ok(Round::Held(wait));
        }
        if let Some(held) = self.claim_probe(&pool).await? {
            return Ok(Round::Held(held));
        }
        updates.truncate(granted);
        let launched = self.record(backlog, updates, &pool).await?;
        if launched.is_empty() {
            // Other launchers were faster, or used up the room.
            return Ok(Round::Stale);
        }
        let (launched, marked) = self.by_their_marks(launched).await?;
        next.extend(
            launched
                .iter()
                .filter_map(|launched| calls_next(backlog, &launched.execution)),
        );
        let count = launched.len();
        // Every call is finished. A launch that cannot be recorded is no reason to abandon the
        // others in the middle of their calls.
        let (mut ran, mut failure) = (Vec::new(), None);
        let runs = join_all(launched.into_iter().map(|launched| self.run(launched)));
        let (results, cancelled) =
            futures_util::future::join(runs, self.cancel_by_mark(&marked)).await;
        for result in results {
            match result {
                Ok(one) => ran.push(one),
                Err(error) => failure = Some(error),
            }
        }
        failure = failure.or(cancelled.err());
        backlogs::note_pace(
            self.store,
            self.pace,
            (backlog, state),
            count,
            self.system.now(),
        )
        .await?;
        let round = self.learn(&pool, ran).await?;
        failure.map_or(Ok(round), Err)
    }

    /// Takes tokens for up to `want` launches, as many as the rates allow now. If there are none,
    /// the [`Hold`] says when to look again.
    async fn take_tokens(
        &self,
        pool: CapacityPool,
        want: usize,
    ) -> Result<(usize, Hold), PortError> {
        let rates = [
            (RateKey::RunTask, self.settings.run_task_rate),
            (RateKey::Launches(pool), self.settings.quotas.of(pool).rate),
        ];
        let now = self.system.now();
        let mut granted = u32::try_from(want).unwrap_or(ROUND);
        let mut hold = Hold {
            by: HeldBy::Rate,
            reason: String::new(),
            look_at: None,
        };
        for (key, rate) in rates {
            let Some(rate) = rate.filter(|_| granted > 0) else {
                continue;
            };
            let (taken, wait_millis) = self.store.take_tokens(key, rate, granted, now).await?;
            if taken == 0 {
                let wait = TimeDelta::milliseconds(i64::try_from(wait_millis).unwrap_or(i64::MAX));
                hold = Hold {
                    reason: throttle::rate_reason(key, rate),
                    look_at: Some(now + wait.max(NAP_MIN)),
                    ..hold
                };
            }
            granted = taken;
        }
        Ok((usize::try_from(granted).unwrap_or_default(), hold))
    }

    /// Claims a probe for this launcher. Returns a hold if another launcher claimed it first.
    async fn claim_probe(&self, pool: &PoolLook) -> Result<Option<Hold>, PortError> {
        let (Room::Probe(_), Some(adaptive_limit)) = (pool.room, &pool.state.adaptive_limit) else {
            return Ok(None);
        };
        let probing = BacklogState {
            adaptive_limit: Some(adaptive_limit.probing(self.system.now())),
            ..pool.state.clone()
        };
        let mine = self
            .store
            .set_backlog_state(&pool.backlog, &pool.state, probing)
            .await?;
        Ok((!mine).then(|| self.held_by_pool(pool)))
    }

    /// Returns the updates that record the launches with a registered definition, and whether all
    /// of `batch` was looked at. Stops at a definition that another launcher is registering, so
    /// that ten thousand executions of the same kind wait for it and are not postponed one by one.
    async fn prepared(
        &self,
        batch: impl Iterator<Item = Execution>,
        pool: &PoolLook,
    ) -> Result<(Vec<Update>, bool), PortError> {
        let max = match pool.room {
            Room::UpTo(max) => max,
            Room::Probe(_) => pool.state.quota(pool.set),
        };
        let mut updates = Vec::new();
        for before in batch {
            match self.launching(&before).await? {
                Ready::Now(after) => {
                    updates.push(Update {
                        admissions: throttle::admissions(&before, max),
                        before,
                        after: *after,
                    });
                }
                Ready::Soon => return Ok((updates, false)),
                Ready::Elsewhere => {}
            }
        }
        Ok((updates, true))
    }

    /// Records the launches under their limits, each all or none, before anything is started.
    /// Returns an error only if none could be recorded; otherwise the recorded ones go on.
    async fn record(
        &self,
        backlog: &LimitKey,
        updates: Vec<Update>,
        pool: &PoolLook,
    ) -> Result<Vec<Launched>, PortError> {
        let entries: Vec<_> = updates
            .iter()
            .filter_map(|update| update.before.backlog_entry())
            .collect();
        let (mut launched, mut back, mut failure) = (Vec::new(), Vec::new(), None);
        for (entry, result) in entries.iter().zip(self.store.update_all(updates).await) {
            match result {
                Ok(execution) => launched.push(Launched {
                    execution,
                    from: backlog.clone(),
                }),
                Err(UpdateError::Full(full)) if full != *backlog && full != pool.backlog => {
                    back.push((entry, full));
                }
                Err(UpdateError::Conflict | UpdateError::Full(_)) => {}
                Err(UpdateError::Failed(error)) => {
                    tracing::warn!(execution = %entry.id, %error, "a launch could not be recorded");
                    failure = Some(error);
                }
            }
        }
        for (entry, full) in back {
            if let Err(error) = self.turn_back(entry, full).await {
                // The entry is tried again from its backlog. The recorded launches do not wait for
                // it.
                tracing::warn!(execution = %entry.id, %error, "an entry could not be sent back to its backlog");
            }
        }
        match failure {
            Some(error) if launched.is_empty() => Err(error),
            _ => Ok(launched),
        }
    }

    /// Returns the record with its next attempt, once its task definition is registered.
    async fn launching(&self, before: &Execution) -> Result<Ready, PortError> {
        let now = self.system.now();
        let git = match self.git_access(before).await {
            // A secret with an unreadable record delays only the executions that need it, not the
            // rest of the backlog.
            Err(PortError::Corrupt(corrupt)) => {
                corrupt.note();
                let postponed = |execution: &Execution| {
                    execution.postponed(corrupt.to_string(), now + UNREADABLE_NAP, now)
                };
                return advance(self.store, self.queue, now, &before.id, postponed)
                    .await
                    .map(|_| Ready::Elsewhere);
            }
            git => git?,
        };
        let definition = TaskDefinition::of(&before.request, &git, self.settings);
        match self
            .registered
            .ensure(self.store, self.tasks, self.settings, &definition, now)
            .await?
        {
            Ensured::Ready(arn) => {
                let nonce = format!("{:032x}", self.system.bits());
                let run_task = task::run_task(before, &arn, &nonce, &git, self.settings);
                let after = before.launching(LaunchPlan { nonce, run_task }, now);
                Ok(after.map_or(Ready::Elsewhere, |after| Ready::Now(Box::new(after))))
            }
            Ensured::Soon => Ok(Ready::Soon),
            Ensured::Later { reason, pause } => {
                let postponed =
                    |execution: &Execution| execution.postponed(reason.clone(), now + pause, now);
                advance(self.store, self.queue, now, &before.id, postponed)
                    .await
                    .map(|_| Ready::Elsewhere)
            }
            Ensured::Refused(why) => {
                let why = format!("the task definition was refused: {why}");
                let rejected = |execution: &Execution| execution.rejected(why.clone(), now);
                advance(self.store, self.queue, now, &before.id, rejected)
                    .await
                    .map(|_| Ready::Elsewhere)
            }
        }
    }

    /// Moves an execution back to the backlog of its lock or group, which is used up again.
    async fn turn_back(&self, entry: &BacklogEntry, full: LimitKey) -> Result<(), PortError> {
        let (now, usage) = (self.system.now(), self.store.usage(&full).await?);
        let goes_back = |execution: &Execution| {
            execution
                .backlog_entry()
                .filter(|current| current.backlog == entry.backlog)?;
            let reason = throttle::reason(
                &full,
                usage,
                throttle::max_of(&full, &execution.request, None),
            );
            execution.parked(full.clone(), reason, now)
        };
        advance(self.store, self.queue, now, &entry.id, goes_back)
            .await
            .map(drop)
    }

    /// Updates the pool's adaptive limit from ECS's answers to a round of launches.
    async fn learn(&self, pool: &PoolLook, ran: Vec<Ran>) -> Result<Round, PortError> {
        let now = self.system.now();
        let short = ran.iter().find_map(|ran| match ran {
            Ran::Short(shortage, words) => Some((*shortage, words)),
            Ran::Started | Ran::Settled | Ran::Throttled(_) => None,
        });
        // A probe that was neither accepted nor refused does not count as a success. Another probe
        // is made when its time is over.
        let started = ran.iter().filter(|ran| matches!(ran, Ran::Started)).count();
        let taken = matches!(pool.room, Room::Probe(_)) && started > 0;
        if short.is_some() || taken {
            let (used, spread) = (
                self.store.usage(&pool.backlog).await?.used,
                self.system.bits(),
            );
            let quota = pool.state.quota(pool.set);
            let taught = |state: &BacklogState| {
                let before = state.adaptive_limit.as_ref();
                let adaptive_limit = match short {
                    Some((kind, words)) => Some(AdaptiveLimit::refused(
                        before,
                        used,
                        (kind, words.clone()),
                        now,
                        spread,
                    )),
                    None => before?.accepted(used, now, quota),
                };
                Some(BacklogState {
                    adaptive_limit,
                    ..state.clone()
                })
            };
            backlogs::change_backlog(self.store, &pool.backlog, taught).await?;
        }
        let throttled = ran.into_iter().find_map(|ran| {
            if let Ran::Throttled(words) = ran {
                Some(words)
            } else {
                None
            }
        });
        Ok(throttled.map_or(Round::Moved(started), |reason| {
            Round::Held(Hold {
                by: HeldBy::Rate,
                reason,
                look_at: Some(now + NAP_MAX),
            })
        }))
    }

    /// Records what holds a backlog and arranges the next look at it: by this launcher after `nap`,
    /// or by a delayed wakeup. Returns whether this also cleared the launcher's watch. If so,
    /// another look is due, because whoever gave something back under the watch sent no wakeup.
    async fn hold(
        &self,
        backlog: &LimitKey,
        hold: &Hold,
        nap: Option<TimeDelta>,
        watch: &mut Watch,
    ) -> Result<bool, PortError> {
        let (now, mine) = (self.system.now(), watch.mark);
        let look_at = hold.look_at.filter(|at| *at > now);
        let pending = |before: &BacklogState| {
            before
                .next_look
                .is_some_and(|at| at > now && hold.look_at.is_some_and(|look_at| at <= look_at))
        };
        let mark = nap
            .filter(|_| self.settings.run_task_rate.is_some())
            .map(|nap| now + nap + WATCH);
        // If the write fails, the backlog's state may hold either mark.
        watch.mark = mark.or(mine);
        let held = |before: &BacklogState| {
            let next_look = if pending(before) {
                before.next_look
            } else {
                look_at
            };
            let held = BacklogState {
                next_look,
                ..before.held_by(hold.by, now)
            };
            Some(if mark.is_some() {
                BacklogState {
                    watched_until: mark,
                    ..held
                }
            } else {
                held.unwatched(mine)
            })
        };
        let (before, after) = backlogs::change_backlog(self.store, backlog, held).await?;
        watch.mark = mark;
        if let Some(at) = look_at.filter(|_| nap.is_none() && before != after && !pending(&before))
        {
            let again = Message::Wakeup {
                backlog: backlog.clone(),
                id: None,
            };
            self.queue
                .send(vec![delayed(again, (at - now).num_milliseconds())])
                .await?;
        }
        Ok(mark.is_none() && mine.is_some())
    }

    /// Records that nothing holds the backlog. Returns whether this also cleared the launcher's
    /// watch, so that another look is due.
    async fn is_empty(&self, backlog: &LimitKey, watch: &mut Watch) -> Result<bool, PortError> {
        backlogs::change_backlog(self.store, backlog, |state| {
            Some(state.free().unwatched(watch.mark))
        })
        .await?;
        Ok(watch.mark.take().is_some())
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

/// Returns the backlog of the group for which an execution waited in the pool's backlog. Its next
/// entry is to be promoted.
fn calls_next(backlog: &LimitKey, execution: &Execution) -> Option<LimitKey> {
    let mut demand = execution
        .demand()
        .into_iter()
        .map(|allocation| allocation.key);
    demand.find(|key| matches!(key, LimitKey::Group(_)) && key != backlog)
}

fn wakeup(backlog: &LimitKey) -> domain::message::Outgoing {
    Message::Wakeup {
        backlog: backlog.clone(),
        id: None,
    }
    .into()
}
