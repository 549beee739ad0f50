//! The ways in which the handlers reach the model of ECS.

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

/// A way to the model, with its time.
pub(super) trait Way: Send + Sync + 'static {
    /// The time that everything runs on.
    type Time: Time;
    /// The tasks port that the handlers call.
    type Tasks: Tasks + 'static;
    /// The port from which they read the quotas.
    type Quotas: AccountQuotas + 'static;
    /// What a call of ECS takes in addition to its own time.
    const CALL: TimeDelta;
}

/// A function call, on virtual time.
pub(super) enum InThisProcess {}

impl Way for InThisProcess {
    type Time = Virtual;
    type Tasks = InProcess<Virtual>;
    type Quotas = InProcess<Virtual>;
    /// Our choice: a few tenths of a second are usual.
    const CALL: TimeDelta = TimeDelta::milliseconds(200);
}

/// The real adapters and the SDK, on a clock that is faster than real time.
pub(super) enum OverTheWire {}

impl Way for OverTheWire {
    type Time = Scaled;
    type Tasks = EcsTasks;
    type Quotas = ServiceQuotas;
    const CALL: TimeDelta = TimeDelta::zero();
}

/// The adapters for an account behind a wire.
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
