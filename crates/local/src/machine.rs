//! One machine as an installation. It opens the files on disk, takes over the work of dead
//! processes, and answers the API in process.

use std::{collections::HashMap, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use chrono::TimeDelta;
use domain::{
    api::Problem,
    ecs::TaskArn,
    forget::Forgotten,
    id::ExecutionId,
    key::{ApiKey, Caller, KeyRecord, Role},
    limit::LimitKey,
    message::Message,
    ports::{Clock, Entropy, KeyLookup, Keys, PortError, Queue, Tasks},
    principal::Principal,
};
use http::{HeaderMap, Method};
use pipeline::{
    attempts,
    auth::{self, Auth},
    forget::{self, ForgetError, Unreadable},
    gauges,
    http::Route,
    query::Query,
    submit::Submit,
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};

use runner::order::GitProgram;

use crate::{
    artifacts::LocalArtifacts,
    database::{self, Limits},
    metrics,
    remains::Remains,
    system::System,
    worker::Worker,
};

mod parts;

use parts::MachineParts;

/// How often the work of other processes is checked for changes. A person does not notice 100 ms.
const LOOK: Duration = Duration::from_millis(100);
/// The name of the key that `local serve` uses.
pub const SERVE_KEY: &str = "local-serve";

/// The options of one machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of all files. Made with mode 0700 if missing.
    pub dir: PathBuf,
    /// Whether tasks run on the host even if they name an image.
    pub host_only: bool,
    /// The program that clones repositories for runs on the host.
    pub git: GitProgram,
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

impl Machine {
    /// The files of runs that are kept.
    pub(crate) fn artifacts(&self) -> &LocalArtifacts {
        &self.parts.worker.artifacts
    }

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
            artifacts,
            secrets,
            ..
        } = &self.parts.worker;
        let settings = &self.parts.worker.settings();
        let query = Query {
            store,
            keys: store,
            logs,
            artifacts,
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
        // On the heap: the future of this would be as large as the largest of them.
        let response = match (reads, caller) {
            _ if attempts::takes(request) => attempts::refuse(request).await,
            (true, Some(caller)) => Box::pin(query.answer(caller, request)).await,
            (false, Some(caller)) => Box::pin(submit.answer(caller, request)).await,
            (true, None) => Box::pin(query.handle(request)).await,
            (false, None) => Box::pin(submit.handle(request)).await,
        };
        if !reads {
            self.parts.worker.changed.send_replace(());
        }
        response
    }

    /// Returns the metrics of this process and the state of the machine, as Prometheus reads them.
    ///
    /// # Errors
    /// The problem to answer with: 401 without a valid key.
    pub(crate) async fn metrics(
        &self,
        request: &ApiGatewayProxyRequest,
    ) -> Result<String, Problem> {
        let (store, now) = (&self.parts.worker.store, System.now());
        self.auth.admit(request, store, now).await?;
        gauges::measure(store, &self.parts.worker.settings(), now).await;
        Ok(metrics::text())
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

/// Removes the records, logs and kept files of executions that ended longer ago than `older_than`,
/// and the folders of ended executions that could not be removed before.
///
/// # Errors
/// When the machine cannot be opened.
pub async fn prune(options: Options, older_than: TimeDelta) -> Result<Upkeep, OpenError> {
    let machine = Machine::open(options).await?;
    let before = System
        .now()
        .checked_sub_signed(older_than)
        .unwrap_or(domain::Timestamp::MIN_UTC);
    let tasks = &machine.parts.worker.tasks;
    // Before the records go that tell whose containers these are.
    tasks.tidy_engine().await?;
    let pruned = machine.parts.database.prune(before).await?;
    tasks.prune_logs().await?;
    tasks.prune_artifacts().await?;
    tasks.remove_old_programs();
    let remains = tasks.tidy().await?;
    // `remains` above already holds all of this text.
    let _told = tasks.remains().tell();
    machine.close().await?;
    Ok(Upkeep {
        executions: pruned.executions,
        remains,
    })
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
    request.request_context.request_id = Some(format!("{:032x}", System.bits()));
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
