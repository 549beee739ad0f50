//! The machine's clock and random source.

use chrono::{SubsecRound, TimeDelta, Utc};
use domain::{
    Timestamp,
    limit::CapacityPool,
    ports::{AccountQuotas, Clock, Entropy, PortError},
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

impl AccountQuotas for System {
    /// One machine has no AWS account, and so no quota.
    async fn cpu(&self, _: CapacityPool) -> Result<Option<u32>, PortError> {
        Ok(None)
    }
}

impl Entropy for System {
    fn bits(&self) -> u128 {
        u128::from_le_bytes(bytes())
    }
}

/// Fresh random bytes from the operating system.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::expect_used,
        reason = "without the kernel's random source no id is safe; there is nothing sensible to go on with"
    )]
    getrandom::fill(&mut bytes).expect("the operating system's random source");
    bytes
}
