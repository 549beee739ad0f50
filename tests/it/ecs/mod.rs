//! The model of ECS through the adapters: on the wire with the real SDK, and as a port in the same
//! process.

use std::sync::{Arc, Mutex};

use aws::ecs::{EcsTasks, Registration};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::{ContainerOverride, KeyValuePair, NetworkConfiguration, RunTaskInput, TaskOverride},
    id::{AttemptId, ExecutionId},
    request::Arch,
    task::TaskDefinition,
};
use tests::{
    clock::Manual,
    ecs::{Account, Change, Ecs, Kind, port::InProcess, wire::Wire},
};
use tokio::sync::mpsc::UnboundedReceiver;

mod agree;
mod wire;

const CLUSTER: &str = "mycli-team";

/// An account with 250 Spot vCPUs. A task starts in 10 s, works for 20 s and exits 0.
pub(crate) fn account() -> Account {
    let mut account = Account::new(7, CLUSTER).with_vcpus(Kind::Spot, 250);
    account.lives.start_up = TimeDelta::seconds(10)..=TimeDelta::seconds(10);
    account.lives.work = TimeDelta::seconds(20)..=TimeDelta::seconds(20);
    account
}

pub(crate) fn clock() -> Manual {
    Manual::new(Timestamp::from_timestamp_millis(1_795_478_400_000).unwrap())
}

/// The account on the wire, and the real adapter.
pub(crate) async fn on_the_wire(
    account: Account,
    clock: &Manual,
) -> (Wire, UnboundedReceiver<Change>, EcsTasks) {
    let (wire, events) = Wire::serve(Ecs::new(account), clock.clone()).await;
    let registration = Registration {
        family_prefix: CLUSTER.into(),
        execution_role: "arn:aws:iam::111122223333:role/mycli/team/execution".into(),
        task_role: "arn:aws:iam::111122223333:role/mycli/team/task".into(),
        secrets_path: "/mycli/team/secrets/".into(),
        region: "eu-west-1".into(),
    };
    let tasks = EcsTasks::new(&wire.config(), CLUSTER.into(), Some(registration));
    (wire, events, tasks)
}

/// The same account in this process.
pub(crate) fn in_process(account: Account, clock: &Manual) -> (Arc<Mutex<Ecs>>, InProcess<Manual>) {
    let ecs = Arc::new(Mutex::new(Ecs::new(account)));
    (Arc::clone(&ecs), InProcess::new(ecs, clock.clone()))
}

pub(crate) fn definition() -> TaskDefinition {
    TaskDefinition {
        image: Some("ghcr.io/team/tool:1".parse().unwrap()),
        arch: Arch::Arm64,
        entry_point: vec!["/mycli/mycli-runner".into()],
        command: vec!["run".into()],
        secrets: Vec::new(),
        registry_secret: None,
        log_group: "/aws/mycli/team".into(),
        helpers: Some(tests::ecs::runner_images()),
        fetches: false,
    }
}

pub(crate) fn attempt(number: u32) -> AttemptId {
    ExecutionId::new(
        Timestamp::from_timestamp_millis(1_795_478_400_000).unwrap(),
        7,
    )
    .attempt(number)
}

pub(crate) fn input(number: u32, definition_arn: &str) -> RunTaskInput {
    let attempt = attempt(number).to_string();
    let environment = vec![KeyValuePair {
        name: "MYCLI_COMMAND".into(),
        value: "make \"deploy\" é".into(),
    }];
    RunTaskInput {
        cluster: CLUSTER.into(),
        task_definition: definition_arn.into(),
        client_token: attempt.clone(),
        started_by: attempt,
        count: 1,
        capacity_provider: Some("FARGATE_SPOT".into()),
        tags: Vec::new(),
        network_configuration: Some(NetworkConfiguration {
            subnets: vec!["subnet-a".into(), "subnet-b".into()],
            security_groups: vec!["sg-a".into()],
            assign_public_ip: true,
        }),
        overrides: TaskOverride {
            cpu: "1024".into(),
            memory: "2048".into(),
            ephemeral_storage: None,
            task_role_arn: None,
            container_overrides: vec![ContainerOverride {
                name: "main".into(),
                environment,
            }],
        },
    }
}
