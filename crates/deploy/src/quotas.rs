//! The account's quotas of Fargate vCPUs, as far as AWS states them.

use aws::quotas::{ServiceQuotas, whole};
use chrono::{SubsecRound, Utc};
use domain::{
    limit::{CapacityPool, LimitKey},
    ports::{LaunchStore, PortError, ReadStore},
};

use crate::{Account, activity, stack::StackView};

/// A capacity pool of Fargate, which a parameter of the stack limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Fargate Spot.
    Spot,
    /// Fargate on demand.
    OnDemand,
}

impl Pool {
    /// Both pools.
    pub const ALL: [Self; 2] = [Self::Spot, Self::OnDemand];

    /// The stack's parameter for the pool's limit.
    #[must_use]
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Spot => "SpotVcpus",
            Self::OnDemand => "OnDemandVcpus",
        }
    }

    /// The flag that sets the parameter.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Spot => "--vcpus-spot",
            Self::OnDemand => "--vcpus-on-demand",
        }
    }

    /// The quota's code in Service Quotas (AWS General Reference, "AWS Fargate service quotas").
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Spot => "L-36FBB829",
            Self::OnDemand => "L-3032A538",
        }
    }

    /// The pool's name in words.
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

/// The knowledge about a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownQuota {
    /// The quota in vCPUs.
    Vcpus(u32),
    /// AWS states no number.
    Unset,
    /// Service Quotas could not be asked: there is an emulator, or permissions are missing.
    Unknown(String),
}

/// Reads the quota of a pool from Service Quotas.
pub async fn read(account: &Account, pool: Pool) -> KnownQuota {
    match ServiceQuotas::new(&account.config)
        .vcpus(pool.limit())
        .await
    {
        Ok(Some(quota)) => KnownQuota::Vcpus(whole(quota.vcpus)),
        Ok(None) => KnownQuota::Unset,
        Err(fault) => KnownQuota::Unknown(fault.to_string()),
    }
}

/// Records a quota in the table at once. Without that, the sweep would record it within a minute.
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
    let before = store.limit_state(&backlog).await?;
    let cpu = Some(vcpus.saturating_mul(1024));
    let after = before.with_pool(before.pool.with_quota(cpu, Utc::now().trunc_subsecs(3)));
    // If another write came first, it was the sweep's, and the sweep records the quota too.
    store
        .set_limit_state(&backlog, &before, after)
        .await
        .map(drop)
}
