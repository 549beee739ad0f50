//! A repository of this machine, served by git itself (`git upload-pack`).

use std::{
    io::{self, BufReader, Read},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use domain::request::RepoUrl;
use gix::protocol::transport::{
    Protocol,
    client::git::{ConnectMode, blocking_io::Connection},
};

use super::{FaultNote, note_said};
use crate::fetch::network::ReceivedBytes;
use crate::order::FetchFault;

/// The most that is kept of what git says, in bytes.
const SAID_MAX: usize = 8 * 1024;

/// Starts git for a repository of this machine.
///
/// # Errors
/// When there is no git.
pub(super) fn start(
    received: &ReceivedBytes,
    repo: &RepoUrl,
    fault: &FaultNote,
) -> Result<Connection<ServerOutput, ChildStdin>, FetchFault> {
    let path = repo
        .local_path()
        .ok_or_else(|| FetchFault::last("the repository's path cannot be read"))?;
    let mut child = Command::new("git")
        // The repository may be another user's. Serving it runs nothing of it.
        .args(["-c", "safe.directory=*", "upload-pack", "--"])
        .arg(&path)
        .env("GIT_PROTOCOL", "version=2")
        .env("LC_ALL", "C")
        .env_remove("GIT_DIR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => FetchFault::last(
                "git is not on this machine, and a repository of this machine is read by git",
            ),
            _ => FetchFault::last(format!("cannot start git: {error}")),
        })?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(FetchFault::last("git was started without its pipes"));
    };
    let said = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&said);
    let listener = thread::spawn(move || {
        let mut text = Vec::new();
        let mut stderr = BufReader::new(stderr);
        let _ended = stderr.by_ref().take(SAID_MAX as u64).read_to_end(&mut text);
        *heard.lock().unwrap_or_else(PoisonError::into_inner) =
            String::from_utf8_lossy(&text).into_owned();
        let _ended = io::copy(&mut stderr, &mut io::sink());
    });
    let output = ServerOutput {
        received: received.clone(),
        stdout,
        child,
        listener: Some(listener),
        said,
        fault: FaultNote::clone(fault),
    };
    let path = path.to_string_lossy().into_owned();
    let none: Option<(String, Option<u16>)> = None;
    Ok(Connection::new(
        output,
        stdin,
        Protocol::V2,
        path,
        none,
        ConnectMode::Process,
        false,
    ))
}

/// git's output. When it ends, what git said is noted as the reason.
pub(super) struct ServerOutput {
    received: ReceivedBytes,
    stdout: ChildStdout,
    child: Child,
    listener: Option<thread::JoinHandle<()>>,
    said: Arc<Mutex<String>>,
    fault: FaultNote,
}

impl ServerOutput {
    /// Notes what git said, once its output is over.
    fn note(&mut self) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        let _ended = listener.join();
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        note_said(&self.fault, &said);
    }
}

impl Read for ServerOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.received.awaiting(|| self.stdout.read(buffer))?;
        self.received.add(read);
        if read == 0 && !buffer.is_empty() {
            self.note();
        }
        Ok(read)
    }
}

impl Drop for ServerOutput {
    fn drop(&mut self) {
        let _over = self.child.kill();
        let _reaped = self.child.wait();
    }
}
