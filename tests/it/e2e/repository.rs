//! Commands on a fresh clone of a repository, served on loopback or stored on this machine.

use std::fs;

use serde_json::{Value, json};
use tests::sandbox::Sandbox;

use crate::git_server::{Habits, HttpServer, Origin, git};

/// Runs a command on a clone, and returns its output and the record.
#[track_caller]
fn on_clone(sandbox: &Sandbox, repo: &str, more: &[&str], command: &str) -> (String, Value) {
    let ran = sandbox
        .local(&[&["exec", "--repo", repo], more, &[command]].concat())
        .exits(0);
    (
        ran.out,
        sandbox.local(&["status", "-o", "json"]).exits(0).json(),
    )
}

#[track_caller]
fn check_every_ref(origin: &Origin, repo: &str) {
    let sandbox = Sandbox::new();
    let old = origin.commit("v1");
    let names = [
        ("feature/a", "old"),
        ("v1", "old"),
        ("noted", "old"),
        (&old[..], "old"),
        (&old[..8], "old"),
        ("main", "main"),
    ];
    for (name, text) in names {
        let (out, record) = on_clone(
            &sandbox,
            repo,
            &["--branch", name],
            "cat f; git rev-parse HEAD",
        );
        let commit = origin.commit(if text == "old" { "v1" } else { "main" });
        assert_eq!(out, format!("{text}\n{commit}\n"), "{name}");
        assert_eq!(
            (&record["commit"], &record["branch"]),
            (&json!(commit), &json!(name))
        );
        let page = sandbox.local(&["status"]).exits(0).out;
        assert!(page.contains(&format!("commit     {commit}\n")), "{page}");
    }
}

#[test]
fn a_repository_behind_http_is_cloned_at_any_ref() {
    let server = HttpServer::new(Habits::default());
    check_every_ref(&server.origin, &server.url());
}

#[test]
fn a_repository_on_this_machine_is_cloned_at_any_ref() {
    let origin = Origin::new();
    check_every_ref(&origin, origin.path().to_str().unwrap());
    check_every_ref(&origin, &format!("file://{}", origin.path().display()));
}

#[test]
fn the_default_branch_is_taken_where_none_is_named() {
    let server = HttpServer::new(Habits::default());
    let (out, record) = on_clone(&Sandbox::new(), &server.url(), &[], "ls; cat f");
    assert_eq!(out, "f\nmain\n");
    assert_eq!(
        (&record["commit"], &record["repo"]),
        (&json!(server.origin.commit("main")), &json!(server.url()))
    );
}

#[test]
fn a_clone_is_fresh_each_time_and_gone_afterwards() {
    let (sandbox, origin) = (Sandbox::new(), Origin::new());
    let repo = origin.path();
    for _ in 0..2 {
        let (out, _) = on_clone(
            &sandbox,
            repo.to_str().unwrap(),
            &[],
            "cat f; echo changed >f; : >more; git status --short",
        );
        assert_eq!(out, "main\n M f\n?? more\n");
    }
    let left: Vec<_> = tests::sandbox::files(&sandbox.store().join("tasks"));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(git(&repo, &["rev-parse", "main"]), origin.commit("main"));
}

#[track_caller]
fn check_refused(repo: &str, more: &[&str], named: &[&str]) {
    let sandbox = Sandbox::new();
    let ran = sandbox
        .local(&[&["exec", "--repo", repo], more, &["echo started"]].concat())
        .exits(125);
    assert!(!ran.out.contains("started"), "{ran:#?}");
    let record = sandbox.local(&["status", "-o", "json"]).exits(0).json();
    let reason = record["reason"].as_str().unwrap();
    assert_eq!(
        (&record["status"], &record["exit_code"], &record["commit"]),
        (&json!("FAILED"), &Value::Null, &Value::Null)
    );
    for text in named {
        assert!(
            reason.contains(text) && ran.err.contains(text),
            "{text} in {reason} and {ran:#?}"
        );
    }
}

#[test]
fn what_cannot_be_cloned_is_named() {
    let server = HttpServer::new(Habits::default());
    let url = server.url();
    check_refused(
        &url,
        &["--branch", "no-such"],
        &["no branch, tag or commit no-such", &url],
    );
    check_refused(
        &url,
        &["--branch", "0123456789abcdef0123456789abcdef01234567"],
        &["0123456789abcdef0123456789abcdef01234567"],
    );
    check_refused(&url.replace("project", "nothing"), &[], &["nothing.git"]);
    check_refused("/no/such/repository", &[], &["/no/such/repository"]);
}

#[test]
fn a_request_with_faults_is_refused_before_it_is_recorded() {
    let sandbox = Sandbox::new();
    let ran = sandbox.local(&[
        "exec",
        "--repo",
        "https://a.example/x",
        "--branch=--upload-pack=x",
        "--cpu",
        "3",
        "--timeout",
        "soon",
        "true",
    ]);
    let ran = ran.exits(2).prints("");
    for field in ["\n  branch: ", "\n  cpu: ", "\n  timeout: "] {
        assert!(ran.err.contains(field), "{field:?} in {}", ran.err);
    }
    sandbox.local(&["history"]).exits(0).says("no runs");
}

/// Clones the repository at `url` into the folder `clone` of the user's working directory, and
/// returns its path.
fn inside_clone(sandbox: &Sandbox, url: &str) -> std::path::PathBuf {
    git(&sandbox.path(""), &["clone", "-q", url, "clone"]);
    sandbox.path("clone")
}

#[track_caller]
fn run_in(sandbox: &Sandbox, folder: &std::path::Path, arguments: &[&str]) -> tests::sandbox::Ran {
    let mut command = sandbox.command(&[&["--local"], arguments].concat());
    command.current_dir(folder);
    tests::sandbox::Running::of(command).end()
}

#[test]
fn inside_a_clone_its_origin_and_branch_are_taken() {
    let server = HttpServer::new(Habits::default());
    let sandbox = Sandbox::new();
    let clone = inside_clone(&sandbox, &server.url());
    run_in(&sandbox, &clone, &["exec", "cat f"])
        .exits(0)
        .prints("main\n")
        .says("main");
    git(&clone, &["checkout", "-q", "feature/a"]);
    fs::write(clone.join("f"), "not committed\n").unwrap();
    run_in(&sandbox, &clone, &["exec", "cat f"])
        .exits(0)
        .prints("old\n")
        .says("feature/a")
        .says("1 file is not committed");
    let record = sandbox.local(&["status", "-o", "json"]).json();
    assert_eq!(
        (&record["repo"], &record["branch"]),
        (&json!(server.url()), &json!("feature/a"))
    );
    // Only this clone has the branch, so the remote's default is used, and mycli says so.
    git(&clone, &["checkout", "-q", "-b", "only-here", "-f"]);
    run_in(&sandbox, &clone, &["exec", "cat f"])
        .exits(0)
        .prints("main\n")
        .says("only-here");
}

#[test]
fn a_project_file_is_read_from_the_nearest_parent_and_flags_go_before_it() {
    let server = HttpServer::new(Habits::default());
    let sandbox = Sandbox::new();
    let clone = inside_clone(&sandbox, &server.url());
    let yaml = format!(
        "repo: {}\nbranch: v1\nenv:\n  GREETING: from the file\ntimeout: 5m\n",
        server.url()
    );
    fs::write(clone.join(".mycli.yaml"), yaml).unwrap();
    let deep = clone.join("a/b");
    fs::create_dir_all(&deep).unwrap();
    run_in(&sandbox, &deep, &["exec", "cat f; echo $GREETING"])
        .exits(0)
        .prints("old\nfrom the file\n");
    assert_eq!(
        sandbox.local(&["status", "-o", "json"]).json()["timeout"],
        "5m"
    );
    run_in(
        &sandbox,
        &deep,
        &[
            "exec",
            "-e",
            "GREETING=from the flag",
            "--branch",
            "main",
            "cat f; echo $GREETING",
        ],
    )
    .exits(0)
    .prints("main\nfrom the flag\n");
    fs::write(
        clone.join(".mycli.yaml"),
        "repo: https://a.example/x\nbranhc: v1\n",
    )
    .unwrap();
    let ran = run_in(&sandbox, &deep, &["exec", "true"])
        .exits(2)
        .says("branhc")
        .says(".mycli.yaml");
    assert!(
        ran.err.contains(":2") || ran.err.contains("line 2"),
        "{}",
        ran.err
    );
}

#[test]
fn outside_of_a_repository_it_says_what_to_do() {
    Sandbox::new()
        .local(&["exec", "true"])
        .exits(2)
        .says("--repo")
        .says("--no-repo");
}

#[test]
fn a_clone_has_as_much_history_as_is_asked_for() {
    let (sandbox, origin) = (Sandbox::new(), Origin::new());
    let path = origin.path().display().to_string();
    let count = "git rev-list --count HEAD";
    for (more, expected) in [
        (&[][..], "1"),
        (&["--depth", "2"], "2"),
        (&["--depth", "full"], "4"),
    ] {
        let (out, _) = on_clone(&sandbox, &path, more, count);
        assert_eq!(out.trim(), expected, "{more:?}");
    }
    let whole = ["--depth", "full"];
    let (out, record) = on_clone(
        &sandbox,
        &path,
        &whole,
        "git describe --tags; git branch -r",
    );
    assert!(out.starts_with("twin-") || out.starts_with("v1-"), "{out}");
    assert!(out.contains("origin/feature/a"), "{out}");
    assert_eq!(record["depth"], "full");
    let page = sandbox.local(&["status"]).exits(0).out;
    assert!(page.contains("clone      whole history\n"), "{page}");
    let (out, _) = {
        let ran = sandbox.local(&["rerun", "--depth", "1"]).exits(0);
        (ran.out, ())
    };
    assert!(!out.contains("origin/feature/a"), "{out}");
    for (depth, words) in [
        ("0", "depth: `0` is neither"),
        ("two", "depth: `two` is neither"),
    ] {
        sandbox
            .local(&["exec", "--repo", &path, "--depth", depth, "true"])
            .exits(2)
            .says(words);
    }
    sandbox
        .local(&["exec", "--no-repo", "--lfs", "true"])
        .exits(2)
        .says("cannot be used with");
    fs::write(sandbox.path(".mycli.yaml"), "submodules: true\n").expect("written");
    sandbox.local(&["exec", "--no-repo", "true"]).exits(0);
}

/// A submodule on another host than its repository gets the credential of that host.
#[test]
fn submodules_are_fetched_with_the_credentials_of_their_own_hosts() {
    const TOKEN: &str = "planted-token-Kq7";
    let server = HttpServer::new(Habits {
        login: Some("x-access-token:planted-token-Kq7"),
        ..Habits::default()
    });
    let folder = tempfile::tempdir().expect("a folder");
    let outer = folder.path().join("outer");
    fs::create_dir(&outer).expect("made");
    git(&outer, &["init", "-q", "-b", "main"]);
    let modules = format!(
        "[submodule \"inner\"]\n\tpath = inner\n\turl = {}\n",
        server.url()
    );
    fs::write(outer.join(".gitmodules"), modules).expect("written");
    let link = format!("160000,{},inner", server.origin.commit("v1"));
    git(&outer, &["update-index", "--add", "--cacheinfo", &link]);
    git(&outer, &["add", ".gitmodules"]);
    git(&outer, &["commit", "-q", "-m", "outer"]);
    let sandbox = Sandbox::new();
    sandbox.keep_credential("GIT_TOKEN", TOKEN);
    let repo = outer.display().to_string();
    let (out, record) = on_clone(
        &sandbox,
        &repo,
        &["--submodules"],
        "cat inner/f; git status --short",
    );
    assert_eq!(out, "old\n");
    assert_eq!(record["submodules"], true);
    let (out, _) = on_clone(&sandbox, &repo, &[], "ls inner | wc -l");
    assert_eq!(out.trim(), "0");
}
