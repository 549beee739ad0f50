//! Which events reach the state tracker, and which reach users. The tests match the patterns
//! themselves, since no emulator sends ECS's events or evaluates patterns.

use domain::key::Caller;
use domain::{
    Timestamp,
    announcement::{Announcement, DETAIL_TYPE, SOURCE},
    ecs::Task,
    execution::{Execution, ExecutionStatus},
    id::ExecutionId,
    limit::CapacityPool,
    request::{Defaults, SubmitRequest},
    transition::CancelDecision,
};
use serde_json::{Value, json};
use tests::{
    pattern::Pattern,
    template::{Stack, Template},
};

const RUNNING: &str = include_str!("fixtures/running.json");
const STOPPED: &str = include_str!("fixtures/stopped.json");
const SPOT_WARNING: &str = include_str!("fixtures/spot-warning.json");

/// The stack that the fixtures' cluster belongs to.
fn stack() -> Stack {
    Stack::named("default")
}

fn rule_of(name: &str, stack: &Stack) -> Pattern {
    let pattern = Template::read().properties(name, stack)["EventPattern"].clone();
    Pattern::parse(&pattern).unwrap()
}

fn rule() -> Pattern {
    rule_of("TaskRule", &stack())
}

fn event(fixture: &str) -> Value {
    serde_json::from_str(fixture).unwrap()
}

/// The runner tells that a task runs. On an emulator its lines come too late for that.
#[test]
fn each_event_that_says_something_is_taken_by_one_rule() {
    let emulated = stack().with("EndpointUrl", "http://127.0.0.1:4566");
    for (what, fixture, stack, taken) in [
        ("runs", RUNNING, stack(), [false, false]),
        ("runs on an emulator", RUNNING, emulated, [true, false]),
        ("will be interrupted", SPOT_WARNING, stack(), [false, true]),
        ("is over", STOPPED, stack(), [true, false]),
    ] {
        let event = event(fixture);
        let takes = |name| rule_of(name, &stack).matches(&event);
        assert_eq!(
            ["TaskRule", "WarningRule"].map(takes),
            taken,
            "{what}: {event:#}"
        );
        let task: Task = serde_json::from_value(event["detail"].clone()).unwrap();
        assert!(
            task.attempt().is_some(),
            "the state tracker knows whose it is: {task:?}"
        );
    }
}

#[test]
fn the_rule_takes_nothing_else() {
    let changed = |pointer: &str, value: &str| {
        let mut event = event(STOPPED);
        *event.pointer_mut(pointer).unwrap() = value.into();
        event
    };
    let cluster = "/detail/clusterArn";
    for (what, event) in [
        (
            "another cluster",
            changed(
                cluster,
                "arn:aws:ecs:eu-central-1:123456789012:cluster/other",
            ),
        ),
        (
            "a cluster whose name begins alike",
            changed(
                cluster,
                "arn:aws:ecs:eu-central-1:123456789012:cluster/mycli-default-2",
            ),
        ),
        (
            "another region",
            changed(
                cluster,
                "arn:aws:ecs:us-east-1:123456789012:cluster/mycli-default",
            ),
        ),
        ("another source", changed("/source", "mycli")),
        (
            "another kind",
            changed("/detail-type", "ECS Container Instance State Change"),
        ),
        (
            "a state in between",
            changed("/detail/lastStatus", "DEPROVISIONING"),
        ),
        (
            "a task that is being made",
            changed("/detail/lastStatus", "PROVISIONING"),
        ),
        (
            "a task that waits",
            changed("/detail/lastStatus", "PENDING"),
        ),
    ] {
        assert!(!rule().matches(&event), "{what}: {event:#}");
    }
}

fn stream_filter() -> Pattern {
    let source = Template::read().properties("EndSource", &stack());
    let filters = source["FilterCriteria"]["Filters"]
        .as_array()
        .unwrap()
        .clone();
    let [filter] = filters.as_slice() else {
        panic!("one filter: {filters:?}")
    };
    Pattern::parse(&serde_json::from_str(filter["Pattern"].as_str().unwrap()).unwrap()).unwrap()
}

/// A record of the table's stream.
fn record(kind: &str, image: &Value) -> Value {
    json!({
        "eventID": "1", "eventName": kind, "eventSource": "aws:dynamodb",
        "dynamodb": {"Keys": {"pk": {"S": "X#0"}, "sk": {"S": "0"}}, "NewImage": image, "StreamViewType": "NEW_IMAGE"},
    })
}

#[test]
fn the_stream_tells_of_every_final_state_and_of_no_other() {
    for status in ExecutionStatus::ALL {
        for kind in ["INSERT", "MODIFY"] {
            let image = json!({"status": {"S": status.as_str()}, "id": {"S": "exec_0"}});
            assert_eq!(
                stream_filter().matches(&record(kind, &image)),
                status.is_final(),
                "{kind} {status:?}"
            );
        }
    }
}

#[test]
fn the_stream_tells_of_nothing_but_executions_that_are_there() {
    let ended = json!({"status": {"S": "FAILED"}, "id": {"S": "exec_0"}});
    assert!(!stream_filter().matches(&record("REMOVE", &ended)));
    assert!(!stream_filter().matches(&record(
        "MODIFY",
        &json!({"id": {"S": "exec_0"}, "used": {"N": "1"}})
    )));
    assert!(!stream_filter().matches(&record("MODIFY", &json!({"status": {"N": "1"}}))));
}

/// Returns an execution that was cancelled before it was launched.
fn ended() -> Execution {
    let now = Timestamp::from_timestamp_millis(1_764_000_000_000).unwrap();
    let request = SubmitRequest {
        command: Some("true".into()),
        group: Some("nightly".parse().unwrap()),
        ..SubmitRequest::default()
    };
    let request = request.validate(&Defaults::aws()).unwrap();
    let execution = Execution::submitted(
        ExecutionId::new(now, 1),
        request,
        CapacityPool::FargateSpot,
        &Caller::local("ci"),
        now,
    );
    match execution.cancelled(&Caller::local("ci"), now) {
        CancelDecision::Changed(ended) => *ended,
        other => panic!("{other:?}"),
    }
}

/// Returns the published event about an execution, in EventBridge's envelope.
fn published(execution: &Execution) -> Value {
    let detail = serde_json::to_value(Announcement::of(execution).unwrap()).unwrap();
    json!({
        "version": "0", "id": "0", "detail-type": DETAIL_TYPE, "source": SOURCE, "account": "123456789012",
        "time": "2026-11-24T09:00:00Z", "region": "eu-central-1", "resources": [], "detail": detail,
    })
}

/// The patterns are those of the manual, for users' own rules.
#[test]
fn users_rules_see_how_executions_end() {
    let of = |pattern: Value| {
        Pattern::parse(&pattern)
            .unwrap()
            .matches(&published(&ended()))
    };
    assert!(of(
        json!({"source": ["mycli"], "detail-type": ["Execution State Change"]})
    ));
    assert!(of(
        json!({"source": ["mycli"], "detail": {"status": [{"anything-but": "SUCCEEDED"}], "group": ["nightly"]}})
    ));
    assert!(!of(
        json!({"source": ["mycli"], "detail": {"status": ["SUCCEEDED"]}})
    ));
    assert!(
        !rule().matches(&published(&ended())),
        "our own rule does not listen to ourselves"
    );
}

#[test]
fn the_state_tracker_may_publish_exactly_these() {
    let policy = tests::policy::Policy::of_role(&Template::read(), "StateTrackerRole", &stack());
    let entry = |source: &str, kind: &str| {
        let body = json!({"Entries": [{"EventBusName": "default", "Source": source, "DetailType": kind, "Detail": "{}"}]});
        tests::policy::calls_of("AWSEvents.PutEvents", &body, &stack())
    };
    assert!(
        entry(SOURCE, DETAIL_TYPE)
            .iter()
            .all(|call| policy.allows(call))
    );
    assert!(
        !entry("aws.ecs", DETAIL_TYPE)
            .iter()
            .any(|call| policy.allows(call))
    );
    assert!(
        !entry(SOURCE, "Something else")
            .iter()
            .any(|call| policy.allows(call))
    );
}
