//! Private repositories over HTTP.

use super::{
    server::{Habits, HttpServer},
    stage::{SHELLS, Shell, Stage},
};

const PRIVATE: Habits = Habits {
    login: Some("x-access-token:tok-3n"),
    old: false,
    silent: false,
    first: &[],
    plain: false,
    elsewhere: None,
};

#[test]
fn a_token_opens_a_private_repository() {
    let server = HttpServer::new(PRIVATE);
    let short = server.origin.commit("v1")[..8].to_owned();
    for shell in SHELLS {
        for (name, text) in [
            ("", "main"),
            ("feature/a", "old"),
            ("noted", "old"),
            (&server.origin.commit("v1"), "old"),
            (&short, "old"),
        ] {
            let outcome = Stage::new(shell, "cat f; git remote get-url origin; cat .git/config")
                .repo(server.url(), name)
                .env("MYCLI_GIT_TOKEN", "tok-3n")
                .play();
            assert!(
                outcome
                    .out()
                    .starts_with(&format!("{text}\n{}\n", server.url())),
                "{shell:?} {name}: {outcome:?}"
            );
            assert!(
                !outcome.out().contains("tok-3n") && !outcome.out().contains("credential"),
                "{shell:?}: {outcome:?}"
            );
        }
    }
}

#[test]
fn the_user_name_beside_the_token_can_be_set() {
    let server = HttpServer::new(Habits {
        login: Some("oauth2:glpat"),
        ..Habits::default()
    });
    let stage = Stage::new(Shell::Dash, "cat f")
        .repo(server.url(), "")
        .env("MYCLI_GIT_TOKEN", "glpat");
    assert_eq!(
        stage.env("MYCLI_GIT_USERNAME", "oauth2").play().out(),
        "main\n"
    );
}

#[test]
fn a_wrong_or_absent_token_fails_without_asking_and_without_being_shown() {
    let server = HttpServer::new(PRIVATE);
    for shell in SHELLS {
        for token in ["", "wr0ng"] {
            let outcome = Stage::new(shell, "echo ran")
                .repo(server.url(), "")
                .env("MYCLI_GIT_TOKEN", token)
                .play();
            assert!(
                outcome
                    .failure()
                    .starts_with(&format!("cannot clone {}: ", server.url())),
                "{shell:?}: {outcome:?}"
            );
            assert!(
                token.is_empty() || !outcome.err().contains(token),
                "{shell:?}: {outcome:?}"
            );
            assert_eq!(
                outcome.files(),
                Vec::<std::path::PathBuf>::new(),
                "{shell:?}"
            );
        }
    }
}

/// The processes that git starts end in a burst, and process 1 is told of each end. dash, woken by
/// each, once mistook its own timer for an ended process in one of seven runs, and waited for the
/// timer.
#[test]
fn a_set_up_that_fails_at_once_ends_at_once_and_each_time() {
    let server = HttpServer::new(PRIVATE);
    for (shell, times) in [(Shell::Dash, 40), (Shell::Busybox, 10), (Shell::Bash, 10)] {
        for _ in 0..times {
            let outcome = Stage::new(shell, "echo ran")
                .repo(server.url(), "")
                .with_pid_one()
                .play();
            assert!(
                outcome.failure().starts_with("cannot clone"),
                "{shell:?}: {outcome:?}"
            );
        }
    }
}

#[test]
fn servers_that_refuse_bare_commit_ids_and_filters_are_asked_for_everything() {
    let server = HttpServer::new(Habits {
        old: true,
        ..Habits::default()
    });
    server.origin.set("uploadpack.allowFilter", "false");
    let full = server.origin.commit("v1~0");
    let inner = super::server::git(&server.origin.path(), &["rev-parse", "refs/tags/twin~1"]);
    for shell in SHELLS {
        for name in [&full[..], &full[..9], &inner[..], &inner[..9]] {
            let outcome = Stage::new(shell, "git rev-parse HEAD")
                .repo(server.url(), name)
                .play();
            assert!(
                outcome.out().starts_with(name),
                "{shell:?} {name}: {outcome:?}"
            );
        }
    }
}

#[test]
fn servers_with_filters_are_asked_for_history_alone() {
    let server = HttpServer::new(Habits::default());
    server.origin.set("uploadpack.allowFilter", "true");
    let short = server.origin.commit("v1")[..8].to_owned();
    for shell in SHELLS {
        let outcome = Stage::new(
            shell,
            "cat f; git config --get-regexp 'remote.*' ; git fsck",
        )
        .repo(server.url(), &short)
        .play();
        assert!(outcome.out().starts_with("old\n"), "{shell:?}: {outcome:?}");
        // The user's clone is complete: nothing is fetched later, without the token.
        assert!(
            !outcome.out().contains("promisor"),
            "{shell:?}: {outcome:?}"
        );
    }
}

/// Git fetches objects that a filter left out with another git process. On such a server that
/// process does the same, so there were hundreds of processes for ten minutes.
#[test]
fn a_server_of_plain_files_is_asked_for_what_it_has_and_no_more() {
    let server = HttpServer::new(Habits {
        plain: true,
        ..Habits::default()
    });
    let full = server.origin.commit("v1");
    let there = [
        ("", "main"),
        ("main", "main"),
        ("noted", "old"),
        (&*full, "old"),
        (&full[..8], "old"),
    ];
    for shell in SHELLS {
        for (name, text) in there {
            let outcome = Stage::new(shell, "cat f").repo(server.url(), name).play();
            assert_eq!(
                outcome.out(),
                format!("{text}\n"),
                "{shell:?} {name}: {outcome:?}"
            );
            assert!(server.asked() < 100, "{shell:?} {name}");
        }
        for name in [
            "deadbee1",
            "dead00000000000000000000000000000000beef",
            "nope",
        ] {
            let outcome = Stage::new(shell, "echo ran")
                .repo(server.url(), name)
                .play();
            assert_eq!(
                outcome.failure(),
                format!("no branch, tag or commit {name} in {}", server.url()),
                "{shell:?}"
            );
            assert!(server.asked() < 100, "{shell:?} {name}");
        }
    }
}

#[test]
fn set_up_has_a_time_of_its_own() {
    let server = HttpServer::new(Habits {
        silent: true,
        ..Habits::default()
    });
    for shell in SHELLS {
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
fn being_stopped_ends_set_up() {
    let server = HttpServer::new(Habits {
        silent: true,
        ..Habits::default()
    });
    for shell in SHELLS {
        let running = Stage::new(shell, "echo ran").repo(server.url(), "").start();
        let work = running.root.path().join("work");
        super::stage::until("the clone begins", || {
            std::fs::read_dir(&work).unwrap().next().is_some()
        });
        running.signal("TERM");
        let outcome = running.end();
        assert_eq!(
            outcome.failure(),
            format!("stopped while cloning {}", server.url()),
            "{shell:?}"
        );
        assert!(
            outcome.left.is_empty() && outcome.files().is_empty(),
            "{shell:?}: {outcome:?}"
        );
    }
}
