//! A stack that is used and updated at the same time, and the keys that may use it.

use serde_json::json;

use super::world::{World, containers, until_gone};

#[test]
fn an_upgrade_leaves_runs_in_flight_alone() {
    let world = World::new();
    let id = world.detach(&["sleep 8; echo over; exit 5"]);
    world.until(&id, "RUNNING");
    let ran = world
        .run(&[
            "upgrade",
            "--functions",
            "functions",
            "--parameter",
            "MaxTimeout=2h",
            "-o",
            "json",
        ])
        .exits(0);
    assert_eq!(ran.json()["change"], "changed");
    let record = world.until(&id, "FAILED");
    assert_eq!(record["exit_code"], 5);
    world.run(&["logs", &id]).exits(0).prints("over\n");
    world
        .run(&["exec", "--no-repo", "--timeout", "3h", "true"])
        .exits(2)
        .says("timeout");
    world.run(&["destroy", "--yes"]).exits(0);
}

#[test]
fn a_stack_is_not_removed_under_a_run_unless_it_is_to_be() {
    let world = World::new();
    let id = world.detach(&["sleep 300"]);
    let arn = world.until(&id, "RUNNING")["attempts"][0]["task_arn"]
        .as_str()
        .expect("a task")
        .to_owned();
    world
        .run(&["destroy", "--yes"])
        .exits(1)
        .says("1 running")
        .says("--force");
    assert_eq!(
        (
            world.status(&id)["status"].clone(),
            containers(&arn).is_empty()
        ),
        (json!("RUNNING"), false)
    );
    world
        .run(&["destroy", "--yes", "--force"])
        .exits(0)
        .says("removed mycli-default");
    until_gone(&arn);
}

#[test]
fn a_wrong_or_revoked_key_a_weak_one_and_an_oversize_body_are_refused() {
    let world = World::new();
    let key = |role: &str, name: &str| {
        world
            .run(&["keys", "create", name, "--role", role])
            .exits(0)
            .out
            .trim()
            .to_owned()
    };
    let (reader, revoked) = (key("read", "dashboard"), key("admin", "gone"));
    world.run(&["keys", "revoke", "gone"]).exits(0);
    let request = json!({"command": "true"}).to_string();
    for (key, method, path, body, status, code) in [
        (
            &revoked[..],
            "GET",
            "/executions",
            None,
            401,
            "unauthorized",
        ),
        ("sk_live_0", "GET", "/executions", None, 401, "unauthorized"),
        (&reader, "GET", "/executions", None, 200, "executions"),
        (&reader, "POST", "/execute", Some(request), 403, "forbidden"),
        (&reader, "GET", "/keys", None, 403, "forbidden"),
    ] {
        let (got, text) = world.call(method, path, key, body);
        assert!(
            got == status && text.contains(code),
            "{method} {path}: {got} {text}"
        );
    }
    let admin = world.api().1;
    let large = json!({"command": "x".repeat(2 * 1024 * 1024)}).to_string();
    let (status, text) = world.call("POST", "/execute", &admin, Some(large));
    assert!(
        status == 413 && text.contains("body_too_large"),
        "{status} {text}"
    );
    let listed = world.run(&["keys", "list"]).exits(0).out;
    assert!(
        listed.contains("dashboard") && !listed.contains("gone") && !listed.contains("sk_live_"),
        "{listed}"
    );
    assert_eq!(
        world.run(&["history", "-o", "json"]).exits(0).json()["executions"],
        json!([]),
        "nothing was recorded"
    );
}
