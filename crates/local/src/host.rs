//! Runs a task as processes of this host: no image, `sh`, a private directory and a clean environment.
//!
//! The output goes straight into a file, so the command neither notices nor suffers when mycli dies: the next mycli finds the process
//! by pid and start time, and the end of the story in the file.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use domain::{
    Timestamp,
    marker::{self, Marker},
    ports::{Clock, LogLine},
    script,
};
use rustix::process::Signal;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
    sync::OnceCell,
};

use crate::{
    ambient::System,
    failpoint,
    log_file::LogWriter,
    process::{self, ProcessId},
    remains::Remains,
    removal::remove_folder,
    runner::{Ended, StartFailure},
};

/// What is put before the script: it waits for our word, the nonce, which comes once the process is on record. If we die before, it reads
/// the end of the file instead and never starts the command. So no process's initial environment holds the nonce.
const GATE: &str = "IFS= read -r MYCLI_NONCE || exit 125; exec </dev/null\n";
/// Pauses between two looks at the output of a running command, in milliseconds: the first, and the longest.
const LOOK_MILLIS: (u64, u64) = (5, 80);
/// Most bytes taken from the output in one look.
const CHUNK: usize = 256 * 1024;

/// What a shell on the host is started with.
pub struct Shell {
    /// The shell and its options.
    pub entry_point: Vec<String>,
    /// The script.
    pub command: Vec<String>,
    /// Variables, on top of a clean environment.
    pub environment: Vec<(String, String)>,
    /// Variables whose values are shown nowhere.
    pub secrets: Vec<(String, SecretString)>,
}

impl Shell {
    /// Whether the script clones a repository, for which it may have been given a credential.
    fn may_clone(&self) -> bool {
        self.environment.iter().any(|(name, value)| name == script::variable::REPO && !value.is_empty())
    }
}

/// Starts and follows tasks on the host.
#[derive(Clone, Debug)]
pub struct HostRunner {
    dir: PathBuf,
    remains: Remains,
    /// This host's `env` if it has `--default-signal`, found out once: asking costs each task two processes.
    env: Arc<OnceCell<Option<PathBuf>>>,
}

/// A process that waits at the gate.
#[derive(Debug)]
pub struct Gated {
    child: Child,
    gate: Option<ChildStdin>,
    word: String,
    /// Which process.
    pub process: ProcessId,
}

/// A process that was let through, or was found again.
#[derive(Debug)]
pub enum Running {
    /// Our own child.
    Child(Child, ProcessId),
    /// Started by a mycli that is no more.
    Found(ProcessId),
}

impl Running {
    /// Which process.
    #[must_use]
    pub fn process(&self) -> &ProcessId {
        match self {
            Self::Child(_, process) | Self::Found(process) => process,
        }
    }
}

impl Gated {
    /// Lets it through: from here on the command may run.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn release(mut self) -> io::Result<Running> {
        failpoint!("host.release.before");
        if let Some(mut gate) = self.gate.take() {
            gate.write_all(format!("{}\n", self.word).as_bytes()).await?;
        }
        failpoint!("host.release.after");
        Ok(Running::Child(self.child, self.process))
    }
}

impl HostRunner {
    /// Tasks get directories of their own beneath this one; what cannot be removed of them is noted.
    #[must_use]
    pub fn new(dir: PathBuf, remains: Remains) -> Self {
        Self { dir, remains, env: Arc::default() }
    }

    /// Where the command begins; its home.
    fn work(&self, task_id: &str) -> PathBuf {
        self.dir.join(task_id)
    }

    fn temp(&self, task_id: &str) -> PathBuf {
        self.dir.join(format!("{task_id}.tmp"))
    }

    fn output(&self, task_id: &str) -> PathBuf {
        self.dir.join(format!("{task_id}.output"))
    }

    /// Starts the script, which then waits at its gate.
    ///
    /// # Errors
    /// When the shell cannot be started.
    pub async fn start(&self, task_id: &str, launch: &Shell) -> Result<Gated, StartFailure> {
        let env = self.env.get_or_init(env_with_default_signal).await;
        self.spawn(task_id, launch, env.as_deref())
            .map_err(|error| StartFailure::never(format!("CannotStartProcessError: {error}")))
    }

    fn spawn(&self, task_id: &str, launch: &Shell, env: Option<&Path>) -> io::Result<Gated> {
        let (work, temp) = (self.work(task_id), self.temp(task_id));
        for dir in [&work, &temp] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let output = File::options().append(true).create(true).open(self.output(task_id))?;
        let (shell, options) = launch.entry_point.split_first().ok_or_else(|| io::Error::other("no entry point"))?;
        let script = format!("{GATE}{}", launch.command.first().map(String::as_str).unwrap_or_default());
        let (nonce, environment): (Vec<_>, Vec<_>) = launch
            .environment
            .iter()
            .map(|(name, value)| (name, value))
            .partition(|(name, _)| *name == script::variable::NONCE);
        let word = nonce.into_iter().map(|(_, nonce)| nonce.clone()).collect();
        failpoint!("host.spawn.before");
        let mut child = Command::new(shell)
            .args(options)
            .args([script.as_str(), "mycli"])
            .arg(env.unwrap_or(Path::new("")))
            .arg(if launch.may_clone() { "" } else { script::OPEN })
            .env_clear()
            .envs(clean_environment(&work, &temp))
            .envs(environment)
            .envs(launch.secrets.iter().map(|(name, value)| (name, value.expose_secret())))
            .env(script::variable::WORKDIR, &work)
            .current_dir(&work)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        failpoint!("host.spawn.after");
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let process = pid.and_then(ProcessId::of).ok_or_else(|| io::Error::other("the shell ended at once"))?;
        Ok(Gated { gate: child.stdin.take(), child, word, process })
    }

    /// Follows a process to its end: its output goes into the log, whole, before this returns.
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
    ) -> io::Result<Ended> {
        let mut output = File::open(self.output(task_id))?;
        output.seek(SeekFrom::Start(log.taken()))?;
        let mut pause = LOOK_MILLIS.0;
        let status = loop {
            tokio::select! {
                biased;
                status = end_of(running) => break status?,
                () = tokio::time::sleep(std::time::Duration::from_millis(pause)) => {}
            }
            let got = drain(&mut output, log, &mut written)?;
            pause = if got { LOOK_MILLIS.0 } else { (pause * 2).min(LOOK_MILLIS.1) };
        };
        let found = matches!(running, Running::Found(_));
        process::kill_leftovers(running.process(), attempt, found).await;
        drain(&mut output, log, &mut written)?;
        let stopped_at = System.now();
        written(log.finish(stopped_at)?.into_iter().collect());
        Ok(match status {
            Some(status) => Ended { exit_code: Some(status), reason: None, stopped_at },
            None => self.read_end(task_id, nonce, stopped_at)?,
        })
    }

    /// How a process ended that was not our child: the script's own last word tells.
    fn read_end(&self, task_id: &str, nonce: &str, stopped_at: Timestamp) -> io::Result<Ended> {
        let text = fs::read(self.output(task_id))?;
        let text = String::from_utf8_lossy(&text);
        let said: Vec<_> = text.lines().filter_map(|line| marker::split(nonce, line).1).collect();
        let exit_code = said.iter().find_map(|marker| match marker {
            Marker::Exit(code) => Some(*code),
            Marker::Timeout => Some(script::EXIT_TIMED_OUT),
            Marker::Fail(_) => Some(script::EXIT_SET_UP_FAILED),
            Marker::SetUp | Marker::Commit(_) | Marker::Start | Marker::Other => None,
        });
        let started = said.contains(&Marker::Start);
        let reason = match (exit_code, started) {
            (Some(_), _) => None,
            (None, true) => Some("it ended while mycli was not there to see how".to_owned()),
            (None, false) => Some(NEVER_STARTED.to_owned()),
        };
        Ok(Ended { exit_code, reason, stopped_at })
    }

    /// The ids of the tasks that something is left of.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn task_ids(&self) -> io::Result<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| name.split('.').next()).map(str::to_owned));
        }
        Ok(ids)
    }

    /// Removes what a task used, its log excepted. What cannot be removed is noted, and told in words.
    pub fn clean_up(&self, task_id: &str) -> Option<String> {
        failpoint!("host.clean_up.before");
        let (work, temp, output) = (self.work(task_id), self.temp(task_id), self.output(task_id));
        let left = [(&output, remove_file(&output)), (&temp, remove_folder(&temp)), (&work, remove_folder(&work))];
        let left = left.into_iter().find_map(|(path, removed)| Some(left_words(path, &removed.err()?)));
        match &left {
            None => self.remains.settle(task_id),
            Some(words) => {
                tracing::warn!(task_id, "{words}");
                self.remains.note(task_id, words);
            }
        }
        failpoint!("host.clean_up.after");
        left
    }
}

fn left_words(path: &Path, error: &io::Error) -> String {
    format!("what a run left in {} cannot be removed: {error}", path.display())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The reason of a process that ended before its command began, with nobody there: at the gate, because mycli died, or in its set-up.
pub const NEVER_STARTED: &str = "it ended before the command began, while mycli was not there";

/// Kills a process with all that belongs to it.
pub async fn kill(process: &ProcessId, attempt: &str) {
    process.signal(Signal::KILL);
    process::kill_leftovers(process, attempt, true).await;
}

/// The exit code as a shell tells it (128 + the signal's number), or `None` where only the parent could know it.
async fn end_of(running: &mut Running) -> io::Result<Option<i32>> {
    match running {
        Running::Child(child, _) => {
            use std::os::unix::process::ExitStatusExt;
            let status = child.wait().await?;
            Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)))
        }
        Running::Found(process) => {
            process.ended().await;
            Ok(None)
        }
    }
}

/// Moves what has been written since into the log; says whether there was anything.
fn drain(output: &mut File, log: &mut LogWriter, written: &mut impl FnMut(Vec<LogLine>)) -> io::Result<bool> {
    let (mut chunk, mut any) = (vec![0; 8 * 1024], false);
    loop {
        let got = output.read(&mut chunk)?;
        if got == 0 {
            return Ok(any);
        }
        any = true;
        written(log.append(System.now(), &chunk[..got])?);
        if got == chunk.len() && got < CHUNK {
            chunk.resize(CHUNK, 0);
        }
    }
}

/// The `env` that a task would find, if it can undo what a shell does to INT and QUIT in what it starts with `&`.
async fn env_with_default_signal() -> Option<PathBuf> {
    let path = search_path();
    let env =
        std::env::split_paths(&path).map(|dir| dir.join("env")).find(|path| path.is_absolute() && path.is_file())?;
    let mut probe = Command::new(&env);
    probe.args(["--default-signal=INT,QUIT", "true"]).env_clear().env("PATH", &path);
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().await.is_ok_and(|status| status.success()).then_some(env)
}

fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into())
}

/// What a command finds in its environment besides what was asked for: enough to find programs, and directories of its own.
fn clean_environment(home: &Path, temp: &Path) -> Vec<(&'static str, OsString)> {
    vec![
        ("PATH", search_path()),
        ("HOME", home.into()),
        ("TMPDIR", temp.into()),
        ("LANG", "C.UTF-8".into()),
        ("SHELL", "/bin/sh".into()),
    ]
}
