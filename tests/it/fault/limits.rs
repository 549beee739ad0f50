//! What a dead process held is released to the living processes that wait for it.

use std::{fs, path::Path};

use rustix::process::Signal;

use super::world::{World, eventually};

/// The arguments of an `exec` under the lock that both processes want.
fn locked(world: &World, tag: &str, rest: &str) -> Vec<String> {
    let args = [
        "--local",
        "exec",
        "--no-repo",
        "--lock",
        "state",
        "--name",
        tag,
    ];
    args.map(str::to_owned)
        .into_iter()
        .chain([world.marking(tag, rest)])
        .collect()
}

#[test]
fn who_waits_for_a_lock_gets_it_when_its_holder_was_killed() {
    let world = World::new(false);
    world.promise("holder", "SUCCEEDED", Some(0));
    world.promise("waiter", "SUCCEEDED", Some(0));
    let go = world.path("go");
    let holder = world.start(
        &locked(
            &world,
            "holder",
            &format!("while ! [ -e '{}' ]; do sleep 0.02; done", go.display()),
        ),
        None,
    );
    eventually("the holder runs", || ran(&world, "holder"));
    let mut waiter = world.start(&locked(&world, "waiter", "true"), None);
    eventually("the waiter waits", || {
        let waits =
            "SELECT count(*) FROM executions WHERE line = 'lock:state' AND status = 'WAITING'";
        let count: i64 = world
            .store()
            .query_row(waits, [], |row| row.get(0))
            .expect("the store answers");
        (count == 1).then_some(())
    });
    holder.signal(Signal::KILL);
    drop(holder);
    fs::write(&go, "").expect("a file");
    // Nobody else starts mycli here, so the waiting process itself has to notice.
    assert_eq!(waiter.end().code(), Some(0), "{}", waiter.err());
    world.recovers();
}

#[test]
fn who_waits_for_anothers_run_learns_its_end_when_that_one_was_killed() {
    let world = World::new(false);
    world.promise("run", "FAILED", Some(7));
    let go = world.path("go");
    let command = world.marking(
        "run",
        &format!(
            "while ! [ -e '{}' ]; do sleep 0.02; done; exit 7",
            go.display()
        ),
    );
    let runner = world.start(
        &["--local", "exec", "--no-repo", "--name", "run", &command],
        None,
    );
    eventually("it runs", || ran(&world, "run"));
    let id: String = world
        .store()
        .query_row("SELECT id FROM executions", [], |row| row.get(0))
        .expect("it is recorded");
    let mut waiter = world.start(&["--local", "wait", &id], None);
    runner.signal(Signal::KILL);
    drop(runner);
    fs::write(&go, "").expect("a file");
    assert_eq!(waiter.end().code(), Some(7), "{}", waiter.err());
    world.recovers();
}

fn ran(world: &World, tag: &str) -> Option<()> {
    Path::new(&world.path(&format!("ran-{tag}")))
        .exists()
        .then_some(())
}

/// A command is followed where it was begun. Another start with other options does not begin it
/// again elsewhere.
#[test]
fn a_command_on_the_host_is_not_begun_again_in_its_image() {
    let world = World::new(false);
    world.promise("host", "FAILED", Some(7));
    let go = world.path("go");
    let command = world.marking(
        "host",
        &format!(
            "while ! [ -e '{}' ]; do sleep 0.02; done; exit 7",
            go.display()
        ),
    );
    let args = [
        "--local",
        "exec",
        "--no-repo",
        "--host",
        "--image",
        "localhost/any",
        "--name",
        "host",
        &command,
    ];
    let mut runner = world.start(&args, Some("host.release.after"));
    assert!(runner.died(), "{}", runner.err());
    let mut successor = world.start(&["local", "supervise"], None);
    eventually("it runs", || ran(&world, "host"));
    fs::write(&go, "").expect("a file");
    assert_eq!(successor.end().code(), Some(0), "{}", successor.err());
    world.recovers();
}
