//! The files that a command in a container leaves.

use std::{collections::BTreeSet, fs};

use local::container::TASK_LABEL;
use serde_json::{Value, json};
use tests::{
    engine::{self, BUSYBOX, Engine, SCRATCH, USER},
    sandbox::{Sandbox, eventually},
};

use crate::git_server::Origin;

/// In each image: files of a clone, of a timeout and of a cancel are kept.
fn check(docker_host: &str, containers: impl Fn(&str) -> Vec<String>) {
    let origin = Origin::new();
    let path = origin.path().display().to_string();
    for (image, tool) in [(SCRATCH, &["/busybox"][..]), (BUSYBOX, &[]), (USER, &[])] {
        let sandbox = Sandbox::new().with("DOCKER_HOST", docker_host);
        let head = [
            "exec",
            "--repo",
            &path,
            "--image",
            image,
            "--artifact",
            "left",
            "--artifact",
            "f",
        ];
        let run = |flags: &[&str], text: &'static str| {
            let words = [&["--"], tool, &["sh", "-c", text]].concat();
            sandbox.local(&[&head[..], flags, &words].concat())
        };
        let ran = run(
            &["--artifacts-to", "got"],
            "mkdir left; echo x > left/a; exit 3",
        );
        assert_eq!(ran.code, Some(3), "{image}: {ran:#?}");
        let read = |path: &str| fs::read_to_string(sandbox.path(path)).expect("a file");
        assert_eq!(
            (read("got/left/a"), read("got/f")),
            ("x\n".to_owned(), "main\n".to_owned()),
            "{image}"
        );
        let record = sandbox.local(&["status", "-o", "json"]).json();
        assert_eq!(
            (
                &record["artifacts"]["files"],
                &record["artifacts"]["complete"]
            ),
            (&json!(2), &json!(true)),
            "{record:#}",
        );
        let arn = record["attempts"][0]["task_arn"].as_str().expect("a task");
        assert_eq!(containers(arn), [""; 0], "{image}");

        let late = run(
            &["--timeout", "1s"],
            "mkdir left; echo x > left/a; sleep 600",
        );
        assert_eq!(late.code, Some(124), "{image}: {late:#?}");
        let got = sandbox
            .local(&["artifacts", "get", "--to", "late"])
            .exits(0);
        assert_eq!(got.out.lines().count(), 2, "{got:#?}");

        let id = run(
            &["--detach"],
            "mkdir left; echo x > left/a; echo begun; sleep 600",
        )
        .exits(0)
        .out;
        let id = id.trim();
        eventually("it has begun", || {
            (sandbox.local(&["logs", id]).out == "begun\n").then_some(())
        });
        sandbox.local(&["cancel", id, "--wait"]).exits(0);
        let got = sandbox
            .local(&["artifacts", "get", id, "left", "--to", "cancelled"])
            .exits(0);
        assert_eq!(got.out, "left/a\n", "{image}");
    }
}

#[test]
fn files_are_kept_from_any_image_with_podman() {
    let engine = Engine::shared();
    check(engine.docker_host(), |arn| {
        engine.containers(&format!("{TASK_LABEL}={arn}"))
    });
}

#[test]
fn files_are_kept_from_any_image_with_docker() {
    check(engine::docker(), |arn| {
        engine::docker_containers(&format!("{TASK_LABEL}={arn}"))
    });
}

/// The command can write where its runner puts the files. Nothing of that leads anywhere else.
#[test]
fn a_command_that_writes_among_the_kept_files_reaches_nothing() {
    let sandbox = Sandbox::new().with("DOCKER_HOST", Engine::shared().docker_host());
    let command = "cd /mycli-artifacts/kept; mkdir -p 0 7; ln -s /etc 0/x; ln -s /etc/passwd 0/5; echo {} > 7/manifest; \
                   echo evil > 9; mkfifo 7/3; ln -s ../../../.. 8; cd /; echo ok > /tmp/f";
    let ran = sandbox.local(&[
        "exec",
        "--no-repo",
        "--image",
        BUSYBOX,
        "--artifact",
        "tmp/f",
        command,
    ]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let list = sandbox.local(&["artifacts", "list"]).exits(0);
    assert_eq!(list.out, "3  tmp/f\n");
    let folder = sandbox.store().join("artifacts");
    let mut left = vec![folder];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        assert!(
            metadata.is_dir() || metadata.is_file(),
            "{}",
            path.display()
        );
        if metadata.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .expect("a folder")
                    .map(|entry| entry.expect("an entry").path()),
            );
        }
    }
}

/// The default image starts in `/`. The files that the kernel and mycli put there are not the command's.
#[test]
fn a_search_in_the_root_folder_finds_the_images_files_and_ends() {
    let sandbox = Sandbox::new().with("DOCKER_HOST", Engine::shared().docker_host());
    let head = ["exec", "--no-repo", "--image", BUSYBOX];
    let run = |artifacts: &[&str]| {
        let command = "mkdir out; echo x > out/f";
        let ran = sandbox.local(&[&head[..], artifacts, &[command]].concat());
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        let page = sandbox.local(&["artifacts", "list", "-o", "json"]).exits(0);
        let files = page.json()["artifacts"].as_array().expect("a list").clone();
        let path = |file: &Value| file["path"].as_str().expect("a path").to_owned();
        files.iter().map(path).collect::<BTreeSet<_>>()
    };
    assert_eq!(run(&["--artifact", "out/**"]), ["out/f".to_owned()].into());
    let all = run(&["--artifact", "**", "--artifact", "!bin"]);
    assert!(all.contains("out/f"), "{all:?}");
    for ours in ["proc/", "sys/", "mycli/", "mycli-artifacts/"] {
        assert!(!all.iter().any(|path| path.starts_with(ours)), "{all:?}");
    }
}

/// The runner has kept them. Then they cannot be taken out of the container.
#[test]
fn files_that_are_lost_after_the_command_are_told() {
    let sandbox = Sandbox::new().with("DOCKER_HOST", Engine::shared().docker_host());
    sandbox.local(&["history"]).exits(0);
    fs::write(sandbox.store().join("artifacts"), "in the way").expect("a file");
    let flags = ["--no-repo", "--image", BUSYBOX, "--artifact", "f"];
    let ran = sandbox.local(&[&["exec"], &flags[..], &["cd /; echo x > f"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let record = sandbox.local(&["status", "-o", "json"]).json();
    let artifacts = &record["artifacts"];
    assert_eq!(
        (&artifacts["files"], &artifacts["complete"]),
        (&json!(0), &json!(false)),
        "{record:#}"
    );
    let reason = artifacts["reason"].as_str().expect("a reason");
    assert!(reason.contains("could not be taken out"), "{reason}");
}
