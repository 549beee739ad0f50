//! Repositories that are written to harm whoever clones them. Nothing of them is run, and nothing
//! outside the clone is written.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use super::{fetch, fetch_by, program};
use crate::git_server::git;

/// A repository of one commit with the tree that `git mktree` makes of these lines.
fn of_tree(folder: &Path, lines: &str) -> String {
    let repo = folder.join("repo.git");
    git(folder, &["init", "-q", "--bare", "-b", "main", "repo.git"]);
    fs::write(folder.join("tree"), lines).expect("written");
    let made = Command::new("sh")
        .args(["-c", "git --git-dir=repo.git mktree --missing < tree"])
        .current_dir(folder)
        .output()
        .expect("git");
    assert!(made.status.success(), "{made:?}");
    let tree = String::from_utf8(made.stdout)
        .expect("text")
        .trim()
        .to_owned();
    let commit = git(&repo, &["commit-tree", "-m", "x", &tree]);
    git(&repo, &["update-ref", "refs/heads/main", &commit]);
    repo.display().to_string()
}

/// The id of a file with this content, in the repository that `of_tree` makes.
fn blob(folder: &Path, text: &str) -> String {
    if !folder.join("repo.git").exists() {
        git(folder, &["init", "-q", "--bare", "-b", "main", "repo.git"]);
    }
    fs::write(folder.join("blob"), text).expect("written");
    let file = folder.join("blob").display().to_string();
    git(&folder.join("repo.git"), &["hash-object", "-w", &file])
}

#[test]
fn files_of_forbidden_names_are_refused() {
    for name in [".git", ".GIT", "..", ".", "git~1", ".git "] {
        let folder = tempfile::tempdir().expect("a folder");
        let id = blob(folder.path(), "[core]\n\tfsmonitor = touch x\n");
        let repo = of_tree(folder.path(), &format!("100644 blob {id}\t{name}\n"));
        let got = fetch(&repo, json!({}));
        let is_kept_out = matches!(got.outcome, runner::order::FetchOutcome::Failed(_))
            || (name == ".git " || name == ".GIT" || name == "git~1");
        assert!(is_kept_out, "{name:?}: {got:?}");
        let config = fs::read_to_string(got.clone().join(".git/config")).unwrap_or_default();
        assert!(!config.contains("fsmonitor"), "{name:?}: {config}");
    }
}

#[test]
fn a_link_leads_no_file_out_of_the_clone() {
    let folder = tempfile::tempdir().expect("a folder");
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).expect("made");
    let link = blob(folder.path(), &outside.display().to_string());
    let file = blob(folder.path(), "harm\n");
    let repo_dir = folder.path().join("repo.git");
    fs::write(
        folder.path().join("inner"),
        format!("100644 blob {file}\tharm\n"),
    )
    .expect("written");
    let made = Command::new("sh")
        .args(["-c", "git --git-dir=repo.git mktree < inner"])
        .current_dir(folder.path())
        .output()
        .expect("git");
    let inner = String::from_utf8(made.stdout)
        .expect("text")
        .trim()
        .to_owned();
    assert!(repo_dir.exists());
    // A link and a folder of the same name, as far as the file system is concerned.
    let lines = format!("120000 blob {link}\ta\n040000 tree {inner}\ta\n");
    let repo = of_tree(folder.path(), &lines);
    let got = fetch(&repo, json!({}));
    assert_eq!(fs::read_dir(&outside).expect("read").count(), 0, "{got:?}");
}

#[test]
fn filters_that_the_attributes_name_are_not_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = folder.path().join("ran");
    let attributes = blob(folder.path(), "* filter=harm\n");
    let file = blob(folder.path(), "x\n");
    let repo = of_tree(
        folder.path(),
        &format!("100644 blob {attributes}\t.gitattributes\n100644 blob {file}\tf\n"),
    );
    // The settings of whoever runs it name one of that name.
    let home = folder.path().join("home");
    fs::create_dir(&home).expect("made");
    let harm = format!(
        "[filter \"harm\"]\n\tsmudge = touch {0}\n\tprocess = touch {0}\n\trequired = true\n[core]\n\thooksPath = {1}\n",
        ran.display(),
        home.display()
    );
    fs::write(home.join(".gitconfig"), &harm).expect("written");
    for name in ["post-checkout", "reference-transaction"] {
        let hook = home.join(name);
        fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", ran.display())).expect("written");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&hook, executable).expect("set");
    }
    for git_program in ["library", "system"] {
        let mut command = Command::new(program());
        command
            .env("HOME", &home)
            .env("GIT_CONFIG_GLOBAL", home.join(".gitconfig"))
            .env("GIT_DIR", "/nowhere");
        let got = fetch_by(&mut command, &repo, json!({"git": git_program}));
        assert_eq!(got.text("f"), "x\n");
        assert!(!ran.exists(), "{git_program}");
    }
}

#[test]
fn submodules_name_no_command_and_no_file() {
    for (name, path, url) in [
        ("x", "x", "ext::sh -c touch% ran"),
        ("x", "x", "--upload-pack=touch ran"),
        ("x", "x", "-u./payload"),
        ("x", "x", "file:///etc"),
        ("../../x", "x", "https://127.0.0.1:1/x"),
        ("..", "x", "https://127.0.0.1:1/x"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let modules = blob(
            folder.path(),
            &format!(
                "[submodule \"{name}\"]\n\tpath = {path}\n\turl = {url}\n\tupdate = !touch ran\n"
            ),
        );
        let link = "1".repeat(40);
        let repo = of_tree(
            folder.path(),
            &format!("100644 blob {modules}\t.gitmodules\n160000 commit {link}\t{path}\n"),
        );
        let got = fetch(&repo, json!({"submodules": true}));
        assert!(
            matches!(got.outcome, runner::order::FetchOutcome::Failed(_)),
            "{name} {url}: {got:?}"
        );
        assert!(!got.clone().join("ran").exists() && !Path::new("ran").exists());
        assert!(!got.clone().join("x/.git").exists());
    }
}
