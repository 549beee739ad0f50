//! Places where a secret must not be seen.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{
    server::{Habits, HttpServer, SshServer},
    stage::{NONCE, SHELLS, Stage, holds, processes},
};

const TOKEN: &str = "ghp_Zq8sesame";

/// Prints what the command can see of every process, itself and the script included.
const LOOK: &str = "for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ; tr '\\0' '\\n' <$p/cmdline; done 2>/dev/null; set; ls -l /proc/self/fd";

/// Watches the arguments of all processes of this machine until its end.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Vec<u8>>>,
}

impl Watch {
    fn begin() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread =
            thread::spawn(move || {
                let mut seen = BTreeSet::new();
                while !stopped.load(Ordering::SeqCst) {
                    seen.extend(processes().filter_map(|process| {
                        fs::read(format!("/proc/{}/cmdline", process.pid)).ok()
                    }));
                }
                seen
            });
        Self { stop, thread }
    }

    fn end(self) -> BTreeSet<Vec<u8>> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Plays the stage as pid 1 of its own namespace, as in a container, and looks for the secrets
/// everywhere.
fn check(stage: Stage, secrets: &[&str]) {
    let watch = Watch::begin();
    let outcome = stage.with_pid_one().play();
    let arguments = watch.end();
    assert!(
        outcome.out().contains("MYCLI_COMMIT=") && outcome.out().contains("mycli_"),
        "the look saw nothing: {outcome:?}"
    );
    let git = |arguments: &Vec<u8>| holds(arguments, "clone");
    assert!(
        arguments.iter().any(git),
        "the watch saw no clone among {} commands",
        arguments.len()
    );
    for secret in secrets {
        assert!(
            !holds(&outcome.stdout, secret) && !holds(&outcome.stderr, secret),
            "seen by the command: {}",
            outcome.out()
        );
        let shown = arguments.iter().find(|arguments| holds(arguments, secret));
        assert_eq!(
            shown.map(|arguments| String::from_utf8_lossy(arguments).into_owned()),
            None
        );
        let kept: Vec<_> = outcome
            .files()
            .into_iter()
            .filter(|file| holds(&fs::read(file).unwrap(), secret))
            .collect();
        assert_eq!(kept, Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn no_token_and_no_nonce() {
    let server = HttpServer::new(Habits {
        login: Some("x-access-token:ghp_Zq8sesame"),
        ..Habits::default()
    });
    for shell in SHELLS {
        check(
            Stage::new(shell, LOOK)
                .repo(server.url(), "main")
                .env("MYCLI_GIT_TOKEN", TOKEN),
            &[TOKEN, NONCE, "MYCLI_COMMAND="],
        );
    }
}

#[test]
fn no_key_and_no_nonce() {
    let server = SshServer::new();
    let key = server.key("user");
    let line = key.lines().nth(2).unwrap();
    for shell in SHELLS {
        let stage = Stage::new(shell, LOOK)
            .repo(server.url(), "main")
            .env("MYCLI_SSH_KEY", &key);
        check(
            stage.env("MYCLI_KNOWN_HOSTS", server.pin("host")),
            &[line, NONCE, "MYCLI_COMMAND="],
        );
    }
}
