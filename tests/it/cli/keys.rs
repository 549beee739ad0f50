//! API keys over the API.

use serde_json::json;

use super::stand_in::{KEY, Mycli, Reply, StandIn};

#[test]
fn a_new_key_is_printed_once_and_nothing_else_is() {
    let made = json!({"name": "ci", "role": "submit", "key": KEY});
    let api = StandIn::new(move |_| Reply::json(&made));
    let ran = Mycli::on(&api)
        .run(&["keys", "create", "ci", "--role", "submit"])
        .exits(0)
        .prints(&format!("{KEY}\n"));
    assert!(!ran.err.contains(KEY), "{ran:#?}");
    let asked = api.asked().remove(0);
    assert_eq!(
        (asked.line().as_str(), asked.json()),
        ("POST /keys", json!({"name": "ci", "role": "submit"}))
    );
}

#[test]
fn a_key_is_asked_for_once_whatever_becomes_of_it() {
    let api = StandIn::new(|_| Reply::status(503));
    Mycli::on(&api)
        .run(&["keys", "create", "ci", "--role", "read"])
        .exits(1);
    assert_eq!(api.lines(), ["POST /keys"]);
    let gone = api.endpoint.clone();
    drop(api);
    let mycli = Mycli::unconfigured();
    let ran = mycli
        .run(&[
            "--endpoint",
            &gone,
            "keys",
            "create",
            "ci",
            "--role",
            "read",
        ])
        .exits(1);
    assert!(ran.err.contains("no API key"), "{ran:#?}");
}

#[test]
fn a_name_that_is_taken_is_told_in_the_api_s_words() {
    let api = StandIn::new(|_| {
        Reply::problem(
            409,
            "name_taken",
            "there is a key 'ci'; revoke it first",
            &json!([]),
        )
    });
    Mycli::on(&api)
        .run(&["keys", "create", "ci", "--role", "admin"])
        .exits(1)
        .prints("")
        .says("revoke it first");
}

#[test]
fn keys_are_listed_without_themselves_and_revoked_by_name() {
    let api = StandIn::new(|asked| match asked.line().as_str() {
        "GET /keys" => Reply::json(
            &json!({"keys": [{"name": "ci", "role": "submit", "created_at": "2026-01-02T03:04:05Z"}]}),
        ),
        _ => Reply::json(&json!({"revoked": "ci"})),
    });
    let mycli = Mycli::on(&api);
    let listed = mycli.run(&["keys", "list"]).exits(0).out;
    let row: Vec<_> = listed
        .lines()
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .take(2)
        .collect();
    assert_eq!(row, ["ci", "submit"], "{listed}");
    assert_eq!(
        mycli.run(&["keys", "list", "-o", "json"]).exits(0).json()["keys"][0]["name"],
        "ci"
    );
    mycli
        .run(&["keys", "revoke", "ci"])
        .exits(0)
        .says("another minute");
    assert_eq!(api.lines().last().unwrap(), "DELETE /keys/ci");
}

#[test]
fn a_role_has_to_be_chosen() {
    Mycli::unconfigured()
        .run(&["keys", "create", "ci"])
        .exits(2)
        .says("--role");
}
