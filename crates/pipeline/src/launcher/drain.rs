//! Draining a line: its first ones are started as long as there is room, as fast as may be, and never faster.
//!
//! A launch takes its lock, its group and its pool in one write, all or none. Who has a lock or is of a group that has a limit starts out
//! of that line; where only the pool has no room, the first of the line goes to the pool's line and stands there for all behind it.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use domain::{
    Timestamp,
    ceiling::{Ceiling, Shortage},
    execution::{Execution, State, Ticket},
    id::ExecutionId,
    limit::{CapacityPool, LimitKey, RateKey},
    line::{HeldBy, LineState, Room},
    message::Message,
    ports::{Clock, Definitions, Entropy, Logs, PortError, Queue, Secrets, Store, Tasks, Update, UpdateError},
    request::TaskSize,
    task::{self, TaskDefinition},
    throttle::{self, Usage},
    transition::Plan,
};
use futures_util::future::join_all;

use super::{Launcher, Ran, lines};
use crate::{
    advance::{advance, delayed},
    definitions::Ensured,
    unreadable::passed_over,
};

/// How many tickets are looked at in one round: RunTask takes 20 calls a second (AWS-FACTS §2).
const ROUND: u32 = 20;
/// How many tickets more than can start are looked at: the line's index is behind the records by some milliseconds, so that it still names those
/// that this launcher has just started. Ours.
const SPARE: u32 = 4;
/// How many tickets are looked at where those before them cannot be read. Ours: as many records are some megabytes.
const HIDDEN_MAX: u32 = 1_000;
/// How long one invocation goes on before it leaves the rest to another hint. Ours: far below the function's timeout.
const DRAIN: TimeDelta = TimeDelta::seconds(5);
/// After how long without having to wait another launcher is called: a round takes a few tenths of a second (SCALING: 100 starts a second). Ours.
const HELP: TimeDelta = TimeDelta::seconds(1);
/// The longest a launcher waits within an invocation (DESIGN §5).
const NAP_MAX: TimeDelta = TimeDelta::seconds(1);
/// The shortest: tokens gather meanwhile, so that a line that only its rate holds is looked at twice a second and not at each token. Ours.
const NAP_MIN: TimeDelta = TimeDelta::milliseconds(500);
/// How long a watch is good for without being renewed. Ours: a round takes some tenths of a second; who dies leaves a line unwatched for so long.
const WATCH: TimeDelta = TimeDelta::seconds(2);
/// How long a run waits that needs a secret whose record cannot be read. Ours: an administrator sets it anew.
const UNREADABLE_NAP: TimeDelta = TimeDelta::minutes(1);
/// A pause where the line's index is behind the records. Ours: it is by some milliseconds.
const STALE_NAP: TimeDelta = TimeDelta::milliseconds(100);

/// What came of one look at a line.
enum Round {
    /// Nobody is in it and due.
    Empty,
    /// A launcher waits until it may go on with it.
    Attended,
    /// So many were started, or others moved: look again.
    Moved(usize),
    /// Those the index named are gone.
    Stale,
    /// Its first cannot start, and so nobody behind it can.
    Held(Hold),
}

/// The first of a line.
struct Head {
    /// Those that can be started from there.
    standing: Vec<Execution>,
    /// The index named others that are gone.
    stale: bool,
}

/// Why a line does not move now.
struct Hold {
    by: HeldBy,
    reason: String,
    /// When to look again without being told; a slot of ours that is given back comes with a hint.
    look_at: Option<Timestamp>,
}

/// How a launcher gets on with a line.
struct Watch {
    /// Since when it has not had to wait.
    since: Timestamp,
    /// How many it started since then.
    started: usize,
    /// Until when those who give something back need not tell: what it last wrote into the line's state.
    mark: Option<Timestamp>,
    /// Whether it called another one.
    helped: bool,
}

impl Watch {
    fn since(now: Timestamp) -> Self {
        Self { since: now, started: 0, mark: None, helped: false }
    }
}

/// A pool, as it stands at a look.
struct PoolLook {
    line: LimitKey,
    pool: CapacityPool,
    state: LineState,
    used: u32,
    room: Room,
    /// What the installation sets.
    set: Option<u32>,
}

/// Whether an execution can be launched as far as its task definition goes.
enum Ready {
    /// So.
    Now(Box<Execution>),
    /// In a moment.
    Soon,
    /// Not in this round: it was postponed, or ended.
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
    /// Drains a line, and then those that the first of it went to or made room in. No message is sent for that: what is not finished comes
    /// again with the message that began it.
    pub(super) async fn drain_all(&self, line: LimitKey, newcomers: &[ExecutionId]) -> Result<(), PortError> {
        let until = self.ambient.now() + DRAIN;
        let mut next = self.drain(&line, newcomers).await?;
        while let Some(line) = next.pop_first() {
            if self.ambient.now() >= until {
                next.insert(line);
                return self.queue.send(next.iter().map(hint).collect()).await;
            }
            next.extend(self.drain(&line, &[]).await?);
        }
        Ok(())
    }

    /// Starts the first of a line as long as there is room, and tells the newly come why they wait. Returns the lines to look at next.
    async fn drain(&self, line: &LimitKey, newcomers: &[ExecutionId]) -> Result<BTreeSet<LimitKey>, PortError> {
        let (mut next, mut watch) = (BTreeSet::new(), Watch::since(self.ambient.now()));
        let drained = self.drain_while(line, newcomers, &mut next, &mut watch).await;
        if drained.is_err() {
            // The message that began it comes again in minutes. Until then nobody is told of the next lines, nor of room that came under the watch:
            // so a look once that is over.
            next.extend(watch.mark.map(|_| line.clone()));
            let again = |line| delayed(Message::Line { line, id: None }, (NAP_MAX + WATCH).num_milliseconds());
            let again: Vec<_> = next.iter().cloned().map(again).collect();
            if !again.is_empty() && self.queue.send(again).await.is_err() {
                tracing::warn!(%line, "that a line was left could not be told; the sweep will");
            }
        }
        drained.map(|()| next)
    }

    async fn drain_while(
        &self,
        line: &LimitKey,
        newcomers: &[ExecutionId],
        next: &mut BTreeSet<LimitKey>,
        watch: &mut Watch,
    ) -> Result<(), PortError> {
        let until = self.ambient.now() + DRAIN;
        while self.ambient.now() < until {
            match self.round(line, next).await? {
                Round::Moved(started) => {
                    watch.started += started;
                    self.watch(line, watch).await?;
                }
                Round::Stale => {
                    self.ambient.sleep(STALE_NAP).await;
                    watch.since = self.ambient.now();
                }
                Round::Empty => {
                    if !self.is_empty(line, watch).await? {
                        return Ok(());
                    }
                }
                Round::Attended => return self.unwatch(line, watch).await,
                Round::Held(hold) => {
                    let nap = self.nap(&hold, watch, next);
                    let unwatched = self.hold(line, &hold, nap, watch).await?;
                    self.tell(newcomers, line, &hold.reason).await?;
                    match nap {
                        Some(nap) => self.ambient.sleep(nap).await,
                        None if unwatched => {}
                        None => return Ok(()),
                    }
                    (watch.since, watch.started) = (self.ambient.now(), 0);
                }
            }
        }
        // First this, or who takes the message might leave before room comes that nobody tells of.
        self.unwatch(line, watch).await?;
        self.queue.send(vec![hint(line)]).await
    }

    /// Whether so much starts that being told of each slot is dearer than looking. Not where nothing bounds the rate, on one machine: there a
    /// slot is to be used at once.
    fn is_brisk(&self, watch: &Watch) -> bool {
        self.settings.run_task_rate.is_some() && self.pace.is_brisk(watch.started)
    }

    /// Makes known that this launcher goes on looking at a line that moves briskly, and calls another one where it does not keep up.
    async fn watch(&self, line: &LimitKey, watch: &mut Watch) -> Result<(), PortError> {
        let (now, until) = (self.ambient.now(), self.ambient.now() + WATCH);
        if !self.is_brisk(watch) {
            return Ok(());
        }
        if !watch.helped && now - watch.since >= HELP {
            watch.helped = true;
            self.queue.send(vec![hint(line)]).await?;
        }
        if watch.mark.is_some_and(|mark| mark - now > WATCH / 2) {
            return Ok(());
        }
        watch.mark = Some(until);
        let watched = |state: &LineState| Some(LineState { watched_until: Some(until), ..state.clone() });
        lines::change_line(self.store, line, watched).await.map(drop)
    }

    /// Takes its watch back, for others go on with the line.
    async fn unwatch(&self, line: &LimitKey, watch: &mut Watch) -> Result<(), PortError> {
        if watch.mark.is_some() {
            lines::change_line(self.store, line, |state| Some(state.unwatched(watch.mark))).await?;
            watch.mark = None;
        }
        Ok(())
    }

    /// How long to wait for the rate, or for the slots of a full line that moves briskly, if that is worth while and holds up no other line.
    fn nap(&self, hold: &Hold, watch: &Watch, next: &BTreeSet<LimitKey>) -> Option<TimeDelta> {
        match hold.by {
            HeldBy::Rate => hold.look_at.map(|at| at - self.ambient.now()).filter(|left| *left <= NAP_MAX),
            HeldBy::Full => Some(NAP_MIN).filter(|_| self.is_brisk(watch) && next.is_empty()),
            HeldBy::Refusals | HeldBy::Pool => None,
        }
    }

    async fn round(&self, line: &LimitKey, next: &mut BTreeSet<LimitKey>) -> Result<Round, PortError> {
        let now = self.ambient.now();
        let state = self.store.line_state(line).await?;
        if state.is_attended(now) {
            return Ok(Round::Attended);
        }
        let used = self.store.usage(line).await?.used;
        let head = self.head(line, self.worth_a_look(line, &state, used, now), now).await?;
        let standing = head.standing;
        let Some(first) = standing.first() else { return Ok(if head.stale { Round::Stale } else { Round::Empty }) };
        if self.close_marked(&standing).await? {
            return Ok(Round::Moved(0));
        }
        let known = (line, &state, used);
        let pool = self.look_at_pool(first, known, now).await?;
        // Behind a lock or a group only the first may start, so only that has had its chances; in the pool's line all wait for the pool.
        let waiting_for_pool = if *line == pool.line { standing.len() } else { 1 };
        if let Some(moved) = self.without_hope(&standing[..waiting_for_pool], &pool, next).await? {
            return Ok(moved);
        }
        let batch: Vec<_> = standing.into_iter().take_while(|execution| execution.pool == pool.pool).collect();
        let (fit, hold) = self.fitting(known, &batch, &pool).await?;
        if fit == 0 {
            return match hold {
                Some(hold) => Ok(Round::Held(hold)),
                None => self.call(line, batch, &pool, next).await,
            };
        }
        self.start(line, &state, batch.into_iter().take(fit), pool, next).await
    }

    /// The first of a line. Where none of those that were looked at can be read, more are looked at, so that they hide nobody.
    async fn head(&self, line: &LimitKey, worth_a_look: u32, now: Timestamp) -> Result<Head, PortError> {
        let mut most = worth_a_look;
        loop {
            let tickets = self.store.line(line, now, most).await?;
            let looked_at = u32::try_from(tickets.len()).unwrap_or(u32::MAX);
            let head = self.standing(&tickets, now).await?;
            let hidden = head.standing.is_empty() && !head.stale && looked_at >= most;
            if !hidden || most >= HIDDEN_MAX {
                return Ok(head);
            }
            most = most.saturating_mul(4).min(HIDDEN_MAX);
        }
    }

    /// Those of the tickets that still stand there, in their order.
    async fn standing(&self, tickets: &[Ticket], now: Timestamp) -> Result<Head, PortError> {
        let mut head = Head { standing: Vec::new(), stale: false };
        let loaded = join_all(tickets.iter().map(|ticket| self.store.load(&ticket.id))).await;
        for (found, ticket) in loaded.into_iter().zip(tickets) {
            let is_there = |execution: &Execution| {
                let current = execution.ticket();
                current.is_some_and(|c| c.line == ticket.line && c.not_before.is_none_or(|due| due <= now))
            };
            match found {
                Ok(Some(execution)) if is_there(&execution) => head.standing.push(execution),
                // A state of a newer release, or a record that cannot be read, is for others to go on with.
                Ok(Some(execution)) if matches!(execution.state, State::Other { .. }) => {}
                Err(PortError::Corrupt(corrupt)) => corrupt.note(),
                Ok(_) => head.stale = true,
                Err(error) => return Err(error),
            }
        }
        Ok(head)
    }

    /// How many tickets of a line are worth a look: as many as there may be room for, and some more. Each of them is a record to be read.
    fn worth_a_look(&self, line: &LimitKey, state: &LineState, used: u32, now: Timestamp) -> u32 {
        let most = match line {
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

    /// The pool that the first of a line needs; of the line itself state and usage are known.
    async fn look_at_pool(
        &self,
        first: &Execution,
        (line, state, used): (&LimitKey, &LineState, u32),
        now: Timestamp,
    ) -> Result<PoolLook, PortError> {
        let pool = first.pool;
        let own = LimitKey::Pool(pool);
        let (state, used) = match *line == own {
            true => (state.clone(), used),
            false => (self.store.line_state(&own).await?, self.store.usage(&own).await?.used),
        };
        let set = self.settings.quotas.of(pool).cpu;
        let room = state.room(set, used, first.request.size.cpu(), now);
        Ok(PoolLook { line: own, pool, state, used, room, set })
    }

    /// Ends what no limit here will ever admit, and lets go on demand what Spot has had its chances with. `None` if there is neither.
    async fn without_hope(
        &self,
        standing: &[Execution],
        pool: &PoolLook,
        next: &mut BTreeSet<LimitKey>,
    ) -> Result<Option<Round>, PortError> {
        let mut moved = false;
        for execution in standing.iter().filter(|execution| execution.pool == pool.pool) {
            let now = self.ambient.now();
            if let Some(why) = throttle::impossible(execution.request.size.cpu(), pool.state.quota(pool.set)) {
                let rejected = |execution: &Execution| execution.rejected(why.clone(), now);
                advance(self.store, self.queue, now, &execution.id, rejected).await?;
                moved = true;
            } else if let Some(why) = self.gives_up_spot(execution, pool) {
                let line = self.fall_back(execution, &why).await?;
                moved |= line.is_some();
                next.extend(line);
            }
        }
        Ok(moved.then_some(Round::Moved(0)))
    }

    /// Why an execution is to have on-demand capacity instead of Spot, if it is.
    fn gives_up_spot(&self, execution: &Execution, pool: &PoolLook) -> Option<String> {
        let after = self.settings.spot_fallback_after.filter(|_| pool.pool == CapacityPool::FargateSpot)?;
        let interruptions = execution.spot_interruptions();
        if interruptions >= after {
            return Some(format!("Fargate Spot took its capacity back {interruptions} times"));
        }
        // What has room is not given up, and a probe that is due is made first, or Spot would be given up for ever.
        let fits = match pool.room {
            Room::Probe(_) => true,
            Room::UpTo(max) => throttle::fitting([execution.request.size.cpu()], pool.used, max) == 1,
        };
        if fits {
            return None;
        }
        let ceiling = pool.state.ceiling.as_ref().filter(|ceiling| ceiling.shortage == Shortage::Capacity)?;
        (ceiling.refusals >= after)
            .then(|| format!("Fargate Spot had no capacity {} times in a row ({})", ceiling.refusals, ceiling.words))
    }

    /// The line it then stands in, if it did fall back.
    async fn fall_back(&self, execution: &Execution, why: &str) -> Result<Option<LimitKey>, PortError> {
        let now = self.ambient.now();
        let falls_back = |execution: &Execution| execution.falls_back(why, now);
        let fallen = advance(self.store, self.queue, now, &execution.id, falls_back).await?;
        let fallen = fallen.filter(|fallen| fallen.pool != execution.pool);
        Ok(fallen.and_then(|fallen| fallen.ticket()).map(|ticket| ticket.line))
    }

    /// How many of these may start now by their limits, and what holds the first if it is none of them. (0, `None`) where only the pool
    /// has no room for the first of a lock's or a group's line.
    async fn fitting(
        &self,
        (line, state, used): (&LimitKey, &LineState, u32),
        batch: &[Execution],
        pool: &PoolLook,
    ) -> Result<(usize, Option<Hold>), PortError> {
        let in_pool = match pool.room {
            Room::UpTo(max) => throttle::fitting(batch.iter().map(|e| e.request.size.cpu()), pool.used, max),
            Room::Probe(count) => usize::try_from(count).unwrap_or_default().min(batch.len()),
        };
        if *line == pool.line {
            let hold = if in_pool == 0 { Some(self.held_by_pool(pool)) } else { None };
            return Ok((in_pool, hold));
        }
        if self.somebody_is_called(line, state).await? {
            return Ok((0, Some(Hold { by: HeldBy::Pool, reason: self.pool_reason(pool), look_at: None })));
        }
        let usage = Usage { used };
        let max = batch.first().and_then(|first| throttle::max_of(line, &first.request, None));
        let own = throttle::fitting(batch.iter().map(|_| 1), usage.used, max);
        let hold =
            (own == 0).then(|| Hold { by: HeldBy::Full, reason: throttle::reason(line, usage, max), look_at: None });
        Ok((own.min(in_pool), hold))
    }

    fn held_by_pool(&self, pool: &PoolLook) -> Hold {
        let quota = pool.state.quota(pool.set);
        let ceiling = pool.state.ceiling.as_ref().filter(|_| quota.is_none_or(|quota| pool.used < quota));
        Hold {
            by: if ceiling.is_some() { HeldBy::Refusals } else { HeldBy::Full },
            reason: self.pool_reason(pool),
            look_at: ceiling.map(|ceiling| ceiling.probe_at),
        }
    }

    fn pool_reason(&self, pool: &PoolLook) -> String {
        let quota = pool.state.quota(pool.set);
        throttle::pool_reason(pool.pool, pool.used, quota, pool.state.ceiling.as_ref())
    }

    /// Whether one of this lock's or group's line stands in a pool's line, for all behind it.
    async fn somebody_is_called(&self, line: &LimitKey, state: &LineState) -> Result<bool, PortError> {
        let Some(id) = &state.called else { return Ok(false) };
        // One whose record cannot be read has had its turn: the others of its line are not to wait for it.
        let called = passed_over(self.store.load(id).await)?.and_then(|execution| execution.ticket());
        Ok(called.is_some_and(|ticket| ticket.line != *line))
    }

    /// Sends the first of a lock's or a group's line to its pool's.
    async fn call(
        &self,
        line: &LimitKey,
        batch: Vec<Execution>,
        pool: &PoolLook,
        next: &mut BTreeSet<LimitKey>,
    ) -> Result<Round, PortError> {
        let Some(first) = batch.into_iter().next() else { return Ok(Round::Stale) };
        let (now, reason) = (self.ambient.now(), self.pool_reason(pool));
        let called = Some(first.id.clone());
        let state =
            lines::change_line(self.store, line, |state| Some(LineState { called: called.clone(), ..state.clone() }));
        if state.await?.1.called != called {
            return Ok(Round::Stale);
        }
        let goes = |execution: &Execution| {
            execution.ticket().filter(|ticket| ticket.line == *line)?;
            execution.parked(pool.line.clone(), reason.clone(), now)
        };
        advance(self.store, self.queue, now, &first.id, goes).await?;
        next.insert(pool.line.clone());
        Ok(Round::Held(Hold { by: HeldBy::Pool, reason, look_at: None }))
    }

    /// Starts these, as far as the rate lets it.
    async fn start(
        &self,
        line: &LimitKey,
        state: &LineState,
        batch: impl Iterator<Item = Execution>,
        pool: PoolLook,
        next: &mut BTreeSet<LimitKey>,
    ) -> Result<Round, PortError> {
        // Before the tokens are taken: a definition may have to be registered, and what was granted would be used later.
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
        let launched = self.record(line, updates, &pool).await?;
        if launched.is_empty() {
            // Others were faster, or took what there was.
            return Ok(Round::Stale);
        }
        let (launched, marked) = self.by_their_marks(launched).await?;
        next.extend(launched.iter().filter_map(|launched| calls_next(line, &launched.execution)));
        let count = launched.len();
        // Each to its end: what one cannot write down is no reason to leave the others in the middle of their calls.
        let (mut ran, mut failure) = (Vec::new(), None);
        let runs = join_all(launched.into_iter().map(|launched| self.run(launched)));
        let (results, cancelled) = futures_util::future::join(runs, self.cancel_by_mark(&marked)).await;
        for result in results {
            match result {
                Ok(one) => ran.push(one),
                Err(error) => failure = Some(error),
            }
        }
        failure = failure.or(cancelled.err());
        lines::note_pace(self.store, self.pace, (line, state), count, self.ambient.now()).await?;
        let round = self.learn(&pool, ran).await?;
        failure.map_or(Ok(round), Err)
    }

    /// Up to `want` launches that the rates allow now; of none, when there will be some.
    async fn take_tokens(&self, pool: CapacityPool, want: usize) -> Result<(usize, Hold), PortError> {
        let rates = [
            (RateKey::RunTask, self.settings.run_task_rate),
            (RateKey::Launches(pool), self.settings.quotas.of(pool).rate),
        ];
        let now = self.ambient.now();
        let mut granted = u32::try_from(want).unwrap_or(ROUND);
        let mut hold = Hold { by: HeldBy::Rate, reason: String::new(), look_at: None };
        for (key, rate) in rates {
            let Some(rate) = rate.filter(|_| granted > 0) else { continue };
            let (taken, wait_millis) = self.store.take_tokens(key, rate, granted, now).await?;
            if taken == 0 {
                let wait = TimeDelta::milliseconds(i64::try_from(wait_millis).unwrap_or(i64::MAX));
                hold =
                    Hold { reason: throttle::rate_reason(key, rate), look_at: Some(now + wait.max(NAP_MIN)), ..hold };
            }
            granted = taken;
        }
        Ok((usize::try_from(granted).unwrap_or_default(), hold))
    }

    /// A probe is one launcher's; for the others the pool is held.
    async fn claim_probe(&self, pool: &PoolLook) -> Result<Option<Hold>, PortError> {
        let (Room::Probe(_), Some(ceiling)) = (pool.room, &pool.state.ceiling) else { return Ok(None) };
        let probing = LineState { ceiling: Some(ceiling.probing(self.ambient.now())), ..pool.state.clone() };
        let mine = self.store.set_line_state(&pool.line, &pool.state, probing).await?;
        Ok((!mine).then(|| self.held_by_pool(pool)))
    }

    /// The launches as they are to be written, of those whose definition is there; and whether all were looked at. One that somebody is
    /// registering holds the others up for as long as that takes, so that ten thousand of the same kind are not sent away one by one.
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
                    updates.push(Update { admissions: throttle::admissions(&before, max), before, after: *after });
                }
                Ready::Soon => return Ok((updates, false)),
                Ready::Elsewhere => {}
            }
        }
        Ok((updates, true))
    }

    /// Writes the launches down under their limits, each all or none, before anything is started. An error if none could be written: those
    /// that are on record go on.
    async fn record(&self, line: &LimitKey, updates: Vec<Update>, pool: &PoolLook) -> Result<Vec<Launched>, PortError> {
        let tickets: Vec<_> = updates.iter().filter_map(|update| update.before.ticket()).collect();
        let (mut launched, mut back, mut failure) = (Vec::new(), Vec::new(), None);
        for (ticket, result) in tickets.iter().zip(self.store.update_all(updates).await) {
            match result {
                Ok(execution) => launched.push(Launched { execution, from: line.clone() }),
                Err(UpdateError::Full(full)) if full != *line && full != pool.line => {
                    back.push((ticket, full));
                }
                Err(UpdateError::Conflict | UpdateError::Full(_)) => {}
                Err(UpdateError::Failed(error)) => {
                    tracing::warn!(execution = %ticket.id, %error, "a launch could not be recorded");
                    failure = Some(error);
                }
            }
        }
        for (ticket, full) in back {
            if let Err(error) = self.turn_back(ticket, full).await {
                // It is tried again from where it stands; those that are on record are not held up by it.
                tracing::warn!(execution = %ticket.id, %error, "a ticket could not be sent back to its line");
            }
        }
        match failure {
            Some(error) if launched.is_empty() => Err(error),
            _ => Ok(launched),
        }
    }

    /// The record with the next attempt, once its task definition is there.
    async fn launching(&self, before: &Execution) -> Result<Ready, PortError> {
        let now = self.ambient.now();
        let git = match self.git_access(before).await {
            // A secret's record that cannot be read holds up those that need the secret, and nobody else in the line.
            Err(PortError::Corrupt(corrupt)) => {
                corrupt.note();
                let postponed =
                    |execution: &Execution| execution.postponed(corrupt.to_string(), now + UNREADABLE_NAP, now);
                return advance(self.store, self.queue, now, &before.id, postponed).await.map(|_| Ready::Elsewhere);
            }
            git => git?,
        };
        let definition = TaskDefinition::of(&before.request, &git, self.settings);
        match self.registered.ensure(self.store, self.tasks, self.settings, &definition, now).await? {
            Ensured::Ready(arn) => {
                let nonce = format!("{:032x}", self.ambient.bits());
                let run_task = task::run_task(before, &arn, &nonce, &git, self.settings);
                let after = before.launching(Plan { nonce, run_task }, now);
                Ok(after.map_or(Ready::Elsewhere, |after| Ready::Now(Box::new(after))))
            }
            Ensured::Soon => Ok(Ready::Soon),
            Ensured::Later { reason, pause } => {
                let postponed = |execution: &Execution| execution.postponed(reason.clone(), now + pause, now);
                advance(self.store, self.queue, now, &before.id, postponed).await.map(|_| Ready::Elsewhere)
            }
            Ensured::Refused(why) => {
                let why = format!("the task definition was refused: {why}");
                let rejected = |execution: &Execution| execution.rejected(why.clone(), now);
                advance(self.store, self.queue, now, &before.id, rejected).await.map(|_| Ready::Elsewhere)
            }
        }
    }

    /// Its lock or its group is used up again: back into that line.
    async fn turn_back(&self, ticket: &Ticket, full: LimitKey) -> Result<(), PortError> {
        let (now, usage) = (self.ambient.now(), self.store.usage(&full).await?);
        let goes_back = |execution: &Execution| {
            execution.ticket().filter(|current| current.line == ticket.line)?;
            let reason = throttle::reason(&full, usage, throttle::max_of(&full, &execution.request, None));
            execution.parked(full.clone(), reason, now)
        };
        advance(self.store, self.queue, now, &ticket.id, goes_back).await.map(drop)
    }

    /// What ECS's answers to a round of launches teach of the pool.
    async fn learn(&self, pool: &PoolLook, ran: Vec<Ran>) -> Result<Round, PortError> {
        let now = self.ambient.now();
        let short = ran.iter().find_map(|ran| match ran {
            Ran::Short(shortage, words) => Some((*shortage, words)),
            Ran::Started | Ran::Settled | Ran::Throttled(_) => None,
        });
        // A probe that told neither is nobody's success: another is made when its time is over.
        let started = ran.iter().filter(|ran| matches!(ran, Ran::Started)).count();
        let taken = matches!(pool.room, Room::Probe(_)) && started > 0;
        if short.is_some() || taken {
            let (used, spread) = (self.store.usage(&pool.line).await?.used, self.ambient.bits());
            let quota = pool.state.quota(pool.set);
            let taught = |state: &LineState| {
                let before = state.ceiling.as_ref();
                let ceiling = match short {
                    Some((kind, words)) => Some(Ceiling::refused(before, used, (kind, words.clone()), now, spread)),
                    None => before?.accepted(used, now, quota),
                };
                Some(LineState { ceiling, ..state.clone() })
            };
            lines::change_line(self.store, &pool.line, taught).await?;
        }
        let throttled =
            ran.into_iter().find_map(|ran| if let Ran::Throttled(words) = ran { Some(words) } else { None });
        Ok(throttled.map_or(Round::Moved(started), |reason| {
            Round::Held(Hold { by: HeldBy::Rate, reason, look_at: Some(now + NAP_MAX) })
        }))
    }

    /// Writes down what holds a line and sees to the next look at it: in a moment by this launcher, or by a delayed hint. Whether its watch was
    /// taken back with that: who gave something back under it told nobody, so that another look is due.
    async fn hold(
        &self,
        line: &LimitKey,
        hold: &Hold,
        nap: Option<TimeDelta>,
        watch: &mut Watch,
    ) -> Result<bool, PortError> {
        let (now, mine) = (self.ambient.now(), watch.mark);
        let look_at = hold.look_at.filter(|at| *at > now);
        let pending = |before: &LineState| {
            before.next_look.is_some_and(|at| at > now && hold.look_at.is_some_and(|look_at| at <= look_at))
        };
        let mark = nap.filter(|_| self.settings.run_task_rate.is_some()).map(|nap| now + nap + WATCH);
        // Should the write fail, either may stand in the line's state.
        watch.mark = mark.or(mine);
        let held = |before: &LineState| {
            let next_look = if pending(before) { before.next_look } else { look_at };
            let held = LineState { next_look, ..before.held_by(hold.by, now) };
            Some(if mark.is_some() { LineState { watched_until: mark, ..held } } else { held.unwatched(mine) })
        };
        let (before, after) = lines::change_line(self.store, line, held).await?;
        watch.mark = mark;
        if let Some(at) = look_at.filter(|_| nap.is_none() && before != after && !pending(&before)) {
            let again = Message::Line { line: line.clone(), id: None };
            self.queue.send(vec![delayed(again, (at - now).num_milliseconds())]).await?;
        }
        Ok(mark.is_none() && mine.is_some())
    }

    /// Nothing holds it. Whether its watch was taken back with that, so that another look is due.
    async fn is_empty(&self, line: &LimitKey, watch: &mut Watch) -> Result<bool, PortError> {
        lines::change_line(self.store, line, |state| Some(state.free().unwatched(watch.mark))).await?;
        Ok(watch.mark.take().is_some())
    }

    /// Those who came with this hint and still stand in this line learn why.
    async fn tell(&self, ids: &[ExecutionId], line: &LimitKey, reason: &str) -> Result<(), PortError> {
        let now = self.ambient.now();
        let told = ids.iter().map(|id| {
            advance(self.store, self.queue, now, id, |execution| {
                let ticket = execution.ticket().filter(|ticket| ticket.line == *line && ticket.not_before.is_none())?;
                execution.parked(ticket.line, reason.to_owned(), now)
            })
        });
        join_all(told).await.into_iter().map(passed_over).collect::<Result<Vec<_>, _>>().map(drop)
    }
}

/// The line of the group for which an execution stood in the pool's line: its next is to be called.
fn calls_next(line: &LimitKey, execution: &Execution) -> Option<LimitKey> {
    let mut demand = execution.demand().into_iter().map(|holding| holding.key);
    demand.find(|key| matches!(key, LimitKey::Group(_)) && key != line)
}

fn hint(line: &LimitKey) -> domain::message::Outgoing {
    Message::Line { line: line.clone(), id: None }.into()
}
