//! The tests' container engine (Podman behind the Docker API), and the images made for it.
//!
//! `tests/images/engine.sh` owns the process. `tests/README.md` lists the engine's differences from
//! Docker.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::sandbox::eventually;

/// Static busybox: `/bin/sh` is ash. It has neither git nor a package manager.
pub const BUSYBOX: &str = "localhost/mycli-test/busybox";
/// One static program, `/busybox`, and nothing else.
pub const SCRATCH: &str = "localhost/mycli-test/scratch";
/// Debian without a shell.
pub const NO_SHELL: &str = "localhost/mycli-test/no-shell";
/// Debian with git, bash and an ssh client.
pub const DEBIAN_GIT: &str = "localhost/mycli-test/debian-git";
/// Debian with neither git nor ssh. It has `apt-get`, but no package source.
pub const DEBIAN: &str = "localhost/mycli-test/debian";
/// An image with an ENTRYPOINT that prints its arguments and succeeds instead of running them.
pub const ENTRYPOINT: &str = "localhost/mycli-test/entrypoint";
/// An image with `WORKDIR /srv/app` that sets `FROM_IMAGE`.
pub const WORKDIR: &str = "localhost/mycli-test/workdir";
/// An image that runs as the user `app` (1000) with the home `/home/app`.
pub const USER: &str = "localhost/mycli-test/user";
/// An image that runs as `app`, with a STOPSIGNAL, a HEALTHCHECK and a VOLUME.
pub const MEDDLING: &str = "localhost/mycli-test/meddling";
/// An image with a volume and its working directory at `/workspace`, whose user is not root.
pub const WORKSPACE: &str = "localhost/mycli-test/workspace";
/// [`DEBIAN_GIT`] with an ENTRYPOINT, WORKDIR and USER like these, all at once. HOME is not
/// writable.
pub const AWKWARD: &str = "localhost/mycli-test/awkward";
/// An image that does not exist. Its pull fails at once, because `.invalid` never resolves (RFC
/// 2606).
pub const MISSING: &str = "registry.invalid/mycli-test/missing:1";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/images/engine.sh");
const DOCKER_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/images/docker.sh");

/// Starts a real Docker daemon, with images of this module, unless it runs. Returns the value of
/// `DOCKER_HOST`. `tests/images/docker.sh` owns it.
///
/// # Panics
/// When it cannot be started, with the reason and the remedy.
#[must_use]
pub fn docker() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| run(Command::new(DOCKER_SCRIPT).arg("start")))
}

/// A Docker daemon of a test's own, which it may kill. It has [`BUSYBOX`] alone. It ends when
/// dropped.
#[derive(Debug)]
pub struct OwnDocker {
    name: &'static str,
}

impl OwnDocker {
    /// The daemon of this name. Two tests that run at the same time need two names.
    #[must_use]
    pub fn named(name: &'static str) -> Self {
        Self { name }
    }

    fn script(&self, word: &str) -> String {
        let mut command = Command::new(DOCKER_SCRIPT);
        run(command.arg(word).env("MYCLI_TESTS_DOCKER", self.name))
    }

    /// Starts it unless it runs. Returns the value of `DOCKER_HOST`, which stays the same.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self) -> String {
        self.script("start")
    }

    /// Kills it and all that it started, as a crash does.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&self) {
        self.script("kill");
    }
}

impl Drop for OwnDocker {
    fn drop(&mut self) {
        let _stopped = Command::new(DOCKER_SCRIPT)
            .arg("stop")
            .env("MYCLI_TESTS_DOCKER", self.name)
            .output();
    }
}

/// The ids of all containers of the Docker daemon with this label, running or not.
///
/// # Panics
/// When it does not answer.
#[must_use]
pub fn docker_containers(label: &str) -> Vec<String> {
    run(Command::new(DOCKER_SCRIPT).args(["containers", label]))
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A request to an engine.
#[derive(Debug)]
pub struct EngineRequest {
    /// The request line and the headers, with the empty line.
    pub head: String,
    /// The body, if a `Content-Length` announces one.
    pub body: Vec<u8>,
}

/// The fate of a request.
#[derive(Debug)]
pub enum Passed {
    /// It goes on to the engine, with this body.
    On(Vec<u8>),
    /// The engine does not see it. The answer is this JSON.
    Answered(String),
    /// The engine does not see it. The connection ends without an answer.
    Lost,
}

/// A socket before an engine, which changes requests on their way.
#[derive(Debug)]
pub struct EngineProxy {
    path: PathBuf,
    over: Arc<AtomicBool>,
    serving: Option<thread::JoinHandle<()>>,
}

impl EngineProxy {
    /// Listens at this path, and passes requests on to the engine at this socket.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn at(
        path: PathBuf,
        engine: PathBuf,
        change: impl Fn(&EngineRequest) -> Passed + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(&path).expect("a socket");
        let over = Arc::new(AtomicBool::new(false));
        let (ended, change) = (Arc::clone(&over), Arc::new(change));
        let serving = thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (engine, change) = (engine.clone(), Arc::clone(&change));
                // The client may be dead.
                thread::spawn(move || drop(pass(client, &engine, &*change)));
            }
        });
        Self {
            path,
            over,
            serving: Some(serving),
        }
    }

    /// The value of `DOCKER_HOST`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.path));
        let _ended = self.serving.take().map(thread::JoinHandle::join);
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// Passes on the one request of a connection, and all that follows it.
fn pass(
    mut client: UnixStream,
    engine: &Path,
    change: &dyn Fn(&EngineRequest) -> Passed,
) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    };
    let length = head.lines().find_map(header);
    let mut body = vec![0; length.unwrap_or_default()];
    client.read_exact(&mut body)?;
    let request = EngineRequest { head, body };
    let body = match change(&request) {
        Passed::On(body) => body,
        Passed::Lost => return Ok(()),
        Passed::Answered(body) => {
            let length = body.len();
            return write!(
                client,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            );
        }
    };
    let lines = request.head.split_inclusive("\r\n");
    let head: String = lines
        .map(|line| match header(line) {
            Some(_) => format!("Content-Length: {}\r\n", body.len()),
            None => line.to_owned(),
        })
        .collect();
    let mut engine = UnixStream::connect(engine)?;
    engine.write_all(head.as_bytes())?;
    engine.write_all(&body)?;
    let (mut from_client, mut to_engine) = (client.try_clone()?, engine.try_clone()?);
    let forth = thread::spawn(move || {
        let _either_went_away = io::copy(&mut from_client, &mut to_engine);
        to_engine.shutdown(Shutdown::Both)
    });
    let _either_went_away = io::copy(&mut engine, &mut client);
    client.shutdown(Shutdown::Both)?;
    forth.join().unwrap_or(Ok(()))
}

/// The running engine, which all tests share. It outlives this process on purpose, because nextest
/// runs each test in its own process. It ends when nobody uses it, or with `tests/run.sh`.
#[derive(Debug)]
pub struct Engine {
    docker_host: String,
}

impl Engine {
    /// Starts the engine unless it runs.
    ///
    /// # Panics
    /// When it cannot be started, with the reason and the remedy: a test that needs containers must
    /// not pass without them.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Engine> = OnceLock::new();
        SHARED.get_or_init(|| Self {
            docker_host: run(Command::new(SCRIPT).arg("start")),
        })
    }

    /// The value of `DOCKER_HOST` for this engine: `unix://` and a path.
    #[must_use]
    pub fn docker_host(&self) -> &str {
        &self.docker_host
    }

    /// The path of the engine's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        Path::new(self.docker_host.trim_start_matches("unix://")).to_path_buf()
    }

    /// Runs `podman ARGS` on this engine's storage and returns its output without the last newline.
    ///
    /// # Panics
    /// When its exit code is not 0, with its output.
    #[must_use]
    pub fn podman(&self, args: &[&str]) -> String {
        run(Command::new(SCRIPT).arg("podman").args(args))
    }

    /// Makes a container with this label, and returns its id. It is never started.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn create_with_label(&self, label: &str) -> String {
        let settings = ["create", "--network=none", "--label", label];
        self.podman(&[&settings[..], &[BUSYBOX, "true"]].concat())
    }

    /// The ids of all containers with this `label` (`KEY` or `KEY=VALUE`), running or not.
    #[must_use]
    pub fn containers(&self, label: &str) -> Vec<String> {
        let filter = format!("label={label}");
        self.podman(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter])
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// Another Podman service on the same storage, which a test may stop at any moment. It ends when
/// dropped; its containers do not.
#[derive(Debug)]
pub struct Service {
    process: Child,
    socket: PathBuf,
}

impl Service {
    /// Starts a service at this socket. The path must be shorter than 108 bytes (unix(7)).
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn start(socket: &Path) -> Self {
        // The shared engine creates the storage and the images.
        let _shared = Engine::shared();
        let mut command = Command::new(SCRIPT);
        command
            .arg("serve")
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command
            .spawn()
            .expect("tests/images/engine.sh can be started");
        eventually("the service answers", || UnixStream::connect(socket).ok());
        Self {
            process,
            socket: socket.to_owned(),
        }
    }

    /// Kills the service. Nothing listens on its socket afterwards.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _gone = self.process.kill();
        let _over = self.process.wait();
        let _gone = std::fs::remove_file(&self.socket);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .expect("tests/images/engine.sh can be started");
    assert!(
        output.status.success(),
        "the tests' container engine failed (run tests/setup.sh first): {command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `script` in an image with its own ENTRYPOINT replaced, and returns the output.
    fn sh(image: &str, script: &str) -> String {
        let args = [
            "run",
            "--rm",
            "--network=none",
            "--entrypoint",
            "/bin/sh",
            image,
            "-c",
            script,
        ];
        Engine::shared().podman(&args)
    }

    #[test]
    fn container_engine_answers_on_the_docker_api() {
        let mut socket =
            UnixStream::connect(Engine::shared().socket()).expect("the socket is there");
        socket
            .write_all(b"GET /v1.41/_ping HTTP/1.0\r\n\r\n")
            .expect("it takes a request");
        let mut answer = String::new();
        socket
            .read_to_string(&mut answer)
            .expect("it answers in text");
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        assert!(answer.ends_with("OK"), "{answer}");
    }

    #[test]
    fn container_images_have_git_only_where_they_say_so() {
        let which = "command -v git || echo none";
        assert_eq!(sh(BUSYBOX, which), "none");
        assert_eq!(sh(DEBIAN, which), "none");
        assert_eq!(sh(DEBIAN, "command -v apt-get"), "/usr/bin/apt-get");
        assert_eq!(sh(DEBIAN_GIT, which), "/usr/bin/git");
        assert_eq!(sh(AWKWARD, which), "/usr/bin/git");
    }

    #[test]
    fn container_images_break_who_trusts_their_settings() {
        let naive = [
            "run",
            "--rm",
            "--network=none",
            ENTRYPOINT,
            "sh",
            "-c",
            "exit 3",
        ];
        assert_eq!(
            Engine::shared().podman(&naive),
            "the entry point ran with: sh -c exit 3"
        );
        assert_eq!(
            sh(WORKDIR, "pwd; echo $FROM_IMAGE"),
            "/srv/app\nset by the image"
        );
        assert_eq!(
            sh(USER, "id -u; pwd; touch x && echo ok"),
            "1000\n/home/app\nok"
        );
        let homeless = "id -u; pwd; touch $HOME/x 2>/dev/null || echo refused";
        assert_eq!(sh(AWKWARD, homeless), "1000\n/srv/app\nrefused");
    }

    #[test]
    fn container_killed_for_its_memory_is_told_as_docker_tells_it() {
        let engine = Engine::shared();
        let over = [
            "--memory=32m",
            "--memory-swap=32m",
            BUSYBOX,
            "tail",
            "/dev/zero",
        ];
        let within = ["--memory=32m", "--memory-swap=32m", BUSYBOX, "true"];
        for (arguments, expected) in [(over.as_slice(), "137 true"), (&within, "0 false")] {
            let id = engine.podman(&[&["create", "--network=none"], arguments].concat());
            let _ = engine.podman(&["start", &id]);
            let _ = engine.podman(&["wait", &id]);
            let format = "{{.State.ExitCode}} {{.State.OOMKilled}}";
            let state = engine.podman(&["inspect", "--format", format, &id]);
            let _ = engine.podman(&["rm", "--force", &id]);
            assert_eq!(state, expected);
        }
    }

    #[test]
    fn container_left_behind_is_found_by_its_label() {
        let engine = Engine::shared();
        let label = format!("mycli-test-engine={}", std::process::id());
        assert_eq!(engine.containers(&label), Vec::<String>::new());
        let id = engine.create_with_label(&label);
        let found = engine.containers(&label);
        let _ = engine.podman(&["rm", "--force", &id]);
        assert_eq!(found, [id]);
    }
}
