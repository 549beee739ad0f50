//! The functions' AWS calls against the policies of their roles, since the emulator does not check
//! them.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};
use tests::{
    emulator::{ACCOUNT, REGION},
    engine::DEBIAN_GIT,
    policy::{Call, Policy, calls_of},
    template::{Stack, Template},
};

use super::world::World;
use crate::{
    git_server::{Habits, HttpServer},
    infra::roles::ARGUED,
};

const ROLES: [(&str, &str); 4] = [
    ("mycli-default-submit", "SubmitRole"),
    ("mycli-default-query", "QueryRole"),
    ("mycli-default-launcher", "LauncherRole"),
    ("mycli-default-state-tracker", "StateTrackerRole"),
];

/// Uses all that a stack can do.
fn use_all(world: &mut World) {
    let server = HttpServer::new(Habits::default());
    world
        .run_with(&["secrets", "set", "API_PASSWORD"], "hush")
        .exits(0);
    let exec = [
        "exec",
        "--image",
        DEBIAN_GIT,
        "--repo",
        &server.url(),
        "--secret",
        "API_PASSWORD",
        "--lock",
        "a",
        "--artifact",
        "f",
        "cat f",
    ];
    world.run(&exec).exits(0);
    world.run(&["artifacts", "list"]).exits(0);
    world
        .run(&["keys", "create", "ci", "--role", "submit"])
        .exits(0);
    world.run(&["keys", "list"]).exits(0);
    world.run(&["keys", "revoke", "ci"]).exits(0);
    for filter in [
        &[][..],
        &["--by", "alice"],
        &["--status", "failed"],
        &["--status", "waiting"],
        &["--group", "g"],
    ] {
        world.run(&[&["history"], filter].concat()).exits(0);
    }
    let holder = world.detach(&["--lock", "a", "--group", "g", "sleep 300"]);
    world.until(&holder, "RUNNING");
    let waiting = world.detach(&["--lock", "a", "true"]);
    world.until(&waiting, "WAITING");
    world.run(&["status", &waiting[22..]]).exits(0);
    world.run(&["cancel", &waiting]).exits(0);
    world.run(&["cancel", &holder]).exits(0);
    world.until(&holder, "CANCELLED");
    // Only the sweep stops tasks that are past their time and looks up tasks whose events were
    // lost.
    world.lose_events();
    let unheard = world.detach(&["exit 4"]);
    world.until(&unheard, "FAILED");
}

/// Returns the roles of tasks. CloudFormation chooses their names, so they are read from the
/// launcher's environment.
fn task_roles(world: &World) -> impl Iterator<Item = (String, String)> {
    let environment =
        world.function("mycli-default-launcher")["Configuration"]["Environment"]["Variables"]
            .clone();
    [
        ("ExecutionRole.Arn", "MYCLI_EXECUTION_ROLE_ARN"),
        ("TaskRole.Arn", "MYCLI_TASK_ROLE_ARN"),
    ]
    .into_iter()
    .map(move |(name, variable)| {
        (
            name.to_owned(),
            environment[variable].as_str().expect("a role").to_owned(),
        )
    })
}

fn calls(world: &World, stack: &Stack) -> BTreeMap<String, Vec<Call>> {
    let mut calls: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    let log =
        fs::read_to_string(world.emulator.calls_log()).expect("the functions called something");
    for line in log.lines() {
        let call: Value = serde_json::from_str(line).expect("JSON");
        let (function, target) = (
            call["function"].as_str().expect("who"),
            call["target"].as_str().expect("what"),
        );
        calls
            .entry(function.to_owned())
            .or_default()
            .extend(calls_of(target, &call["body"], stack));
    }
    calls
}

#[test]
fn every_call_is_allowed_by_its_role_and_every_permission_is_needed_or_argued() {
    let mut world = World::new();
    // Somebody listens, else nothing is published.
    let rule = json!({"Name": "heard", "EventPattern": json!({"source": ["mycli"]}).to_string()});
    world.ask("events", "AWSEvents.PutRule", &rule);
    use_all(&mut world);
    let mut stack = Stack {
        account: ACCOUNT.into(),
        region: REGION.into(),
        ..Stack::named("default")
    };
    stack.known.extend(task_roles(&world));
    let (template, calls) = (Template::read(), calls(&world, &stack));
    let mut faults = Vec::new();
    for (function, role) in ROLES {
        let (policy, made) = (
            Policy::of_role(&template, role, &stack),
            calls.get(function).cloned().unwrap_or_default(),
        );
        assert!(
            !made.is_empty(),
            "{function} made no call: {:?}",
            calls.keys()
        );
        faults.extend(
            made.iter()
                .filter(|call| !policy.allows(call))
                .map(|call| format!("{function} may not {call:?}")),
        );
        let argued = |action: &&str| {
            ARGUED
                .iter()
                .any(|(for_role, argued, _)| *for_role == role && argued == action)
        };
        faults.extend(
            policy
                .unseen(&made)
                .into_iter()
                .filter(|action| !argued(action))
                .map(|action| format!("{role} has no use for {action}")),
        );
    }
    faults.sort();
    faults.dedup();
    assert!(faults.is_empty(), "{faults:#?}");
}
