//! The rights of each key, and texts that are no keys.

use reqwest::Method;
use serde_json::{Value, json};
use tests::sandbox::Sandbox;

use crate::{
    e2e::api::{Answer, Http},
    infra::api::{document, operations},
};

const ROLES: [&str; 3] = ["read", "submit", "admin"];

/// The least role that an operation takes, according to its description, or nothing if no key
/// opens it.
fn least(operation: &Value) -> Option<usize> {
    if operation["security"] == json!([{"attempt": []}]) {
        return None;
    }
    let said = operation["description"].as_str().unwrap();
    let role = said
        .split_once("A key of role `")
        .and_then(|(_, rest)| rest.split_once('`'))
        .unwrap()
        .0;
    Some(ROLES.iter().position(|known| *known == role).unwrap())
}

/// Calls every operation with a key of every role, once with a body that would do something and
/// once with an unreadable one.
pub(crate) fn check_roles(call: impl Fn(&Method, &str, &str, &Value) -> Answer, admin: &str) {
    let document = document();
    let make = |name: &str, role: &str| {
        let made = call(
            &Method::POST,
            "/keys",
            admin,
            &json!({"name": name, "role": role}),
        );
        assert_eq!(made.status, 201, "{made:#?}");
        made.body["key"].as_str().unwrap().to_owned()
    };
    let keys = ROLES.map(|role| make(role, role));
    let run = call(
        &Method::POST,
        "/execute",
        admin,
        &json!({"command": "true"}),
    )
    .body["execution_id"]
        .clone();
    let runs = || {
        call(&Method::GET, "/executions?limit=200", admin, &Value::Null).body["executions"]
            .as_array()
            .unwrap()
            .len()
    };
    for (method, path, operation) in operations(&document) {
        let filled = path
            .replace("{id}", run.as_str().unwrap())
            .replace("{name}", "nobody");
        for (role, key) in keys.iter().enumerate() {
            let body = match &*path {
                "/executions/bulk" => {
                    json!({"submission_id": ROLES[role], "executions": [{"command": "true"}]})
                }
                "/keys" => json!({"name": format!("made-by-{}", ROLES[role]), "role": "admin"}),
                _ => json!({"command": "true"}),
            };
            let has_body = operation["requestBody"].is_object();
            let before = runs();
            let answer = call(
                &method,
                &filled,
                key,
                if has_body { &body } else { &Value::Null },
            );
            let what = format!("{method} {path} by {}: {answer:#?}", ROLES[role]);
            let Some(least) = least(&operation) else {
                assert_eq!(
                    (answer.status, &answer.body["code"]),
                    (401, &json!("unauthorized")),
                    "{what}"
                );
                continue;
            };
            if role >= least {
                assert!(answer.status != 401 && answer.status != 403, "{what}");
                continue;
            }
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (403, &json!("forbidden")),
                "{what}"
            );
            assert_eq!(runs(), before, "{what}");
            if has_body {
                // A caller without permission does not see what is wrong with the body.
                let unreadable = call(&method, &filled, key, &json!("no such request"));
                assert_eq!(
                    unreadable.body["code"], "forbidden",
                    "{method} {path}: {unreadable:#?}"
                );
            }
        }
    }
    let names = call(&Method::GET, "/keys", admin, &Value::Null)
        .body
        .to_string();
    assert!(
        names.contains("made-by-admin")
            && !names.contains("made-by-submit")
            && !names.contains("made-by-read"),
        "{names}"
    );
}

#[test]
fn a_key_opens_what_its_role_allows_and_nothing_else() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let mut http = Http::to(&serve);
    let admin = serve.key.clone();
    let http = std::cell::RefCell::new(&mut http);
    let call = |method: &Method, path: &str, key: &str, body: &Value| {
        let mut http = http.borrow_mut();
        http.key = Some(format!("Bearer {key}"));
        http.send(
            method.clone(),
            path,
            if body.is_null() {
                Vec::new()
            } else {
                body.to_string().into_bytes()
            },
        )
    };
    check_roles(call, &admin);
}

#[test]
fn what_is_nearly_a_key_is_none() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let mut http = Http::to(&serve);
    let right = serve.key.clone();
    let revoked = http
        .post("/keys", &json!({"name": "gone", "role": "admin"}))
        .body["key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        http.send(Method::DELETE, "/keys/gone", Vec::new()).status,
        200
    );
    let bearer = |key: &str| format!("Bearer {key}").into_bytes();
    let wrong = [
        bearer(&revoked),
        bearer(&format!("{right}0")),
        bearer(&format!("{right} ")),
        bearer(&format!(" {right}")),
        bearer(&format!("{right}\t")),
        bearer(&format!("\t{right}")),
        bearer(&format!("{right},{right}")),
        bearer(&format!("{right}=")),
        bearer(&right[..71]),
        bearer(&right[8..]),
        bearer(&right.to_uppercase()),
        bearer(&right.replace("sk_live_", "SK_LIVE_")),
        bearer(&right.replace("sk_live_", "sk_test_")),
        bearer(&format!("sk_live_{}", right[8..].to_uppercase())),
        // The same digits of another alphabet; a letter that looks like the right one; bytes that
        // are not text.
        bearer(&format!("sk_live_{}", "\u{ff11}".repeat(64))),
        bearer(&right.replacen('k', "\u{43a}", 1)),
        [&bearer(&right)[..], b"\xff"].concat(),
        format!("Bearer  {right}").into_bytes(),
        format!("Bearer\t{right}").into_bytes(),
        format!("Token {right}").into_bytes(),
        b"Bearer".to_vec(),
        bearer(&"x".repeat(10_000)),
    ];
    for header in wrong {
        let said = String::from_utf8_lossy(&header).into_owned();
        let answer = super::wire::ask(
            &serve,
            &[
                b"GET /keys HTTP/1.1\r\nAuthorization: ",
                &header[..],
                b"\r\n",
            ]
            .concat(),
            b"",
        );
        // White space around a header's value is not part of it (RFC 9110, section 5.5).
        if said.trim() == format!("Bearer {right}") && said.ends_with([' ', '\t']) {
            assert_eq!(answer.status, 200, "{said:?}");
            continue;
        }
        assert_eq!(
            (answer.status, answer.code()),
            (401, "unauthorized".to_owned()),
            "{said:?}: {answer:#?}"
        );
    }
    // The scheme's name is case-insensitive (RFC 9110, section 11.1).
    let lower = format!("GET /keys HTTP/1.1\r\nAuthorization: bearer {right}\r\n");
    assert_eq!(super::wire::ask(&serve, lower.as_bytes(), b"").status, 200);
    http.key = None;
    assert_eq!(http.get("/keys").status, 401);
}
