//! Private repositories over SSH.

use std::path::PathBuf;

use super::{
    server::SshServer,
    stage::{SHELLS, Stage},
};

#[test]
fn a_key_and_a_pinned_host_open_a_private_repository() {
    let server = SshServer::new();
    let short = server.origin.commit("v1")[..8].to_owned();
    for shell in SHELLS {
        for (name, text) in [("", "main\n"), (&short, "old\n")] {
            let stage = Stage::new(shell, "cat f")
                .repo(server.url(), name)
                .env("MYCLI_SSH_KEY", server.key("user"));
            let outcome = stage.env("MYCLI_KNOWN_HOSTS", server.pin("host")).play();
            assert_eq!(outcome.out(), text, "{shell:?}: {outcome:?}");
            assert_eq!(outcome.err(), "", "{shell:?}");
        }
    }
}

#[test]
fn a_host_with_another_key_is_refused_before_it_learns_anything() {
    let server = SshServer::new();
    for shell in SHELLS {
        // With no pinned key only GitHub and GitLab are known.
        for pin in [server.pin("other"), String::new()] {
            let stage = Stage::new(shell, "echo ran")
                .repo(server.url(), "")
                .env("MYCLI_SSH_KEY", server.key("user"));
            let outcome = stage.env("MYCLI_KNOWN_HOSTS", pin).play();
            assert!(
                outcome.failure().contains("Host key verification failed"),
                "{shell:?}: {outcome:?}"
            );
            assert_eq!(
                (outcome.out(), outcome.files()),
                (String::new(), Vec::<PathBuf>::new()),
                "{shell:?}"
            );
        }
    }
}

#[test]
fn a_key_that_the_server_does_not_know_is_said_so() {
    let server = SshServer::new();
    for shell in SHELLS {
        let stage = Stage::new(shell, "echo ran")
            .repo(server.url(), "")
            .env("MYCLI_SSH_KEY", server.key("other"));
        let outcome = stage.env("MYCLI_KNOWN_HOSTS", server.pin("host")).play();
        assert!(
            outcome.failure().contains("Permission denied (publickey)"),
            "{shell:?}: {outcome:?}"
        );
    }
}

/// git ends the connection itself then, and its server reports a hang-up. That is not a transient
/// failure.
#[test]
fn a_name_that_is_not_there_is_not_asked_for_again() {
    let server = SshServer::new();
    for shell in SHELLS {
        for name in [
            "nope",
            "0123456",
            "0123456789012345678901234567890123456789",
            "refs/heads/nope",
        ] {
            let stage = Stage::new(shell, "echo ran")
                .repo(server.url(), name)
                .env("MYCLI_SSH_KEY", server.key("user"));
            let outcome = stage.env("MYCLI_KNOWN_HOSTS", server.pin("host")).play();
            assert_eq!(
                outcome.failure(),
                format!("no branch, tag or commit {name} in {}", server.url()),
                "{shell:?}"
            );
            assert!(
                !outcome.err().contains("trying again"),
                "{shell:?} {name}: {outcome:?}"
            );
        }
    }
}
