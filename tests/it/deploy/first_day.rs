//! What `init` finds in a real account and leaves there.

use std::fs;

use serde_json::{Value, json};
use tests::emulator::Emulator;

use super::world::World;

const OTHERS: &str = "arn:aws:iam::000000000000:role/others";

/// Nobody ever used ECS in this account. Its service-linked role is missing, and after its creation
/// cannot be used at once.
#[test]
fn a_new_account_gets_ecs_s_service_linked_role_and_the_stack_a_second_try() {
    let world = World::on(Emulator::with(|command| {
        command.env("MYCLI_TESTS_NEW_ACCOUNT", "1");
    }));
    let ran = world
        .init(&[])
        .exits(0)
        .says("made ECS's service-linked role")
        .says("trying again");
    ran.says("Unable to assume the service linked role")
        .says("accepts your key");
    world.init(&[]).exits(0).says("nothing to change");
}

#[test]
fn an_account_with_short_arns_is_told_to_opt_in() {
    let world = World::new();
    let setting = |value| json!({"name": "taskLongArnFormat", "value": value});
    world.ask(
        "ecs",
        "AmazonEC2ContainerServiceV20141113.PutAccountSettingDefault",
        &setting("disabled"),
    );
    world
        .init(&[])
        .exits(1)
        .says("put-account-setting-default --name taskLongArnFormat --value enabled");
    assert_eq!(
        (
            world.describe("mycli-default").0,
            world.bucket("?versioning").0
        ),
        (400, 404)
    );
    world.ask(
        "ecs",
        "AmazonEC2ContainerServiceV20141113.PutAccountSettingDefault",
        &setting("enabled"),
    );
    world.init(&[]).exits(0);
}

/// IAM has no regions. So a role for this stack must not also be for the stack of the same name in
/// another region.
#[test]
fn roles_for_runs_are_of_one_region() {
    let world = World::with_stack();
    assert_eq!(world.parameter("TaskRolePath"), "/mycli/default.us-east-1/");
    world
        .init(&["--parameter", "TaskRolePath=/teams/one/"])
        .exits(0);
    assert_eq!(world.parameter("TaskRolePath"), "/teams/one/");
}

#[test]
fn a_log_role_that_is_set_is_kept_and_said_so() {
    let world = World::new();
    world.make_role("others", "apigateway.amazonaws.com");
    world.set_gateway_log_role(OTHERS);
    world
        .init(&[])
        .exits(0)
        .says(&format!("API Gateway logs with {OTHERS}"))
        .says("keeping that role");
    assert_eq!(world.gateway_log_role().as_deref(), Some(OTHERS));
    assert!(
        !world
            .roles()
            .iter()
            .any(|role| role.contains("GatewayRole")),
        "{:?}",
        world.roles()
    );
    world.run(&["destroy", "--yes"]).exits(0);
    assert_eq!(world.gateway_log_role().as_deref(), Some(OTHERS));
    assert!(world.roles().contains(&"others".to_owned()));
}

#[test]
fn a_log_role_that_is_gone_is_replaced() {
    let world = World::new();
    world.set_gateway_log_role(OTHERS);
    world.init(&[]).exits(0).says("which no longer exists");
    assert!(
        world
            .gateway_log_role()
            .is_some_and(|arn| arn.contains("GatewayRole"))
    );
}

/// The second stack logs with the role of the first one. The role is removed with the last of the
/// two stacks.
#[test]
fn our_own_log_role_goes_with_the_last_stack_that_uses_it() {
    let world = World::with_stack();
    let role = world.gateway_log_role().expect("init made one");
    world
        .init(&["--stack", "ci"])
        .exits(0)
        .says(&format!("API Gateway logs with {role}"));
    world
        .run(&["destroy", "--yes"])
        .exits(0)
        .says("stays: other APIs of this region");
    assert_eq!(world.gateway_log_role(), Some(role));
    world
        .run(&["destroy", "--stack", "ci", "--yes"])
        .exits(0)
        .says("the log role of API Gateway");
    assert_eq!(world.gateway_log_role(), None);
    assert!(
        !world
            .roles()
            .iter()
            .any(|role| role.contains("GatewayRole")),
        "{:?}",
        world.roles()
    );
}

/// A stack from before zones were parameters has its subnets in the zones that CloudFormation
/// found. They stay there.
#[test]
fn a_stack_of_before_keeps_the_zones_of_its_subnets() {
    let world = World::new();
    let mut old: Value = world.run(&["init", "--print-template"]).exits(0).json();
    let resources = old["Resources"].as_object_mut().unwrap();
    for (subnet, index) in [("SubnetA", 2), ("SubnetB", 1)] {
        let zone = json!({"Fn::Select": [index, {"Fn::GetAZs": {"Ref": "AWS::Region"}}]});
        resources[subnet]["Properties"]["AvailabilityZone"] = zone;
    }
    for name in ["SubnetC", "RouteOfSubnetC"] {
        resources.remove(name);
    }
    let subnets = json!({"Fn::Join": [",", [{"Ref": "SubnetA"}, {"Ref": "SubnetB"}]]});
    resources["LauncherFunction"]["Properties"]["Environment"]["Variables"]["MYCLI_SUBNETS"] =
        subnets;
    for name in ["MakeThirdSubnet", "HasZones"] {
        old["Conditions"].as_object_mut().unwrap().remove(name);
    }
    resources_without_nat(&mut old);
    for name in ["ZoneA", "ZoneB", "ZoneC"] {
        old["Parameters"].as_object_mut().unwrap().remove(name);
    }
    fs::write(world.user.path("old.json"), old.to_string()).unwrap();
    world.init(&["--template", "old.json"]).exits(0);
    world.init(&[]).exits(0);
    assert_eq!(
        ["ZoneA", "ZoneB", "ZoneC"].map(|name| world.parameter(name)),
        ["us-east-1c", "us-east-1b", ""]
    );
    world.init(&["--stack", "new"]).exits(0);
    let zones = ["ZoneA", "ZoneB", "ZoneC"].map(|name| world.parameter_of("mycli-new", name));
    assert_eq!(zones, ["us-east-1a", "us-east-1b", "us-east-1c"]);
}

fn resources_without_nat(template: &mut Value) {
    let resources = template["Resources"].as_object_mut().unwrap();
    resources.retain(|name, _| !name.contains("Nat"));
    let route = resources["InternetRoute"]["Properties"]
        .as_object_mut()
        .unwrap();
    route.remove("NatGatewayId");
    route.insert("GatewayId".into(), json!({"Ref": "InternetGateway"}));
}
