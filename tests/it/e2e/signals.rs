//! Signals to `mycli`: when `mycli` leaves, the run goes on.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::process::Signal;
use tests::sandbox::{Running, Sandbox, eventually};

/// An `exec` that has printed `begun`, and ends with 5 once the file `go` exists.
fn begun(sandbox: &Sandbox) -> (Running, String) {
    let go = sandbox.path("go");
    let command = format!(
        "echo begun; until [ -e '{}' ]; do sleep 0.05; done; echo ended; exit 5",
        go.display()
    );
    let running = sandbox.start(&["--local", "exec", "--no-repo", &command]);
    assert_eq!(running.line(), "begun");
    let record = sandbox.local(&["status", "-o", "json"]).json();
    (running, record["execution_id"].as_str().unwrap().to_owned())
}

#[track_caller]
fn check_left(signal: Signal) {
    let sandbox = Sandbox::new();
    let (running, id) = begun(&sandbox);
    running.signal(signal);
    let ran = running
        .end()
        .exits(125)
        .prints("")
        .says(&format!("mycli --local logs -f {id}"))
        .says(&format!("mycli --local cancel {id}"));
    assert!(!ran.err.contains("Broken"), "{ran:#?}");
    assert_eq!(sandbox.record(&id)["status"], "RUNNING");
    std::fs::write(sandbox.path("go"), "").unwrap();
    sandbox
        .local(&["logs", "-f", &id])
        .exits(5)
        .prints("begun\nended\n");
    assert_eq!(sandbox.record(&id)["attempts"].as_array().unwrap().len(), 1);
    eventually("all processes have gone", || {
        sandbox.processes().is_empty().then_some(())
    });
}

#[test]
fn ctrl_c_without_a_terminal_leaves_the_run_running() {
    check_left(Signal::INT);
}

#[test]
fn sigterm_leaves_the_run_running() {
    check_left(Signal::TERM);
}

#[test]
fn a_killed_mycli_loses_neither_the_run_nor_its_end() {
    let sandbox = Sandbox::new();
    let (running, id) = begun(&sandbox);
    running.signal(Signal::KILL);
    drop(running);
    std::fs::write(sandbox.path("go"), "").unwrap();
    sandbox
        .local(&["logs", "-f", &id])
        .exits(5)
        .prints("begun\nended\n");
    let record = sandbox.record(&id);
    assert_eq!(
        (record["status"].as_str(), record["exit_code"].as_i64()),
        (Some("FAILED"), Some(5)),
        "{record:#}"
    );
    eventually("all processes have gone", || {
        sandbox.processes().is_empty().then_some(())
    });
}

/// The output is more than a pipe holds, and some is written by path too. The process that stores
/// it for the next mycli outlives this one.
#[test]
fn what_a_command_says_while_no_mycli_is_there_is_read_by_the_next() {
    let sandbox = Sandbox::new();
    let go = sandbox.path("go");
    let command = format!(
        "echo begun; until [ -e '{}' ]; do sleep 0.05; done; seq 50000; : > /dev/stderr; echo ended > /dev/stdout; exit 5",
        go.display()
    );
    let running = sandbox.start(&["--local", "exec", "--no-repo", &command]);
    assert_eq!(running.line(), "begun");
    let id = sandbox.local(&["status", "-o", "json"]).json()["execution_id"]
        .as_str()
        .unwrap()
        .to_owned();
    running.signal(Signal::KILL);
    drop(running);
    std::fs::write(go, "").unwrap();
    eventually("all processes have gone", || {
        sandbox.processes().is_empty().then_some(())
    });
    let numbers: String = (1..=50_000).map(|number| format!("{number}\n")).collect();
    let ran = sandbox.local(&["logs", "-f", &id]).exits(5);
    assert!(
        ran.out == format!("begun\n{numbers}ended\n"),
        "{} lines",
        ran.out.lines().count()
    );
    eventually("all processes have gone", || {
        sandbox.processes().is_empty().then_some(())
    });
}

#[test]
fn a_server_that_is_stopped_leaves_its_runs_running() {
    let sandbox = Sandbox::new();
    let serve = sandbox.serve(&[]);
    let go = sandbox.path("go");
    let command = format!(
        "until [ -e '{}' ]; do sleep 0.05; done; exit 5",
        go.display()
    );
    let id = serve
        .run(&sandbox, &["exec", "--no-repo", "--detach", &command])
        .exits(0)
        .out
        .trim_end()
        .to_owned();
    sandbox.until_status(&id, "RUNNING");
    serve.stop().exits(0);
    assert_eq!(sandbox.record(&id)["status"], "RUNNING");
    std::fs::write(go, "").unwrap();
    sandbox.local(&["wait", &id]).exits(5);
    // Another server knows the run too.
    let serve = sandbox.serve(&[]);
    serve.run(&sandbox, &["wait", &id]).exits(5);
}

/// `mycli` on a terminal that `script` (bsdutils) makes. Everything shown there is read as it is
/// drawn.
struct Terminal {
    process: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    fn start(sandbox: &Sandbox, command: &str) -> Self {
        let plain = sandbox.command(&[]);
        let mut on_terminal = Command::new("script");
        on_terminal
            .args(["--quiet", "--return", "--command", command, "/dev/null"])
            .current_dir(sandbox.path(""));
        on_terminal
            .env_clear()
            .env("TERM", "xterm")
            .env("COLUMNS", "120");
        on_terminal.envs(
            plain
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        on_terminal
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = on_terminal.spawn().unwrap();
        let (keys, mut screen) = (
            process.stdin.take().unwrap(),
            process.stdout.take().unwrap(),
        );
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let seen = Arc::clone(&shown);
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self {
            process,
            keys,
            shown,
            reader,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn shows(&self, text: &str) {
        eventually(&format!("{text:?} is shown"), || {
            self.text().contains(text).then_some(())
        });
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn end(mut self) -> (Option<i32>, String) {
        let status = eventually("it ends", || self.process.try_wait().unwrap());
        self.reader.join().unwrap();
        let text = String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned();
        (status.code(), text)
    }
}

const QUESTION: &str = "Enter goes on following: ";

/// A run on a terminal, and the question that Ctrl-C asks. The command prints `later` while the
/// question is open.
fn asked(sandbox: &Sandbox) -> Terminal {
    let go = sandbox.path("go");
    let command = format!(
        "until [ -e {} ]; do sleep 0.05; done; echo later; sleep 300",
        go.display()
    );
    let mycli = tests::mycli();
    let mut terminal = Terminal::start(
        sandbox,
        &format!(
            "exec '{}' --local exec --no-repo '{command}'",
            mycli.display()
        ),
    );
    terminal.shows("RUNNING");
    terminal.press("\x03");
    terminal.shows(QUESTION);
    std::fs::write(go, "").unwrap();
    terminal.shows("later");
    terminal
}

#[test]
fn ctrl_c_on_a_terminal_asks_and_nothing_is_drawn_over_the_question() {
    let sandbox = Sandbox::new();
    let mut terminal = asked(&sandbox);
    terminal.press("c\n");
    let (code, text) = terminal.end();
    assert_eq!(code, Some(130), "{text:?}");
    let (_, since) = text.split_once(QUESTION).unwrap();
    let (asking, _) = since.split_once("cancelling").unwrap();
    assert!(!asking.contains("RUNNING"), "{text:?}");
}

#[test]
fn who_answers_ctrl_c_with_enter_goes_on_following_and_may_still_leave() {
    let sandbox = Sandbox::new();
    let mut terminal = asked(&sandbox);
    terminal.press("\n");
    eventually("it goes on", || {
        let text = terminal.text();
        text.split_once(QUESTION)
            .is_some_and(|(_, since)| since.contains("RUNNING"))
            .then_some(())
    });
    terminal.press("\x03");
    eventually("it asks again", || {
        (terminal.text().matches(QUESTION).count() == 2).then_some(())
    });
    terminal.press("d\n");
    let (code, text) = terminal.end();
    assert!(
        code == Some(125) && text.contains("the run goes on"),
        "{code:?} {text:?}"
    );
    assert_eq!(
        sandbox.local(&["status", "-o", "json"]).json()["status"],
        "RUNNING"
    );
}
