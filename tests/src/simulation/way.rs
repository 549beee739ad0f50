//! The ways from the handlers to the model of ECS.

use aws::{
    ecs::{EcsTasks, Registration},
    quotas::ServiceQuotas,
};
use chrono::TimeDelta;
use domain::ports::{AccountQuotas, Tasks};

use super::time::{Time, Virtual};
use crate::{
    clock::Scaled,
    ecs::{ACCOUNT, Account, REGION, port::InProcess, wire::Wire},
};

/// A way to the model, and the time that passes on it.
pub(super) trait Way: Send + Sync + 'static {
    /// What all go by.
    type Time: Time;
    /// What the handlers call.
    type Tasks: Tasks + 'static;
    /// Where they read the quotas.
    type Quotas: AccountQuotas + 'static;
    /// How long a call of ECS takes beside what it takes by itself.
    const CALL: TimeDelta;
}

/// A call of a function, on virtual time.
pub(super) enum InThisProcess {}

impl Way for InThisProcess {
    type Time = Virtual;
    type Tasks = InProcess<Virtual>;
    type Quotas = InProcess<Virtual>;
    /// Ours: a few tenths of a second are usual.
    const CALL: TimeDelta = TimeDelta::milliseconds(200);
}

/// The real adapters and the SDK, on a clock that is faster than the real one.
pub(super) enum OverTheWire {}

impl Way for OverTheWire {
    type Time = Scaled;
    type Tasks = EcsTasks;
    type Quotas = ServiceQuotas;
    const CALL: TimeDelta = TimeDelta::zero();
}

/// The adapters of an account behind a wire.
pub(super) fn adapters(wire: &Wire, account: &Account) -> (EcsTasks, ServiceQuotas) {
    let role = |name: &str| {
        format!(
            "arn:aws:iam::{ACCOUNT}:role/mycli/{}/{name}",
            account.cluster
        )
    };
    let registration = Registration {
        family_prefix: account.cluster.clone(),
        execution_role: role("execution"),
        task_role: role("task"),
        secrets_path: format!("/mycli/{}/secrets/", account.cluster),
        region: REGION.into(),
    };
    let config = wire.config();
    (
        EcsTasks::new(&config, account.cluster.clone(), Some(registration)),
        ServiceQuotas::new(&config),
    )
}
