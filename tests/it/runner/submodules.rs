//! Submodules: nested, relative, and each with the credentials of its own host only.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{basic, fetch};
use crate::git_server::{Habits, HttpServer, Origin, git};

/// A bare repository beside the origin, with one file, and maybe a submodule.
pub(super) fn repository(folder: &Path, name: &str, submodule: Option<(&str, &str)>) {
    let work = folder.join(format!("{name}-work"));
    fs::create_dir(&work).expect("made");
    git(&work, &["init", "-q", "-b", "main"]);
    fs::write(work.join("f"), format!("{name}\n")).expect("written");
    git(&work, &["add", "f"]);
    if let Some((url, path)) = submodule {
        let commit = git(&folder.join(inner_of(url)), &["rev-parse", "main"]);
        fs::write(
            work.join(".gitmodules"),
            format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"),
        )
        .expect("written");
        git(&work, &["add", ".gitmodules"]);
        link(&work, path, &commit);
    }
    git(&work, &["commit", "-q", "-m", name]);
    let bare = format!("{name}.git");
    git(
        folder,
        &["clone", "-q", "--mirror", &format!("{name}-work"), &bare],
    );
}

/// Adds a submodule's commit to what is committed next. `git add` would leave it out, as it has no
/// files here.
fn link(work: &Path, path: &str, commit: &str) {
    let entry = format!("160000,{commit},{path}");
    git(work, &["update-index", "--add", "--cacheinfo", &entry]);
}

/// The folder of the repository that an address ends with.
fn inner_of(url: &str) -> &str {
    url.trim_end_matches('/').rsplit('/').next().unwrap_or(url)
}

fn with(credentials: &Value, program: &str) -> Value {
    json!({"submodules": true, "credentials": credentials, "git": program})
}

#[test]
fn nested_and_relative_ones_are_fetched_with_the_token_of_their_server() {
    let origin = Origin::new();
    repository(origin.folder(), "inner", None);
    repository(
        origin.folder(),
        "middle",
        Some(("../inner.git", "deep/inner")),
    );
    repository(
        origin.folder(),
        "outer",
        Some(("../middle.git", "libs/middle")),
    );
    let server = HttpServer::of(
        origin,
        Habits {
            login: Some("x-access-token:tok-3n"),
            ..Habits::default()
        },
    );
    let url = server.url_of("outer.git");
    for program in ["library", "system"] {
        let got = fetch(&url, with(&basic("x-access-token", "tok-3n"), program));
        assert_eq!(got.text("f"), "outer\n", "{got:?}");
        assert_eq!(got.text("libs/middle/f"), "middle\n");
        assert_eq!(got.text("libs/middle/deep/inner/f"), "inner\n");
        let status = got.git(&["submodule", "status", "--recursive"]);
        assert_eq!(status.lines().count(), 2, "{status}");
        assert!(
            status
                .lines()
                .all(|line| !line.trim_start().starts_with(['-', '+', 'U'])),
            "{status}"
        );
        assert_eq!(got.git(&["status", "--porcelain"]), "");
        assert_eq!(
            git(
                &got.clone().join("libs/middle"),
                &["remote", "get-url", "origin"]
            ),
            server.url_of("middle.git")
        );
        let configs = ["config", "modules/libs/middle/config"];
        for config in configs {
            assert!(!got.text(&format!(".git/{config}")).contains("tok-3n"));
        }
    }
    // They are fetched only if they are asked for.
    let without = fetch(
        &url,
        json!({"credentials": basic("x-access-token", "tok-3n")}),
    );
    assert!(!without.clone().join("libs/middle/f").exists());
}

#[test]
fn one_at_another_server_gets_no_token_of_ours() {
    let login = Some("x-access-token:tok-3n");
    let other = HttpServer::new(Habits {
        login,
        ..Habits::default()
    });
    let origin = Origin::new();
    let work = origin.folder().join("outer-work");
    fs::create_dir(&work).expect("made");
    git(&work, &["init", "-q", "-b", "main"]);
    // The same host, but the credential below names a port.
    let text = format!("[submodule \"x\"]\n\tpath = x\n\turl = {}\n", other.url());
    fs::write(work.join(".gitmodules"), text).expect("written");
    let commit = other.origin.commit("main");
    git(&work, &["add", ".gitmodules"]);
    link(&work, "x", &commit);
    git(&work, &["commit", "-q", "-m", "outer"]);
    git(
        origin.folder(),
        &["clone", "-q", "--mirror", "outer-work", "outer.git"],
    );
    let server = HttpServer::of(
        origin,
        Habits {
            login,
            ..Habits::default()
        },
    );
    let url = server.url_of("outer.git");
    let host = url.split('/').nth(2).expect("a host");
    let proof = json!({"basic": {"username": "x-access-token", "password": "tok-3n"}});
    let got = fetch(
        &url,
        with(&json!([{"hosts": [host], "proof": proof}]), "library"),
    );
    assert!(
        got.reason().contains("submodule x:") && got.reason().contains("there is none for it"),
        "{}",
        got.reason()
    );
    assert_eq!(other.shown(), Vec::<String>::new());
    assert!(!server.shown().is_empty());
}

#[test]
fn a_repository_within_itself_ends() {
    let origin = Origin::new();
    repository(origin.folder(), "first", None);
    repository(origin.folder(), "self", Some(("../first.git", "self")));
    // The commit that it names is in the submodule's own repository, which is itself.
    let bare = origin.folder().join("self.git");
    let first = origin.folder().join("first.git");
    let url = first.display().to_string();
    git(&bare, &["fetch", "-q", &url, "main:first"]);
    let got = fetch(
        &bare.display().to_string(),
        json!({"submodules": true, "reference": "main"}),
    );
    assert_eq!(got.text("self/f"), "first\n");
}
