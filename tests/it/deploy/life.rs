//! A stack's life: it is created, updated, removed, and its history kept.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tests::sandbox::Ran;

use super::world::World;

fn template(world: &World) -> Value {
    world.run(&["init", "--print-template"]).exits(0).json()
}

#[test]
fn init_makes_a_stack_and_again_changes_nothing() {
    let world = World::new();
    let ran = world
        .init(&[])
        .exits(0)
        .prints("")
        .says("made the stack mycli-default")
        .says("accepts your key");
    assert!(
        ran.err.contains("quota cannot be read"),
        "no Service Quotas there, and nobody said so: {ran:#?}"
    );
    let config = fs::read_to_string(world.config()).unwrap();
    assert_eq!(
        fs::metadata(world.config()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!ran.err.contains("sk_live_"), "{ran:#?}");
    assert_eq!(
        world.run(&["history", "-o", "json"]).exits(0).json()["executions"],
        json!([])
    );
    world.init(&[]).exits(0).says("nothing to change");
    assert_eq!(
        world.init(&["-o", "json"]).exits(0).json()["change"],
        "nothing"
    );
    assert_eq!(fs::read_to_string(world.config()).unwrap(), config);
    assert!(!world.describe("mycli-default").1.contains("UPDATE"));
}

#[test]
fn a_release_finds_the_functions_beside_itself() {
    let world = World::new();
    world.package("release/functions", b"");
    let program = world.user.path("release/mycli");
    fs::copy(tests::mycli(), &program).unwrap();
    let user = world.user.command(&[]);
    let environment = user
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    let mut release = Command::new(program);
    release
        .arg("init")
        .env_clear()
        .envs(environment)
        .current_dir(world.user.path(""))
        .stdin(Stdio::null());
    Ran::from(release.output().unwrap())
        .exits(0)
        .says("made the stack mycli-default");
}

#[test]
fn the_code_is_kept_in_a_private_bucket() {
    let world = World::with_stack();
    for (query, holds) in [
        ("?versioning", "<Status>Enabled</Status>"),
        ("?encryption", "AES256"),
        (
            "?publicAccessBlock",
            "<RestrictPublicBuckets>true</RestrictPublicBuckets>",
        ),
        ("?policy", "aws:SecureTransport"),
        ("?tagging", "mycli:stack"),
        ("?list-type=2", "/state-tracker.zip"),
    ] {
        let (status, text) = world.bucket(query);
        assert!(
            status == 200 && text.contains(holds),
            "{query}: {status} {text}"
        );
    }
}

#[test]
fn what_is_missing_is_made_again() {
    let world = World::with_stack();
    fs::remove_file(world.config()).unwrap();
    world
        .init(&[])
        .exits(0)
        .says("nothing to change")
        .says("key `alice-2`");
    world.run(&["history"]).exits(0);
}

#[test]
fn a_template_fault_names_the_resource_and_the_reason_and_the_next_run_goes_on() {
    let world = World::new();
    let mut broken = template(&world);
    broken["Resources"]["Broken"] = json!({"Type": "AWS::Lambda::Url", "Properties": {"TargetFunctionArn": "nobody", "AuthType": "AWS_IAM"}});
    fs::write(world.user.path("broken.json"), broken.to_string()).unwrap();
    let ran = world
        .init(&["--template", "broken.json"])
        .exits(1)
        .says("ROLLBACK_COMPLETE");
    ran.says("Broken (AWS::Lambda::Url) CREATE_FAILED: Lambda function not found")
        .says("run this again");
    assert!(!world.config().exists());
    world.run(&["doctor"]).exits(1);
    world
        .init(&[])
        .exits(0)
        .says("removing what it left")
        .says("accepts your key");
    // An update that fails is rolled back, and the stack stays usable.
    world
        .run(&[
            "upgrade",
            "--functions",
            "functions",
            "--template",
            "broken.json",
        ])
        .exits(1)
        .says("Broken");
    world.run(&["history"]).exits(0);
    world.init(&[]).exits(0);
}

#[test]
fn wrong_parameters_are_refused_before_anything_is_made() {
    let world = World::new();
    world
        .init(&["--parameter", "RetentionDay=3"])
        .exits(1)
        .says("its parameters are")
        .says("RetentionDays");
    world
        .init(&["--parameter", "Version=3"])
        .exits(1)
        .says("cannot be set");
    world.init(&["--functions", "nowhere"]).exits(2);
    world
        .run(&["init", "--functions", "nowhere"])
        .exits(1)
        .says("just package");
    assert_eq!(
        (
            world.describe("mycli-default").0,
            world.bucket("?versioning").0
        ),
        (400, 404)
    );
}

#[test]
fn an_upgrade_changes_the_code_and_keeps_the_parameters() {
    let world = World::new();
    world
        .run(&["upgrade", "--functions", "functions"])
        .exits(1)
        .says("mycli init");
    world
        .init(&["--parameter", "RetentionDays=30", "--vcpus-spot", "12"])
        .exits(0);
    let before = world.parameter("CodePrefix");
    world.package("newer", b"another build");
    let ran = world
        .run(&["upgrade", "--functions", "newer", "-o", "json"])
        .exits(0);
    assert_eq!(
        (&ran.json()["change"], &ran.json()["version"]),
        (&json!("changed"), &json!("0.1.0"))
    );
    assert_ne!(world.parameter("CodePrefix"), before);
    assert_eq!(
        (
            world.parameter("RetentionDays"),
            world.parameter("SpotVcpus")
        ),
        ("30".into(), "12".into())
    );
    world
        .run(&["upgrade", "--functions", "newer", "--vcpus-spot", "64"])
        .exits(0)
        .says("changed the stack");
    assert_eq!(
        (
            world.parameter("RetentionDays"),
            world.parameter("SpotVcpus")
        ),
        ("30".into(), "64".into())
    );
    world.run(&["history"]).exits(0);
}

#[track_caller]
pub(super) fn set_secret(world: &World, name: &str, value: &str) {
    let mut command = world.user.command(&["secrets", "set", name]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(value.as_bytes())
        .unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap())
        .exits(0)
        .prints("");
    assert!(!ran.err.contains(value), "{ran:#?}");
}

fn ssm_names(world: &World) -> Vec<Value> {
    let answer = world.ask("ssm", "AmazonSSM.DescribeParameters", &json!({}));
    answer["Parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["Name"].clone())
        .collect()
}

#[test]
fn a_secret_is_kept_where_only_tasks_read_it() {
    let world = World::with_stack();
    set_secret(&world, "TOKEN", "hunter2-of-the-stack");
    assert_eq!(ssm_names(&world), ["/mycli/default/secrets/TOKEN"]);
    let listed = world.run(&["secrets", "list"]).exits(0).out;
    assert!(
        listed.contains("TOKEN") && listed.contains("submit") && !listed.contains("hunter2"),
        "{listed}"
    );
    world.run(&["secrets", "remove", "TOKEN"]).exits(0);
    assert!(ssm_names(&world).is_empty());
    world.run(&["secrets", "remove", "TOKEN"]).exits(1);
}

#[test]
fn destroy_leaves_nothing_and_can_be_run_again() {
    let world = World::with_stack();
    set_secret(&world, "TOKEN", "hunter2-of-the-stack");
    world.run(&["destroy"]).exits(2).says("--yes");
    assert_eq!(world.describe("mycli-default").0, 200);
    world
        .run(&["destroy", "--yes"])
        .exits(0)
        .says("removed mycli-default");
    assert_eq!(
        (
            world.describe("mycli-default").0,
            world.bucket("?versioning").0
        ),
        (400, 404)
    );
    assert!(ssm_names(&world).is_empty());
    assert_eq!(
        world.ask("dynamodb", "DynamoDB_20120810.ListTables", &json!({}))["TableNames"],
        json!([])
    );
    assert_eq!(fs::read_to_string(world.config()).unwrap(), "");
    world
        .run(&["destroy", "--yes"])
        .exits(0)
        .says("nothing left");
}

/// Returns DynamoDB's description of the stack's table.
fn table(world: &World) -> Value {
    world.ask(
        "dynamodb",
        "DynamoDB_20120810.DescribeTable",
        &json!({"TableName": "mycli-default"}),
    )["Table"]
        .clone()
}

fn tables(world: &World) -> Value {
    world.ask("dynamodb", "DynamoDB_20120810.ListTables", &json!({}))["TableNames"].clone()
}

#[test]
fn a_kept_history_is_taken_up_by_the_next_stack() {
    let world = World::with_stack();
    let record = json!({"pk": {"S": "X"}, "sk": {"S": "before"}});
    let item = |operation: &str, field: &str| {
        let call = json!({"TableName": "mycli-default", field: record});
        world.ask("dynamodb", &format!("DynamoDB_20120810.{operation}"), &call)
    };
    item("PutItem", "Item");
    let ran = world
        .run(&["destroy", "--yes", "--force", "--keep-history"])
        .exits(0);
    ran.says("its history stays in the table mycli-default, and the next `mycli init` reuses it");
    assert_eq!(
        (tables(&world), world.describe("mycli-default").0),
        (json!(["mycli-default"]), 400)
    );
    let made = table(&world)["CreationDateTime"].clone();
    world
        .init(&[])
        .exits(0)
        .says("taking the history in the table mycli-default into the new stack")
        .says("accepts your key");
    assert_eq!(
        table(&world)["CreationDateTime"],
        made,
        "it is the same table"
    );
    assert_eq!(item("GetItem", "Key")["Item"], record);
    let tags = world.ask(
        "dynamodb",
        "DynamoDB_20120810.ListTagsOfResource",
        &json!({"ResourceArn": table(&world)["TableArn"]}),
    );
    assert!(!tags.to_string().contains("mycli:kept"), "{tags}");
    world.init(&[]).exits(0).says("nothing to change");
    // It is now a stack like any other, and its contents are removed with it.
    world
        .run(&["destroy", "--yes", "--force"])
        .exits(0)
        .says("removed mycli-default");
    assert_eq!(tables(&world), json!([]));
}

#[test]
fn taking_up_a_kept_history_goes_on_where_it_was_cut_short() {
    let world = World::with_stack();
    world.run(&["destroy", "--yes", "--keep-history"]).exits(0);
    let mut broken = template(&world);
    broken["Resources"]["Broken"] = json!({"Type": "AWS::Lambda::Url", "Properties": {"TargetFunctionArn": "nobody", "AuthType": "AWS_IAM"}});
    fs::write(world.user.path("broken.json"), broken.to_string()).unwrap();
    world
        .init(&["--template", "broken.json"])
        .exits(1)
        .says("taking the history")
        .says("Broken");
    assert_eq!(tables(&world), json!(["mycli-default"]));
    world
        .init(&[])
        .exits(0)
        .says("made the stack mycli-default")
        .says("accepts your key");
    world.init(&[]).exits(0).says("nothing to change");
}

#[test]
fn a_kept_history_can_be_removed_for_good() {
    let world = World::with_stack();
    world.run(&["destroy", "--yes", "--keep-history"]).exits(0);
    world.run(&["destroy", "--yes"]).exits(0).says("removed");
    assert_eq!(tables(&world), json!([]));
    world.init(&[]).exits(0);
}

#[test]
fn a_table_of_somebody_elses_is_left_alone() {
    let world = World::new();
    let key = json!([{"AttributeName": "id", "KeyType": "HASH"}]);
    let attributes = json!([{"AttributeName": "id", "AttributeType": "S"}]);
    let foreign = json!({
        "TableName": "mycli-default", "BillingMode": "PAY_PER_REQUEST", "KeySchema": key, "AttributeDefinitions": attributes
    });
    world.ask("dynamodb", "DynamoDB_20120810.CreateTable", &foreign);
    world
        .init(&[])
        .exits(1)
        .says("there is a table mycli-default that mycli did not make")
        .says("--stack");
    world
        .run(&["destroy", "--yes"])
        .exits(0)
        .says("nothing left");
    assert_eq!(tables(&world), json!(["mycli-default"]));
}

/// Deleting the stack or the table in the console must not delete the history.
#[test]
fn the_history_is_protected_against_deletion() {
    let world = World::with_stack();
    assert_eq!(table(&world)["DeletionProtectionEnabled"], json!(true));
    let unprotected = json!({"TableName": "mycli-default", "DeletionProtectionEnabled": false});
    world.ask("dynamodb", "DynamoDB_20120810.UpdateTable", &unprotected);
    world.init(&[]).exits(0).says("nothing to change");
    assert_eq!(table(&world)["DeletionProtectionEnabled"], json!(true));
    world.run(&["destroy", "--yes"]).exits(0);
    assert_eq!(tables(&world), json!([]));
}

#[test]
fn two_stacks_live_side_by_side() {
    let world = World::with_stack();
    world
        .init(&["--stack", "ci"])
        .exits(0)
        .says("mycli config use ci");
    let shown = world.run(&["config", "show", "-o", "json"]).exits(0).json();
    assert_eq!(
        (&shown["stack"], shown["stacks"].as_array().unwrap().len()),
        (&json!("default"), 2),
        "{shown}"
    );
    assert_ne!(
        shown["stacks"][0]["endpoint"],
        shown["stacks"][1]["endpoint"]
    );
    world.run(&["--stack", "ci", "history"]).exits(0);
    world.run(&["destroy", "--stack", "ci", "--yes"]).exits(0);
    world.run(&["history"]).exits(0);
    assert_eq!(world.describe("mycli-default").0, 200);
}
