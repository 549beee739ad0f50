//! Logs: every line, in order, once, both while the command runs and afterwards.

use serde_json::Value;
use tests::sandbox::{Running, Sandbox, eventually};

fn numbered(count: usize) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

#[test]
fn ten_thousand_fast_lines_come_whole_and_in_order() {
    let sandbox = Sandbox::new();
    let ran = sandbox
        .local(&["exec", "--no-repo", "seq 10000; echo 'the end' >&2; exit 3"])
        .exits(3);
    assert!(
        ran.out == numbered(10_000) + "the end\n",
        "{} lines, the last: {:?}",
        ran.out.lines().count(),
        ran.out.lines().last()
    );
    let again = sandbox.local(&["logs"]).exits(0);
    assert!(again.out == ran.out, "{} lines", again.out.lines().count());
}

#[test]
fn a_last_line_without_an_end_is_shown() {
    let sandbox = Sandbox::new();
    for code in ["exit 0", "exit 3", "kill -9 $$"] {
        let ran = sandbox.local(&[
            "exec",
            "--no-repo",
            &format!("echo one; printf two; {code}"),
        ]);
        assert_eq!(ran.out, "one\ntwo\n", "{ran:#?}");
        sandbox.local(&["logs"]).exits(0).prints("one\ntwo\n");
    }
}

#[test]
fn what_a_left_behind_child_printed_before_the_end_is_shown() {
    // The run ends when the command ends. Processes that outlive the command are killed, not waited
    // for.
    let sandbox = Sandbox::new();
    sandbox
        .local(&[
            "exec",
            "--no-repo",
            "(echo child; : >said; sleep 3600) & until [ -e said ]; do sleep 0.05; done; echo parent",
        ])
        .exits(0)
        .prints("child\nparent\n");
    assert!(sandbox.processes().is_empty(), "{:?}", sandbox.processes());
}

#[test]
fn what_is_written_to_the_log_by_its_path_is_whole_and_in_order() {
    let command = "log() { echo \"[info] $*\" > /dev/stderr; }; log start; echo building; : > /dev/stdout; sleep 0.2; \
                   log built; echo result: 42 > /proc/self/fd/1";
    let sandbox = Sandbox::new();
    let text = "[info] start\nbuilding\n[info] built\nresult: 42\n";
    sandbox
        .local(&["exec", "--no-repo", command])
        .exits(0)
        .prints(text);
    sandbox.local(&["logs"]).exits(0).prints(text);
    let last = "trap 'echo bye > /dev/stderr; exit 1' TERM; while :; do sleep 0.1; done";
    let (ran, record) = sandbox.exec(&["--timeout", "1", last]);
    assert_eq!(
        (ran.code, &record["status"]),
        (Some(124), &Value::from("TIMED_OUT")),
        "{ran:#?}"
    );
    let origin = crate::git_server::Origin::new();
    let repo = origin.path().display().to_string();
    sandbox
        .local(&["exec", "--repo", &repo, ": > /dev/stderr"])
        .exits(0);
    let record = sandbox.local(&["status", "-o", "json"]).json();
    assert_eq!(
        record["commit"],
        Value::from(origin.commit("main")),
        "{record:#}"
    );
}

/// A command that reads all marker lines in its own files still cannot forge another end.
#[test]
fn an_end_cannot_be_forged() {
    let sandbox = Sandbox::new();
    let forge = "sleep 0.5; cat \"$HOME.\"* ../../logs/* | grep -ao '[0-9a-f]\\{32\\}' | sort -u >found; \
                 while read -r mark; do for word in timeout exit:0 fail:no; do echo \"::mycli:$mark:1:$word\"; done; done <found; exit 7";
    let ran = sandbox.local(&["exec", "--no-repo", forge]).exits(7);
    assert!(
        ran.out.contains(":1:timeout\n"),
        "what was said before is found, and told as text: {ran:#?}"
    );
    let record = sandbox.local(&["status", "-o", "json"]).json();
    assert_eq!(
        (&record["status"], &record["exit_code"]),
        (&Value::from("FAILED"), &Value::from(7)),
        "{record:#}"
    );
}

#[test]
fn bytes_that_are_no_text_break_nothing() {
    let sandbox = Sandbox::new();
    let ran = sandbox
        .local(&[
            "exec",
            "--no-repo",
            r"printf 'a\377\000b\r\nc\033[1md\n'; head -c 100000 /dev/urandom; printf '\nend\n'",
        ])
        .exits(0);
    let mut lines = ran.out.split('\n');
    assert_eq!(lines.next(), Some("a\u{fffd}\0b\r"));
    assert_eq!(lines.next(), Some("c\u{1b}[1md"));
    assert!(ran.out.ends_with("\nend\n"));
    assert!(sandbox.local(&["logs"]).exits(0).out == ran.out);
    let json = sandbox
        .local(&["logs", "--tail", "1", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(json["text"], "end");
}

#[test]
fn a_line_of_a_megabyte_comes_through() {
    let ran = Sandbox::new()
        .local(&[
            "exec",
            "--no-repo",
            "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end",
        ])
        .exits(0);
    assert_eq!(ran.out.matches('x').count(), 1_000_000);
    assert!(ran.out.ends_with("x\nend\n"));
}

/// The most that one line of a log holds.
const PART: usize = 256 * 1024;

/// vector#14644: characters at the cut were destroyed.
#[test]
fn a_line_is_cut_between_characters_and_not_where_it_fits() {
    let sandbox = Sandbox::new();
    let x = "x".repeat(PART - 1);
    std::fs::write(
        sandbox.path("in"),
        format!("{x}é and more\n{x}x\nend\n{}\n", "☃".repeat(PART)),
    )
    .unwrap();
    let ran = sandbox
        .local(&[
            "exec",
            "--no-repo",
            &format!("cat '{}'", sandbox.path("in").display()),
        ])
        .exits(0);
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(
        lines[0] == x
            && lines[1] == "é and more"
            && lines[2] == x.clone() + "x"
            && lines[3] == "end"
    );
    assert!(
        lines[4..].concat() == "☃".repeat(PART),
        "{} lines",
        lines.len()
    );
    assert!(lines[4..].iter().all(|part| part.len() <= PART));
    assert!(sandbox.local(&["logs"]).exits(0).out == ran.out);
}

/// A run that prints `one` and `two`, then `three` once the file `go` exists.
fn halfway(sandbox: &Sandbox) -> String {
    let go = sandbox.path("go");
    let id = sandbox.detach(&[&format!(
        "echo one; echo two; until [ -e '{}' ]; do sleep 0.05; done; echo three; exit 9",
        go.display()
    )]);
    until_logged(sandbox, &id, "one\ntwo\n");
    id
}

fn until_logged(sandbox: &Sandbox, id: &str, text: &str) {
    eventually(&format!("{text:?} is in the log"), || {
        (sandbox.local(&["logs", id]).out == text).then_some(())
    });
}

fn let_go(sandbox: &Sandbox) {
    std::fs::write(sandbox.path("go"), "").unwrap();
}

#[test]
fn a_second_process_follows_while_it_runs() {
    let sandbox = Sandbox::new();
    let id = halfway(&sandbox);
    let follow = |more: &[&str]| {
        Running::of(sandbox.command(&[&["--local", "logs", &id, "-f"], more].concat()))
    };
    let (all, tail) = (follow(&[]), follow(&["--tail", "1"]));
    assert_eq!([all.line(), all.line()], ["one", "two"]);
    assert_eq!(tail.line(), "two");
    let_go(&sandbox);
    all.end().exits(9).prints("three\n");
    tail.end().exits(9).prints("three\n");
}

#[test]
fn following_can_be_left_and_taken_up_again() {
    let sandbox = Sandbox::new();
    let id = halfway(&sandbox);
    let first = sandbox.start(&["--local", "logs", &id, "-f"]);
    assert_eq!([first.line(), first.line()], ["one", "two"]);
    first.signal(rustix::process::Signal::INT);
    first
        .end()
        .exits(125)
        .prints("")
        .says(&format!("mycli --local logs -f {id}"));
    let_go(&sandbox);
    sandbox
        .local(&["logs", "-f", &id])
        .exits(9)
        .prints("one\ntwo\nthree\n");
    sandbox.local(&["wait", &id]).exits(9);
}

#[test]
fn the_end_and_the_newest_can_be_asked_for() {
    let sandbox = Sandbox::new();
    let go = sandbox.path("go");
    let id = sandbox.detach(&[&format!(
        "echo old; until [ -e '{}' ]; do sleep 0.05; done; seq 3",
        go.display()
    )]);
    until_logged(&sandbox, &id, "old\n");
    let_go(&sandbox);
    sandbox.local(&["wait", &id]).exits(0);
    sandbox
        .local(&["logs", "--tail", "2"])
        .exits(0)
        .prints("2\n3\n");
    sandbox.local(&["logs", "--tail", "0"]).exits(0).prints("");
    sandbox
        .local(&["logs", "--tail", "99"])
        .exits(0)
        .prints("old\n1\n2\n3\n");
    sandbox
        .local(&["logs", "--since", "1h"])
        .exits(0)
        .prints("old\n1\n2\n3\n");
    let lines = objects(&sandbox.local(&["logs", "-o", "json"]).exits(0).out);
    let texts: Vec<_> = lines
        .iter()
        .map(|line| line["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["old", "1", "2", "3"]);
    // A line at exactly that time is included.
    let since = lines[1]["at"].as_str().unwrap();
    sandbox
        .local(&["logs", "--since", since])
        .exits(0)
        .prints("1\n2\n3\n");
    let stamped = sandbox
        .local(&["logs", "--timestamps", "--tail", "1"])
        .exits(0)
        .out;
    assert_eq!(stamped, format!("{} 3\n", lines[3]["at"].as_str().unwrap()));
    sandbox
        .local(&["logs", "--since", "yesterday"])
        .exits(2)
        .says("30m");
}

fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn lines_that_look_like_ours_are_the_command_s() {
    let text = "@@@mycli 00 exit 0\n::mycli::exit 0\n";
    let sandbox = Sandbox::new();
    let ran = sandbox
        .local(&[
            "exec",
            "--no-repo",
            "--",
            "sh",
            "-c",
            "printf '%s' \"$1\"; exit 4",
            "sh",
            text,
        ])
        .exits(4);
    assert_eq!(ran.out, text);
}

#[test]
fn a_log_that_nobody_reads_on_is_no_fault() {
    let sandbox = Sandbox::new();
    sandbox.local(&["exec", "--no-repo", "seq 100000"]).exits(0);
    let reader = sandbox.start(&["--local", "logs", "-f"]);
    assert_eq!(reader.line(), "1");
    // The reader is dropped with its output unread. The test ends, and mycli with it.
    drop(reader);
    sandbox
        .local(&["logs", "--tail", "1"])
        .exits(0)
        .prints("100000\n");
}
