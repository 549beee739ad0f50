//! Stop reasons quoted in public reports and in AWS's documentation, each with its source, and what
//! the user of such a run sees.

use std::collections::BTreeMap;

use domain::{
    cause::{self, Cause},
    container::MAIN,
    ecs::{Container, StopCode, Task},
    execution::MarkerFacts,
};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Report {
    stop_code: Option<StopCode>,
    stopped_reason: Option<String>,
    container_reason: Option<String>,
    exit_code: Option<i32>,
    source: String,
    cause: String,
    /// Whether a retry without any change has a fair chance.
    may_pass: bool,
}

fn reports() -> Vec<Report> {
    serde_json::from_str(include_str!("fixtures/stop_reasons.json")).expect("JSON")
}

fn cause_of(report: &Report) -> Cause {
    let container = Container {
        name: MAIN.into(),
        exit_code: report.exit_code,
        reason: report.container_reason.clone(),
        ..Container::default()
    };
    let task = Task {
        stop_code: report.stop_code.clone(),
        stopped_reason: report.stopped_reason.clone(),
        containers: vec![container],
        ..Task::default()
    };
    // The commands of these reports ran, where they have an exit code.
    let said = MarkerFacts {
        started_at: report.exit_code.map(|_| domain::Timestamp::default()),
        ..MarkerFacts::default()
    };
    cause::of(&task, &said).expect("no report is of a success")
}

/// The kind of the cause, as the fixture spells it.
fn kind(cause: &Cause) -> &'static str {
    match cause {
        Cause::Exit(_) => "exit",
        Cause::OutOfMemory(_) => "out-of-memory",
        Cause::SetUp(_) => "set-up",
        Cause::Manifest(_) => "manifest",
        Cause::ImageNotFound(_) => "image-not-found",
        Cause::Pull(_) => "pull",
        Cause::Disk(_) => "disk",
        Cause::Network(_) => "network",
        Cause::Secret(_) => "secret",
        Cause::SecretThrottled(_) => "secret-throttled",
        Cause::Log(_) => "logs",
        Cause::Role(_) => "role",
        Cause::ServiceLinkedRole(_) => "service-linked-role",
        Cause::Capacity(_) => "capacity",
        Cause::EntryPoint(_) => "entry-point",
        Cause::Spot(_) => "spot",
        Cause::Host(_) => "host",
        Cause::Helper(..) => "helper",
        Cause::Stuck => "stuck",
        Cause::StoppedOutside(_) => "stopped-outside",
        Cause::NeverStarted(_) => "never-started",
        Cause::NoExitCode(_) => "no-exit-code",
    }
}

#[test]
fn each_stop_reason_that_was_reported_is_told_by_its_cause_and_tried_again_where_that_may_help() {
    let reports = reports();
    assert!(reports.len() >= 40, "{}", reports.len());
    let wrong: Vec<_> = reports
        .iter()
        .map(|report| (report, cause_of(report)))
        .filter(|(report, cause)| kind(cause) != report.cause || cause.passes() != report.may_pass)
        .map(|(report, cause)| {
            format!(
                "{} (retried: {}) for {report:#?}",
                kind(&cause),
                cause.passes()
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        reports
            .iter()
            .all(|report| report.source.starts_with("https://")),
        "each has its source"
    );
}

/// The message names the remedy if there is one, and keeps ECS's own words.
#[test]
fn each_cause_is_told_in_words_that_keep_ecs_s_own() {
    let mut words: BTreeMap<&str, String> = BTreeMap::new();
    for report in reports() {
        let (cause, said) = (
            cause_of(&report),
            report.stopped_reason.or(report.container_reason),
        );
        let told = cause.to_string();
        if !matches!(
            cause,
            Cause::Exit(_) | Cause::OutOfMemory(_) | Cause::Spot(_)
        ) {
            assert!(said.is_some_and(|said| told.contains(&said)), "{told}");
        }
        let before_theirs = told.split(": ").next().unwrap_or_default().to_owned();
        words.entry(kind(&cause)).or_insert(before_theirs);
    }
    let shown: String = words
        .into_iter()
        .map(|(kind, words)| format!("{kind}: {words}\n"))
        .collect();
    insta::assert_snapshot!(shown);
}
