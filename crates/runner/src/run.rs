//! The keeper: it starts a command, and sees to it that nothing of it is left when it has ended. On
//! the host it also writes the command's output down. In a container it is process 1, and the
//! command has its streams.
//!
//! It is one process with one thread, so that a run costs little. It outlives the mycli that
//! started it.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    io::{PipeReader, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use domain::{
    artifact::UploadSummary,
    container::{
        EXIT_SET_UP_FAILED, EXIT_TIMED_OUT, UPLOAD_AFTER_TERM_SECONDS, UPLOAD_SECONDS,
        variable::ATTEMPT_ID,
    },
    marker,
    request::CommandLine,
    upload::AttemptRequest,
};
use rustix::{io::Errno, process::Signal};
use secrecy::ExposeSecret as _;

use self::{output::Output, signals::Signals, tree::Tree};
use crate::order::{
    self, AttemptAccess, AwaitFetchOrder, CheckOutOrder, FetchOutcome, HandedOver, KeepOrder,
    RepositorySource, RunOrder, place,
};
use crate::{PROGRAM, artifacts, hand_over, platform};

mod output;
mod signals;
mod tree;

/// The exit status of a command whose program is not there (POSIX, `sh`, "Exit Status for
/// Commands").
const EXIT_NOT_FOUND: i32 = 127;
/// The exit status of a command whose program cannot be run (the same).
const EXIT_NOT_EXECUTABLE: i32 = 126;
/// How long to wait for more output once no process of the command is left. Only a process that the
/// command handed its output to, outside of its own tree, can keep it open.
const LAST_OUTPUT: Duration = Duration::from_millis(100);
/// How often to look whether what is being killed is gone. A process dies within some milliseconds.
const LOOK: Duration = Duration::from_millis(2);
/// How long to wait for a process that does not die, because the kernel holds it (a network file
/// system that does not answer).
const UNKILLABLE: Duration = Duration::from_secs(5);
/// The exit status of a command that was killed: 128 and the number of KILL.
const EXIT_KILLED: i32 = 137;
/// The variable with the address of a task's metadata endpoint (ECS Developer Guide, "Task metadata
/// endpoint version 4").
const METADATA: &str = "ECS_CONTAINER_METADATA_URI_V4";
/// How long the upload may take.
const UPLOAD: Duration = Duration::from_secs(UPLOAD_SECONDS as u64);
/// How long the upload may go on once the keeper was told to end.
const UPLOAD_AFTER_TERM: Duration = Duration::from_secs(UPLOAD_AFTER_TERM_SECONDS as u64);
/// The shell of commands that are text.
const SHELL: &str = "/bin/sh";

/// Carries out an order to its end. Returns the exit status for the keeper itself.
///
/// # Errors
/// When nothing could be started.
pub fn run(order: RunOrder) -> io::Result<i32> {
    let mut keeper = Keeper::new(order)?;
    let status = match keeper.set_up() {
        Ok(folder) => keeper.command(&folder),
        Err(reason) => keeper.fail(&reason),
    };
    let ended = keeper.marker("ended");
    keeper.output.last_line(&ended);
    keeper.output.settle();
    Ok(status)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChildEnd {
    /// By itself.
    Itself,
    /// The keeper was told to end it.
    Told,
    /// Its time was over.
    TimedOut,
}

/// How long a child may run.
#[derive(Clone, Copy, Debug)]
struct TimeLimit {
    /// From its start; for ever if there is none.
    from_start: Option<Duration>,
    /// From a signal that ends the command. At zero the child gets the signal at once.
    after_signal: Duration,
}

impl TimeLimit {
    /// A signal is passed on at once.
    fn from_start(limit: Option<Duration>) -> Self {
        Self {
            from_start: limit,
            after_signal: Duration::ZERO,
        }
    }
}

/// The phases of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It runs, until its time is over.
    Running(Option<Instant>),
    /// It was signalled, and is killed at this moment.
    Stopping(Instant),
    /// All of it is being killed since this moment.
    Killing(Instant),
}

struct Keeper {
    order: RunOrder,
    signals: Signals,
    output: Output,
    tree: Tree,
    /// When the keeper was first told to end.
    told_at: Option<Instant>,
}

impl Keeper {
    fn new(order: RunOrder) -> io::Result<Self> {
        let signals = Signals::new()?;
        let tree = Tree::of_this_process()?;
        let output = Output::open(order.log.as_deref())?;
        Ok(Self {
            order,
            signals,
            output,
            tree,
            told_at: None,
        })
    }

    /// A marker line. Its token tells no other word's token, since the command may read the log.
    fn marker(&self, said: &str) -> String {
        marker::line(self.order.nonce.expose_secret(), said)
    }

    fn mark(&mut self, said: &str) {
        let line = self.marker(said);
        self.output.line(&line);
    }

    /// Gets the repository, if there is one. Returns the folder that the command starts in, or why
    /// there is none.
    fn set_up(&mut self) -> Result<PathBuf, String> {
        let deadline = Instant::now() + Duration::from_secs(self.order.set_up_seconds);
        if let Some(access) = self.order.request.take() {
            self.order = self.whole_order(&access, deadline)?;
        }
        let Some(source) = self.order.source.clone() else {
            return Ok(self.order.folder.clone().unwrap_or_else(|| ".".into()));
        };
        self.mark("setup");
        if let Some(note) = self.order.note.clone() {
            self.output.note(&note);
        }
        let (commit, folder) = match source {
            RepositorySource::Fetch(fetch) => self.fetch(&fetch, deadline)?,
            RepositorySource::HandedOver(folder) => self.take_over(&folder, deadline)?,
        };
        self.mark(&format!("commit:{commit}"));
        let variable = ("MYCLI_COMMIT".to_owned(), commit.into());
        self.order.environment.extend([variable]);
        Ok(folder)
    }

    /// Asks our API for the rest of the order. Returns the whole of it.
    fn whole_order(
        &mut self,
        access: &AttemptAccess,
        deadline: Instant,
    ) -> Result<RunOrder, String> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let limit = TimeLimit::from_start(Some(limit));
        let (end, said) = self.child("get-request", order::to_json(access), limit)?;
        let request: Result<AttemptRequest, String> = match end {
            ChildEnd::TimedOut => Err(format!(
                "there was no answer within {} s",
                self.order.set_up_seconds
            )),
            ChildEnd::Told => return Err("stopped while asking for the request".to_owned()),
            ChildEnd::Itself => serde_json::from_slice(&said)
                .unwrap_or_else(|_| Err("there was no answer".to_owned())),
        };
        let request = request.map_err(|why| format!("the request cannot be asked for: {why}"))?;
        Ok(RunOrder::of_this_process(request.environment))
    }

    /// Fetches the repository, and writes its files.
    fn fetch(
        &mut self,
        fetch: &order::FetchOrder,
        deadline: Instant,
    ) -> Result<(String, PathBuf), String> {
        let order = order::to_json(fetch);
        let check_out = CheckOutOrder {
            from: None,
            into: fetch.into.clone(),
        };
        let done = fs::create_dir_all(&fetch.into)
            .map_err(|error| format!("cannot make {}: {error}", fetch.into.display()))
            .and_then(|()| self.step("fetch", order, deadline))
            .and_then(|_| self.check_out(&check_out, deadline));
        if done.is_err() {
            let _not_there = fs::remove_dir_all(&fetch.into);
        }
        Ok((done?, fetch.into.clone()))
    }

    /// Takes over a repository that was fetched elsewhere, and writes its files.
    fn take_over(&mut self, folder: &Path, deadline: Instant) -> Result<(String, PathBuf), String> {
        let handed_over = match look(folder)? {
            Some(handed_over) => handed_over,
            None => self.await_fetch(folder, deadline)?,
        };
        for note in handed_over.notes {
            self.output.line(&note);
        }
        if let FetchOutcome::Failed(fault) = handed_over.outcome {
            return Err(fault.reason);
        }
        let into = folder
            .parent()
            .unwrap_or(Path::new("/"))
            .join(place::REPOSITORY);
        let order = CheckOutOrder {
            from: Some(folder.join(place::FETCHED)),
            into: into.clone(),
        };
        let commit = self.check_out(&order, deadline)?;
        // It may belong to another user, and does no harm.
        let _left = fs::remove_dir_all(folder);
        Ok((commit, into))
    }

    /// Waits for the container that fetches. Its failure is told like any other result.
    fn await_fetch(&mut self, folder: &Path, deadline: Instant) -> Result<HandedOver, String> {
        let order = AwaitFetchOrder {
            folder: folder.to_owned(),
            metadata: env::var(METADATA).ok(),
        };
        let waited = self.step("await-fetch", order::to_json(&order), deadline);
        match look(folder)? {
            Some(handed_over) => Ok(handed_over),
            None => Err(waited
                .err()
                .unwrap_or_else(|| "the repository was not handed over".to_owned())),
        }
    }

    fn check_out(&mut self, order: &CheckOutOrder, deadline: Instant) -> Result<String, String> {
        self.step("check-out", order::to_json(order), deadline)
    }

    /// Carries out a step of the set-up in a child. Returns the commit.
    fn step(
        &mut self,
        subcommand: &str,
        order: Vec<u8>,
        deadline: Instant,
    ) -> Result<String, String> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let limit = TimeLimit::from_start(Some(limit));
        let (end, said) = self.child(subcommand, order, limit)?;
        let repository = self.order.repository();
        match end {
            ChildEnd::TimedOut => Err(format!(
                "cloning {repository} took longer than {} s",
                self.order.set_up_seconds
            )),
            ChildEnd::Told => Err(format!("stopped while cloning {repository}")),
            ChildEnd::Itself => outcome(&said),
        }
    }

    /// Carries out an order in a child. Returns how it ended, and what it said on stdout.
    fn child(
        &mut self,
        subcommand: &str,
        order: Vec<u8>,
        limit: TimeLimit,
    ) -> Result<(ChildEnd, Vec<u8>), String> {
        let attempt = self.order.environment.get(ATTEMPT_ID);
        let attempt = attempt.map(|value| value.0.expose_secret().to_owned());
        let (mut child, reading) = self
            .output
            .for_child()
            .and_then(|streams| start_step(subcommand, attempt.as_deref(), streams))
            .map_err(|error| format!("the {subcommand} cannot be started: {error}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // Of its own thread: a child that is gone or slow to read must not hold the keeper up.
        thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&order)));
        // So is what it says: an answer may be larger than a pipe.
        let said = thread::spawn(move || all_of(stdout));
        let (end, _) = self.follow(&child, reading, limit);
        Ok((end, said.join().unwrap_or_default()))
    }

    /// Keeps the files that the command leaves in this folder, if that is wanted after such an end.
    fn keep_files(&mut self, folder: &Path, end: ChildEnd, code: i32) {
        let Some((wanted, into)) = self.order.artifacts.clone() else {
            return;
        };
        let mut summary = UploadSummary::default();
        let has_succeeded = end == ChildEnd::Itself && code == 0;
        if wanted.on.includes(has_succeeded) {
            if has_succeeded {
                self.mark("uploading");
            }
            let order = KeepOrder {
                root: folder.to_owned(),
                globs: wanted.globs,
                into,
            };
            let told = self.told_at.map(|at| at.elapsed());
            let limit = TimeLimit {
                from_start: Some(
                    told.map_or(UPLOAD, |told| UPLOAD_AFTER_TERM.saturating_sub(told)),
                ),
                after_signal: UPLOAD_AFTER_TERM,
            };
            summary = match self.child("upload", order::to_json(&order), limit) {
                Ok((end, said)) => {
                    let cut_off = match end {
                        ChildEnd::TimedOut => "the time for the upload was over",
                        ChildEnd::Itself | ChildEnd::Told => {
                            "the upload ended early, most likely for want of memory"
                        }
                    };
                    artifacts::last_report(&String::from_utf8_lossy(&said), cut_off)
                }
                Err(reason) => UploadSummary {
                    reason: Some(reason),
                    ..summary
                },
            };
        }
        if let Some(reason) = &summary.reason {
            self.output
                .note(&format!("not all files are kept: {reason}"));
        }
        self.mark(&format!("uploaded:{}", summary.written()));
    }

    /// Runs the command in this folder to its end.
    fn command(&mut self, folder: &Path) -> i32 {
        // The keeper itself changes to it. If the child had to, it would be forked, and that takes
        // longer than `posix_spawn`.
        if let Err(error) = env::set_current_dir(folder) {
            let why = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    format!("there is no folder {}", folder.display())
                }
                _ => format!("cannot change to the folder {}: {error}", folder.display()),
            };
            return self.fail(&why);
        }
        self.mark("start");
        // Without this line on record, the next mycli would start the command again.
        if let Err(reason) = self.settle_unless_told() {
            return self.fail(&reason);
        }
        let (child, reading) = match self.start() {
            Ok(started) => started,
            Err(error) => return self.not_started(&error, folder),
        };
        let limit = self.order.timeout_seconds.map(Duration::from_secs);
        let (end, code) = self.follow(&child, reading, TimeLimit::from_start(limit));
        let code = match end {
            ChildEnd::TimedOut => {
                self.mark("timeout");
                EXIT_TIMED_OUT
            }
            ChildEnd::Itself | ChildEnd::Told => {
                self.mark(&format!("exit:{code}"));
                code
            }
        };
        self.keep_files(folder, end, code);
        code
    }

    /// Starts the command. Returns it with its output, if the keeper is to read that.
    fn start(&self) -> io::Result<(Child, Option<PipeReader>)> {
        match &self.order.command {
            CommandLine::Text(text) => self.spawn(SHELL, ["-c", "--", text]),
            CommandLine::Words(words) => {
                let (program, arguments) = match words.split_first() {
                    Some((program, arguments)) => (&**program, arguments),
                    None => ("", &[][..]),
                };
                match self.spawn(program, arguments) {
                    // A script that does not name its interpreter is the shell's (execvp(3)).
                    Err(error) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
                        self.spawn(SHELL, words).map_err(|_| error)
                    }
                    started => started,
                }
            }
        }
    }

    fn spawn(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> io::Result<(Child, Option<PipeReader>)> {
        let environment = self.order.environment.iter();
        let streams = self.output.for_child()?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(environment.map(|(name, value)| (name, value.0.expose_secret())))
            .stdin(Stdio::null())
            .stdout(streams.out)
            .stderr(streams.err);
        let child = tree::in_a_group_of_its_own(&mut command).spawn()?;
        Ok((child, streams.reading))
    }

    /// Waits until everything is on record, unless the keeper is told to end.
    fn settle_unless_told(&mut self) -> Result<(), String> {
        loop {
            if self.signals.told().is_some() {
                return Err("stopped before the command began".into());
            }
            let Some(retry_at) = self.output.blocked_until() else {
                return Ok(());
            };
            self.signals.wait(None, Some(retry_at));
            self.output.retry();
        }
    }

    /// Tells that the command could not begin. Returns the keeper's exit status.
    fn fail(&mut self, reason: &str) -> i32 {
        self.output.note(reason);
        self.mark(&format!("fail:{reason}"));
        EXIT_SET_UP_FAILED
    }

    /// Tells why the command's program did not start, and ends as a shell does.
    fn not_started(&mut self, error: &io::Error, folder: &Path) -> i32 {
        let is_for_want = [Errno::AGAIN, Errno::MFILE, Errno::NFILE, Errno::NOMEM]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
        if is_for_want {
            return self.fail(&format!("the command cannot be started: {error}"));
        }
        let program = match &self.order.command {
            CommandLine::Text(_) => SHELL,
            CommandLine::Words(words) => words.first().map_or("", String::as_str),
        };
        let is_text = matches!(self.order.command, CommandLine::Text(_));
        let (code, why) = match error.kind() {
            io::ErrorKind::NotFound if is_text => (
                EXIT_NOT_FOUND,
                "not found: where there is no shell, give the program and its arguments as words after --"
                    .to_owned(),
            ),
            io::ErrorKind::NotFound => (EXIT_NOT_FOUND, "not found".to_owned()),
            _ => (EXIT_NOT_EXECUTABLE, error.to_string()),
        };
        let note = format!("{program}: {why}");
        self.output.note(&note);
        self.mark(&format!("exit:{code}"));
        self.keep_files(folder, ChildEnd::Itself, code);
        code
    }

    /// Follows a child until it and everything that it started has ended, and all of the output is
    /// written. Returns how it ended, and its exit status as a shell has it. Nothing is written to
    /// a container's log meanwhile: a log that takes nothing must not hold up the end of a command.
    fn follow(
        &mut self,
        child: &Child,
        mut reading: Option<PipeReader>,
        limit: TimeLimit,
    ) -> (ChildEnd, i32) {
        let pid = child.id().cast_signed();
        let deadline = limit.from_start.map(|limit| Instant::now() + limit);
        let mut phase = Phase::Running(deadline);
        let (mut end, mut code) = (ChildEnd::Itself, None);
        loop {
            let reaped = self.tree.reap();
            let own = reaped.ended.iter().find(|(ended, _)| *ended == pid);
            code = code.or(own.map(|(_, code)| *code));
            if reaped.is_nobody_left {
                break;
            }
            let now = Instant::now();
            // A signal that comes later than its child's end is for what comes next.
            let told = match phase {
                Phase::Running(_) if code.is_none() => self.signals.told(),
                _ => None,
            };
            phase = match (phase, told) {
                // The command has ended by itself. What it left behind ends with it.
                (Phase::Running(_), _) if code.is_some() => Phase::Killing(now),
                (Phase::Running(deadline), Some(signal)) => {
                    self.told_at.get_or_insert(now);
                    if limit.after_signal.is_zero() {
                        end = ChildEnd::Told;
                        self.stop(signal, now)
                    } else {
                        let last = now + limit.after_signal;
                        Phase::Running(Some(deadline.map_or(last, |deadline| deadline.min(last))))
                    }
                }
                (Phase::Running(Some(deadline)), None) if deadline <= now => {
                    end = ChildEnd::TimedOut;
                    self.stop(Signal::TERM, now)
                }
                (Phase::Stopping(kill_at), _) if kill_at <= now => Phase::Killing(now),
                (phase, _) => phase,
            };
            let until = match phase {
                Phase::Running(deadline) => deadline,
                Phase::Stopping(kill_at) => Some(kill_at),
                Phase::Killing(since) if now - since > UNKILLABLE => {
                    self.output
                        .note("a process of the command cannot be killed, and goes on");
                    break;
                }
                Phase::Killing(_) => {
                    self.tree.kill(pid);
                    Some(now + LOOK)
                }
            };
            self.wait(&mut reading, until);
        }
        self.drain(reading);
        (end, code.unwrap_or(EXIT_KILLED))
    }

    /// Passes a signal on to the whole tree.
    fn stop(&mut self, signal: Signal, now: Instant) -> Phase {
        self.tree.signal(signal);
        Phase::Stopping(now + Duration::from_secs(self.order.grace_seconds))
    }

    /// Waits until something happens, this moment at the latest, and writes output down.
    fn wait(&mut self, reading: &mut Option<PipeReader>, until: Option<Instant>) {
        if let Some(retry_at) = self.output.blocked_until() {
            // There is no disk space. The command waits until it is read from again.
            let until = until.map_or(retry_at, |until| until.min(retry_at));
            self.signals.wait(None, Some(until));
            self.output.retry();
        } else if self.signals.wait(reading.as_ref(), until) {
            self.read(reading);
        }
    }

    /// Writes down what the pipe holds, and lets go of it at its end.
    fn read(&mut self, reading: &mut Option<PipeReader>) {
        let Some(pipe) = reading else {
            return;
        };
        let mut chunk = [0; 64 * 1024];
        match pipe.read(&mut chunk) {
            Ok(0) => *reading = None,
            Ok(read) => self.output.write(&chunk[..read]),
            Err(error) if is_passing(&error) => {}
            Err(_) => *reading = None,
        }
    }

    /// Writes down the rest of the output. Nobody of the tree is left to write more.
    fn drain(&mut self, mut reading: Option<PipeReader>) {
        let until = Instant::now() + LAST_OUTPUT;
        // One that never stops writing is not waited for.
        let at_last = until + LAST_OUTPUT;
        while reading.is_some() && Instant::now() < at_last {
            self.output.settle();
            if self.signals.wait(reading.as_ref(), Some(until)) {
                self.read(&mut reading);
            } else if Instant::now() >= until {
                return;
            }
        }
    }
}

/// The result of the container that fetches, once it is there.
fn look(folder: &Path) -> Result<Option<HandedOver>, String> {
    hand_over::look(folder).map_err(|fault| fault.reason)
}

/// Whether a read may be tried again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// Starts a step of the set-up. It says on stdout what became of it.
fn start_step(
    subcommand: &str,
    attempt: Option<&str>,
    streams: output::Streams,
) -> io::Result<(Child, Option<PipeReader>)> {
    // By its attempt, mycli finds what outlives a keeper that is killed.
    let path = env::var("PATH").ok();
    let environment = [("PATH", path.as_deref()), (ATTEMPT_ID, attempt)];
    let environment = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    let mut command = Command::new(platform::own_program()?);
    command
        .arg0(PROGRAM)
        .arg(subcommand)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(streams.err);
    let child = tree::in_a_group_of_its_own(&mut command).spawn()?;
    Ok((child, streams.reading))
}

/// All that a child that has ended said on stdout.
fn all_of(stdout: Option<ChildStdout>) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(mut stdout) = stdout {
        let _broken = stdout.read_to_end(&mut text);
    }
    text
}

/// The outcome that a step reports.
fn outcome(said: &[u8]) -> Result<String, String> {
    match serde_json::from_slice(said) {
        Ok(FetchOutcome::Done(fetched)) => Ok(fetched.commit),
        Ok(FetchOutcome::Failed(fault)) => Err(fault.reason),
        Err(_) => Err("the set-up ended without a result".into()),
    }
}
