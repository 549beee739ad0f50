//! Records that cannot be read, as the user meets them: shown, passed over, removed.

use serde_json::{Value, json};
use tests::sandbox::{Sandbox, eventually};

fn statuses(sandbox: &Sandbox) -> Vec<(String, String)> {
    let page = sandbox.local(&["history", "-o", "json"]).exits(0).json();
    let text = |run: &Value, key: &str| run[key].as_str().unwrap().to_owned();
    let runs = page["executions"].as_array().unwrap().iter();
    runs.map(|run| (text(run, "execution_id"), text(run, "status")))
        .collect()
}

#[test]
fn an_unreadable_record_is_shown_and_forgotten_and_the_others_stay() {
    let sandbox = Sandbox::new();
    let run = |command: &str| {
        sandbox.exec(&[command]).1["execution_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (spoilt, other) = (run("true"), run("true"));
    sandbox
        .local(&["forget", &spoilt, "--yes"])
        .exits(1)
        .says("can be read");
    sandbox.spoil(&spoilt);
    let shown = sandbox
        .local(&["history"])
        .exits(0)
        .says(&format!("mycli forget {spoilt}"));
    assert!(
        shown.out.contains("UNREADABLE") && shown.out.contains(&other),
        "{shown:#?}"
    );
    let part = &spoilt[spoilt.len() - 8..];
    sandbox.local(&["forget", part]).exits(2).says("--yes");
    let told = sandbox
        .local(&["forget", part, "--yes", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        told,
        json!({"forgotten": spoilt, "released": [], "untold": [], "task_arn": null})
    );
    assert_eq!(statuses(&sandbox), [(other, "SUCCEEDED".to_owned())]);
    sandbox
        .local(&["forget", &spoilt, "--yes"])
        .exits(1)
        .says(&format!("there is no execution '{spoilt}'"));
    sandbox
        .local(&["status", &spoilt])
        .exits(1)
        .says(&format!("there is no execution '{spoilt}'"));
    sandbox
        .local(&["forget", "", "--yes"])
        .exits(2)
        .says("is not an id");
}

/// The command's process belongs to a supervisor, which must receive the stop.
#[test]
fn the_lock_of_a_run_that_is_forgotten_is_free_and_its_command_is_stopped() {
    let sandbox = Sandbox::new();
    let id = sandbox.detach(&["--lock", "deploy", "echo begun; sleep 3600"]);
    sandbox.until_status(&id, "RUNNING");
    let behind = sandbox.detach(&["--lock", "deploy", "true"]);
    sandbox.until_status(&behind, "WAITING");
    sandbox.spoil(&id);
    let told = sandbox.local(&["forget", &id, "--yes"]).exits(0);
    let told = told
        .says(&format!("removed the record of {id}"))
        .says("lock:deploy")
        .says("its task was stopped: arn:");
    drop(told);
    assert!(
        !sandbox
            .processes()
            .into_iter()
            .any(|process| process.mentions("sleep 3600")),
        "it ended before the lock was free"
    );
    sandbox.until_status(&behind, "SUCCEEDED");
    let (ran, _) = sandbox.exec(&["--lock", "deploy", "echo mine"]);
    drop(ran.exits(0));
    eventually("its command has gone", || {
        sandbox.processes().is_empty().then_some(())
    });
}

#[test]
fn a_stack_s_record_is_the_account_s_business() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["--endpoint", "http://127.0.0.1:1", "forget", "x"])
        .exits(2)
        .says("--stack");
}
