//! Tests of the model against its sources: each behaviour once, and the properties that hold
//! whatever is done to it.

use crate::ecs::{RUNNING, STOPPED};
use std::collections::BTreeSet;

use chrono::TimeDelta;
use domain::{Timestamp, ecs::StopCode};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const CLUSTER: &str = "mycli-team";
const DEFINITION: &str = "mycli-team-0011:1";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_timestamp_millis(1_795_478_400_000 + millis).unwrap()
}

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

/// An account with a definition. Its tasks start in 10 s, work for 20 s and exit 0.
fn account(spot_vcpus: u32) -> Account {
    let mut account = Account::new(7, CLUSTER).with_vcpus(Kind::Spot, spot_vcpus);
    account.lives.start_up = seconds(10)..=seconds(10);
    account.lives.work = seconds(20)..=seconds(20);
    account
}

fn open(account: Account) -> Ecs {
    let mut ecs = Ecs::new(account);
    ecs.register_task_definition(&definition("mycli-team-0011"), at(-100_000))
        .unwrap();
    ecs
}

fn ecs(spot_vcpus: u32) -> Ecs {
    open(account(spot_vcpus))
}

fn definition(family: &str) -> Value {
    json!({
        "family": family, "cpu": "256", "memory": "512", "networkMode": "awsvpc",
        "containerDefinitions": [{ "name": "main", "image": "ubuntu:22.04", "stopTimeout": 30 }],
    })
}

fn request(attempt: &str) -> RunTask {
    RunTask {
        cluster: CLUSTER.into(),
        task_definition: DEFINITION.into(),
        client_token: Some(attempt.into()),
        started_by: Some(attempt.into()),
        capacity_provider_strategy: vec![Provider {
            capacity_provider: "FARGATE_SPOT".into(),
        }],
        network_configuration: json!({ "awsvpcConfiguration": { "subnets": ["subnet-a"] } }),
        ..RunTask::default()
    }
}

/// A request for this many CPU units.
fn of_cpu(attempt: &str, cpu: u32) -> RunTask {
    let memory = if cpu == 256 { 512 } else { cpu * 2 };
    RunTask {
        overrides: json!({ "cpu": cpu.to_string(), "memory": memory.to_string() }),
        ..request(attempt)
    }
}

fn started(ecs: &mut Ecs, attempt: &str, millis: i64) -> String {
    ecs.run_task(&request(attempt), at(millis)).unwrap().tasks[0]
        .task
        .task_arn
        .to_string()
}

fn described(ecs: &mut Ecs, arn: &str, millis: i64) -> Task {
    let answer = ecs
        .describe_tasks(CLUSTER, &[arn.into()], at(millis))
        .unwrap();
    answer
        .tasks
        .first()
        .unwrap_or_else(|| panic!("{arn} is not described: {:?}", answer.failures))
        .task
        .clone()
}

fn exit_code(task: &Task) -> Option<i32> {
    task.container().and_then(|container| container.exit_code)
}

/// How many of 300 calls at the same moment are not throttled.
fn granted(
    ecs: &mut Ecs,
    millis: i64,
    call: impl Fn(&mut Ecs, Timestamp) -> Result<(), Refusal>,
) -> usize {
    (0..300).filter(|_| !matches!(call(ecs, at(millis)), Err(refusal) if refusal.code == "ThrottlingException")).count()
}

#[test]
fn run_task_is_called_twenty_times_a_second_at_most() {
    let mut ecs = ecs(250);
    let call = |ecs: &mut Ecs, now| {
        ecs.run_task(
            &RunTask {
                client_token: None,
                ..request("a")
            },
            now,
        )
        .map(|_| ())
    };
    assert_eq!(granted(&mut ecs, 0, call), 20);
    assert_eq!(granted(&mut ecs, 49, call), 0);
    assert_eq!(granted(&mut ecs, 50, call), 1);
    assert!(ecs.counts().refused(Operation::RunTask, Why::RunTaskRate) > 0);
}

#[test]
fn a_hundred_tasks_of_a_kind_are_launched_at_once_and_twenty_a_second_after_that() {
    let mut ecs = ecs(1000);
    let ten = RunTask {
        count: 10,
        client_token: None,
        ..request("a")
    };
    let on_demand = RunTask {
        capacity_provider_strategy: Vec::new(),
        launch_type: Some("FARGATE".into()),
        ..ten.clone()
    };
    for _ in 0..10 {
        ecs.run_task(&ten, at(0)).unwrap();
    }
    assert_eq!(
        ecs.run_task(&ten, at(0)).unwrap_err().code,
        "ThrottlingException"
    );
    assert_eq!(
        ecs.counts()
            .refused(Operation::RunTask, Why::LaunchRate(Kind::Spot)),
        1
    );
    ecs.set_quota(Kind::OnDemand, VcpuQuota::applied(100), at(0));
    ecs.run_task(&on_demand, at(0)).unwrap();
    assert_eq!(
        ecs.run_task(&ten, at(499)).unwrap_err().code,
        "ThrottlingException"
    );
    ecs.run_task(&ten, at(500)).unwrap();
    assert_eq!(ecs.counts().launched(), 120);
}

#[test]
fn operations_share_the_published_buckets() {
    let mut one = ecs(250);
    let stop = |ecs: &mut Ecs, now| ecs.stop_task(CLUSTER, "none", None, now).map(|_| ());
    one.run_task(&request("a"), at(0)).unwrap();
    assert_eq!(granted(&mut one, 0, stop), 99, "RunTask and StopTask: 100");
    assert_eq!(
        one.run_task(&request("b"), at(0)).unwrap_err(),
        Refusal::throttled()
    );
    assert_eq!(granted(&mut one, 1000, stop), 40);

    let mut two = ecs(250);
    let list = ListTasks {
        cluster: CLUSTER.into(),
        ..ListTasks::default()
    };
    two.list_tasks(&list, at(0)).unwrap();
    let describe = |ecs: &mut Ecs, now| ecs.describe_tasks(CLUSTER, &["x".into()], now).map(|_| ());
    assert_eq!(
        granted(&mut two, 0, describe),
        99,
        "DescribeTasks and ListTasks: 100"
    );
    assert_eq!(granted(&mut two, 1000, describe), 20);

    let mut three = ecs(250);
    let register = |ecs: &mut Ecs, now| {
        ecs.register_task_definition(&definition("x"), now)
            .map(|_| ())
    };
    three.deregister_task_definition(DEFINITION, at(0)).unwrap();
    assert_eq!(
        granted(&mut three, 0, register),
        19,
        "RegisterTaskDefinition and DeregisterTaskDefinition: 20"
    );
    assert_eq!(granted(&mut three, 999, register), 0);
    assert_eq!(granted(&mut three, 1000, register), 1);
    let look = |ecs: &mut Ecs, now| ecs.describe_task_definition("x", now).map(|_| ());
    assert_eq!(
        granted(&mut three, 1000, look),
        50,
        "DescribeTaskDefinition: 50"
    );
}

#[test]
fn vcpus_in_use_are_a_failure_in_a_200_and_free_again_when_a_task_stops() {
    let mut ecs = ecs(1);
    for attempt in ["a", "b", "c", "d"] {
        started(&mut ecs, attempt, 0);
    }
    let answer = ecs.run_task(&request("e"), at(0)).unwrap();
    assert!(answer.tasks.is_empty());
    assert_eq!(
        answer.failures[0].reason,
        "You've reached the limit on the number of vCPUs you can run concurrently"
    );
    assert_eq!(
        ecs.run_task(&request("f"), at(29_999)).unwrap().tasks.len(),
        0
    );
    assert_eq!(
        ecs.run_task(&request("g"), at(30_000)).unwrap().tasks.len(),
        1
    );
    assert_eq!(ecs.counts().peak[&Kind::Spot], VCPU);
}

#[test]
fn a_call_for_several_starts_what_there_is_room_for() {
    let mut ecs = ecs(1);
    let answer = ecs
        .run_task(
            &RunTask {
                count: 6,
                ..request("a")
            },
            at(0),
        )
        .unwrap();
    assert_eq!((answer.tasks.len(), answer.failures.len()), (4, 2));
}

#[test]
fn each_kind_has_its_own_vcpus() {
    let mut ecs = ecs(1);
    ecs.run_task(&of_cpu("a", 1024), at(0)).unwrap();
    let on_demand = vec![Provider {
        capacity_provider: "FARGATE".into(),
    }];
    let other = RunTask {
        capacity_provider_strategy: on_demand,
        ..of_cpu("b", 1024)
    };
    assert_eq!(ecs.run_task(&other, at(0)).unwrap().tasks.len(), 1);
    assert_eq!(
        (ecs.in_use(Kind::Spot), ecs.in_use(Kind::OnDemand)),
        (1024, 1024)
    );
}

#[test]
fn foreign_tasks_take_what_becomes_free_and_give_it_back() {
    let mut account = account(1);
    account.foreign = vec![Foreign {
        kind: Kind::Spot,
        from: at(1_000),
        until: at(60_000),
        cpu: 512,
    }];
    let mut ecs = open(account);
    for attempt in ["a", "b", "c"] {
        started(&mut ecs, attempt, 0);
    }
    assert!(
        ecs.run_task(&request("d"), at(2_000))
            .unwrap()
            .tasks
            .is_empty(),
        "the fourth slot is theirs by now"
    );
    assert_eq!(ecs.in_foreign_use(Kind::Spot), 256);
    assert_eq!(
        ecs.run_task(
            &RunTask {
                count: 3,
                ..request("e")
            },
            at(30_000)
        )
        .unwrap()
        .tasks
        .len(),
        2
    );
    assert_eq!(ecs.in_foreign_use(Kind::Spot), 512);
    assert_eq!(
        ecs.run_task(
            &RunTask {
                count: 4,
                ..request("f")
            },
            at(60_000)
        )
        .unwrap()
        .tasks
        .len(),
        4
    );
    assert_eq!(ecs.in_foreign_use(Kind::Spot), 0);
}

#[test]
fn an_outage_of_spot_is_a_failure_in_a_200_too() {
    let mut ecs = ecs(250);
    ecs.add_outage(Outage {
        kind: Kind::Spot,
        from: at(0),
        until: at(5_000),
    });
    let answer = ecs.run_task(&request("a"), at(4_999)).unwrap();
    assert!(
        answer.failures[0]
            .reason
            .starts_with("Capacity is unavailable at this time")
    );
    assert_eq!(
        ecs.run_task(&request("b"), at(5_000)).unwrap().tasks.len(),
        1
    );
}

#[test]
fn a_token_repeated_is_the_original_answer_and_no_second_task() {
    let mut ecs = ecs(250);
    let arn = started(&mut ecs, "a", 0);
    let again = ecs.run_task(&request("a"), at(15_000)).unwrap();
    assert_eq!(
        (again.tasks.len(), again.tasks[0].task.task_arn.as_str()),
        (1, arn.as_str())
    );
    assert_eq!((ecs.tasks().count(), ecs.counts().repeated), (1, 1));
}

#[test]
fn a_refusals_token_repeats_the_refusal_when_there_is_room_again() {
    let mut ecs = ecs(1);
    ecs.run_task(&of_cpu("a", 1024), at(0)).unwrap();
    assert_eq!(
        ecs.run_task(&request("b"), at(1_000))
            .unwrap()
            .failures
            .len(),
        1
    );
    let again = ecs.run_task(&request("b"), at(60_000)).unwrap();
    assert_eq!((again.tasks.len(), again.failures.len()), (0, 1));
    assert_eq!(
        ecs.run_task(
            &RunTask {
                client_token: Some("b-1".into()),
                ..request("b")
            },
            at(60_000)
        )
        .unwrap()
        .tasks
        .len(),
        1
    );
}

#[test]
fn a_token_with_other_parameters_is_a_conflict_that_names_the_task() {
    let mut ecs = ecs(250);
    let arn = started(&mut ecs, "a", 0);
    let conflict = ecs
        .run_task(
            &RunTask {
                client_token: Some("a".into()),
                ..of_cpu("a", 512)
            },
            at(1_000),
        )
        .unwrap_err();
    assert_eq!(
        (conflict.code, conflict.resource_ids),
        ("ConflictException", vec![arn])
    );
}

#[test]
fn a_token_lives_an_hour_longer_than_its_task() {
    let mut ecs = ecs(250);
    started(&mut ecs, "a", 0);
    let hour = 3_600_000;
    ecs.run_task(&request("a"), at(30_000 + hour - 1)).unwrap();
    assert_eq!(ecs.tasks().count(), 1);
    ecs.run_task(&request("a"), at(30_000 + hour)).unwrap();
    assert_eq!(ecs.tasks().count(), 2);
    assert_eq!(ecs.counts().doubled["a"].len(), 2, "a doubled run is found");
}

#[test]
fn a_token_lives_a_day_at_most() {
    let mut ecs = ecs(250);
    ecs.script(
        "a",
        Life::new(seconds(10), TimeDelta::hours(48), End::Exit(0)),
    );
    started(&mut ecs, "a", 0);
    let day = 24 * 3_600_000;
    ecs.run_task(&request("a"), at(day - 1)).unwrap();
    assert_eq!(ecs.tasks().count(), 1);
    ecs.run_task(&request("a"), at(day)).unwrap();
    assert_eq!(ecs.tasks().count(), 2);
}

#[test]
fn a_throttled_call_does_not_use_up_its_token() {
    let mut ecs = ecs(250);
    let empty = RunTask {
        client_token: None,
        ..request("z")
    };
    while ecs.run_task(&empty, at(0)).is_ok() {}
    assert_eq!(
        ecs.run_task(&request("a"), at(0)).unwrap_err(),
        Refusal::throttled()
    );
    assert_eq!(
        ecs.run_task(&request("a"), at(1_000)).unwrap().tasks.len(),
        1
    );
}

#[test]
fn an_answer_that_is_lost_leaves_a_task_that_its_token_finds() {
    let mut ecs = ecs(250);
    ecs.lose_answers(1);
    assert_eq!(ecs.run_task(&request("a"), at(0)).unwrap_err().status, 500);
    assert_eq!(
        ecs.run_task(&request("a"), at(1_000)).unwrap().tasks.len(),
        1
    );
    assert_eq!(ecs.tasks().count(), 1);
}

#[test]
fn a_task_goes_through_its_life_with_a_version_a_step() {
    let mut ecs = ecs(250);
    let arn = started(&mut ecs, "a", 0);
    let seen = [0, 2_500, 10_000, 30_000].map(|millis| {
        let task = described(&mut ecs, &arn, millis);
        (task.last_status.to_string(), task.version, exit_code(&task))
    });
    let step = |status: &str, version, code| (status.to_owned(), version, code);
    let (running, stopped) = (step(RUNNING, 3, None), step(STOPPED, 5, Some(0)));
    assert_eq!(
        seen,
        [
            step("PROVISIONING", 1, None),
            step("PENDING", 2, None),
            running,
            stopped
        ]
    );
    let task = described(&mut ecs, &arn, 30_000);
    assert_eq!(
        (task.stop_code, task.started_at),
        (Some(StopCode::EssentialContainerExited), Some(at(10_000)))
    );
    assert_eq!(
        (task.execution_stopped_at, task.stopped_at),
        (Some(at(30_000)), Some(at(30_000)))
    );
}

#[test]
fn lives_are_drawn_by_seed_and_attempt_not_by_order() {
    let lives = Lives::default();
    assert_eq!(lives.of(1, "a"), lives.of(1, "a"));
    assert_ne!(lives.of(1, "a"), lives.of(1, "b"));
    assert_ne!(lives.of(1, "a"), lives.of(2, "a"));
    for attempt in 0..200 {
        let life = lives.of(1, &attempt.to_string());
        assert!(
            (seconds(20)..=seconds(60)).contains(&life.start_up)
                && (seconds(5)..=seconds(90)).contains(&life.work)
        );
    }
}

#[test]
fn what_never_starts_has_no_exit_code() {
    let mut ecs = ecs(250);
    ecs.script(
        "a",
        Life::new(
            seconds(10),
            seconds(20),
            End::NeverStarts(PULL_TIMED_OUT.into()),
        ),
    );
    let arn = started(&mut ecs, "a", 0);
    let task = described(&mut ecs, &arn, 10_000);
    assert_eq!(
        (&task.stop_code, exit_code(&task)),
        (&Some(StopCode::TaskFailedToStart), None)
    );
    assert_eq!(
        (task.stopped_reason.as_deref(), task.started_at),
        (Some(PULL_TIMED_OUT), None)
    );
    assert_eq!(ecs.in_use(Kind::Spot), 0);
}

#[test]
fn out_of_memory_is_the_containers_reason() {
    let mut ecs = ecs(250);
    ecs.script("a", Life::new(seconds(10), seconds(20), End::OutOfMemory));
    let (arn, on_demand) = (started(&mut ecs, "a", 0), started(&mut ecs, "b", 0));
    assert!(ecs.strike(&on_demand, Strike::OutOfMemory, at(11_000)));
    for task in [
        described(&mut ecs, &arn, 30_000),
        described(&mut ecs, &on_demand, 30_000),
    ] {
        assert_eq!(
            (&task.stop_code, exit_code(&task)),
            (&Some(StopCode::EssentialContainerExited), Some(137))
        );
        assert!(
            task.container()
                .unwrap()
                .reason
                .as_deref()
                .unwrap()
                .starts_with("OutOfMemoryError")
        );
    }
}

#[test]
fn a_host_that_fails_leaves_no_exit_code() {
    let mut ecs = ecs(250);
    let arn = started(&mut ecs, "a", 0);
    ecs.strike(&arn, Strike::HostFailure, at(15_000));
    let task = described(&mut ecs, &arn, 15_000);
    assert_eq!(
        (task.stop_code.clone(), exit_code(&task)),
        (Some(StopCode::InfrastructureHealth), None)
    );
}

#[test]
fn a_spot_interruption_warns_first_and_kills_what_ignores_it() {
    let mut ecs = ecs(250);
    let mut stubborn = Life::new(seconds(10), seconds(600), End::Exit(0));
    stubborn.on_term = OnTerm::Ignores;
    ecs.script("a", stubborn);
    let arn = started(&mut ecs, "a", 0);
    ecs.strike(&arn, Strike::SpotInterruption, at(20_000));
    let warned = described(&mut ecs, &arn, 49_999);
    assert_eq!(
        (warned.last_status.as_str(), warned.desired_status.as_str()),
        (RUNNING, STOPPED)
    );
    assert_eq!(warned.stop_code, Some(StopCode::SpotInterruption));
    let killed = described(&mut ecs, &arn, 50_000);
    assert_eq!(
        (killed.last_status.as_str(), exit_code(&killed)),
        (STOPPED, Some(137))
    );
    let events = ecs.take_events(at(50_000));
    let warning = events
        .iter()
        .find(|(came, _)| *came == at(20_000))
        .map(|(_, change)| &change.shown.task);
    assert_eq!(
        warning.map(|task| (task.last_status.as_str(), task.version)),
        Some((RUNNING, 4))
    );
}

#[test]
fn a_stopped_task_ends_by_term_or_by_kill_after_the_grace() {
    let mut ecs = ecs(250);
    let end = |on_term| Life {
        on_term,
        ..Life::new(seconds(10), seconds(600), End::Exit(0))
    };
    ecs.script("polite", end(OnTerm::Exits(seconds(3), 143)));
    ecs.script("deaf", end(OnTerm::Ignores));
    let (polite, deaf) = (started(&mut ecs, "polite", 0), started(&mut ecs, "deaf", 0));
    for (reason, millis) in [("cancelled by ann", 20_000), ("again", 21_000)] {
        for arn in [&polite, &deaf] {
            ecs.stop_task(CLUSTER, arn, Some(reason), at(millis))
                .unwrap();
        }
    }
    for (arn, millis, code) in [(&polite, 23_000, 143), (&deaf, 50_000, 137)] {
        assert_eq!(described(&mut ecs, arn, millis - 1).last_status, RUNNING);
        let task = described(&mut ecs, arn, millis);
        assert_eq!(
            (task.last_status.as_str(), exit_code(&task)),
            (STOPPED, Some(code))
        );
        assert_eq!(
            (task.stop_code, task.stopped_reason.as_deref()),
            (Some(StopCode::UserInitiated), Some("cancelled by ann"))
        );
    }
}

#[test]
fn a_task_that_ends_by_itself_in_its_grace_keeps_its_own_code() {
    let mut ecs = ecs(250);
    let life = Life::new(seconds(10), seconds(20), End::Exit(5));
    ecs.script(
        "a",
        Life {
            on_term: OnTerm::Ignores,
            ..life
        },
    );
    let arn = started(&mut ecs, "a", 0);
    ecs.stop_task(CLUSTER, &arn, None, at(29_000)).unwrap();
    let task = described(&mut ecs, &arn, 30_000);
    assert_eq!(
        (task.stop_code.clone(), exit_code(&task)),
        (Some(StopCode::UserInitiated), Some(5))
    );
}

#[test]
fn a_task_stopped_before_it_runs_never_runs() {
    let mut ecs = ecs(250);
    let arn = started(&mut ecs, "a", 0);
    ecs.stop_task(CLUSTER, &arn, None, at(5_000)).unwrap();
    let task = described(&mut ecs, &arn, 60_000);
    assert_eq!(
        (task.started_at, task.stopped_at, exit_code(&task)),
        (None, Some(at(5_000)), None)
    );
}

#[test]
fn a_stopped_task_is_described_for_an_hour_and_missing_after_that() {
    let mut ecs = ecs(250);
    let arn = started(&mut ecs, "a", 0);
    described(&mut ecs, &arn, 30_000 + 3_599_999);
    let answer = ecs
        .describe_tasks(
            CLUSTER,
            &[arn.clone(), "unheard-of".into()],
            at(30_000 + 3_600_000),
        )
        .unwrap();
    assert!(
        answer.tasks.is_empty()
            && answer
                .failures
                .iter()
                .all(|failure| failure.reason == "MISSING")
    );
    assert_eq!(answer.failures[0].arn, Some(arn.clone()));
    assert_eq!(
        ecs.stop_task(CLUSTER, &arn, None, at(3_700_000))
            .unwrap_err()
            .message,
        "The referenced task was not found."
    );
}

#[test]
fn a_hundred_tasks_are_described_in_a_call_and_no_more() {
    let mut ecs = ecs(250);
    let names = |count: usize| vec!["x".to_owned(); count];
    assert_eq!(
        ecs.describe_tasks(CLUSTER, &names(100), at(0))
            .unwrap()
            .failures
            .len(),
        100
    );
    assert_eq!(
        ecs.describe_tasks(CLUSTER, &names(101), at(0))
            .unwrap_err()
            .code,
        "InvalidParameterException"
    );
}

#[test]
fn a_task_just_started_is_not_seen_yet_but_its_token_is_known() {
    let mut account = account(250);
    account.seen_after = seconds(3)..=seconds(3);
    let mut ecs = open(account);
    let arn = started(&mut ecs, "a", 0);
    let list = ListTasks {
        cluster: CLUSTER.into(),
        started_by: Some("a".into()),
        ..ListTasks::default()
    };
    assert!(
        ecs.list_tasks(&list, at(2_999))
            .unwrap()
            .task_arns
            .is_empty()
    );
    assert_eq!(
        ecs.describe_tasks(CLUSTER, std::slice::from_ref(&arn), at(2_999))
            .unwrap()
            .failures
            .len(),
        1
    );
    assert_eq!(
        ecs.run_task(&request("a"), at(2_999)).unwrap().tasks[0]
            .task
            .task_arn
            .as_str(),
        arn
    );
    assert_eq!(ecs.list_tasks(&list, at(3_000)).unwrap().task_arns, [arn]);
}

#[test]
fn a_list_shows_what_should_run_unless_stopped_ones_are_asked_for() {
    let mut ecs = ecs(250);
    let (over, runs) = (
        started(&mut ecs, "a", 0),
        started(&mut ecs, "a-later", 20_000),
    );
    let list = ListTasks {
        cluster: CLUSTER.into(),
        ..ListTasks::default()
    };
    assert_eq!(ecs.list_tasks(&list, at(30_000)).unwrap().task_arns, [runs]);
    let stopped = ListTasks {
        desired_status: Some(STOPPED.into()),
        ..list
    };
    assert_eq!(
        ecs.list_tasks(&stopped, at(30_000)).unwrap().task_arns,
        [over]
    );
}

#[test]
fn started_by_is_the_only_filter_of_a_list() {
    let mut ecs = ecs(250);
    let both = ListTasks {
        cluster: CLUSTER.into(),
        started_by: Some("a".into()),
        family: Some("mycli-team-0011".into()),
        ..ListTasks::default()
    };
    assert_eq!(
        ecs.list_tasks(&both, at(0)).unwrap_err().code,
        "InvalidParameterException"
    );
}

#[test]
fn a_list_comes_in_pages_each_task_once() {
    let mut ecs = ecs(250);
    let ten = RunTask {
        count: 10,
        client_token: None,
        ..request("a")
    };
    (0..10).for_each(|_| drop(ecs.run_task(&ten, at(0)).unwrap()));
    let mut list = ListTasks {
        cluster: CLUSTER.into(),
        max_results: Some(30),
        ..ListTasks::default()
    };
    let (mut seen, mut pages) = (BTreeSet::new(), Vec::new());
    loop {
        let page = ecs.list_tasks(&list, at(0)).unwrap();
        pages.push(page.task_arns.len());
        seen.extend(page.task_arns.iter().cloned());
        list.next_token = page.next_token();
        if list.next_token.is_none() {
            break;
        }
    }
    assert_eq!((pages, seen.len()), (vec![30, 30, 30, 10], 100));
    list.next_token = Some("nonsense".into());
    assert_eq!(
        ecs.list_tasks(&list, at(0)).unwrap_err().code,
        "InvalidParameterException"
    );
}

#[test]
fn overrides_have_room_for_8192_characters() {
    let mut ecs = ecs(250);
    let empty = json!({ "containerOverrides": [{ "name": "" }] })
        .to_string()
        .len();
    let name =
        |length: usize| json!({ "containerOverrides": [{ "name": "é".repeat(length - empty) }] });
    ecs.run_task(
        &RunTask {
            overrides: name(8192),
            ..request("a")
        },
        at(0),
    )
    .unwrap();
    let refused = ecs
        .run_task(
            &RunTask {
                overrides: name(8193),
                ..request("b")
            },
            at(0),
        )
        .unwrap_err();
    assert_eq!(
        refused.message,
        "Container Overrides length must be at most 8192"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let mut ecs = ecs(250);
    let provider = request("x").capacity_provider_strategy;
    let launch_type = Some("FARGATE".to_owned());
    for (request, code) in [
        (
            RunTask {
                cluster: "other".into(),
                ..request("a")
            },
            "ClusterNotFoundException",
        ),
        (
            RunTask {
                count: 11,
                ..request("a")
            },
            "InvalidParameterException",
        ),
        (
            RunTask {
                started_by: Some("a b".into()),
                ..request("a")
            },
            "InvalidParameterException",
        ),
        (
            RunTask {
                client_token: Some("a".repeat(65)),
                ..request("a")
            },
            "InvalidParameterException",
        ),
        (
            RunTask {
                capacity_provider_strategy: provider,
                launch_type,
                ..request("a")
            },
            "InvalidParameterException",
        ),
        (
            RunTask {
                network_configuration: Value::Null,
                ..request("a")
            },
            "InvalidParameterException",
        ),
        (
            RunTask {
                overrides: json!({ "cpu": "300" }),
                ..request("a")
            },
            "ClientException",
        ),
        (
            RunTask {
                task_definition: "unheard-of:1".into(),
                ..request("a")
            },
            "ClientException",
        ),
    ] {
        assert_eq!(
            ecs.run_task(&request, at(0))
                .err()
                .map(|refusal| refusal.code),
            Some(code)
        );
    }
    assert_eq!(ecs.tasks().count(), 0);
    assert_eq!(ecs.counts().refused(Operation::RunTask, Why::Invalid), 8);
}

#[test]
fn an_inactive_definition_starts_nothing_and_its_tasks_run_on() {
    let mut ecs = ecs(250);
    let arn = started(&mut ecs, "a", 0);
    ecs.deregister_task_definition(DEFINITION, at(1_000))
        .unwrap();
    assert_eq!(
        ecs.run_task(&request("b"), at(1_000)).unwrap_err().message,
        "TaskDefinition is inactive"
    );
    assert_eq!(
        ecs.describe_task_definition(DEFINITION, at(1_000)).unwrap()["status"],
        "INACTIVE"
    );
    assert_eq!(exit_code(&described(&mut ecs, &arn, 30_000)), Some(0));
}

#[test]
fn a_family_is_its_latest_active_revision() {
    let mut ecs = ecs(250);
    let second = ecs
        .register_task_definition(&definition("mycli-team-0011"), at(0))
        .unwrap();
    assert_eq!(
        (&second["revision"], &second["status"]),
        (&json!(2), &json!("ACTIVE"))
    );
    assert_eq!(
        ecs.describe_task_definition("mycli-team-0011", at(0))
            .unwrap()["revision"],
        2
    );
    ecs.deregister_task_definition("mycli-team-0011:2", at(0))
        .unwrap();
    assert_eq!(
        ecs.describe_task_definition("mycli-team-0011", at(0))
            .unwrap()["revision"],
        1
    );
    let misfit = json!({ "family": "x", "cpu": "256", "memory": "4096", "containerDefinitions": [{ "name": "main", "image": "x" }] });
    assert_eq!(
        ecs.register_task_definition(&misfit, at(0))
            .unwrap_err()
            .message,
        "No Fargate configuration exists for given values."
    );
}

#[test]
fn a_quota_is_the_accounts_own_or_awss_default() {
    let mut ecs = ecs(250);
    assert_eq!(
        ecs.get_service_quota("fargate", "L-36FBB829", at(0))
            .unwrap()["Value"],
        250.0
    );
    assert_eq!(
        ecs.get_service_quota("fargate", "L-3032A538", at(0))
            .unwrap_err()
            .code,
        "NoSuchResourceException"
    );
    assert_eq!(
        ecs.get_aws_default_service_quota("fargate", "L-3032A538", at(0))
            .unwrap()["Value"],
        6.0
    );
    assert!(ecs.get_service_quota("ec2", "L-36FBB829", at(0)).is_err());
}

#[test]
fn an_event_comes_for_each_change_and_says_what_ecs_says() {
    let mut ecs = ecs(250);
    let arn = started(&mut ecs, "a", 0);
    assert_eq!(ecs.next_event_at(), Some(at(0)));
    assert_eq!(ecs.take_events(at(0)).len(), 1);
    assert_eq!(ecs.next_event_at(), Some(at(2_500)));
    let events = ecs.take_events(at(60_000));
    let last = &events.last().unwrap().1;
    assert_eq!((events.len(), ecs.next_event_at()), (4, None));
    let envelope: aws_lambda_events::eventbridge::EventBridgeEvent<Task> =
        serde_json::from_value(last.json()).unwrap();
    assert_eq!(
        (envelope.detail.clone(), envelope.time),
        (last.shown.task.clone(), Some(at(30_000)))
    );
    assert_eq!(envelope, last.envelope());
    let of_describe: Task = serde_json::from_value(last.shown.described()).unwrap();
    assert_eq!(
        (of_describe.task_arn.clone(), of_describe),
        (arn.into(), envelope.detail)
    );
}

#[test]
fn events_are_duplicated_reordered_delayed_and_dropped_as_the_account_has_it() {
    let versions = |delivery: Delivery| {
        let mut ecs = open(Account {
            delivery,
            ..account(250)
        });
        started(&mut ecs, "a", 0);
        let events = ecs.take_events(at(3_600_000)).into_iter();
        events
            .map(|(came, change)| (change.shown.task.version, (came - change.at).num_seconds()))
            .collect::<Vec<_>>()
    };
    let zero = || Delivery::default();
    assert_eq!(
        versions(Delivery {
            duplicated: 1.0,
            ..zero()
        })
        .len(),
        10
    );
    assert_eq!(
        versions(Delivery {
            dropped: 1.0,
            ..zero()
        })
        .len(),
        0
    );
    let order: Vec<_> = versions(Delivery {
        reordered: 1.0,
        ..zero()
    })
    .into_iter()
    .map(|(version, _)| version)
    .collect();
    assert_eq!(order, [2, 1, 4, 3, 5]);
    let delayed = versions(Delivery {
        delay: seconds(2)..=seconds(2),
        ..zero()
    });
    assert!(delayed.iter().all(|(_, delay)| *delay == 2));
    let late = versions(Delivery {
        late: (1.0, seconds(90)..=seconds(90)),
        ..zero()
    });
    assert!(late.iter().all(|(_, delay)| *delay == 90));
}

/// An action on an account.
#[derive(Clone, Debug)]
enum Deed {
    Run {
        attempt: usize,
        cpu: usize,
        count: u32,
    },
    Stop {
        task: usize,
    },
    Strike {
        task: usize,
        how: usize,
    },
    Look,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..12_usize, 0..3_usize, 1..4_u32).prop_map(|(attempt, cpu, count)| Deed::Run { attempt, cpu, count }),
        1 => (0..20_usize).prop_map(|task| Deed::Stop { task }),
        1 => (0..20_usize, 0..3_usize).prop_map(|(task, how)| Deed::Strike { task, how }),
        1 => Just(Deed::Look),
    ]
}

fn harsh(seed: u64) -> Account {
    let mut account = Account { seed, ..account(2) };
    let ends = [
        End::Exit(3),
        End::NoExitCode,
        End::OutOfMemory,
        End::NeverStarts(PULL_TIMED_OUT.into()),
        End::Interrupted,
        End::HostFails,
    ];
    account.lives = Lives {
        wind_down: seconds(0)..=seconds(20),
        ends: ends.map(|end| (0.2, end)).into(),
        ..Lives::default()
    };
    account.answers = Answers {
        lost: 0.1,
        failed: 0.1,
    };
    account.seen_after = seconds(0)..=seconds(5);
    let delay = seconds(0)..=seconds(10);
    account.delivery = Delivery {
        late: (0.1, seconds(30)..=seconds(300)),
        delay,
        duplicated: 0.2,
        reordered: 0.2,
        dropped: 0.1,
    };
    account.foreign = vec![Foreign {
        kind: Kind::Spot,
        from: at(20_000),
        until: at(90_000),
        cpu: 1024,
    }];
    account
}

/// Does all the actions, each after its pause, and delivers every event at the end.
fn live(account: Account, deeds: &[(i64, Deed)]) -> (Ecs, Vec<(Timestamp, Change)>) {
    let mut ecs = open(account);
    let (mut millis, mut events) = (0, Vec::new());
    for (pause, deed) in deeds {
        millis += pause;
        let now = at(millis);
        let arn = |ecs: &Ecs, task: usize| {
            ecs.tasks()
                .nth(task)
                .map(|shown| shown.task.task_arn.clone())
        };
        match *deed {
            Deed::Run {
                attempt,
                cpu,
                count,
            } => {
                let request = RunTask {
                    count,
                    ..of_cpu(&format!("a{attempt}"), [256, 512, 1024][cpu])
                };
                let _answer = ecs.run_task(&request, now);
            }
            Deed::Stop { task } => {
                drop(arn(&ecs, task).map(|arn| ecs.stop_task(CLUSTER, arn.as_str(), None, now)));
            }
            Deed::Strike { task, how } => {
                let strike = [
                    Strike::SpotInterruption,
                    Strike::HostFailure,
                    Strike::OutOfMemory,
                ][how];
                arn(&ecs, task).map(|arn| ecs.strike(arn.as_str(), strike, now));
            }
            Deed::Look => events.extend(ecs.take_events(now)),
        }
    }
    events.extend(ecs.take_events(at(millis + 86_400_000)));
    (ecs, events)
}

proptest! {
    #[test]
    fn never_is_more_in_use_than_the_quota(seed in any::<u64>(), deeds in prop::collection::vec((0_i64..20_000, deed()), 1..80)) {
        let (ecs, _) = live(harsh(seed), &deeds);
        prop_assert!(ecs.counts().peak.get(&Kind::Spot).is_none_or(|peak| *peak <= 2 * VCPU));
        prop_assert_eq!(ecs.in_use(Kind::Spot), 0, "and in the end nothing is");
    }

    #[test]
    fn a_token_starts_its_tasks_once(seed in any::<u64>(), deeds in prop::collection::vec((0_i64..5_000, deed()), 1..80)) {
        let (ecs, _) = live(harsh(seed), &deeds);
        let mut counts = BTreeMap::<&str, BTreeSet<Timestamp>>::new();
        for shown in ecs.tasks() {
            let started_by = shown.task.started_by.as_deref().unwrap();
            counts.entry(started_by).or_default().insert(shown.task.created_at.unwrap());
        }
        prop_assert!(counts.values().all(|moments| moments.len() == 1), "{:?}", counts);
    }

    #[test]
    fn every_task_ends_in_one_stopped_version_which_is_its_last(
        seed in any::<u64>(),
        deeds in prop::collection::vec((0_i64..20_000, deed()), 1..80),
    ) {
        let mut account = harsh(seed);
        account.delivery.dropped = 0.0;
        let (ecs, events) = live(account, &deeds);
        let mut versions = BTreeMap::<String, BTreeMap<i64, String>>::new();
        for (came, change) in events {
            prop_assert!(came >= change.at);
            let task = &change.shown.task;
            let known = versions.entry(task.task_arn.to_string()).or_default().insert(task.version, task.last_status.to_string());
            prop_assert!(known.is_none_or(|known| task.last_status == known.as_str()), "a version is always the same");
        }
        prop_assert_eq!(versions.len(), ecs.tasks().count());
        for seen in versions.values() {
            prop_assert!(seen.keys().copied().eq(1..=i64::try_from(seen.len()).unwrap()), "no version is missing");
            prop_assert_eq!(seen.values().filter(|status| *status == STOPPED).count(), 1);
            prop_assert_eq!(seen.last_key_value().unwrap().1, STOPPED);
        }
    }

    #[test]
    fn the_same_seed_and_deeds_are_the_same_story(seed in any::<u64>(), deeds in prop::collection::vec((0_i64..20_000, deed()), 1..40)) {
        let story = || {
            let (ecs, events) = live(harsh(seed), &deeds);
            let events: Vec<_> = events.into_iter().map(|(came, change)| (came, change.json())).collect();
            (ecs.counts().clone(), events)
        };
        prop_assert_eq!(story(), story());
    }

    /// Over any span a bucket grants no more than its burst plus the tokens that came back in that
    /// span.
    #[test]
    fn a_bucket_never_grants_more_than_its_rate(
        burst in 1_u32..120,
        per_second in 1_u32..50,
        steps in prop::collection::vec((0_i64..2_000, 0_u32..12), 1..120),
    ) {
        let mut bucket = TokenBucket::new(Shape { burst, per_second });
        let mut granted: Vec<(i64, u32)> = Vec::new();
        let mut millis = 0;
        for (pause, want) in steps {
            millis += pause;
            if bucket.take(want, at(millis)) {
                granted.push((millis, want));
            }
        }
        for (index, (from, _)) in granted.iter().enumerate() {
            let mut sum = 0;
            for (until, tokens) in &granted[index..] {
                sum += i64::from(*tokens);
                prop_assert!(sum * 1000 <= i64::from(burst) * 1000 + (until - from) * i64::from(per_second));
            }
        }
    }
}
