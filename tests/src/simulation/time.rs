//! Time that passes as soon as no task can go on without it, and the tasks that run on it, in an
//! order that is always the same.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use chrono::TimeDelta;
use domain::{Timestamp, ports::Clock};
use futures_executor::LocalPool;
use futures_util::{future::BoxFuture, task::LocalSpawnExt};

use super::script::locked;
use crate::clock::Scaled;

/// The time of a simulation: a clock, and the tasks that run on it.
pub(super) trait Time: Clock + Clone + 'static {
    /// Runs a task beside all others, until the simulation ends.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);
}

/// Needs a tokio runtime.
impl Time for Scaled {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(task));
    }
}

/// Virtual time and its tasks. Clones share the same time.
#[derive(Clone)]
pub struct Virtual(Arc<Mutex<State>>);

struct State {
    now: Timestamp,
    timers: u64,
    waiting: BTreeMap<(Timestamp, u64), Waker>,
    spawned: Vec<BoxFuture<'static, ()>>,
    outside: Outside,
}

/// Work outside of virtual time, such as a call of a real server. While there is any, time stands
/// still.
#[derive(Clone, Debug, Default)]
pub(super) struct Outside(Arc<AtomicUsize>);

impl Outside {
    /// Such work begins.
    pub(super) fn begin(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn is_any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

/// How long to wait before looking whether work outside has gone on.
const LOOK: Duration = Duration::from_micros(20);

impl fmt::Debug for Virtual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Virtual").field(&self.now()).finish()
    }
}

impl Virtual {
    /// Virtual time that begins at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let state = State {
            now,
            timers: 0,
            waiting: BTreeMap::new(),
            spawned: Vec::new(),
            outside: Outside::default(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The work outside of this time.
    pub(super) fn outside(&self) -> Outside {
        locked(&self.0).outside.clone()
    }

    /// Runs a future, and all that it spawns, until it is ready.
    ///
    /// # Panics
    /// When all tasks wait for each other and none for a time: a deadlock.
    pub fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let (mut pool, result) = (LocalPool::new(), Rc::new(RefCell::new(None)));
        let there = Rc::clone(&result);
        let all = pool.spawner();
        let spawn = |task| {
            all.spawn_local(task)
                .unwrap_or_else(|error| panic!("{error}"));
        };
        let main: Pin<Box<dyn Future<Output = ()>>> =
            Box::pin(async move { *there.borrow_mut() = Some(future.await) });
        spawn(main);
        loop {
            let spawned = std::mem::take(&mut locked(&self.0).spawned);
            let quiet = spawned.is_empty();
            spawned.into_iter().for_each(|task| spawn(task));
            pool.run_until_stalled();
            if let Some(result) = result.borrow_mut().take() {
                return result;
            }
            if !quiet || !locked(&self.0).spawned.is_empty() {
                continue;
            }
            if self.outside().is_any() {
                thread::sleep(LOOK);
            } else {
                assert!(self.pass(), "everybody waits, and nobody for a moment");
            }
        }
    }

    /// Moves on to the next time that a task waits for. Returns whether there is one.
    fn pass(&self) -> bool {
        let mut state = locked(&self.0);
        let Some((&(at, _), _)) = state.waiting.first_key_value() else {
            return false;
        };
        state.now = state.now.max(at);
        let later = state
            .waiting
            .split_off(&(at + TimeDelta::milliseconds(1), 0));
        let due = std::mem::replace(&mut state.waiting, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
        true
    }
}

impl Time for Virtual {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        locked(&self.0).spawned.push(Box::pin(task));
    }
}

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        locked(&self.0).now
    }

    fn sleep(&self, span: TimeDelta) -> impl Future<Output = ()> + Send {
        Sleep {
            time: self.clone(),
            until: self.now() + span,
            timer: None,
        }
    }
}

struct Sleep {
    time: Virtual,
    until: Timestamp,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (time, until) = (self.time.clone(), self.until);
        let mut state = locked(&time.0);
        if state.now >= until {
            return Poll::Ready(());
        }
        let timer = self.timer.unwrap_or(state.timers);
        if self.timer.is_none() {
            state.timers += 1;
            self.timer = Some(timer);
        }
        state
            .waiting
            .insert((until, timer), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            locked(&self.time.0).waiting.remove(&(self.until, timer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::simulation::start;

    #[test]
    fn an_hour_takes_no_time_and_order_is_kept() {
        let (time, order) = (Virtual::new(start()), Arc::new(Mutex::new(Vec::new())));
        for (name, minutes) in [("late", 59), ("early", 1), ("second", 1)] {
            let (clock, order) = (time.clone(), Arc::clone(&order));
            time.spawn(async move {
                clock.sleep(TimeDelta::minutes(minutes)).await;
                locked(&order).push(name);
            });
        }
        let clock = time.clone();
        time.run(async move { clock.sleep(TimeDelta::hours(1)).await });
        assert_eq!(time.now(), start() + TimeDelta::hours(1));
        assert_eq!(*locked(&order), ["early", "second", "late"]);
    }

    #[test]
    fn what_is_spawned_by_what_is_spawned_runs_too() {
        let (time, count) = (Virtual::new(start()), Arc::new(AtomicU32::new(0)));
        let (inner, counted) = (time.clone(), Arc::clone(&count));
        time.spawn(async move {
            let clock = inner.clone();
            inner.spawn(async move {
                clock.sleep(TimeDelta::seconds(1)).await;
                counted.fetch_add(1, Ordering::Relaxed);
            });
        });
        let clock = time.clone();
        time.run(async move { clock.sleep(TimeDelta::seconds(2)).await });
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
