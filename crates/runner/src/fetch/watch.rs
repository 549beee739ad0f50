//! The parent of a fetch. A child does the work; the parent sees whether it moves on, starts
//! another one after a failure that may pass, and has the last word on what became of it. A child
//! that runs out of memory takes only itself along.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{ReceivedBytes, fetch};
use crate::order::{self, FetchFault, FetchFaultKind, FetchOrder, FetchOutcome, FetchedCommit};
use crate::{PROGRAM, platform};

/// How long no byte may come from a server that is waited for (DESIGN §6). A server that prepares
/// an answer sends a sign of life every five seconds (git-config, `uploadpack.keepAlive`).
const SILENCE_SECONDS: u32 = 60;
/// How often the child says that it lives.
const BEAT: Duration = Duration::from_millis(500);
/// The pauses before the second and the third try.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(6)];
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(10);
/// The signal of a process that the kernel ends for want of memory.
const SIGKILL: i32 = 9;

/// The subcommand of the child.
pub const CHILD: &str = "fetch-once";

/// The messages of the child to its parent, a line each.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum ChildReport {
    /// It lives.
    Beat {
        /// The bytes that came so far.
        bytes: u64,
        /// Whether it waits for a server.
        waits: bool,
    },
    /// It has an end.
    End(FetchOutcome),
}

/// Fetches a repository in a child process, three times at most. Notes go to `log`, a line each.
///
/// # Errors
/// The reason for a missing repository.
pub fn fetch_in_child(
    order: &FetchOrder,
    log: &mut impl Write,
) -> Result<FetchedCommit, FetchFault> {
    let mut pauses = PAUSES.iter();
    loop {
        let fault = match one_try(order, log) {
            Ok(fetched) => return Ok(fetched),
            Err(fault) => fault,
        };
        match pauses.next() {
            Some(pause) if fault.kind == FetchFaultKind::Passing => {
                let seconds = pause.as_secs();
                note(
                    log,
                    &format!(
                        "cannot reach {}: {fault}; trying again in {seconds} s",
                        order.repo
                    ),
                );
                thread::sleep(*pause);
                let _not_there = fs::remove_dir_all(order.into.join(".git"));
            }
            _ => return Err(explained(order, &fault)),
        }
    }
}

fn note(log: &mut impl Write, text: &str) {
    // A log that cannot be written must not end the fetch.
    let _lost = writeln!(log, "mycli: {text}");
}

/// Names the repository, and the way out if there is one.
fn explained(order: &FetchOrder, fault: &FetchFault) -> FetchFault {
    let way_out = match fault.kind {
        FetchFaultKind::NeedsGit => "; with --git system, real git fetches it",
        FetchFaultKind::Passing | FetchFaultKind::Final => "",
    };
    FetchFault {
        reason: format!("cannot clone {}: {}{way_out}", order.repo, fault.reason),
        kind: fault.kind,
    }
}

fn one_try(order: &FetchOrder, log: &mut impl Write) -> Result<FetchedCommit, FetchFault> {
    let mut child = start(order)
        .map_err(|error| FetchFault::last(format!("the fetch cannot be started: {error}")))?;
    let reports = listen(&mut child);
    let outcome = follow(&reports, order, log);
    let _over = child.kill();
    let status = child.wait();
    outcome.unwrap_or_else(|| Err(died(status.ok())))
}

fn start(order: &FetchOrder) -> io::Result<Child> {
    let mut child = Command::new(platform::own_program()?)
        .arg0(PROGRAM)
        .arg(CHILD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // By a pipe: the order holds credentials, and other processes of this user read arguments and
    // environments.
    if let Some(mut stdin) = child.stdin.take() {
        // A child that is gone is noticed by its silence.
        let _gone = stdin.write_all(&order::to_json(order));
    }
    Ok(child)
}

fn listen(child: &mut Child) -> Receiver<ChildReport> {
    let (send, receive) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let reports = lines.filter_map(|line| serde_json::from_str(&line).ok());
            for report in reports {
                if send.send(report).is_err() {
                    return;
                }
            }
        });
    }
    receive
}

/// Follows a child to its last word. There is none if it died.
fn follow(
    reports: &Receiver<ChildReport>,
    order: &FetchOrder,
    log: &mut impl Write,
) -> Option<Result<FetchedCommit, FetchFault>> {
    let seconds = order.network.silence_seconds.unwrap_or(SILENCE_SECONDS);
    let silence = Duration::from_secs(seconds.into());
    let (mut moved_at, mut told_at, mut seen) = (Instant::now(), Instant::now(), 0);
    loop {
        match reports.recv_timeout(silence) {
            Ok(ChildReport::End(FetchOutcome::Done(fetched))) => return Some(Ok(fetched)),
            Ok(ChildReport::End(FetchOutcome::Failed(fault))) => return Some(Err(fault)),
            Ok(ChildReport::Beat { bytes, waits }) => {
                if bytes != seen || !waits {
                    (seen, moved_at) = (bytes, Instant::now());
                }
                if told_at.elapsed() > PROGRESS {
                    told_at = Instant::now();
                    let megabytes = bytes / 1_000_000;
                    note(
                        log,
                        &format!("fetching {}: {megabytes} MB so far", order.repo),
                    );
                }
            }
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if moved_at.elapsed() > silence {
            return Some(Err(FetchFault::passing(format!(
                "no byte came for {seconds} s"
            ))));
        }
    }
}

/// The failure behind a child that ended without a last word.
fn died(status: Option<ExitStatus>) -> FetchFault {
    match status.and_then(|status| status.signal()) {
        Some(SIGKILL) => FetchFault::last(
            "the fetch was killed, most likely because it ran out of memory: give the run more (--memory)",
        ),
        Some(signal) => FetchFault::last(format!("the fetch was ended by signal {signal}")),
        None => FetchFault::last("the fetch ended without a result"),
    }
}

/// The child: fetches once, and tells the parent on stdout. Ends with the parent.
///
/// # Errors
/// When the parent cannot be told.
pub fn fetch_once(order: &FetchOrder) -> io::Result<()> {
    let received = ReceivedBytes::default();
    let beating = received.clone();
    thread::spawn(move || {
        loop {
            let beat = ChildReport::Beat {
                bytes: beating.bytes(),
                waits: beating.is_awaited(),
            };
            if tell(&beat).is_err() {
                // The parent is gone, and nobody wants the result.
                std::process::exit(1);
            }
            thread::sleep(BEAT);
        }
    });
    tell(&ChildReport::End(match fetch(order, received) {
        Ok(fetched) => FetchOutcome::Done(fetched),
        Err(fault) => FetchOutcome::Failed(fault),
    }))
}

fn tell(report: &ChildReport) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}
