//! Messages about faulty input are true and say what to do. Nothing is started, and no value is
//! shown.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

use serde_json::json;
use tests::sandbox::{Ran, Running, Sandbox};

/// Runs a command with an env file of these bytes. The command prints the variable `CERT`.
fn with_env_file(sandbox: &Sandbox, bytes: &[u8]) -> Ran {
    fs::write(sandbox.path("c.env"), bytes).unwrap();
    sandbox.local(&["exec", "--no-repo", "--env-file", "c.env", "echo \"$CERT\""])
}

fn in_utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_value_over_several_lines_of_an_env_file_is_refused_with_its_line() {
    let sandbox = Sandbox::new();
    for (text, line) in [
        ("A=1\nCERT=\"hidden1\nhidden2\nhidden3==\"\n", 2),
        ("CERT='hidden1\nhidden2=\nhidden3'\n", 1),
        (
            "CERT=-----BEGIN PRIVATE KEY-----\nhidden\n-----END PRIVATE KEY-----\n",
            1,
        ),
        (
            "CERT={\n  \"private_key\": \"hidden=\",\n  \"x\": 1\n}\n",
            2,
        ),
        ("A=1\n\"hidden\"\n", 2),
        ("A=1\nhidden+/abc==\n", 2),
    ] {
        let ran = with_env_file(&sandbox, text.as_bytes()).exits(2).prints("");
        let ran = ran
            .says(&format!("c.env:{line}: "))
            .says("-e NAME=\"$(cat FILE)\"");
        assert!(
            !ran.err.contains("hidden") && !ran.err.contains("PRIVATE"),
            "{ran:#?}"
        );
    }
    assert_eq!(
        sandbox.local(&["history", "-o", "json"]).json()["executions"],
        json!([])
    );
}

#[test]
fn quotes_of_an_env_file_are_part_of_the_value_as_docker_has_it() {
    let sandbox = Sandbox::new();
    with_env_file(&sandbox, b"CERT=\"one line\"\n")
        .exits(0)
        .prints("\"one line\"\n");
    with_env_file(&sandbox, b"CERT=it's\r\n")
        .exits(0)
        .prints("it's\n");
}

/// The name may be a line of a key that began on an earlier line.
#[test]
fn a_name_alone_that_is_not_set_is_told_by_its_place() {
    let sandbox = Sandbox::new();
    let ran = with_env_file(&sandbox, b"CERT=AAAA\nhiddenBBBB\n")
        .exits(0)
        .prints("AAAA\n");
    let ran = ran
        .says("c.env:2: the environment has no variable of this name: it is not set for the run");
    assert!(!ran.err.contains("hidden"), "{ran:#?}");
    sandbox
        .local(&["exec", "--no-repo", "-e", "NONE", "true"])
        .exits(0)
        .says("the environment has no NONE");
}

#[test]
fn an_env_file_that_is_not_utf8_is_told_with_a_way_out() {
    let sandbox = Sandbox::new();
    let marked = in_utf16("\u{feff}CERT=1\n");
    with_env_file(&sandbox, &marked)
        .exits(2)
        .says("c.env is in UTF-16")
        .says("`iconv -f utf-16 -t utf-8`");
    with_env_file(&sandbox, &in_utf16("CERT=1\n"))
        .exits(2)
        .says("`iconv -f utf-16le -t utf-8`");
    with_env_file(&sandbox, b"A=1\nCERT=\xfc\n")
        .exits(2)
        .says("c.env is not UTF-8 in line 2")
        .says("iconv");
    with_env_file(&sandbox, b"A=1\nCERT=a\0b\n")
        .exits(2)
        .says("c.env:2: holds a NUL byte");
}

#[test]
fn a_project_s_file_that_is_none_of_utf8_is_told_as_what_it_is() {
    let sandbox = Sandbox::new();
    let run = || sandbox.local(&["exec", "--no-repo", "true"]);
    fs::write(
        sandbox.path(".mycli.yaml"),
        in_utf16("\u{feff}image: debian:12\n"),
    )
    .unwrap();
    run()
        .exits(2)
        .says(".mycli.yaml")
        .says("`iconv -f utf-16 -t utf-8`");
    fs::remove_file(sandbox.path(".mycli.yaml")).unwrap();
    fs::create_dir(sandbox.path(".mycli.yaml")).unwrap();
    run().exits(2).says("is a folder");
}

#[test]
fn a_variable_that_is_not_utf8_is_not_taken_for_one_that_is_not_set() {
    let sandbox = Sandbox::new().with("BAD", OsStr::from_bytes(b"\xff"));
    let run = |arguments: &[&str]| {
        sandbox.local(&[&["exec", "--no-repo"], arguments, &["true"]].concat())
    };
    run(&["-e", "BAD"])
        .exits(2)
        .says("the value of BAD in this environment is not UTF-8");
    fs::write(sandbox.path("b.env"), "A=1\nBAD\n").unwrap();
    run(&["--env-file", "b.env"])
        .exits(2)
        .says("b.env:2: ")
        .says("is not UTF-8");
    run(&["-e", ""])
        .exits(2)
        .says("-e: is empty: write NAME=value");
}

#[test]
fn mycli_s_own_variables_that_are_not_utf8_are_named() {
    for name in ["MYCLI_API_KEY", "MYCLI_ENDPOINT", "MYCLI_STACK"] {
        let sandbox = Sandbox::new();
        let sandbox = if name == "MYCLI_API_KEY" {
            sandbox.with("MYCLI_ENDPOINT", "http://127.0.0.1:1")
        } else {
            sandbox
        };
        let sandbox = sandbox.with(name, OsStr::from_bytes(b"\xff"));
        sandbox
            .run(&["exec", "--no-repo", "true"])
            .exits(2)
            .says(&format!("{name} is not UTF-8"));
    }
}

#[test]
fn an_address_that_is_no_url_is_told_before_a_key_is_asked_for() {
    let sandbox = Sandbox::new();
    for wrong in ["nonsense", "https://me:hidden@stack.example/prod"] {
        for more in [&["--dry-run"][..], &[]] {
            let arguments = [&["--endpoint", wrong, "exec", "--no-repo"], more, &["true"]].concat();
            let ran = sandbox
                .run(&arguments)
                .exits(2)
                .says("--endpoint is not the URL of a stack: write https://host/stage");
            assert!(!ran.err.contains("hidden"), "{ran:#?}");
        }
        let sandbox = Sandbox::new().with("MYCLI_ENDPOINT", wrong);
        sandbox
            .run(&["status"])
            .exits(2)
            .says("MYCLI_ENDPOINT is not the URL of a stack");
    }
}

#[test]
fn a_folder_whose_path_is_not_utf8_is_told_where_it_counts() {
    let sandbox = Sandbox::new();
    let odd = sandbox
        .path("")
        .join(Path::new(OsStr::from_bytes(b"a\xffb")));
    fs::create_dir(&odd).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        command.current_dir(&odd);
        Running::of(command).end()
    };
    run(&["--local", "exec", "--no-repo", "echo fine"])
        .exits(0)
        .prints("fine\n");
    run(&["--local", "exec", "--repo", ".", "true"])
        .exits(2)
        .says("is not UTF-8")
        .says("move or link it");
}

#[test]
fn too_many_variables_are_not_blamed_on_the_command() {
    let sandbox = Sandbox::new();
    let long = |name: &str| format!("{name}={}", "hidden".repeat(20_000));
    let (a, b, c) = (long("A"), long("B"), long("C"));
    let ran = sandbox
        .local(&["exec", "--no-repo", "-e", &a, "-e", &b, "-e", &c, "true"])
        .exits(2);
    let ran = ran
        .says("\n  env: is too large: the command has 4 bytes and the variables 360006")
        .says("over the limit of 262144");
    assert!(
        !ran.err.contains("command:") && !ran.err.contains("hiddenhidden"),
        "{ran:#?}"
    );
    fs::write(
        sandbox.path("jobs.jsonl"),
        "{\"command\": \"true\"}\n{\"command\": \"true\", \"env\": {\"D\": \"b\"}}\n",
    )
    .unwrap();
    let ran = sandbox
        .local(&[
            "bulk",
            "jobs.jsonl",
            "--no-repo",
            "-e",
            &a,
            "-e",
            &b,
            "-e",
            &c,
        ])
        .exits(2);
    ran.says("\n  env: is too large")
        .says("\n  jobs.jsonl:2: env: is too large");
}

/// A command as large as one may be runs, on this machine and through a server.
#[test]
fn a_request_as_large_as_it_may_be_runs() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let (text, value) = ("x".repeat(127_900), "\"".repeat(127_900));
    let arguments = [
        "exec",
        "--no-repo",
        "-e",
        &format!("LONG={value}"),
        &format!("echo ${{#LONG}} # {text}"),
    ];
    sandbox.local(&arguments).exits(0).prints("127900\n");
    serve.run(&sandbox, &arguments).exits(0).prints("127900\n");
    // Pieces of it are larger than one variable of a task can be.
    let words = [
        "exec",
        "--no-repo",
        "--",
        "sh",
        "-c",
        "echo ${#1} ${#2}",
        "x",
        &text,
        &value,
    ];
    sandbox.local(&words).exits(0).prints("127900 127900\n");
    let over = format!("{{\"command\": \"{text}{text}\"}}");
    let ran = sandbox.run_with(&["--local", "bulk", "--no-repo", "-"], &over);
    ran.exits(2)
        .says("command: has 255800 bytes, the limit is 128000");
}

#[test]
fn a_number_that_is_none_is_told_the_range() {
    let sandbox = Sandbox::new();
    for (flag, range) in [
        ("--retries", "0 to 10"),
        ("--priority", "-100 to 100"),
        ("--max-parallel", "1 to 100000"),
    ] {
        for wrong in ["x", "1.5", "100001"] {
            let ran = sandbox
                .local(&["exec", "--no-repo", flag, wrong, "true"])
                .exits(2);
            ran.says(flag)
                .says(&format!("write a whole number, {range}"));
        }
    }
    sandbox
        .local(&["history", "--limit", "many"])
        .exits(2)
        .says("write a whole number, 1 to 200");
    sandbox.local(&["logs", "--tail", "-5"]).exits(2);
    sandbox
        .local(&["logs", "--tail", "all"])
        .exits(2)
        .says("write a whole number, 0 to");
}

#[test]
fn a_name_that_is_given_twice_and_a_null_are_refused_with_their_line() {
    let sandbox = Sandbox::new();
    for (text, said) in [
        (
            "env: {A: hidden1, A: hidden2}\n",
            ".mycli.yaml:1: env: duplicate field `A`",
        ),
        (
            "env:\n  A: hidden1\n  B: x\n  \"A\": hidden2\n",
            ".mycli.yaml:4: env: duplicate field `A`",
        ),
        (
            "env:\n  A: 1\n  B: null\n",
            ".mycli.yaml:3: env: `B` is null: write \"\"",
        ),
        (
            "image: a\nsecrets: [null]\n",
            "secrets: entry 1 is null: leave it out",
        ),
        (
            "retry_on: [spot, spot]\n",
            "retry_on[1]: `spot` is named twice: name it once",
        ),
    ] {
        fs::write(sandbox.path(".mycli.yaml"), text).unwrap();
        let ran = sandbox
            .local(&["exec", "--no-repo", "echo \"$A\""])
            .exits(2)
            .prints("")
            .says(said);
        assert!(!ran.err.contains("hidden"), "{ran:#?}");
    }
    fs::write(
        sandbox.path(".mycli.yaml"),
        "env: {A: 1.10, B: ''}\nimage: null\n",
    )
    .unwrap();
    sandbox
        .local(&["exec", "--no-repo", "echo \"$A<$B>\""])
        .exits(0)
        .prints("1.10<>\n");
}
