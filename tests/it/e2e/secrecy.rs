//! Secrets: they reach whom they are for, and are found nowhere else.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tests::sandbox::{Process, Sandbox, eventually, files, holds};

use crate::script::server::{Habits, HttpServer};

const TOKEN: &str = "planted-token-7Kq2Vx9LmT4w";
const LOGIN: &str = "x-access-token:planted-token-7Kq2Vx9LmT4w";
const PASSWORD: &str = "planted-password-Hn3Rz8YcB5";

fn private_server() -> HttpServer {
    HttpServer::new(Habits { login: Some(LOGIN), ..Habits::default() })
}

/// The forms under which a secret could be found: as it is, and in base64, alone or as HTTP's login.
fn forms() -> Vec<String> {
    let mut forms = vec![TOKEN.to_owned(), PASSWORD.to_owned()];
    for text in [TOKEN, LOGIN, PASSWORD] {
        forms.push(BASE64_STANDARD.encode(text).trim_end_matches('=').to_owned());
    }
    forms
}

fn found_in(bytes: &[u8]) -> Option<String> {
    forms().into_iter().find(|form| holds(bytes, form))
}

/// Every file of the home but the secrets' own.
fn check_files(sandbox: &Sandbox) {
    let kept = sandbox.store().join("secrets");
    let searched: Vec<_> = files(&sandbox.home()).into_iter().filter(|path| !path.starts_with(&kept)).collect();
    assert!(searched.iter().any(|path| path.ends_with("store.sqlite")), "{searched:?}");
    for path in searched {
        // What is gone by now is not there to be found.
        let bytes = fs::read(&path).unwrap_or_default();
        assert_eq!(found_in(&bytes), None, "{}", path.display());
    }
}

/// Looks at the arguments of all processes until told to stop; gives how many looks it took, and which told a secret.
fn watch_arguments(sandbox: &Sandbox, stop: &AtomicBool) -> (usize, Vec<String>) {
    let home = sandbox.home().display().to_string();
    let (mut seen, mut told) = (0, Vec::new());
    while !stop.load(Ordering::SeqCst) {
        for process in Process::all() {
            seen += usize::from(process.mentions(&home));
            if found_in(&process.argv).is_some() {
                told.push(String::from_utf8_lossy(&process.argv).replace('\0', " "));
            }
        }
        thread::yield_now();
    }
    (seen, told)
}

/// Once the command runs, the token is in no process's environment, and the password only in those of the command.
fn check_environments(sandbox: &Sandbox, id: &str) {
    let theirs = sandbox.processes();
    assert!(theirs.iter().any(|process| holds(&process.environ, id)), "the command's processes are seen");
    for process in theirs {
        let text = String::from_utf8_lossy(&process.environ).replace('\0', "\n");
        assert!(!text.contains(TOKEN) && !text.contains(&BASE64_STANDARD.encode(LOGIN)), "{process:?}\n{text}");
        assert!(!text.contains(PASSWORD) || text.contains(id), "{process:?}\n{text}");
    }
}

#[test]
fn a_token_and_a_secret_reach_whom_they_are_for_and_are_found_nowhere_else() {
    let (sandbox, server) = (Sandbox::new(), private_server());
    sandbox.keep_secret("GIT_TOKEN", &format!("{TOKEN}\n"));
    sandbox.keep_secret("API_PASSWORD", PASSWORD);
    let go = sandbox.path("go");
    let command = format!(
        "cat f; echo ${{#API_PASSWORD}}; case $API_PASSWORD in planted-p*5) echo given;; esac; until [ -e '{}' ]; do sleep 0.05; done",
        go.display()
    );
    let stop = AtomicBool::new(false);
    let (ran, (seen, told)) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch_arguments(&sandbox, &stop));
        let running =
            sandbox.start(&["-v", "--local", "exec", "--repo", &server.url(), "--secret", "API_PASSWORD", &command]);
        assert_eq!([running.line(), running.line(), running.line()], ["main", &PASSWORD.len().to_string(), "given"]);
        let record = sandbox.local(&["status", "-o", "json"]).json();
        check_environments(&sandbox, record["execution_id"].as_str().unwrap());
        check_files(&sandbox);
        fs::write(&go, "").unwrap();
        let ran = running.end().exits(0);
        stop.store(true, Ordering::SeqCst);
        (ran, watching.join().unwrap())
    });
    assert!(seen > 0, "mycli's own processes were looked at");
    assert_eq!(told, [""; 0]);
    assert!(ran.err.contains("submitted") && found_in(ran.err.as_bytes()).is_none(), "{ran:#?}");
    check_files(&sandbox);
    for arguments in [&["status", "-o", "json"][..], &["status"], &["history", "-o", "json"], &["logs"]] {
        let ran = sandbox.local(&[&["-v"], arguments].concat()).exits(0);
        assert_eq!((found_in(ran.out.as_bytes()), found_in(ran.err.as_bytes())), (None, None), "{ran:#?}");
    }
    assert!(sandbox.local(&["status"]).out.contains("secrets    API_PASSWORD\n"), "its name is told");
}

#[test]
fn the_command_itself_is_not_given_the_token() {
    let (sandbox, server) = (Sandbox::new(), private_server());
    sandbox.keep_secret("GIT_TOKEN", TOKEN);
    let search = "env; cat .git/config; cat /proc/self/environ /proc/$$/environ /proc/$PPID/environ | tr '\\0' '\\n'; \
                  git config --list; ls -A \"$HOME\" \"$TMPDIR\"; grep -rs planted . \"$HOME\" \"$TMPDIR\"; echo searched";
    let ran = sandbox.local(&["exec", "--repo", &server.url(), search]).exits(0);
    assert!(ran.out.contains("PATH=") && ran.out.ends_with("searched\n"), "{ran:#?}");
    assert_eq!(found_in(ran.out.as_bytes()), None, "{ran:#?}");
    assert!(!ran.out.contains("MYCLI_GIT"), "{ran:#?}");
}

#[test]
fn a_token_that_is_refused_is_not_shown() {
    let (sandbox, server) =
        (Sandbox::new(), HttpServer::new(Habits { login: Some("x-access-token:another"), ..Habits::default() }));
    sandbox.keep_secret("GIT_TOKEN", TOKEN);
    let ran = sandbox.run(&["-v", "--local", "exec", "--repo", &server.url(), "true"]).exits(125).says(&server.url());
    assert_eq!((found_in(ran.out.as_bytes()), found_in(ran.err.as_bytes())), (None, None), "{ran:#?}");
    check_files(&sandbox);
}

#[test]
fn a_secret_that_is_not_set_or_open_to_others_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    sandbox
        .local(&["exec", "--no-repo", "--secret", "API_PASSWORD", "true"])
        .exits(125)
        .says("API_PASSWORD")
        .says("0600");
    sandbox.keep_secret("API_PASSWORD", PASSWORD);
    let file = sandbox.store().join("secrets/API_PASSWORD");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = sandbox.local(&["exec", "--no-repo", "--secret", "API_PASSWORD", "true"]).exits(125).says("API_PASSWORD");
    assert!(!ran.err.contains(PASSWORD), "{ran:#?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // Asked for, it is the command's to show.
    sandbox
        .local(&["exec", "--no-repo", "--secret", "API_PASSWORD", "echo $API_PASSWORD"])
        .exits(0)
        .prints(&format!("{PASSWORD}\n"));
}

#[test]
fn a_server_s_key_is_kept_for_its_owner_and_told_nowhere() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&["-v"]);
    let file = sandbox.store().join("serve.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let ran = serve.run(&sandbox, &["-v", "exec", "--no-repo", "true"]).exits(0);
    assert!(!ran.err.contains(&serve.key[8..]), "{ran:#?}");
    eventually("the run is recorded", || {
        (sandbox.local(&["history", "-o", "json"]).json()["executions"][0]["status"] == "SUCCEEDED").then_some(())
    });
    let key = serve.key.clone();
    for path in files(&sandbox.home()).into_iter().filter(|path| *path != file) {
        assert!(!holds(&fs::read(&path).unwrap_or_default(), &key[8..]), "{}", path.display());
    }
    let stopped = serve.stop().exits(0);
    assert!(!stopped.err.contains(&key[8..]) && !stopped.out.contains(&key[8..]), "{stopped:#?}");
}
