//! ECS's events, complete as EventBridge delivers them, and what a user sees of each.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};

use aws_lambda_events::eventbridge::EventBridgeEvent;
use domain::key::Caller;
use domain::{
    Timestamp,
    attempt_secret::AttemptSecret,
    ecs::Task,
    execution::{Execution, State},
    git_access::GitAccess,
    limit::CapacityPool,
    marker::Marker,
    quota::Quotas,
    request::{Defaults, SubmitRequest},
    settings::Settings,
    task::{self, AttemptProof},
    transition::{LaunchPlan, Observation},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_795_478_400 + seconds, 0).unwrap()
}

/// Every event of `fixtures/events`, by file name.
fn fixtures() -> BTreeMap<String, EventBridgeEvent<Task>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("it/aws/fixtures/events");
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let event = serde_json::from_slice(&fs::read(&path).unwrap());
        (
            name,
            event.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        )
    };
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| read(entry.unwrap().path()))
        .collect()
}

/// The launched execution that these events belong to.
fn launched(event: &EventBridgeEvent<Task>, retries: i64) -> Execution {
    let id = event
        .detail
        .attempt()
        .expect("one of ours")
        .execution()
        .clone();
    let request = SubmitRequest {
        command: Some("make deploy".into()),
        retries: Some(retries),
        ..SubmitRequest::default()
    };
    let request = request.validate(&Defaults::aws()).unwrap();
    let queued = Execution::submitted(
        id,
        request,
        CapacityPool::FargateSpot,
        &Caller::local("ann"),
        at(0),
    );
    let settings = Settings {
        cluster: "mycli-team".into(),
        log_group: "/aws/mycli/team".into(),
        defaults: Defaults::aws(),
        quotas: Quotas::default(),
        run_task_rate: None,
        runner_images: Some(tests::ecs::runner_images()),
        artifacts: None,
        spot_fallback_after: None,
        definitions_rate: None,
        allowed: None,
        network: None,
        prices: None,
        task_tags: None,
        unlisted_seconds: 120,
        log_delay_seconds: 10,
    };
    let run_task = task::run_task(
        &queued,
        "arn:aws:ecs:task-definition/x:1",
        AttemptProof::Nonce(&AttemptSecret::of_bits(0)),
        &GitAccess::default(),
        &settings,
    );
    queued
        .launching(
            LaunchPlan {
                nonce: "0".repeat(32),
                token_hash: None,
                price: None,
                run_task,
            },
            at(0),
        )
        .unwrap()
}

/// The record after the event, and after its complete log was read if the record needs it. The
/// command of a task with an exit code has started.
fn told(event: &EventBridgeEvent<Task>, retries: i64, said: &[(Timestamp, Marker)]) -> Execution {
    let launched = launched(event, retries);
    let main = event.detail.container();
    let has_run = main.is_some_and(|main| main.exit_code.is_some());
    let started = has_run.then_some((at(33), Marker::Start));
    let said = &[said, started.as_slice()].concat();
    let seen = launched
        .observe(1, &Observation::Task(&event.detail), at(90))
        .unwrap_or(launched);
    seen.observe(1, &Observation::WholeLog(said), at(100))
        .unwrap_or(seen)
}

fn line(execution: &Execution) -> String {
    match (execution.end(), &execution.state) {
        (Some(end), _) => {
            let exit_code = end
                .outcome
                .exit_code()
                .map_or("-".to_owned(), |code| code.to_string());
            format!(
                "{} exit {exit_code}: {}",
                execution.status(),
                end.outcome.reason().unwrap_or("-")
            )
        }
        (None, State::Waiting { .. }) => "tried again".to_owned(),
        (None, _) => execution.status().to_string(),
    }
}

#[test]
fn every_event_is_an_ecs_event_of_a_task_of_ours() {
    let fixtures = fixtures();
    assert!(fixtures.len() > 10);
    for (name, event) in fixtures {
        assert_eq!(event.detail_type, domain::ecs::TASK_STATE_CHANGE, "{name}");
        assert_eq!(event.source, "aws.ecs", "{name}");
        assert!(
            event.detail.version > 1 && event.detail.container().is_some(),
            "{name}"
        );
    }
}

#[test]
fn a_user_reads_why_and_what_may_pass_is_tried_again() {
    let mut shown = String::new();
    for (name, event) in fixtures() {
        let unasked = told(&event, 0, &[]);
        let reason = unasked.attempts[0]
            .closed
            .as_ref()
            .and_then(|end| end.outcome.reason().map(str::to_owned));
        writeln!(shown, "{name}\n  unasked:     {}", line(&unasked)).unwrap();
        writeln!(shown, "  --retries 1: {}", line(&told(&event, 1, &[]))).unwrap();
        writeln!(
            shown,
            "  attempt 1:   {}",
            reason.unwrap_or_else(|| "-".into())
        )
        .unwrap();
    }
    insta::assert_snapshot!("events", shown);
}

#[test]
fn the_scripts_last_word_counts_where_ecs_has_none() {
    let health = &fixtures()["infrastructure-health"];
    let ended = [(at(33), Marker::Start), (at(60), Marker::Exit(0))];
    assert_eq!(line(&told(health, 0, &ended)), "SUCCEEDED exit 0: -");
    let failed = [(at(33), Marker::Start), (at(60), Marker::Exit(4))];
    assert_eq!(
        line(&told(health, 0, &failed)),
        "FAILED exit 4: the command exited with code 4"
    );
}

#[test]
fn a_warning_ends_nothing() {
    let warning = &fixtures()["spot-warning"];
    let execution = launched(warning, 0)
        .observe(1, &Observation::Task(&warning.detail), at(66))
        .unwrap();
    assert_eq!(execution.status().to_string(), "RUNNING");
}
