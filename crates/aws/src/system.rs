//! A function's clock and random source.
//!
//! `local` has the same dozen lines. Sharing them would make one of the two depend on the other, or
//! `domain` depend on the system.

use chrono::{SubsecRound, TimeDelta, Utc};
use domain::{
    Timestamp,
    ports::{Clock, Entropy},
};

/// The system's clock and random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        Utc::now().trunc_subsecs(3)
    }

    async fn sleep(&self, span: TimeDelta) {
        tokio::time::sleep(span.to_std().unwrap_or_default()).await;
    }
}

impl Entropy for System {
    fn bits(&self) -> u128 {
        let mut bytes = [0; 16];
        #[expect(
            clippy::expect_used,
            reason = "without the kernel's random source no id is safe; there is nothing sensible to go on with"
        )]
        getrandom::fill(&mut bytes).expect("the operating system's random source");
        u128::from_le_bytes(bytes)
    }
}
