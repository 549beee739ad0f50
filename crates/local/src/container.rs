//! Tasks with an image: containers over the Docker API, which Docker and Podman serve.
//!
//! The engine holds the state. A container's name derives from its attempt, so it is made at most
//! once. Its label is the task's ARN, so it is found again after a crash of mycli. A container that
//! has run is never started again.

pub use self::artifacts::TakeError;

mod artifacts;
mod endpoint;
mod error;
mod follow;
mod image;
mod limits;
mod log;
mod owner;
mod program;
mod workspace;

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bollard::errors::Error as Fault;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState,
    ContainerStateStatusEnum as Status, ContainerSummary, HealthConfig, HostConfig,
    HostConfigLogConfig, Mount,
};
use bollard::query_parameters::{
    CreateContainerOptions, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use chrono::SubsecRound;
use domain::Timestamp;
use domain::backoff::Backoff;
use domain::ports::Entropy;
use domain::request::Arch;
use futures_util::FutureExt as _;
use runner::PROGRAM;
use secrecy::ExposeSecret;
use tokio::sync::Mutex;

use self::endpoint::{Candidate, EngineEndpoint};
pub use self::error::EngineError;
use self::error::{failed, is_conflict, is_missing, plain};
use self::follow::Follower;
use self::image::architecture;
use self::limits::Limits;
use self::program::ProgramVolume;
use crate::failpoint;
use crate::runner_program::{self, for_containers};
use crate::system::System;
use crate::task::{Launch, Pull, StartFailure, StartedTask, TaskEnd};

/// The label on a task's container. Its value is the task's ARN.
pub const TASK_LABEL: &str = "mycli.task";

/// How long an engine may take to begin its answer. The `docker` command uses the same two minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a pull may take.
const PULL_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long to follow a running container while the engine does not answer. An engine's restart
/// takes seconds.
const OUTAGE_MAX: Duration = Duration::from_secs(60);

/// How long a container may take to be found after its name is taken. Making one takes some 100 ms.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);

/// The pauses between retries of a call to the engine. A change of state takes an engine some
/// milliseconds, a restart some seconds.
const PAUSE: Backoff = Backoff {
    first: Duration::from_millis(50),
    longest: Duration::from_secs(1),
};

/// A log size that no task reaches. It is set because an engine's default may be a smaller size at
/// which it discards the beginning.
const LOG_MAX: &str = "1t";

/// ECS's text for a container that the kernel killed for its use of memory.
const OUT_OF_MEMORY: &str = "OutOfMemoryError: container killed due to memory usage";

/// Runs tasks as containers. Cheap to clone: all clones share the connection.
#[derive(Clone)]
pub struct ContainerRunner {
    docker: Docker,
    program: ProgramVolume,
    /// The engine's architecture, which may differ from this machine's.
    arch: Option<Arch>,
    /// Whether a log that is streamed while it is written has gaps (Podman).
    loses_lines: bool,
    warned: Arc<AtomicBool>,
}

impl fmt::Debug for ContainerRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerRunner")
            .field("arch", &self.arch)
            .finish_non_exhaustive()
    }
}

impl ContainerRunner {
    /// Finds the engine in the order of the `docker` command (DOCKER_HOST, the current context,
    /// Docker's socket), then tries Podman's sockets, and takes the first that answers.
    /// `environment` looks up a variable. `home` is the user's home directory.
    ///
    /// # Errors
    /// When no engine answers. The error names what was tried, and what to do.
    pub async fn connect(
        environment: impl Fn(&str) -> Option<String>,
        home: &Path,
    ) -> Result<Self, EngineError> {
        let mut tried = Vec::new();
        let named = environment(runner_program::VARIABLE).map(PathBuf::from);
        for candidate in endpoint::candidates(environment, home)? {
            match EngineConnection::open(&candidate).await {
                Ok(connection) => {
                    let program = for_containers(named.as_deref(), connection.arch)
                        .map_err(EngineError::NoRunner)?;
                    let docker = connection.docker.clone();
                    return Ok(Self {
                        program: ProgramVolume::new(docker, program),
                        docker: connection.docker,
                        arch: connection.arch,
                        loses_lines: connection.loses_lines,
                        warned: Arc::default(),
                    });
                }
                Err(reason) => tried.push(reason),
            }
        }
        Err(EngineError::NotFound { tried })
    }

    /// Starts the task's container: pulls the image unless the engine has it, makes the container,
    /// brings in the runner and the workspace, and starts it. `workspace` gives the folder whose
    /// content becomes `/workspace`, if the task has one; it is waited for while the image is being
    /// pulled. Gives up when `unwanted` resolves before the start: pulling, fetching and bringing
    /// in what was fetched may take minutes. No container is left then.
    ///
    /// Idempotent for one attempt. If an earlier call has started the container, this takes it
    /// over, and leaves it alone if it runs or has run. One that was made and never started may
    /// lack a part, and is made again. After a failure no container is left.
    ///
    /// # Errors
    /// Why the command never ran. No reason contains a secret.
    pub async fn start_unless(
        &self,
        launch: &Launch,
        workspace: impl Future<Output = Result<Option<PathBuf>, StartFailure>> + Send,
        unwanted: impl Future<Output = ()> + Send,
    ) -> Result<StartedTask, StartFailure> {
        let started = match self.started_before(launch).await? {
            Some(found) => self.take_over(launch, found).await,
            None => self.start_new(launch, workspace, unwanted).await,
        };
        started.map_err(|failure| without_secrets(failure, launch))
    }

    /// Finds the task's container, whatever its state.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn find(&self, task_arn: &str) -> Result<Option<String>, EngineError> {
        let found = self.list(format!("{TASK_LABEL}={task_arn}")).await?;
        Ok(found.into_iter().find_map(|found| found.id))
    }

    /// Passes on the container's output from byte `seen` on, until the container has ended and all
    /// output is passed on. Then returns how it ended.
    ///
    /// `on` is called with the engine's time and a piece of output, in the engine's order, stdout
    /// and stderr together. A piece is a line with its newline, or part of one. A caller that
    /// stores the sum of their lengths passes it as `seen` after a crash, so that nothing is lost
    /// or repeated. A broken connection is resumed in the same way.
    ///
    /// # Errors
    /// When the container is gone, or the engine has not answered for a minute.
    pub async fn follow<F>(
        &self,
        container_id: &str,
        seen: u64,
        on: F,
    ) -> Result<TaskEnd, EngineError>
    where
        F: FnMut(Timestamp, &[u8]) + Send,
    {
        Follower::new(self, container_id, seen, on).follow().await
    }

    /// Ends the container: TERM, then KILL after the grace. Returns once the container has ended. A
    /// container that has ended already, or is unknown, is left alone. If the engine fails, it is
    /// asked again for a minute, and then the failure is logged.
    pub async fn stop(&self, container_id: &str, grace_seconds: u32) {
        let grace = Duration::from_secs(grace_seconds.into());
        // The engine answers once the container has ended.
        let docker = self.docker.clone().with_timeout(ANSWER_TIMEOUT + grace);
        let mut patience = StopPatience::new();
        while let Err(fault) = self.stop_once(&docker, container_id, grace_seconds).await {
            if let Err(error) = patience.spend(|| failed("stop a container")(fault)) {
                tracing::error!(container_id, %error, "a container could not be stopped");
                return;
            }
            patience.pause().await;
        }
    }

    /// Takes the files that are to be kept out of a container that has ended, into this folder.
    /// Idempotent. An engine that does not answer is asked again for a minute.
    ///
    /// # Errors
    /// [`TakeError`].
    pub async fn take_files(&self, container_id: &str, into: &Path) -> Result<(), TakeError> {
        artifacts::take(&self.docker, container_id, into).await
    }

    /// The ids of all containers of tasks, each with its task's ARN.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn containers(&self) -> Result<Vec<(String, String)>, EngineError> {
        let found = self.list(TASK_LABEL.to_owned()).await?;
        let known = found.into_iter().filter_map(|found| {
            let arn = found.labels?.remove(TASK_LABEL)?;
            Some((found.id?, arn))
        });
        Ok(known.collect())
    }

    async fn list(&self, label: String) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let found = settled(|| async {
            failpoint!("container.list.before");
            let found = self.docker.list_containers(Some(options.clone())).await;
            failpoint!("container.list.after");
            found
        });
        found.await.map_err(failed("list containers"))
    }

    /// Removes the runners of other versions from the engine.
    pub async fn remove_old_programs(&self) {
        self.program.remove_others().await;
    }

    /// Removes the container, and ends it if it runs. Idempotent. An engine that does not answer is
    /// asked again for a minute. A failure is only logged; [`Self::find`] finds the container
    /// again.
    pub async fn remove(&self, container_id: &str) {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let removed = persistently(|| async {
            failpoint!("container.remove.before");
            let removed = self
                .docker
                .remove_container(container_id, Some(options.clone()))
                .await;
            failpoint!("container.remove.after");
            removed
        });
        match removed.await {
            Err(fault) if !is_missing(&fault) && !is_conflict(&fault) => {
                tracing::warn!(
                    container_id,
                    error = plain(&fault),
                    "a container could not be removed"
                );
            }
            _ => {}
        }
    }
}

/// A connection to an engine that has answered.
struct EngineConnection {
    docker: Docker,
    arch: Option<Arch>,
    loses_lines: bool,
}

impl EngineConnection {
    async fn open(candidate: &Candidate) -> Result<Self, String> {
        let (opened, place) = match &candidate.endpoint {
            EngineEndpoint::Unix(path) => {
                let text = path.to_string_lossy().into_owned();
                (
                    Docker::connect_with_unix(&text, ANSWER_TIMEOUT.as_secs(), API_DEFAULT_VERSION),
                    text,
                )
            }
            EngineEndpoint::Tcp(address) => (
                Docker::connect_with_http(address, ANSWER_TIMEOUT.as_secs(), API_DEFAULT_VERSION),
                address.clone(),
            ),
        };
        let seen = |reason: String| format!("{} {place}: {reason}", candidate.named_by);
        let docker = opened.map_err(|fault| seen(plain(&fault)))?;
        failpoint!("container.version.before");
        let version = docker
            .version()
            .await
            .map_err(|fault| seen(plain(&fault)))?;
        failpoint!("container.version.after");
        let arch = version.arch.as_deref().and_then(arch_named);
        let loses_lines = version
            .components
            .iter()
            .flatten()
            .any(|component| component.name.starts_with("Podman"));
        Ok(Self {
            docker,
            arch,
            loses_lines,
        })
    }
}

/// The lock under which this process looks at a container, makes it and starts it. The worker's
/// lock keeps other processes out of the same tasks. Two containers may share a lock by chance;
/// then one waits for the other's start.
fn turn(name: &str) -> &'static Mutex<()> {
    static TURNS: [Mutex<()>; 64] = [const { Mutex::const_new(()) }; 64];
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    &TURNS[usize::try_from(hasher.finish() % 64).unwrap_or_default()]
}

/// Starting.
impl ContainerRunner {
    /// Returns the container of this attempt, if an earlier call made it.
    async fn existing(
        &self,
        launch: &Launch,
    ) -> Result<Option<ContainerInspectResponse>, StartFailure> {
        match self.inspect(&container_name(launch)).await {
            Ok(found) if label(&found) == Some(launch.task_arn.as_str()) => Ok(Some(found)),
            Ok(_) => Err(cannot_create(&format!(
                "the name {} is taken by another container",
                container_name(launch)
            ))),
            Err(fault) if is_missing(&fault) => Ok(None),
            Err(fault) if launch.may_have_started => Err(unknown(&plain(&fault))),
            Err(fault) => Err(cannot_create(&plain(&fault))),
        }
    }

    /// Returns the container of this attempt, if an earlier call has started it.
    async fn started_before(
        &self,
        launch: &Launch,
    ) -> Result<Option<ContainerInspectResponse>, StartFailure> {
        let _turn = turn(&container_name(launch)).lock().await;
        self.started_or_removed(launch).await
    }

    /// The same. One that was made and never started may lack a part of what belongs into it, and
    /// is removed. The caller holds the lock.
    async fn started_or_removed(
        &self,
        launch: &Launch,
    ) -> Result<Option<ContainerInspectResponse>, StartFailure> {
        let found = self.existing(launch).await?;
        if found
            .as_ref()
            .is_some_and(|found| stage(found) == Stage::Created)
        {
            self.remove(&container_name(launch)).await;
            return Ok(None);
        }
        Ok(found)
    }

    /// Returns the container of this attempt, which another call makes or has made. Podman takes
    /// the name some milliseconds before the container can be found.
    async fn appearing(
        &self,
        launch: &Launch,
    ) -> Result<Option<ContainerInspectResponse>, StartFailure> {
        let (until, mut patience) = (Instant::now() + APPEARS_WITHIN, StopPatience::new());
        loop {
            match self.existing(launch).await? {
                None if Instant::now() < until => patience.pause().await,
                found => return Ok(found),
            }
        }
    }

    async fn take_over(
        &self,
        launch: &Launch,
        found: ContainerInspectResponse,
    ) -> Result<StartedTask, StartFailure> {
        let created_at = found
            .created
            .as_deref()
            .and_then(log::timestamp)
            .unwrap_or_else(now);
        let pull = Pull {
            started_at: created_at,
            stopped_at: created_at,
        };
        let image_digest = image::digest_of(&self.docker, &launch.image).await;
        self.started(launch, pull, image_digest).await
    }

    async fn start_new(
        &self,
        launch: &Launch,
        workspace: impl Future<Output = Result<Option<PathBuf>, StartFailure>> + Send,
        unwanted: impl Future<Output = ()> + Send,
    ) -> Result<StartedTask, StartFailure> {
        let unwanted = unwanted.boxed().shared();
        let image = image::fetch(&self.docker, &launch.image, self.foreign(launch.arch));
        let (image, workspace) = tokio::select! {
            biased;
            () = unwanted.clone() => return Err(stopped_before_start()),
            both = async { tokio::try_join!(image, workspace) } => both?,
        };
        let mut limits = Limits::of(launch);
        let workspace = workspace.map(|folder| Workspace {
            folder,
            user: image.user,
        });
        while let Err(not_begun) = self
            .make_and_begin(launch, limits, workspace.as_ref(), unwanted.clone())
            .await
        {
            limits = match not_begun {
                NotBegun::Never(failure) => limits.without(&failure.reason).ok_or(failure)?,
                NotBegun::Unknown(failure) => return Err(failure),
            };
        }
        if limits != Limits::of(launch) {
            self.warn_of_limits(limits);
        }
        self.started(launch, image.pull, image.digest).await
    }

    fn warn_of_limits(&self, limits: Limits) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                memory_limited = limits.memory.is_some(),
                cpu_limited = limits.nano_cpus.is_some(),
                "this container engine cannot enforce all size limits, so runs go without them"
            );
        }
    }

    /// Makes, fills and starts a container, unless another call has done it. Removes it again if
    /// its command surely never ran.
    async fn make_and_begin(
        &self,
        launch: &Launch,
        limits: Limits,
        workspace: Option<&Workspace>,
        unwanted: impl Future<Output = ()> + Send,
    ) -> Result<(), NotBegun> {
        let name = container_name(launch);
        // No engine can "start unless it has run". Without the lock, another call could start the
        // container before it is filled, or see it end between a look and a start, and the command
        // would run twice.
        let _turn = turn(&name).lock().await;
        let started = self.started_or_removed(launch).await;
        if started.map_err(NotBegun::Unknown)?.is_some() {
            return Ok(());
        }
        let begun = match self.make(launch, limits, workspace).await {
            Ok(()) => {
                let mut unwanted = pin!(unwanted);
                let filled = tokio::select! {
                    biased;
                    () = &mut unwanted => Err(NotBegun::Never(stopped_before_start())),
                    filled = self.fill(launch, workspace) => filled,
                };
                match filled {
                    // It may have become unwanted at this very moment.
                    Ok(()) if unwanted.now_or_never().is_some() => {
                        Err(NotBegun::Never(stopped_before_start()))
                    }
                    Ok(()) => self.begin_with_program(launch).await,
                    Err(not_filled) => Err(not_filled),
                }
            }
            Err(not_made) => Err(not_made),
        };
        if matches!(begun, Err(NotBegun::Never(_))) {
            self.remove(&name).await;
        }
        begun
    }

    async fn make(
        &self,
        launch: &Launch,
        limits: Limits,
        workspace: Option<&Workspace>,
    ) -> Result<(), NotBegun> {
        let mounts = [self.program.mount()]
            .into_iter()
            .chain(workspace.map(|_| workspace::mount()))
            .chain(launch.keeps_files.then(artifacts::mount));
        let body = body(launch, limits, mounts.collect());
        let mut is_again = false;
        loop {
            failpoint!("container.create.before");
            let created = self
                .docker
                .create_container(Some(self.options(launch)), body.clone())
                .await;
            failpoint!("container.create.after");
            match created {
                Ok(_) => return Ok(()),
                // An earlier call made it, and its answer was lost.
                Err(fault) if is_conflict(&fault) && !is_again => {
                    match self.appearing(launch).await.map_err(NotBegun::Unknown)? {
                        Some(found) if stage(&found) == Stage::Created => {
                            self.remove(&container_name(launch)).await;
                        }
                        _ => return Err(NotBegun::Unknown(cannot_create(&plain(&fault)))),
                    }
                    is_again = true;
                }
                Err(fault) => return Err(NotBegun::Never(cannot_create(&plain(&fault)))),
            }
        }
    }

    /// Brings in what a container needs before its start.
    async fn fill(&self, launch: &Launch, workspace: Option<&Workspace>) -> Result<(), NotBegun> {
        let name = container_name(launch);
        let program = self.program.ensure(&name, &launch.image).await;
        program.map_err(not_filled)?;
        if launch.keeps_files {
            let prepared = artifacts::prepare(&self.docker, &name).await;
            prepared.map_err(|fault| not_filled(plain(&fault)))?;
        }
        let Some(workspace) = workspace else {
            return Ok(());
        };
        let owner = owner::find(&self.docker, &name, &workspace.user).await;
        let owner = owner.map_err(|fault| not_filled(plain(&fault)))?;
        let filled = workspace::fill(&self.docker, &name, &workspace.folder, owner).await;
        filled.map_err(|fault| not_filled(plain(&fault)))
    }

    /// Starts a container that is filled. If the engine cannot find the program, it is brought in
    /// once more.
    async fn begin_with_program(&self, launch: &Launch) -> Result<(), NotBegun> {
        let name = container_name(launch);
        match self.begin(&name).await {
            Err(NotBegun::Never(failure)) if failure.reason.contains(PROGRAM) => {
                self.program.forget().await;
                let program = self.program.ensure(&name, &launch.image).await;
                program.map_err(not_filled)?;
                self.begin(&name).await
            }
            begun => begun,
        }
    }

    /// Starts a container that was made. After a failure its state is read from the engine: a lost
    /// answer is no failure, and a command that may have started is not run again.
    async fn begin(&self, name: &str) -> Result<(), NotBegun> {
        failpoint!("container.start.before");
        let started = self.docker.start_container(name, None).await;
        failpoint!("container.start.after");
        let Err(fault) = started else { return Ok(()) };
        let mut patience = StopPatience::new();
        loop {
            match self.inspect(name).await {
                Ok(found) if stage(&found) == Stage::Created => {
                    return Err(NotBegun::Never(cannot_start(&plain(&fault))));
                }
                Ok(_) => return Ok(()),
                Err(unseen) if is_missing(&unseen) => {
                    return Err(NotBegun::Unknown(unknown(&plain(&fault))));
                }
                Err(unseen) => patience
                    .spend(|| failed("tell of a container")(unseen))
                    .map_err(|error| NotBegun::Unknown(unknown(&error.to_string())))?,
            }
            patience.pause().await;
        }
    }

    async fn started(
        &self,
        launch: &Launch,
        pull: Pull,
        image_digest: Option<String>,
    ) -> Result<StartedTask, StartFailure> {
        let found = self.inspect(&container_name(launch)).await;
        let found = found.map_err(|fault| unknown(&plain(&fault)))?;
        let started_at = found
            .state
            .as_ref()
            .and_then(|state| moment(state.started_at.as_deref()));
        let container_id = found.id.unwrap_or_else(|| container_name(launch));
        Ok(StartedTask {
            container_id,
            image_digest,
            pull,
            started_at: started_at.unwrap_or_else(now),
        })
    }

    /// The architecture to ask for, if it is not the engine's own.
    fn foreign(&self, wanted: Arch) -> Option<Arch> {
        (self.arch != Some(wanted)).then_some(wanted)
    }

    fn options(&self, launch: &Launch) -> CreateContainerOptions {
        let options = CreateContainerOptionsBuilder::new().name(&container_name(launch));
        match self.foreign(launch.arch) {
            Some(arch) => options
                .platform(&format!("linux/{}", architecture(arch)))
                .build(),
            None => options.build(),
        }
    }
}

/// Queries and stops.
impl ContainerRunner {
    async fn stop_once(&self, docker: &Docker, id: &str, grace_seconds: u32) -> Result<(), Fault> {
        let options = StopContainerOptionsBuilder::new()
            .t(i32::try_from(grace_seconds).unwrap_or(i32::MAX))
            .build();
        failpoint!("container.stop.before");
        let stopped = docker.stop_container(id, Some(options)).await;
        failpoint!("container.stop.after");
        match (stopped, self.inspect(id).await) {
            (Ok(()), _) => Ok(()),
            // Podman answers 500 if the container has ended by itself in the meantime.
            (Err(_), Ok(found)) if stage(&found) != Stage::Running => Ok(()),
            (Err(_), Err(unseen)) if is_missing(&unseen) => Ok(()),
            (Err(fault), _) => Err(fault),
        }
    }

    async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, Fault> {
        settled(|| async {
            failpoint!("container.inspect.before");
            let found = self.docker.inspect_container(id, None).await;
            failpoint!("container.inspect.after");
            found
        })
        .await
    }
}

/// Counts how long an engine has been failing, and paces the retries.
struct StopPatience {
    rounds: u32,
    failing_since: Option<Instant>,
}

impl StopPatience {
    fn new() -> Self {
        Self {
            rounds: 0,
            failing_since: None,
        }
    }

    fn reset(&mut self) {
        self.failing_since = None;
    }

    /// Fails with `error` once only failures have been seen for [`OUTAGE_MAX`].
    fn spend(&mut self, error: impl FnOnce() -> EngineError) -> Result<(), EngineError> {
        if self.is_spent() {
            Err(error())
        } else {
            Ok(())
        }
    }

    /// Counts a failure. Returns whether the time is over.
    fn is_spent(&mut self) -> bool {
        self.failing_since
            .get_or_insert_with(Instant::now)
            .elapsed()
            > OUTAGE_MAX
    }

    async fn pause(&mut self) {
        tokio::time::sleep(PAUSE.pause(self.rounds, System.bits())).await;
        self.rounds = self.rounds.saturating_add(1);
    }
}

/// Repeats a query while a container is between two states. Between a process's end and the record
/// of that end, Podman names a state that Docker's API does not have ("stopped"), or fails to read
/// about the process ("no such process").
async fn settled<T, F: Future<Output = Result<T, Fault>>>(ask: impl Fn() -> F) -> Result<T, Fault> {
    let mut patience = StopPatience::new();
    loop {
        match ask().await {
            Err(fault) if is_between_states(&fault) && !patience.is_spent() => {
                patience.pause().await;
            }
            answer => return answer,
        }
    }
}

/// Repeats a call, which may be made twice, while the engine does not answer, for [`OUTAGE_MAX`].
async fn persistently<T, F: Future<Output = Result<T, Fault>>>(
    call: impl Fn() -> F,
) -> Result<T, Fault> {
    let mut patience = StopPatience::new();
    loop {
        match call().await {
            Err(fault) if is_unanswered(&fault) && !patience.is_spent() => {
                patience.pause().await;
            }
            answer => return answer,
        }
    }
}

/// Whether a call has no answer: the engine cannot be reached, or the connection broke.
fn is_unanswered(fault: &Fault) -> bool {
    !matches!(
        fault,
        Fault::DockerResponseServerError { .. }
            | Fault::DockerStreamError { .. }
            | Fault::JsonDataError { .. }
    )
}

fn is_between_states(fault: &Fault) -> bool {
    match fault {
        Fault::JsonDataError { .. } => true,
        Fault::DockerResponseServerError {
            status_code: 500,
            message,
        } => message.contains("no such process"),
        _ => false,
    }
}

/// The files that a container gets.
struct Workspace {
    folder: PathBuf,
    /// The user of the image.
    user: String,
}

/// Why a container does not run.
enum NotBegun {
    /// Its command surely never ran.
    Never(StartFailure),
    /// The engine cannot tell whether its command ran.
    Unknown(StartFailure),
}

/// The stage of a container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Made, and never started.
    Created,
    /// Started and not ended. A paused container counts.
    Running,
    /// Exited or dead.
    Ended,
}

fn stage(found: &ContainerInspectResponse) -> Stage {
    match found.state.as_ref() {
        Some(ContainerState {
            status: Some(Status::CREATED),
            ..
        }) => Stage::Created,
        Some(ContainerState {
            status: Some(Status::EXITED | Status::DEAD),
            ..
        }) => Stage::Ended,
        _ => Stage::Running,
    }
}

/// Returns how the container ended, if it has. A container that was never started counts as ended,
/// because it will not start while a caller waits for it.
fn ended(found: &ContainerInspectResponse) -> Option<TaskEnd> {
    let state = found.state.as_ref()?;
    match stage(found) {
        Stage::Running => None,
        Stage::Created => Some(TaskEnd {
            exit_code: None,
            reason: Some(format!(
                "CannotStartContainerError: {}",
                said(state).unwrap_or("the container was never started")
            )),
            stopped_at: now(),
        }),
        Stage::Ended => Some(TaskEnd {
            exit_code: state.exit_code.and_then(|code| i32::try_from(code).ok()),
            reason: reason(state),
            stopped_at: stopped_at(state),
        }),
    }
}

/// The reason for the container's end. A process that the kernel killed for its use of memory is no
/// reason if the command succeeded.
fn reason(state: &ContainerState) -> Option<String> {
    if state.oom_killed == Some(true) && state.exit_code != Some(0) {
        return Some(OUT_OF_MEMORY.to_owned());
    }
    said(state).map(|error| format!("ContainerRuntimeError: {error}"))
}

fn said(state: &ContainerState) -> Option<&str> {
    state.error.as_deref().filter(|error| !error.is_empty())
}

/// The end is never before the start. Podman may give an end some milliseconds earlier.
fn stopped_at(state: &ContainerState) -> Timestamp {
    let stopped_at = moment(state.finished_at.as_deref()).unwrap_or_else(now);
    moment(state.started_at.as_deref()).map_or(stopped_at, |started_at| stopped_at.max(started_at))
}

/// Reads an engine's time. The year 1 stands for a time that has not come.
fn moment(text: Option<&str>) -> Option<Timestamp> {
    text.and_then(log::timestamp)
        .filter(|at| at.timestamp() > 0)
}

fn now() -> Timestamp {
    chrono::Utc::now().trunc_subsecs(3)
}

fn label(found: &ContainerInspectResponse) -> Option<&str> {
    found
        .config
        .as_ref()?
        .labels
        .as_ref()?
        .get(TASK_LABEL)
        .map(String::as_str)
}

/// The container's name. Names may hold letters, digits, `_`, `.` and `-`, as attempt ids do.
fn container_name(launch: &Launch) -> String {
    format!("mycli-{}", launch.attempt)
}

fn arch_named(name: &str) -> Option<Arch> {
    match name {
        "arm64" | "aarch64" => Some(Arch::Arm64),
        "amd64" | "x86_64" => Some(Arch::X86_64),
        _ => None,
    }
}

fn cannot_create(reason: &str) -> StartFailure {
    StartFailure::never(format!("CannotCreateContainerError: {reason}"))
}

fn not_filled(reason: impl std::fmt::Display) -> NotBegun {
    NotBegun::Never(cannot_create(&format!("it cannot be filled: {reason}")))
}

fn stopped_before_start() -> StartFailure {
    StartFailure::never("it was stopped before its container was started")
}

fn cannot_start(reason: &str) -> StartFailure {
    StartFailure::never(format!("CannotStartContainerError: {reason}"))
}

/// A failure with wording that matches no rule for causes that a retry could fix.
fn unknown(reason: &str) -> StartFailure {
    StartFailure::unknown(format!(
        "ContainerEngineError: whether the command has started is not known: {reason}"
    ))
}

/// Removes secret values from the reason, because an engine may repeat its input.
fn without_secrets(failure: StartFailure, launch: &Launch) -> StartFailure {
    let values = launch
        .secrets
        .iter()
        .map(|(_, value)| value.expose_secret())
        .filter(|value| !value.is_empty());
    StartFailure {
        reason: values.fold(failure.reason, |reason, value| reason.replace(value, "***")),
        ..failure
    }
}

fn body(launch: &Launch, limits: Limits, mounts: Vec<Mount>) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(launch.image.to_string()),
        entrypoint: Some(vec![ProgramVolume::path(), "run".to_owned()]),
        cmd: Some(Vec::new()),
        env: Some(variables(launch)),
        labels: Some(HashMap::from([(
            TASK_LABEL.to_owned(),
            launch.task_arn.clone(),
        )])),
        // These go before the image's own. The runner passes TERM on. A health check would be given
        // the runner's variables, and would show them.
        stop_signal: Some("SIGTERM".to_owned()),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        tty: Some(false),
        open_stdin: Some(false),
        attach_stdin: Some(false),
        host_config: Some(host_config(limits, mounts)),
        ..ContainerCreateBody::default()
    }
}

/// Secrets come last, so that no plain variable of the same name hides one.
fn variables(launch: &Launch) -> Vec<String> {
    let plain = launch
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let secret = launch
        .secrets
        .iter()
        .map(|(name, value)| format!("{name}={}", value.expose_secret()));
    plain.chain(secret).collect()
}

fn host_config(limits: Limits, mounts: Vec<Mount>) -> HostConfig {
    HostConfig {
        memory: limits.memory,
        memory_swap: limits.memory,
        nano_cpus: limits.nano_cpus,
        mounts: Some(mounts),
        // Set explicitly, because an engine's default may keep no log that can be read back (a
        // remote driver), or drop lines (journald).
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([("max-size".to_owned(), LOG_MAX.to_owned())])),
        }),
        ..HostConfig::default()
    }
}
