//! A stand-in for any AWS operation that answers with AWS's own JSON, as the test says.

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

/// The answer to a call.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A status and a file of `fixtures/answers`.
    File(u16, &'static str),
    /// A status and a text.
    Text(u16, String),
    /// A status and half of a file. Then the connection is cut.
    Cut(u16, &'static str),
}

/// The server. It ends when this is dropped.
pub(super) struct StandIn {
    server: Loopback,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl StandIn {
    /// A server that answers by `script`, from the call and the number of earlier calls of its
    /// operation.
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

    /// A server that gives every call the same answer.
    pub(super) async fn always(answer: Answer) -> Self {
        Self::new(move |_, _| answer.clone()).await
    }

    pub(super) fn config(&self) -> SdkConfig {
        self.server.config()
    }

    /// The received calls, in order.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The operations called, in order.
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
