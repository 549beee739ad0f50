//! Decides when faults happen.

use std::{
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use chrono::TimeDelta;
use domain::{Timestamp, ports::Clock};

use super::{
    super::{script::locked, time::Virtual},
    plan::{LaunchPlan, Weather},
};
use crate::{random::Random, simulation::start};

/// A process that is to die does so within this many awaits. It is more than most invocations have,
/// so that some survive.
const AWAITS: u64 = 60;

/// Draws all faults, in the order in which they happen.
pub(super) struct Fate {
    random: Mutex<Random>,
    weather: Weather,
    clear_at: Timestamp,
    time: Virtual,
    awaits: AtomicU64,
    crash_at: Option<u64>,
}

impl Fate {
    pub(super) fn new(plan: &LaunchPlan, time: Virtual) -> Self {
        Self {
            random: Mutex::new(Random::keyed(plan.seed, "fate", 0)),
            weather: plan.weather.clone(),
            clear_at: start() + plan.clear_after,
            time,
            awaits: AtomicU64::new(0),
            crash_at: plan.crash_at,
        }
    }

    /// Whether a fault of this probability happens now.
    pub(super) fn strikes(&self, probability: impl FnOnce(&Weather) -> f64) -> bool {
        let probability = probability(&self.weather);
        probability > 0.0
            && self.time.now() < self.clear_at
            && locked(&self.random).chance(probability)
    }

    /// Whether faults are over.
    pub(super) fn is_clear(&self) -> bool {
        self.time.now() >= self.clear_at
    }

    /// A number below `count`.
    pub(super) fn below(&self, count: u64) -> u64 {
        locked(&self.random).below(count)
    }

    /// A duration up to `most`.
    pub(super) fn within(&self, most: TimeDelta) -> TimeDelta {
        locked(&self.random).within(&(TimeDelta::zero()..=most))
    }

    /// How long a message takes one way. It is never zero, so that others can act and a process can
    /// die at each message.
    pub(super) fn latency(&self) -> TimeDelta {
        if self.strikes(|weather| weather.slow) {
            return TimeDelta::milliseconds(200) + self.within(TimeDelta::milliseconds(2_000));
        }
        TimeDelta::milliseconds(1) + self.within(TimeDelta::milliseconds(20))
    }

    /// How far a new process's clock is off.
    pub(super) fn skew(&self) -> TimeDelta {
        let most = self.weather.skew;
        if most.is_zero() {
            most
        } else {
            self.within(most * 2) - most
        }
    }

    /// The number of awaits of all processes so far.
    pub(super) fn awaits(&self) -> u64 {
        self.awaits.load(Ordering::Relaxed)
    }

    /// Runs a process's work. `None` means that the process died at one of its awaits, with
    /// everything it was doing.
    pub(super) fn process<F: Future>(&self, work: F) -> Process<'_, F> {
        let dies = self.strikes(|weather| weather.crash);
        Process {
            fate: self,
            left: dies.then(|| self.below(AWAITS)),
            work: Some(Box::pin(work)),
        }
    }
}

pub(super) struct Process<'f, F> {
    fate: &'f Fate,
    /// The number of awaits that it survives, if it is to die.
    left: Option<u64>,
    work: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Process<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.work.as_mut() else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(output) = work.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        let number = self.fate.awaits.fetch_add(1, Ordering::Relaxed);
        let dies = self.left == Some(0) || self.fate.crash_at == Some(number);
        self.left = self.left.map(|left| left.saturating_sub(1));
        if dies {
            self.work = None;
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}
