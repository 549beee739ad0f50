//! Following a log: over more than one attempt, and resumed at any position.

use std::{fs, process::Stdio, thread, time::Instant};

use serde_json::Value;

use super::world::{LOOK, PATIENCE, World};

/// A command that prints 30 lines in each attempt. The first attempt fails, the second does not.
const TWICE: &str = "n=${MYCLI_ATTEMPT_ID##*-}; i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo \"$n.$i\"; sleep 0.05; done; \
                     echo \"last of $n\"; [ \"$n\" = 2 ]";
const RETRIED: [&str; 4] = ["--retries", "1", "--retry-on", "failure"];

fn expected() -> String {
    let of = |attempt: u32| {
        let lines = (1..=30).map(move |line| format!("{attempt}.{line}\n"));
        lines
            .chain([format!("last of {attempt}\n")])
            .collect::<String>()
    };
    [of(1), of(2)].concat()
}

/// A part of a log: its text, the cursor of the next part, and whether the log is complete.
type Part = (String, String, bool);

fn part(world: &World, id: &str, key: &str, cursor: Option<&str>) -> Part {
    let query = cursor
        .map(|cursor| format!("?cursor={cursor}"))
        .unwrap_or_default();
    let (status, text) = world.call("GET", &format!("/executions/{id}/logs{query}"), key, None);
    assert_eq!(status, 200, "{text}");
    let page: Value = serde_json::from_str(&text).expect("JSON");
    let lines = page["lines"].as_array().expect("lines").iter();
    let text = lines
        .map(|line| format!("{}\n", line["text"].as_str().expect("a text")))
        .collect();
    let next = page["next_cursor"]
        .as_str()
        .expect("where to go on")
        .to_owned();
    (text, next, page["complete"] == true)
}

/// Returns the parts of a log from a cursor to the end.
fn parts(world: &World, id: &str, key: &str, from: Option<String>) -> Vec<Part> {
    let (mut parts, mut cursor, end) = (Vec::new(), from, Instant::now() + PATIENCE);
    loop {
        let part = part(world, id, key, cursor.as_deref());
        let (is_empty, is_last) = (part.0.is_empty(), part.2);
        cursor = Some(part.1.clone());
        parts.push(part);
        if is_last {
            return parts;
        }
        assert!(
            Instant::now() < end,
            "the log is never complete: {parts:#?}"
        );
        if is_empty {
            thread::sleep(LOOK);
        }
    }
}

fn whole(parts: &[Part]) -> String {
    parts.iter().map(|(text, ..)| text.as_str()).collect()
}

#[test]
fn a_log_is_followed_across_a_retry_without_a_gap_or_a_repetition() {
    let world = World::new();
    let id = world.detach(&[&RETRIED[..], &[TWICE]].concat());
    let ran = world.run(&["logs", "-f", &id]).exits(0).prints(&expected());
    assert!(
        ran.err.contains("attempt 1 failed") && ran.err.contains("trying again"),
        "{ran:#?}"
    );
    let record = world.status(&id);
    let codes: Vec<_> = record["attempts"]
        .as_array()
        .expect("tries")
        .iter()
        .map(|one| &one["exit_code"])
        .collect();
    assert_eq!(codes, [1, 0]);
    world.run(&["logs", &id]).exits(0).prints(&expected());
}

#[test]
fn a_log_can_be_taken_up_again_from_wherever_it_was_left() {
    let world = World::new();
    let id = world.detach(&[&RETRIED[..], &[TWICE]].concat());
    let key = world.api().1;
    let read = parts(&world, &id, &key, None);
    assert_eq!(whole(&read), expected());
    let begun_and_not_ended = |attempt: &str| {
        let (first, last) = (format!("{attempt}.1\n"), format!("last of {attempt}\n"));
        (1..read.len())
            .map(|count| whole(&read[..count]))
            .any(|text| text.contains(&first) && !text.contains(&last))
    };
    assert!(
        begun_and_not_ended("1") && begun_and_not_ended("2"),
        "it was read in too few parts: {read:#?}"
    );
    for left in (0..read.len()).filter(|left| *left == 0 || read[*left].1 != read[left - 1].1) {
        let rest = parts(&world, &id, &key, Some(read[left].1.clone()));
        assert_eq!(
            whole(&read[..=left]) + &whole(&rest),
            expected(),
            "taken up after part {left} of {read:#?}"
        );
    }
}

#[test]
fn the_last_line_comes_before_all_that_is_said_of_the_end() {
    let world = World::new();
    let file = fs::File::create(world.user.path("both")).expect("a file");
    let mut command =
        world
            .user
            .command(&["exec", "--no-repo", "echo first; echo last; kill -9 $$"]);
    let status = command
        .stdout(file.try_clone().expect("a file"))
        .stderr(file)
        .stdin(Stdio::null())
        .status();
    assert_eq!(status.expect("mycli runs").code(), Some(137));
    let both = fs::read_to_string(world.user.path("both")).expect("a file");
    let (log, said) = both.split_once("first\nlast\n").expect("the log");
    assert!(
        !log.contains("SIGKILL") && said.contains("SIGKILL"),
        "{both}"
    );
}

#[test]
fn of_a_log_that_has_not_begun_or_is_silent_it_is_said_why_and_when_to_ask_again() {
    let world = World::new();
    let silent = world.detach(&["--lock", "a", "sleep 300"]);
    world.until(&silent, "RUNNING");
    let pending = world.detach(&["--lock", "a", "true"]);
    world.until(&pending, "WAITING");
    let ran = world.run(&["logs", &pending]).exits(1).prints("");
    assert!(
        ran.err.contains("has not started") && ran.err.contains("lock 'a' is held"),
        "{ran:#?}"
    );
    let key = world.api().1;
    for (id, seconds) in [(&silent, "1"), (&pending, "2")] {
        let (status, headers, text) =
            world.answer("GET", &format!("/executions/{id}/logs"), &key, None);
        let again = headers
            .get("retry-after")
            .and_then(|value| value.to_str().ok());
        assert_eq!((status, again), (200, Some(seconds)), "{text}");
    }
    world.run(&["cancel", &pending]).exits(0);
    world.run(&["cancel", &silent]).exits(0);
    world.until(&silent, "CANCELLED");
}
