//! pueue, the peer for many commands on one machine, with its own daemon and configuration.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long its daemon may take to start, or to run all commands it was given.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running daemon. It ends when this is dropped.
pub(crate) struct Daemon {
    process: Child,
    home: TempDir,
}

impl Daemon {
    /// Starts a daemon that runs `parallel` commands at the same time.
    pub(crate) fn start(parallel: usize) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let place = home.path().display();
        let config = format!(
            "shared:\n  pueue_directory: {place}/data\n  runtime_directory: {place}\n  use_unix_socket: true\n  unix_socket_path: {place}/socket\n"
        );
        fs::write(home.path().join("pueue.yml"), config).expect("a configuration");
        let mut command = Command::new("pueued");
        command
            .arg("--config")
            .arg(home.path().join("pueue.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let daemon = Self {
            process: command.spawn().expect("pueued"),
            home,
        };
        daemon.wait_until(|daemon| daemon.ask(&["status"]).is_some());
        daemon
            .ask(&["parallel", &parallel.to_string()])
            .expect("pueue takes its parallelism");
        daemon
    }

    /// Adds `command` `count` times, one call after the other as its users do, and waits until all
    /// are done.
    pub(crate) fn run(&self, count: usize, command: &str) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            self.ask(&["add", "--", command])
                .expect("pueue takes a command");
        }
        let done = count.to_string();
        self.wait_until(|daemon| {
            daemon
                .count("Success")
                .is_some_and(|found| found.to_string() == done)
        });
        start.elapsed()
    }

    /// How many of its tasks have this result.
    fn count(&self, result: &str) -> Option<usize> {
        let status: serde_json::Value =
            serde_json::from_str(&self.ask(&["status", "--json"])?).ok()?;
        let tasks = status["tasks"].as_object()?;
        Some(
            tasks
                .values()
                .filter(|task| task["status"]["Done"]["result"].as_str() == Some(result))
                .count(),
        )
    }

    /// The answer of `pueue`; `None` if it fails.
    fn ask(&self, words: &[&str]) -> Option<String> {
        let output = Command::new("pueue")
            .arg("--config")
            .arg(self.home.path().join("pueue.yml"))
            .args(words)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn wait_until(&self, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < end, "pueue took too long");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // `shutdown` ends the daemon in order. It was started here, so this waits for its end.
        if self.ask(&["shutdown"]).is_none() {
            let _gone = self.process.kill();
        }
        let _ended = self.process.wait();
    }
}
