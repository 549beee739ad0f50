//! Images that lack all that a run needs, or have something in its way: each on a repository, with a
//! timeout and a cancel. The runner comes from the image that `mycli init` pushed to the registry.

use serde_json::json;
use tests::engine::{BUSYBOX, NO_SHELL, SCRATCH, USER, WORKSPACE};

use super::world::{World, until_gone};
use crate::git_server::{Habits, HttpServer};

/// An image, and the words before those that name a tool of it.
type Image = (&'static str, &'static [&'static str]);

#[test]
fn a_repository_a_timeout_and_a_cancel_in_images_that_have_nothing() {
    check(&[(SCRATCH, &["/busybox"]), (BUSYBOX, &[]), (NO_SHELL, &[])]);
}

#[test]
fn a_repository_a_timeout_and_a_cancel_where_the_user_is_not_root() {
    check(&[(USER, &[]), (WORKSPACE, &[])]);
}

fn check(images: &[Image]) {
    let world = World::new();
    let server = HttpServer::new(Habits::default());
    let url = server.url();
    for (image, tool) in images.iter().copied() {
        let words = |words: &[&'static str]| -> Vec<&str> {
            let head = ["--repo", &*url, "--image", image];
            [&head[..], &["--"], tool, words].concat()
        };
        let exec = [vec!["exec"], words(&["cat", "f"])].concat();
        world.run(&exec).exits(0).prints("main\n");
        let record = world.run(&["status", "-o", "json"]).exits(0).json();
        assert_eq!(
            record["commit"],
            json!(server.origin.commit("main")),
            "{image}"
        );

        let late = [vec!["exec", "--timeout", "1s"], words(&["sleep", "300"])].concat();
        world.run(&late).exits(124);

        let flags = [
            vec!["exec", "--detach", "-o", "json"],
            words(&["sleep", "300"]),
        ]
        .concat();
        let id = world.run(&flags).exits(0).json();
        let id = id["execution_id"].as_str().expect("an id").to_owned();
        let arn = world.until(&id, "RUNNING")["attempts"][0]["task_arn"].clone();
        world.run(&["cancel", &id]).exits(0);
        world.until(&id, "CANCELLED");
        until_gone(arn.as_str().expect("a task"));
    }
}

/// Without a repository `/workspace` is the image's own, and the command starts in its WORKDIR.
#[test]
fn a_run_without_a_repository_leaves_the_images_folders_alone() {
    let world = World::new();
    world
        .run(&[
            "exec",
            "--no-repo",
            "--image",
            WORKSPACE,
            "pwd; ls -A | wc -l; id -u",
        ])
        .exits(0)
        .prints("/workspace\n0\n1000\n");
}

/// A failure in a container of ours is not blamed on the run.
#[test]
fn an_image_of_ours_that_is_gone_is_our_fault_and_doctor_tells_so() {
    let world = World::new();
    let doctor = || world.run(&["doctor"]).out;
    assert!(doctor().contains("tasks find it"), "{}", doctor());
    let request = json!({"repositoryName": "mycli-default", "force": true});
    let target = "AmazonEC2ContainerRegistry_V20150921.DeleteRepository";
    world.ask("ecr", target, &request);
    assert!(doctor().contains("no task can start"), "{}", doctor());
    let ran = world.run(&["exec", "--no-repo", "true"]).exits(125);
    let record = world.run(&["status", "-o", "json"]).exits(0).json();
    let reason = record["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("container init of mycli could not start, which is no fault of this run"),
        "{reason} {ran:?}"
    );
}
