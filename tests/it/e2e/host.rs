//! A run on the host and what is around it: the home's path, the caller's descriptors, folders that it leaves, another server.

use tests::sandbox::Sandbox;

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
