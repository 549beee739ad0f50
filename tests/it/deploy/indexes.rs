//! Upgrades to a table with other indexes. Like AWS, the emulator refuses more than one index in an
//! update and takes time to build one (`tests/emulated.py`).

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use super::world::World;

/// Writes this version's template with a change to its table into a file.
fn template(world: &World, name: &str, change: impl FnOnce(&mut Value)) {
    let mut template = world.run(&["init", "--print-template"]).exits(0).json();
    change(&mut template["Resources"]["Table"]["Properties"]);
    fs::write(world.user.path(name), template.to_string()).unwrap();
}

fn add(table: &mut Value, attribute: &str) {
    table["AttributeDefinitions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"AttributeName": attribute, "AttributeType": "S"}));
    table["GlobalSecondaryIndexes"].as_array_mut().unwrap().push(json!({
        "IndexName": format!("by_{attribute}"), "Projection": {"ProjectionType": "KEYS_ONLY"},
        "KeySchema": [{"AttributeName": attribute, "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    }));
}

fn drop_by_group(table: &mut Value) {
    table["AttributeDefinitions"]
        .as_array_mut()
        .unwrap()
        .retain(|one| one["AttributeName"] != "grp");
    table["GlobalSecondaryIndexes"]
        .as_array_mut()
        .unwrap()
        .retain(|one| one["IndexName"] != "by_group");
}

fn upgrade(template: &str) -> [&str; 5] {
    [
        "upgrade",
        "--functions",
        "functions",
        "--template",
        template,
    ]
}

/// Returns the names of the table's indexes, sorted.
fn indexes(world: &World) -> Vec<String> {
    let described = world.ask(
        "dynamodb",
        "DynamoDB_20120810.DescribeTable",
        &json!({"TableName": "mycli-default"}),
    );
    let indexes = described["Table"]["GlobalSecondaryIndexes"]
        .as_array()
        .unwrap();
    let mut names: Vec<_> = indexes
        .iter()
        .map(|index| index["IndexName"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Returns those of the texts that occur, in the order of their occurrence.
fn order<'a>(said: &str, texts: &[&'a str]) -> Vec<&'a str> {
    let mut found: Vec<_> = texts
        .iter()
        .filter_map(|text| Some((said.find(text)?, *text)))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, text)| text).collect()
}

/// Returns how many completed updates of the stack were reported.
fn updates(said: &str) -> usize {
    said.matches(" UPDATE_COMPLETE mycli-default (AWS::CloudFormation::Stack)")
        .count()
}

const OURS: [&str; 3] = ["by_group", "by_standing", "by_submitter"];

#[test]
fn an_upgrade_adds_and_drops_one_index_at_a_time_and_can_go_back() {
    let world = World::with_stack();
    template(&world, "next.json", |table| {
        drop_by_group(table);
        add(table, "repo");
        add(table, "image");
    });
    let ran = world
        .run(&upgrade("next.json"))
        .exits(0)
        .says("changed the stack");
    let steps = [
        "adding the index by_repo (1 of 2)",
        "the index by_repo is being built",
        "adding the index by_image (2 of 2)",
        "the index by_image is being built",
        "changing everything but the indexes",
        "dropping the index by_group (1 of 1)",
    ];
    assert_eq!(order(&ran.err, &steps), steps, "{ran:#?}");
    assert_eq!(updates(&ran.err), 4, "{ran:#?}");
    assert_eq!(
        indexes(&world),
        ["by_image", "by_repo", "by_standing", "by_submitter"]
    );
    world
        .run(&upgrade("next.json"))
        .exits(0)
        .says("nothing to change");
    let back = world.run(&["upgrade", "--functions", "functions"]).exits(0);
    let steps = [
        "adding the index by_group (1 of 1)",
        "dropping the index by_repo (1 of 2)",
        "by_image (2 of 2)",
    ];
    assert_eq!(order(&back.err, &steps), steps, "{back:#?}");
    assert_eq!(indexes(&world), OURS);
    world.run(&["history"]).exits(0);
}

#[test]
fn an_upgrade_that_was_stopped_goes_on_where_it_was_and_switches_nothing_before() {
    let world = World::with_stack();
    let before = world.parameter("CodePrefix");
    world.package("newer", b"another build");
    template(&world, "next.json", |table| {
        add(table, "repo");
        add(table, "image");
    });
    let arguments = ["upgrade", "--functions", "newer", "--template", "next.json"];
    let mut stopped = world
        .user
        .command(&arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(stopped.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let line = lines
        .find(|line| line.contains("by_repo is being built"))
        .expect("it says what it waits for");
    assert!(line.contains("Ctrl-C"), "{line}");
    stopped.kill().unwrap();
    stopped.wait().unwrap();
    assert_eq!(
        world.parameter("CodePrefix"),
        before,
        "the functions are switched only once they have their indexes"
    );
    let ran = world.run(&arguments).exits(0);
    let steps = [
        "the index by_repo is being built",
        "adding the index by_image (1 of 1)",
    ];
    assert_eq!(order(&ran.err, &steps), steps, "{ran:#?}");
    assert_eq!(
        indexes(&world),
        [
            "by_group",
            "by_image",
            "by_repo",
            "by_standing",
            "by_submitter"
        ]
    );
    assert_ne!(world.parameter("CodePrefix"), before);
}

#[test]
fn an_upgrade_without_new_indexes_is_one_update() {
    let world = World::with_stack();
    let ran = world
        .run(&["upgrade", "--functions", "functions", "--vcpus-spot", "7"])
        .exits(0);
    assert!(
        !ran.err.contains("index") && updates(&ran.err) == 1,
        "{ran:#?}"
    );
}

#[test]
fn a_changed_index_and_a_changed_key_are_refused_with_what_to_do() {
    let world = World::with_stack();
    template(&world, "changed.json", |table| {
        table["GlobalSecondaryIndexes"][1]["Projection"] = json!({"ProjectionType": "ALL"});
    });
    world
        .run(&upgrade("changed.json"))
        .exits(1)
        .says("the index by_group")
        .says("a new name");
    template(&world, "moved.json", |table| {
        table["KeySchema"][1]["AttributeName"] = json!("place");
    });
    world
        .run(&upgrade("moved.json"))
        .exits(1)
        .says("another key");
    assert_eq!(indexes(&world), OURS);
    world
        .run(&["upgrade", "--functions", "functions"])
        .exits(0)
        .says("nothing to change");
}
