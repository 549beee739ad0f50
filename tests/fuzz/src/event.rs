//! Events that ECS, the log subscription and the table's stream send to the state tracker.

use chrono::{DateTime, TimeDelta};
use domain::key::Caller;
use domain::{
    Timestamp,
    attempt_secret::AttemptSecret,
    ecs::Task,
    execution::{Attempt, Execution, State},
    git_access::GitAccess,
    id::ExecutionId,
    limit::CapacityPool,
    price::PriceList,
    quota::Quotas,
    request::{Defaults, SubmitRequest},
    settings::Settings,
    statistics::RunEnd,
    task::{self, AttemptProof},
    transition::{LaunchPlan, Observation},
};
use pipeline::state_tracker::Input;
use serde_json::Value;

pub(crate) const EVENTS: &[&str] = &[
    include_str!("../../it/aws/fixtures/events/exit-3.json"),
    include_str!("../../it/aws/fixtures/events/pull-failure.json"),
    include_str!("../../it/aws/fixtures/events/spot-interruption.json"),
    include_str!("../../it/aws/fixtures/events/user-initiated.json"),
    include_str!("../../it/aws/fixtures/events/unknown-stop-code.json"),
    r#"{"detail":{"taskArn":"arn:aws:ecs:us-east-1:000000000000:task/c/0123456789abcdef0123456789abcdef","lastStatus":"STOPPED","startedBy":"exec_01M0000000000000000000000-1","version":5,"containers":[{"name":"main","exitCode":0}],"stoppedAt":"2026-11-24T00:00:00Z"}}"#,
    r#"{"awslogs":{"data":"H4sIAAAAAAAAA6tWSkksSVSyUlAqSy0qzszPU6oFAJq6kpgUAAAA"}}"#,
    r#"{"Records":[{"dynamodb":{"NewImage":{"id":{"S":"exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9"}}}}]}"#,
    r#"{"sweep":true}"#,
];

const NOW: Timestamp = DateTime::UNIX_EPOCH;

/// An event that cannot be read gives an error without its content. One that can be read moves a
/// record forward or leaves it as it is.
pub(crate) fn event(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    match Input::read(value, "") {
        Ok(Input::Task(event)) => {
            let written = serde_json::to_string(&event.detail).expect("it can be stored");
            assert_eq!(
                serde_json::from_str::<Task>(&written).expect("it is read"),
                event.detail
            );
            seen(&event.detail);
        }
        Ok(Input::Lines(_) | Input::Ended(_) | Input::ToCount(_) | Input::Sweep) => {}
        Err(error) => assert!(
            error.to_string().len() < 200,
            "it may hold a secret: {error}"
        ),
    }
}

/// A record with an attempt that was launched.
fn launched() -> Execution {
    let request = SubmitRequest {
        command: Some("true".into()),
        ..SubmitRequest::default()
    };
    let request = request.validate(&Defaults::aws()).expect("a request");
    let new = Execution::submitted(
        ExecutionId::new(NOW, 0),
        request,
        CapacityPool::Fargate,
        &Caller::local("me"),
        NOW,
    );
    let run_task = task::run_task(
        &new,
        "definition",
        AttemptProof::Nonce(&AttemptSecret::of_bits(1)),
        &GitAccess::default(),
        &settings(),
    );
    new.launching(
        LaunchPlan {
            nonce: "f".repeat(32),
            token_hash: None,
            run_task,
            price: PriceList::of_region("us-east-1")
                .and_then(|prices| prices.attempt(&new.request, CapacityPool::Fargate, true)),
        },
        NOW,
    )
    .expect("it is due")
}

fn settings() -> Settings {
    Settings {
        cluster: "c".into(),
        log_group: "g".into(),
        defaults: Defaults::aws(),
        quotas: Quotas::default(),
        run_task_rate: None,
        runner_images: None,
        artifacts: None,
        spot_fallback_after: None,
        definitions_rate: None,
        allowed: None,
        network: None,
        prices: None,
        task_tags: None,
        unlisted_seconds: 10,
        log_delay_seconds: 0,
    }
}

fn seen(task: &Task) {
    let look = |execution: &Execution, now| execution.observe(1, &Observation::Task(task), now);
    let later = NOW + TimeDelta::hours(1);
    let before = launched();
    let after = look(&before, NOW).unwrap_or_else(|| before.clone());
    moves_forward(&before, &after);
    // The same event again, now or later, changes nothing.
    assert_eq!(look(&after, NOW), None, "{task:?}");
    let stored = serde_json::to_string(&after).expect("it can be stored");
    assert_eq!(
        serde_json::from_str::<Execution>(&stored).expect("it is read"),
        after
    );
    // A run that is over does not change.
    let gone = before
        .observe(1, &Observation::Gone, later)
        .unwrap_or_else(|| before.clone());
    let late = look(&gone, later).unwrap_or_else(|| gone.clone());
    moves_forward(&gone, &late);
}

fn moves_forward(before: &Execution, after: &Execution) {
    assert_eq!(
        (&before.id, &before.request, before.attempts.len()),
        (&after.id, &after.request, after.attempts.len())
    );
    if let State::Final(_) = before.state {
        assert_eq!(before.end(), after.end(), "what is final stays");
    }
    if let Some(cost) = after.cost() {
        assert!(cost.low <= cost.high, "{cost:?}");
    }
    assert_eq!(RunEnd::of(after).is_some(), after.end().is_some());
    let closed = |attempt: &&Attempt| !attempt.is_open();
    for (was, is) in before
        .attempts
        .iter()
        .zip(&after.attempts)
        .filter(|(was, _)| closed(was))
    {
        assert_eq!(was.closed, is.closed, "a closed attempt stays closed");
    }
    assert!(
        after.events.starts_with(&before.events),
        "history only grows"
    );
}
