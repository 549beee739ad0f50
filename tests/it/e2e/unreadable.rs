//! A record in this machine's store that cannot be read. Everything else goes on, and the messages
//! name the record.

use serde_json::json;
use tests::sandbox::{Sandbox, eventually};

#[test]
fn history_shows_it_by_its_id_and_all_others_as_ever() {
    let sandbox = Sandbox::new();
    let run = |command: &str| {
        sandbox.exec(&[command]).1["execution_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let all = [run("true"), run("exit 3"), run("true")];
    sandbox.spoil(&all[1]);
    let page = sandbox.local(&["history", "-o", "json"]).exits(0).json();
    let seen: Vec<_> = page["executions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["status"].clone())
        .collect();
    assert_eq!(
        seen,
        [json!("SUCCEEDED"), json!("UNREADABLE"), json!("SUCCEEDED")]
    );
    let unreadable = &page["executions"][1];
    assert_eq!(unreadable["execution_id"], all[1]);
    assert!(
        unreadable["reason"]
            .as_str()
            .unwrap()
            .contains("`request.arch`"),
        "{unreadable}"
    );
    assert!(
        !page.to_string().contains("riscv"),
        "the value itself may be anything"
    );

    let table = sandbox
        .local(&["history"])
        .exits(0)
        .says("UNREADABLE")
        .says(&format!("mycli forget {}", all[1]));
    assert!(
        table.out.contains(&all[1]) && table.out.lines().count() == 4,
        "{table:?}"
    );
    sandbox
        .local(&["status", &all[1]])
        .exits(1)
        .says("cannot be read")
        .says(&format!("mycli forget {}", all[1]));
    sandbox
        .local(&["logs", &all[1]])
        .exits(1)
        .says("cannot be read");
    sandbox.local(&["status", &all[2]]).exits(0);
    assert_eq!(
        run("true").len(),
        all[0].len(),
        "new runs are accepted and run"
    );
}

#[test]
fn at_the_head_of_a_backlog_it_holds_up_nobody() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "0.25"]);
    let submit = |command: &str| {
        let accepted = serve
            .run(&sandbox, &["exec", "--no-repo", "--detach", command])
            .exits(0);
        accepted.out.trim().to_owned()
    };
    let go = sandbox.path("go");
    let holder = submit(&format!(
        "until [ -e '{}' ]; do sleep 0.05; done",
        go.display()
    ));
    let bad = submit("true");
    let good = submit("exit 4");
    sandbox.spoil(&bad);
    std::fs::write(go, "").unwrap();
    serve.run(&sandbox, &["wait", &holder]).exits(0);
    serve.run(&sandbox, &["wait", &good]).exits(4);
    serve
        .run(&sandbox, &["wait", &bad])
        .exits(125)
        .says("cannot be read");
    serve.stop().exits(0);
    eventually("nobody stays for what cannot be finished", || {
        sandbox.processes().is_empty().then_some(())
    });
    sandbox.local(&["history"]).exits(0).says("UNREADABLE");
    eventually("nor does anybody begin again", || {
        sandbox.processes().is_empty().then_some(())
    });
}

#[test]
fn the_others_of_its_group_are_cancelled_and_run_again() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "0.25"]);
    let submit = |command: &str| {
        let detached = [
            "exec",
            "--no-repo",
            "--group",
            "nightly",
            "--detach",
            command,
        ];
        serve
            .run(&sandbox, &detached)
            .exits(0)
            .out
            .trim()
            .to_owned()
    };
    let failed = [submit("exit 3"), submit("exit 4")];
    for (id, code) in failed.iter().zip([3, 4]) {
        serve.run(&sandbox, &["wait", id]).exits(code);
    }
    sandbox.spoil(&failed[0]);
    let again = [
        "rerun", "--failed", "--group", "nightly", "--into", "again", "--wait", "-o", "json",
    ];
    let again = serve.run(&sandbox, &again).exits(1);
    let report = again.json();
    assert_eq!(
        (&report["counts"], &report["failed"][0]["rerun_of"]),
        (&json!({"FAILED": 1}), &json!(failed[1]))
    );
    drop(again.says("not run again of nightly: 1, because the record cannot be read"));

    let holder = submit("sleep 3600");
    let waiting = [submit("true"), submit("true"), submit("true")];
    sandbox.spoil(&waiting[1]);
    // The run that failed first is counted too: its record cannot be read, so nobody knows that it
    // is over.
    serve
        .run(&sandbox, &["cancel", "--group", "nightly", "--wait"])
        .exits(1)
        .says("not cancelled in nightly: 2,")
        .prints("cancelled  3\nstopping   0\nover       0\n");
    for id in [&holder, &waiting[0], &waiting[2]] {
        serve.run(&sandbox, &["wait", id]).exits(130);
    }
    serve.stop().exits(0);
}
