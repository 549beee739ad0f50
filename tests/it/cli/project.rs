//! Where a run's settings come from: flags, `.mycli.yaml`, the git repository.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use super::stand_in::{Mycli, Ran};

fn dry_run(mycli: &Mycli, flags: &[&str]) -> Ran {
    mycli.run(&[&["exec", "--dry-run"], flags, &["make"]].concat())
}

#[test]
fn the_file_gives_what_no_flag_does() {
    let mycli = Mycli::unconfigured();
    let file = "image: alpine:3.20\ntimeout: 90\nenv:\n  A: '1'\n  B: '2'\nsecrets: [TOKEN]\nrepo: https://git.example/me/p\nbranch: v1\n";
    mycli.file(".mycli.yaml", file);
    let request = dry_run(
        &mycli,
        &["-e", "B=3", "--secret", "OTHER", "--image", "node:22"],
    )
    .exits(0)
    .json();
    let expected = json!({"command": "make", "image": "node:22", "timeout": "90", "env": {"A": "1", "B": "3"},
        "secrets": ["TOKEN", "OTHER"], "repo": "https://git.example/me/p", "branch": "v1"});
    assert_eq!(request, expected);
    let other = dry_run(&mycli, &["--repo", "https://git.example/me/other"])
        .exits(0)
        .json();
    assert_eq!(
        other.get("branch"),
        None,
        "the branch belongs to the file's own repository"
    );
    assert_eq!(
        dry_run(&mycli, &["--no-repo"]).exits(0).json().get("repo"),
        None
    );
}

#[track_caller]
fn check_file(text: &str, said: &str) {
    let mycli = Mycli::unconfigured();
    mycli.file(".mycli.yaml", text);
    dry_run(&mycli, &["--no-repo"])
        .exits(2)
        .prints("")
        .says(said);
}

#[test]
fn a_fault_in_the_file_is_named_with_its_line() {
    check_file(
        "image: a\ntimeuot: 3m\n",
        ".mycli.yaml:2: unknown field `timeuot`",
    );
    check_file("# x\n\ncommand: ls\n", ".mycli.yaml:3: `command`");
    check_file("image: a\ncpu: 3\n", ".mycli.yaml:2)");
    check_file("env:\n  'a b': x\n", ".mycli.yaml:1)");
    check_file("image: [\n", ".mycli.yaml:");
}

/// Makes a bare `origin` with the branch `main`, and clones it into mycli's directory.
fn cloned(mycli: &Mycli) -> String {
    let origin = mycli.home.path().join("origin.git");
    git(
        mycli.home.path(),
        &["init", "--quiet", "--bare", "-b", "main", "origin.git"],
    );
    git(mycli.dir.path(), &["init", "--quiet", "-b", "main"]);
    git(
        mycli.dir.path(),
        &[
            "remote",
            "add",
            "origin",
            origin.to_str().expect("a UTF-8 path"),
        ],
    );
    commit(mycli, "first");
    git(mycli.dir.path(), &["push", "--quiet", "origin", "main"]);
    origin
        .canonicalize()
        .expect("a UTF-8 path")
        .to_str()
        .expect("a UTF-8 path")
        .to_owned()
}

fn commit(mycli: &Mycli, name: &str) {
    mycli.file(name, name);
    git(mycli.dir.path(), &["add", "."]);
    git(
        mycli.dir.path(),
        &[
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "commit",
            "--quiet",
            "-m",
            name,
        ],
    );
}

#[track_caller]
fn git(dir: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .current_dir(dir)
        .args(arguments)
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[track_caller]
fn check_source(mycli: &Mycli, flags: &[&str], repo: &str, branch: Option<&str>) -> Ran {
    let ran = dry_run(mycli, &[&["--local"], flags].concat()).exits(0);
    let request = ran.json();
    assert_eq!(
        (request["repo"].as_str(), request["branch"].as_str()),
        (Some(repo), branch),
        "{ran:#?}"
    );
    ran
}

#[test]
fn the_repository_here_gives_its_origin_and_branch() {
    let mycli = Mycli::unconfigured();
    let origin = cloned(&mycli);
    assert_eq!(
        check_source(&mycli, &[], &origin, Some("main")).err,
        "mycli: running on branch main of origin\n"
    );
    assert_eq!(
        check_source(&mycli, &["--branch", "v1"], &origin, Some("v1")).err,
        "",
        "nothing to say of what was asked for"
    );
    fs::create_dir(mycli.dir.path().join("deep")).unwrap();
    let deep = mycli
        .command(&["exec", "--dry-run", "--local", "make"])
        .current_dir(mycli.dir.path().join("deep"))
        .output();
    assert_eq!(
        Ran::from(deep.unwrap()).exits(0).json()["repo"],
        Value::from(origin)
    );
}

#[test]
fn work_that_the_run_will_not_see_is_warned_of() {
    let mycli = Mycli::unconfigured();
    let origin = cloned(&mycli);
    commit(&mycli, "second");
    mycli.file("loose", "");
    check_source(&mycli, &[], &origin, Some("main"))
        .says("1 commit of main not pushed")
        .says("1 file is not committed");
    git(mycli.dir.path(), &["switch", "--quiet", "-c", "new"]);
    check_source(&mycli, &[], &origin, None)
        .says("origin has no branch new: running on its default branch");
    git(mycli.dir.path(), &["switch", "--quiet", "--detach"]);
    check_source(&mycli, &[], &origin, None).says("no branch is checked out");
}

#[test]
fn without_a_repository_it_says_what_to_do() {
    let mycli = Mycli::unconfigured();
    dry_run(&mycli, &[])
        .exits(2)
        .says("not a git repository")
        .says("--no-repo");
    git(mycli.dir.path(), &["init", "--quiet"]);
    dry_run(&mycli, &[])
        .exits(2)
        .says("no remote `origin`")
        .says("--repo");
}

#[test]
fn a_directory_is_a_repository_on_this_machine_only() {
    let mycli = Mycli::unconfigured();
    let here = mycli.dir.path().canonicalize().unwrap();
    check_source(&mycli, &["--repo", "."], here.to_str().unwrap(), None);
    dry_run(&mycli, &["--repo", "."]).exits(2).says("repo: ");
}
