//! The tests' AWS emulator: ministack on loopback, without any account.
//!
//! `tests/emulator.sh` owns the process. `tests/README.md` lists its differences from AWS.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::sandbox::Process;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/emulator.sh");
/// How long the emulator may take to start. It takes about half a second; this bounds a hang.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// The region that stands for every region.
pub const REGION: &str = "us-east-1";
/// The account that owns everything in the emulator.
pub const ACCOUNT: &str = "000000000000";
/// The access key and the secret key. The emulator checks neither.
pub const ACCESS_KEY: &str = "test";

/// The address of a DynamoDB for tests that use their own tables: `MYCLI_TEST_DYNAMODB_ENDPOINT`,
/// else [`shared`].
#[must_use]
pub fn dynamodb_endpoint() -> String {
    std::env::var("MYCLI_TEST_DYNAMODB_ENDPOINT").unwrap_or_else(|_| shared())
}

/// The address of an SQS for tests that use their own queues: `MYCLI_TEST_SQS_ENDPOINT`, else
/// [`shared`].
#[must_use]
pub fn sqs_endpoint() -> String {
    std::env::var("MYCLI_TEST_SQS_ENDPOINT").unwrap_or_else(|_| shared())
}

/// The address of the emulator that all tests share. This starts it unless it runs. It outlives
/// this process on purpose, because nextest runs each test in its own process. It ends when nobody
/// uses it, or with `tests/run.sh`. It runs no containers.
///
/// # Panics
/// When it cannot be started, with the reason: a test that needs it must not pass without it.
#[must_use]
pub fn shared() -> String {
    let output = Command::new(SCRIPT)
        .arg("start")
        .env_remove("DOCKER_HOST")
        .output()
        .expect("tests/emulator.sh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the tests' AWS emulator failed (run tests/setup.sh first): {said}"
    );
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// The address of the image registry that all tests share. This starts it unless it runs.
///
/// # Panics
/// When it cannot be started, with the reason.
#[must_use]
pub fn registry() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/images/registry.sh");
    let output = Command::new(script)
        .arg("start")
        .output()
        .expect("tests/images/registry.sh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the tests' registry failed (run tests/setup.sh first): {said}"
    );
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// An emulator for one test. It ends, with the functions it started, when this is dropped or when
/// the test's process ends in any other way.
#[derive(Debug)]
pub struct Emulator {
    port: u16,
    process: Child,
    /// The emulator runs while this is open.
    leash: Option<ChildStdin>,
    folder: TempDir,
}

impl Emulator {
    /// Starts an emulator whose ECS tasks stay RUNNING for ever.
    ///
    /// # Panics
    /// When it cannot be started, with the reason.
    #[must_use]
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// Starts an emulator whose ECS tasks are containers of this engine (a value for
    /// `DOCKER_HOST`), and whose ECR is a real registry that the engine pulls from.
    ///
    /// # Panics
    /// When it cannot be started, with the reason.
    #[must_use]
    pub fn with_containers(docker_host: &str) -> Self {
        Self::with(|command| {
            command.env("DOCKER_HOST", docker_host);
            command.env("MYCLI_TESTS_REGISTRY", registry());
        })
    }

    /// Starts an emulator with more variables in its environment. Its functions see them too.
    ///
    /// # Panics
    /// When it cannot be started, with the reason.
    #[must_use]
    pub fn with(prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("mycli-emulator-")
            .tempdir()
            .expect("a folder");
        let port = free_port();
        let mut command = Command::new(SCRIPT);
        command
            .arg("run")
            .arg(port.to_string())
            .arg(folder.path())
            .env_remove("DOCKER_HOST");
        prepare(&mut command);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = command.spawn().expect("tests/emulator.sh runs");
        let leash = process.stdin.take();
        let mut emulator = Self {
            port,
            process,
            leash,
            folder,
        };
        emulator.wait();
        emulator
    }

    /// The endpoint of every service: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of the request log. It has a line for each request over the network: method, path,
    /// status, `X-Amz-Target` (`-` where the service has none), user agent. Requests between the
    /// emulator's own parts are not in it, for example an event source that polls a queue.
    #[must_use]
    pub fn request_log(&self) -> PathBuf {
        self.folder.path().join("requests.log")
    }

    /// The path of the log of the stack's functions. It has a line of JSON for each request of a
    /// function: `function`, `target` (the operation) and `body`, and for DynamoDB the `units`
    /// (`writes`, `reads`) and whether it was `refused`.
    #[must_use]
    pub fn calls_log(&self) -> PathBuf {
        self.folder.path().join("calls.jsonl")
    }

    /// The path of the log of the command line. It has a line of JSON for each request: `service`
    /// and `operation` as in AWS's API models, `method`, `path`, and `parameters` if the protocol
    /// has them in the body as form fields or JSON.
    #[must_use]
    pub fn commands_log(&self) -> PathBuf {
        self.folder.path().join("commands.jsonl")
    }

    /// The path of the log of invocations. It has a line of JSON for each invocation of a function:
    /// `function`, `source` (an ARN, or the field that shows the type of the event), `records`,
    /// `ms`, and the function's `memory`.
    #[must_use]
    pub fn invocations_log(&self) -> PathBuf {
        self.folder.path().join("invocations.jsonl")
    }

    /// The path of the log of the emulator and its functions.
    #[must_use]
    pub fn server_log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// The resident memory of each function's largest process, in kB, by the function's name.
    #[must_use]
    pub fn functions_memory(&self) -> BTreeMap<String, u64> {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let mut memory = BTreeMap::new();
        for process in Process::all().filter(|process| process.mentions(&folder)) {
            if let (Some(name), Some(kilobytes)) = (
                process.variable("AWS_LAMBDA_FUNCTION_NAME"),
                process.resident(),
            ) {
                let most: &mut u64 = memory.entry(name).or_default();
                *most = kilobytes.max(*most);
            }
        }
        memory
    }

    /// Stops every process of the emulator until the result is dropped, as if the whole region
    /// stood still.
    ///
    /// # Panics
    /// When the emulator has no process.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let processes: Vec<_> = Process::all()
            .filter(|process| process.mentions(&folder))
            .collect();
        assert!(!processes.is_empty(), "the emulator runs");
        processes
            .iter()
            .for_each(|process| process.signal(Signal::STOP));
        Frozen(processes)
    }

    fn wait(&mut self) {
        let end = Instant::now() + PATIENCE;
        while !healthy(self.port) {
            let over = self.process.try_wait().expect("it is our child");
            assert!(
                over.is_none() && Instant::now() < end,
                "the tests' AWS emulator does not serve (run tests/setup.sh first): {}",
                tail(&self.server_log())
            );
            thread::sleep(LOOK);
        }
    }
}

/// A stopped emulator. Its processes go on when this is dropped.
#[derive(Debug)]
pub struct Frozen(Vec<Process>);

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0
            .iter()
            .for_each(|process| process.signal(Signal::CONT));
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.leash.take());
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.process.try_wait().is_ok_and(|over| over.is_some()) {
                return;
            }
            thread::sleep(LOOK);
        }
        let _gone = self.process.kill();
        let _over = self.process.wait();
    }
}

/// A free port on loopback.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    listener.local_addr().expect("it is bound").port()
}

fn healthy(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ministack/health HTTP/1.0\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups_of(folder: &Path) -> usize {
        let folder = folder.to_string_lossy().into_owned();
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        processes
            .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
            .filter(|line| String::from_utf8_lossy(line).contains(&folder))
            .count()
    }

    #[test]
    fn an_emulator_serves_and_is_gone_when_it_is_dropped() {
        let emulator = Emulator::start();
        let (port, folder) = (emulator.port(), emulator.folder.path().to_owned());
        assert!(healthy(port));
        assert!(groups_of(&folder) > 0);
        drop(emulator);
        assert!(!healthy(port));
        assert_eq!(groups_of(&folder), 0, "a process is left");
        assert!(!folder.exists(), "its folder is left");
    }

    #[test]
    fn nobody_but_this_machine_reaches_it() {
        let emulator = Emulator::start();
        let port = format!(":{:04X}", emulator.port());
        let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
        let listeners = table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        let bound: Vec<_> = listeners
            .filter(|address| address.ends_with(&port))
            .collect();
        assert!(
            bound.iter().any(|address| address.starts_with("0100007F")),
            "{bound:?}"
        );
        assert!(
            !bound.iter().any(|address| address.starts_with("00000000")),
            "it listens everywhere"
        );
        let six = std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
        assert!(!six.contains(&port), "it listens on IPv6 too");
    }

    #[test]
    fn the_shared_one_is_the_same_for_all() {
        assert_eq!(shared(), shared());
    }
}
