//! Waiting: positions in a backlog, locks, fairness, and cancelling runs that wait.

use std::{fs, path::Path};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::sandbox::{Sandbox, Serve, eventually};

use super::api::Http;

/// A server with capacity for one run at a time. That run goes on until the file `go` exists.
fn blocked(sandbox: &Sandbox) -> (Serve, String) {
    let serve = sandbox.serve(&["--vcpus", "0.25"]);
    let http = Http::to(&serve);
    let id = http.submit(&json!({"command": until_go(sandbox)}));
    eventually("the first one runs", || {
        (http.record(&id)["status"] == "RUNNING").then_some(())
    });
    (serve, id)
}

fn until_go(sandbox: &Sandbox) -> String {
    format!(
        "until [ -e '{}' ]; do sleep 0.05; done",
        sandbox.path("go").display()
    )
}

fn let_go(sandbox: &Sandbox) {
    fs::write(sandbox.path("go"), "").unwrap();
}

fn noting(file: &Path, text: &str) -> Value {
    json!({"command": format!("echo {text} >>'{}'", file.display())})
}

fn until_places(http: &Http, ids: &[String], places: &[Value]) {
    eventually(&format!("the places are {places:?}"), || {
        let now: Vec<_> = ids
            .iter()
            .map(|id| http.record(id)["waiting"]["position"].clone())
            .collect();
        (now == places).then_some(())
    });
}

#[test]
fn positions_are_shown_and_move_up() {
    let sandbox = Sandbox::new();
    let (serve, _) = blocked(&sandbox);
    let http = Http::to(&serve);
    let file = sandbox.path("order");
    let ids: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| http.submit(&noting(&file, name)))
        .collect();
    until_places(&http, &ids, &[json!(1), json!(2), json!(3)]);
    eventually("the launcher has looked at the line", || {
        (http.record(&ids[0])["status"] == "WAITING").then_some(())
    });
    let waiting = http.record(&ids[0])["waiting"].clone();
    assert_eq!(
        (&waiting["used"], &waiting["max"]),
        (&json!(0.25), &json!(0.25)),
        "{waiting:#}"
    );
    assert!(
        waiting["reason"].as_str().unwrap().contains("0.25 of 0.25"),
        "{waiting:#}"
    );
    let page = serve.run(&sandbox, &["status", &ids[2]]).exits(0).out;
    assert!(page.contains("waiting    3rd in line: "), "{page}");
    // The first run leaves the backlog without ever starting, and the others move up.
    serve
        .run(&sandbox, &["cancel", &ids[0], "--wait"])
        .exits(0)
        .says("it will not start")
        .says("CANCELLED");
    serve.run(&sandbox, &["wait", &ids[0]]).exits(130);
    until_places(&http, &ids, &[Value::Null, json!(1), json!(2)]);
    assert_eq!(http.record(&ids[0])["attempts"], json!([]));
    let_go(&sandbox);
    http.until_quiet();
    assert_eq!(fs::read_to_string(file).unwrap(), "b\nc\n");
}

#[test]
fn an_exec_that_waits_can_be_cancelled_by_another() {
    let sandbox = Sandbox::new();
    let (serve, holder) = blocked(&sandbox);
    let http = Http::to(&serve);
    let waiting = tests::sandbox::Running::of(
        serve.command(&sandbox, &["exec", "--no-repo", "echo started"]),
    );
    let id = eventually("it is in line", || {
        let line = http.get("/executions?status=WAITING").body;
        Some(line["executions"][0]["execution_id"].as_str()?.to_owned())
    });
    serve
        .run(&sandbox, &["logs", &id])
        .exits(1)
        .prints("")
        .says("in line");
    serve.run(&sandbox, &["cancel", &id]).exits(0);
    waiting.end().exits(130).prints("").says("CANCELLED");
    serve
        .run(&sandbox, &["cancel", &holder, "--wait"])
        .exits(0)
        .says("CANCELLED");
    http.until_quiet();
}

#[test]
fn what_is_larger_than_the_machine_s_limit_is_refused_at_once() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "1"]);
    let ran = serve
        .run(&sandbox, &["exec", "--no-repo", "--cpu", "2048", "true"])
        .exits(2);
    assert!(ran.err.contains("\n  cpu: "), "{}", ran.err);
    serve.run(&sandbox, &["history"]).says("no runs");
}

#[test]
fn many_of_one_submitter_do_not_hold_up_another_s_one() {
    let sandbox = Sandbox::new();
    let (serve, _) = blocked(&sandbox);
    let admin = Http::to(&serve);
    let file = sandbox.path("order");
    let user = |name: &str| {
        let key = admin
            .post("/keys", &json!({"name": name, "role": "submit"}))
            .body["key"]
            .as_str()
            .unwrap()
            .to_owned();
        Http::to(&serve).with_key(&key)
    };
    let (ann, bob) = (user("ann"), user("bob"));
    for _ in 0..8 {
        ann.submit(&noting(&file, "ann"));
    }
    bob.submit(&noting(&file, "bob"));
    let_go(&sandbox);
    admin.until_quiet();
    let order = fs::read_to_string(file).unwrap();
    let place = order.lines().position(|name| name == "bob").unwrap();
    assert!(place <= 1 && order.lines().count() == 9, "{order}");
}

/// Runs that a server leaves are taken over: by its supervisor after an orderly end, and by the
/// next `mycli` after a kill.
#[test]
fn what_a_server_leaves_is_run_within_its_limits() {
    for signal in [Signal::TERM, Signal::KILL] {
        let sandbox = Sandbox::new();
        let (serve, _) = blocked(&sandbox);
        let http = Http::to(&serve);
        let busy = sandbox.path("busy");
        let alone = format!("mkdir '{0}' && sleep 0.3 && rmdir '{0}'", busy.display());
        for _ in 0..4 {
            http.submit(&json!({"command": alone}));
        }
        let ended = serve.end(signal);
        assert_eq!(
            ended.err.contains("a supervisor process goes on with them"),
            signal == Signal::TERM,
            "{ended:?}"
        );
        let_go(&sandbox);
        eventually("all are over", || {
            let history = sandbox.local(&["history", "-o", "json"]).exits(0).json();
            let runs = history["executions"].as_array().unwrap().clone();
            let over = runs
                .iter()
                .filter(|run| run["stopped_at"].is_string())
                .count();
            (over == 5).then(|| {
                runs.iter()
                    .for_each(|run| assert_eq!(run["status"], "SUCCEEDED", "{run:#}"));
            })
        });
    }
}

#[test]
fn a_higher_priority_goes_first() {
    let sandbox = Sandbox::new();
    let (serve, _) = blocked(&sandbox);
    let http = Http::to(&serve);
    let file = sandbox.path("order");
    for (name, priority) in [("usual", 0), ("low", -5), ("high", 5)] {
        let mut request = noting(&file, name);
        request["priority"] = json!(priority);
        http.submit(&request);
    }
    let_go(&sandbox);
    http.until_quiet();
    assert_eq!(fs::read_to_string(file).unwrap(), "high\nusual\nlow\n");
}

/// A command that records its start and its end. It sleeps in between, so that others could run.
fn marking(file: &Path) -> String {
    format!(
        "echo start >>'{0}'; for i in 1 2 3 4 5; do sleep 0.02; done; echo end >>'{0}'",
        file.display()
    )
}

#[test]
fn runs_with_one_lock_never_overlap_through_a_server() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "8"]);
    let http = Http::to(&serve);
    let file = sandbox.path("held");
    for _ in 0..6 {
        http.submit(&json!({"command": marking(&file), "lock": "deploy"}));
    }
    http.until_quiet();
    assert_eq!(fs::read_to_string(file).unwrap(), "start\nend\n".repeat(6));
}

#[test]
fn of_a_group_no_more_run_at_a_time_than_it_says() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "8"]);
    let http = Http::to(&serve);
    let file = sandbox.path("running");
    for _ in 0..7 {
        http.submit(&json!({"command": marking(&file), "group": "nightly", "max_parallel": 2}));
    }
    http.until_quiet();
    let (mut running, mut most) = (0_i32, 0);
    let text = fs::read_to_string(file).unwrap();
    for line in text.lines() {
        running += if line == "start" { 1 } else { -1 };
        most = most.max(running);
    }
    assert_eq!((text.lines().count(), running), (14, 0), "{text}");
    assert!(most <= 2, "{most} at a time: {text}");
}

#[test]
fn a_group_that_is_used_up_holds_up_nobody_else_and_says_so() {
    let sandbox = Sandbox::new();
    let grouped = |command: &str| -> Vec<String> {
        ["--group", "nightly", "--max-parallel", "1", command]
            .map(str::to_owned)
            .to_vec()
    };
    let start = |command: &str| {
        let words = grouped(command);
        sandbox.detach(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let holder = start(&until_go(&sandbox));
    sandbox.until_status(&holder, "RUNNING");
    let waiter = start("true");
    sandbox.until_status(&waiter, "WAITING");
    let waiting = sandbox.record(&waiter)["waiting"].clone();
    assert_eq!(
        (&waiting["limit"], &waiting["used"], &waiting["max"]),
        (&json!("group:nightly"), &json!(1.0), &json!(1.0))
    );
    assert_eq!(
        waiting["reason"],
        json!("group 'nightly': 1 run, and at most 1 may run at a time")
    );
    sandbox
        .local(&["exec", "--no-repo", "--group", "nightly", "echo free"])
        .exits(0)
        .prints("free\n");
    let_go(&sandbox);
    sandbox.local(&["wait", &waiter]).exits(0);
}

#[test]
fn runs_with_one_lock_never_overlap_between_processes() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("held");
    let command = marking(&file);
    let all: Vec<_> = (0..4)
        .map(|_| sandbox.start(&["--local", "exec", "--no-repo", "--lock", "deploy", &command]))
        .collect();
    for running in all {
        running.end().exits(0);
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "start\nend\n".repeat(4));
}

#[test]
fn a_lock_that_is_held_holds_up_nobody_else_and_says_who_waits_for_it() {
    let sandbox = Sandbox::new();
    let holder = sandbox.detach(&["--lock", "deploy", &until_go(&sandbox)]);
    sandbox.until_status(&holder, "RUNNING");
    let waiter = sandbox.detach(&["--lock", "deploy", "true"]);
    sandbox.until_status(&waiter, "WAITING");
    let waiting = sandbox.record(&waiter)["waiting"].clone();
    assert_eq!(
        (&waiting["limit"], &waiting["position"]),
        (&json!("lock:deploy"), &json!(1)),
        "{waiting:#}"
    );
    assert!(
        waiting["reason"].as_str().unwrap().contains("deploy"),
        "{waiting:#}"
    );
    sandbox
        .local(&["exec", "--no-repo", "--lock", "other", "echo free"])
        .exits(0)
        .prints("free\n");
    let_go(&sandbox);
    sandbox.local(&["wait", &waiter]).exits(0);
}

#[test]
fn the_backlogs_show_each_limit_and_who_waits_for_it() {
    let sandbox = Sandbox::new();
    let (serve, holder) = blocked(&sandbox);
    let http = Http::to(&serve);
    let urgent = http.submit(&json!({"command": "true", "priority": 5, "lock": "deploy"}));
    let ids: Vec<_> = (0..12)
        .map(|_| http.submit(&json!({"command": "true"})))
        .collect();
    // The first of the lock's backlog waits for the pool, for all behind it.
    let all = eventually("all wait for the pool", || {
        let page = http.get("/backlogs").body;
        let first = &page["backlogs"][0];
        (first["runs"] == 13 && !first["held_since"].is_null()).then_some(page)
    });
    assert_eq!(all["backlogs"].as_array().unwrap().len(), 1, "{all:#}");
    assert_eq!(all["next_cursor"], Value::Null);
    let machine = &all["backlogs"][0];
    assert_eq!(
        (&machine["limit"], &machine["used"], &machine["max"]),
        (&json!("pool:machine"), &json!(0.25), &json!(0.25))
    );
    assert_eq!(machine["reason"], "this machine's vCPU 0.25 of 0.25 in use");
    let entries = machine["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 10, "those that are next");
    assert_eq!(
        (&entries[0]["execution_id"], &entries[0]["priority"]),
        (&json!(urgent), &json!(5))
    );
    assert_eq!(entries[1]["execution_id"], json!(ids[0]));
    let positions: Vec<_> = entries.iter().map(|entry| &entry["position"]).collect();
    assert_eq!(positions, Vec::from_iter(1..=10));
    let record = http.record(&urgent);
    assert_eq!(entries[0]["submitted_by_id"], record["submitted_by_id"]);
    assert_eq!(entries[0]["submitted_at"], record["submitted_at"]);
    http.post(&format!("/executions/{holder}/cancel"), &json!({}));
}

#[test]
fn the_backlogs_are_paged_and_faults_are_named() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let mut holders = Vec::new();
    for lock in ["a", "b", "c"] {
        let request = json!({"command": "sleep 3600", "lock": lock});
        holders.push(http.submit(&request));
        let waiting = http.submit(&request);
        eventually("it waits", || {
            (http.record(&waiting)["status"] == "WAITING").then_some(())
        });
        holders.push(waiting);
    }
    let (mut limits, mut path) = (Vec::new(), "/backlogs?limit=2".to_owned());
    loop {
        let page = http.get(&path).body;
        let names = page["backlogs"].as_array().unwrap().iter();
        limits.extend(names.map(|one| one["limit"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/backlogs?limit=2&cursor={next}");
    }
    assert_eq!(limits, ["pool:machine", "lock:a", "lock:b", "lock:c"]);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("cursor=lock:a", "cursor"),
    ] {
        let answer = http.get(&format!("/backlogs?{query}"));
        assert_eq!(answer.status, 422, "{answer:#?}");
        assert_eq!(answer.body["errors"][0]["field"], field, "{answer:#?}");
    }
    for id in holders {
        http.post(&format!("/executions/{id}/cancel"), &json!({}));
    }
}
