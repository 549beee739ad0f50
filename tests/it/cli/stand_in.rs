//! A stand-in for the API that each test scripts, and `mycli` run against it with its own home.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Method},
    response::Response,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

/// The id that the stand-in gives to runs.
pub(super) const ID: &str = "exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9";
/// A key for the stand-in, which accepts any key.
pub(super) const KEY: &str =
    "sk_live_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A request that `mycli` sent.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// The path with the query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// Method and path, as in `GET /executions`.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// An answer of the stand-in.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Reply {
    pub(super) fn json(body: &Value) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_string(),
        }
    }

    pub(super) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub(super) fn problem(status: u16, code: &str, title: &str, errors: &Value) -> Self {
        let body = json!({"status": status, "code": code, "title": title, "errors": errors});
        Self {
            status,
            ..Self::json(&body)
        }
    }

    pub(super) fn accepted() -> Self {
        Self {
            status: 202,
            ..Self::json(&json!({"execution_id": ID, "status": "QUEUED"}))
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

type Script = dyn FnMut(&Asked) -> Reply + Send;

struct Shared {
    script: Mutex<Box<Script>>,
    asked: Mutex<Vec<Asked>>,
    news: mpsc::UnboundedSender<Asked>,
}

/// The stand-in API on a free loopback port, until it is dropped.
pub(super) struct StandIn {
    pub(super) endpoint: String,
    shared: Arc<Shared>,
    news: mpsc::UnboundedReceiver<Asked>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Starts a stand-in that answers as `script` says.
    pub(super) fn new(script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let (sender, news) = mpsc::unbounded_channel();
        let shared = Shared {
            script: Mutex::new(Box::new(script)),
            asked: Mutex::default(),
            news: sender,
        };
        let shared = Arc::new(shared);
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    served = axum::serve(listener, app) => served.expect("the stand-in serves"),
                    _ = stopped => {}
                }
            });
        });
        Self {
            endpoint,
            shared,
            news,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Starts a stand-in with this record and this log. Its run is over as soon as it is submitted.
    pub(super) fn finished(record: Value, log: &[&str]) -> Self {
        let log = page(log, None, true);
        Self::new(move |asked| match asked.line().as_str() {
            "POST /execute" => Reply::accepted(),
            line if line.ends_with("/rerun") => Reply::accepted(),
            line if line.contains("/logs") => Reply::json(&log),
            line if line.ends_with("/cancel") => {
                Reply::json(&json!({"execution_id": ID, "status": "RUNNING"}))
            }
            _ => Reply::json(&record),
        })
    }

    /// All requests so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("not poisoned").clone()
    }

    /// Method and path of all requests so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }

    /// Waits for a request line that begins with `line`. nextest bounds the wait.
    pub(super) fn wait_for(&mut self, line: &str) {
        while let Some(asked) = self.news.blocking_recv() {
            if asked.line().starts_with(line) {
                return;
            }
        }
        panic!("the stand-in ended before {line} was asked");
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If the server failed, its missing answers have failed the test already.
            drop(thread.join());
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body").to_vec();
    let path = head
        .uri
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let asked = Asked {
        method: head.method,
        path,
        headers: head.headers,
        body,
    };
    shared
        .asked
        .lock()
        .expect("not poisoned")
        .push(asked.clone());
    let reply = (shared.script.lock().expect("not poisoned"))(&asked);
    // The test may have stopped listening.
    drop(shared.news.send(asked));
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).expect("a response")
}

/// A page of a log. The times of its lines are a second apart.
pub(super) fn page(lines: &[&str], next: Option<&str>, complete: bool) -> Value {
    let line = |(second, text): (usize, &&str)| json!({"at": format!("2026-01-02T03:04:{second:02}Z"), "text": text});
    let lines: Vec<_> = lines.iter().enumerate().map(line).collect();
    json!({"lines": lines, "next_cursor": next, "complete": complete})
}

/// A run's record.
pub(super) fn record(status: &str, exit_code: Option<i32>, reason: Option<&str>) -> Value {
    json!({
        "execution_id": ID, "status": status, "exit_code": exit_code, "reason": reason, "submitted_by": "alice",
        "submitted_at": "2026-01-02T03:04:05Z", "launched_at": "2026-01-02T03:04:06Z",
        "started_at": "2026-01-02T03:04:10Z", "stopped_at": "2026-01-02T03:06:15Z",
        "commit": "0123456789abcdef0123456789abcdef01234567", "image_digest": "sha256:feed",
        "waiting": null, "events": [{"at": "2026-01-02T03:04:05Z", "status": "QUEUED"}],
        "attempts": [{"attempt": 1, "capacity": "spot", "task_arn": "arn:aws:ecs:eu-west-1:1:task/mycli/t1", "log_stream": null,
            "launched_at": "2026-01-02T03:04:06Z", "started_at": "2026-01-02T03:04:10Z", "stopped_at": "2026-01-02T03:06:15Z",
            "exit_code": exit_code, "reason": reason}],
        "command": "make deploy", "repo": "https://git.example/me/infra", "branch": "main", "image": "alpine:3.20",
        "env": {"STAGE": "prod-value"}, "secrets": ["TOKEN"], "timeout": "1h", "cpu": 256, "memory": 512, "arch": "arm64",
        "capacity": "spot", "lock": null, "group": null, "priority": 0, "retries": 0, "retry_on": [], "name": null,
        "idempotency_key": "mycli-before", "task_role": null, "registry_secret": null, "of_a_newer_version": 1
    })
}

/// `mycli` with its own home and working directory, and without this process's environment.
pub(super) struct Mycli {
    pub(super) home: TempDir,
    pub(super) dir: TempDir,
    endpoint: Option<String>,
}

impl Mycli {
    /// A `mycli` with nothing configured.
    pub(super) fn unconfigured() -> Self {
        let folder = || tempfile::tempdir().expect("a folder");
        Self {
            home: folder(),
            dir: folder(),
            endpoint: None,
        }
    }

    /// A `mycli` that the environment points to the stand-in.
    pub(super) fn on(api: &StandIn) -> Self {
        Self {
            endpoint: Some(api.endpoint.clone()),
            ..Self::unconfigured()
        }
    }

    /// A command that is ready to run in the working directory.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(tests::mycli());
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env_clear()
            .stdin(Stdio::null());
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("TZ", "UTC");
        // Git must not find a repository above the directory: it would not be this test's.
        command.env("GIT_CONFIG_NOSYSTEM", "1").env(
            "GIT_CEILING_DIRECTORIES",
            self.dir.path().parent().unwrap_or(self.dir.path()),
        );
        if let Some(endpoint) = &self.endpoint {
            command
                .env("MYCLI_ENDPOINT", endpoint)
                .env("MYCLI_API_KEY", KEY);
        }
        command
    }

    /// Runs the command to its end.
    pub(super) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().expect("mycli runs"))
    }

    pub(super) fn config(&self) -> std::path::PathBuf {
        self.home.path().join(".mycli/config.yaml")
    }

    /// Writes a file in the working directory.
    pub(super) fn file(&self, name: &str, text: &str) {
        std::fs::write(Path::new(self.dir.path()).join(name), text).expect("a file");
    }
}

/// How `mycli` ended, and what it printed.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

impl Ran {
    /// Asserts the exit code, and shows everything if it is another.
    #[track_caller]
    pub(super) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Asserts that standard error holds a text.
    #[track_caller]
    pub(super) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "no {text:?} in {self:#?}");
        self
    }

    /// Asserts the text of standard output.
    #[track_caller]
    pub(super) fn prints(self, text: &str) -> Self {
        assert_eq!(self.out, text, "{self:#?}");
        self
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}
