//! A stand-in for Lambda's runtime API, for one function and one event, and for the AWS services
//! that the function calls. Those answer everything with `{}`, as DynamoDB does for an item that
//! does not exist.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::IntoResponse,
    routing::{get, post},
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{
        Mutex,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    task::JoinHandle,
    time::timeout,
};

/// A limit for a hang.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// What the request handlers share with the owner of the server.
struct Desk {
    asked: UnboundedSender<Instant>,
    answered: UnboundedSender<()>,
    /// The events; the next request gets the next one, once there is one.
    events: Mutex<UnboundedReceiver<String>>,
}

/// The API. It ends when this is dropped.
pub(crate) struct RuntimeApi {
    /// `host:port`, as Lambda writes it.
    pub(crate) address: String,
    event: String,
    server: JoinHandle<()>,
    asked: UnboundedReceiver<Instant>,
    answered: UnboundedReceiver<()>,
    events: UnboundedSender<String>,
}

impl RuntimeApi {
    /// Serves on loopback; the event is held back until [`RuntimeApi::work`].
    pub(crate) fn serve(runtime: &Runtime, event: String) -> Self {
        let (asking, asked) = unbounded_channel();
        let (answering, answered) = unbounded_channel();
        let (events, waiting) = unbounded_channel();
        let desk = Arc::new(Desk {
            asked: asking,
            answered: answering,
            events: Mutex::new(waiting),
        });
        let routes = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route(
                "/2018-06-01/runtime/invocation/{id}/{outcome}",
                post(answer),
            )
            .fallback(async || ([(CONTENT_TYPE, "application/x-amz-json-1.0")], "{}"))
            .with_state(desk);
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("loopback");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server =
            runtime.spawn(async { axum::serve(listener, routes).await.expect("it serves") });
        Self {
            address,
            event,
            server,
            asked,
            answered,
            events,
        }
    }

    /// When the function asked for its first event.
    pub(crate) fn asked_at(&mut self, runtime: &Runtime) -> Instant {
        runtime
            .block_on(async { timeout(PATIENCE, self.asked.recv()).await })
            .expect("it asks in time")
            .expect("it asks")
    }

    /// Gives the function the event, and waits until it has answered.
    pub(crate) fn work(&mut self, runtime: &Runtime) {
        self.events.send(self.event.clone()).expect("it waits");
        runtime
            .block_on(async { timeout(PATIENCE, self.answered.recv()).await })
            .expect("it answers in time")
            .expect("it answers");
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn next(State(desk): State<Arc<Desk>>) -> impl IntoResponse {
    let _gone = desk.asked.send(Instant::now());
    let event = desk.events.lock().await.recv().await.unwrap_or_default();
    let headers = [
        (
            "lambda-runtime-aws-request-id",
            "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
        ),
        ("lambda-runtime-deadline-ms", "4102444800000"),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:eu-central-1:123456789012:function:f",
        ),
        ("content-type", "application/json"),
    ];
    (headers, event)
}

async fn answer(State(desk): State<Arc<Desk>>, _body: axum::body::Bytes) -> axum::http::StatusCode {
    let _gone = desk.answered.send(());
    axum::http::StatusCode::ACCEPTED
}
