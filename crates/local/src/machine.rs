//! One machine as an installation. It opens the files on disk, takes over the work of dead
//! processes, and answers the API in process.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use chrono::TimeDelta;
use domain::{
    api::Problem,
    ecs::TaskArn,
    forget::Forgotten,
    id::ExecutionId,
    key::{ApiKey, Caller, KeyRecord, Role},
    limit::{CapacityPool, LimitKey},
    message::Message,
    ports::{Clock, Entropy, KeyLookup, Keys, PortError, Queue, Tasks},
    principal::Principal,
    quota::{Quota, Quotas, Rate},
    request::{Arch, Defaults},
    settings::Settings,
};
use http::{HeaderMap, Method};
use pipeline::{
    auth::{self, Auth},
    forget::{self, ForgetError, Unreadable},
    http::Route,
    query::Query,
    submit::Submit,
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
};

use crate::{
    database::{self, Database, Limits, WorkerId},
    failpoint,
    liveness::{Alive, Workers},
    log_file::LocalLogs,
    process,
    queue::LocalQueue,
    remains::Remains,
    secrets::SecretFiles,
    store::LocalStore,
    system::System,
    tasks::{LocalTasks, Setup, TaskReport},
    worker::Worker,
};

/// How long a start waits until the ended tasks of dead processes are on record, before it goes on
/// with its own work. Writing such an end down normally takes far less than 10 s, and a user at the
/// terminal can wait that long.
const SETTLE: Duration = Duration::from_secs(10);
/// How often the work of other processes is checked for changes. A person does not notice 100 ms.
const LOOK: Duration = Duration::from_millis(100);
/// How often a long-lived process looks for dead workers. Deaths are rare, and a delay of 5 s is
/// short beside a run.
const INHERIT: Duration = Duration::from_secs(5);
/// The name of the key that `local serve` uses.
pub const SERVE_KEY: &str = "local-serve";

/// The options of one machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of all files. Made with mode 0700 if missing.
    pub dir: PathBuf,
    /// Whether tasks run on the host even if they name an image.
    pub host_only: bool,
    /// The limits on the work that runs at once.
    pub bounds: Bounds,
    /// The name that in-process submissions are recorded under.
    pub submitter: String,
}

/// Which limits a process keeps, and which work it takes over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bounds {
    /// The user named these limits. They hold for all work of this process.
    Own(Limits),
    /// The limits of the work that this process takes over hold for all of its work.
    Inherited,
    /// No limits. Work that has limits is left to a supervisor.
    None,
}

impl Bounds {
    fn own(self) -> Limits {
        match self {
            Self::Own(limits) => limits,
            Self::Inherited | Self::None => Limits::default(),
        }
    }
}

/// Why a machine cannot be opened or run.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or read.
    #[error("failed to use {path}: {source}")]
    Dir {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] database::OpenError),
    /// The store does not answer.
    #[error(transparent)]
    Failed(#[from] PortError),
    /// The server's key cannot be used. The text completes "the key that the server was given ".
    #[error("the key that the server was given {0}")]
    Key(String),
    /// Another server serves the folder.
    #[error(
        "a server{} already serves {}: use that one, or end it first; `--dir` takes another folder",
        on(address.as_deref()),
        dir.display()
    )]
    Served {
        /// The folder.
        dir: PathBuf,
        /// The server's address, once it has recorded it.
        address: Option<String>,
    },
    /// The address cannot be listened on.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}

fn on(address: Option<&str>) -> String {
    address
        .map(|address| format!(" on {address}"))
        .unwrap_or_default()
}

/// One machine. See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    parts: Arc<MachineParts>,
    auth: Auth,
    caller: Caller,
    successor: JoinHandle<()>,
    /// The last change that [`Machine::changed`] returned for.
    seen: Mutex<watch::Receiver<()>>,
}

/// The parts that do the work, also in the background.
#[derive(Debug)]
struct MachineParts {
    options: Options,
    workers: Workers,
    worker: Worker,
    database: Database,
    alive: Mutex<Option<Arc<Alive>>>,
    running: Mutex<Option<Engine>>,
    reports: Mutex<Option<mpsc::UnboundedReceiver<TaskReport>>>,
}

/// The background tasks of a machine that runs work.
#[derive(Debug)]
struct Engine {
    stop: watch::Sender<bool>,
    worker: JoinHandle<()>,
    listener: JoinHandle<()>,
}

impl Machine {
    /// Opens the store. If dead processes left work, takes it over, and records the tasks that have
    /// already ended before this returns.
    ///
    /// # Errors
    /// When the directory or the store cannot be used.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let caller = Caller::local(options.submitter.clone());
        let parts = Arc::new(MachineParts::assemble(options)?);
        if parts.take_over().await? {
            parts.settle().await?;
        }
        let successor = tokio::spawn(Arc::clone(&parts).keep_inheriting());
        let seen = Mutex::new(parts.worker.changed.subscribe());
        Ok(Self {
            parts,
            auth: Auth::default(),
            caller,
            successor,
            seen,
        })
    }

    /// Begins to run work: its own, and the work that it took over. Idempotent.
    ///
    /// # Errors
    /// When this process cannot be declared alive.
    pub async fn start(&self) -> Result<(), OpenError> {
        self.parts.start().await
    }
}

impl MachineParts {
    fn assemble(options: Options) -> Result<Self, OpenError> {
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
        let (sender, reports) = mpsc::unbounded_channel();
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let setup = Setup {
            tasks_dir: dir.join("tasks"),
            remains: Remains::new(dir.join("remains")),
            home,
            secrets: secrets.clone(),
            host_only: options.host_only,
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
        let (registered, pace) = (Arc::default(), Arc::default());
        let worker = Worker {
            store,
            queue,
            tasks,
            logs,
            secrets,
            registered,
            pace,
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
    async fn take_over(&self) -> Result<bool, OpenError> {
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
    async fn others(&self) -> Result<BTreeSet<WorkerId>, OpenError> {
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
    async fn declare(&self) -> Result<Arc<Alive>, OpenError> {
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

    async fn start(&self) -> Result<(), OpenError> {
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
    async fn settle(&self) -> Result<(), OpenError> {
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
    async fn keep_inheriting(self: Arc<Self>) {
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
    async fn has_work(&self) -> Result<bool, PortError> {
        Ok(self.database.unfinished_here().await? > 0 && self.worker.store.has_work().await?)
    }

    async fn close(&self) -> Result<bool, OpenError> {
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

impl Machine {
    /// Answers a request of this user, without a network and without a key.
    pub async fn call(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Vec<u8>>,
    ) -> (u16, HeaderMap, Vec<u8>) {
        // A write needs a registered owner, so that other processes can find it.
        if method != Method::GET
            && let Err(error) = self.parts.declare().await
        {
            let problem = Problem::new(503, "unavailable", error.to_string());
            return parts(pipeline::http::problem(&problem));
        }
        let request = request(method, path_and_query, HeaderMap::new(), body);
        parts(self.route(&request, Some(&self.caller)).await)
    }

    /// Sends a request to the function that serves its route. Without a caller the request must
    /// carry a key.
    pub(crate) async fn route(
        &self,
        request: &ApiGatewayProxyRequest,
        caller: Option<&Caller>,
    ) -> ApiGatewayProxyResponse {
        let Worker {
            store,
            queue,
            logs,
            secrets,
            ..
        } = &self.parts.worker;
        let settings = &self.parts.worker.settings();
        let query = Query {
            store,
            keys: store,
            logs,
            system: &System,
            auth: &self.auth,
            settings,
        };
        let submit = Submit {
            store,
            keys: store,
            queue,
            secrets,
            system: &System,
            auth: &self.auth,
            settings,
        };
        let reads = Route::of(request).is_ok_and(|route| route.is_read());
        let response = match (reads, caller) {
            (true, Some(caller)) => query.answer(caller, request).await,
            (false, Some(caller)) => submit.answer(caller, request).await,
            (true, None) => query.handle(request).await,
            (false, None) => submit.handle(request).await,
        };
        if !reads {
            self.parts.worker.changed.send_replace(());
        }
        response
    }

    /// Returns the notes about files of ended runs that could not be removed. Report them after
    /// [`Machine::close`], which waits for removals.
    #[must_use]
    pub fn remains(&self) -> Remains {
        self.parts.worker.tasks.remains()
    }

    /// Resolves when something may have changed since this last resolved: at once for changes by
    /// this process, within 100 ms for changes by others.
    pub async fn changed(&self) {
        let mut seen = self.seen.lock().await;
        let _either = tokio::time::timeout(LOOK, seen.changed()).await;
    }

    /// Subscribes to the changes from this moment on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.parts.worker.changed.subscribe()
    }

    /// Returns the record that `text` names, which must be one that cannot be read.
    ///
    /// # Errors
    /// As [`pipeline::forget::look`].
    pub async fn unreadable(&self, text: &str) -> Result<Unreadable, ForgetError> {
        forget::look(&self.parts.worker.store, text).await
    }

    /// Removes a record that cannot be read, and releases its allocations. If a task runs for it,
    /// that task is stopped first, whichever process follows it.
    ///
    /// # Errors
    /// As [`pipeline::forget::remove`].
    pub async fn forget(&self, id: &ExecutionId) -> Result<Forgotten, ForgetError> {
        let Worker {
            store,
            queue,
            tasks,
            ..
        } = &self.parts.worker;
        let stop = async |task_arn: &TaskArn| {
            tasks.stop_task(task_arn, forget::REASON).await?;
            if let Some(task) = self.parts.database.task(task_arn.as_str()).await? {
                self.parts.workers.wake(&task.worker);
            }
            forget::stop(tasks, &System, task_arn).await
        };
        let forgotten = forget::remove(
            id,
            async |stopped: Option<&TaskArn>| store.forget(id, stopped).await,
            stop,
        )
        .await?;
        let wakeup = |limit: &LimitKey| {
            Message::Wakeup {
                backlog: limit.clone(),
                id: None,
            }
            .into()
        };
        queue
            .send(forgotten.released.iter().map(wakeup).collect())
            .await?;
        Ok(forgotten)
    }

    /// Ends this process's part. If work is unfinished, starts a supervisor process for it. Returns
    /// whether one was started.
    ///
    /// # Errors
    /// When the store does not answer, or the supervisor cannot be started. The next start then
    /// finds the work.
    pub async fn close(self) -> Result<bool, OpenError> {
        // A takeover that is cut short is found again: this worker is registered before it owns any
        // of the work.
        self.successor.abort();
        let _ended = self.successor.await;
        self.parts.close().await
    }

    /// Makes a key valid for the REST API. It replaces the server's previous key.
    ///
    /// # Errors
    /// [`OpenError::Key`] for a key that was rotated, or that has less than an administrator's
    /// rights.
    pub(crate) async fn set_serve_key(&self, key: &ApiKey) -> Result<(), OpenError> {
        let (store, now) = (&self.parts.worker.store, System.now());
        if let Some(known) = store.find_key(&key.id()).await? {
            // Other people may know a rotated key, so a start must not make it valid again.
            if known.expires_at.is_some() {
                return Err(OpenError::Key(
                    "was rotated: put the new key in its place, or remove serve.key to have another one made".into(),
                ));
            }
            if known.role != Role::Admin {
                return Err(OpenError::Key(format!(
                    "is the key '{}' with the role {}, but the server needs an administrator's key",
                    known.name, known.role
                )));
            }
            if auth::verify(key.clone(), store, now).await?.is_some() {
                return Ok(());
            }
        }
        // The principal stays the same at each start, so that the server still owns its earlier
        // submissions.
        let before = store
            .list_keys()
            .await?
            .into_iter()
            .find(|known| known.name == SERVE_KEY);
        let principal = before
            .as_ref()
            .map_or_else(|| Principal::new(now, System.bits()), KeyRecord::principal);
        let record = auth::record(key, SERVE_KEY, Role::Admin, principal, now).await?;
        let is_set = match before {
            Some(before) => {
                let (old, new) = before.rotated(record, now, now);
                store.rotate_key(&old, &new).await?
            }
            None => {
                // A key record that cannot be read is not listed, but still takes the name.
                store.remove_key(SERVE_KEY).await?;
                store.add_key(&record).await?
            }
        };
        let other = || {
            OpenError::Key("was changed by another server on this machine; start it again".into())
        };
        is_set.then_some(()).ok_or_else(other)
    }
}

/// Runs the hidden supervisor: finishes the unfinished work that no other process owns, then ends.
///
/// # Errors
/// When the machine cannot be opened.
pub async fn supervise(options: Options) -> Result<(), OpenError> {
    let machine = Machine::open(Options {
        bounds: Bounds::Inherited,
        ..options
    })
    .await?;
    machine.start().await?;
    while machine.parts.has_work().await? {
        machine.changed().await;
    }
    machine.close().await.map(drop)
}

/// The result of a [`prune`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// How many executions were removed.
    pub executions: u64,
    /// The folders of ended executions that cannot be removed, in words.
    pub remains: Vec<String>,
}

/// Removes the records and logs of executions that ended longer ago than `older_than`, and the
/// folders of ended executions that could not be removed before.
///
/// # Errors
/// When the machine cannot be opened.
pub async fn prune(options: Options, older_than: TimeDelta) -> Result<Upkeep, OpenError> {
    let machine = Machine::open(options).await?;
    let before = System
        .now()
        .checked_sub_signed(older_than)
        .unwrap_or(domain::Timestamp::MIN_UTC);
    let pruned = machine.parts.database.prune(before).await?;
    let tasks = &machine.parts.worker.tasks;
    tasks.prune_logs().await?;
    let remains = tasks.tidy().await?;
    // `remains` above already holds all of this text.
    let _told = tasks.remains().tell();
    machine.close().await?;
    Ok(Upkeep {
        executions: pruned.executions,
        remains,
    })
}

/// Checks the queue and the stop requests each time another process wakes this worker.
async fn listen(alive: Arc<Alive>, worker: Worker) {
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

fn settings(limits: Limits) -> Settings {
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
        spot_fallback_after: None,
        definitions_rate: None,
        allowed: None,
        network: None,
        task_tags: None,
        unlisted_seconds: 10,
        log_delay_seconds: 0,
    }
}

/// Builds an HTTP request as API Gateway passes it to a function.
pub(crate) fn request(
    method: Method,
    path_and_query: &str,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
) -> ApiGatewayProxyRequest {
    let (path, query) = path_and_query
        .split_once('?')
        .unwrap_or((path_and_query, ""));
    let mut request = ApiGatewayProxyRequest::default();
    request.http_method = method;
    request.path = Some(path.to_owned());
    request.headers = headers;
    let mut parameters: HashMap<String, Vec<String>> = HashMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        parameters
            .entry(name.into_owned())
            .or_default()
            .push(value.into_owned());
    }
    request.query_string_parameters = parameters.into();
    if let Some(bytes) = body {
        request.body = Some(
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        );
    }
    request
}

/// Turns a function's answer into HTTP.
pub(crate) fn parts(response: ApiGatewayProxyResponse) -> (u16, HeaderMap, Vec<u8>) {
    let body = response.body.map(|body| body.to_vec()).unwrap_or_default();
    (
        u16::try_from(response.status_code).unwrap_or(500),
        response.headers,
        body,
    )
}
