//! The metrics that show the state of the moment: backlogs, and vCPUs in use.

use domain::{
    Timestamp,
    limit::{CapacityPool, LimitKey},
    measure,
    ports::{PortError, ReadStore},
    settings::Settings,
};

/// How many entries of one submitter are counted in each backlog. So many cost DynamoDB about 300
/// read units, once a minute while they wait.
const COUNTED: u32 = 20_000;

/// Reads what waits and what is in use, and records it as metrics. A failure is logged, and the
/// metrics that could not be read are missing until the next time.
pub async fn measure(store: &impl ReadStore, settings: &Settings, now: Timestamp) {
    if let Err(error) = measured(store, settings, now).await {
        tracing::warn!(%error, "the state of the moment could not be measured");
    }
}

async fn measured(
    store: &impl ReadStore,
    settings: &Settings,
    now: Timestamp,
) -> Result<(), PortError> {
    let pools: Vec<CapacityPool> = settings.quotas.pools().collect();
    for pool in &pools {
        let key = LimitKey::Pool(*pool);
        let set = settings.quotas.of(*pool).cpu;
        let state = store.limit_state(&key).await?;
        let used = store.usage(&key).await?.used;
        measure::record_use(*pool, used, state.pool.quota(set));
    }
    let sizes = store.backlog_sizes(COUNTED).await?;
    measure::record_backlogs(&pools, &sizes, now);
    Ok(())
}
