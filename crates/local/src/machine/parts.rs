//! The parts of a machine that do the work, also in the background: taking over what dead processes
//! left, starting and stopping the worker, and handing on to a supervisor.

use std::{
    collections::BTreeSet, fs, io, os::unix::fs::DirBuilderExt, path::PathBuf, process::Stdio,
    sync::Arc, time::Duration,
};

use domain::{
    limit::CapacityPool,
    ports::PortError,
    quota::{Quota, Quotas, Rate},
    request::{Arch, Defaults},
    settings::Settings,
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
};

use runner::order::GitProgram;

use crate::{
    artifacts::LocalArtifacts,
    database::{Database, Limits, WorkerId},
    failpoint,
    liveness::{Alive, Workers},
    log_file::LocalLogs,
    process,
    queue::LocalQueue,
    remains::Remains,
    secrets::SecretFiles,
    store::LocalStore,
    tasks::{LocalTasks, Setup, TaskReport},
    worker::Worker,
};

use super::{Bounds, LOOK, OpenError, Options};

/// How long a start waits until the ended tasks of dead processes are on record, before it goes on
/// with its own work. Writing such an end down normally takes far less than 10 s, and a user at the
/// terminal can wait that long.
const SETTLE: Duration = Duration::from_secs(10);
/// How often a long-lived process looks for dead workers. Deaths are rare, and a delay of 5 s is
/// short beside a run.
const INHERIT: Duration = Duration::from_secs(5);

/// The parts that do the work, also in the background.
#[derive(Debug)]
pub(super) struct MachineParts {
    pub(super) options: Options,
    pub(super) workers: Workers,
    pub(super) worker: Worker,
    pub(super) database: Database,
    pub(super) alive: Mutex<Option<Arc<Alive>>>,
    running: Mutex<Option<Engine>>,
    reports: Mutex<Option<mpsc::UnboundedReceiver<TaskReport>>>,
}

/// The background tasks of a machine that runs work.
#[derive(Debug)]
struct Engine {
    pub(super) stop: watch::Sender<bool>,
    pub(super) worker: JoinHandle<()>,
    listener: JoinHandle<()>,
}

impl MachineParts {
    pub(super) fn assemble(options: Options) -> Result<Self, OpenError> {
        let dir = &options.dir;
        for path in [dir.clone(), dir.join("logs"), dir.join("tasks")] {
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path);
            made.map_err(|source| OpenError::Dir { path, source })?;
        }
        let workers_dir = dir.join("pumps");
        let workers = Workers::new(workers_dir.clone()).map_err(|source| OpenError::Dir {
            path: workers_dir,
            source,
        })?;
        let database = Database::open(&dir.join("store.sqlite"), WorkerId::new())?;
        let secrets = SecretFiles::new(dir.join("secrets"));
        let settings = watch::Sender::new(Arc::new(settings(options.bounds.own())));
        let (logs, changed) = (LocalLogs::new(dir.join("logs")), watch::Sender::new(()));
        let artifacts = LocalArtifacts::new(dir.join("artifacts"));
        let (sender, reports) = mpsc::unbounded_channel();
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let setup = Setup {
            tasks_dir: dir.join("tasks"),
            programs_dir: dir.join("programs"),
            remains: Remains::new(dir.join("remains")),
            artifacts: artifacts.clone(),
            home,
            secrets: secrets.clone(),
            host_only: options.host_only,
            git: options.git,
        };
        let tasks = LocalTasks::new(
            database.clone(),
            logs.clone(),
            setup,
            sender,
            changed.clone(),
        );
        let wake = workers.clone();
        let queue = LocalQueue::new(database.clone(), move |worker: &WorkerId| wake.wake(worker));
        let (store, inherited) = (LocalStore::new(database.clone()), Arc::default());
        let (registered, pace, heads) = (Arc::default(), Arc::default(), Arc::default());
        let worker = Worker {
            store,
            queue,
            tasks,
            logs,
            artifacts,
            secrets,
            registered,
            pace,
            heads,
            settings,
            changed,
            inherited,
        };
        let (alive, running, reports) = (
            Mutex::new(None),
            Mutex::new(None),
            Mutex::new(Some(reports)),
        );
        Ok(Self {
            options,
            workers,
            worker,
            database,
            alive,
            running,
            reports,
        })
    }

    /// Takes over the work of dead processes and goes on with it. Returns whether there was any.
    pub(super) async fn take_over(&self) -> Result<bool, OpenError> {
        let any = self.inherit().await?;
        if any {
            self.start().await?;
            self.worker.tasks.resume().await?;
            self.worker.inherited.notify_one();
            self.worker.queue.look();
        }
        Ok(any)
    }

    /// Makes this worker the owner of the work of dead processes. Returns whether there was any.
    async fn inherit(&self) -> Result<bool, OpenError> {
        let (mut any, mut dead, mut left) = (false, false, Vec::new());
        let mut limits = self.own_limits().await?;
        for worker in self.others().await? {
            let Some(inheritance) = self
                .workers
                .inherit(&worker)
                .map_err(|source| self.dir_error(source))?
            else {
                continue;
            };
            let theirs = self.database.limits(&worker).await?;
            match self.options.bounds {
                Bounds::None if !theirs.is_none() => {
                    left.push(worker);
                    continue;
                }
                Bounds::Inherited => limits = limits.and(theirs),
                Bounds::Own(_) | Bounds::None => {}
            }
            // The limits change before the work arrives, so that no task is launched beyond them.
            self.worker
                .settings
                .send_replace(Arc::new(settings(limits)));
            // This worker registers first, so that its work is found again if it dies in the
            // middle.
            self.declare().await?;
            any |= self.database.adopt(&worker, limits).await?;
            inheritance.complete();
            dead = true;
        }
        if dead {
            // Folders that cannot be removed are noted in `remains`.
            let _left = self.worker.tasks.tidy().await?;
        }
        self.leave(&left).await?;
        Ok(any)
    }

    /// The limits that this process keeps at this moment.
    async fn own_limits(&self) -> Result<Limits, OpenError> {
        match self.options.bounds {
            Bounds::Inherited => Ok(self.database.limits(self.database.worker()).await?),
            bounds => Ok(bounds.own()),
        }
    }

    /// Leaves the work of dead workers to a supervisor, and waits until the supervisor has taken it
    /// over.
    async fn leave(&self, dead: &[WorkerId]) -> Result<(), OpenError> {
        if dead.is_empty() {
            return Ok(());
        }
        spawn_supervisor(&self.options).map_err(|source| self.dir_error(source))?;
        let taken = async {
            while self
                .database
                .workers()
                .await?
                .iter()
                .any(|worker| dead.contains(worker))
            {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        tokio::time::timeout(SETTLE, taken).await.unwrap_or(Ok(()))
    }

    /// Every other worker that is in the store or has left a file in the workers' directory.
    pub(super) async fn others(&self) -> Result<BTreeSet<WorkerId>, OpenError> {
        // The directory is read first, because a takeover removes the files last.
        let mut workers: BTreeSet<_> = self
            .workers
            .traces()
            .map_err(|source| self.dir_error(source))?
            .into_iter()
            .collect();
        workers.extend(self.database.workers().await?);
        workers.remove(self.database.worker());
        Ok(workers)
    }

    fn dir_error(&self, source: io::Error) -> OpenError {
        OpenError::Dir {
            path: self.options.dir.clone(),
            source,
        }
    }

    /// Registers this process's worker, so that its work is found if it dies. Idempotent.
    pub(super) async fn declare(&self) -> Result<Arc<Alive>, OpenError> {
        let mut held = self.alive.lock().await;
        if let Some(alive) = held.as_ref() {
            return Ok(Arc::clone(alive));
        }
        let alive = Arc::new(
            self.workers
                .declare(self.database.worker())
                .map_err(|source| self.dir_error(source))?,
        );
        self.database
            .register_worker(self.options.bounds.own())
            .await?;
        *held = Some(Arc::clone(&alive));
        Ok(alive)
    }

    pub(super) async fn start(&self) -> Result<(), OpenError> {
        let mut running = self.running.lock().await;
        let Some(reports) = self.reports.lock().await.take() else {
            return Ok(());
        };
        let alive = self.declare().await?;
        process::adopt_orphans();
        self.worker.tasks.resume().await?;
        let (stop, stopped) = watch::channel(false);
        let worker = tokio::spawn(self.worker.clone().run(reports, stopped));
        let listener = tokio::spawn(listen(alive, self.worker.clone()));
        *running = Some(Engine {
            stop,
            worker,
            listener,
        });
        Ok(())
    }

    /// Waits until each task that was taken over has either ended, with its end on record, or
    /// surely still runs.
    pub(super) async fn settle(&self) -> Result<(), OpenError> {
        let settled = async {
            loop {
                let mut changes = self.worker.changed.subscribe();
                if self.database.unsettled().await? == 0 && !self.worker.tasks.any_dead().await? {
                    return Ok(());
                }
                let _either = tokio::time::timeout(LOOK, changes.changed()).await;
            }
        };
        tokio::time::timeout(SETTLE, settled)
            .await
            .unwrap_or(Ok(()))
    }

    /// Takes over the work of processes that die while this one lives. Work of this process may
    /// wait for a limit that the dead process held.
    pub(super) async fn keep_inheriting(self: Arc<Self>) {
        loop {
            tokio::time::sleep(INHERIT).await;
            if let Err(error) = self.take_over().await {
                tracing::warn!(%error, "dead processes' work cannot be taken over");
            }
        }
    }

    async fn stop_engine(&self) {
        let engine = self.running.lock().await.take();
        if let Some(Engine {
            stop,
            worker,
            listener,
        }) = engine
        {
            let _gone = stop.send(true);
            let _ended = worker.await;
            listener.abort();
            let _ended = listener.await;
        }
    }

    /// Whether any work is left that can be finished. A record that cannot be read does not count,
    /// because no process can finish it.
    pub(super) async fn has_work(&self) -> Result<bool, PortError> {
        Ok(self.database.has_unfinished_here().await? && self.worker.store.has_work().await?)
    }

    pub(super) async fn close(&self) -> Result<bool, OpenError> {
        self.stop_engine().await;
        // Folders that are not removed by then are removed at the next takeover from a dead
        // process.
        let _either = tokio::time::timeout(SETTLE, self.worker.tasks.closed()).await;
        let finished =
            self.alive.lock().await.is_none() || self.database.unregister_worker().await?;
        let finished = finished || !self.has_work().await?;
        // Releases the lock. Other processes can take over the unfinished work from here on.
        self.alive.lock().await.take();
        if !finished {
            spawn_supervisor(&self.options).map_err(|source| self.dir_error(source))?;
        }
        Ok(!finished)
    }
}

/// Checks the queue and the stop requests each time another process wakes this worker.
pub(super) async fn listen(alive: Arc<Alive>, worker: Worker) {
    while alive.woken().await.is_ok() {
        worker.queue.look();
        if let Err(error) = worker.tasks.look_for_stops().await {
            tracing::warn!(%error, "which tasks are to be stopped cannot be read");
        }
    }
}

fn spawn_supervisor(options: &Options) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(options.dir.join("supervisor.log"))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command
        .args(["local", "supervise", "--dir"])
        .arg(&options.dir);
    if options.host_only {
        command.arg("--host");
    }
    if options.git == GitProgram::System {
        command.args(["--git", "system"]);
    }
    failpoint!("machine.spawn_supervisor.before");
    command
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map(drop)
}

pub(super) fn settings(limits: Limits) -> Settings {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be positive; a float saturates"
    )]
    let cpu = limits
        .vcpus
        .map(|vcpus| (vcpus.max(0.0) * 1024.0).round() as u32);
    let rate = limits.launch_rate.map(|per_second| Rate {
        burst: per_second.max(1.0),
        per_second,
    });
    let arch = if cfg!(target_arch = "aarch64") {
        Arch::Arm64
    } else {
        Arch::X86_64
    };
    Settings {
        cluster: crate::tasks::CLUSTER.into(),
        log_group: "/mycli/local".into(),
        defaults: Defaults::one_machine(arch),
        quotas: Quotas::from([(CapacityPool::Machine, Quota { cpu, rate })]),
        run_task_rate: None,
        runner_images: None,
        artifacts: None,
        spot_fallback_after: None,
        definitions_rate: None,
        allowed: None,
        network: None,
        prices: None,
        task_tags: None,
        unlisted_seconds: 10,
        log_delay_seconds: 0,
    }
}
