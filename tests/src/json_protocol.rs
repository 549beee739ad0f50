//! A server for AWS's JSON 1.1 protocol on loopback. Each call names its operation in
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

/// A received call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The operation, such as `RunTask`.
    pub operation: String,
    /// The request's body.
    pub body: Value,
}

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub struct Loopback {
    endpoint: String,
    server: JoinHandle<io::Result<()>>,
}

impl Loopback {
    /// Starts a server on a free port that answers each call with this function.
    ///
    /// # Panics
    /// When no port is free, or a call does not follow this protocol.
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

    /// The SDK configuration for clients of this server.
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

/// Builds a response.
///
/// # Panics
/// When the status is not valid.
pub fn response(status: u16, body: impl Into<Body>) -> Response<Body> {
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/x-amz-json-1.1");
    response.body(body.into()).expect("a response")
}
