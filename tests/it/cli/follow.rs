//! Following a run: pages, cursors, ends and interruptions.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::stand_in::{ID, Mycli, Ran, Reply, StandIn, page, record};

/// A run with a log in three pages. The last page comes after the run's end.
fn growing() -> StandIn {
    let over = record("FAILED", Some(9), Some("the command exited with code 9"));
    StandIn::new(
        move |asked| match asked.path.split_once("/logs").map(|(_, query)| query) {
            Some("") => Reply::json(&page(&["a", "b"], Some("c1"), false)),
            Some("?cursor=c1") => Reply::json(&page(&["c"], Some("c2"), false)),
            Some("?cursor=c2") => Reply::json(&page(&["d"], None, true)),
            Some(other) => panic!("asked for {other}"),
            None if asked.line() == "POST /execute" => Reply::accepted(),
            None => Reply::json(&over),
        },
    )
}

#[test]
fn each_line_is_shown_once_and_in_order() {
    let api = growing();
    Mycli::on(&api)
        .run(&["exec", "--no-repo", "make"])
        .exits(9)
        .prints("a\nb\nc\nd\n");
    let api = growing();
    Mycli::on(&api)
        .run(&["logs", "-f", ID])
        .exits(9)
        .prints("a\nb\nc\nd\n");
}

#[test]
fn logs_without_following_shows_what_there_is_and_exits_0() {
    let api = growing();
    Mycli::on(&api)
        .run(&["logs", ID])
        .exits(0)
        .prints("a\nb\nc\nd\n");
}

#[test]
fn lines_are_chosen_and_formed_as_asked() {
    let api = StandIn::finished(record("SUCCEEDED", Some(0), None), &["a", "b", "c"]);
    let mycli = Mycli::on(&api);
    mycli
        .run(&["logs", ID, "--tail", "2"])
        .exits(0)
        .prints("b\nc\n");
    mycli
        .run(&["logs", ID, "-f", "--tail", "1"])
        .exits(0)
        .prints("c\n");
    mycli.run(&["logs", ID, "--tail", "0"]).exits(0).prints("");
    mycli
        .run(&[
            "logs",
            ID,
            "--since",
            "2026-01-02T03:04:01Z",
            "--timestamps",
        ])
        .exits(0)
        .prints("2026-01-02T03:04:01.000Z b\n2026-01-02T03:04:02.000Z c\n");
    let ran = mycli.run(&["logs", ID, "-o", "json"]).exits(0);
    let first: serde_json::Value = serde_json::from_str(ran.out.lines().next().unwrap()).unwrap();
    assert_eq!(
        first,
        json!({"at": "2026-01-02T03:04:00.000Z", "text": "a"})
    );
}

#[test]
fn a_run_that_waits_says_so_and_why() {
    let mut waiting = record("WAITING", None, None);
    waiting["attempts"] = json!([]);
    waiting["waiting"] = json!({"reason": "Fargate Spot vCPU 6 of 6 in use", "limit": "pool:fargate-spot", "used": 6.0,
        "max": 6.0, "position": 12, "estimate_seconds": 180});
    let api = StandIn::new(move |asked| match asked.path.contains("/logs") {
        true => Reply::json(&page(&[], None, false)),
        false => Reply::json(&waiting),
    });
    let why = "12th in line: Fargate Spot vCPU 6 of 6 in use, about 3 min";
    Mycli::on(&api)
        .run(&["logs", ID])
        .exits(1)
        .prints("")
        .says(why);
    let status = Mycli::on(&api).run(&["status", ID]).exits(0);
    assert!(status.out.contains(why), "{}", status.out);
}

#[test]
fn wait_exits_as_the_run_ends() {
    let mut looks = 0;
    let api = StandIn::new(move |_| {
        looks += 1;
        Reply::json(&if looks < 3 {
            record("RUNNING", None, None)
        } else {
            record("TIMED_OUT", None, Some("timed out after 1h"))
        })
    });
    let ran = Mycli::on(&api)
        .run(&["wait", ID, "-o", "json"])
        .exits(124)
        .says("TIMED_OUT: timed out after 1h");
    assert_eq!(ran.json()["status"], "TIMED_OUT");
}

#[test]
fn an_outage_while_following_costs_no_line() {
    let (mut failures, log) = (3, page(&["a"], None, true));
    let api = StandIn::new(move |asked| {
        if asked.path.contains("/logs") && failures > 0 {
            failures -= 1;
            return Reply::status(503).header("retry-after", "0");
        }
        match asked.line().as_str() {
            "POST /execute" => Reply::accepted(),
            line if line.contains("/logs") => Reply::json(&log),
            _ => Reply::json(&record("SUCCEEDED", Some(0), None)),
        }
    });
    Mycli::on(&api)
        .run(&["exec", "--no-repo", "make"])
        .exits(0)
        .prints("a\n");
}

/// A run that never ends.
fn endless() -> StandIn {
    StandIn::new(|asked| match asked.line().as_str() {
        "POST /execute" => Reply::accepted(),
        line if line.ends_with("/logs") => Reply::json(&page(&["first"], Some("c"), false)),
        line if line.contains("/logs") => Reply::json(&page(&[], Some("c"), false)),
        _ => Reply::json(&record("RUNNING", None, None)),
    })
}

#[track_caller]
fn check_left(signal: Signal) {
    let mut api = endless();
    let mut command = Mycli::on(&api).command(&["exec", "--no-repo", "make"]);
    let dir = tempfile::tempdir().expect("mycli runs");
    let child = command
        .current_dir(&dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mycli runs");
    api.wait_for(&format!("GET /executions/{ID}/logs?cursor=c"));
    kill_process(Pid::from_child(&child), signal).expect("mycli runs");
    let ran = Ran::from(child.wait_with_output().expect("mycli runs"))
        .exits(125)
        .prints("first\n");
    assert!(ran.err.contains(&format!("mycli logs -f {ID}")), "{ran:#?}");
    assert!(
        !api.lines().iter().any(|line| line.ends_with("/cancel")),
        "the run is left, not stopped"
    );
}

#[test]
fn a_signal_leaves_the_run_and_says_how_to_follow_it() {
    check_left(Signal::TERM);
    check_left(Signal::INT);
    check_left(Signal::HUP);
}

#[test]
fn a_reader_that_goes_away_ends_logs_quietly() {
    let mut lines = 0;
    let api = StandIn::new(move |asked| {
        lines += 1;
        match asked.path.contains("/logs") {
            true => Reply::json(&page(&["x"; 50], Some(&lines.to_string()), false)),
            false => Reply::json(&record("RUNNING", None, None)),
        }
    });
    let mycli = Mycli::on(&api);
    for arguments in [&["logs", "-f", ID][..], &["logs", ID]] {
        let mut child = mycli
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(
            (line.as_str(), said.as_str(), child.wait().unwrap().code()),
            ("x\n", "", Some(0))
        );
    }
}

#[test]
fn cancel_asks_once_and_says_what_happens() {
    let api = StandIn::finished(record("RUNNING", None, None), &[]);
    Mycli::on(&api)
        .run(&["cancel", "X7Q9"])
        .exits(0)
        .says("TERM");
    let cancel = format!("POST /executions/{ID}/cancel");
    assert_eq!(
        api.lines().iter().filter(|line| **line == cancel).count(),
        1,
        "the id that X7Q9 stands for"
    );
    let api = StandIn::finished(record("SUCCEEDED", Some(0), None), &[]);
    Mycli::on(&api)
        .run(&["cancel", ID])
        .exits(0)
        .says("was over already: SUCCEEDED");
    assert!(!api.lines().contains(&cancel));
}
