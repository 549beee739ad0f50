//! Commands in images, with the container engine that the tests bring along.

use local::container::TASK_LABEL;
use serde_json::{Value, json};
use tests::{
    engine::{AWKWARD, BUSYBOX, DEBIAN_GIT, ENTRYPOINT, Engine, MISSING, USER, WORKDIR},
    sandbox::{Ran, Sandbox, eventually},
};

use crate::git_server::Origin;

fn sandbox() -> Sandbox {
    Sandbox::new().with("DOCKER_HOST", Engine::shared().docker_host())
}

/// Runs a command to its end, and checks that its container is gone.
fn exec(image: &str, arguments: &[&str]) -> (Ran, Value) {
    let (ran, record) = sandbox().exec(&[&["--image", image], arguments].concat());
    check_gone(&record);
    (ran, record)
}

fn containers(record: &Value) -> Vec<String> {
    let arn = record["attempts"][0]["task_arn"].as_str().unwrap();
    Engine::shared().containers(&format!("{TASK_LABEL}={arn}"))
}

#[track_caller]
fn check_gone(record: &Value) {
    assert_eq!(containers(record), [""; 0], "{record:#}");
}

#[track_caller]
fn check(
    image: &str,
    arguments: &[&str],
    code: i32,
    status: &str,
    exit_code: Option<i32>,
) -> (Ran, Value) {
    let (ran, record) = exec(image, arguments);
    assert_eq!(ran.code, Some(code), "{ran:#?}");
    assert_eq!(
        (&record["status"], &record["exit_code"]),
        (&json!(status), &json!(exit_code)),
        "{record:#}"
    );
    (ran, record)
}

#[test]
fn a_container_s_exit_code_log_and_digest_are_told() {
    let (ran, record) = check(
        BUSYBOX,
        &["seq 3; printf last; exit 7"],
        7,
        "FAILED",
        Some(7),
    );
    assert_eq!(
        ran.err, "1\n2\n3\nlast\n",
        "the log is on standard error here, and nothing of mycli's is in it"
    );
    assert_eq!(
        (&record["image"], &record["commit"]),
        (&json!(BUSYBOX), &Value::Null)
    );
    assert!(
        record["image_digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:"),
        "{record:#}"
    );
    check(BUSYBOX, &["true"], 0, "SUCCEEDED", Some(0));
    for code in [124, 125] {
        check(
            BUSYBOX,
            &[&format!("exit {code}")],
            code,
            "FAILED",
            Some(code),
        );
    }
}

#[test]
fn ten_thousand_fast_lines_of_a_container_come_whole_and_in_order() {
    let sandbox = sandbox();
    let ran = sandbox
        .local(&["exec", "--no-repo", "--image", BUSYBOX, "seq 10000; exit 3"])
        .exits(3);
    let expected: String = (1..=10_000).map(|number| format!("{number}\n")).collect();
    assert!(ran.out == expected, "{} lines", ran.out.lines().count());
    assert!(sandbox.local(&["logs"]).out == expected);
}

#[test]
fn a_killed_command_and_too_little_memory_are_told_apart_in_a_container() {
    let (_, killed) = check(BUSYBOX, &["kill -9 $$"], 137, "FAILED", Some(137));
    assert!(
        !killed["reason"]
            .as_str()
            .unwrap()
            .to_lowercase()
            .contains("memory"),
        "{killed:#}"
    );
    let (_, oom) = check(
        BUSYBOX,
        &["--memory", "512", "tail /dev/zero"],
        137,
        "FAILED",
        Some(137),
    );
    let reason = oom["reason"].as_str().unwrap();
    assert!(
        reason.contains("out of memory") && reason.contains("--memory"),
        "{oom:#}"
    );
}

#[test]
fn a_timeout_ends_a_container_with_all_that_is_in_it() {
    let (_, record) = check(
        BUSYBOX,
        &["--timeout", "2s", "sleep 3600 & echo begun; sleep 3600"],
        124,
        "TIMED_OUT",
        None,
    );
    assert_eq!(record["reason"], "timed out after 2s");
}

#[test]
fn a_running_container_can_be_cancelled() {
    let sandbox = sandbox();
    let id = sandbox.detach(&[
        "--image",
        BUSYBOX,
        "trap 'echo told; exit 1' TERM; echo begun; sleep 3600 & wait",
    ]);
    eventually("the command has begun", || {
        (sandbox.local(&["logs", &id]).out == "begun\n").then_some(())
    });
    assert_eq!(
        containers(&sandbox.record(&id)).len(),
        1,
        "it is a container"
    );
    sandbox
        .local(&["cancel", &id, "--wait"])
        .exits(0)
        .says("CANCELLED");
    sandbox.local(&["wait", &id]).exits(130);
    sandbox
        .local(&["logs", &id])
        .exits(0)
        .prints("begun\ntold\n");
    check_gone(&sandbox.record(&id));
}

#[test]
fn a_missing_image_is_refused_in_the_engine_s_own_words_and_makes_no_container() {
    let (ran, record) = check(MISSING, &["true"], 125, "FAILED", None);
    let reason = record["reason"].as_str().unwrap();
    assert!(
        reason.contains(MISSING) && ran.err.contains(reason),
        "{ran:#?}"
    );
    // The reason holds the engine's own words: a host name that does not resolve, or a refused
    // pull.
    assert!(
        reason.contains("no such host") || reason.contains("lookup") || reason.contains("pull"),
        "{reason}"
    );
}

#[test]
fn a_repository_of_this_machine_is_cloned_in_a_container() {
    let (sandbox, origin) = (sandbox(), Origin::new());
    for repo in [
        origin.path().display().to_string(),
        format!("file://{}", origin.path().display()),
    ] {
        for (name, text) in [
            ("main", "main"),
            ("v1", "old"),
            (&origin.commit("v1")[..8], "old"),
        ] {
            let ran = sandbox.local(&[
                "exec",
                "--image",
                DEBIAN_GIT,
                "--repo",
                &repo,
                "--branch",
                name,
                "cat f; git status --short",
            ]);
            assert_eq!(
                (ran.code, &*ran.out),
                (Some(0), &*format!("{text}\n")),
                "{repo} {name}: {ran:#?}"
            );
            let record = sandbox.local(&["status", "-o", "json"]).json();
            let commit = origin.commit(if text == "old" { "v1" } else { "main" });
            assert_eq!(record["commit"], commit);
        }
    }
    let ran = sandbox.local(&[
        "exec",
        "--image",
        DEBIAN_GIT,
        "--repo",
        origin.path().to_str().unwrap(),
        "--branch",
        "no-such",
        "true",
    ]);
    ran.exits(125).says("no-such");
}

#[test]
fn a_repository_in_a_container_needs_no_git_there() {
    let origin = Origin::new();
    let path = origin.path().display().to_string();
    for image in [BUSYBOX, USER, WORKDIR] {
        let sandbox = sandbox();
        let from = ["exec", "--repo", &path, "--branch", "v1"];
        let ran =
            sandbox.local(&[&from[..], &["--image", image, "pwd; cat f; touch new"]].concat());
        assert_eq!(
            (ran.code, &*ran.out),
            (Some(0), "/workspace/repo\nold\n"),
            "{image}: {ran:#?}"
        );
        let record = sandbox.local(&["status", "-o", "json"]).json();
        assert_eq!(record["commit"], origin.commit("v1"));
        check_gone(&record);
    }
}

#[test]
fn a_container_s_own_entry_point_user_and_directory_are_respected_or_set_aside() {
    let (ran, _) = check(ENTRYPOINT, &["echo ran; exit 3"], 3, "FAILED", Some(3));
    assert!(ran.err.starts_with("ran\n"), "{ran:#?}");
    let (ran, _) = check(WORKDIR, &["pwd; echo $FROM_IMAGE"], 0, "SUCCEEDED", Some(0));
    assert_eq!(ran.err, "/srv/app\nset by the image\n");
    let (ran, _) = check(
        USER,
        &["id -u; pwd; touch x && echo written"],
        0,
        "SUCCEEDED",
        Some(0),
    );
    assert_eq!(ran.err, "1000\n/home/app\nwritten\n");
    let (ran, _) = check(AWKWARD, &["id -u; pwd"], 0, "SUCCEEDED", Some(0));
    assert_eq!(ran.err, "1000\n/srv/app\n");
}

#[test]
fn a_container_of_another_user_clones_a_repository_too() {
    let origin = Origin::new();
    let ran = sandbox().local(&[
        "exec",
        "--image",
        AWKWARD,
        "--repo",
        origin.path().to_str().unwrap(),
        "id -u; cat f; touch mine && echo written",
    ]);
    ran.exits(0).prints("1000\nmain\nwritten\n");
}

#[test]
fn a_container_outlives_a_killed_mycli_and_its_end_is_told() {
    let sandbox = sandbox();
    let running = sandbox.start(&[
        "--local",
        "exec",
        "--no-repo",
        "--image",
        BUSYBOX,
        "echo begun; sleep 2; echo ended; exit 5",
    ]);
    assert_eq!(running.line(), "begun");
    let id = sandbox.local(&["status", "-o", "json"]).json()["execution_id"]
        .as_str()
        .unwrap()
        .to_owned();
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    sandbox
        .local(&["logs", "-f", &id])
        .exits(5)
        .prints("begun\nended\n");
    let record = sandbox.record(&id);
    assert_eq!(
        (
            &record["status"],
            record["attempts"].as_array().unwrap().len()
        ),
        (&json!("FAILED"), 1),
        "{record:#}"
    );
    check_gone(&record);
}

#[test]
fn a_secret_reaches_a_container_and_is_in_none_of_its_settings_that_are_shown() {
    let sandbox = sandbox();
    sandbox.keep_secret("API_PASSWORD", "planted-password-Wq81");
    let (ran, record) = sandbox.exec(&[
        "--image",
        BUSYBOX,
        "--secret",
        "API_PASSWORD",
        "echo ${#API_PASSWORD}",
    ]);
    assert_eq!((ran.code, &*ran.err), (Some(0), "21\n"), "{ran:#?}");
    assert!(!record.to_string().contains("planted"), "{record:#}");
    check_gone(&record);
}

#[test]
fn the_time_of_each_phase_is_told() {
    let origin = Origin::new();
    let sandbox = sandbox();
    let path = origin.path().display().to_string();
    for image in [None, Some(BUSYBOX)] {
        let mut arguments = vec!["exec", "--repo", &path];
        arguments.extend(image.into_iter().flat_map(|image| ["--image", image]));
        arguments.push("sleep 0.3; exit 3");
        sandbox.local(&arguments).exits(3);
        let record = sandbox.local(&["status", "-o", "json"]).json();
        let timings = &record["timings"];
        let known = |phase: &str| {
            timings[phase]
                .as_u64()
                .unwrap_or_else(|| panic!("{phase}: {record:#}"))
        };
        // Podman's log has whole seconds.
        let least = if image.is_none() { 300 } else { 0 };
        assert!(known("running_ms") >= least, "{record:#}");
        for phase in ["queued_ms", "provisioning_ms", "setup_ms"] {
            assert!(known(phase) < 60_000, "{record:#}");
        }
        assert_eq!(
            timings["pulling_ms"].is_null(),
            image.is_none(),
            "{record:#}"
        );
        assert_eq!(timings["uploading_ms"], Value::Null);
        assert_eq!(record["attempts"][0]["timings"], *timings);
        assert_eq!(record["cost"], Value::Null, "nothing is billed");
        let page = sandbox.local(&["status"]).out;
        assert!(page.contains("\nphases     queued "), "{page}");
        assert!(page.contains(", running "), "{page}");
    }
}
