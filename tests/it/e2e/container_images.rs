//! Images that have nothing of what a run needs, with Podman and with a real Docker daemon.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use local::container::TASK_LABEL;
use serde_json::{Value, json};
use tests::{
    engine::{
        self, BUSYBOX, Engine, EngineProxy, EngineRequest, MEDDLING, NO_SHELL, OwnDocker, Passed,
        SCRATCH, USER,
    },
    planted::{self, Planted},
    sandbox::{PATIENCE, Sandbox},
};

use crate::git_server::{Habits, HttpServer, Origin};

/// An image, and the words before those that name a tool of it.
struct Image {
    name: &'static str,
    tool: &'static [&'static str],
    /// Whether its root is to be read-only.
    is_read_only: bool,
}

const IMAGES: [Image; 4] = [
    Image {
        name: SCRATCH,
        tool: &["/busybox"],
        is_read_only: false,
    },
    Image {
        name: BUSYBOX,
        tool: &[],
        is_read_only: false,
    },
    Image {
        name: NO_SHELL,
        tool: &[],
        is_read_only: false,
    },
    Image {
        name: USER,
        tool: &[],
        is_read_only: true,
    },
];

/// A user of one machine with a container engine.
struct User {
    /// It ends before the folder that its socket is in.
    _proxy: Option<EngineProxy>,
    sandbox: Sandbox,
}

impl User {
    fn of(docker_host: &str, image: &Image) -> Self {
        let sandbox = Sandbox::new();
        let proxy = image.is_read_only.then(|| {
            let engine = Path::new(docker_host.trim_start_matches("unix://"));
            read_only(&sandbox, engine)
        });
        let host = proxy
            .as_ref()
            .map_or_else(|| docker_host.to_owned(), EngineProxy::host);
        Self {
            _proxy: proxy,
            sandbox: sandbox.with("DOCKER_HOST", host),
        }
    }

    /// The id of the latest run, and its record.
    fn latest(&self) -> Value {
        self.sandbox.local(&["status", "-o", "json"]).json()
    }
}

/// An engine that gives every container a read-only root, as one may be set up to.
fn read_only(sandbox: &Sandbox, engine: &Path) -> EngineProxy {
    EngineProxy::at(sandbox.path("engine.sock"), engine.to_owned(), |request| {
        let line = request.head.lines().next().unwrap_or_default();
        let mut body = request.body.clone();
        if line.contains("/containers/create") {
            let mut settings: Value = serde_json::from_slice(&body).expect("settings");
            settings["HostConfig"]["ReadonlyRootfs"] = json!(true);
            body = settings.to_string().into_bytes();
        }
        Passed::On(body)
    })
}

/// Runs words in an image on a clone.
fn on_clone<'a>(
    origin: &'a str,
    image: &Image,
    flags: &[&'a str],
    words: &[&'a str],
) -> Vec<&'a str> {
    let head = [
        "exec", "--repo", origin, "--branch", "v1", "--image", image.name,
    ];
    [&head[..], flags, &["--"], image.tool, words].concat()
}

/// In each image: a clone and an exit code, a timeout, a cancel.
fn check(docker_host: &str, containers: impl Fn(&str) -> Vec<String>) {
    let origin = Origin::new();
    let path = origin.path().display().to_string();
    for image in &IMAGES {
        let user = User::of(docker_host, image);
        let name = image.name;
        let run = |flags: &[&str], words: &[&str]| {
            let ran = user.sandbox.local(&on_clone(&path, image, flags, words));
            (ran, user.latest())
        };
        let (ran, record) = run(&[], &["cat", "f"]);
        assert_eq!(
            (ran.code, &*ran.out),
            (Some(0), "old\n"),
            "{name}: {ran:#?}"
        );
        assert_eq!(record["commit"], origin.commit("v1"), "{name}");
        let (ran, record) = run(&[], &["cat", "missing"]);
        assert_eq!(
            (ran.code, &record["status"]),
            (Some(1), &json!("FAILED")),
            "{name}: {ran:#?}"
        );
        let (ran, record) = run(&["--timeout", "1s"], &["sleep", "600"]);
        assert_eq!(
            (ran.code, &record["status"]),
            (Some(124), &json!("TIMED_OUT")),
            "{name}: {ran:#?}"
        );
        let id = user
            .sandbox
            .local(&on_clone(&path, image, &["--detach"], &["sleep", "600"]))
            .exits(0)
            .out;
        let id = id.trim();
        user.sandbox.until_status(id, "RUNNING");
        user.sandbox.local(&["cancel", id, "--wait"]).exits(0);
        user.sandbox.local(&["wait", id]).exits(130);
        for run in user.sandbox.local(&["history", "-o", "json"]).json()["executions"]
            .as_array()
            .expect("a list")
        {
            let arn = run["attempts"][0]["task_arn"].as_str().expect("a task");
            assert_eq!(containers(arn), [""; 0], "{name}: {run:#}");
        }
    }
}

#[test]
fn any_image_will_do_with_podman() {
    let engine = Engine::shared();
    check(engine.docker_host(), |arn| {
        engine.containers(&format!("{TASK_LABEL}={arn}"))
    });
}

#[test]
fn any_image_will_do_with_docker() {
    check(engine::docker(), |arn| {
        engine::docker_containers(&format!("{TASK_LABEL}={arn}"))
    });
}

/// A command that is root in its container looks everywhere for what its clone was made with.
fn check_secrets(docker_host: &str) {
    let (token, key) = (planted::value(), planted::value());
    let planted = Planted::default()
        .with("the token", &token)
        .with("the key", &key);
    let server = HttpServer::new(Habits {
        login: Some(format!("x-access-token:{token}").leak()),
        ..Habits::default()
    });
    let user = User::of(docker_host, &IMAGES[1]);
    user.sandbox.keep_credential("GIT_TOKEN", &token);
    user.sandbox.keep_credential("GIT_SSH_KEY", &key);
    let look = "id -u; env; set; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; cat /proc/self/mountinfo; \
                find / -xdev -type f -size -2000k -exec cat {} +; find /workspace /mycli -type f -exec cat {} +; \
                for pid in /proc/[0-9]*; do cat $pid/fd/* </dev/null & done; sleep 0.3; kill $(jobs -p); true";
    let ran = user.sandbox.local(&[
        "exec",
        "--image",
        BUSYBOX,
        "--repo",
        &server.url(),
        &format!("exec 2>&1; {look}"),
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.out.starts_with("0\n") && ran.out.contains("/mycli"),
        "it looks, as root"
    );
    assert_eq!(planted.found_in(ran.out.as_bytes()), None);
    let nonce = nonce(&user);
    assert!(!ran.out.contains(&nonce), "the nonce is found");
    assert!(
        server.shown().iter().any(|shown| !shown.is_empty()),
        "the token was used"
    );
}

/// The nonce of the latest run.
fn nonce(user: &User) -> String {
    let store =
        rusqlite::Connection::open(user.sandbox.store().join("store.sqlite")).expect("a store");
    let input: String = store
        .query_row(
            "SELECT input FROM tasks ORDER BY rowid DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .expect("a task");
    let input: Value = serde_json::from_str(&input).expect("JSON");
    let text = input.to_string();
    let at = text.find("MYCLI_NONCE").expect("a nonce");
    let nonce: String = text[at..]
        .chars()
        .skip_while(|letter| !letter.is_ascii_digit() && !('a'..='f').contains(letter))
        .collect();
    let digits = nonce
        .split('"')
        .find(|part| part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    digits.expect("32 digits").to_owned()
}

#[test]
fn nothing_of_ours_is_found_in_a_container_of_podman() {
    check_secrets(Engine::shared().docker_host());
}

#[test]
fn nothing_of_ours_is_found_in_a_container_of_docker() {
    check_secrets(engine::docker());
}

/// Docker and all of its processes are killed, and Docker is started again. The container has ended
/// with them. Its run did not succeed, and is not run again.
#[test]
fn a_run_whose_docker_was_killed_is_not_told_to_have_succeeded() {
    let docker = OwnDocker::named("killed");
    let sandbox = Sandbox::new().with("DOCKER_HOST", docker.start());
    let id = sandbox.detach(&["--image", BUSYBOX, "echo begun; sleep 30; exit 0"]);
    tests::sandbox::eventually("it has begun", || {
        (sandbox.local(&["logs", &id]).out == "begun\n").then_some(())
    });
    docker.kill();
    let _same = docker.start();
    let waited = sandbox.local(&["wait", &id]);
    let record = sandbox.record(&id);
    let status = record["status"].as_str().expect("a status");
    assert!(["FAILED", "LOST"].contains(&status), "{record:#}");
    assert_ne!(waited.code, Some(0), "{waited:#?}");
    assert_eq!(record["attempts"].as_array().expect("a list").len(), 1);
    let page = sandbox.local(&["logs", &id]).out;
    assert!(page.starts_with("begun\n"), "{page}");
}

/// `docker kill`, by hand, takes the runner along.
#[test]
fn a_container_that_was_killed_by_hand_is_not_told_to_have_succeeded() {
    let engine = Engine::shared();
    let sandbox = Sandbox::new().with("DOCKER_HOST", engine.docker_host());
    let id = sandbox.detach(&["--image", BUSYBOX, "echo begun; sleep 30"]);
    tests::sandbox::eventually("it has begun", || {
        (sandbox.local(&["logs", &id]).out == "begun\n").then_some(())
    });
    let arn = sandbox.record(&id)["attempts"][0]["task_arn"]
        .as_str()
        .expect("a task")
        .to_owned();
    let ids = engine.containers(&format!("{TASK_LABEL}={arn}"));
    let _ = engine.podman(&["kill", "--signal=KILL", &ids[0]]);
    sandbox.local(&["wait", &id]).exits(137);
    let record = sandbox.record(&id);
    assert_eq!(
        (&record["status"], &record["exit_code"]),
        (&json!("FAILED"), &json!(137)),
        "{record:#}"
    );
}

/// An image's own stop signal and health check change nothing: a cancel is TERM, and no
/// other process is given what the runner is given.
fn check_meddling(docker_host: &str) {
    let sandbox = Sandbox::new().with("DOCKER_HOST", docker_host);
    let id = sandbox.detach(&[
        "--image",
        MEDDLING,
        "trap 'echo told; exit 3' TERM; echo begun; while :; do sleep 0.1; done",
    ]);
    tests::sandbox::eventually("it has begun", || {
        (sandbox.local(&["logs", &id]).out == "begun\n").then_some(())
    });
    sandbox.local(&["cancel", &id, "--wait"]).exits(0);
    // busybox may add that its `sleep` was terminated.
    let page = sandbox.local(&["logs", &id]).out;
    assert!(page.lines().any(|line| line == "told"), "{page}");
    // A health check would have come by twice.
    let look = "n=0; while [ $n -lt 25 ]; do cat /proc/[0-9]*/environ; n=$((n+1)); sleep 0.1; done";
    let quiet = format!("exec 2>/dev/null; {look}; true");
    let ran = sandbox
        .local(&["exec", "--no-repo", "--image", MEDDLING, &quiet])
        .exits(0);
    assert!(ran.out.contains("MYCLI_ATTEMPT_ID"), "it looks");
    assert!(!ran.out.contains("MYCLI_NONCE"), "{}", ran.out);
}

#[test]
fn an_image_does_not_meddle_with_its_runner_in_podman() {
    check_meddling(Engine::shared().docker_host());
}

#[test]
fn an_image_does_not_meddle_with_its_runner_in_docker() {
    check_meddling(engine::docker());
}

/// Whether a request brings in the content of a run's workspace.
fn fills_a_workspace(request: &EngineRequest) -> bool {
    let line = request.head.lines().next().unwrap_or_default();
    line.starts_with("PUT ") && line.contains("/archive?path=%2Fworkspace")
}

/// A user, and an engine before which each request is looked at. It ends before the folder that its
/// socket is in.
fn behind(
    look: impl Fn(&EngineRequest) -> Passed + Send + Sync + 'static,
) -> (Sandbox, EngineProxy) {
    let sandbox = Sandbox::new();
    let engine = Engine::shared().socket();
    let proxy = EngineProxy::at(sandbox.path("engine.sock"), engine, look);
    let host = proxy.host();
    (sandbox.with("DOCKER_HOST", host), proxy)
}

#[test]
fn a_cancel_is_heard_while_a_container_is_filled() {
    let origin = Origin::new();
    let path = origin.path().display().to_string();
    let (reached, reaches) = mpsc::channel();
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (sandbox, _proxy) = behind(move |request| {
        if fills_a_workspace(request) {
            let _nobody_looks_any_more = reached.send(());
            let _until_it_is_let_go = held.lock().expect("one at a time").recv();
        }
        Passed::On(request.body.clone())
    });
    let flags = ["exec", "--detach", "--repo", &path, "--image", BUSYBOX];
    let id = sandbox.local(&[&flags[..], &["echo never"]].concat());
    let id = id.exits(0).out.trim_end().to_owned();
    reaches.recv_timeout(PATIENCE).expect("it is being filled");
    sandbox.local(&["cancel", &id, "--wait"]).exits(0);
    let record = sandbox.record(&id);
    assert_eq!(record["status"], "CANCELLED", "{record:#}");
    assert_eq!(sandbox.local(&["logs", &id]).out, "");
    drop(let_go);
    let arn = record["attempts"][0]["task_arn"].as_str().expect("a task");
    tests::sandbox::eventually("its container is gone", || {
        let left = Engine::shared().containers(&format!("{TASK_LABEL}={arn}"));
        left.is_empty().then_some(())
    });
}

#[test]
fn an_engine_that_is_away_while_a_container_is_filled_is_asked_again() {
    let origin = Origin::new();
    let path = origin.path().display().to_string();
    let tries = AtomicUsize::new(0);
    let (sandbox, _proxy) = behind(move |request| {
        match fills_a_workspace(request) && tries.fetch_add(1, Ordering::SeqCst) < 2 {
            true => Passed::Lost,
            false => Passed::On(request.body.clone()),
        }
    });
    let flags = [
        "exec", "--repo", &path, "--branch", "v1", "--image", BUSYBOX,
    ];
    let ran = sandbox.local(&[&flags[..], &["cat f"]].concat()).exits(0);
    assert_eq!(ran.out, "old\n");
    let record = sandbox.local(&["status", "-o", "json"]).json();
    assert_eq!(record["attempts"].as_array().expect("a list").len(), 1);
}

/// A command that has stopped itself gets its TERM, and does not take the grace.
#[test]
fn a_stopped_command_in_a_container_ends_at_its_timeout() {
    let sandbox = Sandbox::new().with("DOCKER_HOST", Engine::shared().docker_host());
    let command = "trap 'echo told; exit 1' TERM; kill -STOP $$; sleep 60";
    let flags = ["exec", "--no-repo", "--image", BUSYBOX, "--timeout", "1s"];
    let ran = sandbox.local(&[&flags[..], &[command]].concat()).exits(124);
    assert_eq!(ran.out, "told\n");
}

/// A program that is no runner never begins a command, whatever its exit status is.
#[test]
fn a_runner_that_is_none_is_refused_and_one_that_ends_is_no_command() {
    let base = || Sandbox::new().with("DOCKER_HOST", Engine::shared().docker_host());
    for (program, words) in [
        ("/etc/passwd", "no program for Linux"),
        ("/bin/true", "needs a loader"),
        ("/nowhere", "cannot be read"),
    ] {
        let sandbox = base().with("MYCLI_RUNNER", program);
        let flags = ["exec", "--no-repo", "--image", BUSYBOX, "true"];
        sandbox.local(&flags).exits(125).says(words);
    }
    // Static, and for this processor: it runs, and says nothing that a runner says.
    let sandbox = base().with("MYCLI_RUNNER", "/bin/busybox");
    let flags = ["exec", "--no-repo", "--image", BUSYBOX, "true"];
    sandbox
        .local(&flags)
        .exits(125)
        .says("its runner ended without a word");
    let record = sandbox.local(&["status", "-o", "json"]).json();
    assert_eq!(
        (&record["status"], &record["exit_code"]),
        (&json!("LOST"), &Value::Null),
        "{record:#}"
    );
}

/// The umask of the user does not decide who may read a clone in a container.
#[test]
fn a_clone_can_be_read_by_every_user_of_its_container() {
    let origin = Origin::new();
    let sandbox = Sandbox::new().with("DOCKER_HOST", Engine::shared().docker_host());
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "umask 077; exec \"$0\" \"$@\""])
        .arg(tests::mycli())
        .args(["--local", "exec", "--image", BUSYBOX, "--repo"])
        .arg(origin.path())
        .arg("su app -c 'cat f .git/HEAD'")
        .env("HOME", sandbox.home())
        .env("DOCKER_HOST", Engine::shared().docker_host());
    let output = command.output().expect("it runs");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.starts_with("main\n"), "{output:?}");
}

/// Homes that meet an engine for the first time at the same moment do not disturb each other.
#[test]
fn a_new_runner_comes_to_an_engine_once_or_more_often_and_always_whole() {
    let engine = Engine::shared();
    let folder = tempfile::tempdir().expect("a folder");
    let mut program = local::runner_program::PROGRAM.to_vec();
    program.extend(folder.path().as_os_str().as_encoded_bytes());
    let path = folder.path().join("runner");
    std::fs::write(&path, &program).expect("written");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let sandbox = Sandbox::new()
                    .with("DOCKER_HOST", engine.docker_host())
                    .with("MYCLI_RUNNER", &path);
                let flags = ["exec", "--no-repo", "--image", BUSYBOX, "echo ok"];
                sandbox.local(&flags).exits(0).prints("ok\n");
            });
        }
    });
    let digest = hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(&program)[..8]);
    let fillers = engine.containers(&format!("mycli.runner={digest}"));
    assert_eq!(fillers, [""; 0]);
    // For another version, this one is old.
    let _ = Sandbox::new()
        .with("DOCKER_HOST", engine.docker_host())
        .run(&["local", "prune", "--older-than", "1d"])
        .exits(0);
    let volumes = engine.podman(&["volume", "ls", "--quiet"]);
    assert!(
        !volumes.contains(&format!("mycli-runner-{digest}")),
        "{volumes}"
    );
}

/// A container that could not be removed when its task ended is removed by `prune`. One of another
/// home stays.
#[test]
fn prune_removes_containers_of_stopped_tasks_of_this_home_alone() {
    let engine = Engine::shared();
    let sandbox = || Sandbox::new().with("DOCKER_HOST", engine.docker_host());
    let leave_one = |sandbox: &Sandbox| {
        let (_, record) = sandbox.exec(&["--image", BUSYBOX, "true"]);
        let arn = record["attempts"][0]["task_arn"].as_str().expect("a task");
        let label = format!("{TASK_LABEL}={arn}");
        let _ = engine.create_with_label(&label);
        label
    };
    let (ours, others) = (sandbox(), sandbox());
    let (left, of_another) = (leave_one(&ours), leave_one(&others));
    let prune = ["local", "prune", "--older-than", "1d"];
    ours.run(&prune).exits(0);
    assert_eq!(engine.containers(&left), [""; 0]);
    assert_eq!(engine.containers(&of_another).len(), 1);
    others.run(&prune).exits(0);
    assert_eq!(engine.containers(&of_another), [""; 0]);
}
