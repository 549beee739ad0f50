//! The container runner against a real engine: Podman behind the Docker API (tests/README.md).

mod adopt;
mod ends;
mod fault;
mod log;
mod proxy;
mod refused;
mod shape;

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::container::variable;
use domain::marker;
use domain::request::Arch;
use local::container::{ContainerRunner, TASK_LABEL};
use local::task::{Launch, StartFailure, StartedTask, TaskEnd};
use tests::engine::Engine;

const NONCE: &str = "0123456789abcdef0123456789abcdef";

/// A bound on a hang, far above what any step here takes.
const LONG: Duration = Duration::from_secs(60);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, work)
        .await
        .expect("it ends within a minute")
}

/// A runner that knows only `DOCKER_HOST`.
async fn runner_at(docker_host: &str) -> ContainerRunner {
    let environment = |name: &str| (name == "DOCKER_HOST").then(|| docker_host.to_owned());
    within(ContainerRunner::connect(
        environment,
        Path::new("/nonexistent"),
    ))
    .await
    .expect("the engine answers")
}

async fn runner() -> ContainerRunner {
    runner_at(Engine::shared().docker_host()).await
}

/// A task for one test. Its containers are removed when it is dropped, however the test ends.
struct Case {
    launch: Launch,
}

impl Case {
    /// `command` is text for the image's `sh`.
    fn new(image: &str, command: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let arch = if cfg!(target_arch = "aarch64") {
            Arch::Arm64
        } else {
            Arch::X86_64
        };
        let launch = Launch {
            task_arn: format!("arn:aws:ecs:local:000000000000:task/mycli-test/{id}"),
            attempt: format!("test-{id}"),
            image: image.parse().expect("an image"),
            environment: vec![
                (variable::COMMAND.into(), command.to_owned()),
                (variable::NONCE.into(), NONCE.into()),
            ],
            secrets: vec![],
            cpu: 1024,
            memory: 128,
            arch,
            keeps_files: false,
            may_have_started: false,
        };
        Self { launch }
    }

    fn label(&self) -> String {
        format!("{TASK_LABEL}={}", self.launch.task_arn)
    }

    /// The ids of the task's containers, as Podman's own command line lists them.
    fn containers(&self) -> Vec<String> {
        Engine::shared().containers(&self.label())
    }

    /// Sets a variable.
    fn set(&mut self, name: &str, value: &str) {
        self.launch.environment.retain(|(known, _)| known != name);
        self.launch
            .environment
            .push((name.to_owned(), value.to_owned()));
    }

    async fn try_start(&self, runner: &ContainerRunner) -> Result<StartedTask, StartFailure> {
        within(runner.start_unless(&self.launch, async { Ok(None) }, std::future::pending())).await
    }

    async fn start(&self, runner: &ContainerRunner) -> StartedTask {
        self.try_start(runner).await.expect("it starts")
    }

    /// Returns the reason why it does not start. Nothing of it may be left.
    async fn refusal(&self, runner: &ContainerRunner) -> String {
        let failure = self.try_start(runner).await.expect_err("it does not start");
        assert_eq!(self.containers(), Vec::<String>::new());
        failure.reason
    }

    /// Runs it to its end.
    async fn run(&self, runner: &ContainerRunner) -> (TaskEnd, Vec<u8>) {
        let started = self.start(runner).await;
        follow(runner, &started.container_id).await
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        for id in self.containers() {
            let _ = Engine::shared().podman(&["rm", "--force", "--time=0", &id]);
        }
    }
}

/// Returns how it ended, and the command's own output.
async fn follow(runner: &ContainerRunner, id: &str) -> (TaskEnd, Vec<u8>) {
    let (ended, output) = follow_from(runner, id, 0).await;
    (ended, own(&output))
}

/// The command's own part of some output: everything but the runner's marker lines.
fn own(output: &[u8]) -> Vec<u8> {
    let mut own = Vec::new();
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        let text = text(line);
        match marker::split(NONCE, text.trim_end_matches('\n')) {
            (_, None) => own.extend_from_slice(line),
            (Some(before), Some(_)) => own.extend_from_slice(&line[..before.len()]),
            (None, Some(_)) => {}
        }
    }
    own
}

/// Returns how it ended, and all output from byte `seen` on.
async fn follow_from(runner: &ContainerRunner, id: &str, seen: u64) -> (TaskEnd, Vec<u8>) {
    let mut output = Vec::new();
    let ended = within(runner.follow(id, seen, |_, bytes| output.extend_from_slice(bytes))).await;
    (ended.expect("it is followed to its end"), output)
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}
