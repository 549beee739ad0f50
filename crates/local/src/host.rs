//! Runs a task as processes of this host: no image, `sh`, a private directory and a clean
//! environment.
//!
//! The output goes through a pipe into a file. The process that moves it there outlives mycli, so
//! the command does not notice when mycli dies. The next mycli finds the process by pid and start
//! time, and the rest of the output in the file.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read, Seek, SeekFrom},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    Timestamp,
    marker::{self, Marker},
    ports::{Clock, LogLine},
    script,
};
use rustix::{
    fs::{FlockOperation, Mode, fchmod, flock},
    process::Signal,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
    sync::OnceCell,
};

use crate::{
    failpoint,
    log_file::LogWriter,
    process::{self, ProcessId},
    remains::Remains,
    removal::remove_folder,
    runner::{StartFailure, TaskEnd},
    system::System,
};

/// The lines before the script. They wait for one line with the marker tokens, which mycli sends
/// once the process is recorded. If mycli dies before, they read end-of-file and never start the
/// command. Because of this, no process has the tokens in its initial environment.
const GATE: &str = "IFS= read -r MYCLI_NONCE || exit 125; exec </dev/null\n";
/// The shortest and the longest pause between two reads of a running command's output, in
/// milliseconds.
const LOOK_MILLIS: (u64, u64) = (5, 80);
/// The most bytes read from the output at a time.
const CHUNK: usize = 256 * 1024;
/// The reader: a shell that moves a task's output from its pipe to its file until no process holds
/// the pipe for writing. A pipe that is opened by path (`> /dev/stderr`) is neither truncated nor
/// overwritten, as a file would be. If `cat` is killed or the disk is full, the shell starts `cat`
/// again once the disk has space for one read. Meanwhile the shell holds the pipe open, so the
/// command waits and is not killed. If there is no `cat`, the shell ends, because it would wait for
/// ever.
const READER: &str = "trap '' HUP INT TERM; room=${MYCLI_READS_INTO%.output}.room
    until cat; do
        [ $? -ne 127 ] || exit
        until head -c 131072 /dev/zero >\"$room\"; do sleep 1; done
        rm -f \"$room\"
    done";
/// How many bytes are written to test whether the disk has space again.
const ROOM: usize = 128 * 1024;
/// The variable that identifies a reader. Its value is the path of the reader's file.
const READS: &str = "MYCLI_READS_INTO";
/// How long to wait for a reader that does not end, because a process that escaped from the task
/// holds the pipe. [`LAST_WORD_WAIT`] counts from the marker line with the outcome, which comes
/// after the command's output, so little is left to read. [`SILENCE`] counts from the last byte if
/// that marker line is not seen. It is longer, because more output may still come.
const LAST_WORD_WAIT: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_secs(2);

/// The shell of a task on the host.
pub struct Shell {
    /// The shell and its options.
    pub entry_point: Vec<String>,
    /// The script.
    pub command: Vec<String>,
    /// Variables on top of a clean environment.
    pub environment: Vec<(String, String)>,
    /// Variables with values that are shown nowhere.
    pub secrets: Vec<(String, SecretString)>,
}

impl Shell {
    /// Whether the script clones a repository, for which it may have a credential.
    fn may_clone(&self) -> bool {
        self.environment
            .iter()
            .any(|(name, value)| name == script::variable::REPO && !value.is_empty())
    }
}

/// Starts and follows tasks on the host.
#[derive(Clone, Debug)]
pub struct HostRunner {
    dir: PathBuf,
    remains: Remains,
    /// The path of this host's `env` if that has `--default-signal`. Looked up once, because the
    /// lookup starts two processes.
    env: Arc<OnceCell<Option<PathBuf>>>,
}

/// A process that waits at the gate, before the script.
#[derive(Debug)]
pub struct Gated {
    child: Child,
    gate: Option<ChildStdin>,
    word: String,
    /// The process.
    pub process: ProcessId,
}

/// A process that has passed the gate, or was found again.
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

impl Gated {
    /// Lets the process pass the gate. From here on the command may run.
    ///
    /// # Errors
    /// When the process is gone already.
    pub async fn release(mut self) -> io::Result<Running> {
        failpoint!("host.release.before");
        if let Some(mut gate) = self.gate.take() {
            gate.write_all(format!("{}\n", self.word).as_bytes())
                .await?;
        }
        failpoint!("host.release.after");
        Ok(Running::Child(self.child, self.process))
    }
}

impl HostRunner {
    /// Makes a runner that keeps the tasks' directories in `dir`. Files that cannot be removed are
    /// noted in `remains`.
    #[must_use]
    pub fn new(dir: PathBuf, remains: Remains) -> Self {
        Self {
            dir,
            remains,
            env: Arc::default(),
        }
    }

    /// The directory that the command starts in, and its home.
    fn work(&self, task_id: &str) -> PathBuf {
        self.dir.join(task_id)
    }

    fn temp(&self, task_id: &str) -> PathBuf {
        self.dir.join(format!("{task_id}.tmp"))
    }

    fn output(&self, task_id: &str) -> PathBuf {
        self.dir.join(format!("{task_id}.output"))
    }

    /// A file that exists only while the free disk space is tested.
    fn room(&self, task_id: &str) -> PathBuf {
        self.dir.join(format!("{task_id}.room"))
    }

    /// Makes the pipe for a task's output, with its own reader at the other end.
    async fn output_pipe(&self, task_id: &str) -> io::Result<PipeWriter> {
        let path = self.output(task_id);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let output = File::options().append(true).create(true).open(&path)?;
        // Only a reader holds this lock, until it ends. If it is held now, an earlier mycli died
        // before it recorded the start, and that reader is about to end.
        let since = Instant::now();
        while let Err(error) = flock(&output, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK || since.elapsed() > SILENCE {
                return Err(error.into());
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MILLIS.0)).await;
        }
        let (reading, writing) = io::pipe()?;
        // Lets a command that has changed its user open /dev/stdout. Where pipes have no modes, it
        // cannot.
        let _refused = fchmod(&writing, Mode::from_raw_mode(0o622));
        Self::start_reader(&path, reading, output)?;
        failpoint!("host.reader.after");
        Ok(writing)
    }

    /// Starts the reader in a process group of its own and without the attempt's id, so that it is
    /// not killed with the rest of the task: it still has to read.
    fn start_reader(path: &Path, reading: PipeReader, output: File) -> io::Result<()> {
        let mut programs = OsString::from("/usr/bin:/bin:");
        programs.push(search_path());
        // Tokio reaps the reader, or init does after this process has died.
        let _reader = Command::new("/bin/sh")
            .args(["-c", READER])
            .env_clear()
            .env("PATH", programs)
            .env(READS, path)
            .current_dir("/")
            .process_group(0)
            .stdin(reading)
            .stdout(output)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(())
    }

    /// Starts the script, which then waits at its gate.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub async fn start(&self, task_id: &str, launch: &Shell) -> Result<Gated, StartFailure> {
        let env = self.env.get_or_init(env_with_default_signal).await;
        let spawned = match self.output_pipe(task_id).await {
            Ok(output) => self.spawn(task_id, launch, env.as_deref(), output),
            Err(error) => Err(error),
        };
        spawned.map_err(|error| StartFailure::never(format!("CannotStartProcessError: {error}")))
    }

    fn spawn(
        &self,
        task_id: &str,
        launch: &Shell,
        env: Option<&Path>,
        output: PipeWriter,
    ) -> io::Result<Gated> {
        let (work, temp) = (self.work(task_id), self.temp(task_id));
        for dir in [&work, &temp] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)?;
        }
        let (shell, options) = launch
            .entry_point
            .split_first()
            .ok_or_else(|| io::Error::other("no entry point"))?;
        let script = format!(
            "{GATE}{}",
            launch
                .command
                .first()
                .map(String::as_str)
                .unwrap_or_default()
        );
        let (nonce, environment): (Vec<_>, Vec<_>) = launch
            .environment
            .iter()
            .map(|(name, value)| (name, value))
            .partition(|(name, _)| *name == script::variable::NONCE);
        // The nonce itself is not sent, only tokens: the task's log and its output are files that
        // the command may read.
        let word = nonce
            .into_iter()
            .map(|(_, nonce)| marker::tokens(nonce))
            .collect();
        failpoint!("host.spawn.before");
        let mut child = Command::new(shell)
            .args(options)
            .args([script.as_str(), "mycli"])
            .arg(env.unwrap_or(Path::new("")))
            .arg(if launch.may_clone() { "" } else { script::OPEN })
            .env_clear()
            .envs(clean_environment(&work, &temp))
            .envs(environment)
            .envs(
                launch
                    .secrets
                    .iter()
                    .map(|(name, value)| (name, value.expose_secret())),
            )
            .env(script::variable::WORKDIR, &work)
            .current_dir(&work)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        failpoint!("host.spawn.after");
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let process = pid
            .and_then(ProcessId::of)
            .ok_or_else(|| io::Error::other("the shell ended at once"))?;
        Ok(Gated {
            gate: child.stdin.take(),
            child,
            word,
            process,
        })
    }

    /// Follows a process to its end. All of its output is in the log before this returns.
    ///
    /// # Errors
    /// When the output or the log cannot be read or written.
    pub async fn follow(
        &self,
        task_id: &str,
        attempt: &str,
        nonce: &str,
        running: &mut Running,
        log: &mut LogWriter,
        mut written: impl FnMut(Vec<LogLine>),
    ) -> io::Result<TaskEnd> {
        let mut output = Output::open(&self.output(task_id), nonce, log)?;
        let mut pause = LOOK_MILLIS.0;
        let status = loop {
            tokio::select! {
                biased;
                status = end_of(running) => break status?,
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            }
            let got = output.drain(&mut written)?;
            pause = if got {
                LOOK_MILLIS.0
            } else {
                (pause * 2).min(LOOK_MILLIS.1)
            };
        };
        let found = matches!(running, Running::Found(_));
        process::kill_leftovers(running.process(), attempt, found).await;
        self.reader_ends(task_id, &mut output, &mut written).await?;
        output.drain(&mut written)?;
        let stopped_at = System.now();
        written(output.log.finish(stopped_at)?.into_iter().collect());
        Ok(match status {
            Some(status) => TaskEnd {
                exit_code: Some(status),
                reason: None,
                stopped_at,
            },
            None => self.read_end(task_id, nonce, stopped_at)?,
        })
    }

    /// Waits until all output is in the file. The reader ends when no process holds the pipe any
    /// more. A reader that does not end, because a process escaped from the task, is killed: later
    /// output of that process does not belong to the task.
    async fn reader_ends(
        &self,
        task_id: &str,
        output: &mut Output<'_>,
        written: &mut impl FnMut(Vec<LogLine>),
    ) -> io::Result<()> {
        let mut since = Instant::now();
        let mut pause = 1;
        while !output.is_complete()? {
            let patience = if output.all_said {
                LAST_WORD_WAIT
            } else {
                SILENCE
            };
            if since.elapsed() > patience {
                self.has_room(task_id)?;
                process::kill_carriers(READS, self.output(task_id).as_os_str());
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(LOOK_MILLIS.0);
            if output.drain(written)? {
                since = Instant::now();
            }
        }
        Ok(())
    }

    /// Fails if the disk is full. A silent reader may be waiting for disk space, and then the
    /// follower must wait too.
    fn has_room(&self, task_id: &str) -> io::Result<()> {
        let written = fs::write(self.room(task_id), [0; ROOM]);
        let _gone = fs::remove_file(self.room(task_id));
        written.or_else(|error| {
            if is_for_want_of_room(&error) {
                Err(error)
            } else {
                Ok(())
            }
        })
    }

    /// Returns how a process ended that was not a child of this process. The marker line with the
    /// outcome tells.
    fn read_end(&self, task_id: &str, nonce: &str, stopped_at: Timestamp) -> io::Result<TaskEnd> {
        let text = fs::read(self.output(task_id))?;
        let text = String::from_utf8_lossy(&text);
        let said: Vec<_> = text
            .lines()
            .filter_map(|line| marker::split(nonce, line).1)
            .collect();
        let exit_code = said.iter().find_map(|marker| match marker {
            Marker::Exit(code) => Some(*code),
            Marker::Timeout => Some(script::EXIT_TIMED_OUT),
            Marker::Fail(_) => Some(script::EXIT_SET_UP_FAILED),
            Marker::SetUp | Marker::Commit(_) | Marker::Start | Marker::Ended | Marker::Other => {
                None
            }
        });
        let started = said.contains(&Marker::Start);
        let reason = match (exit_code, started) {
            (Some(_), _) => None,
            (None, true) => Some("it ended while mycli was not running".to_owned()),
            (None, false) => Some(NEVER_STARTED.to_owned()),
        };
        Ok(TaskEnd {
            exit_code,
            reason,
            stopped_at,
        })
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
        let _gone = fs::remove_file(self.room(task_id));
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

/// The reason for a process that ended before its command began, while no mycli ran. It ended at
/// the gate, because mycli died, or in its set-up.
pub const NEVER_STARTED: &str = "it ended before the command began, while mycli was not there";

/// Kills a process and all other processes of its attempt.
pub async fn kill(process: &ProcessId, attempt: &str) {
    process.signal(Signal::KILL);
    process::kill_leftovers(process, attempt, true).await;
}

/// Waits for the end. Returns the exit code in the shell's form (128 + the signal's number), or
/// `None` if only the parent could know it.
async fn end_of(running: &mut Running) -> io::Result<Option<i32>> {
    match running {
        Running::Child(child, _) => {
            use std::os::unix::process::ExitStatusExt;
            let status = child.wait().await?;
            Ok(status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal)))
        }
        Running::Found(process) => {
            process.ended().await;
            Ok(None)
        }
    }
}

/// The output of a task, on its way into the task's log.
struct Output<'a> {
    file: File,
    log: &'a mut LogWriter,
    nonce: &'a str,
    /// Whether the marker line with the outcome was seen.
    all_said: bool,
}

impl<'a> Output<'a> {
    /// Opens the output at the point that the log has reached.
    fn open(path: &Path, nonce: &'a str, log: &'a mut LogWriter) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(log.taken()))?;
        Ok(Self {
            file,
            log,
            nonce,
            all_said: false,
        })
    }

    /// Whether no process writes to the file any more. The reader holds a lock as long as it lives.
    fn is_complete(&self) -> io::Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves new output into the log. Returns whether there was any.
    fn drain(&mut self, written: &mut impl FnMut(Vec<LogLine>)) -> io::Result<bool> {
        let (mut chunk, mut any) = (vec![0; 8 * 1024], false);
        loop {
            let got = self.file.read(&mut chunk)?;
            if got == 0 {
                return Ok(any);
            }
            any = true;
            let lines = self.log.append(System.now(), &chunk[..got])?;
            let tells = |line: &LogLine| {
                marker::split(self.nonce, &line.text)
                    .1
                    .is_some_and(|said| said.is_outcome())
            };
            self.all_said = self.all_said || lines.iter().any(tells);
            written(lines);
            if got == chunk.len() && got < CHUNK {
                chunk.resize(CHUNK, 0);
            }
        }
    }
}

/// Finds the `env` that a task would find, if it can reset INT and QUIT, which a shell ignores in
/// background commands (`&`).
async fn env_with_default_signal() -> Option<PathBuf> {
    let path = search_path();
    let env = std::env::split_paths(&path)
        .map(|dir| dir.join("env"))
        .find(|path| path.is_absolute() && path.is_file())?;
    let mut probe = Command::new(&env);
    probe
        .args(["--default-signal=INT,QUIT", "true"])
        .env_clear()
        .env("PATH", &path);
    probe
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    probe
        .status()
        .await
        .is_ok_and(|status| status.success())
        .then_some(env)
}

fn search_path() -> OsString {
    std::env::var_os("PATH")
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into())
}

/// The variables that every command gets: enough to find programs, and directories of its own.
fn clean_environment(home: &Path, temp: &Path) -> Vec<(&'static str, OsString)> {
    vec![
        ("PATH", search_path()),
        ("HOME", home.into()),
        ("TMPDIR", temp.into()),
        ("LANG", "C.UTF-8".into()),
        ("SHELL", "/bin/sh".into()),
    ]
}

#[cfg(test)]
mod tests {
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

        async fn start(&self, command: &str, timeout: &str) -> Running {
            let variables = [
                (script::variable::COMMAND, command),
                (script::variable::TIMEOUT, timeout),
                (script::variable::GRACE, "2"),
                (script::variable::NONCE, NONCE),
                (script::variable::ATTEMPT_ID, &self.attempt),
            ];
            let shell = Shell {
                entry_point: vec!["/bin/sh".into(), "-c".into()],
                command: vec![script::text().into()],
                environment: variables
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
                secrets: Vec::new(),
            };
            self.runner
                .start(TASK, &shell)
                .await
                .expect("it starts")
                .release()
                .await
                .expect("it is there")
        }

        async fn follow(&self, mut running: Running) -> Told {
            let mut log = LogWriter::open(&self.folder.path().join("task.log")).expect("a log");
            let mut all = Vec::new();
            let follow = self.runner.follow(
                TASK,
                &self.attempt,
                NONCE,
                &mut running,
                &mut log,
                |lines| all.extend(lines),
            );
            let ended = tokio::time::timeout(Duration::from_secs(30), follow)
                .await
                .expect("in time")
                .expect("an end");
            let since = Instant::now();
            while !readers(&self.runner.output(TASK)).is_empty() {
                assert!(
                    since.elapsed() < Duration::from_secs(10),
                    "no reader outlives the run"
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
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
            self.follow(self.start(command, "20").await).await
        }
    }

    /// The processes that read for this file: the reader's shell and its children.
    fn readers(output: &Path) -> Vec<i32> {
        let wanted = format!("{READS}={}", output.display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")
            .expect("there are processes")
            .flatten()
        {
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environ
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted.as_bytes())
            {
                found.extend(
                    entry
                        .file_name()
                        .to_str()
                        .and_then(|pid| pid.parse::<i32>().ok()),
                );
            }
        }
        found
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
                "1",
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

    #[tokio::test]
    async fn a_reader_that_is_killed_costs_the_command_nothing() {
        // The reader's shell starts a new `cat`. Only bytes that the old one had read and not
        // written can be lost.
        let kill = "echo one; sleep 0.5; pids=; for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ | grep -qxF \"MYCLI_READS_INTO=$HOME.output\" && \
                    [ \"$(cat $p/comm)\" = cat ] && kill -9 ${p#/proc/} && pids=killed; done 2>/dev/null; echo $pids; seq 20000; exit 4";
        let told = World::new().play(kill).await;
        assert_eq!(told.ended.exit_code, Some(4), "{told:?}");
        assert_eq!(
            (told.lines.len(), &*told.lines[0], &*told.lines[1]),
            (20_002, "one", "killed")
        );
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
        let running = world.start("seq 50000; echo last; exit 5", "20").await;
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
