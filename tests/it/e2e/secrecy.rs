//! Secrets: they reach the commands they are for, and appear nowhere else.

use std::fs;

use tests::{
    planted::{self, Planted, Sightings},
    sandbox::{Ran, Running, Sandbox, holds},
};

use crate::git_server::{Habits, HttpServer, SshServer, git};

/// The environment of a mycli with the most verbose output.
const LOUD: [(&str, &str); 3] = [
    ("MYCLI_LOG", "trace"),
    ("RUST_LOG", "trace"),
    ("RUST_BACKTRACE", "full"),
];

fn private_server(token: &str) -> HttpServer {
    HttpServer::new(Habits {
        login: Some(format!("x-access-token:{token}").leak()),
        ..Habits::default()
    })
}

/// A user with the most verbose output of mycli.
fn loud() -> Sandbox {
    LOUD.into_iter()
        .fold(Sandbox::new(), |sandbox, (name, value)| {
            sandbox.with(name, value)
        })
}

/// Checks that no file of the home holds a planted value, except the files that are meant to.
#[track_caller]
fn check_files(sandbox: &Sandbox, planted: &Planted) {
    let store = sandbox.store();
    assert!(
        store.join("store.sqlite").exists(),
        "the store is looked at"
    );
    assert_eq!(
        planted.found_beneath(
            &sandbox.home(),
            &[store.join("secrets"), store.join("serve.key")]
        ),
        []
    );
}

#[track_caller]
fn check_said(planted: &Planted, ran: &Ran) {
    assert_eq!(
        (
            planted.found_in(ran.out.as_bytes()),
            planted.found_in(ran.err.as_bytes())
        ),
        (None, None),
        "{ran:#?}"
    );
}

/// Checks that no command that shows the run afterwards prints a secret.
#[track_caller]
fn check_all_said_of(sandbox: &Sandbox, planted: &Planted) {
    for arguments in [
        &["status", "-o", "json"][..],
        &["status"],
        &["history", "-o", "json"],
        &["logs"],
        &["rerun", "--dry-run"],
    ] {
        check_said(planted, &sandbox.local(&[&["-v"], arguments].concat()));
    }
}

/// Checks that no process ever had a secret in its arguments, and that only processes of this
/// execution's task had one in their environment.
#[track_caller]
fn check_processes(sightings: &Sightings, home: &str, id: &str) {
    assert!(
        sightings
            .arguments
            .iter()
            .any(|arguments| arguments.contains(home)),
        "mycli's own processes were looked at"
    );
    assert_eq!(sightings.in_arguments, []);
    for (name, process) in &sightings.in_environments {
        assert!(
            holds(&process.environ, id),
            "{name} in the environment of {}",
            process.shown()
        );
    }
}

/// Checks the environments while the command runs. No process has git's credential, and only the
/// command's processes have the password.
fn check_environments(sandbox: &Sandbox, id: &str, git: &Planted, password: &str) {
    let theirs = sandbox.processes();
    assert!(
        theirs.iter().any(|process| holds(&process.environ, id)),
        "the command's processes are seen"
    );
    for process in theirs {
        assert_eq!(git.found_in(&process.environ), None, "{}", process.shown());
        assert!(
            !holds(&process.environ, password) || holds(&process.environ, id),
            "{}",
            process.shown()
        );
    }
}

/// Clones a private repository and gives its command a password. Searches everything for both,
/// during the run and afterwards.
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
    let running = sandbox.start(&[
        "-v",
        "--local",
        "exec",
        "--repo",
        url,
        "--secret",
        "API_PASSWORD",
        &command,
    ]);
    assert_eq!(
        [running.line(), running.line(), running.line()],
        ["main", &password.len().to_string(), "given"]
    );
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
    assert!(
        sandbox
            .local(&["status"])
            .out
            .contains("secrets    API_PASSWORD\n"),
        "its name is told"
    );
}

#[test]
fn a_token_and_a_secret_reach_whom_they_are_for_and_are_found_nowhere_else() {
    let token = planted::value();
    let (sandbox, server) = (loud(), private_server(&token));
    sandbox.keep_credential("GIT_TOKEN", &format!("{token}\n"));
    check_a_run(
        &sandbox,
        &server.url(),
        &Planted::default().with("the token", &token),
    );
}

#[test]
fn a_key_for_git_is_found_nowhere_else() {
    let (sandbox, server) = (loud(), SshServer::new());
    sandbox.keep_credential("GIT_SSH_KEY", &server.key("user"));
    sandbox.keep_secret("known_hosts", &server.pin("host"));
    check_a_run(
        &sandbox,
        &server.url(),
        &Planted::default().with("git's key", &server.secret_of("user")),
    );
}

/// Wherever mycli panics, the process ends, says that the fault is its own, and the run is taken
/// over. No output shows the secrets that the process knew.
#[test]
fn a_fault_of_mycli_s_own_ends_it_loses_no_run_and_tells_no_secret() {
    let (token, password) = (planted::value(), planted::value());
    let (sandbox, server) = (loud(), private_server(&token));
    sandbox.keep_credential("GIT_TOKEN", &format!("{token}\n"));
    sandbox.keep_secret("API_PASSWORD", &password);
    let planted = Planted::default()
        .with("the token", &token)
        .with("the password", &password);
    let watch = planted.watch();
    let points = [
        "store.create.after",
        "host.spawn.before",
        "host.spawn.after",
        "host.release.after",
        "database.update_task.after",
    ];
    for point in points {
        let mut command = sandbox.command(&[
            "-v",
            "--local",
            "exec",
            "--repo",
            &server.url(),
            "--secret",
            "API_PASSWORD",
            "cat f",
        ]);
        command.env("MYCLI_FAILPOINT", format!("{point}!"));
        let ran = Running::of(command)
            .end()
            .exits(125)
            .says("this is a fault of mycli itself");
        assert!(
            ran.err.contains(&format!("asked to panic at {point}"))
                && ran.err.contains("stack backtrace"),
            "{ran:#?}"
        );
        check_said(&planted, &ran);
        let id = sandbox.local(&["status", "-o", "json"]).exits(0).json()["execution_id"]
            .as_str()
            .unwrap()
            .to_owned();
        sandbox.until_status(&id, "SUCCEEDED");
        check_all_said_of(&sandbox, &planted);
        check_files(&sandbox, &planted);
    }
    assert_eq!(watch.end().in_arguments, []);
    assert_eq!(
        sandbox.local(&["history", "-o", "json"]).json()["executions"]
            .as_array()
            .map(Vec::len),
        Some(points.len())
    );
}

/// A password in a URL is refused. Until then it is only in the user's own files. Git is not asked
/// about the URL, because git's process would have it among its arguments.
#[test]
fn a_password_in_a_repository_s_address_is_neither_sent_nor_told() {
    let password = planted::plain_value();
    let (sandbox, server) = (loud(), private_server(&password));
    let planted = Planted::default().with("the password", &password);
    let url = server
        .url()
        .replace("//", &format!("//x-access-token:{password}@"));
    let work = sandbox.path("");
    git(&work, &["init", "-q", "-b", "main"]);
    git(&work, &["commit", "-q", "--allow-empty", "-m", "first"]);
    git(&work, &["remote", "add", "origin", &url]);
    let watch = planted.watch();
    let refused = |arguments: &[&str]| {
        let ran = sandbox.local(&[&["-v"], arguments].concat());
        assert!(
            ran.err.contains("user name or password") && ran.code != Some(0),
            "{ran:#?}"
        );
        check_said(&planted, &ran);
    };
    refused(&["exec", "true"]);
    refused(&["exec", "--dry-run", "true"]);
    fs::write(
        sandbox.path("lines"),
        serde_json::json!({"command": "true", "repo": url}).to_string(),
    )
    .unwrap();
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
    let key = format!(
        "sk_live_{}{}",
        planted::plain_value(),
        planted::plain_value()
    );
    let planted = Planted::default()
        .with("the token", &token)
        .with("another secret", &other)
        .with("the user's key", &key);
    let sandbox = Sandbox::new()
        .with("MYCLI_API_KEY", &key)
        .with("MYCLI_SECRET_OTHER", &other);
    let server = private_server(&token);
    sandbox.keep_credential("GIT_TOKEN", &token);
    let search = "env; cat .git/config; cat /proc/self/environ /proc/$$/environ /proc/$PPID/environ | tr '\\0' '\\n'; \
                  git config --list; ls -A \"$HOME\" \"$TMPDIR\"; grep -rs planted . \"$HOME\" \"$TMPDIR\"; echo searched";
    let ran = sandbox
        .local(&["exec", "--repo", &server.url(), search])
        .exits(0);
    assert!(
        ran.out.contains("PATH=") && ran.out.ends_with("searched\n"),
        "{ran:#?}"
    );
    check_said(&planted, &ran);
    assert!(!ran.out.contains("MYCLI_GIT"), "{ran:#?}");
}

#[test]
fn a_token_is_shown_to_its_own_hosts_only_and_the_log_says_so() {
    let token = planted::value();
    let (sandbox, server) = (Sandbox::new(), private_server(&token));
    let exec = ["exec", "--repo", &server.url(), "cat f"];
    sandbox.keep_secret("GIT_TOKEN", &token);
    let ran = sandbox.local(&exec).exits(125).says("set-up failed");
    assert!(
        ran.out.contains("mycli: GIT_TOKEN is not for 127.0.0.1"),
        "{ran:#?}"
    );
    assert_eq!(server.shown(), [] as [&str; 0]);
    let port = server.url().split([':', '/']).nth(4).unwrap().to_owned();
    for (host, opens) in [
        ("127.0.0.1:1", false),
        ("127.0.0.1", true),
        (&*format!("127.0.0.1:{port}"), true),
    ] {
        let set = [
            "--local",
            "secrets",
            "set",
            "GIT_TOKEN",
            "--host",
            "git.example.com",
            "--host",
            host,
        ];
        sandbox
            .run_with(&set, &token)
            .exits(0)
            .says(&format!("for git.example.com, {host}"));
        sandbox.local(&exec).exits(if opens { 0 } else { 125 });
        assert_eq!(!server.shown().is_empty(), opens, "{host}");
    }
    // A new value keeps the secret's hosts.
    sandbox
        .run_with(&["--local", "secrets", "set", "GIT_TOKEN"], &token)
        .exits(0)
        .says(&format!("127.0.0.1:{port}"));
    let listed = sandbox
        .run(&["--local", "secrets", "list", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        listed["secrets"][0]["hosts"],
        serde_json::json!(["git.example.com", format!("127.0.0.1:{port}")])
    );
    sandbox
        .run(&["--local", "secrets", "remove", "GIT_TOKEN"])
        .exits(0);
    sandbox
        .run_with(&["--local", "secrets", "set", "GIT_TOKEN"], &token)
        .exits(0)
        .says("for github.com, gitlab.com");
}

#[test]
fn hosts_are_for_credentials_of_git_and_are_hosts() {
    let sandbox = Sandbox::new();
    for (set, says) in [
        (
            &["set", "NPM_TOKEN", "--host", "github.com"][..],
            "NPM_TOKEN is not used for cloning",
        ),
        (
            &["set", "GIT_TOKEN", "--host", "https://github.com/me"],
            "write the host alone",
        ),
        (
            &["set", "GIT_TOKEN", "--host", "*.github.com"],
            "is not a host",
        ),
    ] {
        sandbox
            .run_with(&[&["--local", "secrets"], set].concat(), "x")
            .exits(2)
            .says(says);
    }
    sandbox
        .run(&["--local", "secrets", "list"])
        .exits(0)
        .says("no secrets");
}

/// A request may set any variable for its command. The set-up must not see those that could make it
/// reveal its token.
#[test]
fn a_request_s_proxies_loader_and_path_reach_its_command_and_not_the_set_up() {
    let token = planted::value();
    let (sandbox, server) = (Sandbox::new(), private_server(&token));
    sandbox.keep_credential("GIT_TOKEN", &token);
    let stolen = sandbox.path("stolen");
    sandbox.write_program(
        "git",
        &format!(
            "#!/bin/sh\n/usr/bin/env >>'{}'\nexec /usr/bin/git \"$@\"\n",
            stolen.display()
        ),
    );
    let evil = sandbox.path("").display().to_string();
    let environment = [
        "http_proxy=http://127.0.0.1:9/".to_owned(),
        "HTTPS_PROXY=http://127.0.0.1:9/".into(),
        "LD_PRELOAD=/nonexistent/steal.so".into(),
        "GIT_SSL_NO_VERIFY=it's \"1\" $HOME".into(),
        format!("PATH={evil}:/usr/bin:/bin"),
        format!("HOME={evil}"),
    ];
    let variables: Vec<&str> = environment
        .iter()
        .flat_map(|variable| ["--env", variable])
        .collect();
    let show = "printf '%s|' \"$http_proxy\" \"$HTTPS_PROXY\" \"$LD_PRELOAD\" \"$GIT_SSL_NO_VERIFY\" \"$PATH\" \"$HOME\"; \
                printf '%s|' ${MYCLI_HELD-none} ${MYCLI_ENV_PATH-none}; command -v git 2>/dev/null";
    let ran = sandbox
        .local(&[&["exec", "--repo", &server.url()], &variables[..], &[show]].concat())
        .exits(0);
    let expected = format!(
        "http://127.0.0.1:9/|http://127.0.0.1:9/|/nonexistent/steal.so|it's \"1\" $HOME|{evil}:/usr/bin:/bin|{evil}|none|none|{evil}/git\n"
    );
    let own: String = ran
        .out
        .lines()
        .filter(|line| !line.contains("ld.so"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(own, expected);
    assert!(!stolen.exists(), "the set-up used the request's git");
    // No shell sets a run up. So an option that makes bash print what it does prints the command.
    let traced = sandbox
        .local(
            &[
                &["exec", "--no-repo"],
                &["--env", "SHELLOPTS=xtrace", "--", "bash", "-c", "echo done"][..],
            ]
            .concat(),
        )
        .exits(0);
    assert_eq!(traced.out, "+ echo done\ndone\n");
}

#[test]
fn a_token_that_is_refused_is_not_shown() {
    let (sandbox, server) = (
        Sandbox::new(),
        HttpServer::new(Habits {
            login: Some("x-access-token:another"),
            ..Habits::default()
        }),
    );
    let token = planted::value();
    sandbox.keep_credential("GIT_TOKEN", &token);
    let ran = sandbox
        .run(&["-v", "--local", "exec", "--repo", &server.url(), "true"])
        .exits(125)
        .says(&server.url());
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
    let ran = sandbox
        .local(&["exec", "--no-repo", "--secret", "API_PASSWORD", "true"])
        .exits(2)
        .says("API_PASSWORD");
    assert!(!ran.err.contains(&password), "{ran:#?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // A command that is given the secret may print it.
    sandbox
        .local(&[
            "exec",
            "--no-repo",
            "--secret",
            "API_PASSWORD",
            "echo $API_PASSWORD",
        ])
        .exits(0)
        .prints(&format!("{password}\n"));
}

#[test]
fn a_server_s_key_is_kept_for_its_owner_and_told_nowhere() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = loud();
    let serve = sandbox.serve(&["-v"]);
    let file = sandbox.store().join("serve.key");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let made = serve
        .run(&sandbox, &["keys", "create", "ci", "--role", "submit"])
        .exits(0)
        .out
        .trim()
        .to_owned();
    let planted = Planted::default()
        .with("the server's key", &serve.key[8..])
        .with("a key made later", &made[8..]);
    let watch = planted.watch();
    let ran = serve
        .run(
            &sandbox,
            &[
                "-v",
                "exec",
                "--no-repo",
                "env; tr '\\0' '\\n' </proc/$PPID/environ",
            ],
        )
        .exits(0);
    check_said(&planted, &ran);
    check_said(
        &planted,
        &serve
            .run(&sandbox, &["-v", "keys", "list", "-o", "json"])
            .exits(0),
    );
    check_said(
        &planted,
        &serve
            .run(&sandbox, &["-v", "status", "no-such-run"])
            .exits(1),
    );
    let sightings = watch.end();
    assert!(
        sightings
            .arguments
            .iter()
            .any(|arguments| arguments.contains("local serve")),
        "mycli was looked at"
    );
    assert_eq!(sightings.in_arguments, []);
    for (name, process) in &sightings.in_environments {
        assert!(
            process.mentions("MYCLI_API_KEY="),
            "{name} in the environment of {}",
            process.shown()
        );
    }
    check_said(&planted, &serve.stop().exits(0));
    check_files(&sandbox, &planted);
}
