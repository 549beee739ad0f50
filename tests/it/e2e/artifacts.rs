//! The files that a command on this machine leaves: kept, listed, and got.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};
use tests::sandbox::{Sandbox, eventually};

use super::api::Http;

/// The paths of the files of the latest run.
fn kept(sandbox: &Sandbox) -> Vec<String> {
    let page = sandbox.local(&["artifacts", "list", "-o", "json"]).exits(0);
    paths(&page.json())
}

fn paths(page: &Value) -> Vec<String> {
    let files = page["artifacts"].as_array().expect("a list").iter();
    let mut paths: Vec<_> = files
        .map(|file| file["path"].as_str().expect("a path").to_owned())
        .collect();
    paths.sort();
    paths
}

#[test]
fn files_are_kept_listed_and_got_with_their_modes() {
    let sandbox = Sandbox::new();
    let command = "mkdir -p dist/sub; echo one > dist/a; : > dist/sub/empty; echo no > dist/b.tmp; chmod 750 dist/a; echo out; exit 3";
    let ran = sandbox.local(&[
        "exec",
        "--no-repo",
        "--artifact",
        "dist",
        "--artifact",
        "!**/*.tmp",
        "--artifacts-to",
        "got",
        command,
    ]);
    assert_eq!((ran.code, &*ran.out), (Some(3), "out\n"), "{ran:#?}");
    assert!(
        ran.err.contains("2 files with 4 bytes in got"),
        "{}",
        ran.err
    );
    let read = |path: &str| fs::read_to_string(sandbox.path(path)).expect("a file");
    assert_eq!(
        (read("got/dist/a"), read("got/dist/sub/empty")),
        ("one\n".to_owned(), String::new())
    );
    let mode = fs::metadata(sandbox.path("got/dist/a"))
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o750);
    let record = sandbox.local(&["status", "-o", "json"]).json();
    let wanted = json!({
        "globs": ["dist", "!**/*.tmp"], "files": 2, "bytes": 4, "complete": true, "reason": null, "expires_at": null,
    });
    assert_eq!(
        (&record["artifacts"], &record["artifacts_on"]),
        (&wanted, &json!("always"))
    );
    assert!(record["timings"]["uploading_ms"].is_u64(), "{record:#}");
    let list = sandbox.local(&["artifacts", "list"]).exits(0);
    assert_eq!(list.out, "4  dist/a\n0  dist/sub/empty\n");
    let got = sandbox
        .local(&["artifacts", "get", "**/empty", "--to", "some"])
        .exits(0);
    assert_eq!(got.out, "dist/sub/empty\n");
    assert!(!sandbox.path("some/dist/a").exists() && sandbox.path("some/dist/sub/empty").exists());
    let none = sandbox.local(&["artifacts", "get", "*.xml"]).exits(1);
    assert!(none.err.contains("none of the 2 files"), "{}", none.err);
}

#[test]
fn files_are_kept_after_the_end_that_was_asked_for() {
    let sandbox = Sandbox::new();
    for (on, code, is_kept) in [
        ("success", 0, true),
        ("success", 1, false),
        ("failure", 1, true),
        ("failure", 0, false),
        ("always", 1, true),
    ] {
        let command = format!("echo x > f; exit {code}");
        let ran = sandbox.local(&[
            "exec",
            "--no-repo",
            "--artifact",
            "f",
            "--artifacts-on",
            on,
            &command,
        ]);
        assert_eq!(ran.code, Some(code), "{ran:#?}");
        let record = sandbox.local(&["status", "-o", "json"]).json();
        let artifacts = &record["artifacts"];
        assert_eq!(
            (&artifacts["files"], &artifacts["complete"]),
            (&json!(u8::from(is_kept)), &json!(true)),
            "{on} {code}",
        );
    }
}

/// Also what a timeout and a cancel cut off is kept.
#[test]
fn files_of_a_command_that_was_ended_are_kept() {
    let sandbox = Sandbox::new();
    let command = "echo half > log; echo begun; sleep 600";
    sandbox
        .local(&[
            "exec",
            "--no-repo",
            "--artifact",
            "log",
            "--timeout",
            "1s",
            command,
        ])
        .exits(124);
    assert_eq!(kept(&sandbox), ["log"]);
    let id = sandbox.detach(&["--artifact", "log", command]);
    eventually("it has begun", || {
        (sandbox.local(&["logs", &id]).out == "begun\n").then_some(())
    });
    sandbox.local(&["cancel", &id, "--wait"]).exits(0);
    assert_eq!(sandbox.record(&id)["status"], "CANCELLED");
    assert_eq!(kept(&sandbox), ["log"]);
}

/// A client that has only the server's address gets the files from there.
#[test]
fn a_server_gives_files_out_by_addresses_that_need_no_key() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let command = "printf hello > 'a b.txt'; : > empty";
    let ran = serve.run(
        &sandbox,
        &[
            "exec",
            "--no-repo",
            "--artifact",
            "*",
            "--artifacts-to",
            "got",
            command,
        ],
    );
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let got = fs::read_to_string(sandbox.path("got/a b.txt")).expect("a file");
    assert_eq!(got, "hello");
    let page = serve
        .run(&sandbox, &["artifacts", "list", "-o", "json"])
        .exits(0)
        .json();
    let file = &page["artifacts"][1];
    assert_eq!(file["path"], "a b.txt");
    let url = file["url"].as_str().expect("an address");
    let prefix = format!("{}/files/", serve.endpoint);
    assert!(url.starts_with(&prefix), "{url} {prefix}");
    let mut http = Http::to(&serve);
    http.key = None;
    let answer = http.fetch(url);
    assert_eq!((answer.0, &*answer.2), (200, "hello"));
    let disposition = answer.1["content-disposition"].to_str().expect("a text");
    assert_eq!(disposition, "attachment; filename*=UTF-8''a%20b.txt");
    for changed in [
        url.replace("/1?", "/0?"),
        url.replace("until=", "until=9"),
        url.replace("/1?", "/%2e%2e/%2e%2e/%2e%2e/store.sqlite?"),
    ] {
        assert!([401, 403].contains(&http.fetch(&changed).0), "{changed}");
    }
    let store = sandbox.store().join("artifacts");
    fs::remove_dir_all(store).expect("it is there");
    assert_eq!(http.fetch(url).0, 404);
}

/// API Gateway takes six megabytes from a function. The longest paths of a batch have more.
#[test]
fn a_page_of_long_paths_is_cut_and_goes_on() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let command = "d=$(printf '\\377%.0s' $(seq 250)); for i in $(seq 14); do mkdir $d; cd -P $d; done; \
                   for i in $(seq 500); do : > $i; done";
    let flags = ["exec", "--no-repo", "--artifact", "**"];
    let ran = serve.run(&sandbox, &[&flags[..], &[command]].concat());
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let http = Http::to(&serve);
    let id = http.history("")[0]["execution_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let first = http.get(&format!("/executions/{id}/artifacts")).body;
    let cursor = first["next_cursor"].as_str().expect("more").to_owned();
    let next = http.get(&format!("/executions/{id}/artifacts?cursor={cursor}"));
    let length = serde_json::to_string(&first).expect("JSON").len();
    assert!((1 << 20..6 << 20).contains(&length), "{length}");
    let (mut all, rest) = (paths(&first), paths(&next.body));
    assert!(!all.is_empty() && !rest.is_empty());
    all.extend(rest);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 500);
}

/// Names by which a command may try to break the program that keeps or gets its files.
#[test]
fn hostile_names_neither_escape_nor_break() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("secret"), "of the user").expect("a file");
    let secret = sandbox.path("secret").display().to_string();
    let command = format!(
        r#"mkdir d; cd d
        echo 1 > "$(printf 'new\nline')"; echo 2 > "$(printf '\033[31mred')"; echo 3 > "$(printf 'not\377utf8')"; echo 4 > '100%25'
        echo 5 > -rf; echo 6 > '..x'; mkdir 'a b'; echo 7 > 'a b/…'
        ln -s {secret} out; ln -s . self; ln -s missing broken; ln -s ./-rf in
        mkfifo pipe; mkdir deny; echo x > deny/f; chmod 000 deny/f
        i=0; while [ $i -lt 30 ]; do mkdir d; cd d; i=$((i+1)); done; echo deep > deep"#
    );
    let ran = sandbox.local(&[
        "exec",
        "--no-repo",
        "--artifact",
        "**",
        "--artifacts-to",
        "got",
        &command,
    ]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let record = sandbox.local(&["status", "-o", "json"]).json();
    let artifacts = &record["artifacts"];
    assert_eq!(artifacts["complete"], json!(false), "{artifacts}");
    let reason = artifacts["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("files are not kept, the first of them: "),
        "{reason}"
    );
    let paths = kept(&sandbox);
    let deep = format!("d/{}deep", "d/".repeat(30));
    for path in [
        "d/new\nline",
        "d/\u{1b}[31mred",
        "d/not%FFutf8",
        "d/100%2525",
        "d/-rf",
        "d/..x",
        "d/a b/…",
        "d/in",
        &deep,
    ] {
        assert!(
            paths.iter().any(|known| known == path),
            "{path:?} is not in {paths:#?}"
        );
    }
    for path in ["d/out", "d/self", "d/broken", "d/pipe"] {
        assert!(!paths.iter().any(|known| known == path), "{path:?}");
    }
    use std::os::unix::ffi::OsStrExt as _;
    let odd = std::ffi::OsStr::from_bytes(b"got/d/not\xffutf8");
    assert_eq!(
        fs::read(sandbox.path("").join(odd)).expect("it is there"),
        b"3\n"
    );
    let list = sandbox.local(&["artifacts", "list"]).exits(0);
    assert!(!list.out.contains('\u{1b}'), "{list:?}");
    assert_eq!(list.out.lines().count(), paths.len());
}

#[test]
fn the_limits_are_told() {
    let sandbox = Sandbox::new();
    let command = "i=0; while [ $i -lt 10003 ]; do echo > $i; i=$((i+1)); done";
    let (ran, record) = sandbox.exec(&["--artifact", "**", command]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let artifacts = &record["artifacts"];
    assert_eq!(
        (&artifacts["files"], &artifacts["complete"]),
        (&json!(10_000), &json!(false))
    );
    assert_eq!(
        artifacts["reason"],
        "3 files are not kept, the first of them: a run keeps at most 10000 files",
    );
    let page = sandbox
        .local(&["artifacts", "list", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(paths(&page).len(), 10_000);
}

#[test]
fn a_request_for_files_is_checked() {
    let sandbox = Sandbox::new();
    for (arguments, said) in [
        (
            &["--artifact", "/etc/passwd"][..],
            "leads out of the folder",
        ),
        (&["--artifact", "../x"], "leads out of the folder"),
        (&["--artifact", "a["], "is not a pattern"),
        (&["--artifact", "!x"], "only leaves files out"),
        (&["--artifact", "x", "--artifact", "x"], "is given twice"),
        (
            &["--artifacts-on", "success"],
            "given without files to keep",
        ),
        (
            &["--artifact", "x", "--artifacts-on", "never"],
            "`always`, `success` or `failure`",
        ),
        (&["--artifacts-to", "x"], "keeps no files"),
    ] {
        let ran = sandbox.local(&[&["exec", "--no-repo"], arguments, &["true"]].concat());
        assert!(
            ran.code != Some(0) && ran.err.contains(said),
            "{arguments:?}: {ran:#?}"
        );
    }
    let none = sandbox.local(&["exec", "--no-repo", "true"]).exits(0);
    assert_eq!(none.err, "");
    let none = sandbox.local(&["artifacts", "get"]).exits(1);
    assert!(
        none.err
            .contains("keeps no files: name them with --artifact"),
        "{}",
        none.err
    );
}

/// They go with the record of their run.
#[test]
fn pruned_runs_leave_no_files() {
    let sandbox = Sandbox::new();
    let (_, record) = sandbox.exec(&["--artifact", "f", "echo x > f"]);
    assert_eq!(record["artifacts"]["files"], json!(1));
    let folder = sandbox.store().join("artifacts");
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
    sandbox
        .run(&["local", "prune", "--older-than", "0s"])
        .exits(0);
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
}

/// A rerun keeps the same files, others, or none.
#[test]
fn a_rerun_keeps_the_same_files_unless_told_otherwise() {
    let sandbox = Sandbox::new();
    let (_, first) = sandbox.exec(&["--artifact", "a", "echo x > a; echo y > b"]);
    let id = first["execution_id"].as_str().expect("an id");
    sandbox.local(&["rerun", id]).exits(0);
    assert_eq!(kept(&sandbox), ["a"]);
    sandbox
        .local(&["rerun", id, "--artifact", "b", "--artifacts-to", "got"])
        .exits(0);
    assert_eq!(kept(&sandbox), ["b"]);
    assert!(sandbox.path("got/b").exists());
}
