//! Secrets: they reach whom they are for, and are found nowhere else.

use std::fs;

use tests::{
    planted::{self, Planted, Sightings},
    sandbox::{Ran, Running, Sandbox, holds},
};

use crate::script::server::{Habits, HttpServer, SshServer, git};

/// What a mycli that is asked to say all it can is run with.
const LOUD: [(&str, &str); 3] = [("MYCLI_LOG", "trace"), ("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")];

fn private_server(token: &str) -> HttpServer {
    HttpServer::new(Habits { login: Some(format!("x-access-token:{token}").leak()), ..Habits::default() })
}

/// Somebody whose mycli says all it can.
fn loud() -> Sandbox {
    LOUD.into_iter().fold(Sandbox::new(), |sandbox, (name, value)| sandbox.with(name, value))
}

/// Nothing of what was planted is in any file of the home, but for those that are there to keep it.
#[track_caller]
fn check_files(sandbox: &Sandbox, planted: &Planted) {
    let store = sandbox.store();
    assert!(store.join("store.sqlite").exists(), "the store is looked at");
    assert_eq!(planted.found_beneath(&sandbox.home(), &[store.join("secrets"), store.join("serve.key")]), []);
}

#[track_caller]
fn check_said(planted: &Planted, ran: &Ran) {
    assert_eq!((planted.found_in(ran.out.as_bytes()), planted.found_in(ran.err.as_bytes())), (None, None), "{ran:#?}");
}

/// Nothing that is said of a run afterwards tells a secret.
#[track_caller]
fn check_all_said_of(sandbox: &Sandbox, planted: &Planted) {
    for arguments in
        [&["status", "-o", "json"][..], &["status"], &["history", "-o", "json"], &["logs"], &["rerun", "--dry-run"]]
    {
        check_said(planted, &sandbox.local(&[&["-v"], arguments].concat()));
    }
}

/// No arguments held a secret at any time, and no environment but those of the task of this execution.
#[track_caller]
fn check_processes(sightings: &Sightings, home: &str, id: &str) {
    assert!(
        sightings.arguments.iter().any(|arguments| arguments.contains(home)),
        "mycli's own processes were looked at"
    );
    assert_eq!(sightings.in_arguments, []);
    for (name, process) in &sightings.in_environments {
        assert!(holds(&process.environ, id), "{name} in the environment of {}", process.shown());
    }
}

/// Once the command runs, git's credential is in no process's environment, and the password only in those of the command.
fn check_environments(sandbox: &Sandbox, id: &str, git: &Planted, password: &str) {
    let theirs = sandbox.processes();
    assert!(theirs.iter().any(|process| holds(&process.environ, id)), "the command's processes are seen");
    for process in theirs {
        assert_eq!(git.found_in(&process.environ), None, "{}", process.shown());
        assert!(!holds(&process.environ, password) || holds(&process.environ, id), "{}", process.shown());
    }
}

/// A private repository is cloned, and its command given a password; all the while and afterwards everything is searched for both.
fn check_a_run(sandbox: &Sandbox, url: &str, git: &Planted) {
    let password = planted::value();
    sandbox.keep_secret("API_PASSWORD", &password);
    let planted = git.clone().with("the password", &password);
    let go = sandbox.path("go");
    let command = format!(
        "cat f; echo ${{#API_PASSWORD}}; case $API_PASSWORD in p-*=) echo given;; esac; until [ -e '{}' ]; do sleep 0.05; done",
        go.display()
    );
    let watch = planted.watch();
    let running = sandbox.start(&["-v", "--local", "exec", "--repo", url, "--secret", "API_PASSWORD", &command]);
    assert_eq!([running.line(), running.line(), running.line()], ["main", &password.len().to_string(), "given"]);
    let record = sandbox.local(&["status", "-o", "json"]).json();
    let id = record["execution_id"].as_str().unwrap();
    check_environments(sandbox, id, git, &password);
    check_files(sandbox, &planted);
    fs::write(&go, "").unwrap();
    let ran = running.end().exits(0).says("submitted");
    check_processes(&watch.end(), &sandbox.home().display().to_string(), id);
    check_said(&planted, &ran);
    check_files(sandbox, &planted);
    check_all_said_of(sandbox, &planted);
    assert!(sandbox.local(&["status"]).out.contains("secrets    API_PASSWORD\n"), "its name is told");
}

#[test]
fn a_token_and_a_secret_reach_whom_they_are_for_and_are_found_nowhere_else() {
    let token = planted::value();
    let (sandbox, server) = (loud(), private_server(&token));
    sandbox.keep_secret("GIT_TOKEN", &format!("{token}\n"));
    check_a_run(&sandbox, &server.url(), &Planted::default().with("the token", &token));
}

#[test]
fn a_key_for_git_is_found_nowhere_else() {
    let (sandbox, server) = (loud(), SshServer::new());
    sandbox.keep_secret("GIT_SSH_KEY", &server.key("user"));
    sandbox.keep_secret("known_hosts", &server.pin("host"));
    check_a_run(&sandbox, &server.url(), &Planted::default().with("git's key", &server.secret_of("user")));
}

/// Wherever it panics, the process ends, it says what it is, and the run is taken over; and none of it tells what the process knew.
#[test]
fn a_fault_of_mycli_s_own_ends_it_loses_no_run_and_tells_no_secret() {
    let (token, password) = (planted::value(), planted::value());
    let (sandbox, server) = (loud(), private_server(&token));
    sandbox.keep_secret("GIT_TOKEN", &format!("{token}\n"));
    sandbox.keep_secret("API_PASSWORD", &password);
    let planted = Planted::default().with("the token", &token).with("the password", &password);
    let watch = planted.watch();
    let points = [
        "store.create.after",
        "host.spawn.before",
        "host.spawn.after",
        "host.release.after",
        "database.update_task.after",
    ];
    for point in points {
        let mut command =
            sandbox.command(&["-v", "--local", "exec", "--repo", &server.url(), "--secret", "API_PASSWORD", "cat f"]);
        command.env("MYCLI_FAILPOINT", format!("{point}!"));
        let ran = Running::of(command).end().exits(125).says("this is a fault of mycli itself");
        assert!(
            ran.err.contains(&format!("asked to panic at {point}")) && ran.err.contains("stack backtrace"),
            "{ran:#?}"
        );
        check_said(&planted, &ran);
        let id = sandbox.local(&["status", "-o", "json"]).exits(0).json()["execution_id"].as_str().unwrap().to_owned();
        sandbox.until_status(&id, "SUCCEEDED");
        check_all_said_of(&sandbox, &planted);
        check_files(&sandbox, &planted);
    }
    assert_eq!(watch.end().in_arguments, []);
    assert_eq!(
        sandbox.local(&["history", "-o", "json"]).json()["executions"].as_array().map(Vec::len),
        Some(points.len())
    );
}

/// A password within a URL is refused. Until then it is in the user's own files, and git is not asked about it: the process that git does that by
/// would have the URL among its arguments.
#[test]
fn a_password_in_a_repository_s_address_is_neither_sent_nor_told() {
    let password = planted::plain_value();
    let (sandbox, server) = (loud(), private_server(&password));
    let planted = Planted::default().with("the password", &password);
    let url = server.url().replace("//", &format!("//x-access-token:{password}@"));
    let work = sandbox.path("");
    git(&work, &["init", "-q", "-b", "main"]);
    git(&work, &["commit", "-q", "--allow-empty", "-m", "first"]);
    git(&work, &["remote", "add", "origin", &url]);
    let watch = planted.watch();
    let refused = |arguments: &[&str]| {
        let ran = sandbox.local(&[&["-v"], arguments].concat());
        assert!(ran.err.contains("user name or password") && ran.code != Some(0), "{ran:#?}");
        check_said(&planted, &ran);
    };
    refused(&["exec", "true"]);
    refused(&["exec", "--dry-run", "true"]);
    fs::write(sandbox.path("lines"), serde_json::json!({"command": "true", "repo": url}).to_string()).unwrap();
    refused(&["bulk", "lines"]);
    fs::write(sandbox.path(".mycli.yaml"), format!("repo: {url}\n")).unwrap();
    refused(&["exec", "true"]);
    refused(&["bulk", "--map-over-values", "1", "--", "true"]);
    assert_eq!(watch.end().in_arguments, []);
    sandbox.local(&["history"]).exits(0);
    check_files(&sandbox, &planted);
}

#[test]
fn the_command_itself_is_not_given_the_token() {
    let (token, other) = (planted::value(), planted::value());
    let key = format!("sk_live_{}{}", planted::plain_value(), planted::plain_value());
    let planted =
        Planted::default().with("the token", &token).with("another secret", &other).with("the user's key", &key);
    let sandbox = Sandbox::new().with("MYCLI_API_KEY", &key).with("MYCLI_SECRET_OTHER", &other);
    let server = private_server(&token);
    sandbox.keep_secret("GIT_TOKEN", &token);
    let search = "env; cat .git/config; cat /proc/self/environ /proc/$$/environ /proc/$PPID/environ | tr '\\0' '\\n'; \
                  git config --list; ls -A \"$HOME\" \"$TMPDIR\"; grep -rs planted . \"$HOME\" \"$TMPDIR\"; echo searched";
    let ran = sandbox.local(&["exec", "--repo", &server.url(), search]).exits(0);
    assert!(ran.out.contains("PATH=") && ran.out.ends_with("searched\n"), "{ran:#?}");
    check_said(&planted, &ran);
    assert!(!ran.out.contains("MYCLI_GIT"), "{ran:#?}");
}

#[test]
fn a_token_that_is_refused_is_not_shown() {
    let (sandbox, server) =
        (Sandbox::new(), HttpServer::new(Habits { login: Some("x-access-token:another"), ..Habits::default() }));
    let token = planted::value();
    sandbox.keep_secret("GIT_TOKEN", &token);
    let ran = sandbox.run(&["-v", "--local", "exec", "--repo", &server.url(), "true"]).exits(125).says(&server.url());
    let planted = Planted::default().with("the token", &token);
    check_said(&planted, &ran);
    check_files(&sandbox, &planted);
}

#[test]
fn a_secret_that_is_not_set_or_open_to_others_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    sandbox
        .local(&["exec", "--no-repo", "--secret", "API_PASSWORD", "true"])
        .exits(2)
        .says("API_PASSWORD")
        .says("0600");
    let password = planted::value();
    sandbox.keep_secret("API_PASSWORD", &password);
    let file = sandbox.store().join("secrets/API_PASSWORD");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = sandbox.local(&["exec", "--no-repo", "--secret", "API_PASSWORD", "true"]).exits(2).says("API_PASSWORD");
    assert!(!ran.err.contains(&password), "{ran:#?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // Asked for, it is the command's to show.
    sandbox
        .local(&["exec", "--no-repo", "--secret", "API_PASSWORD", "echo $API_PASSWORD"])
        .exits(0)
        .prints(&format!("{password}\n"));
}

#[test]
fn a_server_s_key_is_kept_for_its_owner_and_told_nowhere() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = loud();
    let serve = sandbox.serve(&["-v"]);
    let file = sandbox.store().join("serve.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let made = serve.run(&sandbox, &["keys", "create", "ci", "--role", "submit"]).exits(0).out.trim().to_owned();
    let planted = Planted::default().with("the server's key", &serve.key[8..]).with("a key made later", &made[8..]);
    let watch = planted.watch();
    let ran = serve.run(&sandbox, &["-v", "exec", "--no-repo", "env; tr '\\0' '\\n' </proc/$PPID/environ"]).exits(0);
    check_said(&planted, &ran);
    check_said(&planted, &serve.run(&sandbox, &["-v", "keys", "list", "-o", "json"]).exits(0));
    check_said(&planted, &serve.run(&sandbox, &["-v", "status", "no-such-run"]).exits(1));
    let sightings = watch.end();
    assert!(sightings.arguments.iter().any(|arguments| arguments.contains("local serve")), "mycli was looked at");
    assert_eq!(sightings.in_arguments, []);
    for (name, process) in &sightings.in_environments {
        assert!(process.mentions("MYCLI_API_KEY="), "{name} in the environment of {}", process.shown());
    }
    check_said(&planted, &serve.stop().exits(0));
    check_files(&sandbox, &planted);
}
