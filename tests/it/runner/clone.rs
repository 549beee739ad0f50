//! Clones of each kind of reference, from each kind of server, as git makes them.

use std::{fs, os::unix::fs::symlink, path::Path};

use serde_json::{Value, json};

use super::{basic, fetch, key};
use crate::git_server::{Habits, HttpServer, Origin, SshServer, git};

/// A way to the repository, and what an order needs for it.
struct Way {
    name: &'static str,
    url: String,
    further: Value,
}

/// The programs that speak with a server.
const PROGRAMS: [&str; 2] = ["library", "system"];

/// Plays something with the repository behind each kind of server, by one of [`PROGRAMS`].
fn by_every_way(program: &str, play: impl Fn(&Origin, &dyn Fn(Value) -> super::Got)) {
    let login = Some("x-access-token:tok-3n");
    let new = HttpServer::new(Habits {
        login,
        ..Habits::default()
    });
    let old = HttpServer::new(Habits {
        old: true,
        ..Habits::default()
    });
    let ssh = SshServer::new();
    let here = Origin::new();
    let token = json!({"credentials": basic("x-access-token", "tok-3n")});
    let pinned = json!({"credentials": key(&ssh.key("user")), "known_hosts": ssh.pin("host")});
    let path = here.path().display().to_string();
    let ways = [
        ("http", new.url(), token, &new.origin),
        ("http, version 0", old.url(), json!({}), &old.origin),
        ("ssh", ssh.url(), pinned, &ssh.origin),
        ("path", path.clone(), json!({}), &here),
        ("file", format!("file://{path}"), json!({}), &here),
    ];
    for (name, url, further, origin) in ways {
        let way = Way {
            name,
            url,
            further: with(&further, json!({"git": program})),
        };
        play(origin, &|more| {
            let got = fetch(&way.url, with(&way.further, more));
            assert!(!got.notes.contains("trying again"), "{}: {got:?}", way.name);
            got
        });
    }
}

fn with(one: &Value, other: Value) -> Value {
    let mut all = one.clone();
    if let (Value::Object(all), Value::Object(other)) = (&mut all, other) {
        all.extend(other);
    }
    all
}

#[test]
fn every_kind_of_reference_means_the_commit_that_git_means() {
    every_kind_of_reference_by("library");
}

#[test]
fn so_it_does_for_real_git() {
    every_kind_of_reference_by("system");
}

fn every_kind_of_reference_by(program: &str) {
    by_every_way(program, |origin, fetch| {
        let full = origin.commit("v1");
        let inner = git(&origin.path(), &["rev-parse", "refs/tags/twin~1"]);
        for (reference, text, name) in [
            (None, "main", "main"),
            (Some("HEAD"), "main", "main"),
            (Some("main"), "main", "main"),
            (Some("heads/main"), "main", "main"),
            (Some("origin/main"), "main", "main"),
            (Some("refs/heads/main"), "main", "main"),
            (Some("feature/a"), "old", "feature/a"),
            (Some("v1"), "old", ""),
            (Some("tags/v1"), "old", ""),
            (Some("noted"), "old", ""),
            (Some("twin"), "twin branch", "twin"),
            (Some("refs/tags/twin"), "twin tag", ""),
            (Some("refs/pull/1/head"), "pulled", ""),
            (Some("pull/1/head"), "pulled", ""),
            (Some(&full), "old", ""),
            (Some(&full[..7]), "old", ""),
            (Some(&inner), "inner", ""),
            (Some(&inner[..9]), "inner", ""),
        ] {
            let got = fetch(json!({"reference": reference}));
            let commit = got.commit().to_owned();
            assert_eq!(got.text("f"), format!("{text}\n"), "{reference:?}");
            let head = match name {
                "" => commit.clone(),
                branch => format!("ref: refs/heads/{branch}"),
            };
            assert_eq!(got.text(".git/HEAD").trim(), head, "{reference:?}");
            assert_eq!(got.git(&["status", "--porcelain"]), "", "{reference:?}");
            // A server that gives no commit by its id is asked for everything.
            let is_named =
                reference.is_none_or(|name| !full.starts_with(name) && !inner.starts_with(name));
            if is_named {
                assert_eq!(got.text(".git/shallow").trim(), commit, "{reference:?}");
            } else {
                got.git(&["fsck", "--strict"]);
            }
        }
    });
}

#[test]
fn what_is_not_there_is_said_at_once() {
    by_every_way("library", |_, fetch| {
        for name in ["nope", "deadbee1", &"dead".repeat(10), "refs/heads/nope"] {
            let got = fetch(json!({"reference": name}));
            let reason = got.reason();
            assert!(
                reason.contains(&format!("no branch, tag or commit {name} in ")),
                "{reason}"
            );
        }
    });
}

#[test]
fn a_depth_is_that_many_commits_and_full_is_all_with_branches_and_tags() {
    by_every_way("library", |origin, fetch| {
        let some = fetch(json!({"depth": 3, "reference": "main"}));
        assert_eq!(some.git(&["rev-list", "--count", "HEAD"]), "3");
        assert_eq!(some.git(&["tag"]), "");
        let all = fetch(json!({"depth": null, "reference": "main"}));
        let count = git(&origin.path(), &["rev-list", "--count", "main"]);
        assert_eq!(all.git(&["rev-list", "--count", "HEAD"]), count);
        assert_eq!(all.git(&["tag"]), "noted\ntwin\nv1");
        assert_eq!(
            all.git(&["branch", "--remotes"])
                .split_whitespace()
                .collect::<Vec<_>>(),
            ["origin/feature/a", "origin/main", "origin/twin"]
        );
        assert_eq!(
            all.git(&["describe", "--tags"]),
            git(&origin.path(), &["describe", "--tags", "main"])
        );
        let old = origin.commit("v1");
        let commit = fetch(json!({"depth": null, "reference": &old[..8]}));
        assert_eq!(commit.commit(), old);
    });
}

#[test]
fn repositories_hashed_by_sha_256_are_cloned() {
    let folder = tempfile::tempdir().expect("a folder");
    let work = folder.path().join("work");
    fs::create_dir(&work).expect("made");
    git(
        &work,
        &["init", "-q", "-b", "main", "--object-format=sha256"],
    );
    fs::write(work.join("f"), "sha256\n").expect("written");
    git(&work, &["add", "f"]);
    git(&work, &["commit", "-q", "-m", "one"]);
    git(&work, &["update-ref", "refs/pull/1/head", "HEAD"]);
    let full = git(&work, &["rev-parse", "HEAD"]);
    assert_eq!(full.len(), 64);
    for program in PROGRAMS {
        for name in ["main", &full, &full[..8], "refs/pull/1/head"] {
            let got = fetch(
                &work.display().to_string(),
                json!({"reference": name, "git": program}),
            );
            assert_eq!(got.commit(), full, "{name}");
            assert_eq!(got.text("f"), "sha256\n");
        }
    }
}

#[test]
fn an_empty_repository_and_a_head_to_nowhere_are_told_apart_from_others() {
    for git_program in PROGRAMS {
        let empty = tempfile::tempdir().expect("a folder");
        git(empty.path(), &["init", "-q", "-b", "main"]);
        let path = empty.path().display().to_string();
        let got = fetch(&path, json!({"git": git_program}));
        assert!(
            got.reason().contains("HEAD") && got.reason().contains(&path),
            "{}",
            got.reason()
        );
        let origin = Origin::new();
        git(&origin.path(), &["symbolic-ref", "HEAD", "refs/heads/gone"]);
        let path = origin.path().display().to_string();
        let got = fetch(&path, json!({"git": git_program}));
        assert!(got.reason().contains("HEAD"), "{}", got.reason());
        assert_eq!(
            fetch(&path, json!({"reference": "main", "git": git_program})).text("f"),
            "main\n"
        );
    }
}

/// Makes a repository of everything that a checkout has to get right.
fn odd_files(work: &Path) {
    git(work, &["init", "-q", "-b", "main"]);
    let long = format!("{}/{}", ["long"; 30].join("/"), "n".repeat(200));
    for (path, text) in [
        (
            ".gitattributes",
            "*.crlf text eol=crlf\n*.bin -text\n*.auto text=auto\n",
        ),
        ("a.crlf", "one\ntwo\n"),
        ("a.bin", "one\r\ntwo\0\n"),
        ("a.auto", "one\ntwo\n"),
        ("ünïcode ☃", "x\n"),
        ("with\nnewline", "x\n"),
        ("-dash", "x\n"),
        ("empty", ""),
        (long.as_str(), "far down\n"),
    ] {
        let file = work.join(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(file, text).expect("written");
    }
    symlink("empty", work.join("link")).expect("a link");
    symlink("nowhere/at/all", work.join("dangling")).expect("a link");
    symlink("/etc/passwd", work.join("outward")).expect("a link");
    git(work, &["add", "."]);
    git(work, &["update-index", "--chmod=+x", "empty"]);
    git(work, &["commit", "-q", "-m", "odd"]);
}

/// Each entry of a folder with its kind, its permissions for the owner and its content, `.git` left
/// out.
fn listed(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder_now) = folders.pop() {
        for entry in fs::read_dir(&folder_now).expect("read") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(folder).expect("within").to_owned();
            let metadata = fs::symlink_metadata(&path).expect("it is there");
            if name == Path::new(".git") {
                continue;
            }
            let content = if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&path).expect("a link").display())
            } else if metadata.is_dir() {
                folders.push(path.clone());
                String::new()
            } else {
                format!("{:?}", fs::read(&path).expect("read"))
            };
            use std::os::unix::fs::PermissionsExt as _;
            let mode = metadata.permissions().mode() & 0o700;
            found.push(format!("{name:?} {mode:o} {content}"));
        }
    }
    found.sort();
    found
}

#[test]
fn the_files_are_those_of_git_clone() {
    let folder = tempfile::tempdir().expect("a folder");
    let work = folder.path().join("work");
    fs::create_dir(&work).expect("made");
    odd_files(&work);
    git(
        folder.path(),
        &["clone", "-q", "--no-local", "--depth=1", "work", "by-git"],
    );
    let got = fetch(&work.display().to_string(), json!({}));
    assert_eq!(listed(&got.clone()), listed(&folder.path().join("by-git")));
    assert_eq!(got.git(&["status", "--porcelain"]), "");
    // The settings and the refs too, as far as a command may look at them.
    for words in [
        &["remote", "get-url", "origin"][..],
        &["config", "remote.origin.fetch"],
        &["rev-parse", "--abbrev-ref", "main@{upstream}"],
        &[
            "for-each-ref",
            "--format=%(refname) %(objectname)",
            "refs/heads",
        ],
    ] {
        let by_git = git(&folder.path().join("by-git"), words);
        assert_eq!(got.git(words), by_git, "{words:?}");
    }
}
