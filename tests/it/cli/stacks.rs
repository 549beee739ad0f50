//! Several stacks in one file, and commands that need an AWS account where there is none.

use std::{fs, os::unix::fs::PermissionsExt};

use super::stand_in::{ID, KEY, Mycli, Ran, Reply, StandIn, record};

fn any_run() -> StandIn {
    StandIn::new(|_| Reply::json(&record("RUNNING", None, None)))
}

fn write(mycli: &Mycli, text: &str) {
    fs::create_dir_all(mycli.config().parent().unwrap()).unwrap();
    fs::write(mycli.config(), text).unwrap();
    fs::set_permissions(mycli.config(), fs::Permissions::from_mode(0o600)).unwrap();
}

fn two(one: &StandIn, other: &StandIn) -> Mycli {
    let mycli = Mycli::unconfigured();
    let profile = |name: &str, api: &StandIn, digit: char| {
        let key: String = KEY.chars().take(71).chain([digit]).collect();
        format!(
            "  {name}:\n    endpoint: {}\n    key: {key}\n    region: eu-west-1\n",
            api.endpoint
        )
    };
    write(
        &mycli,
        &format!(
            "stack: one\nstacks:\n{}{}",
            profile("one", one, '1'),
            profile("two", other, '2')
        ),
    );
    mycli
}

#[test]
fn the_stack_is_the_flag_s_else_the_environment_s_else_the_one_in_use() {
    let (one, other) = (any_run(), any_run());
    let mycli = two(&one, &other);
    mycli.run(&["status", ID]).exits(0);
    assert_eq!((one.asked().len(), other.asked().len()), (1, 0));
    mycli.run(&["--stack", "two", "status", ID]).exits(0);
    assert_eq!((one.asked().len(), other.asked().len()), (1, 1));
    Ran::from(
        mycli
            .command(&["status", ID])
            .env("MYCLI_STACK", "two")
            .output()
            .unwrap(),
    )
    .exits(0);
    assert_eq!((one.asked().len(), other.asked().len()), (1, 2));
    mycli.run(&["config", "use", "two"]).exits(0);
    mycli.run(&["status", ID]).exits(0);
    assert_eq!((one.asked().len(), other.asked().len()), (1, 3));
    // Each stack has its own key.
    assert!(other.asked().iter().all(|asked| {
        asked.headers["authorization"]
            .to_str()
            .unwrap()
            .ends_with('2')
    }));
}

#[test]
fn a_stack_s_key_goes_to_that_stack_only() {
    let (one, other, stranger) = (any_run(), any_run(), any_run());
    let mycli = two(&one, &other);
    mycli
        .run(&["--endpoint", &stranger.endpoint, "status", ID])
        .exits(1)
        .says("belongs to another endpoint");
    assert!(stranger.asked().is_empty());
    mycli
        .run(&["--endpoint", &other.endpoint, "status", ID])
        .exits(0);
    assert!(
        other.asked()[0].headers["authorization"]
            .to_str()
            .unwrap()
            .ends_with('2')
    );
}

#[test]
fn stacks_are_listed_changed_and_kept_apart() {
    let (one, other) = (any_run(), any_run());
    let mycli = two(&one, &other);
    let shown = mycli.run(&["config", "show"]).exits(0).out;
    assert!(
        shown.contains("* one") && shown.contains("  two") && shown.contains("eu-west-1"),
        "{shown}"
    );
    assert!(!shown.contains("sk_live_"), "{shown}");
    mycli
        .run(&["--stack", "two", "config", "unset", "key"])
        .exits(0);
    mycli
        .run(&["--stack", "two", "status", ID])
        .exits(1)
        .says("no API key");
    mycli.run(&["status", ID]).exits(0);
    let json = mycli.run(&["config", "show", "-o", "json"]).exits(0).json();
    assert_eq!(
        (&json["stack"], &json["stacks"][1]["key"]),
        (&"one".into(), &false.into()),
        "{json}"
    );
}

#[test]
fn a_stack_that_nobody_knows_is_named_with_those_that_are_known() {
    let (one, other) = (any_run(), any_run());
    let mycli = two(&one, &other);
    mycli
        .run(&["--stack", "three", "status", ID])
        .exits(1)
        .says("there are one, two");
    mycli
        .run(&["config", "use", "three"])
        .exits(1)
        .says("there are one, two");
    mycli
        .run(&["--stack", "Three!", "status", ID])
        .exits(2)
        .says("a-z, 0-9 and -");
}

#[test]
fn without_credentials_each_command_says_how_to_get_some() {
    let mycli = Mycli::unconfigured();
    // Instance metadata is off and the region is given, so this machine's settings do not matter.
    let aws = |arguments: &[&str]| {
        let mut command = mycli.command(arguments);
        command
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_REGION", "eu-west-1");
        Ran::from(command.output().unwrap())
    };
    for arguments in [
        &["init", "--yes"][..],
        &["upgrade"],
        &["destroy", "--yes"],
        &["secrets", "list"],
        &["dead-letters", "list"],
    ] {
        aws(arguments).exits(1).prints("").says("aws configure");
    }
    let ran = aws(&["doctor", "-o", "json"]).exits(1);
    let check = &ran.json()["checks"][0];
    assert_eq!(
        (&check["name"], &check["verdict"]),
        (&"credentials".into(), &"wrong".into()),
        "{ran:#?}"
    );
    let mut command = mycli.command(&["init", "--yes"]);
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ACCESS_KEY_ID", "a")
        .env("AWS_SECRET_ACCESS_KEY", "b");
    Ran::from(command.output().unwrap())
        .exits(1)
        .says("--region");
}

#[test]
fn commands_for_a_stack_do_not_take_this_machine_for_one() {
    Mycli::unconfigured()
        .run(&["--local", "init"])
        .exits(2)
        .says("--stack");
    Mycli::unconfigured()
        .run(&["--local", "--stack", "ci", "status"])
        .exits(2);
}

#[test]
fn the_template_is_shown_without_an_account() {
    let template = Mycli::unconfigured()
        .run(&["init", "--print-template"])
        .exits(0)
        .json();
    assert_eq!(
        template["Resources"]["Api"]["Type"],
        "AWS::ApiGateway::RestApi"
    );
    assert!(template["Resources"]["Api"]["Properties"]["Body"]["paths"]["/execute"].is_object());
}
