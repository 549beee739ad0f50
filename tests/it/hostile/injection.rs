//! Shell text in fields where it does not belong. A real `sh` must run none of it.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use tests::sandbox::Sandbox;

use crate::{
    e2e::api::Http,
    git_server::{Habits, HttpServer, Origin, git},
};

/// A file that exists only if something was run.
struct Canary(PathBuf);

impl Canary {
    fn of(sandbox: &Sandbox) -> Self {
        Self(sandbox.path("canary"))
    }

    /// Texts that create the file in one shell or another if they are ever taken for more than
    /// text.
    fn corpus(&self) -> Vec<String> {
        let touch = format!("touch {}", self.0.display());
        let spaceless = format!("touch${{IFS}}{}", self.0.display());
        let mut corpus: Vec<_> = [&touch, &spaceless]
            .into_iter()
            .flat_map(|touch| {
                [
                    format!("$({touch})"),
                    format!("`{touch}`"),
                    format!("a$({touch})"),
                    format!(";{touch};"),
                    format!("a;{touch}"),
                    format!("a|{touch}"),
                    format!("a&&{touch}"),
                    format!("a&{touch}&"),
                    format!("';{touch};'"),
                    format!("\";{touch};\""),
                    format!("'\"$({touch})\"'"),
                    format!("a\n{touch}\n"),
                    format!("a\r\n{touch}\r\n"),
                    format!("a\u{2028}{touch}"),
                    format!("a\u{85}{touch}"),
                    format!("() {{ :;}}; {touch}"),
                    format!("a\0;{touch}"),
                    format!("\\$({touch})"),
                    format!("-oProxyCommand={touch}"),
                    format!("--upload-pack={touch}"),
                    format!("ext::sh -c {touch}"),
                    format!("<({touch})"),
                ]
            })
            .collect();
        let plain = [
            "'",
            "\"",
            "\\",
            "\\\\",
            "$",
            "`",
            "*",
            "?",
            "[a-z]",
            "~",
            "~root",
            "!",
            "!!",
            "#",
            "%",
            "%s%n%x",
            "%%",
            "{a,b}",
            "=",
            "$HOME",
            "${IFS}",
            "$$",
            "$((1/0))",
            "-",
            "--",
            "-n",
            "-e",
            "--help",
            "-rf",
            "\\c",
            "\\n",
            "\t",
            "\n",
            "\r",
            "\u{1b}[31m",
            "\u{1b}]0;x\u{7}",
            "\u{202e}",
            "\u{200b}",
            "é",
            "😀",
            "\u{feff}",
            "<",
            ">",
            "&",
            "|",
            ";",
            "(",
            ")",
            "..",
            "../..",
            ".",
            "/",
        ];
        corpus.extend(plain.map(str::to_owned));
        corpus.extend([
            format!(">{}", self.0.display()),
            "x".repeat(3000),
            "'".repeat(900),
            "\n".repeat(300),
        ]);
        corpus
    }

    #[track_caller]
    fn check(&self, what: &str) {
        assert!(!self.0.exists(), "something was run of {what}");
    }
}

/// Requests that put a text into each field that takes one.
fn requests(text: &str, repository: &str, server: &str) -> Vec<(&'static str, Value)> {
    let base = |field: &str, value: Value| {
        let mut request = json!({"command": "true"});
        request[field] = value;
        request
    };
    let mut requests = vec![
        ("env name", base("env", json!({text: "x"}))),
        ("secrets", base("secrets", json!([text]))),
        ("retry_on", base("retry_on", json!([text]))),
        (
            "branch",
            json!({"command": "true", "repo": repository, "branch": text}),
        ),
        ("repo within", base("repo", json!(format!("/srv/{text}")))),
        ("repo URL", base("repo", json!(format!("{server}/{text}")))),
        ("repo host", base("repo", json!(format!("ssh://{text}/a")))),
        (
            "repo of a user",
            base("repo", json!(format!("{text}@127.0.0.1:a"))),
        ),
    ];
    for field in [
        "action",
        "repo",
        "timeout",
        "cpu",
        "memory",
        "arch",
        "capacity",
        "lock",
        "group",
        "name",
        "task_role",
        "registry_secret",
    ] {
        requests.push((field, base(field, json!(text))));
    }
    requests
}

#[test]
fn no_field_of_a_request_reaches_a_shell_as_anything_but_text() {
    let (sandbox, origin) = (Sandbox::new(), Origin::new());
    let canary = Canary::of(&sandbox);
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    // The server has none of these repositories. If nobody answered, each clone would be retried
    // for eight seconds.
    let server = HttpServer::new(Habits {
        first: &[404; 9999],
        ..Habits::default()
    });
    let nowhere = server.url().replace("/project.git", "");
    let (mut sent, mut fields) = (Vec::new(), Vec::new());
    for text in canary.corpus() {
        for (field, request) in requests(&text, origin.path().to_str().unwrap(), &nowhere) {
            sent.push(request);
            fields.push((field, text.clone()));
        }
    }
    let mut accepted = 0;
    for (number, lines) in sent.chunks(500).enumerate() {
        let answer = http.post(
            "/executions/bulk",
            &json!({"submission_id": number.to_string(), "executions": lines}),
        );
        assert_eq!(answer.status, 202, "{answer:#?}");
        accepted += answer.body["accepted"].as_array().unwrap().len();
        for rejection in answer.body["rejected"].as_array().unwrap() {
            let said = rejection["errors"].to_string();
            assert!(
                !said.contains(['\u{1b}', '\u{202e}', '\u{2028}']),
                "raw in a message: {said}"
            );
        }
    }
    // Nearly all requests are refused. The others run, and their clones fail.
    assert!(accepted > 50, "{accepted} of {}", sent.len());
    http.until_quiet();
    canary.check("a request");
    for run in http.history("limit=200") {
        let ours = run["repo"].is_null();
        assert_eq!(run["status"] == "SUCCEEDED", ours, "{run:#}");
    }
    let shown = sandbox.local(&["history", "--limit", "200"]).exits(0).out;
    let odd = http
        .history("limit=200")
        .into_iter()
        .find(|run| run["repo"].to_string().contains('\u{202e}'))
        .unwrap();
    let status = sandbox
        .local(&["status", odd["execution_id"].as_str().unwrap()])
        .exits(0)
        .out;
    canary.check("what is shown of it");
    for text in [shown, status] {
        assert!(
            !text.contains(['\u{1b}', '\u{202e}', '\u{2028}', '\r', '\u{7}']),
            "raw on a terminal: {text}"
        );
    }
}

#[test]
fn a_variable_s_value_arrives_byte_for_byte() {
    let sandbox = Sandbox::new();
    let canary = Canary::of(&sandbox);
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let corpus: Vec<_> = canary.corpus();
    let request = |(number, text): (usize, &String)| {
        let file = sandbox.path(&format!("value-{number}"));
        json!({"command": "printf %s \"$VALUE\" >\"$FILE\"", "env": {"VALUE": text, "FILE": file}})
    };
    let lines: Vec<_> = corpus.iter().enumerate().map(request).collect();
    let answer = http
        .post(
            "/executions/bulk",
            &json!({"submission_id": "s", "executions": lines}),
        )
        .body;
    let rejected: Vec<_> = answer["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["index"].as_u64().unwrap())
        .collect();
    http.until_quiet();
    canary.check("a variable");
    for (number, text) in corpus.iter().enumerate() {
        // A variable cannot hold a NUL.
        assert_eq!(
            rejected.contains(&(number as u64)),
            text.contains('\0'),
            "{text:?}: {answer:#}"
        );
        if !text.contains('\0') {
            assert_eq!(
                fs::read_to_string(sandbox.path(&format!("value-{number}"))).unwrap(),
                *text
            );
        }
    }
}

#[test]
fn words_after_two_dashes_keep_their_boundaries() {
    let sandbox = Sandbox::new();
    let canary = Canary::of(&sandbox);
    // What fits a command; an argument cannot hold a NUL.
    let words: Vec<_> = canary
        .corpus()
        .into_iter()
        .filter(|text| !text.contains('\0') && text.len() < 300)
        .collect();
    for some in words.chunks(20) {
        let arguments: Vec<_> = ["exec", "--no-repo", "--", "printf", "[%s]\\n"]
            .into_iter()
            .chain(some.iter().map(String::as_str))
            .collect();
        let expected: String = some.iter().map(|word| format!("[{word}]\n")).collect();
        let ran = sandbox.local(&arguments).exits(0);
        // A log consists of lines. Another kind of line end is part of the text, as in the output.
        assert_eq!(ran.out, expected);
        canary.check("an argument");
    }
}

#[test]
fn neither_a_repository_s_path_nor_a_secret_s_value_is_shell_text() {
    let sandbox = Sandbox::new();
    let canary = Canary::of(&sandbox);
    let touch = format!("touch${{IFS}}{}", canary.0.display()).replace('/', "${PWD%%[!/]*}");
    let origin = Origin::new();
    for name in [
        format!("a'b\"c $({touch}) `{touch}`;{touch}; *"),
        "-x --upload-pack=y".to_owned(),
        "%s\u{1b}[0m\u{2028}é".to_owned(),
    ] {
        let path = sandbox.path(&name);
        git(
            &sandbox.path(""),
            &[
                "clone",
                "-q",
                "--",
                origin.path().to_str().unwrap(),
                path.to_str().unwrap(),
            ],
        );
        let ran = sandbox.local(&["exec", "--repo", path.to_str().unwrap(), "cat f"]);
        canary.check(&name);
        // A name with a control character is refused.
        if name.contains('\u{1b}') {
            assert_ne!(ran.code, Some(0), "{ran:#?}");
        } else {
            ran.exits(0).prints("main\n");
        }
    }
    let token = format!("t'\"$(touch {0})`touch {0}`%s\\n;é", canary.0.display());
    let server = HttpServer::new(Habits {
        login: Some(format!("x-access-token:{token}").leak()),
        ..Habits::default()
    });
    sandbox.keep_credential("GIT_TOKEN", &token);
    sandbox.keep_secret("TEXT", &token);
    let ran = sandbox.local(&[
        "exec",
        "--repo",
        &server.url(),
        "--secret",
        "TEXT",
        "cat f; printf '%s\\n' \"$TEXT\"",
    ]);
    ran.exits(0).prints(&format!("main\n{token}\n"));
    canary.check("a secret");
}
