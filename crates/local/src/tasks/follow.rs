//! Following a task: starting its process or container, watching it to its end, and recording every
//! step.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

use domain::{
    Timestamp,
    artifact::UploadSummary,
    container::variable,
    ecs::{StopCode, TaskStatus},
    marker::{self, Marker},
    ports::{self, Clock, LogLine, PortError},
    request::ImageRef,
    stored::Unknown,
    task::{SecretMapping, TaskDefinition},
};
use runner::log::{LogWriter, decode};
use rustix::process::Signal;
use secrecy::SecretString;
use tokio::sync::watch;

use super::{
    TaskOrigin, TaskReport, TasksInner,
    job::{FollowError, Job, Runtime, environment, from_environment},
    order, task_id,
};
use crate::{
    container::{ContainerRunner, TakeError},
    database::TaskRow,
    form,
    host::{self, Running, is_for_want_of_room},
    process::ProcessId,
    system::System,
    task::{Launch, StartFailure, TaskEnd},
};

/// How long to wait before a failed read or write is tried again. The usual cause is a full disk,
/// and nobody frees one faster than in 1 s.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether a log tells that a command began, or why it could not. Such a line is among the first.
fn has_begun(log: &Path, nonce: &str) -> io::Result<bool> {
    let mut lines = BufReader::new(File::open(log)?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = decode(&line).map(|(_, _, text)| String::from_utf8_lossy(text).into_owned());
        let marker = text.and_then(|text| domain::marker::split(nonce, &text).1);
        match marker {
            Some(Marker::SetUp | Marker::Commit(_) | Marker::Ended) | None => {}
            Some(_) => return Ok(true),
        }
        line.clear();
    }
    Ok(false)
}

async fn again_soon(job: &Job, error: &(impl std::fmt::Display + Sync)) {
    tracing::warn!(task_id = job.id(), %error, "what becomes of a task cannot be written down; trying again");
    tokio::time::sleep(AGAIN).await;
}

impl TasksInner {
    /// Follows a task and closes it in every case.
    pub(super) async fn see_to_its_end(
        self: Arc<Self>,
        arn: String,
        origin: TaskOrigin,
        stop: watch::Receiver<()>,
    ) {
        match self.follow_unless_closed(&arn, origin, stop).await {
            Ok(()) => {}
            Err(FollowError::Closed) => {
                tracing::info!(
                    task_id = task_id(&arn),
                    "a task was closed by somebody else"
                );
            }
            Err(error) => {
                tracing::error!(task_id = task_id(&arn), %error, "a task cannot be followed");
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
                    tracing::warn!(task_id = task_id(arn), %error, "a task's record cannot be read; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Follows a task from its current state to its end.
    pub(super) async fn follow(
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
        if job.task.last_status == TaskStatus::Deprovisioning {
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
                self.follow_container(&job, &id, stop).await?
            }
            (Some(image), _) => match self
                .start_container(&mut job, image, origin, stop.clone())
                .await?
            {
                Ok(id) => self.follow_container(&job, &id, stop).await?,
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
            Ok(running) => {
                let ended = self.follow_running(job, running, stop).await?;
                Ok(match ended.reason.as_deref() {
                    Some(reason @ host::COULD_NOT_BEGIN) => Err(StartFailure::never(format!(
                        "CannotStartProcessError: {reason}"
                    ))),
                    _ => Ok(ended),
                })
            }
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
        let log = self.logs.path(job.id());
        let follow = self.host.follow(
            job.id(),
            &job.input.started_by,
            &job.nonce,
            &mut running,
            &log,
            |lines| self.wrote(job, lines),
        );
        tokio::select! {
            ended = follow => Ok(ended?),
            never = self.stop_process(job, &process, stop) => match never {},
        }
    }

    /// Starts the keeper, records it, and only then gives it its order.
    async fn start_process(
        &self,
        job: &mut Job,
    ) -> Result<Result<Running, StartFailure>, FollowError> {
        let secrets = match self.secret_values(&job.definition) {
            Ok(secrets) => secrets,
            Err(failure) => return Ok(Err(failure)),
        };
        let order = order::run(
            environment(&job.input),
            secrets,
            &self.host.folders(job.id()),
            self.logs.path(job.id()),
            self.setup.git,
            job.attempt()
                .map(|attempt| self.setup.artifacts.folder(&attempt)),
        );
        let gated = match self.host.start(job.id(), &order).await {
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
        origin: TaskOrigin,
        stop: watch::Receiver<()>,
    ) -> Result<Result<String, StartFailure>, FollowError> {
        let may_have_started = origin == TaskOrigin::FoundAgain;
        let started = match (self.engine().await, self.launch(job, image, origin)) {
            (Ok(engine), Ok(launch)) => {
                let (workspace, stop) = (self.workspace(job), self.stop_asked(job.arn(), stop));
                engine.start_unless(&launch, workspace, stop).await
            }
            (Err(reason), _) => Err(StartFailure {
                reason,
                may_have_started,
            }),
            (_, Err(failure)) => Err(failure),
        };
        // The container has a copy of what was fetched for it.
        let _left = self.host.clean_up(job.id());
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
    ) -> Result<Result<TaskEnd, StartFailure>, FollowError> {
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
        let ended = tokio::select! {
            ended = follow => ended?,
            never = self.stop_container(job, engine, id, stop) => match never {},
        };
        // Without a word of the runner, the exit status is the engine's and not the command's. The
        // runner's words may have been lost with the engine, so the command may have begun.
        Ok(match has_begun(&self.logs.path(job.id()), &job.nonce)? {
            true => Ok(ended),
            false => Err(StartFailure::unknown(format!(
                "its runner ended without a word{}",
                match (&ended.reason, ended.exit_code) {
                    (Some(reason), _) => format!(": {reason}"),
                    (None, Some(code)) => format!(", with exit status {code}"),
                    (None, None) => String::new(),
                }
            ))),
        })
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

    /// When a stop is requested: sends TERM to the keeper, which passes it on, and KILL to
    /// everything after [`Job::stop_seconds`].
    async fn stop_process(
        &self,
        job: &Job,
        process: &ProcessId,
        stop: watch::Receiver<()>,
    ) -> Infallible {
        self.stop_asked(job.arn(), stop).await;
        process.signal(Signal::TERM);
        tokio::time::sleep(Duration::from_secs(job.stop_seconds().into())).await;
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
        engine.stop(id, job.stop_seconds()).await;
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
    pub(super) async fn stopped(&self, job: &mut Job, ended: TaskEnd) -> Result<(), FollowError> {
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
    pub(super) async fn over(
        &self,
        job: &mut Job,
        code: StopCode,
        reason: Option<String>,
        at: Timestamp,
    ) -> Result<(), FollowError> {
        let task = &mut job.task;
        (task.stop_code, task.stopped_reason) = (Some(code), reason);
        (task.last_status, task.desired_status) = (TaskStatus::Deprovisioning, TaskStatus::Stopped);
        (task.execution_stopped_at, task.stopped_at) = (Some(at), Some(at));
        job.container().last_status = Some(TaskStatus::Stopped);
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
    pub(super) async fn close(&self, job: &mut Job) -> Result<(), FollowError> {
        if let Some(id) = job.container_id() {
            match self.engine().await {
                Ok(engine) => {
                    self.take_files(job, engine, &id).await;
                    engine.remove(&id).await;
                }
                Err(error) => {
                    tracing::warn!(
                        task_id = job.id(),
                        container_id = id,
                        error,
                        "a container cannot be removed"
                    );
                }
            }
        }
        job.task.last_status = TaskStatus::Stopped;
        let clean_up = |job: &Job| {
            self.report(job);
            if job.image.is_none() {
                // A directory that cannot be removed is noted in `remains`.
                let _left = self.host.clean_up(job.id());
            }
        };
        self.write_down(job, None, clean_up).await
    }

    /// Takes the files that are to be kept out of the container, however long this machine has no
    /// room for them. Those that cannot be taken are lost, and the log says so.
    async fn take_files(&self, job: &Job, engine: &ContainerRunner, id: &str) {
        let Some(attempt) = job.attempt().filter(|_| job.keeps_files()) else {
            return;
        };
        let into = self.setup.artifacts.folder(&attempt);
        loop {
            match engine.take_files(id, &into).await {
                Ok(()) => return,
                Err(TakeError::NoRoom(error)) => again_soon(job, &error).await,
                Err(TakeError::Lost(why)) => return self.tell_of_loss(job, why).await,
            }
        }
    }

    /// Corrects what the runner has said of the files.
    async fn tell_of_loss(&self, job: &Job, why: String) {
        tracing::error!(
            task_id = job.id(),
            error = why,
            "files that are to be kept are lost"
        );
        let lost = UploadSummary {
            reason: Some(format!(
                "the files could not be taken out of the container: {why}"
            )),
            ..UploadSummary::default()
        };
        let line = marker::line(&job.nonce, &format!("uploaded:{}", lost.written()));
        let line = format!("{line}\n");
        loop {
            let written = LogWriter::open(&self.logs.path(job.id()))
                .and_then(|mut log| log.append(System.now(), line.as_bytes()));
            match written {
                Ok(lines) => return self.wrote(job, lines),
                Err(error) if is_for_want_of_room(&error) => again_soon(job, &error).await,
                Err(error) => {
                    tracing::error!(task_id = job.id(), %error, "the log cannot be written");
                    return;
                }
            }
        }
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
            tracing::error!(task_id = task_id(&arn), %error, "a task cannot be closed; the next start will");
        }
    }

    /// Writes the task's next version, and then reports it.
    pub(super) async fn record(
        &self,
        job: &mut Job,
        runtime: Option<&Runtime>,
    ) -> Result<(), FollowError> {
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
        let is_over = job.task.last_status == TaskStatus::Stopped;
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

    fn launch(
        &self,
        job: &Job,
        image: ImageRef,
        origin: TaskOrigin,
    ) -> Result<Launch, StartFailure> {
        let is_for_container = |name: &str| !variable::is_for_fetch(name);
        let mut environment = environment(&job.input);
        environment.retain(|(name, _)| is_for_container(name));
        let mut secrets = self.secret_values(&job.definition)?;
        secrets.retain(|(name, _)| is_for_container(name));
        Ok(Launch {
            task_arn: job.arn().to_owned(),
            attempt: job.input.started_by.clone(),
            image,
            environment,
            secrets,
            cpu: job.input.overrides.cpu.parse().unwrap_or_default(),
            memory: job.input.overrides.memory.parse().unwrap_or_default(),
            arch: job.definition.arch,
            keeps_files: job.keeps_files(),
            may_have_started: origin == TaskOrigin::FoundAgain,
        })
    }

    /// The folder whose content becomes the workspace of a container. It is made now, if the task
    /// has a repository. The credentials stay on this machine.
    async fn workspace(&self, job: &Job) -> Result<Option<PathBuf>, StartFailure> {
        let order = order::fetch_for_container(
            environment(&job.input),
            self.secret_values(&job.definition)?,
            self.host.fetched(job.id()),
            self.setup.git,
        );
        let Some(order) = order else {
            return Ok(None);
        };
        let folder = self.host.fetch_for_container(job.id(), &order).await?;
        Ok(Some(folder))
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

    pub(super) async fn engine(&self) -> Result<&ContainerRunner, String> {
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
