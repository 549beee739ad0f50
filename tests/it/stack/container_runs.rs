//! One run after another, as a user starts and follows them.

use super::world::World;

#[test]
fn a_command_runs_and_its_log_and_exit_code_come_back() {
    let world = World::new();
    world.run(&["exec", "--no-repo", "echo hello; echo oops >&2; exit 3"]).exits(3).prints("hello\noops\n");
    let shown = world.run(&["history", "-o", "json"]).exits(0).json();
    let run = &shown["executions"][0];
    assert_eq!(
        (&run["status"], &run["exit_code"], &run["submitted_by"]),
        (&"FAILED".into(), &3.into(), &"alice".into())
    );
    let id = run["execution_id"].as_str().expect("an id");
    let arn = run["attempts"][0]["task_arn"].as_str().expect("a task");
    for wanted in [id, &id[20..], arn] {
        assert_eq!(world.status(wanted)["execution_id"], *id, "{wanted}");
    }
    world.run(&["logs", id]).exits(0).prints("hello\noops\n");
}
