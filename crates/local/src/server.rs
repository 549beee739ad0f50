//! The REST API on loopback: what API Gateway does on AWS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use domain::{
    api::{BULK_BODY_MAX, LogsPage, Problem},
    key::ApiKey,
};
use tokio::{net::TcpListener, sync::watch};

use crate::machine::{self, Machine, OpenError, Options};

/// The longest that a request for a log is held until there is news. API Gateway's own limit is 29 s (AWS-FACTS §7).
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Serves the API until `shutdown` resolves. `ready` is told the address, which matters when the port was 0.
///
/// # Errors
/// When the machine cannot be opened or the address cannot be listened on.
pub async fn serve(
    options: Options,
    listen: SocketAddr,
    key: &ApiKey,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), OpenError> {
    let listener = TcpListener::bind(listen).await.map_err(|source| OpenError::Listen { address: listen, source })?;
    let address = listener.local_addr().map_err(|source| OpenError::Listen { address: listen, source })?;
    let machine = Arc::new(Machine::open(options).await?);
    machine.set_serve_key(key).await?;
    machine.start().await?;
    let (ending, mut ended) = watch::channel(false);
    let app = Router::new().fallback(answer).with_state((Arc::clone(&machine), ended.clone()));
    let stop = async move {
        shutdown.await;
        let _nobody_waits = ending.send(true);
    };
    ready(address);
    let served = axum::serve(listener, app).with_graceful_shutdown(stop).await;
    let _ended = ended.wait_for(|ended| *ended).await;
    if let Some(machine) = Arc::into_inner(machine) {
        machine.close().await?;
    }
    served.map_err(|source| OpenError::Listen { address, source })
}

async fn answer(State((machine, ended)): State<(Arc<Machine>, watch::Receiver<bool>)>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BULK_BODY_MAX + 1).await else {
        let title = format!("the body is over the limit of {BULK_BODY_MAX} bytes");
        let problem = pipeline::http::problem(&Problem::new(413, "body_too_large", title));
        return response(machine::parts(problem));
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let body = (!body.is_empty()).then(|| body.to_vec());
    let wait =
        wanted_wait(&head.headers).filter(|_| path.split('?').next().is_some_and(|path| path.ends_with("/logs")));
    let request = machine::request(head.method, &path, head.headers, body);
    let until = tokio::time::Instant::now() + wait.unwrap_or_default();
    let mut changes = machine.changes();
    loop {
        changes.mark_unchanged();
        let parts = machine::parts(machine.route(&request, None).await);
        let over = tokio::time::Instant::now() >= until || *ended.borrow();
        if over || !is_idle(&parts) {
            return response(parts);
        }
        let mut ended = ended.clone();
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(until) => {}
            _ = ended.wait_for(|ended| *ended) => {}
        }
    }
}

/// The seconds of `Prefer: wait=N` (RFC 7240, section 4.3).
fn wanted_wait(headers: &HeaderMap) -> Option<Duration> {
    let prefer = headers.get("prefer")?.to_str().ok()?;
    let seconds = prefer.split(',').find_map(|part| part.trim().strip_prefix("wait="))?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(WAIT_MAX))
}

/// Whether an answer says that there is nothing new yet.
fn is_idle((status, _, body): &(u16, HeaderMap, Vec<u8>)) -> bool {
    *status == 200 && serde_json::from_slice::<LogsPage>(body).is_ok_and(|page| page.lines.is_empty() && !page.complete)
}

fn response((status, headers, body): (u16, HeaderMap, Vec<u8>)) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, headers, Body::from(body)).into_response()
}
