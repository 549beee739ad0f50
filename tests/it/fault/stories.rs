//! What a user does with one machine while the program dies at a crash point. Together the stories
//! reach every crash point.

use std::{fs, net::SocketAddr, process::Command};

use rusqlite::params;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::engine;

use super::{
    docker::docker_at,
    http,
    world::{Process, World, eventually, is_final},
};

/// The moment at which an execution is recorded and nobody runs it.
const RECORDED: &str = "machine.spawn_supervisor.before";

/// A story. It returns whether the program under test was killed.
pub(super) struct Story {
    /// Its name in a failure.
    pub(super) name: &'static str,
    /// Whether it needs the container engine.
    pub(super) engine: bool,
    /// Plays it with this value of `MYCLI_FAILPOINT`.
    pub(super) play: fn(&World, &str) -> bool,
}

impl Story {
    /// Whether this story, in a container, is worth playing for this point.
    pub(super) fn is_for(&self, point: &str) -> bool {
        let only = |part: &str| point.contains(part);
        match self.name {
            "exec in a container of Docker's" => only(".logs"),
            "exec in a container" => ![
                ".pull",
                ".stop",
                ".list",
                ".program",
                ".workspace",
                ".fetch",
                ".user",
                ".artifacts",
            ]
            .into_iter()
            .any(only),
            "taking over a container" => ["inspect", "remove", "logs", "drain", "wait"]
                .into_iter()
                .any(only),
            // Its command still runs after its log was read.
            "serve and cancel a container" => only(".stop") || only(".remove") || only(".poll"),
            "files kept from a container" => only(".artifacts"),
            "a missing image" => only(".pull"),
            "a repository in a container, by a new runner" => {
                [".program", ".workspace", ".fetch", ".user"]
                    .into_iter()
                    .any(only)
            }
            _ => only(".list"),
        }
    }
}

/// The stories on the host.
pub(super) const ON_HOST: &[Story] = &[
    Story {
        name: "exec on a repository",
        engine: false,
        play: exec_on_a_repository,
    },
    Story {
        name: "exec that fails",
        engine: false,
        play: exec_that_fails,
    },
    Story {
        name: "exec --detach",
        engine: false,
        play: exec_detached,
    },
    Story {
        name: "exec --timeout",
        engine: false,
        play: exec_past_its_timeout,
    },
    Story {
        name: "taking over what was recorded",
        engine: false,
        play: take_over_recorded,
    },
    Story {
        name: "taking over what runs",
        engine: false,
        play: take_over_running,
    },
    Story {
        name: "serve, submit, cancel",
        engine: false,
        play: serve_on_host,
    },
    Story {
        name: "serve, submit, cancel the group",
        engine: false,
        play: cancel_group_on_host,
    },
    Story {
        name: "rerun what failed of a group",
        engine: false,
        play: rerun_group_on_host,
    },
    Story {
        name: "serve with a new key",
        engine: false,
        play: serve_with_new_key,
    },
    Story {
        name: "dead letters",
        engine: false,
        play: dead_letters,
    },
    Story {
        name: "prune",
        engine: false,
        play: prune,
    },
    Story {
        name: "bulk",
        engine: false,
        play: bulk,
    },
];

/// The stories in containers.
pub(super) const IN_CONTAINERS: &[Story] = &[
    Story {
        name: "exec in a container",
        engine: true,
        play: exec_in_container,
    },
    Story {
        name: "a repository in a container, by a new runner",
        engine: true,
        play: repository_in_container,
    },
    Story {
        name: "files kept from a container",
        engine: true,
        play: files_of_container,
    },
    Story {
        name: "exec in a container of Docker's",
        engine: true,
        play: exec_in_container_of_docker,
    },
    Story {
        name: "taking over a container",
        engine: true,
        play: take_over_container,
    },
    Story {
        name: "serve and cancel a container",
        engine: true,
        play: cancel_container,
    },
    Story {
        name: "a missing image",
        engine: true,
        play: missing_image,
    },
    Story {
        name: "a stop before the start",
        engine: true,
        play: stop_before_start,
    },
];

fn exec(tag: &str, options: &[&str], command: &str) -> Vec<String> {
    let start = ["--local", "exec", "--name", tag].into_iter();
    start
        .chain(options.iter().copied())
        .chain([command])
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn crash(world: &World, args: &[String], point: &str) {
    let mut process = world.start(args, Some(point));
    assert!(process.died(), "it comes to {point}: {}", process.err());
}

fn exec_on_a_repository(world: &World, point: &str) -> bool {
    let repo = repository(world);
    world.promise("repo", "SUCCEEDED", Some(0));
    let command = world.marking("repo", "test \"$(cat greeting)\" = hello");
    world
        .start(
            &exec("repo", &["--repo", &repo, "--branch", "main"], &command),
            Some(point),
        )
        .died()
}

fn repository(world: &World) -> String {
    let repo = world.path("repo");
    fs::create_dir(&repo).expect("a directory");
    fs::write(repo.join("greeting"), "hello\n").expect("a file");
    for args in [
        &["init", "-q", "-b", "main"][..],
        &["add", "."],
        &["commit", "-q", "-m", "greet"],
    ] {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
        let status = Command::new("git")
            .current_dir(&repo)
            .args(identity)
            .args(args)
            .status();
        assert!(status.expect("git is installed").success());
    }
    format!("file://{}", repo.display())
}

fn exec_that_fails(world: &World, point: &str) -> bool {
    world.promise("fails", "FAILED", Some(7));
    let command = world.marking("fails", "echo some; echo lines >&2; exit 7");
    world
        .start(&exec("fails", &["--no-repo"], &command), Some(point))
        .died()
}

fn exec_detached(world: &World, point: &str) -> bool {
    world.promise("detached", "SUCCEEDED", Some(0));
    let args = exec(
        "detached",
        &["--no-repo", "--detach"],
        &world.marking("detached", "true"),
    );
    let mut process = world.start(&args, Some(point));
    let died = process.died();
    process.out().lines().for_each(|id| world.accepted(id));
    died
}

fn exec_past_its_timeout(world: &World, point: &str) -> bool {
    world.promise("slow", "TIMED_OUT", None);
    let command = world.marking("slow", "sleep 600 & sleep 600");
    world
        .start(
            &exec("slow", &["--no-repo", "--timeout", "1s"], &command),
            Some(point),
        )
        .died()
}

fn take_over_recorded(world: &World, point: &str) -> bool {
    world.promise("recorded", "SUCCEEDED", Some(0));
    let command = world.marking("recorded", "true");
    crash(
        world,
        &exec("recorded", &["--no-repo", "--detach"], &command),
        RECORDED,
    );
    world.start(&["local", "supervise"], Some(point)).died()
}

fn take_over_running(world: &World, point: &str) -> bool {
    world.promise("running", "FAILED", Some(7));
    let command = world.marking("running", &format!("{} exit 7", until(world, "go")));
    crash(
        world,
        &exec("running", &["--no-repo"], &command),
        "host.release.after",
    );
    let mut successor = world.start(&["local", "supervise"], Some(point));
    eventually("it runs", || {
        (successor.is_over() || world.path("ran-running").exists()).then_some(())
    });
    say(world, "go");
    successor.died()
}

/// Shell text that waits until a file exists.
fn until(world: &World, name: &str) -> String {
    format!(
        "while ! [ -e '{}' ]; do sleep 0.02; done;",
        world.path(name).display()
    )
}

fn say(world: &World, name: &str) {
    fs::write(world.path(name), "").expect("a file");
}

fn prune(world: &World, point: &str) -> bool {
    world.promise("old", "SUCCEEDED", Some(0));
    world.run(
        &exec("old", &["--no-repo"], &world.marking("old", "echo text")),
        0,
    );
    let prune = ["local", "prune", "--older-than", "0s"];
    let died = world.start(&prune, Some(point)).died();
    world.run(&prune, 0);
    assert_eq!(world.history(), Vec::<Value>::new());
    assert_eq!(
        super::world::names(&world.path(".mycli/local/logs")),
        Vec::<String>::new(),
        "no log is left"
    );
    // It ran, and as requested nothing remembers it.
    fs::remove_file(world.path("ran-old")).expect("it ran");
    died
}

/// A submission that is repeated with the id printed at first.
fn bulk(world: &World, point: &str) -> bool {
    let line = |tag| {
        world.promise(tag, "SUCCEEDED", Some(0));
        format!(
            "{}\n",
            json!({"name": tag, "command": world.marking(tag, "true")})
        )
    };
    fs::write(
        world.path("jobs.jsonl"),
        ["one", "two", "three"].map(line).concat(),
    )
    .expect("a file");
    let args = ["--local", "bulk", "jobs.jsonl", "--no-repo", "-o", "json"];
    let mut process = world.start(&args, Some(point));
    let (died, err) = (process.died(), process.err());
    let id = err
        .split_once("--resume ")
        .and_then(|(_, rest)| rest.split_whitespace().next());
    let resume = id.into_iter().flat_map(|id| ["--resume", id]);
    let report = world.run(&args.into_iter().chain(resume).collect::<Vec<_>>(), 0);
    let report: Value = serde_json::from_str(&report).expect("it is JSON");
    let recorded = ["accepted", "existing"]
        .map(|list| report[list].as_array().expect("a list").clone())
        .concat();
    assert_eq!(recorded.len(), 3, "{report}");
    recorded
        .iter()
        .for_each(|entry| world.accepted(entry["execution_id"].as_str().expect("an id")));
    died
}

/// An unreadable message and a dead letter, both left by a dead process.
fn dead_letters(world: &World, point: &str) -> bool {
    world.promise("letters", "SUCCEEDED", Some(0));
    let command = world.marking("letters", "sleep 0.3");
    crash(
        world,
        &exec("letters", &["--no-repo", "--detach"], &command),
        RECORDED,
    );
    let store = world.store();
    let worker: String = store
        .query_row("SELECT pump FROM executions", [], |row| row.get(0))
        .expect("it is recorded");
    store
        .execute("INSERT INTO messages (queue, pump, visible_at, receives, sent_at, body) VALUES ('launch', ?1, 0, 0, 0, 'torn')", [&worker])
        .expect("it is sent");
    store
        .execute(
            "INSERT INTO dead_letters (id, queue, pump, body, receives, sent_at, died_at, reason) VALUES (99, 'launch', ?1, 'torn', 5, 0, 0, 'torn')",
            params![worker],
        )
        .expect("it is kept");
    drop(store);
    world.start(&["local", "supervise"], Some(point)).died()
}

/// A running server and its address.
pub(super) struct Server<'a> {
    world: &'a World,
    process: Process,
    address: SocketAddr,
    key: String,
}

impl<'a> Server<'a> {
    /// Starts a server. Returns the process alone if it died before it listened.
    pub(super) fn start(
        world: &'a World,
        options: &[&str],
        point: Option<&str>,
    ) -> Result<Self, Process> {
        let args = [
            &["local", "serve", "--listen", "127.0.0.1:0", "-o", "json"],
            options,
        ]
        .concat();
        let mut process = world.start(&args, point);
        let announced = eventually("the server says where it is", || {
            let line: Option<Value> = serde_json::from_str(&process.out()).ok();
            let address = line.and_then(|line| {
                line["endpoint"]
                    .as_str()?
                    .strip_prefix("http://")?
                    .parse()
                    .ok()
            });
            address
                .map(Some)
                .or_else(|| process.is_over().then_some(None))
        });
        match announced {
            Some(address) => Ok(Self {
                world,
                process,
                address,
                key: world.key(),
            }),
            None => Err(process),
        }
    }

    /// The address it listens on.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Submits a run. `None` if the server died before it answered.
    fn submit(&self, tag: &str, image: Option<&str>, command: &str) -> Option<String> {
        self.submit_with(tag, image.map(|image| ("image", image)), command)
    }

    /// Submits a request with one more field.
    fn submit_with(&self, tag: &str, field: Option<(&str, &str)>, command: &str) -> Option<String> {
        let mut body = json!({"action": "exec", "command": command, "name": tag});
        if let Some((name, value)) = field {
            body[name] = json!(value);
        }
        let (status, answer) = http::post(self.address, "/execute", &self.key, &body)?;
        assert_eq!(status, 202, "{answer}");
        let id = answer["execution_id"].as_str().expect("an id").to_owned();
        self.world.accepted(&id);
        Some(id)
    }

    /// Waits until the condition holds for an execution. `None` if the server died before that.
    fn wait(&mut self, id: &str, so: impl Fn(&Value) -> bool) -> Option<()> {
        self.wait_for(&format!("/executions/{id}"), so)
    }

    fn wait_for(&mut self, path: &str, so: impl Fn(&Value) -> bool) -> Option<()> {
        let (address, key) = (self.address, self.key.clone());
        eventually("it gets on", || {
            let seen = http::get(address, path, &key).is_some_and(|(_, shown)| so(&shown));
            seen.then_some(Some(()))
                .or_else(|| self.process.is_over().then_some(None))
        })
    }

    fn cancel(&self, tag: &str, id: &str) -> Option<()> {
        self.world.cancels(tag);
        let (status, answer) = http::post(
            self.address,
            &format!("/executions/{id}/cancel"),
            &self.key,
            &json!({}),
        )?;
        assert_eq!(status, 202, "{answer}");
        Some(())
    }

    fn cancel_group(&self, group: &str, tags: &[&str]) -> Option<()> {
        tags.iter().for_each(|tag| self.world.cancels(tag));
        let (status, answer) = http::post(
            self.address,
            &format!("/groups/{group}/cancel"),
            &self.key,
            &json!({}),
        )?;
        assert_eq!(status, 202, "{answer}");
        Some(())
    }

    /// Stops the server in order, unless it died. Returns whether it died.
    pub(super) fn died(mut self) -> bool {
        self.process.signal(Signal::TERM);
        self.process.died()
    }
}

fn serve_on_host(world: &World, point: &str) -> bool {
    // There is room for one run at a time, so the others wait.
    let started = Server::start(
        world,
        &["--vcpus", "0.25", "--launch-rate", "50"],
        Some(point),
    );
    let mut server = match started {
        Ok(server) => server,
        Err(mut process) => return process.died(),
    };
    let _died = submit_and_cancel(world, &mut server);
    say(world, "go");
    server.died()
}

/// One run of the group is running and another waits behind it when the group is cancelled.
fn cancel_group_on_host(world: &World, point: &str) -> bool {
    let mut server = match Server::start(
        world,
        &["--vcpus", "0.25", "--launch-rate", "50"],
        Some(point),
    ) {
        Ok(server) => server,
        Err(mut process) => return process.died(),
    };
    let _died = submit_and_cancel_group(world, &mut server);
    say(world, "go");
    server.died()
}

fn submit_and_cancel_group(world: &World, server: &mut Server<'_>) -> Option<()> {
    for tag in ["first", "second"] {
        world.promise(tag, "SUCCEEDED", Some(0));
    }
    let first = server.submit_with(
        "first",
        Some(("group", "crew")),
        &world.marking("first", &until(world, "go")),
    )?;
    let second = server.submit_with(
        "second",
        Some(("group", "crew")),
        &world.marking("second", "true"),
    )?;
    server.wait(&first, |run| run["status"] == "RUNNING")?;
    server.cancel_group("crew", &["first", "second"])?;
    server.wait(&first, is_final)?;
    server.wait(&second, is_final)
}

/// One run of the group has failed, and one request reruns it. The request is repeated once another
/// server runs.
fn rerun_group_on_host(world: &World, point: &str) -> bool {
    let mut server = match Server::start(world, &[], Some(point)) {
        Ok(server) => server,
        Err(mut process) => return process.died(),
    };
    world.promise("failing", "FAILED", Some(1));
    world.promise("again", "SUCCEEDED", Some(0));
    let command = world.marking("again", "true");
    let rerun = |server: &Server<'_>| {
        let body =
            json!({"submission_id": "sub_story", "changes": {"command": command, "name": "again"}});
        let (status, answer) = http::post(
            server.address,
            "/groups/crew/rerun-failed",
            &server.key,
            &body,
        )?;
        assert_eq!(status, 202, "{answer}");
        Some(())
    };
    let _died = fail_and_rerun(world, &mut server, rerun);
    let died = server.died();
    let mut next = Server::start(world, &[], None)
        .unwrap_or_else(|process| panic!("it serves: {}", process.err()));
    if http::get(next.address, "/groups/crew", &next.key).is_some_and(|(status, _)| status == 200) {
        let all_over = |page: &Value| {
            page["executions"]
                .as_array()
                .is_some_and(|runs| runs.iter().all(is_final))
        };
        next.wait_for("/executions?group=crew", all_over)
            .expect("it lives");
        rerun(&next).expect("it lives");
        next.wait_for("/groups/sub_story", |group| group["rerun"]["done"] == true)
            .expect("it lives");
        let (_, made) =
            http::get(next.address, "/executions?group=sub_story", &next.key).expect("it lives");
        let made = made["executions"].as_array().expect("a list");
        assert_eq!(made.len(), 1, "it is run again once: {made:?}");
        let id = made[0]["execution_id"].as_str().expect("an id");
        world.accepted(id);
        next.wait(id, is_final).expect("it lives");
    }
    next.died();
    died
}

fn fail_and_rerun(
    world: &World,
    server: &mut Server<'_>,
    rerun: impl Fn(&Server<'_>) -> Option<()>,
) -> Option<()> {
    let failing = server.submit_with(
        "failing",
        Some(("group", "crew")),
        &world.marking("failing", "exit 1"),
    )?;
    server.wait(&failing, is_final)?;
    rerun(server)?;
    server.wait_for("/groups/sub_story", |group| group["rerun"]["done"] == true)
}

/// A server whose key file was lost.
fn serve_with_new_key(world: &World, point: &str) -> bool {
    let first = Server::start(world, &[], None)
        .unwrap_or_else(|process| panic!("it serves: {}", process.err()));
    assert!(!first.died(), "it ends in order");
    fs::remove_file(world.path(".mycli/local/serve.key")).expect("it has a key");
    match Server::start(world, &[], Some(point)) {
        Ok(server) => {
            assert!(
                http::get(server.address, "/executions", &server.key)
                    .is_some_and(|(status, _)| status == 200)
            );
            server.died()
        }
        Err(mut process) => process.died(),
    }
}

fn submit_and_cancel(world: &World, server: &mut Server<'_>) -> Option<()> {
    for tag in ["first", "second", "third"] {
        world.promise(tag, "SUCCEEDED", Some(0));
    }
    let first = server.submit("first", None, &world.marking("first", &until(world, "go")))?;
    let second = server.submit("second", None, &world.marking("second", "true"))?;
    let third = server.submit("third", None, &world.marking("third", "true"))?;
    server.wait(&first, |run| run["status"] == "RUNNING")?;
    server.cancel("second", &second)?;
    server.cancel("first", &first)?;
    server.wait(&first, is_final)?;
    server.wait(&third, is_final)
}

fn exec_in_container(world: &World, point: &str) -> bool {
    world.promise("container", "FAILED", Some(3));
    let args = exec(
        "container",
        &["--no-repo", "--image", engine::BUSYBOX],
        "echo ran-container; exit 3",
    );
    world.start(&args, Some(point)).died()
}

fn repository_in_container(world: &World, point: &str) -> bool {
    let repo = repository(world);
    world.bring_new_runner();
    world.promise("container", "FAILED", Some(3));
    let args = exec(
        "container",
        &["--repo", &repo, "--branch", "main", "--image", engine::USER],
        "test \"$(cat greeting)\" = hello && echo ran-container; exit 3",
    );
    world.start(&args, Some(point)).died()
}

fn files_of_container(world: &World, point: &str) -> bool {
    world.promise("container", "FAILED", Some(3));
    let args = exec(
        "container",
        &[
            "--no-repo",
            "--artifact",
            "kept",
            "--image",
            engine::BUSYBOX,
        ],
        "cd /tmp; echo 1 > kept; echo ran-container; exit 3",
    );
    world.start(&args, Some(point)).died()
}

fn exec_in_container_of_docker(world: &World, point: &str) -> bool {
    let docker = docker_at(world.path("docker.sock"));
    world.promise("container", "FAILED", Some(3));
    let args = exec(
        "container",
        &["--no-repo", "--image", engine::BUSYBOX],
        "echo ran-container; exit 3",
    );
    world.start_on(&docker.host(), &args, Some(point)).died()
}

fn take_over_container(world: &World, point: &str) -> bool {
    world.promise("container", "FAILED", Some(3));
    let args = exec(
        "container",
        &["--no-repo", "--image", engine::BUSYBOX],
        "echo ran-container; exit 3",
    );
    crash(world, &args, "container.start.after");
    world.start(&["local", "supervise"], Some(point)).died()
}

fn cancel_container(world: &World, point: &str) -> bool {
    let mut server = match Server::start(world, &[], Some(point)) {
        Ok(server) => server,
        Err(mut process) => return process.died(),
    };
    let _died = run_and_cancel_container(world, &mut server);
    server.died()
}

fn run_and_cancel_container(world: &World, server: &mut Server<'_>) -> Option<()> {
    world.promise("endless", "TIMED_OUT", None);
    let body = json!({"action": "exec", "command": "echo ran-endless; sleep 600", "name": "endless",
                      "image": engine::BUSYBOX, "timeout": "5s"});
    let (_, answer) = http::post(server.address, "/execute", &server.key, &body)?;
    let id = answer["execution_id"].as_str().expect("an id").to_owned();
    world.accepted(&id);
    server.wait(&id, |run| run["status"] == "RUNNING" || is_final(run))?;
    server.cancel("endless", &id)?;
    server.wait(&id, is_final)
}

fn missing_image(world: &World, point: &str) -> bool {
    world.promise("missing", "FAILED", None);
    world.may_not_run("missing");
    let args = exec(
        "missing",
        &["--no-repo", "--image", engine::MISSING],
        "echo ran-missing",
    );
    world.start(&args, Some(point)).died()
}

/// A container was created, and then a stop was requested before it started.
fn stop_before_start(world: &World, point: &str) -> bool {
    world.promise("unwanted", "FAILED", None);
    world.may_not_run("unwanted");
    let args = exec(
        "unwanted",
        &["--no-repo", "--image", engine::BUSYBOX],
        "echo ran-unwanted; sleep 600",
    );
    crash(world, &args, "container.create.after");
    let asked = world
        .store()
        .execute("UPDATE tasks SET stop = 'not wanted any more'", []);
    assert_eq!(asked.expect("it is asked"), 1);
    world.start(&["local", "supervise"], Some(point)).died()
}
