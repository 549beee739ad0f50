//! The tests' clocks: one that runs faster than real time, and one that the test moves by hand.

use std::{future::Future, sync::Arc, time::Duration};

use chrono::TimeDelta;
use domain::{Timestamp, ports::Clock};
use tokio::{sync::watch, time::Instant};

/// A clock that runs `factor` times as fast as real time.
#[derive(Clone, Copy, Debug)]
pub struct Scaled {
    began: Instant,
    at: Timestamp,
    factor: u32,
}

impl Scaled {
    /// A clock that shows `at` now.
    #[must_use]
    pub fn new(at: Timestamp, factor: u32) -> Self {
        Self {
            began: Instant::now(),
            at,
            factor,
        }
    }
}

impl Clock for Scaled {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.at + TimeDelta::milliseconds(passed.saturating_mul(i64::from(self.factor)) / 1000)
    }

    async fn sleep(&self, span: TimeDelta) {
        let until = self.now() + span;
        while self.now() < until {
            let left = (until - self.now()).num_microseconds().unwrap_or_default();
            let real = u64::try_from(left).unwrap_or_default() / u64::from(self.factor);
            tokio::time::sleep(Duration::from_micros(real.max(1))).await;
        }
    }
}

/// A clock that stands still until the test moves it.
#[derive(Clone, Debug)]
pub struct Manual(Arc<watch::Sender<Timestamp>>);

impl Manual {
    /// A clock that shows `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(Arc::new(watch::Sender::new(at)))
    }

    /// Moves the clock forward.
    pub fn pass(&self, span: TimeDelta) {
        self.0.send_modify(|now| *now += span);
    }
}

impl Clock for Manual {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn sleep(&self, span: TimeDelta) -> impl Future<Output = ()> + Send {
        let mut seen = self.0.subscribe();
        let until = self.now() + span;
        async move { drop(seen.wait_for(|now| *now >= until).await) }
    }
}
