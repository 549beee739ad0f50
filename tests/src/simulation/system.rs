//! The clock and the random source of a simulation.

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    ports::{Clock, Entropy},
};
use sha2::{Digest, Sha256};

/// A clock and a random source. The bits depend on the seed and on how many were drawn before.
#[derive(Debug)]
pub(super) struct VirtualSystem<C> {
    clock: C,
    skew: TimeDelta,
    seed: u64,
    asked: AtomicU64,
}

impl<C> VirtualSystem<C> {
    pub(super) fn new(clock: C, seed: u64) -> Self {
        Self::skewed(clock, seed, TimeDelta::zero())
    }

    /// A system whose clock is off by `skew`.
    pub(super) fn skewed(clock: C, seed: u64, skew: TimeDelta) -> Self {
        Self {
            clock,
            skew,
            seed,
            asked: AtomicU64::new(0),
        }
    }
}

impl<C: Clock> Clock for VirtualSystem<C> {
    fn now(&self) -> Timestamp {
        self.clock.now() + self.skew
    }

    async fn sleep(&self, span: TimeDelta) {
        self.clock.sleep(span).await;
    }
}

impl<C: Clock> Entropy for VirtualSystem<C> {
    fn bits(&self) -> u128 {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let digest = Sha256::digest([self.seed.to_le_bytes(), number.to_le_bytes()].concat());
        digest
            .iter()
            .take(16)
            .fold(0, |bits, byte| bits << 8 | u128::from(*byte))
    }
}
