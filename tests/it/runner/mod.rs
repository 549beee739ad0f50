//! The program inside a task, as the file that mycli carries, against real servers.

mod clone;
mod hand_over;
mod hostile;
mod keep;
mod large_files;
mod program;
mod reach;
mod submodules;

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
};

use runner::order::{FetchFaultKind, FetchOutcome};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::git_server::git;

/// The program, put down once for all tests of this process.
pub(crate) fn program() -> &'static Path {
    static PUT: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = local::runner_program::install(folder.path()).expect("it is written");
        (folder, path)
    });
    &PUT.1
}

/// The outcome of an order to fetch.
#[derive(Debug)]
struct Got {
    folder: TempDir,
    outcome: FetchOutcome,
    /// The notes for the run's log.
    notes: String,
}

impl Got {
    /// The folder of the clone.
    fn clone(&self) -> PathBuf {
        self.folder.path().join("clone")
    }

    /// The commit.
    fn commit(&self) -> &str {
        match &self.outcome {
            FetchOutcome::Done(fetched) => &fetched.commit,
            FetchOutcome::Failed(fault) => panic!("{fault:?}; {}", self.notes),
        }
    }

    /// The reason for a missing clone.
    fn reason(&self) -> &str {
        match &self.outcome {
            FetchOutcome::Failed(fault) => &fault.reason,
            FetchOutcome::Done(fetched) => panic!("{fetched:?}"),
        }
    }

    fn kind(&self) -> FetchFaultKind {
        match &self.outcome {
            FetchOutcome::Failed(fault) => fault.kind,
            FetchOutcome::Done(fetched) => panic!("{fetched:?}"),
        }
    }

    /// Fails unless the reason has these words.
    fn fails_with(&self, words: &str) {
        let reason = self.reason();
        assert!(reason.contains(words), "{reason}");
    }

    /// How many times it was tried again.
    fn tried_again(&self) -> usize {
        self.notes.matches("trying again").count()
    }

    /// A file's text.
    fn text(&self, path: &str) -> String {
        assert!(!self.commit().is_empty());
        std::fs::read_to_string(self.clone().join(path)).expect(path)
    }

    /// The output of git in the clone.
    fn git(&self, words: &[&str]) -> String {
        git(&self.clone(), words)
    }
}

/// Fetches a repository, with further keys of the order.
fn fetch(repo: &str, further: Value) -> Got {
    fetch_by(&mut Command::new(program()), repo, further)
}

fn order(folder: &Path, repo: &str, further: Value) -> Value {
    let mut order = json!({"repo": repo, "depth": 1, "into": folder.join("clone")});
    let Value::Object(further) = further else {
        panic!("an object");
    };
    order.as_object_mut().expect("an object").extend(further);
    order
}

/// Starts a subcommand of the program, and gives it its order.
pub(crate) fn start(command: &mut Command, subcommand: &[&str], order: &Value) -> Child {
    let mut child = command
        .args(subcommand)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(order.to_string().as_bytes())
        .expect("it reads");
    child
}

/// A fetch from a server that takes connections and never answers.
struct Waiting {
    folder: TempDir,
    fetch: Child,
    connection: TcpStream,
}

impl Waiting {
    /// Starts the fetch by this command, and waits until its child has connected.
    fn by(command: &mut Command) -> Self {
        Self::with(command, json!({}))
    }

    /// The same, with further keys of the order.
    fn with(command: &mut Command, further: Value) -> Self {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = silent.local_addr().expect("an address");
        let folder = tempfile::tempdir().expect("a folder");
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), everyone).expect("set");
        let order = order(folder.path(), &format!("http://{address}/x.git"), further);
        let fetch = start(command.stderr(Stdio::null()), &["fetch"], &order);
        let (connection, _) = silent.accept().expect("the child connects");
        Self {
            folder,
            fetch,
            connection,
        }
    }

    /// The pid of the child, which does the work.
    fn child(&self) -> i32 {
        let children = format!("/proc/{0}/task/{0}/children", self.fetch.id());
        let children = std::fs::read_to_string(children).expect("read");
        children.trim().parse().expect("one child")
    }

    /// Ends the fetch.
    fn end(mut self) {
        self.fetch.kill().expect("killed");
        self.fetch.wait().expect("ours");
        assert!(!self.folder.path().join("clone/f").exists());
    }
}

fn fetch_by(command: &mut Command, repo: &str, further: Value) -> Got {
    let folder = tempfile::tempdir().expect("a folder");
    let order = order(folder.path(), repo, further);
    let (mut outcome, notes) = step(command, "fetch", &order);
    if let FetchOutcome::Done(fetched) = &outcome {
        let fetched = fetched.clone();
        let order = json!({"into": folder.path().join("clone")});
        outcome = step(&mut Command::new(program()), "check-out", &order).0;
        if let FetchOutcome::Done(checked_out) = &outcome {
            assert_eq!(*checked_out, fetched);
        }
    }
    Got {
        folder,
        outcome,
        notes,
    }
}

/// Carries out a step of a set-up. Returns its outcome and its notes.
fn step(command: &mut Command, subcommand: &str, order: &Value) -> (FetchOutcome, String) {
    let child = start(command.stderr(Stdio::piped()), &[subcommand], order);
    let output = child.wait_with_output().expect("it ends");
    let outcome = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (outcome, String::from_utf8(output.stderr).expect("text"))
}

/// The credential for HTTP servers on loopback.
fn basic(username: &str, password: &str) -> Value {
    json!([{"hosts": ["127.0.0.1"], "proof": {"basic": {"username": username, "password": password}}}])
}

/// The credential for SSH servers on loopback.
fn key(text: &str) -> Value {
    json!([{"hosts": ["127.0.0.1"], "proof": {"key": text}}])
}
