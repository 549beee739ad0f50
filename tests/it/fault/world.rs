//! A separate home for each story, the program started in it, and what must not be left in it at
//! the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use local::runner_program::PROGRAM;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tests::engine::Engine;

/// A bound on a hang. It is above the minute for which an engine that does not answer is called
/// again.
const LONG: Duration = Duration::from_secs(150);
/// The pause between two checks of a condition.
const LOOK: Duration = Duration::from_millis(10);
const KILLED: i32 = 9;

/// Waits until `look` finds something.
#[track_caller]
pub(super) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < LONG, "not within {LONG:?}: {what}");
        thread::sleep(LOOK);
    }
}

/// How a run must end if its command ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Its status.
    pub(super) status: &'static str,
    /// Its exit code.
    pub(super) exit_code: Option<i64>,
}

/// The expected end of a submission.
#[derive(Clone, Debug)]
struct Promise {
    end: End,
    /// Whether a cancel was requested. The request may not have arrived.
    cancel: bool,
    /// Whether it may end without having run.
    may_not_run: bool,
}

/// The home, the programs in it and the expected ends. See the module.
pub(super) struct World {
    dir: TempDir,
    program: PathBuf,
    docker_host: Option<String>,
    promises: Mutex<BTreeMap<String, Promise>>,
    accepted: Mutex<BTreeSet<String>>,
    started: AtomicU32,
}

/// A started `mycli`. It is killed when dropped.
pub(super) struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Waits for its end.
    #[track_caller]
    pub(super) fn end(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(since.elapsed() < LONG, "mycli does not end: {}", self.err());
            thread::sleep(LOOK);
        }
    }

    /// Whether it has ended.
    pub(super) fn is_over(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_some()
    }

    /// Whether it was killed at a crash point. Waits for its end first.
    #[track_caller]
    pub(super) fn died(&mut self) -> bool {
        self.end().signal() == Some(KILLED)
    }

    /// Sends a signal to this process alone.
    pub(super) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _gone = pid.map(|pid| kill_process(pid, signal));
    }

    /// Its standard output so far.
    pub(super) fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Its standard error so far.
    pub(super) fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl World {
    /// An empty home. If `engine`, runs find the test's container engine, else none.
    pub(super) fn new(engine: bool) -> Self {
        Self {
            dir: tempfile::Builder::new()
                .prefix("mycli-fault-")
                .tempdir()
                .expect("a directory"),
            program: tests::mycli(),
            docker_host: engine.then(|| Engine::shared().docker_host().to_owned()),
            promises: Mutex::default(),
            accepted: Mutex::default(),
            started: AtomicU32::new(0),
        }
    }

    /// A path in this home.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gives the containers of this home a runner that no other home has, so that the engine does
    /// not know it yet.
    pub(super) fn bring_new_runner(&self) {
        let mut program = PROGRAM.to_vec();
        // A loader ignores what follows a program.
        program.extend(self.dir.path().as_os_str().as_encoded_bytes());
        fs::write(self.new_runner(), program).expect("a file");
    }

    fn new_runner(&self) -> PathBuf {
        self.path("new-runner")
    }

    fn local(&self, name: &str) -> PathBuf {
        self.dir.path().join(".mycli/local").join(name)
    }

    /// The database of this home.
    pub(super) fn store(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.local("store.sqlite")).expect("the store opens")
    }

    /// The key of this home's server.
    pub(super) fn key(&self) -> String {
        fs::read_to_string(self.local("serve.key"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// Starts `mycli ARGS`, which dies at `point` if it reaches it.
    pub(super) fn start<S: AsRef<OsStr>>(&self, args: &[S], point: Option<&str>) -> Process {
        self.start_on(
            self.docker_host
                .as_deref()
                .unwrap_or("unix:///nonexistent.sock"),
            args,
            point,
        )
    }

    /// The same with another container engine.
    pub(super) fn start_on<S: AsRef<OsStr>>(
        &self,
        docker_host: &str,
        args: &[S],
        point: Option<&str>,
    ) -> Process {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let [out, err] = ["out", "err"].map(|name| self.path(&format!("{number}.{name}")));
        let file = |path: &Path| File::create(path).expect("a file");
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env_clear()
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(point.map(|point| ("MYCLI_FAILPOINT", point)));
        command.env("DOCKER_HOST", docker_host);
        let runner = self.new_runner();
        command.envs(runner.exists().then_some(("MYCLI_RUNNER", runner)));
        let child = command
            .stdin(Stdio::null())
            .stdout(file(&out))
            .stderr(file(&err))
            .spawn();
        Process {
            child: child.expect("mycli starts"),
            out,
            err,
        }
    }

    /// Runs `mycli ARGS` to its end and returns its output. It must exit with this code.
    #[track_caller]
    pub(super) fn run<S: AsRef<OsStr> + std::fmt::Debug>(&self, args: &[S], code: i32) -> String {
        let mut process = self.start(args, None);
        let status = process.end();
        assert_eq!(
            status.code(),
            Some(code),
            "{args:?}: {status} {}",
            process.err()
        );
        process.out()
    }

    /// A command that adds a line to its own file, then does `rest`.
    pub(super) fn marking(&self, tag: &str, rest: &str) -> String {
        format!(
            "echo ran >> '{}'; {rest}",
            self.path(&format!("ran-{tag}")).display()
        )
    }

    /// Announces a submission of this name. If it runs, it must end in this way.
    pub(super) fn promise(&self, tag: &str, status: &'static str, exit_code: Option<i64>) {
        let promise = Promise {
            end: End { status, exit_code },
            cancel: false,
            may_not_run: false,
        };
        self.promises
            .lock()
            .expect("no panic")
            .insert(tag.to_owned(), promise);
    }

    /// Announces a request to cancel it.
    pub(super) fn cancels(&self, tag: &str) {
        self.change(tag, |promise| promise.cancel = true);
    }

    /// Allows it to fail without having run.
    pub(super) fn may_not_run(&self, tag: &str) {
        self.change(tag, |promise| promise.may_not_run = true);
    }

    fn change(&self, tag: &str, change: impl FnOnce(&mut Promise)) {
        change(
            self.promises
                .lock()
                .expect("no panic")
                .get_mut(tag)
                .expect("it was promised"),
        );
    }

    /// Records that somebody received this execution's id.
    pub(super) fn accepted(&self, id: &str) {
        self.accepted
            .lock()
            .expect("no panic")
            .insert(id.to_owned());
    }

    /// How often the command of this name ran: the lines in its file, or in the logs if it ran in a
    /// container.
    fn runs(&self, tag: &str) -> usize {
        let own = fs::read_to_string(self.path(&format!("ran-{tag}")))
            .unwrap_or_default()
            .lines()
            .count();
        let logs = fs::read_dir(self.local("logs"))
            .into_iter()
            .flatten()
            .flatten();
        let texts = logs.map(|log| fs::read_to_string(log.path()).unwrap_or_default());
        let line = format!(" F ran-{tag}");
        own + texts
            .map(|text| text.lines().filter(|said| said.ends_with(&line)).count())
            .sum::<usize>()
    }

    /// The history, newest first, as a user reads it. Reading it repairs what dead processes left.
    pub(super) fn history(&self) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut args: Vec<String> = ["--local", "history", "-o", "json", "--limit", "200"]
                .map(Into::into)
                .into();
            args.extend(
                cursor
                    .take()
                    .into_iter()
                    .flat_map(|cursor| ["--cursor".to_owned(), cursor]),
            );
            let page: Value = serde_json::from_str(&self.run(&args, 0)).expect("history is JSON");
            all.extend(
                page["executions"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .cloned(),
            );
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return all,
            }
        }
    }

    /// Starts mycli again until everything is final. Then nothing of the dead processes may be
    /// left, and history must match what happened.
    pub(super) fn recovers(&self) {
        let mut history = self.history();
        let since = Instant::now();
        while !history.iter().all(is_final) {
            assert!(
                since.elapsed() < LONG,
                "not final within {LONG:?}: {}",
                Value::from(history)
            );
            thread::sleep(LOOK);
            history = self.history();
        }
        // A process that reaches the point only after all runs are over dies unseen here. The next
        // start repairs what it left.
        self.is_alone();
        history = self.history();
        self.is_quiet();
        self.agrees(&history);
        self.has_no_containers(&history);
        let both = [0, 1].map(|_| self.start(&["--local", "exec", "--no-repo", "true"], None));
        for mut process in both {
            assert_eq!(
                process.end().code(),
                Some(0),
                "no lock is left: {}",
                process.err()
            );
        }
        self.is_quiet();
    }

    fn is_alone(&self) {
        eventually("no process is left", || {
            self.processes().is_empty().then_some(())
        });
    }

    /// Checks that no process runs and that none left anything behind.
    fn is_quiet(&self) {
        self.is_alone();
        for place in ["pumps", "tasks"] {
            assert_eq!(
                names(&self.local(place)),
                Vec::<String>::new(),
                "nothing is left in {place}/"
            );
        }
        let query = "SELECT (SELECT count(*) FROM pumps) + (SELECT count(*) FROM messages) + (SELECT count(*) FROM tasks WHERE open)
                   + (SELECT total(used) FROM usage)";
        if self.local("store.sqlite").exists() {
            let left: f64 = self
                .store()
                .query_row(query, [], |row| row.get(0))
                .unwrap_or_default();
            assert!(
                left == 0.0,
                "pumps, messages, open tasks and usage are all gone, not {left}"
            );
        }
    }

    /// Checks that history matches what happened.
    fn agrees(&self, history: &[Value]) {
        let ids: BTreeSet<_> = history
            .iter()
            .map(|run| run["execution_id"].as_str().expect("an id").to_owned())
            .collect();
        assert_eq!(ids.len(), history.len(), "each once");
        let accepted = self.accepted.lock().expect("no panic");
        let lost: Vec<_> = accepted.difference(&ids).collect();
        assert!(lost.is_empty(), "accepted and not in history: {lost:?}");
        let promises = self.promises.lock().expect("no panic");
        let mut seen = BTreeSet::new();
        for run in history {
            let tag = run["name"].as_str().expect("each run here has a name");
            assert!(seen.insert(tag), "{tag} is in history twice");
            self.keeps(
                tag,
                promises.get(tag).expect("nobody else submits here"),
                run,
            );
        }
        for tag in promises.keys().filter(|tag| !seen.contains(tag.as_str())) {
            assert_eq!(self.runs(tag), 0, "{tag} ran and history does not know it");
        }
    }

    fn keeps(&self, tag: &str, promise: &Promise, run: &Value) {
        let (runs, status) = (self.runs(tag), run["status"].as_str().expect("a status"));
        assert!(runs <= 1, "{tag} ran {runs} times: {run}");
        let as_promised =
            status == promise.end.status && run["exit_code"].as_i64() == promise.end.exit_code;
        let cancelled = promise.cancel && status == "CANCELLED";
        let never_ran =
            promise.may_not_run && runs == 0 && status == "FAILED" && run["reason"].is_string();
        assert!(
            (as_promised && runs == 1) || cancelled || never_ran,
            "{tag} ran {runs} times and is: {run}"
        );
    }

    fn has_no_containers(&self, history: &[Value]) {
        if self.docker_host.is_none() {
            return;
        }
        let arns = history
            .iter()
            .flat_map(|run| run["attempts"].as_array().into_iter().flatten());
        for arn in arns.filter_map(|attempt| attempt["task_arn"].as_str()) {
            let left = Engine::shared().containers(&format!("mycli.task={arn}"));
            assert_eq!(left, Vec::<String>::new(), "no container is left of {arn}");
        }
    }

    /// The processes with this home in their environment: mycli's and the commands'.
    fn processes(&self) -> Vec<i32> {
        let needle = self.dir.path().as_os_str().as_encoded_bytes();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.windows(needle.len()).any(|part| part == needle)
        })
        .collect()
    }
}

impl Drop for World {
    /// Leaves nothing behind, even after a failed test.
    fn drop(&mut self) {
        if let Ok(program) = fs::read(self.new_runner()) {
            let digest = hex::encode(&Sha256::digest(program)[..8]);
            let volume = format!("mycli-runner-{digest}");
            let _gone = Engine::shared().podman(&["volume", "rm", "--force", &volume]);
        }
        for pid in self.processes().into_iter().filter_map(Pid::from_raw) {
            let _gone = kill_process(pid, Signal::KILL);
        }
        if self.docker_host.is_none() || !thread::panicking() {
            return;
        }
        let Ok(store) = rusqlite::Connection::open(self.local("store.sqlite")) else {
            return;
        };
        let Ok(mut select) = store.prepare("SELECT arn FROM tasks") else {
            return;
        };
        let arns = select
            .query_map([], |row| row.get::<_, String>(0))
            .into_iter()
            .flatten()
            .flatten();
        for id in arns.flat_map(|arn| Engine::shared().containers(&format!("mycli.task={arn}"))) {
            let _gone = Engine::shared().podman(&["rm", "--force", "--time=0", &id]);
        }
    }
}

/// Whether history shows this run as over.
pub(super) fn is_final(run: &Value) -> bool {
    let unfinished = ["QUEUED", "WAITING", "LAUNCHING", "RUNNING"];
    run["status"]
        .as_str()
        .is_some_and(|status| !unfinished.contains(&status))
}

/// The names in a directory.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
