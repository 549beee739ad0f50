//! A stand-in that answers with what a test says: AWS's own JSON, of any operation.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use aws_types::SdkConfig;
use axum::{
    body::{Body, Bytes},
    http::Response,
};
use futures_util::stream;
pub(super) use tests::json_protocol::Call;
use tests::json_protocol::{Loopback, response};

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

/// The server. It ends when this is dropped.
pub(super) struct StandIn {
    server: Loopback,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl StandIn {
    /// Answers each call by a function of it and of how many of its operation came before.
    pub(super) async fn new(
        script: impl Fn(&Call, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (calls, script) = (Arc::<Mutex<Vec<Call>>>::default(), Arc::new(script));
        let came = Arc::clone(&calls);
        let server = Loopback::serve(move |call| {
            let before = {
                let mut calls = came.lock().unwrap();
                calls.push(call.clone());
                calls
                    .iter()
                    .filter(|known| known.operation == call.operation)
                    .count()
                    - 1
            };
            written(script(&call, before))
        });
        Self {
            server: server.await,
            calls,
        }
    }

    /// Answers everything in the same way.
    pub(super) async fn always(answer: Answer) -> Self {
        Self::new(move |_, _| answer.clone()).await
    }

    pub(super) fn config(&self) -> SdkConfig {
        self.server.config()
    }

    /// The calls that came, in order.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// How often each operation was called, in the order of the first calls.
    pub(super) fn operations(&self) -> Vec<String> {
        self.calls()
            .into_iter()
            .map(|call| call.operation)
            .collect()
    }
}

fn written(answer: Answer) -> Response<Body> {
    match answer {
        Answer::File(status, file) => response(status, read(file)),
        Answer::Text(status, text) => response(status, text),
        Answer::Cut(status, file) => {
            let text = read(file);
            let half = Ok(Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]));
            let cut = Err(io::Error::from(io::ErrorKind::ConnectionReset));
            response(status, Body::from_stream(stream::iter([half, cut])))
        }
    }
}

/// A file of `fixtures/answers`.
fn read(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("it/aws/fixtures/answers")
        .join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
