//! The REST API on loopback, in the role of API Gateway on AWS.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::{
    api::{BULK_BODY_MAX, LogsPage, Problem},
    key::ApiKey,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    liveness,
    machine::{self, Machine, OpenError, Options},
    metrics,
};

/// The header of a response with the request's id, as API Gateway names it. The server's log has
/// the same id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
/// The longest time that a request for a log waits for new lines. API Gateway's own limit is 29 s
/// (AWS-FACTS §7).
const WAIT_MAX: Duration = Duration::from_secs(20);
/// How long a request's head, and then its body, may take to arrive. On loopback the largest takes
/// milliseconds, so only a client that wants to block the server needs longer.
const SENT_WITHIN: Duration = Duration::from_secs(10);
/// The most connections at once. Further ones wait. This is a quarter of the files that a process
/// may have open.
const CONNECTIONS_MAX: u32 = 256;
/// How long a shutdown waits for requests in progress. Requests that wait for log lines are
/// answered at once, so only a client that is slow to send needs this time.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How long, and for how many bytes, the server still reads and discards a body that is too large.
/// Many clients send the whole body before they read the response. If the connection were closed
/// meanwhile, they would see a broken pipe and not the limit. On loopback 32 MiB arrive well within
/// 2 s.
const LINGERS: (Duration, usize) = (Duration::from_secs(2), 32 << 20);
/// How long a start waits for the previous server to be gone, and how often it looks. The lock of a
/// killed server is free once the child processes that it was just starting no longer hold it,
/// which takes far less than 2 s.
const TAKES_OVER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(50));
/// The path of the metrics. A stack has none: there CloudWatch has them.
const METRICS: &str = "/metrics";
/// How often recorded metrics are summed up. A thousand runs that end in that time take some
/// kilobytes.
const TIDIES: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted, for example because no file descriptor is
/// free. It keeps the loop from using a whole CPU, and no client notices 100 ms.
const BREATHER: Duration = Duration::from_millis(100);

/// Serves the API until `shutdown` resolves. `ready` is called with the address, which is useful if
/// the port was 0. Returns whether unfinished work is left to a supervisor.
///
/// # Errors
/// When the machine cannot be opened or the address cannot be listened on.
pub async fn serve(
    options: Options,
    listen: SocketAddr,
    key: &ApiKey,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<bool, OpenError> {
    let mut lock = ServeLock::take(&options.dir).await?;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|source| OpenError::Listen {
            address: listen,
            source,
        })?;
    let address = listener.local_addr().map_err(|source| OpenError::Listen {
        address: listen,
        source,
    })?;
    metrics::begin();
    let machine = Machine::open(options).await?;
    if let Err(error) = machine.set_serve_key(key).await {
        // The machine may have taken work over by now.
        machine.close().await?;
        return Err(error);
    }
    machine.artifacts().serve_at(address);
    let machine = Arc::new(machine);
    machine.start().await?;
    lock.announce(address)?;
    let (ending, ended) = watch::channel(false);
    ready(address);
    let (mut connections, room) = (
        JoinSet::new(),
        Arc::new(Semaphore::new(CONNECTIONS_MAX as usize)),
    );
    tokio::select! {
        () = accept(&listener, &machine, &ended, &room, &mut connections) => {}
        () = tidy_metrics() => {}
        () = shutdown => {}
    }
    drop(listener);
    let _nobody_waits = ending.send(true);
    // A client that has not sent its whole request by then is cut off.
    let _either = timeout(ENDS_WITHIN, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    connections.shutdown().await;
    // A request that writes goes on without its client, and keeps its place until it is done.
    let _all = room.acquire_many(CONNECTIONS_MAX).await;
    match Arc::into_inner(machine) {
        Some(machine) => machine.close().await,
        None => Ok(false),
    }
}

/// The lock that the server of a folder holds. A second server would have its own limits beside
/// those of the first, and might replace its key.
struct ServeLock {
    path: PathBuf,
    file: File,
}

impl ServeLock {
    async fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("serve.lock");
        let failed = |source| OpenError::Dir {
            path: dir.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        let until = tokio::time::Instant::now() + TAKES_OVER.0;
        loop {
            if let Some(file) = liveness::locked(&path).map_err(failed)? {
                // The file holds the previous server's address.
                file.set_len(0).map_err(failed)?;
                return Ok(Self { path, file });
            }
            if tokio::time::Instant::now() >= until {
                let address = fs::read_to_string(&path)
                    .ok()
                    .filter(|address| !address.is_empty());
                return Err(OpenError::Served {
                    dir: dir.to_owned(),
                    address,
                });
            }
            tokio::time::sleep(TAKES_OVER.1).await;
        }
    }

    /// Records the address for the error message of another server.
    fn announce(&mut self, address: SocketAddr) -> Result<(), OpenError> {
        let failed = |source| OpenError::Dir {
            path: self.path.clone(),
            source,
        };
        self.file
            .write_all(format!("http://{address}").as_bytes())
            .map_err(failed)
    }
}

/// Sums up recorded metrics for ever.
async fn tidy_metrics() {
    loop {
        tokio::time::sleep(TIDIES).await;
        metrics::tidy();
    }
}

/// Accepts connections for ever.
async fn accept(
    listener: &TcpListener,
    machine: &Arc<Machine>,
    ended: &watch::Receiver<bool>,
    room: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
) {
    while let Ok(place) = Arc::clone(room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = converse(stream, Arc::clone(machine), ended.clone(), place);
                connections.spawn(async move {
                    // A client may disconnect at any time, which is no fault of the server.
                    let _gone = connection.await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be taken");
                tokio::time::sleep(BREATHER).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Answers the requests of one connection, one after the other.
async fn converse(
    stream: TcpStream,
    machine: Arc<Machine>,
    ended: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) -> hyper::Result<()> {
    let place = Arc::new(place);
    let answers = service_fn(|request: hyper::Request<Incoming>| {
        let (machine, ended, place) = (Arc::clone(&machine), ended.clone(), Arc::clone(&place));
        async move {
            let answered = answer(&machine, ended, &place, request.map(Body::new));
            Ok::<_, io::Error>(answered.await)
        }
    });
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(SENT_WITHIN);
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), answers));
    let mut end = ended.clone();
    tokio::select! {
        over = connection.as_mut() => return over,
        _ = end.wait_for(|ended| *ended) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

async fn answer(
    machine: &Arc<Machine>,
    ended: watch::Receiver<bool>,
    place: &Arc<OwnedSemaphorePermit>,
    request: Request,
) -> Response {
    let (head, mut body) = request.into_parts();
    if let Some(file) = machine.artifacts().answer(&head).await {
        return file.unwrap_or_else(|problem| refusal(&problem));
    }
    let body = match whole(&mut body).await {
        Ok(body) => body,
        Err(problem) => {
            // A client that asks first whether to send its body (RFC 9110, section 10.1.1) has not
            // begun to send.
            if problem.status == 413 && !head.headers.contains_key(header::EXPECT) {
                tokio::spawn(throw_away(body));
            }
            let mut response = refusal(&problem);
            // The rest of the body is not read to find the next request after it.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    let path = head
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let wait = wanted_wait(&head.headers).filter(|_| {
        path.split('?')
            .next()
            .is_some_and(|path| path.ends_with("/logs"))
    });
    let request = machine::request(head.method, &path, head.headers, body);
    let request_id = request
        .request_context
        .request_id
        .as_deref()
        .and_then(|id| HeaderValue::from_str(id).ok());
    if request.path.as_deref() == Some(METRICS) {
        return shown(machine, &request).await;
    }
    let until = tokio::time::Instant::now() + wait.unwrap_or_default();
    let mut changes = machine.changes();
    loop {
        changes.mark_unchanged();
        let parts = machine::parts(routed(machine, place, &request).await);
        let over = tokio::time::Instant::now() >= until || *ended.borrow();
        if over || !is_idle(&parts) {
            let mut response = response(parts);
            response
                .headers_mut()
                .extend(request_id.map(|id| (REQUEST_ID, id)));
            return response;
        }
        let mut ended = ended.clone();
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(until) => {}
            _ = ended.wait_for(|ended| *ended) => {}
        }
    }
}

/// Shows the metrics.
async fn shown(machine: &Machine, request: &ApiGatewayProxyRequest) -> Response {
    if request.http_method != Method::GET {
        let title = format!("{METRICS} takes only GET");
        return refusal(&Problem::new(405, "method_not_allowed", title));
    }
    match machine.metrics(request).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(problem) => refusal(&problem),
    }
}

/// Passes a request on. A request that writes is carried out even if its client goes away, so that
/// it has its audit line.
async fn routed(
    machine: &Arc<Machine>,
    place: &Arc<OwnedSemaphorePermit>,
    request: &ApiGatewayProxyRequest,
) -> ApiGatewayProxyResponse {
    if request.http_method == Method::GET {
        return machine.route(request, None).await;
    }
    let (machine, place, request) = (Arc::clone(machine), Arc::clone(place), request.clone());
    let carried_out = tokio::spawn(async move {
        let response = machine.route(&request, None).await;
        // The end of the server waits for the place, and then needs the machine for itself.
        drop(machine);
        drop(place);
        response
    });
    carried_out.await.unwrap_or_else(|_| {
        let problem = Problem::new(503, "unavailable", "the server is ending");
        pipeline::http::problem(&problem)
    })
}

/// Reads a request's body; `None` if it is empty.
async fn whole(body: &mut Body) -> Result<Option<Vec<u8>>, Problem> {
    let too_large = || {
        Problem::new(
            413,
            "body_too_large",
            format!("the body is over the limit of {BULK_BODY_MAX} bytes"),
        )
    };
    // Refuses a declared length that is too large before it reads any of the body.
    if body.size_hint().lower() > BULK_BODY_MAX as u64 {
        return Err(too_large());
    }
    match timeout(SENT_WITHIN, Limited::new(body, BULK_BODY_MAX).collect()).await {
        Ok(Ok(whole)) => Ok(Some(Vec::from(whole.to_bytes())).filter(|bytes| !bytes.is_empty())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(
            400,
            "invalid_body",
            "the body does not match its headers",
        )),
        Err(_) => {
            let title = format!(
                "the body did not come within {} seconds",
                SENT_WITHIN.as_secs()
            );
            Err(Problem::new(408, "request_timeout", title))
        }
    }
}

/// Reads and discards the rest of a body, within [`LINGERS`].
async fn throw_away(body: Body) {
    let mut rest = Limited::new(body, LINGERS.1);
    let _either = timeout(LINGERS.0, async {
        while let Some(Ok(_)) = rest.frame().await {}
    })
    .await;
}

/// The seconds of `Prefer: wait=N` (RFC 7240, section 4.3).
fn wanted_wait(headers: &HeaderMap) -> Option<Duration> {
    let prefer = headers.get("prefer")?.to_str().ok()?;
    let seconds = prefer
        .split(',')
        .find_map(|part| part.trim().strip_prefix("wait="))?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(WAIT_MAX))
}

/// Whether an answer has no new log lines yet.
fn is_idle((status, _, body): &(u16, HeaderMap, Vec<u8>)) -> bool {
    *status == 200
        && serde_json::from_slice::<LogsPage>(body)
            .is_ok_and(|page| page.lines.is_empty() && !page.complete)
}

fn refusal(problem: &Problem) -> Response {
    response(machine::parts(pipeline::http::problem(problem)))
}

fn response((status, headers, body): (u16, HeaderMap, Vec<u8>)) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, headers, Body::from(body)).into_response()
}
