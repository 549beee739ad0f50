//! Each behaviour of the model as the real adapter sees it.

use aws::quotas::ServiceQuotas;
use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::{RunTaskInput, StopCode, Task},
    limit::CapacityPool,
    ports::{LaunchError, Tasks},
    scheduler::adaptive_limit::Shortage,
};
use pipeline::state_tracker::Input;
use tests::ecs::{RUNNING, STOPPED};
use tests::{
    clock::Scaled,
    ecs::{
        Account, Delivery, Ecs, Kind, Operation, Outage, RunTask, Strike, VcpuQuota, Why,
        wire::Wire,
    },
};

use super::{CLUSTER, account, attempt, clock, definition, input, on_the_wire};

fn exit_code(task: &Task) -> Option<i32> {
    task.container().and_then(|container| container.exit_code)
}

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

fn is_full(error: &LaunchError, of: Shortage) -> bool {
    matches!(error, LaunchError::Full { shortage, .. } if *shortage == of)
}

#[tokio::test]
async fn a_task_is_registered_started_and_seen_to_its_end() {
    let clock = clock();
    let (_wire, _events, tasks) = on_the_wire(account(), &clock).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    let task = tasks.run_task(&input(1, &arn)).await.unwrap();
    assert_eq!(
        (task.last_status.as_str(), task.version, task.attempt()),
        ("PROVISIONING", 1, Some(attempt(1)))
    );
    clock.pass(seconds(10));
    let running = tasks
        .describe_tasks(std::slice::from_ref(&task.task_arn))
        .await
        .unwrap()
        .tasks
        .remove(0);
    assert_eq!(
        (running.last_status.as_str(), exit_code(&running)),
        (RUNNING, None)
    );
    clock.pass(seconds(20));
    let over = tasks
        .describe_tasks(&[task.task_arn])
        .await
        .unwrap()
        .tasks
        .remove(0);
    assert_eq!(
        (over.last_status.as_str(), exit_code(&over)),
        (STOPPED, Some(0))
    );
    assert_eq!(over.stop_code, Some(StopCode::EssentialContainerExited));
}

#[tokio::test]
async fn too_many_calls_a_second_are_throttled() {
    let clock = clock();
    let (wire, _events, tasks) = on_the_wire(account(), &clock).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    for number in 1..=20 {
        tasks.run_task(&input(number, &arn)).await.unwrap();
    }
    let error = tasks.run_task(&input(21, &arn)).await.unwrap_err();
    assert!(matches!(error, LaunchError::Throttled(_)), "{error:?}");
    clock.pass(TimeDelta::milliseconds(50));
    tasks.run_task(&input(21, &arn)).await.unwrap();
    assert_eq!(
        wire.with(|ecs| ecs.counts().refused(Operation::RunTask, Why::RunTaskRate)),
        1
    );
}

#[tokio::test]
async fn too_many_registrations_are_throttled() {
    let (_wire, _events, tasks) = on_the_wire(account(), &clock()).await;
    for _ in 0..20 {
        tasks.register_definition(&definition()).await.unwrap();
    }
    let error = tasks.register_definition(&definition()).await.unwrap_err();
    assert!(matches!(error, LaunchError::Throttled(_)), "{error:?}");
}

#[tokio::test]
async fn a_quota_that_is_used_up_and_capacity_that_is_not_there_are_told_apart() {
    let clock = clock();
    let (wire, _events, tasks) = on_the_wire(account(), &clock).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    wire.with(|ecs| ecs.set_quota(Kind::Spot, VcpuQuota::applied(1), Timestamp::default()));
    tasks.run_task(&input(1, &arn)).await.unwrap();
    let error = tasks.run_task(&input(2, &arn)).await.unwrap_err();
    assert!(is_full(&error, Shortage::Quota), "{error:?}");
    let outage = Outage {
        kind: Kind::Spot,
        from: Timestamp::default(),
        until: Timestamp::MAX_UTC,
    };
    wire.with(|ecs| ecs.add_outage(outage));
    let error = tasks.run_task(&input(3, &arn)).await.unwrap_err();
    assert!(is_full(&error, Shortage::Capacity), "{error:?}");
}

#[tokio::test]
async fn a_token_with_other_parameters_is_answered_with_its_task() {
    let (wire, _events, tasks) = on_the_wire(account(), &clock()).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    let first = tasks.run_task(&input(1, &arn)).await.unwrap();
    let mut other = input(1, &arn);
    other.overrides.memory = "3072".into();
    assert_eq!(
        tasks.run_task(&other).await.unwrap().task_arn,
        first.task_arn
    );
    assert_eq!(
        wire.with(|ecs| ecs.counts().refused(Operation::RunTask, Why::Conflict)),
        1
    );
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_same_call_finds_the_task() {
    let (wire, _events, tasks) = on_the_wire(account(), &clock()).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    wire.with(|ecs| ecs.lose_answers(1));
    let error = tasks.run_task(&input(1, &arn)).await.unwrap_err();
    assert!(matches!(error, LaunchError::Unknown(_)), "{error:?}");
    tasks.run_task(&input(1, &arn)).await.unwrap();
    assert_eq!(
        wire.with(|ecs| (ecs.tasks().count(), ecs.counts().doubled.len())),
        (1, 0)
    );
}

#[tokio::test]
async fn an_inactive_definition_is_said_to_be_gone() {
    let (wire, _events, tasks) = on_the_wire(account(), &clock()).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    wire.with(|ecs| ecs.deregister_task_definition(&arn, Timestamp::default()))
        .unwrap();
    let error = tasks.run_task(&input(1, &arn)).await.unwrap_err();
    assert!(matches!(error, LaunchError::NoDefinition(_)), "{error:?}");
}

#[tokio::test]
async fn overrides_that_are_too_long_are_refused() {
    let (_wire, _events, tasks) = on_the_wire(account(), &clock()).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    let mut long = input(1, &arn);
    long.overrides.container_overrides[0].environment[0].value = "x".repeat(8192);
    let error = tasks.run_task(&long).await.unwrap_err();
    assert!(
        matches!(&error, LaunchError::Refused(words) if words.contains("8192")),
        "{error:?}"
    );
}

/// One attempt has more tasks here than a page of ListTasks holds. The adapter starts only one per
/// attempt, so the test starts them past it.
#[tokio::test]
async fn an_attempts_tasks_are_listed_over_pages_running_and_stopped() {
    let clock = clock();
    let (wire, _events, tasks) = on_the_wire(account(), &clock).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    let ten = RunTaskInput {
        count: 10,
        ..input(1, &arn)
    };
    for number in 0..11 {
        let call = RunTask {
            client_token: Some(number.to_string()),
            ..RunTask::from(&ten)
        };
        let now = domain::ports::Clock::now(&clock);
        wire.with(|ecs| ecs.run_task(&call, now)).unwrap();
        clock.pass(seconds(1));
    }
    tasks.run_task(&input(2, &arn)).await.unwrap();
    clock.pass(seconds(25));
    assert_eq!(tasks.list_tasks(&attempt(1)).await.unwrap().len(), 110);
}

#[tokio::test]
async fn a_task_that_is_not_seen_yet_is_missing_and_not_stopped() {
    let clock = clock();
    let late = Account {
        seen_after: seconds(3)..=seconds(3),
        ..account()
    };
    let (_wire, _events, tasks) = on_the_wire(late, &clock).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    let task = tasks.run_task(&input(1, &arn)).await.unwrap().task_arn;
    let described = tasks
        .describe_tasks(std::slice::from_ref(&task))
        .await
        .unwrap();
    assert_eq!(described.missing, std::slice::from_ref(&task));
    assert!(tasks.list_tasks(&attempt(1)).await.unwrap().is_empty());
    tasks.stop_task(&task, "too early").await.unwrap();
    clock.pass(seconds(3));
    let described = tasks.describe_tasks(&[task]).await.unwrap();
    assert_eq!(described.tasks[0].desired_status, RUNNING);
}

#[tokio::test]
async fn a_stopped_task_says_who_stopped_it_and_how_it_ended() {
    let clock = clock();
    let (_wire, _events, tasks) = on_the_wire(account(), &clock).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    let task = tasks.run_task(&input(1, &arn)).await.unwrap().task_arn;
    clock.pass(seconds(15));
    tasks.stop_task(&task, "cancelled by ann").await.unwrap();
    let over = tasks.describe_tasks(&[task]).await.unwrap().tasks.remove(0);
    assert_eq!(
        (&over.stop_code, exit_code(&over)),
        (&Some(StopCode::UserInitiated), Some(143))
    );
    assert_eq!(over.stopped_reason.as_deref(), Some("cancelled by ann"));
}

#[tokio::test]
async fn quotas_are_the_accounts_or_awss() {
    let (wire, _events, _tasks) = on_the_wire(account(), &clock()).await;
    let quotas = ServiceQuotas::new(&wire.config());
    assert_eq!(
        quotas
            .vcpus(CapacityPool::FargateSpot)
            .await
            .unwrap()
            .unwrap()
            .vcpus,
        250.0
    );
    assert_eq!(
        quotas
            .vcpus(CapacityPool::Fargate)
            .await
            .unwrap()
            .unwrap()
            .vcpus,
        6.0
    );
}

#[tokio::test]
async fn events_come_by_themselves_as_the_state_tracker_reads_them() {
    let began = Timestamp::from_timestamp_millis(1_795_478_400_000).unwrap();
    let twice = Delivery {
        duplicated: 1.0,
        ..Delivery::default()
    };
    let mut ecs = Ecs::new(Account {
        delivery: twice,
        ..account()
    });
    let body = serde_json::json!({
        "family": "x", "cpu": "256", "memory": "512",
        "containerDefinitions": [{ "name": "main", "image": "ubuntu:22.04" }],
    });
    ecs.register_task_definition(&body, began).unwrap();
    let (wire, mut events) = Wire::serve(ecs, Scaled::new(began, 1000)).await;
    let task = wire
        .with(|ecs| ecs.run_task(&RunTask::from(&input(1, "x:1")), began))
        .unwrap()
        .tasks
        .remove(0);
    let mut versions = Vec::new();
    while versions.len() < 10 {
        let change = events.recv().await.unwrap();
        let Ok(Input::Task(event)) = Input::read(change.json(), "") else {
            panic!("{}", change.json())
        };
        assert_eq!(*event, change.envelope());
        assert_eq!(
            (event.detail.attempt(), &event.detail.task_arn),
            (Some(attempt(1)), &task.task.task_arn)
        );
        versions.push(event.detail.version);
    }
    assert_eq!(versions, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
}

#[tokio::test]
async fn a_spot_interruption_warns_before_it_ends_the_task() {
    let clock = clock();
    let (wire, mut events, tasks) = on_the_wire(account(), &clock).await;
    let arn = tasks.register_definition(&definition()).await.unwrap();
    let mut stubborn = account().lives.of(7, "any");
    stubborn.on_term = tests::ecs::OnTerm::Ignores;
    stubborn.work = seconds(600);
    wire.with(|ecs| ecs.script(&attempt(1).to_string(), stubborn));
    let task = tasks.run_task(&input(1, &arn)).await.unwrap().task_arn;
    clock.pass(seconds(20));
    let now = domain::ports::Clock::now(&clock);
    assert!(wire.with(|ecs| ecs.strike(task.as_str(), Strike::SpotInterruption, now)));
    clock.pass(seconds(120));
    let mut statuses = Vec::new();
    while statuses.last().is_none_or(|(status, _)| *status != STOPPED) {
        let detail = events.recv().await.unwrap().envelope().detail;
        statuses.push((detail.last_status, detail.stop_code));
    }
    let interrupted = Some(StopCode::SpotInterruption);
    assert!(
        statuses.contains(&(RUNNING.into(), interrupted.clone())),
        "{statuses:?}"
    );
    assert_eq!(statuses.last().unwrap().1, interrupted);
    assert_eq!(wire.with(|ecs| ecs.account().cluster.clone()), CLUSTER);
}
