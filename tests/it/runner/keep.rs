//! The keeper: it passes signals on, writes output down, and leaves nothing behind.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use domain::marker::{self, Marker};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{program, start};
use crate::git_server::Origin;

const NONCE: &str = "0123456789abcdef0123456789abcdef";
/// A bound on a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A keeper with its order.
struct Kept {
    folder: TempDir,
    keeper: Child,
}

/// The result of a command.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    lines: Vec<String>,
    markers: Vec<Marker>,
}

impl Kept {
    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Waits until the log has this text.
    fn says(&self, text: &str) {
        let begun = Instant::now();
        while !fs::read_to_string(self.log())
            .unwrap_or_default()
            .contains(text)
        {
            assert!(begun.elapsed() < PATIENCE, "{text}");
            std::thread::yield_now();
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.keeper.id().cast_signed()).expect("a pid");
        kill_process(pid, signal).expect("it is there");
    }

    fn end(mut self) -> Ran {
        let status = self.keeper.wait().expect("ours");
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let split: Vec<_> = text
            .lines()
            .filter_map(|line| line.splitn(3, ' ').nth(2))
            .map(|line| marker::split(NONCE, line))
            .collect();
        Ran {
            code: status.code(),
            lines: split
                .iter()
                .filter_map(|(own, _)| own.map(str::to_owned))
                .collect(),
            markers: split.into_iter().filter_map(|(_, marker)| marker).collect(),
        }
    }
}

/// Starts a keeper, with further keys of its order.
fn keep_by(mut keeper: Command, command: &Value, further: Value) -> Kept {
    let folder = tempfile::tempdir().expect("a folder");
    let mut order = json!({
        "nonce": NONCE,
        "command": command,
        "environment": {"PATH": std::env::var("PATH").expect("a path")},
        "folder": folder.path(),
        "timeout_seconds": 60,
        "grace_seconds": 10,
        "set_up_seconds": 60,
        "log": folder.path().join("log"),
    });
    let Value::Object(further) = further else {
        panic!("an object");
    };
    order.as_object_mut().expect("an object").extend(further);
    let keeper = start(keeper.stderr(Stdio::null()), &["run", "-"], &order);
    Kept { folder, keeper }
}

fn keep(command: &str, further: Value) -> Kept {
    keep_by(Command::new(program()), &json!(command), further)
}

fn run(command: &str) -> Ran {
    keep(command, json!({})).end()
}

/// Whether a process still runs.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn the_exit_code_is_the_commands_own() {
    for (command, code) in [
        ("true", 0),
        ("exit 3", 3),
        ("exit 124", 124),
        ("exit 125", 125),
        ("no-such-program", 127),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let ran = run(command);
        assert_eq!(ran.code, Some(code), "{command}: {ran:?}");
        assert_eq!(
            ran.markers,
            [
                Marker::Start,
                Marker::Exit(code),
                Marker::Ended,
                Marker::Ended
            ],
            "{command}"
        );
    }
}

#[test]
fn words_keep_their_boundaries_and_need_no_shell() {
    let words = |words: &[&str]| keep_by(Command::new(program()), &json!(words), json!({})).end();
    let ran = words(&["printf", "%s|", "a b", "$HOME", "", "*"]);
    assert_eq!(
        (ran.code, &*ran.lines),
        (Some(0), &["a b|$HOME||*|".to_owned()][..])
    );
    let ran = words(&["no-such-program", "x"]);
    assert_eq!(
        (ran.code, &*ran.lines[0]),
        (Some(127), "mycli: no-such-program: not found")
    );
    let ran = words(&["/etc/passwd"]);
    assert_eq!(ran.code, Some(126), "{ran:?}");
}

#[test]
fn nothing_of_a_command_outlives_it() {
    for command in [
        "sleep 77 & echo $!",
        "setsid sleep 77 & echo $!",
        "(env -i setsid sh -c 'echo $$; exec sleep 77' &) ; sleep 0.2",
        "nohup setsid sh -c 'trap \"\" TERM HUP INT; echo $$; sleep 77' & sleep 0.2",
    ] {
        for end in ["", "; exit 5", "; sleep 77"] {
            let timeout = if end == "; sleep 77" { 1 } else { 60 };
            let further = json!({"timeout_seconds": timeout, "grace_seconds": 1});
            let ran = keep(&format!("{command}{end}"), further).end();
            let pid = ran
                .lines
                .first()
                .unwrap_or_else(|| panic!("{command}{end}: {ran:?}"));
            assert!(!is_alive(pid), "{command}{end}: {ran:?}");
        }
    }
}

/// Each process starts two, until the limit.
#[test]
fn what_forks_while_it_is_killed_does_not_get_away() {
    let more = "i=0; while [ $i -lt 6 ]; do (while :; do sleep 0.01 & done) & i=$((i + 1)); done; sleep 0.3; exit 5";
    let ran = run(more);
    assert_eq!(ran.code, Some(5), "{ran:?}");
}

/// The kernel cuts a process's name at 15 bytes, which may be in the middle of a character.
#[test]
fn a_process_of_any_name_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let odd = folder.path().join("ññññññññ) R 1");
    fs::copy("/usr/bin/sleep", &odd).expect("copied");
    let command = format!("setsid '{}' 77 & echo $!; sleep 77", odd.display());
    let further = json!({"timeout_seconds": 1, "grace_seconds": 1});
    let ran = keep(&command, further).end();
    assert!(!is_alive(&ran.lines[0]), "{ran:?}");
}

/// Its main thread has ended, so it looks like a zombie.
#[test]
fn a_process_whose_main_thread_has_ended_is_found() {
    let threads = "import ctypes, os, threading, time\n\
                   threading.Thread(target=lambda: time.sleep(77)).start()\n\
                   print(os.getpid(), flush=True)\n\
                   ctypes.CDLL(None).syscall(60, 0)\n";
    let command = format!("exec python3 -c '{threads}'");
    let further = json!({"timeout_seconds": 1, "grace_seconds": 1});
    let ran = keep(&command, further).end();
    let pid = ran.lines.first().unwrap_or_else(|| panic!("{ran:?}"));
    assert!(
        !fs::exists(format!("/proc/{pid}/task")).expect("read"),
        "{ran:?}"
    );
}

#[test]
fn a_stopped_process_gets_its_grace_too() {
    let command = "trap 'echo graceful; exit 5' TERM; kill -STOP $$";
    let ran = keep(command, json!({"timeout_seconds": 1})).end();
    assert!(ran.lines.contains(&"graceful".to_owned()), "{ran:?}");
}

/// A caller's blocked signals and limits are not the keeper's.
#[test]
fn what_the_caller_blocked_or_limited_holds_up_no_end() {
    let mut keeper = Command::new("env");
    keeper.arg("--block-signal=CHLD,TERM").arg(program());
    let command = "exec >/dev/null 2>&1; sleep 0.3; exit 3";
    let ran = keep_by(keeper, &json!(command), json!({})).end();
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let mut keeper = Command::new("sh");
    keeper
        .args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""])
        .arg(program());
    let ran = keep_by(keeper, &json!("seq 3000; exit 4"), json!({})).end();
    assert_eq!(ran.code, Some(4), "{ran:?}");
}

/// A command that has begun must not be begun again. So its start is on record first.
#[test]
fn a_command_does_not_begin_before_its_start_is_on_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = folder.path().join("ran");
    let kept = keep(
        &format!("touch {}", ran.display()),
        json!({"log": "/dev/full"}),
    );
    // It catches TERM, and sleeps: it waits for room.
    let status = format!("/proc/{}/status", kept.keeper.id());
    let begun = Instant::now();
    let waits =
        |text: &str| text.contains("State:\tS") && !text.contains("SigCgt:\t0000000000000000");
    while !waits(&fs::read_to_string(&status).expect("it is there")) {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert!(!ran.exists());
    kept.signal(Signal::KILL);
    kept.end();
}

#[test]
fn a_signal_for_the_group_does_not_reach_the_keeper() {
    let ran = run("trap 'echo caught; exit 4' TERM; kill 0; sleep 5; echo no");
    assert_eq!(
        (ran.code, &*ran.lines),
        (Some(4), &["caught".to_owned()][..]),
        "{ran:?}"
    );
}

#[test]
fn signals_are_passed_on_as_they_are() {
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
    ] {
        let all = "for s in TERM INT HUP QUIT; do trap \"echo got $s; exit 9\" $s; done; echo ready; \
                   while :; do sleep 0.05; done";
        let kept = keep(all, json!({}));
        kept.says("ready");
        kept.signal(signal);
        let ran = kept.end();
        assert!(ran.lines.contains(&format!("got {name}")), "{ran:?}");
        assert_eq!(
            (ran.code, ran.markers.get(1)),
            (Some(9), Some(&Marker::Exit(9)))
        );
    }
}

/// A caller may have ignored signals (`nohup`, or a shell in the background). The command has them
/// in their default form.
#[test]
fn signals_that_the_caller_ignored_are_not_ignored_by_the_command() {
    for signal in ["INT", "QUIT", "HUP", "TERM", "USR1", "PIPE"] {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", &format!("trap '' {signal}; exec \"$0\" \"$@\"")]);
        keeper.arg(program());
        let script = format!("kill -{signal} $$; echo ignored");
        let ran = keep_by(keeper, &json!(script), json!({})).end();
        assert_eq!(ran.lines, Vec::<String>::new(), "{signal}: {ran:?}");
    }
}

#[test]
fn a_command_that_ignores_term_is_killed_after_the_grace() {
    let further = json!({"timeout_seconds": 1, "grace_seconds": 1});
    let ran = keep(
        "trap '' TERM; echo begun; while :; do sleep 0.05; done",
        further,
    )
    .end();
    assert_eq!(ran.code, Some(124));
    assert_eq!(
        ran.markers,
        [Marker::Start, Marker::Timeout, Marker::Ended, Marker::Ended]
    );
}

#[test]
fn all_of_the_tree_has_the_grace_and_not_its_first_process_alone() {
    // The shell dies of TERM at once; what it started releases its lock.
    let command = "sh -c 'trap \"sleep 0.5; echo released; exit\" TERM; echo ready; while :; do sleep 0.05; done' & wait";
    let kept = keep(command, json!({}));
    kept.says("ready");
    kept.signal(Signal::TERM);
    let ran = kept.end();
    assert!(ran.lines.contains(&"released".to_owned()), "{ran:?}");
}

#[test]
fn output_comes_whole_and_in_order_however_it_is_written() {
    let command = "echo one; echo two >&2; echo three >/dev/stderr; : >/dev/stdout; printf four; exec >&- 2>&-; exit 6";
    let ran = run(command);
    assert_eq!(
        (ran.code, &*ran.lines),
        (
            Some(6),
            &["one", "two", "three", "four"].map(String::from)[..]
        )
    );
    // One that closes its output goes on.
    let ran = run("exec >&- 2>&-; sleep 0.3; exit 7");
    assert_eq!((ran.code, ran.lines.len()), (Some(7), 0));
    let ran = run("seq 100000; printf last");
    assert_eq!(
        (ran.lines.len(), ran.lines.last().map(String::as_str)),
        (100_001, Some("last"))
    );
}

#[test]
fn without_an_order_nothing_is_run() {
    for text in ["", "{", "{\"nonce\": \"x\"}"] {
        let mut keeper = Command::new(program())
            .args(["run", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        keeper
            .stdin
            .take()
            .expect("a pipe")
            .write_all(text.as_bytes())
            .expect("it reads");
        let output = keeper.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0));
    }
}

/// The command has the keeper's user. It reads nothing of the keeper all the same.
#[test]
fn a_keeper_is_closed_to_its_command() {
    assert!(rustix::process::geteuid().is_root(), "setpriv takes root");
    let folder = tempfile::tempdir().expect("a folder");
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder.path(), everyone).expect("set");
    let copy = folder.path().join("mycli-runner");
    fs::copy(program(), &copy).expect("copied");
    let mut keeper = Command::new("setpriv");
    keeper
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(copy);
    let command = "for f in environ mem maps fd auxv; do cat /proc/$PPID/$f >/dev/null 2>&1 && echo read $f; done; \
                   ls /proc/$PPID/fd >/dev/null 2>&1 && echo listed; tr '\\0' ' ' </proc/$PPID/cmdline; echo";
    let further = json!({"folder": folder.path(), "log": folder.path().join("log")});
    let mut kept = keep_by(keeper, &json!(command), further);
    kept.keeper.wait().expect("ours");
    let log = fs::read_to_string(folder.path().join("log")).expect("a log");
    assert!(!log.contains("read ") && !log.contains("listed"), "{log}");
    assert!(
        log.contains("mycli-runner run -") && !log.contains(NONCE),
        "{log}"
    );
}

#[test]
fn a_repository_is_fetched_first_and_its_commit_is_told() {
    let origin = Origin::new();
    let folder = tempfile::tempdir().expect("a folder");
    let order = |reference: &str| {
        json!({"source": {"fetch": {
            "repo": origin.path(),
            "reference": reference,
            "depth": 1,
            "into": folder.path().join(reference.replace('/', "-")),
        }}})
    };
    let ran = keep("cat f; echo $MYCLI_COMMIT", order("v1")).end();
    let commit = origin.commit("v1");
    assert_eq!(ran.lines, ["old".to_owned(), commit.clone()]);
    assert_eq!(
        ran.markers[..3],
        [Marker::SetUp, Marker::Commit(commit), Marker::Start]
    );
    let ran = keep("echo ran", order("nope")).end();
    let why = format!(
        "cannot clone {0}: no branch, tag or commit nope in {0}",
        origin.path().display()
    );
    assert_eq!(ran.code, Some(125));
    assert_eq!(ran.lines, [format!("mycli: {why}")]);
    assert_eq!(
        ran.markers,
        [
            Marker::SetUp,
            Marker::Fail(why),
            Marker::Ended,
            Marker::Ended
        ]
    );
    assert!(!folder.path().join("nope").exists());
}

#[test]
fn a_fetch_has_its_own_time_and_can_be_stopped() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let repo = format!("http://{}/x.git", silent.local_addr().expect("an address"));
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("clone");
    let fetch = json!({"repo": repo, "depth": 1, "into": into});
    let ran = keep(
        "echo ran",
        json!({"set_up_seconds": 1, "source": {"fetch": fetch}}),
    )
    .end();
    assert_eq!(
        ran.lines,
        [format!("mycli: cloning {repo} took longer than 1 s")]
    );
    let kept = keep("echo ran", json!({"source": {"fetch": fetch}}));
    let _first = silent.accept().expect("the first fetch");
    let _connection = silent.accept().expect("it fetches");
    kept.signal(Signal::TERM);
    let ran = kept.end();
    assert_eq!(ran.lines, [format!("mycli: stopped while cloning {repo}")]);
    assert_eq!(ran.code, Some(125));
    assert!(!into.exists());
}

/// A repository that another user has fetched is copied, since git refuses to work in one of
/// another user.
#[test]
fn a_repository_that_another_user_fetched_becomes_ones_own() {
    assert!(rustix::process::geteuid().is_root(), "setpriv takes root");
    let origin = Origin::new();
    let folder = tempfile::tempdir().expect("a folder");
    let workspace = folder.path().join("workspace");
    let handed_over = workspace.join(".mycli");
    let fetched = handed_over.join("fetched");
    fs::create_dir_all(&fetched).expect("made");
    let order = json!({"repo": origin.path(), "depth": 1, "into": fetched});
    let (outcome, _) = super::step(&mut Command::new(program()), "fetch", &order);
    let told = json!({"outcome": outcome, "notes": ["mycli: a note of the fetch"]});
    fs::write(handed_over.join("outcome.json"), told.to_string()).expect("written");
    for (path, mode) in [(folder.path(), 0o755), (&workspace, 0o1777)] {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, permissions).expect("set");
    }
    let copy = folder.path().join("mycli-runner");
    fs::copy(program(), &copy).expect("copied");
    let log = workspace.join("log");
    let mut keeper = Command::new("setpriv");
    keeper
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(copy);
    let further = json!({"source": {"handed_over": handed_over}, "log": log});
    let command = json!("id -u; git status --short; cat f; pwd");
    let mut kept = keep_by(keeper, &command, further);
    kept.keeper.wait().expect("ours");
    let text = fs::read_to_string(&log).expect("a log");
    let clone = workspace.join("repo").display().to_string();
    for line in ["mycli: a note of the fetch", "65534", "main", &clone] {
        assert!(
            text.lines()
                .any(|said| said.ends_with(&format!(" F {line}"))),
            "{line}: {text}"
        );
    }
    assert!(!text.contains("dubious"), "{text}");
}

/// An API that takes calls and never answers, and the way to it.
fn silent_api() -> (TcpListener, Value) {
    let api = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = api.local_addr().expect("an address");
    let access = json!({"api": format!("http://{address}"), "attempt": "exec_1-1", "token": "t"});
    (api, access)
}

#[test]
fn asking_for_the_request_can_be_stopped() {
    let (api, access) = silent_api();
    let kept = keep("true", json!({"request": access}));
    let _call = api.accept().expect("it calls");
    kept.signal(Signal::TERM);
    let ran = kept.end();
    assert_eq!(ran.code, Some(125));
    assert_eq!(ran.lines, ["mycli: stopped while asking for the request"]);
}

#[test]
fn asking_for_the_request_is_part_of_the_set_up_and_its_time() {
    let (_api, access) = silent_api();
    let ran = keep("true", json!({"request": access, "set_up_seconds": 1})).end();
    assert_eq!(
        ran.lines,
        ["mycli: the request cannot be asked for: there was no answer within 1 s"]
    );
}

/// An answer that is larger than a pipe does not stand still in it.
#[test]
fn a_request_larger_than_a_pipe_is_asked_for() {
    let (api, access) = silent_api();
    let command = format!("echo whole # {}", "x".repeat(100_000));
    let environment = json!([{"name": "MYCLI_COMMAND", "value": command}]);
    let body = json!({"environment": environment}).to_string();
    let answering = thread::spawn(move || {
        let (mut call, _) = api.accept().expect("it calls");
        let mut head = [0; 4096];
        assert!(call.read(&mut head).expect("a request") > 0);
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        call.write_all(answer.as_bytes()).expect("it reads");
    });
    let ran = keep("false", json!({"request": access})).end();
    answering.join().expect("it was asked");
    assert_eq!(ran.code, Some(0));
    assert!(ran.lines.iter().any(|line| line == "whole"), "{ran:?}");
}
