//! The ways in which the handlers reach the model of ECS.

use aws::{
    dynamo::DynamoStore,
    ecs::{EcsTasks, Registration},
    quotas::ServiceQuotas,
};
use chrono::TimeDelta;
use domain::{
    ecs::{Task, TaskStatus},
    ports::{AccountQuotas, Definitions, LaunchStore, Secrets, SweepStore, Tasks, WriteStore},
};

use super::time::{Time, Virtual};
use crate::{
    clock::Scaled,
    ecs::{ACCOUNT, Account, REGION, port::InProcess, wire::Wire},
    memory::MemoryStore,
};

/// All that the functions ask of a store.
pub(super) trait SimulatedStore:
    WriteStore + LaunchStore + SweepStore + Definitions + Secrets + 'static
{
}

impl<S: WriteStore + LaunchStore + SweepStore + Definitions + Secrets + 'static> SimulatedStore
    for S
{
}

/// A way to the model, with its time and its store.
pub(super) trait Way: Send + Sync + 'static {
    /// The time that everything runs on.
    type Time: Time;
    /// The store.
    type Store: SimulatedStore;
    /// The tasks port that the handlers call.
    type Tasks: Tasks + 'static;
    /// The port from which they read the quotas.
    type Quotas: AccountQuotas + 'static;
    /// What a call of ECS takes in addition to its own time.
    const CALL: TimeDelta;

    /// Whether an event about a task in this state reaches the state tracker. The more the better
    /// for a test of what it makes of them.
    fn hears(_task: &Task) -> bool {
        true
    }
}

/// A function call, on virtual time.
pub(super) enum InThisProcess {}

impl Way for InThisProcess {
    type Time = Virtual;
    type Store = MemoryStore;
    type Tasks = InProcess<Virtual>;
    type Quotas = InProcess<Virtual>;
    /// Our choice: a few tenths of a second are usual.
    const CALL: TimeDelta = TimeDelta::milliseconds(200);
}

/// A function call, on virtual time, but for the store: that is the real adapter on an emulator of
/// DynamoDB, whose calls take no virtual time.
pub(super) enum OnDynamo {}

impl Way for OnDynamo {
    type Time = Virtual;
    type Store = DynamoStore;
    type Tasks = InProcess<Virtual>;
    type Quotas = InProcess<Virtual>;
    const CALL: TimeDelta = InThisProcess::CALL;

    /// As in the template: a task that is over, and a warning that it will be.
    fn hears(task: &Task) -> bool {
        task.last_status == TaskStatus::Stopped
            || (task.last_status == TaskStatus::Running
                && task.desired_status == TaskStatus::Stopped)
    }
}

/// The real adapters and the SDK, on a clock that is faster than real time.
pub(super) enum OverTheWire {}

impl Way for OverTheWire {
    type Time = Scaled;
    type Store = MemoryStore;
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
