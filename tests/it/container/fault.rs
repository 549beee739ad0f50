//! A container engine that answers wrongly or not at all.

use tests::engine::{BUSYBOX, Engine};

use super::proxy::{Fate, Proxy};
use super::*;

#[tokio::test]
async fn container_engine_without_limits_runs_the_command_all_the_same() {
    let refusals = [
        (
            "/containers/create",
            Fate::Answered(
                400,
                "range of CPUs is from 0.01 to 0.50, as there is only half a CPU available".into(),
            ),
        ),
        (
            "/start",
            Fate::Answered(
                500,
                "runc: cannot set memory limit: container could not join cgroup".into(),
            ),
        ),
    ];
    let (case, proxy) = (
        Case::new(BUSYBOX, "echo ran"),
        Proxy::before_engine(&refusals).await,
    );
    let runner = runner_at(&proxy.docker_host()).await;
    let id = case.start(&runner).await.container_id;
    let (ended, output) = follow(&runner, &id).await;
    assert_eq!(
        (proxy.unused(), ended.exit_code, text(&output).as_str()),
        (0, Some(0), "ran\n")
    );
    assert_eq!(case.containers(), std::slice::from_ref(&id));
    assert_eq!(limits(&id), "0 0");
}

fn limits(id: &str) -> String {
    Engine::shared().podman(&[
        "inspect",
        "--format",
        "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}",
        id,
    ])
}

#[tokio::test]
async fn container_is_held_to_its_sizes() {
    let (runner, mut case) = (runner().await, Case::new(BUSYBOX, "true"));
    (case.launch.cpu, case.launch.memory) = (256, 64);
    let id = case.start(&runner).await.container_id;
    assert_eq!(limits(&id), format!("{} 250000000", 64 << 20));
}

#[tokio::test]
async fn container_engine_that_repeats_a_secret_is_not_repeated() {
    let refusal = Fate::Answered(500, "invalid variable TOKEN=s3cr3t-value: refused".into());
    let (mut case, proxy) = (
        Case::new(BUSYBOX, "true"),
        Proxy::before_engine(&[("/containers/create", refusal)]).await,
    );
    case.launch.secrets = vec![("TOKEN".into(), "s3cr3t-value".to_owned().into())];
    let runner = runner_at(&proxy.docker_host()).await;
    assert_eq!(
        case.refusal(&runner).await,
        "CannotCreateContainerError: invalid variable TOKEN=***: refused"
    );
}

#[tokio::test]
async fn container_whose_end_is_told_wrongly_is_asked_about_again() {
    let lies = [
        ("/wait", Fate::Answered(500, "oops".into())),
        ("/json", Fate::Answered(500, "oops".into())),
    ];
    let (case, direct) = (
        Case::new(BUSYBOX, "sleep 1; echo late; exit 5"),
        runner().await,
    );
    let id = case.start(&direct).await.container_id;
    let proxy = Proxy::before_engine(&lies).await;
    let runner = runner_at(&proxy.docker_host()).await;
    let (ended, output) = follow(&runner, &id).await;
    assert_eq!(
        (proxy.unused(), ended.exit_code, text(&output).as_str()),
        (0, Some(5), "late\n")
    );
}

/// Podman may fail to read about a process that is just ending.
#[tokio::test]
async fn container_that_ends_while_it_is_asked_about_is_asked_about_again() {
    let case = Case::new(BUSYBOX, "exit 7");
    let gone = Fate::Answered(500, "read /proc/1226/cgroup: no such process".into());
    let about = format!("{}/json", case.launch.attempt);
    let proxy = Proxy::before_engine(&[(&about, gone.clone()), (&about, gone)]).await;
    let runner = runner_at(&proxy.docker_host()).await;
    let id = case.start(&runner).await.container_id;
    let (ended, _) = follow(&runner, &id).await;
    assert_eq!((proxy.unused(), ended.exit_code), (0, Some(7)));
}

#[tokio::test]
async fn container_stop_that_was_lost_is_asked_for_again() {
    let (case, proxy) = (
        Case::new(BUSYBOX, "exec sleep 600"),
        Proxy::before_engine(&[("/stop", Fate::Answered(500, "oops".into()))]).await,
    );
    let runner = runner_at(&proxy.docker_host()).await;
    let id = case.start(&runner).await.container_id;
    within(runner.stop(&id, 1)).await;
    assert_eq!(proxy.unused(), 0);
    // Process 1 would ignore TERM. A command that is not process 1 ends by it.
    assert_eq!(follow(&runner, &id).await.0.exit_code, Some(143));
}

#[tokio::test]
async fn container_engine_that_is_nowhere_is_told_with_what_was_tried() {
    let environment =
        |name: &str| (name == "DOCKER_HOST").then(|| "unix:///nonexistent/docker.sock".to_owned());
    let error = within(ContainerRunner::connect(
        environment,
        Path::new("/nonexistent"),
    ))
    .await
    .expect_err("none");
    let said = error.to_string();
    for part in [
        "DOCKER_HOST /nonexistent/docker.sock",
        "start Docker or Podman",
        "--host",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let host = format!("unix://{}", path.display());
    let environment = |name: &str| (name == "DOCKER_HOST").then(|| host.clone());
    let said = within(ContainerRunner::connect(
        environment,
        Path::new("/nonexistent"),
    ))
    .await
    .expect_err("none")
    .to_string();
    assert!(said.contains("Connection refused"), "{said}");
}

#[tokio::test]
async fn container_engine_is_found_through_a_docker_context() {
    use sha2::Digest;
    let home = tempfile::tempdir().expect("a home");
    let directory = home
        .path()
        .join(".docker/contexts/meta")
        .join(hex::encode(sha2::Sha256::digest("mine")));
    std::fs::create_dir_all(&directory).expect("a directory");
    let host = Engine::shared().docker_host();
    let meta = serde_json::json!({ "Name": "mine", "Endpoints": { "docker": { "Host": host } } });
    std::fs::write(directory.join("meta.json"), meta.to_string()).expect("a context");
    std::fs::write(
        home.path().join(".docker/config.json"),
        r#"{"currentContext":"mine"}"#,
    )
    .expect("a configuration");
    let runner = within(ContainerRunner::connect(|_| None, home.path()))
        .await
        .expect("the engine answers");
    let (ended, output) = Case::new(BUSYBOX, "echo there").run(&runner).await;
    assert_eq!(
        (ended.exit_code, text(&output).as_str()),
        (Some(0), "there\n")
    );
}
