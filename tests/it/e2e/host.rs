//! A run on the host and what is around it: the home's path, the caller's descriptors, folders that it leaves, another server.

use std::fs;

use tests::sandbox::{Sandbox, files};

/// A user whose folder has a path of over 200 characters.
fn deep() -> Sandbox {
    let sandbox = Sandbox::new();
    let home = sandbox.home().join("d".repeat(200));
    sandbox.with("MYCLI_HOME", home)
}

/// codex#27765: the path of a socket has at most 107 bytes.
#[test]
fn a_home_may_be_deep() {
    let sandbox = deep();
    sandbox.local(&["exec", "--no-repo", "echo hello"]).exits(0).prints("hello\n");
    let id = sandbox.detach(&["sleep 600"]);
    sandbox.until_status(&id, "RUNNING");
    // The process that runs it must hear of that.
    sandbox.local(&["cancel", &id, "--wait"]).exits(0).says("CANCELLED");
    let serve = sandbox.serve(&[]);
    serve.run(&sandbox, &["exec", "--no-repo", "echo hello"]).exits(0).prints("hello\n");
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
    serve.run(&sandbox, &["exec", "--no-repo", &command]).exits(0);
    serve.stop().exits(0);
    tests::sandbox::eventually("the supervisor is gone", || sandbox.processes().is_empty().then_some(()));
    assert_eq!(files(&sandbox.store().join("tasks")), Vec::<std::path::PathBuf>::new());
    assert_eq!(fs::read_dir(sandbox.store().join("tasks")).unwrap().count(), 0);
    assert!(kept.exists());
}

#[test]
fn what_cannot_be_removed_is_told_once() {
    let sandbox = Sandbox::new();
    sandbox.local(&["exec", "--no-repo", "true"]).exits(0);
    // As the supervisor of a run notes it, which has nobody to tell.
    let remains = sandbox.store().join("remains");
    fs::create_dir(&remains).unwrap();
    fs::write(remains.join("0123"), "what a run left in /x cannot be removed: f: Operation not permitted").unwrap();
    let told = "left in /x cannot be removed: f: Operation not permitted; `mycli local prune` tries again";
    sandbox.local(&["history"]).exits(0).says(told);
    assert_eq!(sandbox.local(&["history"]).exits(0).err, "");
}
