//! Runs a task as processes of this host: no image, `sh`, a private directory and a clean
//! environment.
//!
//! A keeper, the program of `crates/runner`, runs the command and writes its output into the task's
//! log. It outlives mycli, so the command does not notice when mycli dies. The next mycli finds the
//! keeper by pid and start time, and reads in the log what became of the command.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{
    container as in_task,
    marker::{self, Marker},
    ports::{Clock, LogLine},
};
use runner::{
    log::{LogWriter, decode},
    order::{
        FetchFault, FetchOrder, FetchOutcome, HandedOver, RunOrder, SET_UP_SECONDS, place, to_json,
    },
};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
};

use crate::{
    failpoint, platform,
    process::{self, ProcessId},
    remains::Remains,
    removal::remove_folder,
    runner_program,
    system::System,
    task::{StartFailure, TaskEnd},
};

/// The shortest and the longest pause between two looks at a running command's log, in
/// milliseconds.
const LOOK_MILLIS: (u64, u64) = (5, 80);
/// How often to try again to start a program whose file is busy. It is busy for some milliseconds.
const BUSY_TRIES: u32 = 200;

/// The purpose that the program is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProgramRole {
    /// To keep a command. It outlives this process.
    Keeper,
    /// To fetch a repository. It ends with this process.
    Fetch,
}

impl ProgramRole {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Keeper => &["run", "-"],
            Self::Fetch => &["fetch"],
        }
    }
}

/// Starts and follows tasks on the host.
#[derive(Clone, Debug)]
pub struct HostRunner {
    dir: PathBuf,
    programs: PathBuf,
    remains: Remains,
    /// The keeper's program, once it is put down.
    program: Arc<Mutex<Option<PathBuf>>>,
}

/// The folders of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The directory that the command starts in, and its home.
    pub work: PathBuf,
    /// The directory for its temporary files.
    pub temp: PathBuf,
}

/// A keeper that waits for its order.
pub struct Gated {
    child: Child,
    gate: Option<ChildStdin>,
    order: Vec<u8>,
    /// The process.
    pub process: ProcessId,
}

/// A keeper that has its order, or was found again.
#[derive(Debug)]
pub enum Running {
    /// A child of this process.
    Child(Child, ProcessId),
    /// A process that an earlier, dead mycli started.
    Found(ProcessId),
}

impl Running {
    /// The process.
    #[must_use]
    pub fn process(&self) -> &ProcessId {
        match self {
            Self::Child(_, process) | Self::Found(process) => process,
        }
    }
}

/// Omits the order, which holds secrets.
impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gated")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl Gated {
    /// Gives the keeper its order. From here on the command may run. A keeper that gets no order
    /// runs nothing.
    ///
    /// # Errors
    /// When the process is gone already.
    pub async fn release(mut self) -> io::Result<Running> {
        failpoint!("host.release.before");
        if let Some(mut gate) = self.gate.take() {
            gate.write_all(&self.order).await?;
        }
        failpoint!("host.release.after");
        Ok(Running::Child(self.child, self.process))
    }
}

impl HostRunner {
    /// Makes a runner that keeps the tasks' directories in `dir`, and the keeper's program in
    /// `programs`. Files that cannot be removed are noted in `remains`.
    #[must_use]
    pub fn new(dir: PathBuf, programs: PathBuf, remains: Remains) -> Self {
        Self {
            dir,
            programs,
            remains,
            program: Arc::default(),
        }
    }

    /// The folders of a task.
    #[must_use]
    pub fn folders(&self, task_id: &str) -> Folders {
        Folders {
            work: self.work(task_id),
            temp: self.temp(task_id),
        }
    }

    fn work(&self, task_id: &str) -> PathBuf {
        self.dir.join(task_id)
    }

    fn temp(&self, task_id: &str) -> PathBuf {
        self.dir.join(format!("{task_id}.tmp"))
    }

    /// Where a task of before the keeper has its output.
    fn output(&self, task_id: &str) -> PathBuf {
        self.dir.join(format!("{task_id}.output"))
    }

    /// The keeper's program. It is put down when the first task needs it.
    fn program(&self) -> io::Result<PathBuf> {
        let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        match &*program {
            Some(program) => Ok(program.clone()),
            None => Ok(program
                .insert(runner_program::install(&self.programs)?)
                .clone()),
        }
    }

    /// Starts the keeper's program. For a moment after it was written a file may be busy: a process
    /// that another thread is starting holds it open for writing until it runs its own program.
    async fn start_program(&self, role: ProgramRole) -> io::Result<Child> {
        let mut tries = BUSY_TRIES;
        let streams = || match role {
            ProgramRole::Keeper => Stdio::null(),
            ProgramRole::Fetch => Stdio::piped(),
        };
        loop {
            let started = Command::new(self.program()?)
                .args(role.arguments())
                .env_clear()
                .env("PATH", search_path())
                .current_dir("/")
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(streams())
                .stderr(streams())
                .kill_on_drop(role == ProgramRole::Fetch)
                .spawn();
            match started {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries > 0 => {
                    tries -= 1;
                    tokio::time::sleep(Duration::from_millis(LOOK_MILLIS.0)).await;
                }
                // Somebody has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {
                    tries = 0;
                    *self.program.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                started => return started,
            }
        }
    }

    /// Starts a keeper, which then waits for its order.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(&self, task_id: &str, order: &RunOrder) -> Result<Gated, StartFailure> {
        let spawned = self.spawn(task_id, order).await;
        spawned.map_err(|error| self.not_started(&error))
    }

    fn not_started(&self, error: &io::Error) -> StartFailure {
        let why = match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "{error}: programs must be allowed to run from {} (is it mounted with noexec?)",
                self.programs.display()
            ),
            _ => error.to_string(),
        };
        StartFailure::never(format!("CannotStartProcessError: {why}"))
    }

    /// Where [`Self::fetch_for_container`] puts the repository.
    #[must_use]
    pub fn fetched(&self, task_id: &str) -> PathBuf {
        self.handed_over(task_id).join(place::FETCHED)
    }

    fn handed_over(&self, task_id: &str) -> PathBuf {
        self.work(task_id).join(place::HANDED_OVER)
    }

    /// Fetches a repository for a container. Returns the folder whose content is to become its
    /// workspace. A repository that cannot be fetched is no failure here: the reason is in the
    /// workspace, and the container's keeper tells it. Nothing is fetched any more once the caller
    /// drops this.
    ///
    /// # Errors
    /// When the folder cannot be written, or the fetch cannot be started.
    pub async fn fetch_for_container(
        &self,
        task_id: &str,
        order: &FetchOrder,
    ) -> Result<PathBuf, StartFailure> {
        let fetched = self.try_fetch(task_id, order).await;
        fetched.map_err(|error| self.not_started(&error))
    }

    async fn try_fetch(&self, task_id: &str, order: &FetchOrder) -> io::Result<PathBuf> {
        let folder = self.work(task_id);
        // A mycli that died may have left a part of it.
        remove_folder(&folder)?;
        private_folder(&folder)?;
        fs::create_dir_all(&order.into)?;
        fs::create_dir(folder.join(place::REPOSITORY))?;
        failpoint!("container.fetch.before");
        let mut child = self.start_program(ProgramRole::Fetch).await?;
        // It may start git, and git others.
        let _group = KilledGroup::of(&child);
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&to_json(order)).await?;
        }
        let limit = Duration::from_secs(SET_UP_SECONDS);
        let output = tokio::time::timeout(limit, child.wait_with_output()).await;
        failpoint!("container.fetch.after");
        let failed = |reason: String| FetchOutcome::Failed(FetchFault::last(reason));
        let (outcome, notes) = match output {
            Ok(output) => {
                let output = output?;
                let notes = String::from_utf8_lossy(&output.stderr);
                let outcome = serde_json::from_slice(&output.stdout)
                    .unwrap_or_else(|_| failed("the fetch ended without a result".to_owned()));
                (outcome, notes.lines().map(str::to_owned).collect())
            }
            Err(_) => {
                let repo = &order.repo;
                let reason = format!("cloning {repo} took longer than {SET_UP_SECONDS} s");
                (failed(reason), Vec::new())
            }
        };
        if matches!(outcome, FetchOutcome::Failed(_)) {
            remove_folder(&order.into)?;
        }
        let handed_over = HandedOver { outcome, notes };
        let path = self.handed_over(task_id).join(place::OUTCOME);
        fs::write(path, to_json(&handed_over))?;
        Ok(folder)
    }

    async fn spawn(&self, task_id: &str, order: &RunOrder) -> io::Result<Gated> {
        for folder in [self.work(task_id), self.temp(task_id)] {
            private_folder(&folder)?;
        }
        failpoint!("host.spawn.before");
        // No process of ours has the nonce, a credential or a value in its arguments or in its
        // environment: other runs have the same user.
        let mut child = self.start_program(ProgramRole::Keeper).await?;
        failpoint!("host.spawn.after");
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let process = pid
            .and_then(ProcessId::of)
            .ok_or_else(|| io::Error::other("the keeper ended at once"))?;
        Ok(Gated {
            gate: child.stdin.take(),
            child,
            order: to_json(order),
            process,
        })
    }

    /// Follows a keeper to its end. The whole log was read before this returns, and each line was
    /// passed to `written`, from the first one on.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn follow(
        &self,
        task_id: &str,
        attempt: &str,
        nonce: &str,
        running: &mut Running,
        log: &Path,
        mut written: impl FnMut(Vec<LogLine>),
    ) -> io::Result<TaskEnd> {
        let mut tail = Tail::new(log, nonce);
        let mut pause = LOOK_MILLIS.0;
        let status = loop {
            tokio::select! {
                biased;
                status = end_of(running) => break status?,
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            }
            let got = tail.drain(&mut written)?;
            pause = if got {
                LOOK_MILLIS.0
            } else {
                (pause * 2).min(LOOK_MILLIS.1)
            };
        };
        let was_killed = status.is_none_or(|status| status.code().is_none());
        if was_killed || !platform::KEEPERS_ADOPT {
            process::kill_leftovers(running.process(), attempt, true).await;
        }
        self.take_over_output(task_id, log)?;
        tail.drain(&mut written)?;
        let code = status.and_then(|status| status.code());
        // The status of a keeper that could not begin is not the command's.
        let own = code.filter(|_| tail.has_started);
        let exit_code = own.or(tail.outcome);
        let reason = match (exit_code, tail.has_started, code) {
            (Some(_), _, _) => None,
            (None, true, _) => Some("the keeper of its command was killed"),
            (None, false, Some(_)) => Some(COULD_NOT_BEGIN),
            (None, false, None) => Some(NEVER_STARTED),
        };
        Ok(TaskEnd {
            exit_code,
            reason: reason.map(str::to_owned),
            stopped_at: System.now(),
        })
    }

    /// Moves the output of a task of before the keeper into its log.
    fn take_over_output(&self, task_id: &str, log: &Path) -> io::Result<()> {
        let mut output = match File::open(self.output(task_id)) {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut log = LogWriter::open(log)?;
        output.seek(SeekFrom::Start(log.taken()))?;
        let mut rest = Vec::new();
        output.read_to_end(&mut rest)?;
        let now = System.now();
        log.append(now, &rest)?;
        log.finish(now)?;
        Ok(())
    }

    /// The ids of the tasks that have files here.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn task_ids(&self) -> io::Result<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            ids.extend(
                name.to_str()
                    .and_then(|name| name.split('.').next())
                    .map(str::to_owned),
            );
        }
        Ok(ids)
    }

    /// Removes a task's files except its log. A file that cannot be removed is noted, and returned
    /// in words.
    pub fn clean_up(&self, task_id: &str) -> Option<String> {
        failpoint!("host.clean_up.before");
        let (work, temp, output) = (self.work(task_id), self.temp(task_id), self.output(task_id));
        let left = [
            (&output, remove_file(&output)),
            (&temp, remove_folder(&temp)),
            (&work, remove_folder(&work)),
        ];
        let left = left
            .into_iter()
            .find_map(|(path, removed)| Some(left_words(path, &removed.err()?)));
        match &left {
            None => self.remains.settle(task_id),
            Some(words) => {
                tracing::warn!(
                    task_id,
                    error = words,
                    "files of an ended task cannot be removed"
                );
                self.remains.note(task_id, words);
            }
        }
        failpoint!("host.clean_up.after");
        left
    }
}

/// A process group that is killed when this is dropped.
struct KilledGroup(Option<Pid>);

impl KilledGroup {
    /// The group that a child leads.
    fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Self(pid.and_then(Pid::from_raw))
    }
}

impl Drop for KilledGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

fn private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Whether a write failed because the disk is full or read-only, which the user may fix.
pub fn is_for_want_of_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn left_words(path: &Path, error: &io::Error) -> String {
    format!(
        "what a run left in {} cannot be removed: {error}",
        path.display()
    )
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The reason for a keeper that ended before its command began, while no mycli ran. It got no
/// order, because mycli died, or it was killed in its set-up.
pub const NEVER_STARTED: &str = "it ended before the command began, while mycli was not there";

/// The reason for a keeper that ended by itself before its command began and before its set-up
/// failed: its log cannot be opened, or this machine has no room for another process.
pub const COULD_NOT_BEGIN: &str = "its keeper could not begin";

/// Kills a process and all other processes of its attempt.
pub async fn kill(process: &ProcessId, attempt: &str) {
    process.signal(Signal::KILL);
    process::kill_leftovers(process, attempt, true).await;
}

/// Waits for the end. Returns how it ended, or `None` if only the parent could know it.
async fn end_of(running: &mut Running) -> io::Result<Option<ExitStatus>> {
    match running {
        Running::Child(child, _) => Ok(Some(child.wait().await?)),
        Running::Found(process) => {
            process.ended().await;
            Ok(None)
        }
    }
}

/// A log, read while its keeper writes it.
struct Tail<'a> {
    path: &'a Path,
    file: Option<BufReader<File>>,
    nonce: &'a str,
    /// The line that is not whole yet.
    partial: Vec<u8>,
    /// Whether the command began.
    has_started: bool,
    /// The exit status that the keeper wrote down, if it did.
    outcome: Option<i32>,
}

impl<'a> Tail<'a> {
    fn new(path: &'a Path, nonce: &'a str) -> Self {
        Self {
            path,
            file: None,
            nonce,
            partial: Vec::new(),
            has_started: false,
            outcome: None,
        }
    }

    /// Reads new lines. Returns whether there were any.
    fn drain(&mut self, written: &mut impl FnMut(Vec<LogLine>)) -> io::Result<bool> {
        if self.file.is_none() {
            match File::open(self.path) {
                Ok(file) => self.file = Some(BufReader::new(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let Some(file) = &mut self.file else {
            return Ok(false);
        };
        let mut lines = Vec::new();
        while file.read_until(b'\n', &mut self.partial)? > 0 && self.partial.ends_with(b"\n") {
            if let Some((at, _, text)) = decode(&self.partial) {
                let text = String::from_utf8_lossy(text).into_owned();
                lines.push(LogLine { at, text });
            }
            self.partial.clear();
        }
        for line in &lines {
            match marker::split(self.nonce, &line.text).1 {
                Some(Marker::Start) => self.has_started = true,
                Some(Marker::Exit(code)) => self.outcome = Some(code),
                Some(Marker::Timeout) => self.outcome = Some(in_task::EXIT_TIMED_OUT),
                Some(Marker::Fail(_)) => self.outcome = Some(in_task::EXIT_SET_UP_FAILED),
                _ => {}
            }
        }
        let has_any = !lines.is_empty();
        if has_any {
            written(lines);
        }
        Ok(has_any)
    }
}

fn search_path() -> OsString {
    std::env::var_os("PATH")
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into())
}

/// The variables that every command gets: enough to find programs, and directories of its own.
#[must_use]
pub fn clean_environment(folders: &Folders) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let path = search_path().to_string_lossy().into_owned();
    [
        ("PATH", path),
        ("HOME", text(&folders.work)),
        ("TMPDIR", text(&folders.temp)),
        ("LANG", "C.UTF-8".into()),
        ("SHELL", "/bin/sh".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use domain::request::CommandLine;
    use runner::order::EnvironmentValue;

    use super::*;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";
    const TASK: &str = "task";

    /// The result of a task.
    #[derive(Debug)]
    struct Told {
        ended: TaskEnd,
        /// The command's own lines.
        lines: Vec<String>,
        markers: Vec<Marker>,
    }

    struct World {
        folder: tempfile::TempDir,
        runner: HostRunner,
        attempt: String,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a directory");
            let runner = HostRunner::new(
                folder.path().join("tasks"),
                folder.path().join("programs"),
                Remains::new(folder.path().join("remains")),
            );
            // The attempt names this test's folder, so that no other test's process counts as this
            // task's.
            let attempt = folder.path().display().to_string();
            Self {
                folder,
                runner,
                attempt,
            }
        }

        fn log(&self) -> PathBuf {
            self.folder.path().join("task.log")
        }

        async fn start(&self, command: &str, timeout: u64) -> Running {
            let folders = self.runner.folders(TASK);
            let given = [(
                in_task::variable::ATTEMPT_ID.to_owned(),
                self.attempt.clone(),
            )];
            let environment = clean_environment(&folders).into_iter().chain(given);
            let order = RunOrder {
                nonce: NONCE.into(),
                command: CommandLine::Text(command.into()),
                environment: environment
                    .map(|(name, value)| (name, EnvironmentValue(value.into())))
                    .collect(),
                folder: Some(folders.work),
                source: None,
                request: None,
                note: None,
                artifacts: None,
                timeout_seconds: Some(timeout),
                grace_seconds: 2,
                set_up_seconds: 60,
                log: Some(self.log()),
            };
            self.runner
                .start(TASK, &order)
                .await
                .expect("it starts")
                .release()
                .await
                .expect("it is there")
        }

        async fn follow(&self, mut running: Running) -> Told {
            let (log, mut all) = (self.log(), Vec::new());
            let follow =
                self.runner
                    .follow(TASK, &self.attempt, NONCE, &mut running, &log, |lines| {
                        all.extend(lines);
                    });
            let ended = tokio::time::timeout(Duration::from_secs(30), follow)
                .await
                .expect("in time")
                .expect("an end");
            let split: Vec<_> = all
                .iter()
                .map(|line| marker::split(NONCE, &line.text))
                .collect();
            Told {
                ended,
                lines: split
                    .iter()
                    .filter_map(|(own, _)| own.map(str::to_owned))
                    .collect(),
                markers: split.into_iter().filter_map(|(_, marker)| marker).collect(),
            }
        }

        async fn play(&self, command: &str) -> Told {
            self.follow(self.start(command, 20).await).await
        }
    }

    #[tokio::test]
    async fn a_log_that_is_written_by_path_is_whole_and_in_order() {
        let by_path = "log() { echo \"[info] $*\" > /dev/stderr; }; log start; echo building; : > /dev/stdout; sleep 0.1; \
                       log built; truncate -s 0 /dev/stderr; echo result: 42 > /proc/self/fd/1; exit 3";
        let told = World::new().play(by_path).await;
        let said: Vec<_> = told
            .lines
            .iter()
            .filter(|line| !line.starts_with("truncate"))
            .collect();
        assert_eq!(
            said,
            ["[info] start", "building", "[info] built", "result: 42"],
            "{told:?}"
        );
        assert_eq!(
            (told.ended.exit_code, &*told.markers),
            (
                Some(3),
                &[Marker::Start, Marker::Exit(3), Marker::Ended, Marker::Ended][..]
            )
        );
    }

    #[tokio::test]
    async fn a_last_word_by_path_hides_no_timeout() {
        let world = World::new();
        let running = world
            .start(
                "trap 'echo bye > /dev/stderr; exit 1' TERM; while :; do sleep 0.1; done",
                1,
            )
            .await;
        let told = world.follow(running).await;
        // dash prints that its `sleep` was terminated.
        assert_eq!(
            told.lines.last().map(String::as_str),
            Some("bye"),
            "{told:?}"
        );
        assert_eq!(
            (told.ended.exit_code, &*told.markers),
            (
                Some(124),
                &[Marker::Start, Marker::Timeout, Marker::Ended, Marker::Ended][..]
            )
        );
    }

    #[tokio::test]
    async fn many_lines_come_whole_and_in_order_with_the_last_one() {
        let told = World::new().play("seq 200000; printf end >&2").await;
        let expected: Vec<_> = (1..=200_000)
            .map(|number| number.to_string())
            .chain(["end".into()])
            .collect();
        assert!(told.lines == expected, "{} lines", told.lines.len());
        assert_eq!(
            told.markers,
            [Marker::Start, Marker::Exit(0), Marker::Ended, Marker::Ended]
        );
    }

    /// The command ends with its keeper, and nobody can tell how it would have ended.
    #[tokio::test]
    async fn a_keeper_that_is_killed_leaves_nothing_behind_and_no_exit_code() {
        let world = World::new();
        let running = world
            .start("echo begun; setsid sleep 77 & echo $!; sleep 77", 60)
            .await;
        let begun = Instant::now();
        let lines = || fs::read_to_string(world.log()).unwrap_or_default();
        while lines().lines().count() < 3 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", lines());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.process().signal(Signal::KILL);
        let told = world.follow(running).await;
        assert_eq!(told.ended.exit_code, None, "{told:?}");
        assert_eq!(
            told.ended.reason.as_deref(),
            Some("the keeper of its command was killed")
        );
        let escaped: i32 = told.lines[1].parse().expect("a pid");
        assert!(ProcessId::of(escaped).is_none_or(|process| !process.is_alive()));
    }

    /// Nothing that the keeper was told is among its arguments or variables.
    #[tokio::test]
    async fn a_keeper_shows_nothing_of_its_order() {
        let world = World::new();
        let running = world.start("sleep 77", 60).await;
        let pid = running.process().pid;
        for file in ["environ", "cmdline"] {
            let shown = Path::new("/proc").join(pid.to_string()).join(file);
            let text = fs::read(shown).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains(NONCE));
        }
        kill(running.process(), &world.attempt).await;
    }

    #[tokio::test]
    async fn who_gets_away_with_the_pipe_holds_nothing_up() {
        let world = World::new();
        let begun = Instant::now();
        let told = world.play("echo begun; (env -i setsid sleep 5 &)").await;
        assert_eq!(
            (told.ended.exit_code, &*told.lines),
            (Some(0), &["begun".to_owned()][..]),
            "{told:?}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
    }

    #[tokio::test]
    async fn what_is_said_while_nobody_follows_is_read_by_who_comes_next() {
        let world = World::new();
        let running = world.start("seq 50000; echo last; exit 5", 20).await;
        let process = running.process().clone();
        // As after a crash: nothing of this test holds the process any more.
        drop(running);
        process.ended().await;
        let told = world.follow(Running::Found(process)).await;
        assert_eq!(
            (told.ended.exit_code, told.lines.len()),
            (Some(5), 50_001),
            "{:?}",
            told.markers
        );
        assert_eq!(told.lines.last().map(String::as_str), Some("last"));
    }

    #[tokio::test]
    async fn a_command_that_becomes_somebody_else_can_open_its_output() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let world = World::new();
        let told = world
            .play("setpriv --reuid=65534 --clear-groups sh -c 'echo out >/dev/stdout; echo err >/dev/stderr'")
            .await;
        assert_eq!(
            (told.ended.exit_code, &*told.lines),
            (Some(0), &["out".to_owned(), "err".into()][..]),
            "{told:?}"
        );
    }

    /// The command searches every file that it can find for marker tokens, and prints every marker
    /// word with each token that it finds.
    #[tokio::test]
    async fn no_end_can_be_forged_with_what_the_command_finds() {
        let world = World::new();
        let forge = format!(
            "sleep 0.3; look() {{ cat \"$HOME\"* {}/*.log; for p in self $$ $PPID; do cat /proc/$p/environ /proc/$p/cmdline /proc/$p/status; \
             for f in /proc/$p/fd/*; do [ -p $f ] || cat $f; done; done; env; set; }} 2>/dev/null; \
             look | tr '\\0' '\\n' | grep -ao '[0-9a-f]\\{{32\\}}' | sort -u >\"$TMPDIR/found\"; \
             while read -r mark; do for word in timeout exit:0 fail:no commit:{}; do echo \"::mycli:$mark:1:$word\"; \
             echo \"::mycli:$mark:$word\"; done; done <\"$TMPDIR/found\"; exit 7",
            world.folder.path().display(),
            "a".repeat(40),
        );
        let told = world.play(&forge).await;
        // It finds only tokens of words that were printed before. With those, its lines are plain
        // output.
        let forged = format!(
            "{}{}:1:timeout",
            marker::PREFIX,
            marker::token(NONCE, "start")
        );
        assert!(told.lines.contains(&forged), "{told:?}");
        assert_eq!(
            (told.ended.exit_code, &*told.markers),
            (
                Some(7),
                &[Marker::Start, Marker::Exit(7), Marker::Ended, Marker::Ended][..]
            ),
            "{told:?}"
        );
    }
}
