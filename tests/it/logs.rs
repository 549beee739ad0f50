//! The logs of mycli's own processes: their form, their fields, the audit lines, and the queries of
//! docs/LOGGING.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    net::TcpStream,
    path::Path,
};

use aws::system::System;
use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use domain::{
    id::ExecutionId,
    message::Outgoing,
    ports::{PortError, Queue},
};
use pipeline::{auth::Auth, submit::Submit};
use serde_json::{Value, json};
use shape::{log_fields, sources};
use tests::{
    insights::{InsightsQuery, Row},
    logged,
    memory::MemoryStore,
    sandbox::{Ran, Sandbox, Serve},
    simulation::{self, chaos},
    world,
};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn manual() -> String {
    fs::read_to_string(root().join("docs/LOGGING.md")).unwrap()
}

/// The names in the first column of the manual's tables.
fn documented() -> BTreeSet<String> {
    let manual = manual();
    let cells = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    let names = cells.flat_map(|(names, _)| names.split(", "));
    names
        .map(|name| name.trim_matches('`'))
        .filter(|name| !name.contains(' '))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_manual_lists_every_field_and_no_other() {
    let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut of_spans, mut of_events) = (BTreeSet::new(), BTreeSet::new());
    for source in sources::all(root()).unwrap() {
        if !source.is_shipped {
            continue;
        }
        assert!(!log_fields::is_hidden(&source), "{}", source.path);
        for (field, places) in log_fields::of(&source).unwrap() {
            for place in places {
                let fields = if place.of_span {
                    &mut of_spans
                } else {
                    &mut of_events
                };
                fields.insert(field.clone());
                let at = format!("{}:{}", source.path, place.line);
                used.entry(field.clone()).or_default().push(at);
            }
        }
    }
    assert!(used.len() > 20, "{used:#?}");
    // A line would have both, and JSON's readers take one of them.
    let both: Vec<_> = of_spans.intersection(&of_events).collect();
    assert!(both.is_empty(), "of spans and of events: {both:?}");
    // The form writes these; `name` is a span's.
    for name in ["timestamp", "level", "message", "name"] {
        let before = used.insert(name.into(), Vec::new());
        assert_eq!(before, None, "{name} is the form's own");
    }
    let documented = documented();
    let unknown: Vec<_> = used
        .iter()
        .filter(|(field, _)| !documented.contains(*field))
        .collect();
    assert!(unknown.is_empty(), "not in docs/LOGGING.md: {unknown:#?}");
    let unused: Vec<_> = documented
        .iter()
        .filter(|field| !used.contains_key(*field))
        .collect();
    assert!(unused.is_empty(), "no line has {unused:?}");
}

/// Below warnings, an SDK logs requests with all that is in them.
#[test]
fn libraries_log_no_details_at_any_level() {
    let log = logged::during(|| {
        tracing::info!(target: "aws_smithy_runtime::client::orchestrator", "a request");
        tracing::warn!(target: "aws_config::profile", "a profile is missing");
        tracing::info!(target: "aws::dynamo::batch", "one of ours");
        tracing::info!(target: "hyper::client", "headers");
    });
    let messages: Vec<_> = rows(&log)
        .iter()
        .map(|row| row["message"].clone())
        .collect();
    assert_eq!(messages, ["a profile is missing", "one of ours"]);
}

/// The queries of the manual, each under its heading.
fn queries() -> BTreeMap<String, String> {
    let manual = manual();
    let sections = manual.split("\n### ").skip(1);
    let query = |section: &str| {
        let (heading, rest) = section.split_once('\n')?;
        let (_, rest) = rest.split_once("\n```text\n")?;
        let (query, _) = rest.split_once("\n```")?;
        Some((heading.to_owned(), query.to_owned()))
    };
    sections.map(|section| query(section).unwrap()).collect()
}

/// The lines of a log, which must all be JSON objects with the same first fields.
#[track_caller]
fn rows(log: &str) -> Vec<Row> {
    let row = |line: &str| -> Row {
        let row: Row = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for field in ["timestamp", "level", "message"] {
            assert!(row.get(field).is_some_and(Value::is_string), "{line}");
        }
        // serde_json takes the last of two fields of one name.
        for field in row.keys() {
            let times = line.matches(&format!("\"{field}\":")).count();
            assert_eq!(times, 1, "{field} in {line}");
        }
        row
    };
    log.lines().map(row).collect()
}

/// A server, some requests of two callers, and its log.
struct Served {
    log: Vec<Row>,
    text: String,
    succeeded: Value,
    request_id: String,
}

impl Served {
    fn post(serve: &Serve, key: &str, path: &str, body: &Value) -> (u16, String, Value) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let request = world::client()
                .post(format!("{}{path}", serve.endpoint))
                .bearer_auth(key)
                .json(body);
            let answer = request.send().await.unwrap();
            let id = answer.headers()["x-amzn-requestid"].to_str().unwrap();
            let (status, id) = (answer.status().as_u16(), id.to_owned());
            (status, id, answer.json().await.unwrap())
        })
    }

    fn new(planted: &str) -> Self {
        let sandbox = Sandbox::new();
        let serve = sandbox.serve(&[]);
        let run = |arguments: &[&str]| serve.run(&sandbox, arguments);
        let ci = run(&["keys", "create", "ci", "--role", "submit"]).exits(0);
        let reader = run(&["keys", "create", "reader", "--role", "read"]).exits(0);
        let (ci, reader) = (ci.out.trim().to_owned(), reader.out.trim().to_owned());
        let with_secret = format!("TOKEN={planted}");
        let done = run(&[
            "exec",
            "--no-repo",
            "--group",
            "nightly",
            "-e",
            &with_secret,
            "-o",
            "json",
            "--",
            "true",
        ]);
        let succeeded = done.exits(0).json();
        let failing = json!({"command": "exit 3", "group": "nightly", "env": {"A": planted}});
        let (status, request_id, failed) = Self::post(&serve, &ci, "/execute", &failing);
        assert_eq!(status, 202, "{failed}");
        let failed = failed["execution_id"].as_str().unwrap();
        drop(run(&["wait", failed]).exits(3));
        let refused = json!({"command": "", "env": {"A": planted}});
        assert_eq!(Self::post(&serve, &ci, "/execute", &refused).0, 422);
        assert_eq!(Self::post(&serve, &reader, "/execute", &failing).0, 403);
        assert_eq!(Self::post(&serve, planted, "/execute", &failing).0, 401);
        let lines = json!({"submission_id": "many", "executions": [
            {"command": "true"}, {"command": "true"}, {"command": ""}
        ]});
        assert_eq!(Self::post(&serve, &ci, "/executions/bulk", &lines).0, 202);
        let cancel = format!("/executions/{failed}/cancel");
        assert_eq!(Self::post(&serve, &ci, &cancel, &json!({})).0, 409);
        drop(run(&["keys", "revoke", "reader"]).exits(0));
        let pasted = format!("/executions/{ci}%0A/cancel");
        assert_eq!(Self::post(&serve, &ci, &pasted, &json!({})).0, 404);
        let Ran { err, .. } = serve.stop().exits(0);
        for key in [&ci, &reader] {
            assert!(!err.contains(key.as_str()), "{err}");
        }
        Self {
            log: rows(&err),
            text: err,
            succeeded,
            request_id,
        }
    }

    fn audits(&self) -> Vec<&Row> {
        let is_audit = |row: &&Row| row["message"] == "audit";
        self.log.iter().filter(is_audit).collect()
    }
}

/// The value of a field, or `null`.
fn value<'r>(row: &'r Row, field: &str) -> &'r Value {
    row.get(field).unwrap_or(&Value::Null)
}

fn values(row: &Row, fields: &[&str]) -> Value {
    fields
        .iter()
        .map(|field| value(row, field).clone())
        .collect()
}

const PLANTED: &str = "planted-4e1f9a7c2b";

#[test]
fn each_change_leaves_one_audit_line_without_values_of_variables() {
    let served = Served::new(PLANTED);
    assert!(!served.text.contains(PLANTED), "{}", served.text);
    let fields = ["caller", "role", "action", "target", "outcome", "code"];
    let audits: Vec<_> = served
        .audits()
        .iter()
        .map(|row| values(row, &fields))
        .collect();
    let failed = served.audits()[3]["execution_id"].clone();
    let expected = [
        json!(["local-serve", "admin", "create_key", "ci", "done", null]),
        json!(["local-serve", "admin", "create_key", "reader", "done", null]),
        json!(["local-serve", "admin", "execute", null, "done", null]),
        json!(["ci", "submit", "execute", null, "done", null]),
        json!([
            "ci",
            "submit",
            "execute",
            null,
            "refused",
            "invalid_request"
        ]),
        json!(["reader", "read", "execute", null, "refused", "forbidden"]),
        json!(["ci", "submit", "bulk", "many", "partly", null]),
        json!(["ci", "submit", "cancel", failed, "refused", "already_final"]),
        json!(["local-serve", "admin", "revoke_key", "reader", "done", null]),
        json!([
            "ci",
            "submit",
            "cancel",
            "sk_live_… ",
            "refused",
            "not_found"
        ]),
    ];
    assert_eq!(audits, expected);
    let bulk = served.audits()[6];
    let counts = values(bulk, &["accepted", "existing", "rejected"]);
    assert_eq!(counts, json!([2, 0, 1]));
    assert_eq!(served.audits()[3]["request_id"], served.request_id);
    for row in served.audits() {
        let principal = row["principal"].as_str().unwrap();
        assert!(principal.starts_with("key:"), "{row:?}");
    }
}

/// The log of the handlers in bad weather.
fn stormy_log() -> Vec<Row> {
    rows(&logged::during(|| {
        for seed in 0..20 {
            let outcome = chaos::run(&chaos::LaunchPlan::drawn(seed));
            assert!(outcome.broken.is_empty(), "{:?}", outcome.broken);
        }
    }))
}

#[test]
fn the_queries_of_the_manual_find_what_they_ask_for() {
    let served = Served::new(PLANTED);
    let storm = stormy_log();
    let documented = documented();
    let mut queries = queries();
    let mut ask = |heading: &str, log: &[Row], replaced: &[(&str, &str)]| {
        let text = queries.remove(heading);
        let text = text.unwrap_or_else(|| panic!("the manual does not ask: {heading}"));
        let text = replaced.iter().fold(text, |text, (shown, real)| {
            assert!(text.contains(shown), "{heading}");
            text.replace(shown, real)
        });
        let query = InsightsQuery::parse(&text).unwrap_or_else(|e| panic!("{heading}: {e}"));
        for field in query.reads() {
            let name = field.trim_start_matches('@');
            let is_lambdas = ["type", "record.status"].contains(&name);
            assert!(
                is_lambdas || documented.contains(name),
                "{heading}: {field}"
            );
        }
        query.run(log)
    };

    let changes = ask("Who changed what?", &served.log, &[]);
    assert_eq!(changes.len(), 10);
    assert_eq!(changes[1]["action"], "revoke_key", "the newest comes first");

    let refused = ask("Which requests were refused, and why?", &served.log, &[]);
    let refused: BTreeSet<_> = refused
        .iter()
        .map(|row| values(row, &["caller", "action", "code", "requests"]).to_string())
        .collect();
    let expected = [
        json!(["ci", "bulk", null, 1]),
        json!(["ci", "cancel", "already_final", 1]),
        json!(["ci", "cancel", "not_found", 1]),
        json!(["ci", "execute", "invalid_request", 1]),
        json!(["reader", "execute", "forbidden", 1]),
    ];
    assert_eq!(refused, expected.map(|row| row.to_string()).into());

    let id: ExecutionId = serde_json::from_value(served.succeeded["execution_id"].clone()).unwrap();
    let shown = [("exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9", id.as_str())];
    let life = ask("What happened to one execution?", &served.log, &shown);
    // The server records the request and starts the task at the same time.
    let (audits, life): (Vec<&Row>, Vec<&Row>) =
        life.iter().partition(|row| row["message"] == "audit");
    assert_eq!(audits.len(), 1);
    let statuses: Vec<_> = life
        .iter()
        .filter(|row| row["message"] == "the status changed")
        .map(|row| values(row, &["status", "attempt", "exit_code"]))
        .collect();
    let expected = [
        json!(["LAUNCHING", 1, null]),
        json!(["RUNNING", 1, null]),
        json!(["SUCCEEDED", 1, 0]),
    ];
    assert_eq!(statuses, expected);

    let started = served.log.iter().find(|row| {
        row.get("status").is_some_and(|status| status == "RUNNING")
            && value(row, "execution_id") == id.as_str()
    });
    let task_id = started.unwrap()["task_id"].as_str().unwrap();
    let shown = [("0f4c1b7e9a2d4c6f8b3e5d7a9c1f2e4b", task_id)];
    let heading = "Which execution ran as this task of ECS?";
    let executions = ask(heading, &served.log, &shown);
    assert_eq!(executions.len(), 1);
    assert_eq!(executions[0]["execution_id"], id.as_str());

    let shown = [(
        "3f2b8c1e-5d4a-4e7b-9c61-2a8d0e5f7b94",
        served.request_id.as_str(),
    )];
    let request = ask("What did one request do?", &served.log, &shown);
    assert_eq!(request.len(), 1);
    assert_eq!(request[0]["action"], "execute");

    let wrong = ask("What goes wrong, and how often?", &storm, &[]);
    assert!(wrong.len() > 2, "{wrong:?}");
    let most = |row: &Row| row["lines"].as_u64().unwrap();
    assert!(
        wrong
            .iter()
            .is_sorted_by_key(|row| std::cmp::Reverse(most(row)))
    );

    let heading = "How many executions did each principal submit, by hour?";
    let mut within_an_hour = served.log.clone();
    for row in &mut within_an_hour {
        row.insert("timestamp".into(), "2026-01-01T10:00:00.000000Z".into());
    }
    let submitted = ask(heading, &within_an_hour, &[]);
    let counts: BTreeSet<_> = submitted
        .iter()
        .map(|row| values(row, &["requests", "executions"]).to_string())
        .collect();
    assert_eq!(
        counts,
        ["[1,1]", "[3,3]", "[1,0]"].map(str::to_owned).into()
    );

    let ends = ask("How did executions end, by group?", &served.log, &[]);
    let ends: BTreeSet<_> = ends
        .iter()
        .map(|row| values(row, &["group", "status", "executions"]).to_string())
        .collect();
    for end in [
        json!(["nightly", "FAILED", 1]),
        json!(["nightly", "SUCCEEDED", 1]),
    ] {
        assert!(ends.contains(&end.to_string()), "{ends:?}");
    }

    // As Lambda writes it (Lambda developer guide, Telemetry API, `platform.report`).
    let reports = ["success", "timeout", "success", "failure"].map(|status| {
        let report = json!({"time": "2026-01-01T00:00:00.000Z", "type": "platform.report",
            "record": {"requestId": "r", "status": status, "metrics": {"durationMs": 1.0}}});
        serde_json::from_value(report).unwrap()
    });
    let heading = "Which invocations ran out of time or memory?";
    let wrong: Vec<_> = ask(heading, &reports, &[])
        .iter()
        .map(|row| values(row, &["record.status", "invocations"]))
        .collect();
    assert_eq!(wrong, [json!(["failure", 1]), json!(["timeout", 1])]);

    let troubled = ask("Which backlogs are in trouble?", &storm, &[]);
    assert!(!troubled.is_empty());

    assert!(queries.is_empty(), "nothing holds {queries:?}");
}

/// A program collects the log of a server. A person reads it on a terminal.
#[test]
fn a_server_logs_json_from_its_start_to_its_end() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let endpoint = serve.endpoint.clone();
    let log = rows(&serve.stop().exits(0).err);
    assert_eq!(log[0]["message"], "serving");
    assert_eq!(log[0]["endpoint"], endpoint.as_str());
    let refused = sandbox.run(&["local", "serve", "--listen", "0.0.0.0:0"]);
    let log = rows(&refused.exits(2).err);
    assert_eq!(log[0]["level"], "ERROR");
    let error = log[0]["error"].as_str().unwrap();
    assert!(error.contains("is not a loopback address"), "{error}");
}

/// A queue that takes nothing.
struct Full;

impl Queue for Full {
    async fn send(&self, _: Vec<Outgoing>) -> Result<(), PortError> {
        Err(PortError::unavailable("the queue", "it is full"))
    }
}

/// The records written before the failure were accepted, and the sweep will start them.
#[test]
fn a_request_that_fails_half_way_is_audited_with_what_was_done() {
    let store = MemoryStore::default();
    let settings = simulation::settings(&simulation::account(7, 6));
    let auth = Auth::default();
    let submit = Submit {
        store: &store,
        keys: &store,
        queue: &Full,
        secrets: &store,
        system: &System,
        auth: &auth,
        settings: &settings,
    };
    let post = |path: &str, body: Value| {
        let mut request = ApiGatewayProxyRequest::default();
        request.http_method = axum::http::Method::POST;
        request.path = Some(path.into());
        request.body = Some(body.to_string());
        request
    };
    let lines =
        json!({"submission_id": "many", "executions": [{"command": "a"}, {"command": "b"}]});
    let requests = [
        post("/execute", json!({"command": "true"})),
        post("/executions/bulk", lines),
    ];
    let caller = tests::callers::caller("ci");
    let log = rows(&logged::during(|| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        for request in &requests {
            let response = runtime.block_on(submit.answer(&caller, request));
            assert_eq!(response.status_code, 503);
        }
    }));
    let audits: Vec<_> = log
        .iter()
        .filter(|row| row["message"] == "audit")
        .map(|row| values(row, &["action", "target", "outcome", "code", "accepted"]))
        .collect();
    let expected = [
        json!(["execute", null, "failed", "unavailable", 1]),
        json!(["bulk", "many", "failed", "unavailable", 2]),
    ];
    assert_eq!(audits, expected);
    let one = log.iter().find(|row| row["message"] == "audit").unwrap();
    let id: ExecutionId = serde_json::from_value(one["execution_id"].clone()).unwrap();
    let mut recorded = Vec::new();
    store.for_each(|execution| recorded.push(execution.id.clone()));
    assert!(
        recorded.len() == 3 && recorded.contains(&id),
        "{recorded:?}"
    );
}

/// A request whose client goes away is either not taken, or carried out and audited.
#[test]
fn a_write_whose_client_went_away_is_not_done_without_an_audit_line() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let address = serve.endpoint.trim_start_matches("http://").to_owned();
    for number in 0..10 {
        let body = json!({"command": "true", "name": format!("run-{number}")}).to_string();
        let request = format!(
            "POST /execute HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            serve.key,
            body.len()
        );
        let mut client = TcpStream::connect(&address).unwrap();
        client.write_all(request.as_bytes()).unwrap();
    }
    // The end of the server waits for what it has taken.
    let log = rows(&serve.stop().exits(0).err);
    let ids = |values: Vec<Value>| -> BTreeSet<String> {
        values.iter().map(ToString::to_string).collect()
    };
    let audited = log.iter().filter(|row| value(row, "action") == "execute");
    let audited = ids(audited.map(|row| row["execution_id"].clone()).collect());
    let history = sandbox.local(&["history", "-o", "json"]).json();
    let runs = history["executions"].as_array().unwrap().iter();
    let recorded = ids(runs.map(|run| run["execution_id"].clone()).collect());
    assert_eq!(audited, recorded);
}
