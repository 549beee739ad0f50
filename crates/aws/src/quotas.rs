//! How many vCPUs an account may use at the same time, from Service Quotas. The numbers differ
//! between accounts, so none is assumed.

use aws_config::SdkConfig;
use aws_sdk_servicequotas::{Client, types::ServiceQuota};
use domain::{
    limit::CapacityPool,
    ports::{AccountQuotas, PortError},
};

use crate::error::Fault;

/// Fargate's service code.
const FARGATE: &str = "fargate";
/// "Fargate On-Demand vCPU resource count" (AWS General Reference, "AWS Fargate service quotas").
const ON_DEMAND: &str = "L-3032A538";
/// "Fargate Spot vCPU resource count" (ibid.).
const SPOT: &str = "L-36FBB829";

/// The quotas of an account.
#[derive(Clone, Debug)]
pub struct ServiceQuotas {
    client: Client,
}

/// A quota, and the code by which it is raised.
#[derive(Clone, Debug, PartialEq)]
pub struct VcpuQuota {
    /// The vCPUs that may be in use at the same time.
    pub vcpus: f64,
    /// The quota's code in Service Quotas.
    pub code: &'static str,
}

impl ServiceQuotas {
    /// The quotas of this account and region.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            client: Client::new(config),
        }
    }

    /// The vCPUs that may be in use at the same time in this pool; `None` if the pool is not one of
    /// Fargate's, or if AWS gives no number.
    ///
    /// # Errors
    /// If Service Quotas does not answer or denies access.
    pub async fn vcpus(&self, pool: CapacityPool) -> Result<Option<VcpuQuota>, Fault> {
        let code = match pool {
            CapacityPool::FargateSpot => SPOT,
            CapacityPool::Fargate => ON_DEMAND,
            CapacityPool::Machine => return Ok(None),
        };
        let vcpus = match self.applied(code).await? {
            Some(applied) => Some(applied),
            None => self.default(code).await?,
        };
        Ok(vcpus.map(|vcpus| VcpuQuota { vcpus, code }))
    }

    /// The account's own value. An account that never asked for a raise may have none.
    async fn applied(&self, code: &str) -> Result<Option<f64>, Fault> {
        let call = self
            .client
            .get_service_quota()
            .service_code(FARGATE)
            .quota_code(code);
        match call.send().await.map_err(|error| Fault::of(&error)) {
            Ok(output) => Ok(output.quota().and_then(ServiceQuota::value)),
            Err(fault) if fault.is("NoSuchResourceException") => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn default(&self, code: &str) -> Result<Option<f64>, Fault> {
        let call = self
            .client
            .get_aws_default_service_quota()
            .service_code(FARGATE)
            .quota_code(code);
        match call.send().await.map_err(|error| Fault::of(&error)) {
            Ok(output) => Ok(output.quota().and_then(ServiceQuota::value)),
            Err(fault) if fault.is("NoSuchResourceException") => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

impl AccountQuotas for ServiceQuotas {
    async fn cpu(&self, pool: CapacityPool) -> Result<Option<u32>, PortError> {
        let quota = self
            .vcpus(pool)
            .await
            .map_err(|fault| fault.of_service("Service Quotas"))?;
        Ok(quota.map(|quota| whole(quota.vcpus).saturating_mul(1024)))
    }
}

/// The whole vCPUs of a quota; a limit cannot use a part of one.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float saturates, and no quota is negative"
)]
pub fn whole(vcpus: f64) -> u32 {
    vcpus.floor() as u32
}
