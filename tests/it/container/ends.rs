//! The end of a container is reported truthfully, and a container can be stopped.

use tests::engine::{BUSYBOX, Engine};
use tokio::sync::oneshot;

use super::*;
use local::container::EngineError;

#[tokio::test]
async fn container_exit_codes_are_the_commands_own() {
    let runner = runner().await;
    for (command, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 125", 125),
        ("sh -c 'kill -9 $$'; exit $?", 137),
    ] {
        let case = Case::new(BUSYBOX, command);
        let started = case.start(&runner).await;
        let (ended, _) = follow(&runner, &started.container_id).await;
        assert_eq!(
            (ended.exit_code, ended.reason),
            (Some(code), None),
            "{command}"
        );
        assert!(ended.stopped_at >= started.started_at, "{command}");
        assert!(
            started.started_at >= started.pull.stopped_at
                && started.pull.stopped_at >= started.pull.started_at
        );
    }
}

#[tokio::test]
async fn container_out_of_memory_is_told_from_a_kill() {
    let runner = runner().await;
    let mut case = Case::new(BUSYBOX, "exec tail /dev/zero");
    case.launch.memory = 32;
    let (ended, _) = case.run(&runner).await;
    let reason = Some("OutOfMemoryError: container killed due to memory usage".to_owned());
    assert_eq!((ended.exit_code, ended.reason), (Some(137), reason));
}

/// Starts a container that prints `ready`, stops it then, and returns its end and output.
async fn stopped_once_ready(command: &str, grace_seconds: u32) -> (TaskEnd, String) {
    let (runner, case) = (runner().await, Case::new(BUSYBOX, command));
    let id = case.start(&runner).await.container_id;
    let (ready, is_ready) = oneshot::channel();
    let (mut ready, mut output) = (Some(ready), Vec::new());
    let followed = runner.follow(&id, 0, |_, bytes| {
        output.extend_from_slice(bytes);
        if let Some(ready) = text(&output)
            .contains("ready\n")
            .then(|| ready.take())
            .flatten()
        {
            let _ = ready.send(());
        }
    });
    let stopped = async {
        is_ready.await.expect("it says ready");
        runner.stop(&id, grace_seconds).await;
    };
    let (ended, ()) = within(async { tokio::join!(followed, stopped) }).await;
    within(runner.stop(&id, grace_seconds)).await;
    (
        ended.expect("it is followed to its end"),
        text(&own(&output)),
    )
}

#[tokio::test]
async fn container_that_heeds_term_ends_in_its_own_way() {
    let command = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 1 & wait; done";
    let (ended, output) = stopped_once_ready(command, 30).await;
    assert_eq!(
        (ended.exit_code, output.as_str()),
        (Some(3), "ready\nbye\n")
    );
}

#[tokio::test]
async fn container_that_ignores_term_is_killed_after_the_grace() {
    let (ended, output) =
        stopped_once_ready("trap '' TERM; echo ready; while :; do sleep 1; done", 1).await;
    assert_eq!((ended.exit_code, output.as_str()), (Some(137), "ready\n"));
}

#[tokio::test]
async fn container_unknown_to_the_engine_is_stopped_and_removed_without_fuss() {
    let runner = runner().await;
    within(runner.stop("mycli-no-such-container", 1)).await;
    within(runner.remove("mycli-no-such-container")).await;
    let found = within(runner.find("arn:aws:ecs:local:000000000000:task/mycli-test/none")).await;
    assert_eq!(found, Ok(None));
}

#[tokio::test]
async fn container_removed_by_another_is_gone_and_not_waited_for() {
    let (runner, case) = (runner().await, Case::new(BUSYBOX, "echo ready; sleep 600"));
    let id = case.start(&runner).await.container_id;
    let (ready, is_ready) = oneshot::channel();
    let mut ready = Some(ready);
    let mut output = Vec::new();
    let followed = runner.follow(&id, 0, |_, bytes| {
        output.extend_from_slice(bytes);
        if text(&output).contains("ready\n") {
            let _ = ready.take().map(|ready| ready.send(()));
        }
    });
    let removed = async {
        is_ready.await.expect("it says ready");
        let id = id.clone();
        let remove = move || Engine::shared().podman(&["rm", "--force", "--time=0", &id]);
        tokio::task::spawn_blocking(remove)
            .await
            .expect("it is removed");
    };
    let (followed, ()) = within(async { tokio::join!(followed, removed) }).await;
    // Podman may still report the kill before it forgets the container.
    match followed {
        Ok(ended) => assert_eq!(ended.exit_code, Some(137)),
        Err(error) => assert_eq!(error, EngineError::Gone(id.clone())),
    }
    let again = within(runner.follow(&id, 0, |_, _| {})).await;
    assert_eq!(again, Err(EngineError::Gone(id)));
}

#[tokio::test]
async fn container_leftovers_are_found_by_task_and_removed_even_running() {
    let runner = runner().await;
    let (running, ended) = (
        Case::new(BUSYBOX, "sleep 600"),
        Case::new(BUSYBOX, "exit 0"),
    );
    let ids = [
        running.start(&runner).await.container_id,
        ended.start(&runner).await.container_id,
    ];
    let _ = follow(&runner, &ids[1]).await;
    for (case, id) in [&running, &ended].into_iter().zip(&ids) {
        assert_eq!(
            within(runner.find(&case.launch.task_arn)).await,
            Ok(Some(id.clone()))
        );
        within(runner.remove(id)).await;
        within(runner.remove(id)).await;
        assert_eq!(within(runner.find(&case.launch.task_arn)).await, Ok(None));
        assert_eq!(case.containers(), Vec::<String>::new());
    }
}
