//! How many vCPUs the account may use, as far as AWS tells.

use aws::quotas::{ServiceQuotas, whole};
use chrono::{SubsecRound, Utc};
use domain::{
    limit::{CapacityPool, LimitKey},
    ports::{PortError, Store},
};

use crate::{Account, activity, stack::StackView};

/// A pool of Fargate's, and the parameter of the stack that limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Spot.
    Spot,
    /// On demand.
    OnDemand,
}

impl Pool {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Spot, Self::OnDemand];

    /// The stack's parameter.
    #[must_use]
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Spot => "SpotVcpus",
            Self::OnDemand => "OnDemandVcpus",
        }
    }

    /// The flag that sets it.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Spot => "--vcpus-spot",
            Self::OnDemand => "--vcpus-on-demand",
        }
    }

    /// Service Quotas' code of it (AWS General Reference, "AWS Fargate service quotas").
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Spot => "L-36FBB829",
            Self::OnDemand => "L-3032A538",
        }
    }

    /// In words.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.limit().title()
    }

    pub(crate) fn limit(self) -> CapacityPool {
        match self {
            Self::Spot => CapacityPool::FargateSpot,
            Self::OnDemand => CapacityPool::Fargate,
        }
    }
}

/// What is known of a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// So many vCPUs.
    Vcpus(u32),
    /// AWS names no number.
    Unset,
    /// It could not be asked: an emulator, or missing permissions.
    Unknown(String),
}

/// Asks Service Quotas.
pub async fn read(account: &Account, pool: Pool) -> Known {
    match ServiceQuotas::new(&account.config)
        .vcpus(pool.limit())
        .await
    {
        Ok(Some(quota)) => Known::Vcpus(whole(quota.vcpus)),
        Ok(None) => Known::Unset,
        Err(fault) => Known::Unknown(fault.to_string()),
    }
}

/// Lets the stack know a quota at once; its sweep would read it within a minute.
///
/// # Errors
/// When the table does not answer.
pub async fn keep(
    account: &Account,
    stack: &StackView,
    pool: Pool,
    vcpus: u32,
) -> Result<(), PortError> {
    let (store, backlog) = (
        activity::store(account, stack),
        LimitKey::Pool(pool.limit()),
    );
    let before = store.backlog_state(&backlog).await?;
    let after = before.with_quota(
        Some(vcpus.saturating_mul(1024)),
        Utc::now().trunc_subsecs(3),
    );
    // Whoever wrote in between was the sweep, which knows it too.
    store
        .set_backlog_state(&backlog, &before, after)
        .await
        .map(drop)
}
