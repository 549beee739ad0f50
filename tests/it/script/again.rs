//! Servers in trouble. Transient failures are tried three times; a refusal or a missing repository
//! only once.

use std::{net::TcpListener, thread};

use super::{
    server::{Habits, HttpServer, SshServer},
    stage::{Outcome, SHELLS, Shell, Stage},
};

/// Runs a check in all shells at once, since the pauses take eight seconds.
fn in_each_shell(check: impl Fn(Shell) + Sync) {
    thread::scope(|scope| {
        for shell in SHELLS {
            let check = &check;
            scope.spawn(move || check(shell));
        }
    });
}

/// Asserts that the log says why it failed and when it tries again.
#[track_caller]
fn check_said(outcome: &Outcome, url: &str, why: &str) {
    let said = outcome.err();
    let again: Vec<_> = said
        .lines()
        .filter(|line| line.contains("trying again"))
        .collect();
    assert_eq!(again.len(), 2, "{outcome:?}");
    for (line, pause) in again.into_iter().zip(["2", "6"]) {
        assert!(
            line.starts_with(&format!("mycli: cannot reach {url}: ")) && line.contains(why),
            "{line}"
        );
        assert!(
            line.ends_with(&format!("; trying again in {pause} s")),
            "{line}"
        );
    }
}

#[test]
fn a_server_that_is_in_trouble_for_a_while_is_asked_again() {
    in_each_shell(|shell| {
        let server = HttpServer::new(Habits {
            first: &[503, 429],
            ..Habits::default()
        });
        let outcome = Stage::new(shell, "cat f").repo(server.url(), "main").play();
        assert_eq!(outcome.out(), "main\n", "{shell:?}: {outcome:?}");
        check_said(
            &outcome,
            &server.url(),
            "The requested URL returned error: ",
        );
    });
}

#[test]
fn a_server_that_stays_in_trouble_is_asked_three_times() {
    in_each_shell(|shell| {
        let server = HttpServer::new(Habits {
            first: &[500; 9],
            ..Habits::default()
        });
        let outcome = Stage::new(shell, "echo ran").repo(server.url(), "").play();
        let failure = outcome.failure();
        assert!(
            failure.starts_with(&format!("cannot clone {}: ", server.url())),
            "{shell:?}: {failure}"
        );
        assert!(
            failure.ends_with("The requested URL returned error: 500"),
            "{shell:?}: {failure}"
        );
        check_said(
            &outcome,
            &server.url(),
            "The requested URL returned error: 500",
        );
        assert_eq!(
            (server.asked(), outcome.out()),
            (3, String::new()),
            "{shell:?}"
        );
    });
}

#[test]
fn what_is_refused_or_not_there_is_asked_for_once() {
    const ANSWERS: [&[u16]; 3] = [&[401], &[403], &[404]];
    for shell in SHELLS {
        for first in ANSWERS {
            let server = HttpServer::new(Habits {
                first,
                ..Habits::default()
            });
            for name in [
                "",
                "main",
                "0123456",
                "0123456789012345678901234567890123456789",
            ] {
                let outcome = Stage::new(shell, "echo ran")
                    .repo(server.url(), name)
                    .play();
                assert!(
                    outcome.failure().starts_with("cannot clone "),
                    "{shell:?} {first:?}: {outcome:?}"
                );
                assert!(
                    !outcome.err().contains("trying again"),
                    "{shell:?} {first:?}: {outcome:?}"
                );
                assert_eq!(server.asked(), 1, "{shell:?} {first:?}: {outcome:?}");
            }
        }
    }
}

#[test]
fn the_set_up_s_time_is_not_longer_for_it() {
    for shell in SHELLS {
        let server = HttpServer::new(Habits {
            first: &[503; 9],
            ..Habits::default()
        });
        let stage = Stage::new(shell, "echo ran")
            .repo(server.url(), "")
            .env("MYCLI_SETUP_TIMEOUT", "1");
        let outcome = stage.play();
        assert_eq!(
            outcome.failure(),
            format!("cloning {} took longer than 1 s", server.url()),
            "{shell:?}"
        );
        assert!(
            outcome.left.is_empty() && outcome.files().is_empty(),
            "{shell:?}: {outcome:?}"
        );
    }
}

#[test]
fn where_nobody_listens_it_is_tried_again_over_http_and_ssh() {
    // The port is free again once the listener is dropped.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (url, why) in [
        (
            format!("http://{address}/project.git"),
            "Failed to connect to 127.0.0.1",
        ),
        (
            format!("ssh://git@{address}/project.git"),
            "Connection refused",
        ),
    ] {
        in_each_shell(|shell| {
            let outcome = Stage::new(shell, "echo ran").repo(&url, "").play();
            assert!(outcome.failure().contains(why), "{shell:?}: {outcome:?}");
            check_said(&outcome, &url, why);
        });
    }
}

#[test]
fn an_ssh_server_that_drops_connections_is_tried_again() {
    in_each_shell(|shell| {
        let server = SshServer::that_drops(2);
        let stage = Stage::new(shell, "cat f")
            .repo(server.url(), "")
            .env("MYCLI_SSH_KEY", server.key("user"));
        let outcome = stage.env("MYCLI_KNOWN_HOSTS", server.pin("host")).play();
        assert_eq!(outcome.out(), "main\n", "{shell:?}: {outcome:?}");
        check_said(&outcome, &server.url(), "kex_exchange_identification: ");
    });
}
