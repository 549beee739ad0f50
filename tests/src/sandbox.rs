//! A user of this machine with their own home. The user runs `mycli`, and nothing is left of them
//! afterwards.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::mycli;

/// How long a test waits for a condition. This bounds a hang: it is longer than any step takes on a
/// busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two checks of a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `look` returns a value.
///
/// # Panics
/// When it returns none for [`PATIENCE`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(LOOK);
    }
}

/// A process, as `/proc` showed it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its arguments, with a NUL byte after each.
    pub argv: Vec<u8>,
    /// The environment that it was started with, with a NUL byte after each variable.
    pub environ: Vec<u8>,
}

impl Process {
    /// All processes that this process may inspect, except itself. Zombies are left out, since they
    /// have neither arguments nor environment. So are processes that end during the look.
    pub fn all() -> impl Iterator<Item = Self> {
        let pids = fs::read_dir("/proc").into_iter().flatten();
        let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| u32::try_from(*pid).ok() != Some(std::process::id()))
            .filter_map(Self::of)
    }

    fn of(pid: i32) -> Option<Self> {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}"));
        let process = Self {
            pid,
            argv: read("cmdline").ok()?,
            environ: read("environ").unwrap_or_default(),
        };
        // `/proc` is read in pieces, so a process that ends in between shows only a part.
        let is_torn = process.environ.last().is_some_and(|byte| *byte != 0);
        (!process.argv.is_empty() && !is_torn).then_some(process)
    }

    /// Whether its arguments or its environment contain a text.
    #[must_use]
    pub fn mentions(&self, text: &str) -> bool {
        holds(&self.argv, text) || holds(&self.environ, text)
    }

    /// The value of a variable in its environment.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        let environ = String::from_utf8_lossy(&self.environ).into_owned();
        environ
            .split('\0')
            .find_map(|variable| variable.strip_prefix(&prefix).map(str::to_owned))
    }

    /// Its resident memory in kB; `None` once it is gone.
    #[must_use]
    pub fn resident(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
    }

    /// A description for a failure's text: its arguments, and the names in its environment.
    #[must_use]
    pub fn shown(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let names: Vec<_> = self
            .environ
            .split(|byte| *byte == 0)
            .filter_map(|one| one.split(|byte| *byte == b'=').next())
            .collect();
        format!(
            "process {} {} ({})",
            self.pid,
            text(&self.argv).replace('\0', " "),
            text(&names.join(&b' '))
        )
    }

    /// Sends it a signal. It may be gone.
    pub fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }
}

fn send(pid: i32, signal: Signal) {
    // It is gone already: there is nothing to do.
    let _gone = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
}

/// Whether `haystack` contains `needle`.
#[must_use]
pub fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

/// A user with nothing configured.
#[derive(Debug)]
pub struct Sandbox {
    root: TempDir,
    env: Vec<(OsString, OsString)>,
    program: Option<PathBuf>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// A new user in an empty folder.
    ///
    /// # Panics
    /// When the folders cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("mycli-e2e-")
            .tempdir()
            .expect("a folder");
        for name in ["home", "work"] {
            fs::create_dir(root.path().join(name)).expect("a folder");
        }
        Self {
            root,
            env: Vec::new(),
            program: None,
        }
    }

    /// Adds a variable to the environment of every program run.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Makes the user run this `mycli` from now on, instead of the one built with the tests.
    pub fn use_program(&mut self, program: &Path) {
        self.program = Some(program.to_owned());
    }

    /// The user's HOME.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    /// The folder with everything about this machine's runs.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.home().join(".mycli/local")
    }

    /// A file or folder in the working directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("work").join(name)
    }

    /// Stores a secret as the manual says: in a file that only its owner can read.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn keep_secret(&self, name: &str, value: &str) {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.store().join("secrets");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), value).expect("a file");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600))
            .expect("its mode");
    }

    /// Stores a git credential for repositories on this machine.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn keep_credential(&self, name: &str, value: &str) {
        self.keep_secret(&format!("{name}.hosts"), "127.0.0.1\nlocalhost\n");
        self.keep_secret(name, value);
    }

    /// Writes a program into the working directory.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_program(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.path(name), text).expect("a file");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).expect("its mode");
    }

    /// `mycli` with these arguments, in the working directory. Of this process's environment it
    /// gets only PATH.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program.clone().unwrap_or_else(mycli));
        command
            .args(arguments)
            .current_dir(self.path(""))
            .env_clear()
            .stdin(Stdio::null());
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home());
        command
            .env("TZ", "UTC")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CEILING_DIRECTORIES", self.root.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `mycli` to its end.
    ///
    /// # Panics
    /// When it cannot be started, or does not end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.start(arguments).end()
    }

    /// Runs `mycli` to its end, with a text on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mycli starts");
        // A program that refuses its arguments does not read its input.
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes())
            .ok();
        Ran::from(child.wait_with_output().expect("it ends"))
    }

    /// Runs `mycli --local` to its end.
    #[must_use]
    pub fn local(&self, arguments: &[&str]) -> Ran {
        self.run(&[&["--local"], arguments].concat())
    }

    /// Runs a command without a repository to its end. Returns the output and the final record.
    #[must_use]
    pub fn exec(&self, arguments: &[&str]) -> (Ran, Value) {
        let ran = self.local(&[&["exec", "--no-repo", "-o", "json"], arguments].concat());
        let record = ran.json();
        (ran, record)
    }

    /// Submits a command without a repository, detached. Returns its id.
    #[must_use]
    pub fn detach(&self, arguments: &[&str]) -> String {
        let ran = self
            .local(&[&["exec", "--no-repo", "--detach"], arguments].concat())
            .exits(0);
        ran.out.trim_end().to_owned()
    }

    /// The record of a run, as `status -o json` prints it.
    #[must_use]
    pub fn record(&self, id: &str) -> Value {
        self.local(&["status", id, "-o", "json"]).exits(0).json()
    }

    /// Gives the record of a run a value that no release knows, so that it cannot be read.
    ///
    /// # Panics
    /// When there is no such record.
    pub fn spoil(&self, id: &str) {
        let sql = "UPDATE executions SET record = json_set(record, '$.request.arch', 'mips') WHERE id = ?1";
        let file = rusqlite::Connection::open(self.store().join("store.sqlite"));
        let changed = file.and_then(|file| {
            file.busy_timeout(Duration::from_secs(10))?;
            file.execute(sql, [id])
        });
        assert_eq!(changed, Ok(1), "{id}");
    }

    /// Waits until a run has this status.
    pub fn until_status(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), || {
            (self.record(id)["status"] == status).then_some(())
        });
    }

    /// Starts `mycli` and returns while it runs.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::of(self.command(arguments))
    }

    /// Starts `mycli local serve` on a free port and waits until it answers.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn serve(&self, arguments: &[&str]) -> Serve {
        self.serve_in(arguments, &[])
    }

    /// Like [`Self::serve`], with these variables.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn serve_in(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Serve {
        let fixed = ["local", "serve", "--listen", "127.0.0.1:0", "-o", "json"];
        let mut command = self.command(&[&fixed, arguments].concat());
        command.envs(variables.iter().copied());
        let running = Running::of(command);
        let line = running.line();
        let said: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let key = fs::read_to_string(said["key_file"].as_str().expect("a file")).expect("the key");
        let endpoint = said["endpoint"].as_str().expect("an address").to_owned();
        Serve {
            endpoint,
            key: key.trim().to_owned(),
            running: Some(running),
        }
    }

    /// All processes of this user: those that mention the home's path.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let path = self.root.path().to_string_lossy().into_owned();
        Process::all()
            .filter(|process| process.mentions(&path))
            .collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A process forked during the search is found the next time.
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            left.iter().for_each(|process| process.signal(Signal::KILL));
            thread::sleep(LOOK);
        }
    }
}

/// A running `mycli`. It is killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: Receiver<Vec<u8>>,
    err: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    /// Starts a command.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn of(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mycli starts");
        let (sender, out) = channel();
        let (stdout, mut stderr) = (
            child.stdout.take().expect("piped"),
            child.stderr.take().expect("piped"),
        );
        thread::spawn(move || {
            let (mut reader, mut line) = (BufReader::new(stdout), Vec::new());
            while reader.read_until(b'\n', &mut line).is_ok_and(|got| got > 0)
                && sender.send(std::mem::take(&mut line)).is_ok()
            {}
        });
        let err = thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).expect("it can be read");
            bytes
        });
        Self {
            child,
            out,
            err: Some(err),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits for its next line on standard output and returns the line without its end.
    ///
    /// # Panics
    /// When no line comes for [`PATIENCE`], or the output has ended.
    #[must_use]
    pub fn line(&self) -> String {
        let line = self
            .out
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("no line on standard output: {error}"));
        String::from_utf8_lossy(&line)
            .trim_end_matches('\n')
            .to_owned()
    }

    /// Waits for its end. The lines that [`Self::line`] returned are not in the result.
    ///
    /// # Panics
    /// When it does not end within twice [`PATIENCE`].
    #[must_use]
    pub fn end(mut self) -> Ran {
        let mut out = Vec::new();
        loop {
            match self.out.recv_timeout(PATIENCE * 2) {
                Ok(line) => out.extend_from_slice(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.signal(Signal::KILL);
                    let err = self
                        .err
                        .take()
                        .and_then(|reader| reader.join().ok())
                        .unwrap_or_default();
                    let [out, err] = [&out, &err].map(|bytes| String::from_utf8_lossy(bytes));
                    panic!(
                        "it does not end; so far it printed: {out}\nand on standard error: {err}"
                    );
                }
            }
        }
        let status = self.exited();
        let err = self
            .err
            .take()
            .and_then(|reader| reader.join().ok())
            .expect("the reader ends");
        Ran::of(status, out, err)
    }

    fn exited(&mut self) -> ExitStatus {
        eventually("it ends", || {
            self.child.try_wait().expect("it is our child")
        })
    }
}

/// The result of a `mycli` that ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self::of(output.status, output.stdout, output.stderr)
    }
}

impl Ran {
    fn of(status: ExitStatus, out: Vec<u8>, err: Vec<u8>) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("mycli prints UTF-8");
        Self {
            code: status.code(),
            out: text(out),
            err: text(err),
        }
    }

    /// Asserts the exit code. A failure shows the whole result.
    ///
    /// # Panics
    /// When the exit code is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Asserts that standard error contains a text.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "no {text:?} in {self:#?}");
        self
    }

    /// Asserts the standard output.
    ///
    /// # Panics
    /// When it differs.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert_eq!(self.out, text, "{self:#?}");
        self
    }

    /// Parses standard output as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

/// A running `mycli local serve`. It is ended by SIGTERM when dropped.
#[derive(Debug)]
pub struct Serve {
    /// The address, as `http://127.0.0.1:PORT`.
    pub endpoint: String,
    /// The administrator's key.
    pub key: String,
    running: Option<Running>,
}

impl Serve {
    /// `mycli` as this user runs it against this server.
    #[must_use]
    pub fn command(&self, sandbox: &Sandbox, arguments: &[&str]) -> Command {
        let mut command = sandbox.command(arguments);
        command
            .env("MYCLI_ENDPOINT", &self.endpoint)
            .env("MYCLI_API_KEY", &self.key);
        command
    }

    /// Runs `mycli` against this server to its end.
    #[must_use]
    pub fn run(&self, sandbox: &Sandbox, arguments: &[&str]) -> Ran {
        Running::of(self.command(sandbox, arguments)).end()
    }

    /// Ends it as a user would, and returns the result.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn stop(self) -> Ran {
        self.end(Signal::TERM)
    }

    /// Ends it with a signal.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(mut self, signal: Signal) -> Ran {
        let running = self.running.take().expect("it runs");
        running.signal(signal);
        running.end()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.signal(Signal::TERM);
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            if running.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            thread::sleep(LOOK);
        }
        running.signal(Signal::KILL);
        let _ended = running.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A child that was already waited for has freed its pid, which another process may have by
        // now.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _gone = self.child.kill();
            let _ended = self.child.wait();
        }
    }
}

/// All files beneath a folder.
///
/// # Panics
/// When a folder cannot be read.
#[must_use]
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry"))
        {
            if entry.file_type().expect("its kind").is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}
