//! The REST API as any HTTP client sees it: keys, faults, idempotency, paging.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use tests::sandbox::{Sandbox, Serve, eventually};
use tokio::runtime::Runtime;

/// An HTTP client of one server, on one thread.
pub(crate) struct Http {
    runtime: Runtime,
    client: reqwest::Client,
    endpoint: String,
    pub(crate) key: Option<String>,
}

/// The server's answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: Value,
}

impl Http {
    pub(crate) fn to(serve: &Serve) -> Self {
        Self::at(&serve.endpoint, &serve.key)
    }

    pub(crate) fn at(endpoint: &str, key: &str) -> Self {
        // A process has one crypto provider. A second installation fails and changes nothing.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime,
            client,
            endpoint: endpoint.to_owned(),
            key: Some(format!("Bearer {key}")),
        }
    }

    pub(crate) fn with_key(mut self, key: &str) -> Self {
        self.key = Some(format!("Bearer {key}"));
        self
    }

    pub(crate) fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Answer {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.endpoint))
            .body(body);
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, key);
        }
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let kind = answer.headers()[header::CONTENT_TYPE]
                .to_str()
                .unwrap()
                .to_owned();
            let text = answer.text().await.unwrap();
            let body = if kind.starts_with("text/plain") {
                Value::String(text)
            } else {
                serde_json::from_str(&text).unwrap()
            };
            Answer { status, kind, body }
        })
    }

    /// The answer at a whole address, which is sent as it is written.
    pub(crate) fn fetch(&self, url: &str) -> (u16, header::HeaderMap, String) {
        self.runtime.block_on(async {
            let answer = self.client.get(url).send().await.unwrap();
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            (status, headers, answer.text().await.unwrap())
        })
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Vec::new())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body.to_string().into_bytes())
    }

    /// Submits a command, which must be accepted. Returns its id.
    #[track_caller]
    pub(crate) fn submit(&self, request: &Value) -> String {
        let answer = self.post("/execute", request);
        assert_eq!(
            (answer.status, &answer.body["status"]),
            (202, &json!("QUEUED")),
            "{answer:#?}"
        );
        answer.body["execution_id"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn record(&self, id: &str) -> Value {
        let answer = self.get(&format!("/executions/{id}"));
        assert_eq!(answer.status, 200, "{answer:#?}");
        answer.body
    }

    /// Waits until all runs are over.
    pub(crate) fn until_quiet(&self) {
        eventually("all runs are over", || {
            let under_way = |status: &&str| {
                !self
                    .get(&format!("/executions?limit=1&status={status}"))
                    .body["executions"]
                    .as_array()
                    .unwrap()
                    .is_empty()
            };
            (!["QUEUED", "WAITING", "LAUNCHING", "RUNNING"]
                .iter()
                .any(under_way))
            .then_some(())
        });
    }

    /// The first page of history for a filter.
    pub(crate) fn history_page(&self, filter: &str) -> Vec<Value> {
        let page = self.get(&format!("/executions?{filter}"));
        assert_eq!(page.status, 200, "{page:#?}");
        page.body["executions"].as_array().unwrap().clone()
    }

    /// The whole history for a filter, page by page, newest first.
    pub(crate) fn history(&self, filter: &str) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/executions?{filter}{cursor}"));
            assert_eq!(page.status, 200, "{page:#?}");
            all.extend(page.body["executions"].as_array().unwrap().clone());
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }
}

impl Answer {
    /// Asserts that this is a problem of this status and code.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, code: &str) -> &Self {
        assert_eq!(
            (self.status, &*self.kind),
            (status, "application/problem+json"),
            "{self:#?}"
        );
        assert_eq!(
            (&self.body["code"], &self.body["status"]),
            (&json!(code), &json!(status)),
            "{self:#?}"
        );
        assert!(
            self.body["title"]
                .as_str()
                .is_some_and(|title| !title.is_empty()),
            "{self:#?}"
        );
        self
    }

    fn fields(&self) -> BTreeSet<&str> {
        self.body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect()
    }
}

pub(super) fn ids(runs: &[Value]) -> Vec<&str> {
    runs.iter()
        .map(|run| run["execution_id"].as_str().unwrap())
        .collect()
}

#[test]
fn whoever_has_no_key_hears_the_same_whatever_the_reason() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let mut http = Http::to(&serve);
    assert_eq!(http.get("/executions").status, 200);
    let right = serve.key.clone();
    let mut last_changed = right.clone();
    last_changed.replace_range(71.., if right.ends_with('0') { "1" } else { "0" });
    let wrong = [
        None,
        Some(String::new()),
        Some("Bearer ".to_owned()),
        Some(right.clone()),
        Some(format!("Basic {right}")),
        Some(format!("Bearer {last_changed}")),
        Some(format!("Bearer sk_live_{}", "0".repeat(64))),
        Some(format!("Bearer {}", right.to_uppercase())),
        Some(format!("Bearer sk_live_{}", right[8..].to_uppercase())),
        Some(format!("Bearer {right}0")),
        Some(format!("Bearer {}", &right[..71])),
    ];
    let mut answers = Vec::new();
    for key in wrong {
        http.key = key;
        for (method, path) in [
            (Method::GET, "/executions"),
            (Method::POST, "/execute"),
            (Method::GET, "/keys"),
            (Method::GET, "/nothing"),
        ] {
            let answer = http.send(method, path, b"{\"command\":\"true\"}".to_vec());
            answer.refuses(401, "unauthorized");
            answers.push(answer);
        }
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:#?}"
    );
    http.key = Some(format!("Bearer {right}"));
    assert_eq!(http.history(""), [] as [Value; 0], "nothing was recorded");
}

#[test]
fn a_role_allows_what_it_says() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let admin = Http::to(&serve);
    let key = |name: &str, role: &str| {
        let made = admin.post("/keys", &json!({"name": name, "role": role}));
        assert_eq!(made.status, 201, "{made:#?}");
        Http::to(&serve).with_key(made.body["key"].as_str().unwrap())
    };
    let (reader, submitter) = (key("ann", "read"), key("bob", "submit"));
    reader
        .post("/execute", &json!({"command": "true"}))
        .refuses(403, "forbidden");
    submitter.get("/keys").refuses(403, "forbidden");
    admin
        .post("/keys", &json!({"name": "ann", "role": "read"}))
        .refuses(409, "name_taken");
    let id = submitter.submit(&json!({"command": "true"}));
    assert_eq!(reader.record(&id)["submitted_by"], "bob");
    reader
        .post(&format!("/executions/{id}/cancel"), &json!({}))
        .refuses(403, "forbidden");
    let listed = admin.get("/keys").body.to_string();
    assert!(
        listed.contains("ann") && !listed.contains("sk_live_"),
        "{listed}"
    );
    assert_eq!(
        admin.send(Method::DELETE, "/keys/bob", Vec::new()).status,
        200
    );
    admin
        .send(Method::DELETE, "/keys/bob", Vec::new())
        .refuses(404, "no_such_key");
}

#[test]
fn a_request_that_is_none_is_told_what_is_wrong_with_it() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let execute = |body: &str| http.send(Method::POST, "/execute", body.as_bytes().to_vec());
    execute("{\"command\":").refuses(400, "invalid_json");
    execute("").refuses(400, "invalid_json");
    execute("[]").refuses(400, "invalid_json");
    let unknown = execute("{\"command\":\"true\",\"comand\":\"x\"}");
    assert!(
        unknown.refuses(400, "invalid_json").body["title"]
            .as_str()
            .unwrap()
            .contains("comand"),
        "{unknown:#?}"
    );
    let told = |body: Value, wanted: &str| {
        let answer = execute(&body.to_string());
        let title = answer.refuses(400, "invalid_json").body["title"]
            .as_str()
            .unwrap();
        assert!(
            title.starts_with(&format!("the body cannot be read: {wanted} at line 1")),
            "{title}"
        );
    };
    told(
        json!({"command": "x", "retries": "3"}),
        "`retries`: invalid type: string \"3\", expected a whole number",
    );
    told(
        json!({"command": "x", "env": {"A": 1}}),
        "`env.A`: invalid type: integer `1`, expected a string",
    );
    told(
        json!({"command": "x", "secrets": ["A", 3]}),
        "`secrets[1]`: invalid type: integer `3`, expected a string",
    );
    told(
        json!({"command": "x", "retry_on": "spot"}),
        "`retry_on`: invalid type: string \"spot\", expected a list",
    );
    let null = execute("{\"command\":\"x\",\"secrets\":[null]}");
    let title = null.refuses(400, "invalid_json").body["title"]
        .as_str()
        .unwrap();
    assert!(
        title.contains("`secrets[0]` is null; leave it out"),
        "{title}"
    );
    let twice = execute("{\"command\":\"true\",\"env\":{\"A\":\"first\",\"\\u0041\":\"second\"}}");
    let title = twice.refuses(400, "invalid_json").body["title"]
        .as_str()
        .unwrap();
    assert!(
        title.contains("`env.A`: duplicate field `A`") && !title.contains("first"),
        "{title}"
    );
    let role = http.send(
        Method::POST,
        "/keys",
        b"{\"name\":\"x\",\"role\":null}".to_vec(),
    );
    assert!(
        role.refuses(400, "invalid_json").body["title"]
            .as_str()
            .unwrap()
            .contains("`role` is null"),
        "{role:#?}"
    );
    execute("{\"command\":\"true\"} {}").refuses(400, "invalid_json");
    execute(&json!({"command": "x".repeat(2 * 1024 * 1024)}).to_string())
        .refuses(413, "body_too_large");
    let huge = "x".repeat(4 * 1024 * 1024 + 1);
    http.send(Method::POST, "/executions/bulk", huge.into_bytes())
        .refuses(413, "body_too_large");
    http.get("/nothing").refuses(404, "no_such_path");
    http.get("/executions/exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9")
        .refuses(404, "not_found");
    http.get("/execute").refuses(405, "method_not_allowed");
    http.send(Method::DELETE, "/executions", Vec::new())
        .refuses(405, "method_not_allowed");
    let misspelt = http.get("/executions?stauts=FAILED");
    assert_eq!(
        misspelt.refuses(422, "invalid_request").fields(),
        BTreeSet::from(["stauts"])
    );
    let odd = http.get("/executions?status=odd&limit=1000000&since=soon&cursor=x");
    assert_eq!(
        odd.refuses(422, "invalid_request").fields(),
        BTreeSet::from(["cursor", "limit", "since", "status"])
    );
    assert_eq!(http.history(""), [] as [Value; 0], "nothing was recorded");
}

#[test]
fn a_request_with_faults_hears_of_all_of_them() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let answer = http.post(
        "/execute",
        &json!({
            "command": "", "repo": "nonsense://x", "branch": "--upload-pack=x", "image": "UPPER CASE", "timeout": "soon", "cpu": 3,
            "env": {"1A": "x"}, "arch": "vax", "capacity": "free", "priority": 1000, "retries": -1, "lock": "a b", "name": "n\n"
        }),
    );
    let expected = BTreeSet::from([
        "arch", "branch", "capacity", "command", "cpu", "env.1A", "image", "lock", "name",
        "priority", "repo", "retries", "timeout",
    ]);
    assert_eq!(
        answer.refuses(422, "invalid_request").fields(),
        expected,
        "{answer:#?}"
    );
    let long = http.post("/execute", &json!({"command": "x".repeat(130_000)}));
    assert!(
        long.refuses(422, "invalid_request")
            .body
            .to_string()
            .contains("128000"),
        "{long:#?}"
    );
    assert_eq!(long.fields(), BTreeSet::from(["command"]));
    let long = http.post(
        "/execute",
        &json!({"command": "true", "env": {"LONG": "x".repeat(130_000)}}),
    );
    assert_eq!(
        long.refuses(422, "invalid_request").fields(),
        BTreeSet::from(["env.LONG"]),
        "{long:#?}"
    );
}

#[test]
fn an_idempotency_key_means_one_run() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let request = json!({"command": "true", "idempotency_key": "k"});
    let id = http.submit(&request);
    http.until_quiet();
    let again = http.post("/execute", &request);
    assert_eq!(
        (again.status, &again.body["execution_id"]),
        (202, &json!(id))
    );
    let other = http.post(
        "/execute",
        &json!({"command": "false", "idempotency_key": "k"}),
    );
    assert!(
        other.refuses(409, "idempotency_key_reused").body["title"]
            .as_str()
            .unwrap()
            .contains(&id),
        "{other:#?}"
    );
    assert_eq!(ids(&http.history("")), [&*id]);
    // An idempotency key belongs to one submitter.
    let key = http
        .post("/keys", &json!({"name": "bob", "role": "submit"}))
        .body["key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(Http::to(&serve).with_key(&key).submit(&request), id);
}

#[test]
fn the_same_key_sent_by_many_at_once_means_one_run() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let (endpoint, key) = (&*serve.endpoint, &*serve.key);
    let barrier = std::sync::Barrier::new(10);
    let send = || {
        let http = Http::at(endpoint, key);
        barrier.wait();
        let answer = http.post(
            "/execute",
            &json!({"command": "true", "idempotency_key": "k"}),
        );
        assert_eq!(answer.status, 202, "{answer:#?}");
        answer.body["execution_id"].as_str().unwrap().to_owned()
    };
    let got: BTreeSet<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(send)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(got.len(), 1, "{got:?}");
    assert_eq!(Http::to(&serve).history("").len(), 1);
}

#[test]
fn history_is_paged_without_gap_or_repeat_under_every_filter() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let request = |number: usize| {
        let command = if number.is_multiple_of(3) {
            "exit 1"
        } else {
            "true"
        };
        json!({"command": command, "group": if number.is_multiple_of(2) { "even" } else { "odd" }})
    };
    let bulk = http.post(
        "/executions/bulk",
        &json!({"submission_id": "s", "executions": (0..60).map(request).collect::<Vec<_>>()}),
    );
    assert_eq!(
        (bulk.status, bulk.body["rejected"].as_array().unwrap().len()),
        (202, 0),
        "{bulk:#?}"
    );
    let id = |entry: &Value| entry["execution_id"].as_str().unwrap().to_owned();
    let submitted: Vec<_> = bulk.body["accepted"]
        .as_array()
        .unwrap()
        .iter()
        .map(id)
        .collect();
    http.until_quiet();
    let expect = |keep: &dyn Fn(usize) -> bool| -> BTreeSet<&str> {
        (0..60)
            .filter(|number| keep(*number))
            .map(|number| &*submitted[number])
            .collect()
    };
    let check = |filter: &str, expected: BTreeSet<&str>| {
        let runs = http.history(filter);
        assert_eq!(runs.len(), expected.len(), "{filter}");
        assert_eq!(
            ids(&runs).into_iter().collect::<BTreeSet<_>>(),
            expected,
            "{filter}"
        );
        let times: Vec<_> = runs
            .iter()
            .map(|run| run["submitted_at"].as_str().unwrap())
            .collect();
        assert!(
            times.is_sorted_by(|newer, older| newer >= older),
            "{filter}: {times:?}"
        );
    };
    check("limit=7", expect(&|_| true));
    check("limit=60", expect(&|_| true));
    check("limit=7&status=FAILED", expect(&|number| number % 3 == 0));
    check("limit=7&group=even", expect(&|number| number % 2 == 0));
    check(
        "limit=4&group=even&status=FAILED",
        expect(&|number| number % 6 == 0),
    );
    check("limit=7&by=me&group=odd", expect(&|number| number % 2 == 1));
    check("limit=7&by=somebody", BTreeSet::new());
    check("since=2020-01-01T00:00:00Z&limit=50", expect(&|_| true));
    check("since=2120-01-01T00:00:00Z", BTreeSet::new());
    // Runs submitted meanwhile do not repeat or hide any run on the pages that follow.
    let first = http.get("/executions?limit=10");
    http.submit(&json!({"command": "true"}));
    let mut seen: Vec<_> = first.body["executions"]
        .as_array()
        .unwrap()
        .iter()
        .map(id)
        .collect();
    let cursor = first.body["next_cursor"].as_str().unwrap();
    seen.extend(
        http.history(&format!("limit=100&cursor={cursor}"))
            .iter()
            .map(id),
    );
    assert_eq!(seen.len(), 60);
    assert_eq!(
        seen.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        expect(&|_| true)
    );
}

#[test]
fn a_bulk_submission_sent_again_adds_only_what_is_missing() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let bulk = |executions: Value| {
        http.post(
            "/executions/bulk",
            &json!({"submission_id": "s", "executions": executions}),
        )
        .body
    };
    let first = bulk(json!([{"command": "true"}, {"command": "true", "cpu": 3}]));
    assert_eq!(
        (
            first["accepted"].as_array().unwrap().len(),
            &first["rejected"][0]["index"]
        ),
        (1, &json!(1)),
        "{first:#}"
    );
    assert_eq!(
        first["rejected"][0]["errors"][0]["field"], "cpu",
        "{first:#}"
    );
    let again = bulk(json!([{"command": "true"}, {"command": "true"}]));
    assert_eq!(
        (
            &again["existing"][0]["execution_id"],
            &again["accepted"][0]["index"]
        ),
        (&first["accepted"][0]["execution_id"], &json!(1)),
        "{again:#}"
    );
    assert_eq!(http.history("").len(), 2);
}

/// A submission that is too large for one request is sent in parts. The parts share its id, and
/// each index goes on where the last part ended.
#[test]
fn the_parts_of_a_submission_are_told_apart_by_their_first_index() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let part = |first: Value, executions: Value| {
        http.post(
            "/executions/bulk",
            &json!({"submission_id": "s", "first_index": first, "executions": executions}),
        )
    };
    let index = |list: &Value| -> Vec<u64> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["index"].as_u64().unwrap())
            .collect()
    };
    let same = json!({"command": "true"});
    let second = part(json!(2), json!([same, same, {"command": ""}])).body;
    assert_eq!(
        (index(&second["accepted"]), index(&second["rejected"])),
        (vec![2, 3], vec![4]),
        "{second:#}"
    );
    let first = part(json!(0), json!([same, same])).body;
    assert_eq!(index(&first["accepted"]), [0, 1], "{first:#}");
    let again = part(json!(1), json!([same, {"command": "false"}, same, same])).body;
    assert_eq!(
        (index(&again["existing"]), index(&again["accepted"])),
        (vec![1, 3], vec![4]),
        "{again:#}"
    );
    assert_eq!(
        (
            index(&again["rejected"]),
            &again["rejected"][0]["errors"][0]["field"]
        ),
        (vec![2], &json!("submission_id"))
    );
    let in_order: Vec<_> = [&first["accepted"], &second["accepted"], &again["accepted"]]
        .iter()
        .flat_map(|list| list.as_array().unwrap())
        .map(|entry| entry["execution_id"].as_str().unwrap())
        .collect();
    let history = http.history("");
    assert_eq!(
        ids(&history).into_iter().rev().collect::<Vec<_>>(),
        in_order,
        "the order of lines is that of history"
    );
    part(json!(16_777_215), json!([same, same])).refuses(422, "invalid_request");
    part(json!(-1), json!([same])).refuses(400, "invalid_json");
    let keyed = part(
        json!(9),
        json!([{"command": "true", "idempotency_key": "k"}]),
    )
    .body;
    assert_eq!(
        keyed["rejected"][0]["errors"][0]["field"], "idempotency_key",
        "{keyed:#}"
    );
}

#[test]
fn the_log_comes_page_by_page_and_says_when_it_is_complete() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let id = http.submit(&json!({"command": "seq 50000; printf last"}));
    let (mut lines, mut cursor) = (Vec::new(), String::new());
    eventually("the log is complete", || {
        let page = http.get(&format!("/executions/{id}/logs{cursor}"));
        assert_eq!(page.status, 200, "{page:#?}");
        lines.extend(
            page.body["lines"]
                .as_array()
                .unwrap()
                .iter()
                .map(|line| line["text"].as_str().unwrap().to_owned()),
        );
        if let Some(next) = page.body["next_cursor"].as_str() {
            cursor = format!("?cursor={next}");
        }
        (page.body["complete"] == true).then_some(())
    });
    let expected: Vec<_> = (1..=50_000)
        .map(|number| number.to_string())
        .chain(["last".to_owned()])
        .collect();
    assert!(lines == expected, "{} lines", lines.len());
    http.get(&format!("/executions/{id}/logs?cursor=nonsense"))
        .refuses(422, "invalid_request");
}

#[test]
fn cancelling_what_is_over_is_refused() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let id = http.submit(&json!({"command": "true"}));
    http.until_quiet();
    http.post(&format!("/executions/{id}/cancel"), &json!({}))
        .refuses(409, "already_final");
    assert_eq!(http.record(&id)["status"], "SUCCEEDED");
}

#[test]
fn the_command_line_says_the_same_through_a_server_as_on_this_machine() {
    let (sandbox, other) = (Sandbox::new(), Sandbox::new());
    let serve = sandbox.serve(&[]);
    for command in [
        "echo out; echo err >&2; exit 7",
        "exit 124",
        "kill -9 $$",
        "true",
    ] {
        let there = serve.run(&sandbox, &["exec", "--no-repo", command]);
        let here = other.local(&["exec", "--no-repo", command]);
        assert_eq!(
            (there.code, &there.out, &there.err),
            (here.code, &here.out, &here.err),
            "{command}"
        );
    }
    serve
        .run(
            &sandbox,
            &["exec", "--no-repo", "--timeout", "1s", "sleep 3600"],
        )
        .exits(124)
        .says("timed out after 1s");
    // The server's user and the command line on the same machine see one history.
    let through = serve
        .run(&sandbox, &["history", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        through,
        sandbox.local(&["history", "-o", "json"]).exits(0).json()
    );
    assert_eq!(through["executions"].as_array().unwrap().len(), 5);
}

#[test]
fn a_server_listens_on_loopback_alone() {
    Sandbox::new()
        .run(&["local", "serve", "--listen", "0.0.0.0:0"])
        .exits(2)
        .says("0.0.0.0");
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let taken = serve.endpoint.trim_start_matches("http://");
    let ran = Sandbox::new()
        .run(&["local", "serve", "--listen", taken])
        .says(taken);
    assert_ne!(ran.code, Some(0));
    assert_eq!(
        Http::to(&serve).get("/executions").status,
        StatusCode::OK.as_u16()
    );
}
