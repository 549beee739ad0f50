//! The AWS calls of `init`, `upgrade`, `destroy` and `doctor` against the policies of
//! docs/init-policy. No emulator asks IAM, so `World::run` checks the calls of each of these
//! commands in every test of a deployment.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};
use tests::{
    emulator::{ACCOUNT, REGION},
    operator::{calls_of, documents},
    policy::{Call, Policy},
    template::Stack,
};

use super::world::World;

const VERBS: [&str; 4] = ["init", "upgrade", "destroy", "doctor"];

/// The reason for actions that a request of a registry stands for.
const BY_REGISTRY: &str = "the image is pushed by the registry's own API (ECR User Guide, \"IAM permissions for pushing an image\")";

/// Why routes and endpoints are asked for.
const BY_NETWORK: &str = "doctor looks at a network that the stack did not make";
/// Actions in commands.json that no test here needs, each with the reason for allowing it.
const ARGUED: &[(&str, &str)] = &[
    (
        "cloudformation:ContinueUpdateRollback",
        "a change whose undoing got stuck, which the emulator never has",
    ),
    (
        "dynamodb:BatchGetItem",
        "doctor reads the records of what waits and runs, many at a time",
    ),
    (
        "dynamodb:UpdateItem",
        "init lets the table know the account's quotas, which the emulator does not have",
    ),
    ("ec2:DescribeRouteTables", BY_NETWORK),
    ("ec2:DescribeVpcEndpoints", BY_NETWORK),
    ("ecr:BatchCheckLayerAvailability", BY_REGISTRY),
    (
        "ecr:BatchDeleteImage",
        "init and upgrade remove images that nothing was started from for a month",
    ),
    ("ecr:BatchGetImage", BY_REGISTRY),
    ("ecr:CompleteLayerUpload", BY_REGISTRY),
    ("ecr:GetDownloadUrlForLayer", BY_REGISTRY),
    ("ecr:InitiateLayerUpload", BY_REGISTRY),
    ("ecr:PutImage", BY_REGISTRY),
    ("ecr:UploadLayerPart", BY_REGISTRY),
    ("ecs:StopTask", "destroy stops what still runs"),
    (
        "s3:GetObjectVersion",
        "Lambda reads the functions' code from a bucket with versions",
    ),
    (
        "servicequotas:GetAWSDefaultServiceQuota",
        "an account that never asked for another quota has no value of its own",
    ),
];

fn stack(name: &str) -> Stack {
    Stack {
        account: ACCOUNT.into(),
        region: REGION.into(),
        ..Stack::named(name)
    }
}

/// Returns the requests that the command line has sent to AWS so far.
pub(super) fn requests(world: &World) -> Vec<Value> {
    let log = fs::read_to_string(world.emulator.commands_log()).unwrap_or_default();
    log.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Asserts that the policies allow the requests of a run.
#[track_caller]
pub(super) fn check(arguments: &[&str], requests: &[Value]) {
    if !arguments.iter().any(|argument| VERBS.contains(argument)) {
        return;
    }
    let named = arguments
        .iter()
        .position(|argument| *argument == "--stack")
        .map(|at| arguments[at + 1]);
    let stack = stack(named.unwrap_or("default"));
    let documents = documents(&stack);
    let policy = Policy::of_documents(documents.iter().map(|(_, document)| document));
    let calls = requests
        .iter()
        .flat_map(|request| calls_of(request, &stack));
    let faults: BTreeSet<_> = calls.filter(|call| !policy.allows(call)).collect();
    assert!(
        faults.is_empty(),
        "docs/init-policy does not allow what {arguments:?} asked: {faults:#?}"
    );
}

/// Uses all that these commands can do, and returns their requests. `World::run` checks each of
/// them.
fn use_all(world: &World) -> Vec<Value> {
    world.init(&[]).exits(0);
    world.init(&[]).exits(0);
    let mut asked = requests(world);
    super::life::set_secret(world, "TOKEN", "hunter2");
    let containers = json!([{"name": "main", "image": "ubuntu:22.04"}]);
    let definition =
        json!({"family": "mycli-default-0a1b2c3d", "containerDefinitions": containers});
    world.ask(
        "ecs",
        "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition",
        &definition,
    );
    world.make_role_with(
        "thumbnails",
        &[json!({"Effect": "Allow", "Action": "logs:*", "Resource": "*"})],
    );
    let set_up = requests(world).len();
    world.run(&["doctor"]).exits(0);
    world.package("newer", b"another build");
    world.run(&["upgrade", "--functions", "newer"]).exits(0);
    world.run(&["destroy", "--yes", "--keep-history"]).exits(0);
    world.init(&[]).exits(0);
    world.run(&["destroy", "--yes", "--keep-history"]).exits(0);
    world.run(&["destroy", "--yes"]).exits(0);
    asked.extend_from_slice(&requests(world)[set_up..]);
    asked
}

#[test]
fn every_permission_of_an_init_policy_for_the_commands_is_needed_or_argued() {
    let world = World::new();
    let asked = use_all(&world);
    let stack = stack("default");
    let calls: Vec<Call> = asked
        .iter()
        .flat_map(|request| calls_of(request, &stack))
        .collect();
    let documents = documents(&stack);
    let (_, commands) = documents
        .iter()
        .find(|(name, _)| name == "commands.json")
        .expect("it is there");
    let policy = Policy::of_documents([commands]);
    let argued = |action: &str| ARGUED.iter().any(|(argued, _)| *argued == action);
    let unseen: Vec<_> = policy
        .unseen(&calls)
        .into_iter()
        .filter(|action| !argued(action))
        .collect();
    assert!(unseen.is_empty(), "nothing needs {unseen:#?}");
    for (action, why) in ARGUED {
        assert!(
            policy.actions().contains(action),
            "{action} is not allowed, though {why}"
        );
    }
}

/// The check finds a call that is not allowed.
#[test]
fn a_call_that_an_init_policy_does_not_allow_is_found() {
    let request = json!({"service": "s3", "operation": "DeleteBucket", "method": "DELETE", "path": "/payroll", "parameters": {}});
    let found =
        std::panic::catch_unwind(|| check(&["destroy", "--yes"], std::slice::from_ref(&request)));
    assert!(found.is_err());
    check(&["secrets", "list"], &[request]);
}
