//! Commands that are a program and its arguments, without a shell.

use std::fs;

use serde_json::json;
use tests::sandbox::Sandbox;

use super::api::Http;

#[test]
fn words_reach_their_program_as_they_are() {
    let sandbox = Sandbox::new();
    let words = ["a b", "$HOME", "", "*", "'", "é\n", "--", "-x"];
    let ran = sandbox
        .local(&[&["exec", "--no-repo", "--", "printf", "[%s]"], &words[..]].concat())
        .exits(0);
    let expected: String = words.iter().map(|word| format!("[{word}]")).collect();
    assert_eq!(ran.out, format!("{expected}\n"));
    let record = sandbox.local(&["status", "-o", "json"]).json();
    assert_eq!(record["command"][3], "$HOME", "{record:#}");
    let page = sandbox.local(&["status"]).out;
    assert!(page.contains("printf '[%s]' 'a b' '$HOME'"), "{page}");
    // No shell stands between: its words for a missing program would be others.
    sandbox
        .local(&["exec", "--no-repo", "--", "no-such-program", "a"])
        .exits(127)
        .prints("mycli: no-such-program: not found\n");
}

/// As `execvp` has it, and so every shell.
#[test]
fn a_script_without_an_interpreter_is_the_shells() {
    let sandbox = Sandbox::new();
    let script = sandbox.path("build.sh");
    fs::write(&script, "printf '%s|' \"$@\"\nexit 3\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).expect("set");
    let path = script.display().to_string();
    sandbox
        .local(&["exec", "--no-repo", "--", &path, "a b", "c"])
        .exits(3)
        .prints("a b|c|\n");
}

#[test]
fn words_stay_words_in_a_rerun_and_in_bulk() {
    let sandbox = Sandbox::new();
    sandbox
        .local(&["exec", "--no-repo", "--", "printf", "%s|", "a b", "c"])
        .exits(0)
        .prints("a b|c|\n");
    sandbox.local(&["rerun"]).exits(0).prints("a b|c|\n");
    let lines = "{\"command\": [\"printf\", \"%s|\", \"a b\", \"c\"]}\n{\"command\": [\"sh\", \"-c\", \"exit 3\"]}\n";
    fs::write(sandbox.path("jobs.jsonl"), lines).expect("written");
    sandbox
        .local(&["bulk", "--no-repo", "--wait", "jobs.jsonl"])
        .exits(1);
    let of_values = ["bulk", "--no-repo", "--wait", "--map-over-values", "x y"];
    sandbox
        .local(
            &[
                &of_values[..],
                &["--", "sh", "-c", "test \"$VALUE\" = 'x y'"],
            ]
            .concat(),
        )
        .exits(0);
    let page = sandbox.local(&["history"]).out;
    assert!(page.contains("printf '%s|' 'a "), "{page}");
    assert!(page.contains("sh -c 'exit 3'"), "{page}");
}

#[test]
fn the_api_takes_words_and_names_the_wrong_one() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let http = Http::to(&serve);
    let id = http.submit(&json!({"command": ["sh", "-c", "exit 7"]}));
    http.until_quiet();
    let record = http.record(&id);
    assert_eq!(record["exit_code"], 7, "{record:#}");
    assert_eq!(record["command"], json!(["sh", "-c", "exit 7"]));
    for (command, field, words) in [
        (json!([]), "command", "is an empty list"),
        (json!([" "]), "command[0]", "is blank"),
        (json!(["a", "b\u{0}"]), "command[1]", "holds a NUL byte"),
    ] {
        let answer = http.post("/execute", &json!({"command": command}));
        assert_eq!(answer.status, 422, "{answer:#?}");
        let fault = &answer.body["errors"][0];
        assert_eq!(fault["field"], field, "{answer:#?}");
        let message = fault["message"].as_str().expect("a text");
        assert!(message.contains(words), "{message}");
    }
    for wrong in [
        json!(7),
        json!({"a": 1}),
        json!([["a"]]),
        json!(["a", null]),
    ] {
        let answer = http.post("/execute", &json!({"command": wrong}));
        assert_eq!(answer.status, 400, "{answer:#?}");
    }
}
