//! A task of several containers: `init` makes room, `fetch` hands a repository over, and `main` takes
//! it. They share folders and nothing else. Here each is a process in the same empty root.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
};

use domain::marker::{self, Marker};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::sandbox::eventually;

use super::program;
use crate::git_server::{Habits, HttpServer};

const NONCE: &str = "0123456789abcdef0123456789abcdef";
const TOKEN: &str = "gitTokenOfTheFetch1234567890";
/// A user that owns nothing.
const APP: &str = "1000";

/// A root folder with the folders that the containers of a task share, and a static busybox.
struct TaskRoot(TempDir);

/// The end of `main`.
#[derive(Debug)]
struct MainEnd {
    code: Option<i32>,
    text: String,
    markers: Vec<Marker>,
}

impl TaskRoot {
    /// The root, as `init` leaves it.
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "chroot takes root");
        let root = Self(tempfile::tempdir().expect("a folder"));
        let everyone = fs::Permissions::from_mode(0o755);
        fs::set_permissions(root.0.path(), everyone).expect("set");
        for folder in ["proc", "dev", "bin", "image"] {
            fs::create_dir(root.at(folder)).expect("made");
        }
        fs::copy("/bin/busybox", root.at("bin/busybox")).expect("Debian's busybox-static");
        fs::copy(program(), root.at("image/mycli-runner")).expect("copied");
        let init = root.start(
            "/image/mycli-runner",
            "0",
            &["init", "/mycli", "/workspace"],
            &[],
        );
        let output = init.wait_with_output().expect("ours");
        assert!(output.status.success(), "{output:?}");
        root
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn start(
        &self,
        program: &str,
        user: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Child {
        let enter = "mount -t proc proc \"$0/proc\" && mount --bind /dev \"$0/dev\" && \
                     exec unshare --root=\"$0\" --setgid=\"$1\" --setuid=\"$1\" -- \"${@:2}\"";
        Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "bash", "-c", enter])
            .arg(self.0.path())
            .args([user, program])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    }

    /// Starts the container that fetches.
    fn fetch(&self, repo: &str, environment: &[(&str, &str)]) -> Child {
        let environment = [&[("MYCLI_REPO", repo)], environment].concat();
        let arguments = ["fetch-for-main", "/workspace"];
        self.start("/mycli/mycli-runner", "0", &arguments, &environment)
    }

    /// Starts the container of the command, which are words for busybox.
    fn main(&self, user: &str, words: &str, environment: &[(&str, &str)]) -> Child {
        let command = format!("exec /bin/busybox {words}");
        let own = [
            ("MYCLI_REPO", "https://git.example/x"),
            ("MYCLI_NONCE", NONCE),
            ("MYCLI_WORDS", "1"),
            ("MYCLI_COMMAND", &*command),
        ];
        let environment = [&own, environment].concat();
        self.start("/mycli/mycli-runner", user, &["run"], &environment)
    }
}

fn end(main: Child) -> MainEnd {
    let output = main.wait_with_output().expect("ours");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    let split: Vec<_> = said
        .lines()
        .map(|line| marker::split(NONCE, line))
        .collect();
    MainEnd {
        code: output.status.code(),
        text: split
            .iter()
            .filter_map(|(own, _)| *own)
            .collect::<Vec<_>>()
            .join("\n"),
        markers: split.into_iter().filter_map(|(_, marker)| marker).collect(),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The order in which they start does not matter. `main` is another user, owns its clone, and sees
/// no credential.
#[test]
fn main_takes_what_fetch_hands_over() {
    let server = HttpServer::new(Habits {
        login: Some("x-access-token:gitTokenOfTheFetch1234567890"),
        ..Habits::default()
    });
    for (user, main_is_first) in [("0", false), (APP, false), (APP, true)] {
        let task = TaskRoot::new();
        let fetch = || task.fetch(&server.url(), &[("MYCLI_GIT_TOKEN", TOKEN)]);
        let main = || {
            let words = "sh -c '/bin/busybox cat f; /bin/busybox stat -c %u .git/HEAD; /bin/busybox pwd; /bin/busybox env'";
            task.main(user, words, &[])
        };
        let (fetch, main) = match main_is_first {
            true => {
                let main = main();
                (fetch(), main)
            }
            false => (fetch(), main()),
        };
        let (fetched, ended) = (fetch.wait_with_output().expect("ours"), end(main));
        assert!(fetched.status.success(), "{}", said(&fetched));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let expected = format!("main\n{user}\n/workspace/repo\n");
        assert!(ended.text.contains(&expected), "{ended:?}");
        assert!(!ended.text.contains(TOKEN), "{ended:?}");
        let commit = server.origin.commit("main");
        assert_eq!(
            ended.markers,
            [
                Marker::Ended,
                Marker::SetUp,
                Marker::Commit(commit.clone()),
                Marker::Start,
                Marker::Exit(0),
                Marker::Ended
            ]
        );
        assert!(
            ended.text.contains(&format!("MYCLI_COMMIT={commit}")),
            "{ended:?}"
        );
        let everywhere = Command::new("grep")
            .args(["--recursive", "--text", TOKEN])
            .args([task.at("workspace"), task.at("mycli")])
            .output()
            .expect("grep");
        assert_eq!(everywhere.status.code(), Some(1), "{everywhere:?}");
    }
}

#[test]
fn main_tells_the_reason_of_fetch() {
    let server = HttpServer::new(Habits::default());
    let task = TaskRoot::new();
    let fetch = task.fetch(&server.url(), &[("MYCLI_REF", "no-such-branch")]);
    let (fetched, ended) = (
        fetch.wait_with_output().expect("ours"),
        end(task.main(APP, "true", &[])),
    );
    assert_eq!(fetched.status.code(), Some(1));
    assert_eq!(ended.code, Some(125), "{ended:?}");
    for text in [&said(&fetched), &ended.text] {
        assert!(
            text.contains("no branch, tag or commit no-such-branch"),
            "{text}"
        );
    }
    let is_told =
        |marker: &Marker| matches!(marker, Marker::Fail(why) if why.contains("no-such-branch"));
    assert!(ended.markers.iter().any(is_told), "{ended:?}");
}

/// A metadata endpoint of a task whose `fetch` has ended in this way.
fn metadata(exit_code: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let body = format!(
        r#"{{"TaskARN":"t","Containers":[{{"Name":"fetch","KnownStatus":"STOPPED"{exit_code}}}]}}"#
    );
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            let mut request = [0; 1024];
            let read = connection.read(&mut request).expect("a request");
            assert!(
                request[..read].starts_with(b"GET /v4/id/task "),
                "{request:?}"
            );
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            connection.write_all(answer.as_bytes()).expect("written");
        }
    });
    format!("http://{address}/v4/id")
}

/// A fetch that is killed hands nothing over. ECS tells `main` so.
#[test]
fn main_does_not_wait_for_a_fetch_that_has_ended() {
    for (exit_code, words) in [
        (r#","ExitCode":137"#, "ran out of memory"),
        (r#","ExitCode":3"#, "with exit code 3"),
        ("", "could not be started"),
    ] {
        let task = TaskRoot::new();
        let metadata = metadata(exit_code);
        let main = task.main(APP, "true", &[("ECS_CONTAINER_METADATA_URI_V4", &metadata)]);
        let ended = end(main);
        assert_eq!(ended.code, Some(125), "{ended:?}");
        assert!(ended.text.contains(words), "{ended:?}");
    }
}

/// A task that is stopped ends at once, whatever its containers wait for.
#[test]
fn both_end_when_they_are_told_to() {
    let server = HttpServer::new(Habits {
        silent: true,
        ..Habits::default()
    });
    let task = TaskRoot::new();
    let fetch = task.fetch(&server.url(), &[]);
    eventually("a heartbeat", || {
        task.at("workspace/.mycli/heartbeat").exists().then_some(())
    });
    let main = task.main(APP, "true", &[]);
    let tell = |container: &Child| {
        eventually("a process in its own namespace", || {
            let children = format!("/proc/{0}/task/{0}/children", container.id());
            let child = fs::read_to_string(children).ok()?;
            let child = Pid::from_raw(child.trim().parse().ok()?)?;
            let name = fs::read_to_string(format!("/proc/{}/comm", child.as_raw_nonzero())).ok()?;
            (name.trim() == "mycli-runner")
                .then(|| kill_process(child, Signal::TERM).expect("told"))
        });
    };
    tell(&fetch);
    assert_eq!(
        fetch.wait_with_output().expect("ours").status.code(),
        Some(143)
    );
    tell(&main);
    let ended = end(main);
    assert_eq!(ended.code, Some(125), "{ended:?}");
    assert!(ended.text.contains("stopped while cloning"), "{ended:?}");
}
