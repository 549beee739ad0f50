//! Where a secret's value is found, and where it must not be.

use std::{fs, io::Write, net::TcpListener, process::Stdio};

use domain::attempt_secret::AttemptSecret;
use serde_json::{Value, json};
use tests::{
    engine::{BUSYBOX, DEBIAN_GIT},
    planted::{self, Planted},
    sandbox::{Process, Ran, Running, files, holds},
};

use super::world::World;
use crate::git_server::{Habits, HttpServer, SshServer};

/// Returns all that AWS and the functions store and log, each text with its source.
fn everything(world: &World) -> Vec<(String, String)> {
    let ecs = |operation: &str, body: Value| {
        world.ask(
            "ecs",
            &format!("AmazonEC2ContainerServiceV20141113.{operation}"),
            &body,
        )
    };
    let mut texts = Vec::new();
    let mut keep = |from: &str, value: &Value| texts.push((from.to_owned(), value.to_string()));
    keep(
        "the table",
        &world.ask(
            "dynamodb",
            "DynamoDB_20120810.Scan",
            &json!({"TableName": "mycli-default"}),
        ),
    );
    for status in ["RUNNING", "STOPPED"] {
        let tasks = ecs(
            "ListTasks",
            json!({"cluster": "mycli-default", "desiredStatus": status}),
        )["taskArns"]
            .clone();
        keep(
            "the tasks",
            &ecs(
                "DescribeTasks",
                json!({"cluster": "mycli-default", "tasks": tasks}),
            ),
        );
    }
    for arn in ecs("ListTaskDefinitions", json!({}))["taskDefinitionArns"]
        .as_array()
        .into_iter()
        .flatten()
    {
        keep(
            "a definition",
            &ecs("DescribeTaskDefinition", json!({"taskDefinition": arn})),
        );
    }
    let groups = world.ask("logs", "Logs_20140328.DescribeLogGroups", &json!({}));
    for group in groups["logGroups"].as_array().into_iter().flatten() {
        let all = json!({"logGroupName": group["logGroupName"]});
        keep(
            "a log group",
            &world.ask("logs", "Logs_20140328.FilterLogEvents", &all),
        );
    }
    let queues = world.ask("sqs", "AmazonSQS.ListQueues", &json!({}));
    for url in queues["QueueUrls"].as_array().into_iter().flatten() {
        let look = json!({"QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 0});
        keep(
            "a queue",
            &world.ask("sqs", "AmazonSQS.ReceiveMessage", &look),
        );
    }
    for name in deploy::package::FUNCTIONS {
        keep(
            "a function",
            &world.function(&format!("mycli-default-{name}")),
        );
    }
    for (from, file) in [
        ("the requests", world.emulator.request_log()),
        ("what functions said", world.emulator.server_log()),
        // This log has the requests' bodies: messages, overrides, definitions, events, items.
        ("what functions asked for", world.emulator.calls_log()),
        ("the invocations", world.emulator.invocations_log()),
    ] {
        let text = fs::read_to_string(file).unwrap_or_default();
        assert!(!text.is_empty(), "{from}: there is nothing to search");
        texts.push((from.to_owned(), text));
    }
    texts
}

/// Makes a queue that receives every event of mycli. It is one of the queues that are searched.
fn listen(world: &World) {
    let url = world.ask(
        "sqs",
        "AmazonSQS.CreateQueue",
        &json!({"QueueName": "heard"}),
    )["QueueUrl"]
        .clone();
    let wanted = json!({"QueueUrl": url, "AttributeNames": ["QueueArn"]});
    let arn =
        world.ask("sqs", "AmazonSQS.GetQueueAttributes", &wanted)["Attributes"]["QueueArn"].clone();
    let rule = json!({"Name": "heard", "EventPattern": json!({"source": ["mycli"]}).to_string()});
    world.ask("events", "AWSEvents.PutRule", &rule);
    world.ask(
        "events",
        "AWSEvents.PutTargets",
        &json!({"Rule": "heard", "Targets": [{"Id": "heard", "Arn": arn}]}),
    );
}

/// Starts `mycli` with all its logging on and this text on its standard input.
fn loudly(world: &World, arguments: &[&str], input: &str) -> Running {
    let mut command = world.user.command(&[&["-v"], arguments].concat());
    command
        .env("MYCLI_LOG", "trace")
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    command.stdin(Stdio::from(reader));
    writer
        .write_all(input.as_bytes())
        .expect("a value fits a pipe");
    Running::of(command)
}

#[test]
fn secrets_reach_whom_they_are_for_and_are_found_nowhere_else() {
    let (token, password, registry) = (planted::value(), planted::value(), planted::value());
    let (http, ssh) = (
        HttpServer::new(Habits {
            login: Some(format!("x-access-token:{token}").leak()),
            ..Habits::default()
        }),
        SshServer::new(),
    );
    let world = World::new();
    listen(&world);
    let git = Planted::default()
        .with("the token", &token)
        .with("git's key", &ssh.secret_of("user"));
    let planted = git
        .clone()
        .with("the password", &password)
        .with("the registry's password", &registry);
    let url = planted::plain_value();
    let planted = planted
        .with("the API key", &world.api().1[8..])
        .with("the password in a URL", &url);
    let watch = planted.watch();
    let said = |ran: &Ran| {
        let found = (
            planted.found_in(ran.out.as_bytes()),
            planted.found_in(ran.err.as_bytes()),
        );
        assert_eq!(found, (None, None), "{ran:#?}");
    };
    let loud = |arguments: &[&str], input: &str, code: i32| {
        said(&loudly(&world, arguments, input).end().exits(code));
    };

    let exec = ["exec", "--no-repo", "--secret", "API_PASSWORD", "true"];
    said(
        &loudly(&world, &exec, "")
            .end()
            .exits(2)
            .says("mycli secrets set API_PASSWORD"),
    );
    loud(
        &["secrets", "set", "GIT_TOKEN", "--host", "127.0.0.1"],
        &token,
        0,
    );
    loud(
        &[
            "secrets",
            "set",
            "GIT_SSH_KEY",
            "--host",
            "127.0.0.1",
            "--host",
            "localhost",
        ],
        &ssh.key("user"),
        0,
    );
    loud(&["secrets", "set", "GIT_KNOWN_HOSTS"], &ssh.pin("host"), 0);
    loud(&["secrets", "set", "API_PASSWORD"], &password, 0);
    let login = json!({"username": "ann", "password": registry}).to_string();
    let secret = json!({"Name": "mycli/default/registry", "SecretString": login, "ClientRequestToken": "0".repeat(32)});
    world.ask("secretsmanager", "secretsmanager.CreateSecret", &secret);

    // The command ends only after it has read a line that we send. A task shares the machine's
    // network here.
    let gate = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let wait = format!(
        "bash -c 'read -r _ </dev/tcp/127.0.0.1/{}'",
        gate.local_addr().expect("it is bound").port()
    );
    let command = format!(
        "cat f; echo ${{#API_PASSWORD}}; case $API_PASSWORD in p-*=) echo given;; esac; {wait}; exit 3"
    );
    fs::write(
        world.user.path(".mycli.yaml"),
        "registry_secret: mycli/default/registry\n",
    )
    .expect("a file");
    let running = loudly(
        &world,
        &[
            "exec",
            "--image",
            DEBIAN_GIT,
            "--repo",
            &http.url(),
            "--secret",
            "API_PASSWORD",
            &command,
        ],
        "",
    );
    assert_eq!(
        [running.line(), running.line(), running.line()],
        ["main", &password.len().to_string(), "given"]
    );
    for process in Process::all() {
        assert_eq!(
            git.found_in(&process.environ),
            None,
            "while the command runs: {}",
            process.shown()
        );
        assert!(
            !holds(&process.environ, &password) || holds(&process.environ, "MYCLI_EXECUTION_ID="),
            "{}",
            process.shown()
        );
    }
    loud(&["status"], "", 0);
    gate.accept()
        .expect("the command asks")
        .0
        .write_all(b"\n")
        .expect("it reads");
    said(&running.end().exits(3));
    fs::remove_file(world.user.path(".mycli.yaml")).expect("it is there");
    let cloned = loudly(
        &world,
        &["exec", "--image", DEBIAN_GIT, "--repo", &ssh.url(), "cat f"],
        "",
    )
    .end();
    said(&cloned.exits(0).prints("main\n"));

    // Errors must not show a secret either.
    let line = json!({"command": "true", "repo": format!("https://ann:{url}@localhost/project")});
    loud(&["bulk", "--wait", "-"], &line.to_string(), 2);
    let (status, text) = world.call("POST", "/execute", &world.api().1, Some(line.to_string()));
    assert!(
        status == 422 && planted.found_in(text.as_bytes()).is_none(),
        "{status} {text}"
    );
    for arguments in [
        &["status", "-o", "json"][..],
        &["history", "-o", "json"],
        &["logs", "--timestamps"],
        &["secrets", "list", "-o", "json"],
        &["keys", "list", "-o", "json"],
        &["dead-letters", "list"],
        &["config", "show"],
    ] {
        loud(arguments, "", 0);
    }
    said(&loudly(&world, &["doctor"], "").end());

    let sightings = watch.end();
    assert!(
        sightings
            .arguments
            .iter()
            .any(|arguments| arguments.contains("fetch-for-main")),
        "the fetch was looked at"
    );
    assert_eq!(sightings.in_arguments, []);
    for (name, process) in &sightings.in_environments {
        let (is_main, is_fetch) = (
            process.mentions("MYCLI_EXECUTION_ID="),
            process.variable("MYCLI_REPO").is_some(),
        );
        assert!(
            is_main || is_fetch,
            "{name} in the environment of {}",
            process.shown()
        );
    }
    let kept = everything(&world);
    for expected in [
        "API_PASSWORD",
        "given",
        "mycli/default/registry",
        "Execution State Change",
    ] {
        assert!(
            kept.iter().any(|(_, text)| text.contains(expected)),
            "what was searched is not all: no {expected}"
        );
    }
    for (from, text) in &kept {
        assert_eq!(planted.found_in(text.as_bytes()), None, "in {from}");
    }
    let home = world.user.home();
    assert_eq!(
        files(&home),
        [home.join(".mycli/config.yaml")],
        "the user's machine keeps the key, and nothing else"
    );
}

#[test]
fn a_secret_for_administrators_cannot_be_named_by_another_key() {
    let world = World::new();
    world
        .run_with(
            &["secrets", "set", "PROD_TOKEN", "--role", "admin"],
            "planted-value-7c1f",
        )
        .exits(0);
    let weaker = world
        .run(&["keys", "create", "ci", "--role", "submit"])
        .exits(0)
        .out
        .trim()
        .to_owned();
    let request =
        json!({"action": "exec", "command": "true", "secrets": ["PROD_TOKEN"]}).to_string();
    let (status, text) = world.call("POST", "/execute", &weaker, Some(request.clone()));
    assert!(
        status == 422 && text.contains("secrets[0]") && text.contains("admin"),
        "{status} {text}"
    );
    let (status, text) = world.call("POST", "/execute", &world.api().1, Some(request));
    assert_eq!(status, 202, "{text}");
}

/// The attempt's secret is in its task's variables, where ECS and its runner read it. The command
/// does not see it, and nothing keeps it. Its token opens the attempt, and is nowhere but on the
/// way to the API.
#[test]
fn an_attempts_secret_and_token_are_found_nowhere_else() {
    let world = World::new();
    let look = "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null; echo x > /tmp/f; ls /proc/*/fd 2>/dev/null";
    let flags = ["--no-repo", "--image", BUSYBOX, "--artifact", "tmp/f"];
    let ran = world.run(&[&["exec"], &flags[..], &[look]].concat());
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let record = world.run(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(record["artifacts"]["files"], json!(1), "{record:#}");
    let asked = fs::read_to_string(world.emulator.calls_log()).expect("the calls");
    let (_, rest) = asked
        .split_once("\"MYCLI_SECRET\"")
        .expect("a task with a secret");
    let digits = |c: char| c.is_ascii_hexdigit();
    let secret = rest.split(|c| !digits(c)).find(|word| word.len() == 32);
    let secret = secret.expect("its value").to_owned();
    let token = AttemptSecret::of_text(secret.clone().into()).token();
    let planted = Planted::default()
        .with("the secret", &secret)
        .with("the token", token.expose());
    let (out, err) = (ran.out.as_bytes(), ran.err.as_bytes());
    assert_eq!((planted.found_in(out), planted.found_in(err)), (None, None));
    let only_token = Planted::default().with("the token", token.expose());
    for (from, text) in everything(&world) {
        // A task's variables are the way to its runner.
        let holds_variables = ["the tasks", "what functions asked for", "the requests"];
        let search = match holds_variables.contains(&&*from) {
            true => &only_token,
            false => &planted,
        };
        assert_eq!(search.found_in(text.as_bytes()), None, "in {from}");
    }
}
