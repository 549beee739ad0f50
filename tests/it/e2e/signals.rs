//! Signals to `mycli`: whoever leaves does not take the run along.

use rustix::process::Signal;
use tests::sandbox::{Running, Sandbox, eventually};

/// An `exec` that has printed `begun`, and ends with 5 once the file `go` is there.
fn begun(sandbox: &Sandbox) -> (Running, String) {
    let go = sandbox.path("go");
    let command = format!("echo begun; until [ -e '{}' ]; do sleep 0.05; done; echo ended; exit 5", go.display());
    let running = sandbox.start(&["--local", "exec", "--no-repo", &command]);
    assert_eq!(running.line(), "begun");
    let record = sandbox.local(&["status", "-o", "json"]).json();
    (running, record["execution_id"].as_str().unwrap().to_owned())
}

#[track_caller]
fn check_left(signal: Signal) {
    let sandbox = Sandbox::new();
    let (running, id) = begun(&sandbox);
    running.signal(signal);
    let ran = running
        .end()
        .exits(125)
        .prints("")
        .says(&format!("mycli --local logs -f {id}"))
        .says(&format!("mycli --local cancel {id}"));
    assert!(!ran.err.contains("Broken"), "{ran:#?}");
    assert_eq!(sandbox.record(&id)["status"], "RUNNING");
    std::fs::write(sandbox.path("go"), "").unwrap();
    sandbox.local(&["logs", "-f", &id]).exits(5).prints("begun\nended\n");
    assert_eq!(sandbox.record(&id)["attempts"].as_array().unwrap().len(), 1);
    eventually("all processes have gone", || sandbox.processes().is_empty().then_some(()));
}

#[test]
fn ctrl_c_without_a_terminal_leaves_the_run_running() {
    check_left(Signal::INT);
}

#[test]
fn sigterm_leaves_the_run_running() {
    check_left(Signal::TERM);
}

#[test]
fn a_killed_mycli_loses_neither_the_run_nor_its_end() {
    let sandbox = Sandbox::new();
    let (running, id) = begun(&sandbox);
    running.signal(Signal::KILL);
    drop(running);
    std::fs::write(sandbox.path("go"), "").unwrap();
    sandbox.local(&["logs", "-f", &id]).exits(5).prints("begun\nended\n");
    let record = sandbox.record(&id);
    assert_eq!((record["status"].as_str(), record["exit_code"].as_i64()), (Some("FAILED"), Some(5)), "{record:#}");
    eventually("all processes have gone", || sandbox.processes().is_empty().then_some(()));
}

#[test]
fn a_server_that_is_stopped_leaves_its_runs_running() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let go = sandbox.path("go");
    let command = format!("until [ -e '{}' ]; do sleep 0.05; done; exit 5", go.display());
    let id = serve.run(&sandbox, &["exec", "--no-repo", "--detach", &command]).exits(0).out.trim_end().to_owned();
    sandbox.until_status(&id, "RUNNING");
    serve.stop().exits(0);
    assert_eq!(sandbox.record(&id)["status"], "RUNNING");
    std::fs::write(go, "").unwrap();
    sandbox.local(&["wait", &id]).exits(5);
    // And another server knows it.
    let serve = sandbox.serve(&[]);
    serve.run(&sandbox, &["wait", &id]).exits(5);
}
