//! The API against its document, with requests that the document allows and requests that it
//! forbids.

use std::{fs, process::Command};

use rustix::process::Signal;
use serde_json::Value;
use tests::{sandbox::Sandbox, world::World};

use crate::{e2e::api::Http, infra::api::document};

/// Random requests for each operation: in every run, and in a long one.
const CASES: (u32, u32) = (20, 1_000);

/// See `tests/infra/openapi.sh`.
fn check(sandbox: &Sandbox, endpoint: &str, key: &str, cases: u32, excluded: &str) {
    let file = sandbox.path("openapi.json");
    fs::write(&file, plain(document()).to_string()).unwrap();
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/infra/openapi.sh"));
    command
        .arg(&file)
        .arg(endpoint)
        .arg(cases.to_string())
        .env("KEY", key)
        .env("EXCLUDED", excluded);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let asked = said
        .lines()
        .find_map(|line| line.trim().split_once(" generated")?.0.parse::<u32>().ok());
    assert!(asked.is_some_and(|asked| asked > 500), "{said}");
}

/// Removes API Gateway's extensions.
fn plain(mut document: Value) -> Value {
    if let Value::Object(keys) = &mut document {
        keys.retain(|name, _| !name.starts_with("x-amazon-"));
        keys.values_mut()
            .for_each(|value| *value = plain(value.take()));
    }
    document
}

/// Random commands must never run on this machine: all runs but the first wait for hours to be
/// launched.
fn check_here(cases: u32) {
    let sandbox = Sandbox::new();
    let held_back = ["--launch-rate", "0.0001"];
    let serve = sandbox.serve(&held_back);
    serve.run(&sandbox, &["exec", "--no-repo", "true"]).exits(0);
    check(&sandbox, &serve.endpoint, &serve.key, cases, "");
    // A supervisor takes over the waiting runs and keeps to the server's launch rate. One of the
    // requests may have revoked the server's key; a starting server sets it again.
    serve.stop().exits(0);
    let serve = sandbox.serve(&held_back);
    let http = Http::to(&serve);
    let over = ["SUCCEEDED", "FAILED", "TIMED_OUT", "LOST", "RUNNING"]
        .map(|status| http.history(&format!("status={status}&limit=200")));
    assert_eq!(over.concat().len(), 1, "nothing else ran: {over:#?}");
    // Nobody may run them later either.
    sandbox
        .processes()
        .into_iter()
        .for_each(|process| process.signal(Signal::KILL));
}

fn check_stack(cases: u32) {
    let world = World::with(&["SpotVcpus=1", "OnDemandVcpus=1"]);
    for capacity in ["--spot", "--on-demand"] {
        let holder = world.detach(&[capacity, "--cpu", "1024", "--timeout", "1h", "sleep 3600"]);
        world.until(&holder, "RUNNING");
    }
    let (endpoint, key) = world.api();
    // Excluded: a path that does not take the method. API Gateway answers that itself, and the
    // emulator differently.
    check(&world.user, &endpoint, &key, cases, "unsupported_method");
}

#[test]
fn what_the_document_says_of_the_api_is_so_here() {
    check_here(CASES.0);
}

#[test]
#[ignore = "nightly: minutes"]
fn what_the_document_says_of_the_api_is_so_here_at_length() {
    check_here(CASES.1);
}

#[test]
#[ignore = "nightly: minutes"]
fn container_what_the_document_says_of_the_api_is_so_on_a_stack() {
    check_stack(CASES.0 * 5);
}
