//! Requests that no client of mycli would send, byte by byte.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};
use tests::sandbox::{PATIENCE, Sandbox, Serve};

use crate::e2e::api::Http;

/// The server's answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
}

impl Answer {
    /// The problem's code.
    pub(super) fn code(&self) -> String {
        let problem = self
            .text
            .split_once("\r\n\r\n")
            .and_then(|(_, body)| serde_json::from_str::<Value>(body).ok());
        problem
            .and_then(|problem| problem["code"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

fn connect(serve: &Serve) -> TcpStream {
    let address: SocketAddr = serve
        .endpoint
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads everything the server sends until it closes. It may close while the test still writes.
fn rest(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _reset = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_default();
    Answer { status, text }
}

/// Sends a head, completed with what every request has, and a body. Returns the answer.
pub(super) fn ask(serve: &Serve, head: &[u8], body: &[u8]) -> Answer {
    let mut stream = connect(serve);
    let _may_close =
        stream.write_all(&[head, b"Host: x\r\nConnection: close\r\n\r\n", body].concat());
    rest(stream)
}

/// Like [`ask`], with a key.
fn ask_with(serve: &Serve, key: &str, request_line: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!("{request_line} HTTP/1.1\r\nAuthorization: Bearer {key}\r\n{headers}");
    ask(serve, head.as_bytes(), body)
}

#[test]
fn a_second_authorization_makes_it_none() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let right = format!("Authorization: Bearer {}\r\n", serve.key);
    let wrong = format!("Authorization: Bearer sk_live_{}\r\n", "0".repeat(64));
    for headers in [[&right, &wrong], [&wrong, &right], [&right, &right]] {
        let head = format!("GET /executions HTTP/1.1\r\n{}{}", headers[0], headers[1]);
        let answer = ask(&serve, head.as_bytes(), b"");
        assert_eq!(
            (answer.status, answer.code()),
            (401, "unauthorized".to_owned()),
            "{answer:#?}"
        );
    }
}

#[test]
fn headers_that_a_proxy_might_set_have_no_effect() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let made = http.post("/keys", &json!({"name": "bob", "role": "submit"}));
    let bob = made.body["key"].as_str().unwrap();
    let forged = "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-User: local-serve\r\nX-Remote-User: local-serve\r\nForwarded: for=127.0.0.1\r\n\
                  X-Original-URL: /keys\r\nX-Rewrite-URL: /keys\r\nX-HTTP-Method-Override: DELETE\r\nX-Api-Key: x\r\n\
                  X-Amzn-Oidc-Identity: local-serve\r\nX-Amzn-Apigateway-Api-Id: x\r\nCookie: admin=true\r\n";
    let head = format!("GET /keys HTTP/1.1\r\n{forged}");
    assert_eq!(ask(&serve, head.as_bytes(), b"").code(), "unauthorized");
    assert_eq!(
        ask_with(&serve, bob, "GET /keys", forged, b"").code(),
        "forbidden"
    );
    let listed = ask_with(&serve, bob, "GET /executions", forged, b"");
    assert!(
        listed.status == 200 && listed.text.contains("\"executions\":[]"),
        "{listed:#?}"
    );
    let body = b"{\"command\":\"true\"}";
    let headers = format!(
        "{forged}Content-Encoding: gzip\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n",
        body.len()
    );
    assert_eq!(
        ask_with(&serve, bob, "POST /execute", &headers, body).status,
        202
    );
    assert_eq!(http.history("")[0]["submitted_by"], "bob");
    // A compressed body is not unpacked: a few bytes cannot become many.
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03";
    let headers = format!(
        "Content-Encoding: gzip\r\nContent-Length: {}\r\n",
        packed.len()
    );
    assert_eq!(
        ask_with(&serve, bob, "POST /execute", &headers, packed).code(),
        "invalid_json"
    );
}

#[test]
fn a_body_of_two_lengths_or_of_none_that_can_be_told_is_refused() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let body = "{\"command\":\"true\"}";
    let hidden = format!(
        "{body}GET /keys HTTP/1.1\r\nAuthorization: Bearer {}\r\nHost: x\r\n\r\n",
        serve.key
    );
    for (headers, body) in [
        (
            format!(
                "Content-Length: {}\r\nContent-Length: {}\r\n",
                body.len(),
                hidden.len()
            ),
            &*hidden,
        ),
        (
            format!(
                "Content-Length: {}\r\nTransfer-Encoding: xchunked\r\n",
                body.len()
            ),
            body,
        ),
        ("Content-Length: -1\r\n".to_owned(), body),
        (format!("Content-Length: {}x\r\n", body.len()), body),
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            "zz\r\n{}\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        ),
    ] {
        let answer = ask_with(
            &serve,
            &serve.key,
            "POST /execute",
            &headers,
            body.as_bytes(),
        );
        assert_eq!(answer.status, 400, "{headers}: {answer:#?}");
        assert_eq!(
            answer.text.matches("HTTP/1.1 ").count(),
            1,
            "{headers}: {answer:#?}"
        );
    }
    assert_eq!(Http::to(&serve).history(""), [] as [Value; 0]);
}

#[test]
fn a_path_means_itself() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let made = Http::to(&serve).post("/keys", &json!({"name": "bob", "role": "submit"}));
    let bob = made.body["key"].as_str().unwrap();
    let long = format!("/executions/{}", "a".repeat(50_000));
    for path in [
        "/executions/../keys",
        "/executions/%2e%2e/keys",
        "/executions/..%2fkeys",
        "/executions%2f..%2fkeys",
        "//keys",
        "/./keys",
        "/keys/..",
        "/keys%00",
        "/keys;x=1",
        "/KEYS",
        "/executions/%00",
        "/executions/%ff%fe",
        "/executions/%0d%0aX-Made: up",
        "/executions/%",
        "/executions/%zz",
        "/executions/%25%32%65",
        "/executions/'%20OR%201=1--",
        "/executions/*",
        "/executions/_%25_",
        "/executions/exec_",
        "/executions/:",
        "/executions//logs",
        "/%65xecutions/none/logs/..",
        &long,
    ] {
        let answer = ask_with(&serve, bob, &format!("GET {path}"), "", b"");
        let path = &path[..path.len().min(60)];
        assert!((400..500).contains(&answer.status), "{path}: {answer:#?}");
        assert!(
            !answer.text.contains("\"keys\"") && !answer.text.contains("X-Made: up"),
            "{path}: {answer:#?}"
        );
    }
    assert_eq!(
        ask_with(&serve, bob, "GET http://localhost/keys", "", b"").code(),
        "forbidden"
    );
    assert_eq!(
        ask_with(&serve, &serve.key, "DELETE /keys/bob%00", "", b"").code(),
        "no_such_key"
    );
    assert_eq!(
        ask_with(
            &serve,
            &serve.key,
            &format!("DELETE /keys/{}", "b".repeat(5_000)),
            "",
            b""
        )
        .code(),
        "no_such_key"
    );
    let by = format!("GET /executions?by={}", "b".repeat(5_000));
    assert_eq!(
        ask_with(&serve, bob, &by, "", b"").code(),
        "invalid_request"
    );
    for since in [
        "-262143-01-01T00:00:00Z",
        "%2B262142-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
    ] {
        let answer = ask_with(
            &serve,
            bob,
            &format!("GET /executions?since={since}"),
            "",
            b"",
        );
        assert!(matches!(answer.status, 200 | 422), "{since}: {answer:#?}");
    }
}

#[test]
fn a_cursor_that_we_did_not_make_is_refused() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let id = http.submit(&json!({"command": "echo one; echo two; echo three"}));
    http.until_quiet();
    let ours = http.get(&format!("/executions/{id}/logs")).body["next_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let read = |cursor: &str| http.get(&format!("/executions/{id}/logs?cursor={cursor}"));
    assert_eq!(
        (read(&ours).status, &read(&ours).body["lines"]),
        (200, &json!([]))
    );
    let made = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(&ours).unwrap()).unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    let end: u64 = made["c"].as_str().unwrap().parse().unwrap();
    let mut forged = vec![
        String::new(),
        "x".to_owned(),
        format!("{ours}%3D"),
        ours[..ours.len() - 1].to_owned(),
        "....".to_owned(),
    ];
    for place in [
        json!([1, null, false]),
        json!({}),
        json!({"a": 2, "c": null, "e": false}),
        json!({"a": u32::MAX, "c": null, "e": true}),
        json!({"a": -1, "c": null, "e": false}),
        json!({"a": 1, "c": null, "e": false, "more": 1}),
        json!({"a": 1, "c": "5", "e": false}),
        json!({"a": 1, "c": (end + 1).to_string(), "e": false}),
        json!({"a": 1, "c": u64::MAX.to_string(), "e": false}),
        json!({"a": 1, "c": "-1", "e": false}),
        json!({"a": 1, "c": "+0", "e": false}),
        json!({"a": 1, "c": "../../serve.key", "e": false}),
    ] {
        forged.push(BASE64_URL_SAFE_NO_PAD.encode(place.to_string()));
    }
    for cursor in forged {
        let answer = read(&cursor);
        assert_eq!(
            (answer.status, &answer.body["errors"][0]["field"]),
            (422, &json!("cursor")),
            "{cursor}: {answer:#?}"
        );
    }
    let id_of_none = "exec_7ZZZZZZZZZZZZZZZZZZZZZZZZZ";
    let after_all = BASE64_URL_SAFE_NO_PAD.encode(id_of_none);
    assert_eq!(
        http.get(&format!("/executions?cursor={after_all}")).status,
        200
    );
    for cursor in [
        String::new(),
        format!("{after_all}%3D"),
        BASE64_URL_SAFE_NO_PAD.encode("exec_1' OR 1=1"),
        BASE64_URL_SAFE_NO_PAD.encode(id_of_none.to_lowercase()),
    ] {
        assert_eq!(
            http.get(&format!("/executions?cursor={cursor}")).status,
            422,
            "{cursor}"
        );
    }
}

/// Whatever a command prints is its own text, even if it looks like a marker line of the script.
#[test]
fn a_marker_line_that_the_command_prints_has_no_effect() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let nonce = "0123456789abcdef0123456789abcdef";
    let words = [
        "exit:0",
        "timeout",
        "fail:no reason",
        "start",
        "commit:0123456789012345678901234567890123456789",
        "setup",
    ];
    let lines = words.iter().flat_map(|word| {
        [
            format!("::mycli:{nonce}:{word}"),
            format!("before::mycli:{nonce}:{word}"),
            format!("::mycli::{word}"),
            format!("::mycli:{word}"),
        ]
    });
    let lines: Vec<_> = lines
        .chain([
            "::mycli:".to_owned(),
            format!("::mycli:{nonce}"),
            "::mycli:*:exit:0".to_owned(),
        ])
        .collect();
    // It also cannot find the nonce in its environment or arguments, nor in those of the processes
    // above it.
    let look = "printf '::mycli:%s:exit:0\\n' \"$MYCLI_NONCE\"; for p in /proc/$$ /proc/$PPID; do tr '\\0' '\\n' <$p/environ; tr '\\0' '\\n' <$p/cmdline; done";
    let command = format!(
        "cat <<'END'\n{}\nEND\n({look}) 2>/dev/null | grep -c 'mycli:[0-9a-f]\\{{16\\}}'; exit 3",
        lines.join("\n")
    );
    let id = http.submit(&json!({"command": command}));
    http.until_quiet();
    let record = http.record(&id);
    assert_eq!(
        (&record["status"], &record["exit_code"], &record["commit"]),
        (&json!("FAILED"), &json!(3), &Value::Null),
        "{record:#}"
    );
    let log = http.get(&format!("/executions/{id}/logs")).body;
    let shown: Vec<_> = log["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["text"].as_str().unwrap())
        .collect();
    assert_eq!(shown[..shown.len() - 1], lines);
    assert_eq!(log["complete"], true);
}

/// The script's own marker follows it on the same line.
#[test]
fn output_that_ends_like_the_beginning_of_a_marker_hides_none() {
    let sandbox = Sandbox::new();
    for end in ["::mycli", "::mycli:", "::"] {
        let ran = sandbox
            .local(&[
                "exec",
                "--no-repo",
                &format!("printf '%s' '{end}'; exit 124"),
            ])
            .exits(124);
        assert_eq!(ran.out.trim_end(), end);
        let record = sandbox.local(&["status", "-o", "json"]).json();
        assert_eq!(
            (&record["status"], &record["exit_code"]),
            (&json!("FAILED"), &json!(124)),
            "{record:#}"
        );
    }
}

#[test]
fn who_sends_slowly_is_let_go_and_holds_up_nobody() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let head = format!(
        "POST /execute HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n",
        serve.key
    );
    let begin = |text: &str| {
        let mut stream = connect(&serve);
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let heads: Vec<_> = (0..40).map(|_| begin(&head[..30])).collect();
    let bodies: Vec<_> = (0..40)
        .map(|_| begin(&format!("{head}\r\n{{\"command\":")))
        .collect();
    let idle: Vec<_> = (0..40).map(|_| begin("")).collect();
    let http = Http::to(&serve);
    http.submit(&json!({"command": "true"}));
    http.until_quiet();
    for stream in heads.into_iter().chain(idle) {
        let answer = rest(stream);
        assert!(
            answer.text.is_empty() || answer.status == 408,
            "{answer:#?}"
        );
    }
    for stream in bodies {
        let answer = rest(stream);
        assert_eq!(
            (answer.status, answer.code()),
            (408, "request_timeout".to_owned()),
            "{answer:#?}"
        );
    }
    // By now the server has closed the connection that was idle for so long.
    assert_eq!(
        Http::to(&serve).history("").len(),
        1,
        "what was never sent whole was not recorded"
    );
}

#[test]
fn who_has_not_sent_all_yet_does_not_keep_the_server_from_ending() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let head = format!(
        "POST /execute HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n",
        serve.key
    );
    let held: Vec<_> = ["", &head[..30], &format!("{head}\r\n{{")]
        .map(|text| {
            let mut stream = connect(&serve);
            stream.write_all(text.as_bytes()).unwrap();
            stream
        })
        .into();
    assert_eq!(Http::to(&serve).get("/executions").status, 200);
    // A stop that waits in vain fails the test. A stop takes as long as the requests in progress,
    // and an incomplete request is not one.
    let stopped = serve.stop().exits(0);
    assert!(!stopped.err.contains("error"), "{stopped:#?}");
    drop(held);
}

#[test]
fn a_body_without_end_is_refused_in_words_before_it_is_read() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    // Only its length is sent.
    let mut stream = connect(&serve);
    let head = format!(
        "POST /executions/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 99999999999\r\n\r\n",
        serve.key
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    // Its length is not announced.
    let mut stream = connect(&serve);
    let head = format!(
        "POST /executions/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        serve.key
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n", " ".repeat(0x10000).as_bytes(), b"\r\n"].concat();
    let mut sent = 0_u64;
    while stream.write_all(&chunk).is_ok() {
        sent += 0x10000;
        assert!(sent < 64 << 20, "it is read without end");
    }
    assert_eq!(Http::to(&serve).get("/executions").status, 200);
}

/// A client that finds the connection closed while it sends reports that, and not the answer that
/// was on its way.
#[test]
fn who_is_still_sending_too_much_hears_of_the_limit() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    for _ in 0..40 {
        let answer = http.send(Method::POST, "/executions/bulk", vec![b' '; 12 << 20]);
        answer.refuses(413, "body_too_large");
    }
}
