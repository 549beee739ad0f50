//! The file itself: static, small, and at home in an empty image.

use std::{
    fs,
    process::{Command, Stdio},
};

use runner::order::{FetchFaultKind, FetchOutcome};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tests::sandbox::eventually;

use super::{Waiting, fetch, program, step};
use crate::git_server::{Habits, HttpServer};

/// The most that the program may have, in bytes.
const SIZE_MAX: usize = 15_000_000;

#[test]
fn it_is_small_and_needs_no_loader() {
    let file = fs::read(program()).expect("read");
    assert!(file.len() <= SIZE_MAX, "{} bytes", file.len());
    let loader = Command::new("readelf")
        .args(["--program-headers", "--wide"])
        .arg(program())
        .output()
        .expect("readelf");
    let headers = String::from_utf8_lossy(&loader.stdout);
    assert!(
        headers.contains("LOAD") && !headers.contains("INTERP"),
        "{headers}"
    );
}

/// In a root folder with nothing but the program: no shell, no git, no certificates, no `hosts`.
#[test]
fn it_fetches_in_an_empty_root() {
    assert!(rustix::process::geteuid().is_root(), "chroot takes root");
    let server = HttpServer::new(Habits::default());
    let root = tempfile::tempdir().expect("a folder");
    fs::copy(program(), root.path().join("mycli-runner")).expect("copied");
    // `current_exe` reads it.
    fs::create_dir(root.path().join("proc")).expect("made");
    let mount = "mount -t proc proc \"$0/proc\" && exec chroot \"$0\" /mycli-runner \"$1\"";
    let fetch = json!({"repo": server.url(), "depth": 1, "into": "/clone"});
    let check_out = json!({"into": "/clone"});
    for (subcommand, order) in [("fetch", fetch), ("check-out", check_out)] {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--mount", "--fork", "sh", "-c", mount])
            .arg(root.path());
        let (outcome, notes) = step(&mut unshare, subcommand, &order);
        assert!(
            matches!(outcome, FetchOutcome::Done(_)),
            "{outcome:?} {notes}"
        );
    }
    let file = fs::read_to_string(root.path().join("clone/f"));
    assert_eq!(file.expect("cloned"), "main\n");
}

#[test]
fn a_name_that_does_not_resolve_is_said() {
    let got = fetch("https://no-such-host.invalid/x.git", json!({}));
    assert!(
        got.reason().contains("no-such-host.invalid"),
        "{}",
        got.reason()
    );
    assert_eq!(got.kind(), FetchFaultKind::Passing);
}

/// The kernel ends the process that takes the most memory. That is the child.
#[test]
fn a_child_that_is_killed_is_told_of_in_words() {
    let waiting = Waiting::by(&mut Command::new(program()));
    let child = Pid::from_raw(waiting.child()).expect("a pid");
    kill_process(child, Signal::KILL).expect("killed");
    let output = waiting.fetch.wait_with_output().expect("it ends");
    let outcome: FetchOutcome = serde_json::from_slice(&output.stdout).expect("an outcome");
    let FetchOutcome::Failed(fault) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(fault.reason.contains("ran out of memory"), "{fault:?}");
    assert_eq!(fault.kind, FetchFaultKind::Final);
}

/// Another process of the same user reads nothing of a fetch, which has credentials in its memory.
#[test]
fn a_fetch_is_closed_to_other_processes_of_its_user() {
    assert!(rustix::process::geteuid().is_root(), "setpriv takes root");
    let folder = tempfile::tempdir().expect("a folder");
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), everyone).expect("set");
    let copy = folder.path().join("mycli-runner");
    fs::copy(program(), &copy).expect("copied");
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let waiting = Waiting::by(Command::new("setpriv").args(nobody).arg(copy));
    for pid in [waiting.fetch.id().cast_signed(), waiting.child()] {
        let read = Command::new("setpriv")
            .args(nobody)
            .args(["cat", &format!("/proc/{pid}/environ")])
            .stderr(Stdio::null())
            .status();
        assert!(!read.expect("it runs").success(), "{pid}");
    }
    waiting.end();
}

/// A child whose parent is killed ends by itself.
#[test]
fn a_child_does_not_outlive_its_parent() {
    let waiting = Waiting::by(&mut Command::new(program()));
    let mut connection = waiting.connection.try_clone().expect("a copy");
    waiting.end();
    // The connection ends with the child.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut connection, &mut rest).expect("it ends");
}

/// Where mycli is killed, nothing of a fetch goes on: not git either, which waits for its server.
#[test]
fn a_fetch_ends_with_the_one_who_asked_for_it() {
    use std::os::unix::process::CommandExt as _;
    for git in ["library", "system"] {
        let mut command = Command::new(program());
        let mut waiting = Waiting::with(command.process_group(0), json!({"git": git}));
        let group = Pid::from_child(&waiting.fetch);
        drop(waiting.fetch.stdout.take());
        waiting.fetch.wait().expect("ours");
        eventually("the end of all of it", || {
            rustix::process::test_kill_process_group(group).err()
        });
    }
}

/// The first container of a task puts the program where the others find it.
#[test]
fn it_installs_itself_and_makes_room_for_every_user() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let (programs, workspace) = (folder.path().join("mycli"), folder.path().join("workspace"));
    for _ in 0..2 {
        let status = Command::new(program())
            .arg("init")
            .args([&programs, &workspace])
            .status();
        assert!(status.expect("it runs").success());
    }
    let mode =
        |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(&workspace), 0o1777);
    let installed = programs.join("mycli-runner");
    assert_eq!(mode(&installed), 0o755);
    assert_eq!(
        fs::read(&installed).expect("read"),
        fs::read(program()).expect("read")
    );
    assert_eq!(fs::read_dir(&programs).expect("read").count(), 1);
    let refused = Command::new(program())
        .args(["init", "/proc/none"])
        .output()
        .expect("it runs");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("mycli: "));
}
