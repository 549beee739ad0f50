//! `doctor`: each test breaks one thing and expects that finding and no other. The unit tests of
//! `deploy::doctor` cover what cannot be broken on an emulator.

use std::fs;

use aws::dynamo::DynamoStore;
use chrono::{TimeDelta, Utc};
use domain::key::Caller;
use domain::{
    execution::Execution,
    id::ExecutionId,
    limit::CapacityPool,
    ports::WriteStore,
    request::{Defaults, SubmitRequest},
};
use serde_json::{Value, json};
use tests::{emulator::Emulator, table};

use super::world::World;
use crate::contract::records::launching;

/// Returns the wrong checks, as (check, fix).
fn findings(world: &World) -> Vec<(String, String)> {
    let ran = world.run(&["doctor", "-o", "json"]);
    let checks = ran.json()["checks"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let wrong: Vec<_> = checks
        .iter()
        .filter(|check| check["verdict"] == "wrong")
        .collect();
    assert_eq!(
        ran.code,
        Some(if wrong.is_empty() { 0 } else { 1 }),
        "{ran:#?}"
    );
    wrong
        .iter()
        .map(|check| (text(&check["name"]), text(&check["fix"])))
        .collect()
}

#[track_caller]
fn finds(world: &World, name: &str, fix: &str) {
    let found = findings(world);
    assert!(
        found.len() == 1 && found[0].0 == name && found[0].1.contains(fix),
        "{found:#?}"
    );
}

#[track_caller]
fn well(world: &World) {
    assert_eq!(findings(world), []);
}

#[test]
fn no_stack() {
    let world = World::new();
    finds(&world, "stack", "mycli init");
    world.init(&[]).exits(0);
    well(&world);
}

#[test]
fn a_dead_letter() {
    let world = World::with_stack();
    world.send_message("control-dead", "anything");
    finds(&world, "dead letters", "mycli dead-letters redrive");
}

#[test]
fn a_secret_without_its_value_and_a_value_without_its_secret() {
    let world = World::with_stack();
    let value =
        json!({"Name": "/mycli/default/secrets/STRAY", "Value": "v", "Type": "SecureString"});
    world.ask("ssm", "AmazonSSM.PutParameter", &value);
    finds(&world, "secrets", "mycli secrets remove STRAY");
    world.run(&["secrets", "remove", "STRAY"]).exits(0);
    well(&world);
    super::life::set_secret(&world, "TOKEN", "hunter2");
    world.ask(
        "ssm",
        "AmazonSSM.DeleteParameter",
        &json!({"Name": "/mycli/default/secrets/TOKEN"}),
    );
    finds(&world, "secrets", "mycli secrets set TOKEN");
    super::life::set_secret(&world, "TOKEN", "hunter2");
    well(&world);
}

#[test]
fn functions_of_another_version() {
    let world = World::new();
    for (version, fix) in [
        ("0.0.1", "mycli upgrade"),
        ("999.0.0", "install that version"),
    ] {
        let mut template = world.run(&["init", "--print-template"]).exits(0).json();
        template["Outputs"]["Version"]["Value"] = version.into();
        fs::write(world.user.path("another.json"), template.to_string()).unwrap();
        world.init(&["--template", "another.json"]).exits(0);
        finds(&world, "version", fix);
    }
    world
        .run(&["upgrade", "--functions", "functions"])
        .exits(1)
        .says("999.0.0");
    world
        .run(&["upgrade", "--functions", "functions", "--allow-downgrade"])
        .exits(0);
    well(&world);
}

/// Records a run that was submitted this long ago, and launched too if asked. Returns its id.
fn plant(world: &World, age: TimeDelta, is_launched: bool) -> String {
    let then = Utc::now() - age;
    let request = SubmitRequest {
        command: Some("true".into()),
        ..SubmitRequest::default()
    };
    let request = request.validate(&Defaults::aws()).unwrap();
    let execution = Execution::submitted(
        ExecutionId::new(then, 1),
        request,
        CapacityPool::FargateSpot,
        &Caller::local("alice"),
        then,
    );
    let store = DynamoStore::of(
        &table::configuration(world.emulator.endpoint()),
        "mycli-default",
        90,
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        store.create(&execution, None).await.unwrap();
        if is_launched {
            store
                .update(&execution, launching(&execution, then), &[])
                .await
                .unwrap();
        }
    });
    execution.id.to_string()
}

#[test]
fn a_backlog_that_stands_still() {
    let world = World::with_stack();
    plant(&world, TimeDelta::minutes(50), false);
    well(&world);
    let id = plant(&world, TimeDelta::minutes(130), false);
    finds(&world, "runs", &format!("mycli status {id}"));
}

#[test]
fn a_launch_that_comes_to_nothing() {
    let world = World::with_stack();
    plant(&world, TimeDelta::minutes(10), true);
    well(&world);
    let id = plant(&world, TimeDelta::minutes(20), true);
    finds(&world, "runs", &format!("mycli cancel {id}"));
}

#[test]
fn an_api_that_is_not_where_it_was() {
    let world = World::with_stack();
    let text = fs::read_to_string(world.config()).unwrap();
    let elsewhere = text.replace("/_aws/execute-api/", "/_aws/execute-api/x");
    fs::write(world.config(), elsewhere).unwrap();
    finds(&world, "API", "mycli init");
    world.init(&[]).exits(0);
    well(&world);
}

/// Returns the `log writers` check: verdict, detail, fix.
fn writers(world: &World) -> (String, String, String) {
    let checks = world.run(&["doctor", "-o", "json"]).exits(0).json()["checks"].clone();
    let check = checks
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["name"] == "log writers")
        .unwrap()
        .clone();
    let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("detail"), text("fix"))
}

fn allow(action: &str, resource: &str) -> Value {
    json!({"Effect": "Allow", "Action": action, "Resource": resource})
}

/// Administrators are only named. A function's role that may write every log is a warning with a
/// fix. A role that may write only its own group, or that a denial stops, is not reported.
#[test]
fn foreign_writers_of_the_logs_of_tasks() {
    let world = World::with_stack();
    let (verdict, detail, _) = writers(&world);
    assert_eq!(
        (verdict.as_str(), detail.contains("only the stack itself")),
        ("ok", true),
        "{detail}"
    );
    let stream = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/mycli/default:*";
    world.make_role_with(
        "own-group",
        &[allow(
            "logs:*",
            "arn:aws:logs:*:*:log-group:/aws/lambda/own-group:*",
        )],
    );
    let denial = json!({"Effect": "Deny", "Action": "logs:PutLogEvents", "Resource": stream});
    world.make_role_with("kept-away", &[allow("logs:*", "*"), denial]);
    world.make_role_with("administrator", &[allow("*", "*")]);
    let (verdict, detail, _) = writers(&world);
    assert_eq!(
        (
            verdict.as_str(),
            detail.ends_with(
                "administrators can write into the streams of tasks: role/administrator"
            )
        ),
        ("ok", true),
        "{detail}"
    );
    world.make_role_with(
        "thumbnails",
        &[allow("logs:PutLogEvents", "arn:aws:logs:*:*:*")],
    );
    world.make_member("alice", "arn:aws:iam::aws:policy/CloudWatchLogsFullAccess");
    let (verdict, detail, fix) = writers(&world);
    assert_eq!(verdict, "warning");
    assert!(
        detail.starts_with("role/thumbnails, user/alice can write into the streams of tasks"),
        "{detail}"
    );
    assert!(
        fix.contains("permissions boundary") && fix.contains(stream),
        "{fix}"
    );
    let shown = world.run(&["doctor"]).exits(0);
    assert!(shown.out.contains("warning  log writers"), "{shown:#?}");
}

/// A task's command that may write there would be the worst case, so the stack's own task role is
/// checked too.
#[test]
fn foreign_writers_are_commands_too_if_the_owner_gives_them_every_log() {
    let world = World::new();
    world
        .init(&[
            "--parameter",
            "TaskRolePolicyArns=arn:aws:iam::aws:policy/CloudWatchLogsFullAccess",
        ])
        .exits(0);
    let (verdict, detail, _) = writers(&world);
    assert!(
        verdict == "warning" && detail.contains("-TaskRole-"),
        "{verdict}: {detail}"
    );
}

#[test]
fn foreign_writers_are_not_known_where_iam_says_nothing() {
    let denied = |call: &str| {
        let call = call.to_owned();
        World::on(Emulator::with(|command| {
            command.env("MYCLI_TESTS_DENIED", call);
        }))
    };
    let world = denied("iam:GetAccountAuthorizationDetails");
    world.init(&[]).exits(0);
    let (verdict, detail, fix) = writers(&world);
    assert_eq!((verdict.as_str(), fix.as_str()), ("unknown", ""));
    assert!(
        detail.contains("not authorized to perform: iam:GetAccountAuthorizationDetails"),
        "{detail}"
    );
    let world = denied("iam:SimulatePrincipalPolicy");
    world.init(&[]).exits(0);
    world.make_role_with("thumbnails", &[allow("logs:*", "*")]);
    let (verdict, detail, _) = writers(&world);
    assert_eq!(verdict, "unknown");
    assert!(
        detail.contains("whether role/thumbnails")
            && detail.contains("iam:SimulatePrincipalPolicy"),
        "{detail}"
    );
}

#[test]
fn no_credentials() {
    let world = World::new();
    let mut command = world.user.command(&["doctor", "-o", "json"]);
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let ran = tests::sandbox::Ran::from(command.output().unwrap()).exits(1);
    let checks = ran.json()["checks"].clone();
    assert_eq!(
        (checks.as_array().unwrap().len(), &checks[0]["name"]),
        (1, &"credentials".into()),
        "{checks}"
    );
}
