//! A proxy between runner and engine that fails as the test says. To the runner it looks like a
//! crash or a bad connection.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tests::engine::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The fate of one request.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// The engine's answer breaks off after this many bytes.
    CutAfter(u64),
    /// The engine gets the request; its answer is lost.
    AnswerLost,
    /// The engine never gets the request, and nothing answers.
    Swallowed,
    /// The engine never gets the request. The answer is this status and message.
    Answered(u16, String),
}

type LaunchPlan = Arc<Mutex<Vec<(String, Fate)>>>;

/// A socket that passes every request on, except those in its plan, in their order.
pub(super) struct Proxy {
    directory: tempfile::TempDir,
    plan: LaunchPlan,
    struck: Arc<Notify>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// A proxy with a plan. Each pair is a part of a request's first line, and the fate of the
    /// first request that contains it.
    pub(super) async fn before_engine(plan: &[(&str, Fate)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("s")).expect("a socket");
        let plan: LaunchPlan = Arc::new(Mutex::new(
            plan.iter()
                .map(|(part, fate)| ((*part).to_owned(), fate.clone()))
                .collect(),
        ));
        let struck = Arc::new(Notify::new());
        let (planned, strikes) = (Arc::clone(&plan), Arc::clone(&struck));
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // An error here is a connection closed early, which is what the proxy is for.
                tokio::spawn(pass(client, Arc::clone(&planned), Arc::clone(&strikes)));
            }
        });
        Self {
            directory,
            plan,
            struck,
            serving,
        }
    }

    pub(super) fn docker_host(&self) -> String {
        format!("unix://{}", self.directory.path().join("s").display())
    }

    /// The number of planned requests that have not come yet.
    pub(super) fn unused(&self) -> usize {
        self.plan
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Resolves when a planned request has met its fate.
    pub(super) async fn struck(&self) {
        self.struck.notified().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn fate_of(head: &str, plan: &LaunchPlan) -> Option<Fate> {
    let first_backlog = head.lines().next().unwrap_or_default();
    let mut plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
    let index = plan
        .iter()
        .position(|(part, _)| first_backlog.contains(part))?;
    Some(plan.remove(index).1)
}

async fn pass(mut client: UnixStream, plan: LaunchPlan, struck: Arc<Notify>) -> io::Result<()> {
    let head = head(&mut client).await?;
    let fate = fate_of(&String::from_utf8_lossy(&head), &plan);
    if fate.is_some() {
        struck.notify_one();
    }
    match fate {
        Some(Fate::Answered(status, message)) => return answer(client, status, &message).await,
        Some(Fate::Swallowed) => return drain(&mut client).await,
        _ => {}
    }
    let mut engine = UnixStream::connect(Engine::shared().socket()).await?;
    engine.write_all(&head).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_engine, mut to_engine) = engine.split();
    let forth = tokio::io::copy(&mut from_client, &mut to_engine);
    let back = async {
        match fate {
            Some(Fate::CutAfter(bytes)) => {
                tokio::io::copy(&mut (&mut from_engine).take(bytes), &mut to_client).await
            }
            Some(_) => from_engine.read_u8().await.map(u64::from),
            None => tokio::io::copy(&mut from_engine, &mut to_client).await,
        }
    };
    tokio::select! { _ = async { let _ = forth.await; std::future::pending::<()>().await } => {}, _ = back => {} }
    Ok(())
}

/// Reads the request's first line and headers, with any part of the body that came with them.
async fn head(client: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

async fn answer(mut client: UnixStream, status: u16, message: &str) -> io::Result<()> {
    let body = serde_json::json!({ "message": message }).to_string();
    let head = format!(
        "HTTP/1.1 {status} Told\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    client.shutdown().await?;
    drain(&mut client).await
}

async fn drain(client: &mut UnixStream) -> io::Result<()> {
    tokio::io::copy(client, &mut tokio::io::sink())
        .await
        .map(|_| ())
}
