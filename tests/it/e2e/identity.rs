//! The submitter of a run: a principal, whatever its key is called and however often the key is
//! rotated.

use serde_json::{Value, json};
use tests::sandbox::{Sandbox, Serve};

/// Runs the command line with this key.
fn with_key(
    serve: &Serve,
    sandbox: &Sandbox,
    key: &str,
    arguments: &[&str],
) -> tests::sandbox::Ran {
    let mut command = serve.command(sandbox, arguments);
    command.env("MYCLI_API_KEY", key);
    tests::sandbox::Running::of(command).end()
}

fn create(serve: &Serve, sandbox: &Sandbox, name: &str) -> String {
    serve
        .run(sandbox, &["keys", "create", name, "--role", "submit"])
        .exits(0)
        .out
        .trim()
        .to_owned()
}

fn whoami(serve: &Serve, sandbox: &Sandbox, key: &str) -> Value {
    with_key(serve, sandbox, key, &["whoami", "-o", "json"])
        .exits(0)
        .json()
}

fn run(serve: &Serve, sandbox: &Sandbox, key: &str, arguments: &[&str]) -> Value {
    let arguments = [&["exec", "--no-repo", "-o", "json"], arguments].concat();
    with_key(serve, sandbox, key, &arguments).exits(0).json()
}

#[test]
fn a_key_that_is_made_again_inherits_nothing() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let first = create(&serve, &sandbox, "ci");
    let before = run(
        &serve,
        &sandbox,
        &first,
        &["--idempotency-key", "job-1", "true"],
    );
    assert_eq!(
        before["submitted_by_id"],
        whoami(&serve, &sandbox, &first)["principal"]
    );
    serve.run(&sandbox, &["keys", "revoke", "ci"]).exits(0);

    let second = create(&serve, &sandbox, "ci");
    assert_ne!(
        whoami(&serve, &sandbox, &second)["principal"],
        before["submitted_by_id"]
    );
    let after = run(
        &serve,
        &sandbox,
        &second,
        &["--idempotency-key", "job-1", "true"],
    );
    assert_ne!(
        after["execution_id"], before["execution_id"],
        "the claim was another's"
    );
    let mine = with_key(
        &serve,
        &sandbox,
        &second,
        &["history", "--by", "me", "-o", "json"],
    )
    .exits(0)
    .json();
    assert_eq!(mine["executions"].as_array().unwrap().len(), 1, "{mine}");
    let named = with_key(
        &serve,
        &sandbox,
        &second,
        &["history", "--by", "ci", "-o", "json"],
    )
    .exits(0)
    .json();
    assert_eq!(
        named["executions"].as_array().unwrap().len(),
        2,
        "a name is for people"
    );
    let latest = with_key(&serve, &sandbox, &second, &["status", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(latest["execution_id"], after["execution_id"]);
    serve.stop().exits(0);
}

#[test]
fn a_key_that_is_rotated_stays_the_same_principal_and_the_old_one_is_good_for_a_while() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let old = create(&serve, &sandbox, "ci");
    let before = run(
        &serve,
        &sandbox,
        &old,
        &["--idempotency-key", "job-1", "true"],
    );
    let rotated = serve
        .run(&sandbox, &["keys", "rotate", "ci"])
        .exits(0)
        .says("the old one works until");
    let new = rotated.out.trim().to_owned();
    assert_ne!(new, old);
    assert_eq!(
        whoami(&serve, &sandbox, &new),
        whoami(&serve, &sandbox, &old)
    );
    assert_eq!(whoami(&serve, &sandbox, &new)["role"], "submit");
    for key in [&new, &old] {
        let again = run(
            &serve,
            &sandbox,
            key,
            &["--idempotency-key", "job-1", "true"],
        );
        assert_eq!(
            again["execution_id"], before["execution_id"],
            "the claim is still its own"
        );
    }
    let table = serve.run(&sandbox, &["keys", "list"]).exits(0).out;
    assert_eq!(
        table.matches("an old key works until").count(),
        1,
        "{table}"
    );
    let listed = serve
        .run(&sandbox, &["keys", "list", "-o", "json"])
        .exits(0)
        .json();
    let names: Vec<_> = listed["keys"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["name"] == "ci")
        .collect();
    assert_eq!(names.len(), 1, "{listed}");
    assert_eq!(names[0]["principal"], before["submitted_by_id"]);

    let rotated = serve
        .run(&sandbox, &["keys", "rotate", "ci", "--now", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(rotated["old_key_until"], json!(null));
    // A server remembers for a minute that a key was accepted, and the keys before were used above.
    // The newest key was never used, so it is refused at once.
    serve.run(&sandbox, &["keys", "revoke", "ci"]).exits(0);
    let newest = rotated["key"].as_str().unwrap();
    with_key(&serve, &sandbox, newest, &["whoami"])
        .exits(1)
        .says("no valid API key");
    serve
        .run(&sandbox, &["keys", "rotate", "nobody"])
        .exits(1)
        .says("there is no key 'nobody'");
    serve.stop().exits(0);
}

/// Somebody may know the key in the server's own file.
#[test]
fn a_server_does_not_make_a_key_good_that_was_rotated() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let old = serve.key.clone();
    let rotated = serve
        .run(&sandbox, &["keys", "rotate", "local-serve"])
        .exits(0)
        .says("put the new one into that file");
    let new = rotated.out.trim().to_owned();
    let submit = create(&serve, &sandbox, "ci");
    serve.stop().exits(0);
    let start = |key: &str| {
        let mut command = sandbox.command(&["local", "serve", "--listen", "127.0.0.1:0"]);
        command.env("MYCLI_API_KEY", key);
        tests::sandbox::Running::of(command)
    };
    start(&old)
        .end()
        .exits(1)
        .says("was rotated: put the new key in its place");
    start(&submit)
        .end()
        .exits(1)
        .says("is the key 'ci' with the role submit");
    std::fs::write(sandbox.store().join("serve.key"), &new).unwrap();
    let serve = sandbox.serve(&[]);
    assert_eq!(whoami(&serve, &sandbox, &new)["name"], "local-serve");
    assert_eq!(
        whoami(&serve, &sandbox, &old)["name"],
        "local-serve",
        "it is good for a day, as was said"
    );
    serve.stop().exits(0);
}

#[test]
fn this_machine_s_user_is_local() {
    let sandbox = Sandbox::new();
    let shown = sandbox.local(&["whoami"]).exits(0).out;
    assert!(
        shown.contains("principal  local") && shown.contains("release    "),
        "{shown}"
    );
    let (_, record) = sandbox.exec(&["true"]);
    assert_eq!(record["submitted_by_id"], "local");
}
