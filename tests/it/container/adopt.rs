//! One container for each attempt, however often it is started and whatever is lost in between.

use tests::engine::{BUSYBOX, Engine};

use super::proxy::{Fate, Proxy};
use super::*;

/// Asserts that the task's only container wrote `once` a single time and exited with 4.
async fn assert_ran_once(case: &Case, runner: &ContainerRunner, id: &str) {
    let (ended, output) = follow(runner, id).await;
    assert_eq!(
        (ended.exit_code, text(&output).as_str()),
        (Some(4), "once\n")
    );
    assert_eq!(case.containers(), [id]);
}

fn case() -> Case {
    Case::new(BUSYBOX, "echo once; exit 4")
}

#[tokio::test]
async fn container_started_twice_runs_once() {
    let (runner, case) = (runner().await, case());
    let first = case.start(&runner).await;
    let second = case.start(&runner).await;
    assert_eq!(
        (&first.container_id, first.started_at),
        (&second.container_id, second.started_at)
    );
    assert_eq!(first.image_digest, second.image_digest);
    assert_ran_once(&case, &runner, &first.container_id).await;
}

#[tokio::test]
async fn container_that_has_ended_is_taken_over_and_not_started_again() {
    let (runner, case) = (runner().await, case());
    let first = case.start(&runner).await;
    assert_ran_once(&case, &runner, &first.container_id).await;
    let second = case.start(&runner).await;
    assert_eq!(first.container_id, second.container_id);
    assert_ran_once(&case, &runner, &second.container_id).await;
}

#[tokio::test]
async fn container_started_at_the_same_time_by_two_runs_once() {
    let (one, other, case) = (runner().await, runner().await, case());
    let (first, second) = tokio::join!(case.start(&one), case.start(&other));
    assert_eq!(first.container_id, second.container_id);
    assert_ran_once(&case, &one, &first.container_id).await;
}

/// Starts the container through a connection on which `fate` strikes. The program dies then, and
/// the container is started again.
async fn after_a_crash(request: &str, fate: Fate) {
    let (case, proxy) = (case(), Proxy::before_engine(&[(request, fate)]).await);
    let doomed = runner_at(&proxy.docker_host()).await;
    within(async {
        tokio::select! { biased; () = proxy.struck() => {}, _ = case.try_start(&doomed) => {} }
    })
    .await;
    drop(doomed);
    let runner = runner().await;
    let started = case.start(&runner).await;
    assert_ran_once(&case, &runner, &started.container_id).await;
}

#[tokio::test]
async fn container_of_a_crash_before_its_creation_is_made() {
    after_a_crash("/containers/create", Fate::Swallowed).await;
}

#[tokio::test]
async fn container_of_a_crash_between_creation_and_start_is_started() {
    after_a_crash("/start", Fate::Swallowed).await;
}

#[tokio::test]
async fn container_of_a_crash_during_its_creation_runs_once() {
    after_a_crash("/containers/create", Fate::AnswerLost).await;
}

#[tokio::test]
async fn container_of_a_crash_during_its_start_runs_once() {
    after_a_crash("/start", Fate::AnswerLost).await;
}

#[tokio::test]
async fn container_whose_start_answered_nothing_is_known_to_run() {
    let (case, proxy) = (
        case(),
        Proxy::before_engine(&[("/start", Fate::AnswerLost)]).await,
    );
    let runner = runner_at(&proxy.docker_host()).await;
    let started = case.start(&runner).await;
    assert_eq!(proxy.unused(), 0);
    assert_ran_once(&case, &runner, &started.container_id).await;
}

#[tokio::test]
async fn container_of_another_task_with_the_same_attempt_is_left_alone() {
    let (runner, mut case) = (runner().await, case());
    let id = case.start(&runner).await.container_id;
    let own = std::mem::replace(
        &mut case.launch.task_arn,
        "arn:aws:ecs:local:000000000000:task/other".into(),
    );
    let reason = case.refusal(&runner).await;
    case.launch.task_arn = own;
    assert!(
        reason.starts_with("CannotCreateContainerError: the name mycli-test-"),
        "{reason}"
    );
    assert_ran_once(&case, &runner, &id).await;
}

#[tokio::test]
async fn container_made_and_never_started_is_said_to_have_no_exit_code() {
    let (runner, case) = (runner().await, case());
    let label = format!("--label={}", case.label());
    let id = Engine::shared().podman(&["create", "--network=none", &label, BUSYBOX, "true"]);
    let (ended, output) = follow(&runner, &id).await;
    assert_eq!((ended.exit_code, output.as_slice()), (None, b"".as_slice()));
    assert!(
        ended
            .reason
            .is_some_and(|reason| reason.starts_with("CannotStartContainerError"))
    );
}
