//! A server that speaks AWS's JSON 1.1 protocol on loopback: each call names its operation in
//! `X-Amz-Target`, and its body is JSON.

use std::{io, net::Ipv4Addr};

use aws_config::SdkConfig;
use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Response, header},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::table;

/// A call that came.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// `RunTask`.
    pub operation: String,
    /// What was asked.
    pub body: Value,
}

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub struct Loopback {
    endpoint: String,
    server: JoinHandle<io::Result<()>>,
}

impl Loopback {
    /// Answers each call by this function, on a port that is free.
    ///
    /// # Panics
    /// When there is no port, or a call is not of this protocol.
    pub async fn serve(
        answer: impl Fn(Call) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port is free");
        let endpoint = format!(
            "http://{}",
            listener.local_addr().expect("it has an address")
        );
        let answer = move |headers: HeaderMap, body: Bytes| {
            std::future::ready(answer(call(&headers, &body)))
        };
        let server =
            tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { endpoint, server }
    }

    /// The configuration of clients that talk to it.
    #[must_use]
    pub fn config(&self) -> SdkConfig {
        table::configuration(self.endpoint.clone())
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn call(headers: &HeaderMap, body: &Bytes) -> Call {
    let target = headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .expect("an operation's name");
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    Call {
        operation,
        body: serde_json::from_slice(body).expect("JSON"),
    }
}

/// An answer.
///
/// # Panics
/// When the status is none.
pub fn response(status: u16, body: impl Into<Body>) -> Response<Body> {
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/x-amz-json-1.1");
    response.body(body.into()).expect("a response")
}
