//! Failures of the machine around a program: a full disk, a read-only store, a clock set back, a
//! container engine and a region that hang. Nothing is lost or doubled, and the messages are plain.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tests::{
    engine::{BUSYBOX, Engine, Service},
    sandbox::{Sandbox, eventually},
    world::World,
};

/// A separate file system, as small as a nearly full disk: the store, and the program for tasks,
/// which has 10 MB. Needs root, as the containers do.
struct Disk(PathBuf);

impl Disk {
    fn at(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        mount(&[
            "-t",
            "tmpfs",
            "-o",
            "size=24m,mode=0700",
            "mycli-test",
            path.to_str().unwrap(),
        ]);
        Self(path.to_owned())
    }

    /// Fills the disk to the last byte.
    fn fill(&self) {
        let full = fs::write(self.0.join("ballast"), vec![0; 32 << 20]);
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }

    fn set(&self, mode: &str) {
        mount(&["-o", &format!("remount,{mode}"), self.0.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The unmount is lazy: a process left by a failed test may still use the file system.
        let _gone = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str]) {
    let output = Command::new("mount").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "this test needs root: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The status of each run, by its command.
fn history(sandbox: &Sandbox) -> Vec<(String, String)> {
    let shown = sandbox
        .local(&["history", "--limit", "100", "-o", "json"])
        .exits(0)
        .json();
    let text = |run: &Value, name: &str| run[name].as_str().unwrap().to_owned();
    let runs = shown["executions"].as_array().unwrap().iter();
    let mut runs: Vec<_> = runs
        .map(|run| (text(run, "command"), text(run, "status")))
        .collect();
    runs.sort();
    runs
}

fn has_ended(command: &str, status: &str) -> (String, String) {
    (command.to_owned(), status.to_owned())
}

/// A run that begins, waits for the file `go`, and exits with 4. It is started in the background.
fn waiting(sandbox: &Sandbox) -> (PathBuf, PathBuf, String) {
    let (begun, go) = (sandbox.path("begun"), sandbox.path("go"));
    let command = format!(
        "touch {}; until [ -e {} ]; do sleep 0.05; done; exit 4",
        begun.display(),
        go.display()
    );
    (begun, go, command)
}

#[test]
fn what_runs_on_a_full_disk_is_not_lost_and_what_is_submitted_is_refused() {
    let sandbox = Sandbox::new();
    let disk = Disk::at(&sandbox.home().join(".mycli"));
    let serve = sandbox.serve(&[]);
    let (begun, go, command) = waiting(&sandbox);
    let id = serve
        .run(&sandbox, &["exec", "--no-repo", "--detach", &command])
        .exits(0)
        .out
        .trim()
        .to_owned();
    eventually("it runs", || begun.exists().then_some(()));
    disk.fill();
    fs::write(&go, "").unwrap();
    eventually("its command is over", || {
        (!sandbox
            .processes()
            .iter()
            .any(|process| process.mentions("until [ -e")))
        .then_some(())
    });
    serve
        .run(&sandbox, &["exec", "--no-repo", "true"])
        .exits(125)
        .says("the store did not answer");
    sandbox
        .local(&["exec", "--no-repo", "true"])
        .exits(125)
        .says("the disk is full");
    disk.make_room();
    eventually("its end is on record", || {
        let record = serve.run(&sandbox, &["status", &id, "-o", "json"]).json();
        (record["status"] == "FAILED" && record["exit_code"] == 4).then_some(())
    });
    serve
        .run(&sandbox, &["exec", "--no-repo", "echo after"])
        .exits(0)
        .prints("after\n");
    assert_eq!(
        history(&sandbox),
        [
            has_ended("echo after", "SUCCEEDED"),
            has_ended(&command, "FAILED")
        ]
    );
    // The server hides its internals from clients, but its operator sees the cause.
    let _told = serve.stop().says("the disk is full");
}

#[test]
fn files_that_a_full_disk_has_no_room_for_are_told() {
    let sandbox = Sandbox::new();
    let _disk = Disk::at(&sandbox.home().join(".mycli"));
    sandbox.local(&["exec", "--no-repo", "true"]).exits(0);
    // The file itself has room, and its copy has not.
    let command = "echo x > small; avail=$(df -k . | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4); \
                   dd if=/dev/zero of=large bs=1k count=$((avail * 2 / 3)) 2>/dev/null";
    let flags = ["--no-repo", "--artifact", "small", "--artifact", "large"];
    let ran = sandbox.local(&[&["exec"], &flags[..], &[command]].concat());
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let record = sandbox.local(&["status", "-o", "json"]).json();
    let artifacts = &record["artifacts"];
    assert_eq!(
        (&artifacts["files"], &artifacts["complete"]),
        (&json!(1), &json!(false)),
        "{record:#}"
    );
    let reason = artifacts["reason"].as_str().unwrap();
    assert!(
        reason.contains("large") && reason.contains("No space left"),
        "{reason}"
    );
    let list = sandbox.local(&["artifacts", "list"]).exits(0);
    assert_eq!(list.out, "2  small\n");
}

#[test]
fn a_store_that_became_read_only_is_named_and_nothing_is_done() {
    let sandbox = Sandbox::new();
    let disk = Disk::at(&sandbox.home().join(".mycli"));
    sandbox
        .local(&["exec", "--no-repo", "echo before"])
        .exits(0);
    disk.set("ro");
    let canary = sandbox.path("canary");
    let command = format!("touch {}", canary.display());
    sandbox
        .local(&["exec", "--no-repo", &command])
        .exits(125)
        .says("store.sqlite")
        .says("Read-only file system");
    sandbox
        .local(&["history"])
        .exits(1)
        .says("Read-only file system");
    disk.set("rw");
    assert!(!canary.exists());
    assert_eq!(history(&sandbox), [has_ended("echo before", "SUCCEEDED")]);
}

/// Debian's libfaketime, in this machine's architecture directory.
fn fake_clock() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").unwrap().flatten();
    let found = libraries
        .map(|entry| entry.path().join("faketime/libfaketime.so.1"))
        .find(|path| path.exists());
    found.expect("libfaketime is missing: run tests/setup.sh")
}

#[test]
fn a_clock_that_is_set_back_by_an_hour_holds_nothing_up() {
    let offset = tempfile::NamedTempFile::new().unwrap();
    fs::write(&offset, "+0").unwrap();
    let sandbox = Sandbox::new()
        .with("LD_PRELOAD", fake_clock())
        .with("FAKETIME_TIMESTAMP_FILE", offset.path())
        .with("FAKETIME_NO_CACHE", "1")
        .with("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let serve = sandbox.serve(&[]);
    let (begun, go, command) = waiting(&sandbox);
    let id = serve
        .run(&sandbox, &["exec", "--no-repo", "--detach", &command])
        .exits(0)
        .out
        .trim()
        .to_owned();
    let waits = ["exec", "--no-repo", "--detach", "--lock", "l"];
    let holder = serve
        .run(&sandbox, &[&waits[..], &[&command]].concat())
        .exits(0)
        .out
        .trim()
        .to_owned();
    let waiter = serve
        .run(&sandbox, &[&waits[..], &["echo waited"]].concat())
        .exits(0)
        .out
        .trim()
        .to_owned();
    eventually("it runs", || begun.exists().then_some(()));
    fs::write(&offset, "-1h").unwrap();
    let before = serve.run(&sandbox, &["status", &id, "-o", "json"]).json();
    serve
        .run(&sandbox, &["exec", "--no-repo", "echo now"])
        .exits(0)
        .prints("now\n");
    let shown = serve
        .run(&sandbox, &["history", "-o", "json"])
        .exits(0)
        .json();
    let now = shown["executions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|run| run["command"] == "echo now")
        .unwrap()
        .clone();
    assert!(
        now["submitted_at"].as_str() < before["submitted_at"].as_str(),
        "the clock was set back: {now:#}"
    );
    fs::write(&go, "").unwrap();
    for (id, code) in [(&id, 4), (&holder, 4), (&waiter, 0)] {
        serve.run(&sandbox, &["wait", id]).exits(code);
    }
    sandbox
        .local(&["exec", "--no-repo", "echo local"])
        .exits(0)
        .prints("local\n");
    assert_eq!(history(&sandbox).len(), 5);
}

#[test]
fn a_container_outlives_its_engine_s_service_and_its_end_is_told() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path("s");
    let service = Service::start(&socket);
    let sandbox = sandbox.with("DOCKER_HOST", format!("unix://{}", socket.display()));
    let command = "echo begun; sleep 3; echo done; exit 3";
    let running = sandbox.start(&["--local", "exec", "--no-repo", "--image", BUSYBOX, command]);
    assert_eq!(running.line(), "begun");
    let record = sandbox.local(&["status", "-o", "json"]).exits(0).json();
    let arn = record["attempts"][0]["task_arn"]
        .as_str()
        .unwrap()
        .to_owned();
    let label = format!("{}={arn}", local::container::TASK_LABEL);
    let container = Engine::shared().containers(&label).remove(0);
    service.kill();
    let _code = Engine::shared().podman(&["wait", &container]);
    let _again = Service::start(&socket);
    running.end().exits(3).prints("done\n");
    assert_eq!(Engine::shared().containers(&label), [""; 0]);
}

#[test]
fn a_submission_outlives_twenty_seconds_in_which_a_stack_of_containers_stands_still() {
    const LINES: usize = 300;
    let world = World::new();
    // With the lock held, at most one of the runs has a container at a time.
    let _holder = world.detach(&["--lock", "held", "sleep 300"]);
    let lines: String = (0..LINES)
        .map(|number| format!("{}\n", json!({"command": format!("echo {number}")})))
        .collect();
    fs::write(world.user.path("jobs.jsonl"), lines).unwrap();
    let bulk = world.user.start(&[
        "bulk",
        "jobs.jsonl",
        "--no-repo",
        "--lock",
        "held",
        "--group",
        "g",
        "-o",
        "json",
    ]);
    eventually("the submission is under way", || {
        let log = fs::read_to_string(world.emulator.calls_log()).unwrap_or_default();
        log.contains("echo 0").then_some(())
    });
    let frozen = world.emulator.freeze();
    thread::sleep(Duration::from_secs(20));
    drop(frozen);
    let report = bulk.end().exits(0).json();
    // Runs whose answer came too late existed already when they were sent again.
    let taken = ["accepted", "existing"].map(|list| report[list].as_array().map_or(0, Vec::len));
    assert_eq!(taken.iter().sum::<usize>(), LINES, "{report:#}");
    let status = world
        .run(&["status", "--group", "g", "-o", "json"])
        .exits(0)
        .json();
    let counted: u64 = status["counts"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(counted, LINES as u64, "{status:#}");
}
