//! The API's OpenAPI document against the code: routes, requests, answers. No emulator shows how
//! API Gateway reads the document.

use std::{collections::BTreeSet, fs};

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use domain::{
    api::Problem,
    request::{Changes, Scalar, SubmitRequest},
};
use pipeline::http::Route;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tests::{
    sandbox::{Sandbox, eventually},
    schema,
    template::Template,
};

use crate::e2e::api::{Answer, Http};

const METHODS: [Method; 5] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

pub(crate) fn document() -> Value {
    Template::read().resource("Api")["Properties"]["Body"].clone()
}

/// Returns each operation: method, documented path, and the operation object.
pub(crate) fn operations(document: &Value) -> Vec<(Method, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| {
            (
                method.to_uppercase().parse().unwrap(),
                path.clone(),
                operation.clone(),
            )
        })
    });
    each.collect()
}

fn route(method: &Method, path: &str) -> Result<Route, Problem> {
    let mut request = ApiGatewayProxyRequest::default();
    request.http_method = method.clone();
    request.path = Some(path.replace("{id}", "exec_1").replace("{name}", "ci"));
    Route::of(&request)
}

/// Returns where a route is documented. A new route does not compile until it is added here.
fn documented(route: &Route) -> (Method, &'static str) {
    match route {
        Route::Execute => (Method::POST, "/execute"),
        Route::Bulk => (Method::POST, "/executions/bulk"),
        Route::List => (Method::GET, "/executions"),
        Route::Get(_) => (Method::GET, "/executions/{id}"),
        Route::Logs(_) => (Method::GET, "/executions/{id}/logs"),
        Route::Artifacts(_) => (Method::GET, "/executions/{id}/artifacts"),
        Route::AttemptRequest(_) => (Method::GET, "/attempts/{id}/request"),
        Route::Upload(_) => (Method::POST, "/attempts/{id}/uploads"),
        Route::Cancel(_) => (Method::POST, "/executions/{id}/cancel"),
        Route::Rerun(_) => (Method::POST, "/executions/{id}/rerun"),
        Route::ListKeys => (Method::GET, "/keys"),
        Route::CreateKey => (Method::POST, "/keys"),
        Route::RevokeKey(_) => (Method::DELETE, "/keys/{name}"),
        Route::RotateKey(_) => (Method::POST, "/keys/{name}/rotate"),
        Route::Group(_) => (Method::GET, "/groups/{group}"),
        Route::CancelGroup(_) => (Method::POST, "/groups/{group}/cancel"),
        Route::RerunGroup(_) => (Method::POST, "/groups/{group}/rerun-failed"),
        Route::Backlogs => (Method::GET, "/backlogs"),
        Route::Stats => (Method::GET, "/stats"),
        Route::Whoami => (Method::GET, "/whoami"),
        Route::Version => (Method::GET, "/version"),
    }
}

const ROUTES: usize = 21;

/// A launcher of the old release would start runs with files without them, and a task calls routes
/// that are new. So what accepts such requests is changed last.
#[test]
fn an_upgrade_changes_what_takes_requests_after_what_runs_them() {
    let template = Template::read();
    let after = &template.resource("SubmitFunction")["DependsOn"];
    assert_eq!(*after, json!(["LauncherFunction", "Stage"]));
}

#[test]
fn the_documented_routes_are_those_there_are() {
    let (document, template) = (document(), Template::read());
    let operations = operations(&document);
    for (method, path, operation) in &operations {
        let route = route(method, path).unwrap();
        assert_eq!(documented(&route), (method.clone(), path.as_str()));
        // A function's permissions depend on its routes: a route that reads must not reach the
        // function that writes.
        let function = if route.is_read() {
            "QueryFunction"
        } else {
            "SubmitFunction"
        };
        let uri = operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"]
            .as_str()
            .unwrap();
        let name = template.resource(function)["Properties"]["FunctionName"]["Fn::Sub"].clone();
        let name = name.as_str().expect("a name");
        assert!(
            uri.contains(&format!(":function:{name}/invocations")),
            "{method} {path}: {uri}"
        );
        // API Gateway may call a function only for the methods and paths that its permission names.
        let permission = if route.is_read() {
            "QueryPermission"
        } else {
            "SubmitPermission"
        };
        let allowed = template.resource(permission)["Properties"]["SourceArn"]["Fn::Sub"]
            .as_str()
            .unwrap();
        let allowed = allowed
            .split_once("/prod/")
            .unwrap()
            .1
            .strip_suffix('*')
            .expect("a pattern");
        assert!(
            format!("{method}{path}").starts_with(allowed),
            "{method} {path}: {allowed}"
        );
    }
    assert_eq!(operations.len(), ROUTES);
    let known: BTreeSet<_> = operations
        .iter()
        .map(|(method, path, _)| (method.to_string(), path.clone()))
        .collect();
    for path in document["paths"].as_object().unwrap().keys() {
        // A GET of `/executions/bulk` reads as `/executions/{id}` with the id `bulk`.
        for method in METHODS.iter().filter(|_| path != "/executions/bulk") {
            let is_known = known.contains(&(method.to_string(), path.clone()));
            assert_eq!(route(method, path).is_ok(), is_known, "{method} {path}");
        }
    }
}

/// Returns the schemas that have an example, each with its example.
fn examples(document: &Value) -> Vec<(String, Value, Value)> {
    let mut found = Vec::new();
    for (method, path, operation) in operations(document) {
        let answers = operation["responses"].as_object().unwrap().values();
        for content in answers
            .chain([&operation["requestBody"]])
            .flat_map(|part| part["content"].as_object().into_iter().flatten())
        {
            let (schema, example) = (&content.1["schema"], &content.1["example"]);
            if !example.is_null() {
                found.push((format!("{method} {path}"), schema.clone(), example.clone()));
            }
        }
    }
    found
}

#[test]
fn examples_are_as_their_schemas_say() {
    let document = document();
    let examples = examples(&document);
    assert!(examples.len() >= 10, "{}", examples.len());
    for (what, schema, example) in examples {
        assert_eq!(
            schema::faults(&document, &schema, &example),
            [""; 0],
            "{what}: {example}"
        );
    }
}

#[test]
fn examples_of_requests_are_accepted() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let document = document();
    let run = http.submit(&json!({"command": "true", "group": "nightly"}));
    for (method, path, operation) in operations(&document) {
        let example = &operation["requestBody"]["content"]["application/json"]["example"];
        // One machine has no routes for runners; `uploads` has requests of theirs.
        if example.is_null() || path.starts_with("/attempts/") {
            continue;
        }
        // There is no Docker, no network and no such secret here. It is enough that the request is
        // understood.
        let mut example = example.clone();
        for keys in ["", "/changes"] {
            if let Some(keys) = example.pointer_mut(keys).and_then(Value::as_object_mut) {
                keys.retain(|key, _| {
                    !["repo", "branch", "image", "secrets", "add_secrets"].contains(&key.as_str())
                });
            }
        }
        let path_to = path
            .replace("{id}", &run)
            .replace("{name}", "ci")
            .replace("{group}", "nightly");
        let answer = http.post(&path_to, &example);
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path}: {answer:#?}"
        );
        is_as_documented(&document, &method, &path, &answer);
    }
}

/// Asserts that the status is documented and that the body matches its schema.
#[track_caller]
fn is_as_documented(document: &Value, method: &Method, path: &str, answer: &Answer) {
    let operation = &document["paths"][path][method.as_str().to_lowercase()];
    let response = &operation["responses"][answer.status.to_string()];
    assert!(
        !response.is_null(),
        "{method} {path} does not document {answer:#?}"
    );
    let schema = &response["content"][answer.kind.as_str()]["schema"];
    assert!(
        !schema.is_null(),
        "{method} {path} {} documents no {}",
        answer.status,
        answer.kind
    );
    let faults = schema::faults(document, schema, &answer.body);
    assert!(
        faults.is_empty(),
        "{method} {path}: {faults:#?} in {answer:#?}"
    );
    if let Some(code) = answer.body["code"]
        .as_str()
        .filter(|_| answer.status >= 400)
    {
        let said = response["description"].as_str().unwrap();
        assert!(
            said.contains(&format!("`{code}`")),
            "{method} {path} {}: {code} is not in {said:?}",
            answer.status
        );
    }
}

#[test]
fn answers_are_as_documented() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let document = document();
    let ask = |method: Method, documented: &str, path: &str, body: &Value, status: u16| {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let answer = http.send(method.clone(), path, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:#?}");
        is_as_documented(&document, &method, documented, &answer);
        answer
    };
    let get = |documented: &str, path: &str, status: u16| {
        ask(Method::GET, documented, path, &Value::Null, status)
    };
    let post = |documented: &str, path: &str, body: Value, status: u16| {
        ask(Method::POST, documented, path, &body, status)
    };

    let first = http.submit(
        &json!({"command": "echo out; exit 3", "env": {"A": "b"}, "name": "first", "group": "g"}),
    );
    http.until_quiet();
    let record = get("/executions/{id}", &format!("/executions/{first}"), 200);
    assert_eq!(record.body["exit_code"], 3);
    let shown: BTreeSet<_> = record.body.as_object().unwrap().keys().cloned().collect();
    let described = &document["components"]["schemas"]["Execution"]["properties"];
    assert_eq!(
        shown,
        described.as_object().unwrap().keys().cloned().collect()
    );
    get(
        "/executions/{id}/logs",
        &format!("/executions/{first}/logs"),
        200,
    );
    get(
        "/executions",
        "/executions?group=g&by=me&limit=5&status=FAILED&since=2020-01-01T00:00:00Z",
        200,
    );
    get("/executions", "/executions?state=FAILED", 422);
    get("/executions", "/executions?limit=0", 422);
    get(
        "/executions/{id}",
        "/executions/exec_00000000000000000000000000",
        404,
    );
    get(
        "/executions/{id}",
        &format!("/executions/{first}?all=1"),
        422,
    );
    get(
        "/executions/{id}/logs",
        &format!("/executions/{first}/logs?cursor=*"),
        422,
    );
    post(
        "/executions/{id}/cancel",
        &format!("/executions/{first}/cancel"),
        Value::Null,
        409,
    );
    post(
        "/executions/{id}/cancel",
        "/executions/exec_00000000000000000000000000/cancel",
        Value::Null,
        404,
    );

    let rerun = |id: &str, body: Value, status: u16| {
        post(
            "/executions/{id}/rerun",
            &format!("/executions/{id}/rerun"),
            body,
            status,
        )
    };
    let again = rerun(&first, Value::Null, 202);
    rerun(
        &first,
        json!({"name": "again", "idempotency_key": "r"}),
        202,
    );
    rerun(
        &first,
        json!({"name": "another", "idempotency_key": "r"}),
        409,
    );
    rerun(&first, json!({"action": "exec"}), 400);
    rerun(&first, json!({"name": null}), 400);
    rerun(&first, json!({"cpu": 3}), 422);
    rerun(&first, json!({"command": "x".repeat(2 * 1024 * 1024)}), 413);
    rerun("exec_00000000000000000000000000", json!({}), 404);
    rerun("exec_", json!({}), 409);
    assert_ne!(again.body["execution_id"], first);

    post("/execute", "/execute", json!({}), 422);
    post("/execute", "/execute", json!({"comand": "x"}), 400);
    post(
        "/execute",
        "/execute",
        json!({"command": "x".repeat(2 * 1024 * 1024)}),
        413,
    );
    post(
        "/execute",
        "/execute",
        json!({"command": "true", "idempotency_key": "k"}),
        202,
    );
    post(
        "/execute",
        "/execute",
        json!({"command": "false", "idempotency_key": "k"}),
        409,
    );
    let bulk = |executions: Value| json!({"submission_id": "s", "executions": executions});
    post(
        "/executions/bulk",
        "/executions/bulk",
        bulk(json!([{"command": "true"}, {}])),
        202,
    );
    post("/executions/bulk", "/executions/bulk", bulk(json!([])), 422);
    post(
        "/executions/bulk",
        "/executions/bulk",
        json!({"executions": []}),
        400,
    );

    let reader = post(
        "/keys",
        "/keys",
        json!({"name": "reader", "role": "read"}),
        201,
    );
    let made = post(
        "/keys",
        "/keys",
        json!({"name": "ci", "role": "submit"}),
        201,
    );
    post(
        "/keys",
        "/keys",
        json!({"name": "ci", "role": "submit"}),
        409,
    );
    post(
        "/keys",
        "/keys",
        json!({"name": "-", "role": "submit"}),
        422,
    );
    post("/keys", "/keys", json!({"name": "x", "role": "root"}), 400);
    get("/keys", "/keys", 200);
    let limited = Http::to(&serve).with_key(made.body["key"].as_str().unwrap());
    is_as_documented(&document, &Method::GET, "/keys", &limited.get("/keys"));
    let reading = Http::to(&serve).with_key(reader.body["key"].as_str().unwrap());
    for (documented, path) in [
        ("/executions/{id}", format!("/executions/{first}")),
        ("/executions", "/executions".into()),
    ] {
        is_as_documented(&document, &Method::GET, documented, &reading.get(&path));
    }
    ask(
        Method::DELETE,
        "/keys/{name}",
        "/keys/ci",
        &Value::Null,
        200,
    );
    ask(
        Method::DELETE,
        "/keys/{name}",
        "/keys/ci",
        &Value::Null,
        404,
    );
    let unknown = Http::to(&serve).with_key("sk_live_no");
    for (method, path, _) in operations(&document) {
        let answer = unknown.send(
            method.clone(),
            &path.replace("{id}", "a").replace("{name}", "a"),
            Vec::new(),
        );
        assert_eq!(answer.status, 401, "{answer:#?}");
        is_as_documented(&document, &method, &path, &answer);
    }
}

/// What is not known yet is null, and a waiting run says why it waits.
#[test]
fn records_of_every_kind_are_as_documented() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["--vcpus", "0.25"]);
    let http = Http::to(&serve);
    let document = document();
    let check = |id: &str| {
        let answer = http.get(&format!("/executions/{id}"));
        is_as_documented(&document, &Method::GET, "/executions/{id}", &answer);
        answer.body
    };
    let gate = sandbox.path("go");
    let first = http.submit(
        &json!({"command": format!("until test -e '{}'; do sleep 0.05; done", gate.display())}),
    );
    eventually("it runs", || {
        (check(&first)["status"] == "RUNNING").then_some(())
    });
    let second = http.submit(&json!({"command": "true"}));
    eventually("the other waits", || {
        (!check(&second)["waiting"].is_null()).then_some(())
    });
    let never =
        http.submit(&json!({"command": "true", "repo": "file:///nowhere", "branch": "main"}));
    fs::write(gate, "").unwrap();
    http.until_quiet();
    for id in [first, second, never.clone()] {
        check(&id);
    }
    assert_eq!(check(&never)["exit_code"], Value::Null);
    is_as_documented(
        &document,
        &Method::GET,
        "/executions",
        &http.get("/executions?limit=2"),
    );
}

fn whole_request() -> SubmitRequest {
    SubmitRequest {
        action: text(),
        command: Some("text".into()),
        repo: text(),
        branch: text(),
        depth: Some(Scalar::from("full")),
        submodules: Some(true),
        lfs: Some(false),
        image: text(),
        env: [("A".to_owned(), "b".to_owned())].into(),
        secrets: vec!["S".into()],
        timeout: Some(Scalar::from("1h")),
        cpu: Some(Scalar::from("256")),
        memory: Some(Scalar::from("512")),
        storage: Some(Scalar::from("50")),
        arch: text(),
        capacity: text(),
        lock: text(),
        group: text(),
        max_parallel: Some(3),
        priority: Some(1),
        retries: Some(1),
        retry_on: vec!["spot".into()],
        name: text(),
        artifacts: vec!["dist/**".into()],
        artifacts_on: text(),
        idempotency_key: text(),
        task_role: text(),
        registry_secret: text(),
    }
}

/// Asserts that a schema accepts `whole`, a value with every key of the Rust type, and has the same
/// keys.
#[track_caller]
fn check_keys(schema: &str, whole: &impl Serialize) {
    let document = document();
    let schema = &document["components"]["schemas"][schema];
    let whole = serde_json::to_value(whole).unwrap();
    assert_eq!(schema::faults(&document, schema, &whole), [""; 0]);
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(keys(&schema["properties"]), keys(&whole));
}

#[test]
fn the_keys_of_a_request_are_those_of_the_code() {
    check_keys("SubmitRequest", &whole_request());
    check_keys("Changes", &Changes::from(whole_request()));
}

fn text() -> Option<String> {
    Some("x".into())
}

/// API Gateway refuses a body before a function sees it, so it must not refuse what the function
/// would accept. There is one exception: a key that is null. Its schemas cannot allow that, and the
/// document does not promise it.
#[test]
fn what_the_schema_refuses_the_code_refuses_too() {
    check_refusals("SubmitRequest", |body| {
        serde_json::from_value::<SubmitRequest>(body.clone()).is_err()
    });
    check_refusals("Changes", |body| {
        serde_json::from_value::<Changes>(body.clone()).is_err()
    });
}

fn check_refusals(schema: &str, refused_by_code: impl Fn(&Value) -> bool) {
    let document = document();
    let schema = &document["components"]["schemas"][schema];
    let refused_by_schema = |body: &Value| !schema::faults(&document, schema, body).is_empty();
    for (key, property) in schema["properties"].as_object().unwrap() {
        for value in [
            json!("x"),
            json!(""),
            json!(1),
            json!(-1),
            json!(1.5),
            json!(true),
            json!([]),
            json!(["x"]),
            json!([1]),
            json!({}),
            json!({"A": "b"}),
            json!({"A": 1}),
        ] {
            let mut body = json!({"command": "true"});
            body[key] = value;
            if refused_by_schema(&body) {
                assert!(refused_by_code(&body), "{body}");
            } else if !property["type"].is_null() {
                assert!(!refused_by_code(&body), "{body}");
            }
        }
    }
    let misspelt = json!({"command": "true", "comand": "true"});
    assert!(refused_by_schema(&misspelt) && refused_by_code(&misspelt));
}

/// API Gateway's own answers are problem documents like those of the functions, once its variables
/// are filled in.
#[test]
fn what_api_gateway_answers_itself_is_a_problem_too() {
    let document = document();
    let responses = document["x-amazon-apigateway-gateway-responses"]
        .as_object()
        .unwrap();
    for (kind, response) in responses {
        let template = response["responseTemplates"]["application/json"]
            .as_str()
            .unwrap();
        // Of all variables, API Gateway escapes only this one. Any other may hold a quote that a
        // client wrote.
        let filled = template.replace("$context.error.messageString", "\"Bad \\\"thing\\\"\"");
        assert!(!filled.contains("$context"), "{kind}: {filled}");
        let problem: Problem = serde_json::from_str(&filled)
            .unwrap_or_else(|error| panic!("{kind}: {error} in {filled}"));
        assert_eq!(response["statusCode"], problem.status.to_string(), "{kind}");
        assert!(
            !problem.code.is_empty() && !problem.title.is_empty(),
            "{kind}"
        );
        let headers = &response["responseParameters"];
        assert_eq!(
            headers["gatewayresponse.header.Content-Type"], "'application/problem+json'",
            "{kind}"
        );
        let may_pass = matches!(problem.status, 429 | 503);
        assert_eq!(
            !headers["gatewayresponse.header.Retry-After"].is_null(),
            may_pass,
            "{kind}"
        );
    }
    for (kind, status) in [
        ("ACCESS_DENIED", "403"),
        ("INVALID_API_KEY", "403"),
        ("EXPIRED_TOKEN", "403"),
        ("WAF_FILTERED", "403"),
    ] {
        assert_eq!(responses[kind]["statusCode"], status, "{kind}");
    }
    for kind in [
        "BAD_REQUEST_BODY",
        "MISSING_AUTHENTICATION_TOKEN",
        "THROTTLED",
        "REQUEST_TOO_LARGE",
        "INTEGRATION_TIMEOUT",
        "DEFAULT_4XX",
        "DEFAULT_5XX",
    ] {
        assert!(responses.contains_key(kind), "{kind}");
    }
}
