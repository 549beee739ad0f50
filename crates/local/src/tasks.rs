//! The stand-in for ECS on one machine. It takes `RunTask` calls, records each task before anything
//! of it runs, follows the task to its end, and reports every step as ECS's own JSON.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{
    Timestamp,
    ecs::{self, CONTAINER, Container, RunTaskInput, StopCode, Task},
    id::AttemptId,
    ports::{self, Clock, Described, LaunchError, LogLine, PortError, Tasks},
    request::{ImageRef, Place, RepoUrl},
    script,
    stored::Unknown,
    task::{SecretMapping, TaskDefinition},
};
use rustix::process::Signal;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, mpsc, watch};

use crate::{
    container::ContainerRunner,
    database::{Database, TaskRow},
    form,
    host::{self, HostRunner, Running, Shell, is_for_want_of_room},
    log_file::{LocalLogs, LogWriter},
    process::ProcessId,
    remains::Remains,
    runner::{Launch, StartFailure, TaskEnd},
    secrets,
    system::System,
};

/// The names of a task's stored parts in errors.
const TASK: &str = "a task's record";
const RUNTIME: &str = "a task's whereabouts";
const DEFINITION: &str = "a task's definition";
/// The cluster's name in ARNs.
pub const CLUSTER: &str = "local";
const ARN_PREFIX: &str = "arn:aws:ecs:local:000000000000";
/// How long after TERM the task is killed: the script's own grace of 10 s, plus time for it to
/// finish (DESIGN §6).
const STOP_SECONDS: u32 = 15;

/// The process or container of a task, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Runtime {
    Process(ProcessId),
    Container(String),
}

/// A message for the state tracker.
#[derive(Clone, Debug)]
pub enum TaskReport {
    /// A task changed.
    Changed(Box<Task>),
    /// Marker lines were written to this task's log.
    Lines(String, Vec<LogLine>),
}

impl TaskReport {
    /// The ARN of the task it is about.
    #[must_use]
    pub fn arn(&self) -> &str {
        match self {
            Self::Changed(task) => &task.task_arn,
            Self::Lines(arn, _) => arn,
        }
    }
}

/// The settings for running tasks.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The directory that holds the tasks' own directories.
    pub tasks_dir: PathBuf,
    /// The notes about tasks' files that could not be removed.
    pub remains: Remains,
    /// The user's home directory, which holds the container engine's configuration.
    pub home: PathBuf,
    /// The values of secrets.
    pub secrets: secrets::SecretFiles,
    /// Whether tasks run on the host even if they name an image.
    pub host_only: bool,
}

/// ECS on one machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalTasks(Arc<TasksInner>);

#[derive(Debug)]
struct TasksInner {
    database: Database,
    logs: LocalLogs,
    setup: Setup,
    host: HostRunner,
    engine: OnceCell<ContainerRunner>,
    reports: mpsc::UnboundedSender<TaskReport>,
    followed: Mutex<HashMap<String, watch::Sender<()>>>,
    /// The hashes of the definitions that are on record.
    definitions: Mutex<HashSet<String>>,
    changed: watch::Sender<()>,
    /// How many writes about tasks are under way. A task counts until its record is written and, if
    /// it is over, cleaned up.
    closing: watch::Sender<usize>,
}

/// How long to wait before a failed read or write is tried again. The usual cause is a full disk,
/// and nobody frees one faster than in 1 s.
const AGAIN: Duration = Duration::from_secs(1);

async fn again_soon(job: &Job, error: &(impl std::fmt::Display + Sync)) {
    tracing::warn!(task = job.arn(), %error, "what becomes of a task cannot be written down; trying again");
    tokio::time::sleep(AGAIN).await;
}

/// Why a task cannot be followed any more.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Store(#[from] PortError),
    #[error("the task's output or log failed: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Engine(String),
    /// Another follower has closed the task. Its record stays as it is.
    #[error("the task is closed already")]
    Closed,
}

impl LocalTasks {
    /// Makes the tasks of this machine. Each of their changes is sent to `reports`, and `changed`
    /// is notified of every log line and step.
    #[must_use]
    pub fn new(
        database: Database,
        logs: LocalLogs,
        setup: Setup,
        reports: mpsc::UnboundedSender<TaskReport>,
        changed: watch::Sender<()>,
    ) -> Self {
        let host = HostRunner::new(setup.tasks_dir.clone(), setup.remains.clone());
        let (engine, followed, definitions) = (OnceCell::new(), Mutex::default(), Mutex::default());
        let closing = watch::Sender::new(0);
        Self(Arc::new(TasksInner {
            database,
            logs,
            setup,
            host,
            engine,
            reports,
            followed,
            definitions,
            changed,
            closing,
        }))
    }

    /// Follows every task of this worker that is not stopped and has no follower yet. Returns how
    /// many tasks of this worker are not stopped.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn resume(&self) -> Result<usize, PortError> {
        let rows = self.0.database.open_tasks().await?;
        let count = rows.len();
        for row in rows {
            self.follow_in_background(row.arn, TaskOrigin::FoundAgain);
        }
        Ok(count)
    }

    /// Notifies the followers of tasks that another process wants stopped.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn look_for_stops(&self) -> Result<(), PortError> {
        let arns = self.0.database.to_be_stopped().await?;
        arns.iter().for_each(|arn| self.tell_to_stop(arn));
        Ok(())
    }

    /// Notifies the task's follower, which reads the reason from the store.
    fn tell_to_stop(&self, arn: &str) {
        let followed = self
            .0
            .followed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(stop) = followed.get(arn) {
            let _nobody_listens = stop.send(());
        }
    }

    /// Resolves once every task with a recorded end is cleaned up.
    pub async fn closed(&self) {
        // The sender lives in `self`, so it cannot be gone.
        let mut closing = self.0.closing.subscribe();
        let _never_gone = closing.wait_for(|closing| *closing == 0).await;
    }

    /// Removes the directories of tasks that are over. Such a directory is left by a process that
    /// died after it recorded the end and before it removed the directory, and by a removal that
    /// failed. Returns the directories that still cannot be removed, in words.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn tidy(&self) -> Result<Vec<String>, PortError> {
        // The directories are listed first, because a task is recorded before it gets a directory.
        let ids = self
            .0
            .host
            .task_ids()
            .map_err(|error| PortError::unavailable("the tasks' directory", error))?;
        let open = self.0.database.every_open_task().await?;
        let over = ids.iter().filter(|id| !open.contains(&arn_of(id)));
        Ok(over.filter_map(|id| self.0.host.clean_up(id)).collect())
    }

    /// The notes about files of ended tasks that could not be removed.
    #[must_use]
    pub fn remains(&self) -> Remains {
        self.0.setup.remains.clone()
    }

    /// Removes the logs of tasks that have no record any more.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn prune_logs(&self) -> Result<(), PortError> {
        // The logs are listed first, for the same reason as in `tidy`.
        let ids = self
            .0
            .logs
            .task_ids()
            .map_err(|error| PortError::unavailable("the logs' directory", error))?;
        let known = self
            .0
            .database
            .recorded_tasks(ids.iter().map(|id| arn_of(id)).collect())
            .await?;
        for id in ids.iter().filter(|id| !known.contains(&arn_of(id))) {
            if let Err(error) = fs::remove_file(self.0.logs.path(id)) {
                tracing::warn!(task_id = id, %error, "a log cannot be removed");
            }
        }
        Ok(())
    }

    /// Whether a task that is recorded as running is over: its process ended while no follower was
    /// there, and the end is about to be recorded.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn any_dead(&self) -> Result<bool, PortError> {
        let rows = self.0.database.open_tasks().await?;
        let mut runtimes = rows
            .iter()
            .filter_map(|row| form::parsed(RUNTIME, row.runtime.as_deref()?).ok());
        Ok(runtimes.any(|runtime: Runtime| match runtime {
            Runtime::Process(process) => !process.is_alive(),
            Runtime::Container(_) => false,
        }))
    }

    /// Takes no row. The follower reads the row itself once no other follower can close the task.
    fn follow_in_background(&self, arn: String, origin: TaskOrigin) {
        let (ask, stop) = watch::channel(());
        let mut followed = self
            .0
            .followed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if followed.contains_key(&arn) {
            return;
        }
        followed.insert(arn.clone(), ask);
        drop(followed);
        tokio::spawn(Arc::clone(&self.0).see_to_its_end(arn, origin, stop));
    }
}

/// Why a task gets a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskOrigin {
    /// This process was asked to run it.
    New,
    /// The task was found in the store. The store may lack the latest step of its earlier follower.
    FoundAgain,
}

/// A task that is being followed.
struct Job {
    task: Task,
    input: RunTaskInput,
    definition: TaskDefinition,
    /// The nonce in its marker lines.
    nonce: String,
    /// The image it runs in; `None` on the host.
    image: Option<ImageRef>,
    /// The process or container that it was seen running in.
    runtime: Option<Runtime>,
}

impl Job {
    /// A task stays where it began to run (host or container), whatever `host_only` says now.
    fn of(row: &TaskRow, host_only: bool) -> Result<Self, FollowError> {
        let (input, definition): (RunTaskInput, TaskDefinition) = (
            form::parsed(TASK, &row.input)?,
            form::parsed(DEFINITION, &row.definition)?,
        );
        let runtime: Option<Runtime> = row
            .runtime
            .as_deref()
            .map(|json| form::parsed(RUNTIME, json))
            .transpose()?;
        let on_host = match &runtime {
            Some(Runtime::Process(_)) => true,
            Some(Runtime::Container(_)) => false,
            None => host_only,
        };
        let image = definition.image.clone().filter(|_| !on_host);
        let nonce = variable(&input, script::variable::NONCE);
        Ok(Self {
            task: form::parsed(TASK, &row.task)?,
            definition,
            input,
            nonce,
            image,
            runtime,
        })
    }

    /// The id of its container, if it ran in one.
    fn container_id(&mut self) -> Option<String> {
        self.image.as_ref()?;
        self.container().runtime_id.clone()
    }

    fn arn(&self) -> &str {
        &self.task.task_arn
    }

    fn id(&self) -> &str {
        task_id(&self.task.task_arn)
    }

    fn container(&mut self) -> &mut Container {
        if self.task.containers.is_empty() {
            self.task.containers.push(Container {
                name: CONTAINER.into(),
                ..Container::default()
            });
        }
        &mut self.task.containers[0]
    }

    fn runs_since(&mut self, at: Timestamp, runtime_id: String) {
        (self.task.started_at, self.task.last_status) = (Some(at), ecs::RUNNING.into());
        let container = self.container();
        (container.last_status, container.runtime_id) =
            (Some(ecs::RUNNING.into()), Some(runtime_id));
    }
}

impl TasksInner {
    /// Follows a task and closes it in every case.
    async fn see_to_its_end(
        self: Arc<Self>,
        arn: String,
        origin: TaskOrigin,
        stop: watch::Receiver<()>,
    ) {
        match self.follow_unless_closed(&arn, origin, stop).await {
            Ok(()) => {}
            Err(FollowError::Closed) => {
                tracing::info!(task = %arn, "a task was closed by somebody else");
            }
            Err(error) => {
                tracing::error!(task = %arn, %error, "a task cannot be followed");
                self.give_up(arn.clone(), error).await;
            }
        }
        self.followed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&arn);
        self.changed.send_replace(());
    }

    /// Follows the task unless it is closed. The caller is registered as the task's follower. An
    /// earlier follower may have closed the task before that and removed its output, so the row is
    /// read only now.
    async fn follow_unless_closed(
        &self,
        arn: &str,
        origin: TaskOrigin,
        stop: watch::Receiver<()>,
    ) -> Result<(), FollowError> {
        match self.open_row(arn).await? {
            Some(row) => self.follow(row, origin, stop).await,
            None => Ok(()),
        }
    }

    /// Returns the task's row as it is now, unless the task is closed. Waits while the store does
    /// not answer.
    async fn open_row(&self, arn: &str) -> Result<Option<TaskRow>, PortError> {
        loop {
            match self.database.task(arn).await {
                Ok(row) => return Ok(row.filter(|row| row.open)),
                Err(error) if error.may_pass() => {
                    tracing::warn!(task = arn, %error, "a task's record cannot be read; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Follows a task from its current state to its end.
    async fn follow(
        &self,
        row: TaskRow,
        origin: TaskOrigin,
        stop: watch::Receiver<()>,
    ) -> Result<(), FollowError> {
        let mut job = Job::of(&row, self.setup.host_only)?;
        let runtime = job.runtime.take();
        // The earlier process may have run without `host_only`, and may have got as far as a
        // container.
        if origin == TaskOrigin::FoundAgain
            && runtime.is_none()
            && job.image.is_none()
            && self.may_have_container(&job).await
        {
            job.image.clone_from(&job.definition.image);
        }
        if job.task.last_status == ecs::DEPROVISIONING {
            return self.close(&mut job).await;
        }
        // If a stop was requested before anything ran, nothing needs to run.
        let stop_asked = runtime.is_none() && self.stop_reason(job.arn()).await.is_some();
        if stop_asked && !(job.image.is_some() && self.may_have_container(&job).await) {
            return self
                .stopped(
                    &mut job,
                    TaskEnd {
                        exit_code: None,
                        reason: None,
                        stopped_at: System.now(),
                    },
                )
                .await;
        }
        let ended = match (job.image.clone(), runtime) {
            (None, runtime) => self.follow_process(&mut job, runtime, stop).await?,
            (Some(_), Some(Runtime::Container(id))) => {
                Ok(self.follow_container(&job, &id, stop).await?)
            }
            (Some(image), _) => match self.start_container(&mut job, image, stop.clone()).await? {
                Ok(id) => Ok(self.follow_container(&job, &id, stop).await?),
                Err(failure) => Err(failure),
            },
        };
        match ended {
            Ok(ended) => self.stopped(&mut job, ended).await,
            Err(failure)
                if failure.may_have_started || self.stop_reason(job.arn()).await.is_some() =>
            {
                let reason = Some(failure.reason);
                self.stopped(
                    &mut job,
                    TaskEnd {
                        exit_code: None,
                        reason,
                        stopped_at: System.now(),
                    },
                )
                .await
            }
            Err(failure) => {
                self.over(
                    &mut job,
                    StopCode::TaskFailedToStart,
                    Some(failure.reason),
                    System.now(),
                )
                .await
            }
        }
    }

    async fn follow_process(
        &self,
        job: &mut Job,
        runtime: Option<Runtime>,
        stop: watch::Receiver<()>,
    ) -> Result<Result<TaskEnd, StartFailure>, FollowError> {
        if let Some(Runtime::Process(process)) = runtime {
            let ended = self
                .follow_running(job, Running::Found(process), stop.clone())
                .await?;
            let never_started = ended.reason.as_deref() == Some(host::NEVER_STARTED);
            if !never_started || self.stop_reason(job.arn()).await.is_some() {
                return Ok(Ok(ended));
            }
            // The command surely never began, so this is not a second start.
        }
        match self.start_process(job).await? {
            Ok(running) => self.follow_running(job, running, stop).await.map(Ok),
            Err(failure) => Ok(Err(failure)),
        }
    }

    async fn follow_running(
        &self,
        job: &Job,
        mut running: Running,
        stop: watch::Receiver<()>,
    ) -> Result<TaskEnd, FollowError> {
        let process = running.process().clone();
        let follow = async {
            loop {
                // A log that is opened again knows how much output it holds.
                let followed = match LogWriter::open(&self.logs.path(job.id())) {
                    Ok(mut log) => {
                        let (id, attempt, told) = (job.id(), &job.input.started_by, |lines| {
                            self.wrote(job, lines);
                        });
                        self.host
                            .follow(id, attempt, &job.nonce, &mut running, &mut log, told)
                            .await
                    }
                    Err(error) => Err(error),
                };
                match followed {
                    Err(error) if is_for_want_of_room(&error) => again_soon(job, &error).await,
                    ended => return ended,
                }
            }
        };
        tokio::select! {
            ended = follow => Ok(ended?),
            never = self.stop_process(job, &process, stop) => match never {},
        }
    }

    /// Starts the process, records it, and only then lets it pass its gate.
    async fn start_process(
        &self,
        job: &mut Job,
    ) -> Result<Result<Running, StartFailure>, FollowError> {
        let secrets = match self.secret_values(&job.definition) {
            Ok(secrets) => secrets,
            Err(failure) => return Ok(Err(failure)),
        };
        let shell = Shell {
            entry_point: job.definition.entry_point.clone(),
            command: job.definition.command.clone(),
            environment: environment(&job.input),
            secrets,
        };
        let gated = match self.host.start(job.id(), &shell).await {
            Ok(gated) => gated,
            Err(failure) => return Ok(Err(failure)),
        };
        job.runs_since(System.now(), gated.process.pid.to_string());
        self.record(job, Some(&Runtime::Process(gated.process.clone())))
            .await?;
        Ok(gated
            .release()
            .await
            .map_err(|error| StartFailure::never(format!("CannotStartProcessError: {error}"))))
    }

    /// Starts the container, or finds the one that was started for this attempt before. Then
    /// records it.
    async fn start_container(
        &self,
        job: &mut Job,
        image: ImageRef,
        stop: watch::Receiver<()>,
    ) -> Result<Result<String, StartFailure>, FollowError> {
        let started = match (self.engine().await, self.launch(job, image)) {
            (Ok(engine), Ok(launch)) => {
                engine
                    .start_unless(&launch, self.stop_asked(job.arn(), stop))
                    .await
            }
            (Err(reason), _) => Err(StartFailure::never(reason)),
            (_, Err(failure)) => Err(failure),
        };
        let started = match started {
            Ok(started) => started,
            Err(failure) => return Ok(Err(failure)),
        };
        (job.task.pull_started_at, job.task.pull_stopped_at) =
            (Some(started.pull.started_at), Some(started.pull.stopped_at));
        job.runs_since(started.started_at, started.container_id.clone());
        job.container().image_digest = started.image_digest;
        self.record(job, Some(&Runtime::Container(started.container_id.clone())))
            .await?;
        Ok(Ok(started.container_id))
    }

    async fn follow_container(
        &self,
        job: &Job,
        id: &str,
        stop: watch::Receiver<()>,
    ) -> Result<TaskEnd, FollowError> {
        let engine = self.engine().await.map_err(FollowError::Engine)?;
        let follow = async {
            loop {
                match self.follow_log(job, engine, id).await {
                    Err(FollowError::Io(error)) if is_for_want_of_room(&error) => {
                        again_soon(job, &error).await;
                    }
                    ended => return ended,
                }
            }
        };
        tokio::select! {
            ended = follow => ended,
            never = self.stop_container(job, engine, id, stop) => match never {},
        }
    }

    /// Follows a container from the point that this machine's log has reached.
    async fn follow_log(
        &self,
        job: &Job,
        engine: &ContainerRunner,
        id: &str,
    ) -> Result<TaskEnd, FollowError> {
        let mut log = LogWriter::open(&self.logs.path(job.id()))?;
        let (seen, mut failure) = (log.taken(), None);
        // After a part that cannot be written, no later part is written either. Otherwise the log
        // would have a hole.
        let follow = engine.follow(id, seen, |at, bytes| {
            if failure.is_none() {
                match log.append(at, bytes) {
                    Ok(lines) => self.wrote(job, lines),
                    Err(error) => failure = Some(error),
                }
            }
        });
        let ended = follow
            .await
            .map_err(|error| FollowError::Engine(error.to_string()))?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let last = log.finish(ended.stopped_at)?;
        self.wrote(job, last.into_iter().collect());
        Ok(ended)
    }

    /// When a stop is requested: sends TERM to the script, which passes it on, and KILL to
    /// everything after [`STOP_SECONDS`].
    async fn stop_process(
        &self,
        job: &Job,
        process: &ProcessId,
        stop: watch::Receiver<()>,
    ) -> Infallible {
        self.stop_asked(job.arn(), stop).await;
        process.signal(Signal::TERM);
        tokio::time::sleep(Duration::from_secs(STOP_SECONDS.into())).await;
        host::kill(process, &job.input.started_by).await;
        std::future::pending().await
    }

    /// When a stop is requested: does the same through the engine.
    async fn stop_container(
        &self,
        job: &Job,
        engine: &ContainerRunner,
        id: &str,
        stop: watch::Receiver<()>,
    ) -> Infallible {
        self.stop_asked(job.arn(), stop).await;
        engine.stop(id, STOP_SECONDS).await;
        std::future::pending().await
    }

    /// Resolves once a stop is requested.
    async fn stop_asked(&self, arn: &str, mut stop: watch::Receiver<()>) {
        loop {
            stop.mark_unchanged();
            if self.stop_reason(arn).await.is_some() {
                return;
            }
            if stop.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn stop_reason(&self, arn: &str) -> Option<String> {
        self.database.stop_requested(arn).await.ok().flatten()
    }

    /// Records the end of the task, with its cause in ECS's words.
    async fn stopped(&self, job: &mut Job, ended: TaskEnd) -> Result<(), FollowError> {
        let (code, reason) = match self.stop_reason(job.arn()).await {
            Some(reason) => (StopCode::UserInitiated, Some(reason)),
            None => (
                StopCode::EssentialContainerExited,
                Some("Essential container in task exited".to_owned()),
            ),
        };
        let container = job.container();
        (container.exit_code, container.reason) = (ended.exit_code, ended.reason);
        self.over(job, code, reason, ended.stopped_at).await
    }

    /// Records the end, and closes the task once nothing is left that a crash could leave behind
    /// for good.
    async fn over(
        &self,
        job: &mut Job,
        code: StopCode,
        reason: Option<String>,
        at: Timestamp,
    ) -> Result<(), FollowError> {
        let task = &mut job.task;
        (task.stop_code, task.stopped_reason) = (Some(code), reason);
        (task.last_status, task.desired_status) = (ecs::DEPROVISIONING.into(), ecs::STOPPED.into());
        (task.execution_stopped_at, task.stopped_at) = (Some(at), Some(at));
        job.container().last_status = Some(ecs::STOPPED.into());
        // Once a container is removed, its exit code is stored nowhere else.
        if job.container_id().is_some() {
            self.write_down(job, None, |_| {}).await?;
        }
        self.close(job).await
    }

    /// Closes the task. A container is removed before that, because nothing looks for the
    /// containers of closed tasks. A directory is removed after that, because it holds the exit
    /// code; if this process dies in between, the next takeover finds the directory again
    /// ([`LocalTasks::tidy`]).
    async fn close(&self, job: &mut Job) -> Result<(), FollowError> {
        if let Some(id) = job.container_id() {
            match self.engine().await {
                Ok(engine) => engine.remove(&id).await,
                Err(error) => {
                    tracing::warn!(container = id, error, "a container cannot be removed");
                }
            }
        }
        job.task.last_status = ecs::STOPPED.into();
        let clean_up = |job: &Job| {
            self.report(job);
            if job.image.is_none() {
                // A directory that cannot be removed is noted in `remains`.
                let _left = self.host.clean_up(job.id());
            }
        };
        self.write_down(job, None, clean_up).await
    }

    /// Records a task that cannot be followed as failed with its host, which is the truth.
    async fn give_up(&self, arn: String, error: FollowError) {
        let Ok(Some(row)) = self.open_row(&arn).await else {
            return;
        };
        let Ok(mut job) = Job::of(&row, self.setup.host_only) else {
            return;
        };
        let reason = Some(format!("this machine could not follow it: {error}"));
        if let Err(error) = self
            .over(
                &mut job,
                StopCode::InfrastructureHealth,
                reason,
                System.now(),
            )
            .await
        {
            tracing::error!(task = %arn, %error, "a task cannot be closed; the next start will");
        }
    }

    /// Writes the task's next version, and then reports it.
    async fn record(&self, job: &mut Job, runtime: Option<&Runtime>) -> Result<(), FollowError> {
        self.write_down(job, runtime, |job| self.report(job)).await
    }

    fn report(&self, job: &Job) {
        let _nobody_listens = self
            .reports
            .send(TaskReport::Changed(Box::new(job.task.clone())));
    }

    /// Writes the task's next version, however long that takes (a disk may be full for an hour),
    /// because no one else knows this state of the task. An orderly shutdown waits for one such
    /// write and for `then`. It does not wait for a store that cannot be written.
    ///
    /// # Errors
    /// [`FollowError::Closed`] when another follower has closed the task. Then nothing is written,
    /// and `then` is not called.
    async fn write_down(
        &self,
        job: &mut Job,
        runtime: Option<&Runtime>,
        then: impl Fn(&Job),
    ) -> Result<(), FollowError> {
        job.task.version += 1;
        let runtime = runtime
            .map(|runtime| form::json(runtime, &Unknown::default()))
            .transpose()?;
        let task = form::json(&job.task, &Unknown::default())?;
        let is_over = job.task.last_status == ecs::STOPPED;
        loop {
            self.closing.send_modify(|closing| *closing += 1);
            let written = self
                .database
                .update_task(job.arn(), runtime.clone(), task.clone(), is_over)
                .await;
            if matches!(written, Ok(true)) {
                then(job);
            }
            self.closing.send_modify(|closing| *closing -= 1);
            match written {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(FollowError::Closed),
                Err(error) => again_soon(job, &error).await,
            }
        }
    }

    fn wrote(&self, job: &Job, lines: Vec<LogLine>) {
        if lines.is_empty() {
            return;
        }
        let is_marker = |line: &LogLine| domain::marker::split(&job.nonce, &line.text).1.is_some();
        let markers: Vec<_> = lines.into_iter().filter(is_marker).collect();
        if !markers.is_empty() {
            let _nobody_listens = self
                .reports
                .send(TaskReport::Lines(job.arn().to_owned(), markers));
        }
        self.changed.send_replace(());
    }

    fn launch(&self, job: &Job, image: ImageRef) -> Result<Launch, StartFailure> {
        let repo = RepoUrl::parse(
            &variable(&job.input, script::variable::REPO),
            Place::OneMachine,
        )
        .ok();
        Ok(Launch {
            task_arn: job.arn().to_owned(),
            attempt: job.input.started_by.clone(),
            image,
            entry_point: job.definition.entry_point.clone(),
            command: job.definition.command.clone(),
            environment: environment(&job.input),
            secrets: self.secret_values(&job.definition)?,
            cpu: job.input.overrides.cpu.parse().unwrap_or_default(),
            memory: job.input.overrides.memory.parse().unwrap_or_default(),
            mounts: repo
                .and_then(|repo| repo.local_path())
                .into_iter()
                .collect(),
            arch: job.definition.arch,
        })
    }

    fn secret_values(
        &self,
        definition: &TaskDefinition,
    ) -> Result<Vec<(String, SecretString)>, StartFailure> {
        let value_of = |mapping: &SecretMapping| {
            let name = &mapping.value_from;
            let failed = |why: String| {
                StartFailure::never(format!(
                    "ResourceInitializationError: unable to retrieve secret {name}: {why}"
                ))
            };
            match self.setup.secrets.value(name) {
                Ok(Some(value)) => Ok((mapping.name.clone(), value)),
                Ok(None) => Err(failed(ports::Secrets::how_to_set(
                    &self.setup.secrets,
                    name,
                ))),
                Err(error) => Err(failed(error.to_string())),
            }
        };
        definition.secrets.iter().map(value_of).collect()
    }

    async fn engine(&self) -> Result<&ContainerRunner, String> {
        let connect = || ContainerRunner::connect(from_environment, &self.setup.home);
        self.engine
            .get_or_try_init(connect)
            .await
            .map_err(|error| error.to_string())
    }

    async fn may_have_container(&self, job: &Job) -> bool {
        if job.definition.image.is_none() {
            return false;
        }
        match self.engine().await {
            Ok(engine) => !matches!(engine.find(job.arn()).await, Ok(None)),
            Err(_) => false,
        }
    }
}

impl Tasks for LocalTasks {
    async fn register_definition(
        &self,
        definition: &TaskDefinition,
    ) -> Result<String, LaunchError> {
        let hash = definition.content_hash();
        let arn = format!("{ARN_PREFIX}:task-definition/mycli:{hash}");
        if !self.0.known(&hash) {
            self.0.database.ensure_definition(&hash, definition).await?;
            self.0
                .definitions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(hash);
        }
        Ok(arn)
    }

    async fn run_task(&self, input: &RunTaskInput) -> Result<Task, LaunchError> {
        let definition = input.task_definition.rsplit(':').next().unwrap_or_default();
        let row = self
            .0
            .database
            .insert_task(input, definition, &new_task(input))
            .await?;
        let task: Task = form::parsed(TASK, &row.task)?;
        if task.last_status != ecs::STOPPED {
            self.follow_in_background(row.arn, TaskOrigin::New);
        }
        Ok(task)
    }

    async fn stop_task(&self, task_arn: &str, reason: &str) -> Result<(), PortError> {
        self.0.database.request_stop(task_arn, reason).await?;
        self.tell_to_stop(task_arn);
        Ok(())
    }

    async fn describe_tasks(&self, task_arns: &[String]) -> Result<Described, PortError> {
        let mut described = Described::default();
        for arn in task_arns {
            match self
                .0
                .database
                .task(arn)
                .await?
                .map(|row| form::parsed(TASK, &row.task))
            {
                Some(Ok(task)) => described.tasks.push(task),
                // The task exists, so it is not missing. Its record cannot be read, so nothing may
                // be concluded about it.
                Some(Err(error)) => {
                    tracing::error!(task = arn, %error, "a task cannot be looked at");
                }
                None => described.missing.push(arn.clone()),
            }
        }
        Ok(described)
    }

    async fn list_tasks(&self, started_by: &AttemptId) -> Result<Vec<String>, PortError> {
        self.0.database.tasks_started_by(started_by).await
    }
}

impl TasksInner {
    fn known(&self, hash: &str) -> bool {
        self.definitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(hash)
    }
}

/// Builds the task as `RunTask` answers it. Its id derives from the client token, so the same call
/// names the same task.
fn new_task(input: &RunTaskInput) -> Task {
    let id = hex::encode(&Sha256::digest(&input.client_token)[..16]);
    Task {
        task_arn: arn_of(&id),
        cluster_arn: format!("{ARN_PREFIX}:cluster/{CLUSTER}"),
        task_definition_arn: input.task_definition.clone(),
        last_status: "PROVISIONING".into(),
        desired_status: ecs::RUNNING.into(),
        started_by: Some(input.started_by.clone()),
        containers: vec![Container {
            name: CONTAINER.into(),
            last_status: Some("PENDING".into()),
            ..Container::default()
        }],
        version: 1,
        created_at: Some(System.now()),
        ..Task::default()
    }
}

fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn environment(input: &RunTaskInput) -> Vec<(String, String)> {
    let variables = input
        .overrides
        .container_overrides
        .iter()
        .flat_map(|container| &container.environment);
    let map: BTreeMap<_, _> = variables
        .map(|pair| (pair.name.clone(), pair.value.clone()))
        .collect();
    map.into_iter().collect()
}

fn variable(input: &RunTaskInput, name: &str) -> String {
    environment(input)
        .into_iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value)
        .unwrap_or_default()
}

fn arn_of(task_id: &str) -> String {
    format!("{ARN_PREFIX}:task/{CLUSTER}/{task_id}")
}

/// The last part of a task's ARN.
#[must_use]
pub fn task_id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Poll};

    use domain::{ecs::TaskOverride, request::Arch};

    use super::*;
    use crate::database::WorkerId;

    fn input() -> RunTaskInput {
        RunTaskInput {
            cluster: CLUSTER.into(),
            task_definition: "hash".into(),
            client_token: "exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9-1".into(),
            started_by: "exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9-1".into(),
            count: 1,
            capacity_provider: None,
            tags: Vec::new(),
            network_configuration: None,
            overrides: TaskOverride {
                cpu: "256".into(),
                memory: "512".into(),
                task_role_arn: None,
                container_overrides: Vec::new(),
            },
        }
    }

    fn definition() -> TaskDefinition {
        TaskDefinition {
            image: None,
            arch: Arch::X86_64,
            entry_point: vec!["/bin/sh".into(), "-c".into()],
            command: vec!["true".into()],
            secrets: Vec::new(),
            registry_secret: None,
            log_group: "local".into(),
        }
    }

    struct World {
        database: Database,
        tasks: LocalTasks,
        reports: mpsc::UnboundedReceiver<TaskReport>,
        changed: watch::Receiver<()>,
        task: Task,
        folder: tempfile::TempDir,
    }

    /// A task that is recorded as running in a process that is long gone.
    async fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let database = Database::open(&at("store.sqlite"), WorkerId::new()).unwrap();
        for name in ["logs", "tasks", "secrets"] {
            fs::create_dir(at(name)).unwrap();
        }
        let setup = Setup {
            tasks_dir: at("tasks"),
            remains: Remains::new(at("remains")),
            home: folder.path().to_owned(),
            secrets: secrets::SecretFiles::new(at("secrets")),
            host_only: true,
        };
        let (send, reports) = mpsc::unbounded_channel();
        let (tell, changed) = watch::channel(());
        let tasks = LocalTasks::new(
            database.clone(),
            LocalLogs::new(at("logs")),
            setup,
            send,
            tell,
        );
        let task = Task {
            last_status: ecs::RUNNING.into(),
            ..new_task(&input())
        };
        database
            .ensure_definition("hash", &definition())
            .await
            .unwrap();
        database.insert_task(&input(), "hash", &task).await.unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = ProcessId::of(child.id().try_into().unwrap()).unwrap();
        child.wait().unwrap();
        let runtime = form::json(&Runtime::Process(gone), &Unknown::default()).unwrap();
        database
            .update_task(&task.task_arn, Some(runtime), json(&task), false)
            .await
            .unwrap();
        World {
            database,
            tasks,
            reports,
            changed,
            task,
            folder,
        }
    }

    fn json(task: &Task) -> String {
        form::json(task, &Unknown::default()).unwrap()
    }

    impl World {
        /// Closes the task as an earlier follower does.
        async fn close(&self) -> String {
            let stopped = json(&Task {
                last_status: ecs::STOPPED.into(),
                version: 7,
                ..self.task.clone()
            });
            assert!(
                self.database
                    .update_task(&self.task.task_arn, None, stopped.clone(), true)
                    .await
                    .unwrap()
            );
            stopped
        }

        async fn on_record(&self) -> String {
            self.database
                .task(&self.task.task_arn)
                .await
                .unwrap()
                .unwrap()
                .task
        }
    }

    /// A follower closes the task after the takeover has listed the open tasks, and before it
    /// follows them.
    #[tokio::test]
    async fn a_task_that_is_closed_while_it_is_taken_over_keeps_its_end() {
        let mut world = world().await;
        // The reader answers the takeover's query only after that query was sent.
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let mut hold = pin!(
            world
                .database
                .read("a test", move |_| Ok(held.recv().is_ok()))
        );
        assert!(poll_fn(|cx| Poll::Ready(hold.as_mut().poll(cx).is_pending())).await);
        let tasks = world.tasks.clone();
        let mut resume = pin!(tasks.resume());
        assert!(poll_fn(|cx| Poll::Ready(resume.as_mut().poll(cx).is_pending())).await);
        let_go.send(()).unwrap();
        assert!(hold.await.unwrap());
        // The reader works in order: once this is answered, the takeover's query is answered too.
        world.on_record().await;
        let stopped = world.close().await;
        assert_eq!(
            resume.await.unwrap(),
            1,
            "it was open when it was looked at"
        );
        world.changed.changed().await.unwrap();
        assert_eq!(world.on_record().await, stopped);
        assert!(world.reports.try_recv().is_err(), "nothing is told of it");
        let logs = fs::read_dir(world.folder.path().join("logs")).unwrap();
        assert_eq!(logs.count(), 0, "nobody follows it");
    }

    #[tokio::test]
    async fn a_task_that_is_stopped_is_never_overwritten() {
        let world = world().await;
        let stopped = world.close().await;
        let (arn, other) = (&world.task.task_arn, json(&world.task));
        assert!(
            !world
                .database
                .update_task(arn, None, other.clone(), false)
                .await
                .unwrap()
        );
        assert!(
            !world
                .database
                .update_task(arn, None, other, true)
                .await
                .unwrap()
        );
        assert_eq!(world.on_record().await, stopped);
        let again = world
            .database
            .update_task(arn, None, stopped, true)
            .await
            .unwrap();
        assert!(again, "the same write again is no conflict");
    }
}
