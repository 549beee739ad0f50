//! Git repositories to clone: on disk, behind git's smart HTTP, behind a real sshd. All are on
//! loopback and stopped when dropped.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, StatusCode, Uri, header},
    routing::any,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tempfile::TempDir;

/// Runs git without this machine's settings, and returns its output.
pub(crate) fn git(directory: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(directory)
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"])
        .args(words);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", "/nowhere");
    let output = command.output().expect("git");
    assert!(
        output.status.success(),
        "git {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A bare repository, `project.git`. The content of its file `f` depends on the commit: `old` (tags
/// `v1` and the annotated `noted`; branch `feature/a`), `inner` (no name of its own), `twin tag`
/// and `twin branch` (both called `twin`), `pulled` (only `refs/pull/1/head`), and `main` at the
/// tip.
pub(crate) struct Origin {
    root: TempDir,
}

impl Origin {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("mycli-origin-")
            .tempdir()
            .unwrap();
        let work = root.path().join("work");
        fs::create_dir(&work).unwrap();
        git(&work, &["init", "-q", "-b", "main"]);
        let commit = |text: &str| {
            fs::write(work.join("f"), format!("{text}\n")).unwrap();
            git(&work, &["add", "f"]);
            git(&work, &["commit", "-q", "-m", text]);
        };
        commit("old");
        git(&work, &["tag", "v1"]);
        git(&work, &["tag", "-a", "-m", "noted", "noted"]);
        git(&work, &["branch", "feature/a"]);
        commit("inner");
        commit("twin tag");
        git(&work, &["tag", "twin"]);
        git(&work, &["checkout", "-q", "-b", "twin"]);
        commit("twin branch");
        git(&work, &["checkout", "-q", "main"]);
        commit("pulled");
        git(&work, &["update-ref", "refs/pull/1/head", "HEAD"]);
        git(&work, &["reset", "-q", "--hard", "HEAD~1"]);
        commit("main");
        git(
            root.path(),
            &["clone", "-q", "--mirror", "work", "project.git"],
        );
        Self { root }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.root.path().join("project.git")
    }

    /// The folder that the repository is in. A server serves all that is there.
    pub(crate) fn folder(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn commit(&self, name: &str) -> String {
        git(&self.path(), &["rev-parse", &format!("{name}^{{commit}}")])
    }
}

/// The behaviour of an HTTP server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Habits {
    /// The `user:password` that it asks for.
    pub(crate) login: Option<&'static str>,
    /// Whether it speaks only protocol version 0, where a bare commit id may be refused.
    pub(crate) old: bool,
    /// Whether it answers no request before it is stopped.
    pub(crate) silent: bool,
    /// The statuses of its first answers, which have no other content.
    pub(crate) first: &'static [u16],
    /// Whether it serves the repository's files as they are, without knowing git.
    pub(crate) plain: bool,
    /// The beginning of the URL to which it redirects everything.
    pub(crate) elsewhere: Option<&'static str>,
}

/// How many requests a server of plain files answers. The limit ends a storm of git processes soon
/// after a test finds one.
const PLAIN_ANSWERS: usize = 150;

/// git's smart HTTP, by `git http-backend`.
pub(crate) struct HttpServer {
    pub(crate) origin: Origin,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
    shown: Shown,
    asked: Arc<AtomicUsize>,
}

/// The received `Authorization` headers.
type Shown = Arc<Mutex<Vec<String>>>;

/// What a request handler needs.
#[derive(Clone)]
struct Behind {
    habits: Habits,
    root: PathBuf,
    shown: Shown,
    asked: Arc<AtomicUsize>,
}

impl HttpServer {
    pub(crate) fn new(habits: Habits) -> Self {
        Self::of(Origin::new(), habits)
    }

    /// A server of this repository.
    pub(crate) fn of(origin: Origin, habits: Habits) -> Self {
        if habits.plain {
            git(&origin.path(), &["update-server-info"]);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let (shown, asked) = (Shown::default(), Arc::<AtomicUsize>::default());
        let root = origin.root.path().to_owned();
        let behind = Behind {
            habits,
            root,
            shown: Arc::clone(&shown),
            asked: Arc::clone(&asked),
        };
        let router = Router::new().fallback(any(serve)).with_state(behind);
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            origin,
            address,
            runtime: Some(runtime),
            shown,
            asked,
        }
    }

    /// The number of requests since the last call.
    pub(crate) fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }

    /// The `Authorization` headers received so far.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.shown.lock().unwrap().clone()
    }

    pub(crate) fn url(&self) -> String {
        self.url_of("project.git")
    }

    /// The URL of a repository beside the origin.
    pub(crate) fn url_of(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    State(Behind {
        habits,
        root,
        shown,
        asked,
    }): State<Behind>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if habits.silent {
        return std::future::pending().await;
    }
    let number = asked.fetch_add(1, Ordering::SeqCst);
    if let Some(status) = habits.first.get(number) {
        return refusal(StatusCode::from_u16(*status).unwrap());
    }
    let given = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.to_str().unwrap_or_default().to_owned());
    shown.lock().unwrap().extend(given.clone());
    if let Some(login) = habits.login
        && given != Some(format!("Basic {}", BASE64_STANDARD.encode(login)))
    {
        return refusal(StatusCode::UNAUTHORIZED);
    }
    if let Some(elsewhere) = habits.elsewhere {
        return Response::builder()
            .status(StatusCode::FOUND)
            .header(header::LOCATION, format!("{elsewhere}{uri}"))
            .body(Body::empty())
            .unwrap();
    }
    if habits.plain {
        let file = fs::read(root.join(uri.path().trim_start_matches('/'))).ok();
        let file = file.filter(|_| number < PLAIN_ANSWERS);
        return file.map_or_else(
            || refusal(StatusCode::NOT_FOUND),
            |bytes| Response::new(Body::from(bytes)),
        );
    }
    tokio::task::spawn_blocking(move || backend(&habits, &root, &method, &uri, &headers, &body))
        .await
        .unwrap()
}

fn refusal(status: StatusCode) -> Response<Body> {
    let mut refusal = Response::builder().status(status);
    if status == StatusCode::UNAUTHORIZED {
        refusal = refusal.header(header::WWW_AUTHENTICATE, "Basic realm=\"git\"");
    }
    refusal.body(Body::from("no")).unwrap()
}

/// Answers one request by CGI.
fn backend(
    habits: &Habits,
    root: &Path,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Response<Body> {
    let header = |name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nowhere");
    command
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method.as_str());
    command
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default());
    command
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"));
    command.env("CONTENT_LENGTH", body.len().to_string());
    if !habits.old {
        command.env("GIT_PROTOCOL", header("git-protocol"));
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git http-backend");
    // A request is a few lines of wants, so it fits the pipe. A backend that refuses may not read
    // it.
    child.stdin.take().unwrap().write_all(body).ok();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("CGI headers");
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            _ => response.header(name, value),
        };
    }
    response
        .body(Body::from(output[end + 4..].to_vec()))
        .unwrap()
}

/// Further keys that the server accepts: their names, and how they are made.
pub(crate) const KINDS_OF_KEYS: [(&str, &[&str]); 4] = [
    ("ecdsa", &["-t", "ecdsa"]),
    ("rsa", &["-t", "rsa"]),
    ("rsa-pem", &["-t", "rsa", "-m", "PEM"]),
    ("ecdsa-pem", &["-t", "ecdsa", "-m", "PEM"]),
];

fn make_key(file: &Path, kind: &[&str]) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", ""])
        .args(kind)
        .arg("-f")
        .arg(file)
        .status();
    assert!(made.expect("ssh-keygen").success());
}

/// A real sshd with one process per connection. Its only user is the one who runs the tests.
pub(crate) struct SshServer {
    pub(crate) origin: Origin,
    keys: TempDir,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    accept: Option<JoinHandle<()>>,
}

impl SshServer {
    pub(crate) fn new() -> Self {
        Self::that_drops(0)
    }

    /// A server that drops this many connections before it takes the next.
    pub(crate) fn that_drops(count: usize) -> Self {
        let keys = tempfile::tempdir().unwrap();
        for name in ["host", "user", "other"] {
            make_key(&keys.path().join(name), &["-t", "ed25519"]);
        }
        for (name, kind) in KINDS_OF_KEYS {
            make_key(&keys.path().join(name), kind);
        }
        let accepted: String = ["user"]
            .into_iter()
            .chain(KINDS_OF_KEYS.map(|(name, _)| name))
            .map(|name| fs::read_to_string(keys.path().join(format!("{name}.pub"))).unwrap())
            .collect();
        fs::write(keys.path().join("accepted"), accepted).unwrap();
        let config = keys.path().join("sshd_config");
        let text = format!(
            "AcceptEnv GIT_PROTOCOL\nHostKey {0}/host\nAuthorizedKeysFile {0}/accepted\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\n",
            keys.path().display()
        );
        fs::write(&config, text).unwrap();
        // The directory that sshd is confined to before a login. It refuses to start without it.
        fs::create_dir_all("/run/sshd").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let accept = thread::spawn(move || accept(&listener, &config, &stopped, count));
        Self {
            origin: Origin::new(),
            keys,
            address,
            stop,
            accept: Some(accept),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "ssh://root@{}{}",
            self.address,
            self.origin.path().display()
        )
    }

    pub(crate) fn key(&self, name: &str) -> String {
        fs::read_to_string(self.keys.path().join(name)).unwrap()
    }

    /// The only secret part of a key: everything else in its file is also in the public key, or in
    /// every key.
    ///
    /// In base64 it begins at the 215th character. The 32 bytes of the seed come after magic,
    /// ciphers, the public key, check numbers, kind and public key again (OpenSSH, PROTOCOL.key).
    pub(crate) fn secret_of(&self, name: &str) -> String {
        let base64: String = self
            .key(name)
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        base64[215..257].to_owned()
    }

    /// A `known_hosts` line that pins this server to the key with this name.
    pub(crate) fn pin(&self, name: &str) -> String {
        format!(
            "[127.0.0.1]:{} {}",
            self.address.port(),
            self.key(&format!("{name}.pub"))
        )
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread from its accept.
        drop(TcpStream::connect(self.address));
        if let Some(accept) = self.accept.take() {
            accept.join().ok();
        }
    }
}

fn accept(listener: &TcpListener, config: &Path, stop: &AtomicBool, dropped: usize) {
    let mut children = Vec::new();
    for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        if number < dropped {
            continue;
        }
        let (input, output) = (stream.try_clone().unwrap(), stream);
        let mut command = Command::new("/usr/sbin/sshd");
        command
            .args(["-i", "-f"])
            .arg(config)
            .stdin(std::os::fd::OwnedFd::from(input));
        children.push(
            command
                .stdout(std::os::fd::OwnedFd::from(output))
                .stderr(Stdio::null())
                .spawn()
                .expect("sshd"),
        );
    }
    for mut child in children {
        child.kill().ok();
        child.wait().ok();
    }
}
