//! The stand-in for ECS on one machine. It takes `RunTask` calls, records each task before anything
//! of it runs, follows the task to its end, and reports every step as ECS's own JSON.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use domain::{
    container::MAIN,
    ecs::{Container, RunTaskInput, Task, TaskArn, TaskStatus},
    id::AttemptId,
    ports::{Clock, Described, LaunchError, LogLine, PortError, Tasks},
    task::TaskDefinition,
};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, mpsc, watch};

use runner::order::GitProgram;

use crate::{
    artifacts::LocalArtifacts, container::ContainerRunner, database::Database, form,
    host::HostRunner, log_file::LocalLogs, remains::Remains, runner_program, secrets,
    system::System,
};

mod follow;
mod job;
mod order;

use job::Runtime;

/// The names of a task's stored parts in errors.
const TASK: &str = "a task's record";
const RUNTIME: &str = "a task's whereabouts";
const DEFINITION: &str = "a task's definition";
/// The cluster's name in ARNs.
pub const CLUSTER: &str = "local";
const ARN_PREFIX: &str = "arn:aws:ecs:local:000000000000";

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
            Self::Changed(task) => task.task_arn.as_str(),
            Self::Lines(arn, _) => arn,
        }
    }
}

/// The settings for running tasks.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The directory that holds the tasks' own directories.
    pub tasks_dir: PathBuf,
    /// The directory that the program for tasks is put into.
    pub programs_dir: PathBuf,
    /// The notes about tasks' files that could not be removed.
    pub remains: Remains,
    /// The files of runs that are kept.
    pub artifacts: LocalArtifacts,
    /// The user's home directory, which holds the container engine's configuration.
    pub home: PathBuf,
    /// The values of secrets.
    pub secrets: secrets::SecretFiles,
    /// Whether tasks run on the host even if they name an image.
    pub host_only: bool,
    /// The program that clones repositories for runs on the host.
    pub git: GitProgram,
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
        let host = HostRunner::new(
            setup.tasks_dir.clone(),
            setup.programs_dir.clone(),
            setup.remains.clone(),
        );
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

    /// Removes what the container engine has and nobody needs: the runners of other versions, and
    /// containers of stopped tasks that could not be removed when the tasks ended.
    ///
    /// # Errors
    /// When the store does not answer. An engine that does not answer is no error.
    pub async fn tidy_engine(&self) -> Result<(), PortError> {
        let Ok(engine) = self.0.engine().await else {
            return Ok(());
        };
        engine.remove_old_programs().await;
        let containers = match engine.containers().await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::warn!(%error, "containers of stopped tasks cannot be looked for");
                return Ok(());
            }
        };
        // A task is recorded before it gets a container. Others belong to other homes.
        let arns = containers.iter().map(|(_, arn)| arn.clone()).collect();
        let own = self.0.database.recorded_tasks(arns).await?;
        let open = self.0.database.every_open_task().await?;
        for (id, arn) in containers {
            if own.contains(&arn) && !open.contains(&arn) {
                engine.remove(&id).await;
            }
        }
        Ok(())
    }

    /// Removes the programs for tasks that other versions of mycli have put down.
    pub fn remove_old_programs(&self) {
        if let Err(error) = runner_program::remove_others(&self.0.setup.programs_dir) {
            tracing::warn!(%error, "a program of another version cannot be removed");
        }
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

    /// Removes the kept files of attempts that have no record any more.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn prune_artifacts(&self) -> Result<(), PortError> {
        // They are listed first, for the same reason as in `tidy`.
        let artifacts = &self.0.setup.artifacts;
        let attempts = artifacts
            .attempts()
            .map_err(|error| PortError::unavailable("the artifacts' directory", error))?;
        for attempt in attempts {
            if !self.0.database.tasks_started_by(&attempt).await?.is_empty() {
                continue;
            }
            if let Err(error) = artifacts.remove(&attempt) {
                tracing::warn!(%attempt, %error, "kept files cannot be removed");
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
        if task.last_status != TaskStatus::Stopped {
            self.follow_in_background(row.arn, TaskOrigin::New);
        }
        Ok(task)
    }

    async fn stop_task(&self, task_arn: &TaskArn, reason: &str) -> Result<(), PortError> {
        let arn = task_arn.as_str();
        self.0.database.request_stop(arn, reason).await?;
        self.tell_to_stop(arn);
        Ok(())
    }

    async fn describe_tasks(&self, task_arns: &[TaskArn]) -> Result<Described, PortError> {
        let mut described = Described::default();
        for arn in task_arns {
            match self
                .0
                .database
                .task(arn.as_str())
                .await?
                .map(|row| form::parsed(TASK, &row.task))
            {
                Some(Ok(task)) => described.tasks.push(task),
                // The task exists, so it is not missing. Its record cannot be read, so nothing may
                // be concluded about it.
                Some(Err(error)) => {
                    tracing::error!(task_id = %arn.id(), %error, "a task cannot be looked at");
                }
                None => described.missing.push(arn.clone()),
            }
        }
        Ok(described)
    }

    async fn list_tasks(&self, started_by: &AttemptId) -> Result<Vec<TaskArn>, PortError> {
        let arns = self.0.database.tasks_started_by(started_by).await?;
        Ok(arns.into_iter().map(TaskArn::from).collect())
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
        task_arn: arn_of(&id).into(),
        cluster_arn: format!("{ARN_PREFIX}:cluster/{CLUSTER}"),
        task_definition_arn: input.task_definition.clone(),
        last_status: TaskStatus::Provisioning,
        desired_status: TaskStatus::Running,
        started_by: Some(input.started_by.clone()),
        containers: vec![Container {
            name: MAIN.into(),
            last_status: Some(TaskStatus::Pending),
            ..Container::default()
        }],
        version: 1,
        created_at: Some(System.now()),
        ..Task::default()
    }
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
    use domain::{ecs::TaskOverride, request::Arch};
    use futures_util::FutureExt as _;

    use domain::stored::Unknown;

    use super::*;
    use crate::database::WorkerId;
    use crate::process::ProcessId;

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
                ephemeral_storage: None,
                task_role_arn: None,
                container_overrides: Vec::new(),
            },
        }
    }

    fn definition() -> TaskDefinition {
        TaskDefinition {
            image: None,
            arch: Arch::X86_64,
            entry_point: vec!["/mycli/mycli-runner".into()],
            command: vec!["run".into()],
            secrets: Vec::new(),
            registry_secret: None,
            log_group: "local".into(),
            helpers: None,
            fetches: false,
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
            programs_dir: at("programs"),
            remains: Remains::new(at("remains")),
            artifacts: LocalArtifacts::new(at("artifacts")),
            home: folder.path().to_owned(),
            secrets: secrets::SecretFiles::new(at("secrets")),
            host_only: true,
            git: GitProgram::default(),
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
            last_status: TaskStatus::Running,
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
            .update_task(task.task_arn.as_str(), Some(runtime), json(&task), false)
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
                last_status: TaskStatus::Stopped,
                version: 7,
                ..self.task.clone()
            });
            assert!(
                self.database
                    .update_task(self.task.task_arn.as_str(), None, stopped.clone(), true)
                    .await
                    .unwrap()
            );
            stopped
        }

        async fn on_record(&self) -> String {
            self.database
                .task(self.task.task_arn.as_str())
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
        let count = world.tasks.resume().now_or_never();
        let count = count.expect("a read is made at once");
        assert_eq!(count.unwrap(), 1, "it is open when it is looked at");
        // The follower has its turn only once this thread waits for something.
        let close = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(world.close())
        };
        let stopped = std::thread::scope(|scope| scope.spawn(close).join().unwrap());
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
                .update_task(arn.as_str(), None, other.clone(), false)
                .await
                .unwrap()
        );
        assert!(
            !world
                .database
                .update_task(arn.as_str(), None, other, true)
                .await
                .unwrap()
        );
        assert_eq!(world.on_record().await, stopped);
        let again = world
            .database
            .update_task(arn.as_str(), None, stopped, true)
            .await
            .unwrap();
        assert!(again, "the same write again is no conflict");
    }
}
