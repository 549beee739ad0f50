//! A server that speaks AWS's JSON protocol: each call names its operation in `X-Amz-Target`, and is answered with what a test says.

use std::{
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use aws_types::SdkConfig;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, header},
};
use futures_util::stream;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

/// A call that came.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// `RunTask`.
    pub(super) operation: String,
    pub(super) body: Value,
}

/// What a call is answered with.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A status and a file of `fixtures/answers`.
    File(u16, &'static str),
    /// A status and a text.
    Text(u16, String),
    /// The status and half of the file, and then the connection is cut.
    Cut(u16, &'static str),
}

type Script = dyn Fn(&Call, usize) -> Answer + Send + Sync;

struct Desk {
    calls: Mutex<Vec<Call>>,
    script: Box<Script>,
}

/// The server. It ends when this is dropped.
pub(super) struct StandIn {
    endpoint: String,
    desk: Arc<Desk>,
    server: JoinHandle<io::Result<()>>,
}

impl StandIn {
    /// Answers each call by a function of it and of how many of its operation came before.
    pub(super) async fn new(script: impl Fn(&Call, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let desk = Arc::new(Desk { calls: Mutex::default(), script: Box::new(script) });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&desk));
        let server = tokio::spawn(async { axum::serve(listener, router).await });
        Self { endpoint, desk, server }
    }

    /// Answers everything in the same way.
    pub(super) async fn always(answer: Answer) -> Self {
        Self::new(move |_, _| answer.clone()).await
    }

    pub(super) fn config(&self) -> SdkConfig {
        super::config(&self.endpoint)
    }

    /// The calls that came, in order.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.desk.calls.lock().unwrap().clone()
    }

    /// How often each operation was called, in the order of the first calls.
    pub(super) fn operations(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.operation).collect()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let target = headers.get("x-amz-target").expect("an operation's name").to_str().unwrap();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let call = Call { operation, body: serde_json::from_slice(&body).expect("JSON") };
    let before = {
        let mut calls = desk.calls.lock().unwrap();
        calls.push(call.clone());
        calls.iter().filter(|known| known.operation == call.operation).count() - 1
    };
    match (desk.script)(&call, before) {
        Answer::File(status, file) => response(status, read(file).into()),
        Answer::Text(status, text) => response(status, text.into()),
        Answer::Cut(status, file) => {
            let text = read(file);
            let half = Ok(Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]));
            let cut = Err(io::Error::from(io::ErrorKind::ConnectionReset));
            response(status, Body::from_stream(stream::iter([half, cut])))
        }
    }
}

fn response(status: u16, body: Body) -> Response<Body> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/x-amz-json-1.1");
    response.body(body).unwrap()
}

/// A file of `fixtures/answers`.
fn read(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("it/aws/fixtures/answers").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
