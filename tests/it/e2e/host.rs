//! Runs on the host, and their surroundings: the home's path, the caller's file descriptors,
//! folders left behind, and another server.

use std::{
    fs::{self, File},
    io::Read,
    process::{Command, Stdio},
};

use tests::{
    mycli,
    sandbox::{Sandbox, files},
};

/// A user with a home path of over 200 characters.
fn deep() -> Sandbox {
    let sandbox = Sandbox::new();
    let home = sandbox.home().join("d".repeat(200));
    sandbox.with("MYCLI_HOME", home)
}

/// codex#27765: a socket's path has at most 107 bytes.
#[test]
fn a_home_may_be_deep() {
    let sandbox = deep();
    sandbox
        .local(&["exec", "--no-repo", "echo hello"])
        .exits(0)
        .prints("hello\n");
    let id = sandbox.detach(&["sleep 600"]);
    sandbox.until_status(&id, "RUNNING");
    // The cancel must reach the process that executes the run.
    sandbox
        .local(&["cancel", &id, "--wait"])
        .exits(0)
        .says("CANCELLED");
    let serve = sandbox.serve(&[]);
    serve
        .run(&sandbox, &["exec", "--no-repo", "echo hello"])
        .exits(0)
        .prints("hello\n");
}

/// go#27161: a module cache is made read-only.
#[test]
fn folders_that_may_not_be_written_to_are_removed() {
    let sandbox = Sandbox::new();
    let kept = sandbox.path("kept");
    fs::write(&kept, "").unwrap();
    let command = format!(
        "mkdir -p go/m \"$TMPDIR/m\"; echo x >go/m/f; echo x >\"$TMPDIR/m/f\"; ln -s '{}' go/m/link; chmod -R a-w go \"$TMPDIR\" .",
        kept.display()
    );
    sandbox.local(&["exec", "--no-repo", &command]).exits(0);
    let id = sandbox.detach(&[&command]);
    sandbox.local(&["wait", &id]).exits(0);
    let serve = sandbox.serve(&[]);
    serve
        .run(&sandbox, &["exec", "--no-repo", &command])
        .exits(0);
    serve.stop().exits(0);
    tests::sandbox::eventually("the supervisor is gone", || {
        sandbox.processes().is_empty().then_some(())
    });
    assert_eq!(
        files(&sandbox.store().join("tasks")),
        Vec::<std::path::PathBuf>::new()
    );
    assert_eq!(
        fs::read_dir(sandbox.store().join("tasks")).unwrap().count(),
        0
    );
    assert!(kept.exists());
}

#[test]
fn what_cannot_be_removed_is_told_once() {
    let sandbox = Sandbox::new();
    sandbox.local(&["exec", "--no-repo", "true"]).exits(0);
    // A run's supervisor notes it like this, because it has nobody to tell.
    let remains = sandbox.store().join("remains");
    fs::create_dir(&remains).unwrap();
    fs::write(
        remains.join("0123"),
        "what a run left in /x cannot be removed: f: Operation not permitted",
    )
    .unwrap();
    let told =
        "left in /x cannot be removed: f: Operation not permitted; `mycli local prune` tries again";
    sandbox.local(&["history"]).exits(0).says(told);
    assert_eq!(sandbox.local(&["history"]).exits(0).err, "");
}

/// A user's shell script with `mycli` as `$0`, the environment of a user, and three files of its
/// own open.
fn script(sandbox: &Sandbox, text: &str) -> Command {
    let template = sandbox.command(&[]);
    let mut command = Command::new("bash");
    command
        .args(["-c", &format!("exec 7</etc/passwd 9>lock; flock 9; {text}")])
        .arg(mycli());
    command
        .env_clear()
        .current_dir(sandbox.path(""))
        .stdin(Stdio::null());
    command.envs(
        template
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command
}

/// The command's own three descriptors, and the folder that `ls` has open.
const OWN: &str = "0\n1\n2\n3\n";

/// bats#80: a run that outlives its caller must not keep the caller's files open.
#[test]
fn a_detached_run_holds_nothing_of_its_caller_s() {
    let sandbox = Sandbox::new();
    let detached = "\"$0\" --local exec --no-repo --detach 'ls /proc/self/fd; until [ -e \"$OLDPWD/go\" ]; do sleep 0.05; done'";
    let text = detached.replace("$OLDPWD", &sandbox.path("").display().to_string());
    let mut child = script(&sandbox, &format!("{text} 8>&1"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut id = String::new();
    // Reading ends only once no process has the pipe open.
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut id)
        .unwrap();
    assert!(child.wait().unwrap().success());
    let lock = File::open(sandbox.path("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .expect("nobody holds it");
    fs::write(sandbox.path("go"), "").unwrap();
    sandbox.local(&["wait", id.trim()]).exits(0);
    sandbox.local(&["logs", id.trim()]).exits(0).prints(OWN);
}

#[test]
fn a_command_sees_no_file_of_its_caller_s() {
    let sandbox = Sandbox::new();
    let output = script(&sandbox, "\"$0\" --local exec --no-repo 'ls /proc/self/fd'")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), OWN);
}

/// Two servers would each apply their own limits, and the second might replace the first one's key.
#[test]
fn a_folder_has_one_server() {
    let sandbox = Sandbox::new();
    let first = sandbox.serve(&[]);
    let second = ["local", "serve", "--listen", "127.0.0.1:0"];
    sandbox
        .run(&second)
        .exits(1)
        .says(&format!("a server on {} already serves", first.endpoint));
    first
        .run(&sandbox, &["exec", "--no-repo", "echo hello"])
        .exits(0)
        .prints("hello\n");
    // Once the first server has ended, even by a kill, another can start.
    first.end(rustix::process::Signal::KILL);
    let second = sandbox.serve(&[]);
    second
        .run(&sandbox, &["exec", "--no-repo", "echo hello"])
        .exits(0)
        .prints("hello\n");
}
