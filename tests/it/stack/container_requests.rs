//! Requests that are larger than ECS takes: the task asks the API for them.

use serde_json::json;
use tests::engine::BUSYBOX;

use super::world::World;
use crate::git_server::{Habits, HttpServer};

#[test]
fn a_request_that_ecs_does_not_take_is_asked_for_by_the_task() {
    let world = World::new();
    let server = HttpServer::new(Habits::default());
    let (text, value) = ("x".repeat(120_000), "\"v\"".repeat(40_000));
    let long = format!("LONG={value}");
    let command = format!("cat f; echo $SMALL ${{#LONG}}; echo y > left; exit 3 # {text}");
    let ran = world.run(&[
        "exec",
        "--repo",
        &server.url(),
        "--image",
        BUSYBOX,
        "-e",
        &long,
        "-e",
        "SMALL=s",
        "--artifact",
        "left",
        &command,
    ]);
    assert_eq!(
        (ran.code, &*ran.out),
        (Some(3), "main\ns 120000\n"),
        "{}",
        ran.err
    );
    let record = world.run(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(
        (&record["command"], &record["artifacts"]["files"]),
        (&json!(command), &json!(1))
    );
    // Without a repository too, and in words that no shell reads.
    let words = [
        "exec",
        "--no-repo",
        "--image",
        BUSYBOX,
        "--",
        "sh",
        "-c",
        "echo ${#1} ${#2}",
        "x",
        &text,
        &value,
    ];
    world.run(&words).exits(0).prints("120000 120000\n");
}
