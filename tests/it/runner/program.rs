//! The file itself: static, small, and at home in an empty image.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    process::{Command, Stdio},
};

use runner::order::{FetchFaultKind, FetchOutcome};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{fetch, order, program};
use crate::script::server::{Habits, HttpServer};

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
    let order = json!({"repo": server.url(), "depth": 1, "into": "/clone"}).to_string();
    let mut child = Command::new("unshare")
        .args(["--mount", "--fork", "sh", "-c"])
        .arg("mount -t proc proc \"$0/proc\" && exec chroot \"$0\" /mycli-runner fetch")
        .arg(root.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(order.as_bytes())
        .expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let outcome: FetchOutcome =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(matches!(outcome, FetchOutcome::Done(_)), "{outcome:?}");
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
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let folder = tempfile::tempdir().expect("a folder");
    let order = order(folder.path(), &format!("http://{address}/x.git"), json!({}));
    let mut parent = Command::new(program())
        .arg("fetch")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut stdin = parent.stdin.take().expect("a pipe");
    stdin
        .write_all(order.to_string().as_bytes())
        .expect("it reads");
    drop(stdin);
    let _connection = silent.accept().expect("the child connects");
    let children = format!("/proc/{0}/task/{0}/children", parent.id());
    let child = fs::read_to_string(children).expect("read");
    let child = Pid::from_raw(child.trim().parse().expect("one child")).expect("a pid");
    kill_process(child, Signal::KILL).expect("killed");
    let output = parent.wait_with_output().expect("it ends");
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
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let folder = tempfile::tempdir().expect("a folder");
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder.path(), everyone).expect("set");
    let copy = folder.path().join("mycli-runner");
    fs::copy(program(), &copy).expect("copied");
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let order = order(folder.path(), &format!("http://{address}/x.git"), json!({}));
    let mut parent = Command::new("setpriv")
        .args(nobody)
        .arg(copy)
        .arg("fetch")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut stdin = parent.stdin.take().expect("a pipe");
    stdin
        .write_all(order.to_string().as_bytes())
        .expect("it reads");
    drop(stdin);
    let _connection = silent.accept().expect("the child connects");
    let children = format!("/proc/{0}/task/{0}/children", parent.id());
    let child = fs::read_to_string(children)
        .expect("read")
        .trim()
        .to_owned();
    for pid in [parent.id().to_string(), child] {
        let read = Command::new("setpriv")
            .args(nobody)
            .args(["cat", &format!("/proc/{pid}/environ")])
            .stderr(Stdio::null())
            .status();
        assert!(!read.expect("it runs").success(), "{pid}");
    }
    parent.kill().expect("killed");
    parent.wait().expect("ours");
}

/// A child whose parent is killed ends by itself.
#[test]
fn a_child_does_not_outlive_its_parent() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let folder = tempfile::tempdir().expect("a folder");
    let order = order(folder.path(), &format!("http://{address}/x.git"), json!({}));
    let mut parent = Command::new(program())
        .arg("fetch")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut stdin = parent.stdin.take().expect("a pipe");
    stdin
        .write_all(order.to_string().as_bytes())
        .expect("it reads");
    drop(stdin);
    let (mut connection, _) = silent.accept().expect("the child connects");
    parent.kill().expect("killed");
    parent.wait().expect("ours");
    // The connection ends with the child.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut connection, &mut rest).expect("it ends");
}
