//! The files that runs in a stack leave: the runner uploads them by requests that the API signs.

use std::fs;

use serde_json::{Value, json};
use tests::engine::{BUSYBOX, SCRATCH, USER};

use super::world::World;
use crate::git_server::{Habits, HttpServer};

fn record(world: &World) -> Value {
    world.run(&["status", "-o", "json"]).exits(0).json()
}

#[test]
fn files_of_any_image_are_kept_also_after_a_timeout_and_a_cancel() {
    let world = World::new();
    let server = HttpServer::new(Habits::default());
    let url = server.url();
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().display().to_string();
    for (image, tool) in [(SCRATCH, &["/busybox"][..]), (USER, &[])] {
        let script = |script: &'static str| [&["--"], tool, &["sh", "-c", script]].concat();
        let head = [
            "exec",
            "--repo",
            &url,
            "--image",
            image,
            "--artifact",
            "left",
            "--artifact",
            "f",
        ];
        let run = |flags: &[&str], text: &'static str| {
            world.run(&[&head[..], flags, &script(text)].concat())
        };
        let ran = run(
            &["--artifacts-to", &to],
            "mkdir left; echo x > left/a; : > left/empty; chmod 750 left/a; exit 3",
        );
        assert_eq!(ran.code, Some(3), "{image}: {ran:#?}");
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).expect("a file");
        assert_eq!(
            (read("left/a"), read("f")),
            ("x\n".to_owned(), "main\n".to_owned())
        );
        let artifacts = &record(&world)["artifacts"];
        assert_eq!(
            (
                &artifacts["files"],
                &artifacts["bytes"],
                &artifacts["complete"]
            ),
            (&json!(3), &json!(7), &json!(true)),
            "{image}: {artifacts}",
        );
        assert!(artifacts["expires_at"].is_string(), "{artifacts}");

        run(
            &["--timeout", "1s"],
            "mkdir left; echo x > left/a; sleep 300",
        )
        .exits(124);
        assert_eq!(record(&world)["artifacts"]["files"], json!(2), "{image}");
    }
}

/// 40 MB in parts, and many small files.
#[test]
fn a_large_file_and_many_small_ones_come_whole() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().display().to_string();
    let command = "dd if=/dev/urandom of=big bs=1M count=40 2>/dev/null; sha256sum big; mkdir many; i=0; \
                   while [ $i -lt 1200 ]; do echo $i > many/$i; i=$((i+1)); done";
    let ran = world.run(&[
        "exec",
        "--no-repo",
        "--image",
        BUSYBOX,
        "--artifact",
        "tmp/x",
        "--artifacts-to",
        &to,
        &format!("mkdir -p /tmp/x; cd /tmp/x; {command}"),
    ]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let sum = ran.out.split_whitespace().next().expect("a sum");
    let big = fs::read(folder.path().join("tmp/x/big")).expect("the large file");
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&big));
    assert_eq!((&*digest, big.len()), (sum, 40 << 20));
    let many = fs::read_dir(folder.path().join("tmp/x/many")).expect("the small files");
    assert_eq!(many.count(), 1200);
    let artifacts = &record(&world)["artifacts"];
    assert_eq!(
        (&artifacts["files"], &artifacts["complete"]),
        (&json!(1201), &json!(true)),
        "{artifacts}"
    );
}
