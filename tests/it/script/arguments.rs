//! The arguments that the caller may pass to the script. They save processes and change nothing
//! else.

use domain::{
    marker::{self, Marker},
    script,
};

use super::{
    server::Origin,
    stage::{NONCE, SHELLS, Shell, Stage, holds},
};

const ENV: &str = "/usr/bin/env";

/// A stage without a clone, with all the arguments.
fn told(shell: Shell, command: &str) -> Stage {
    Stage::new(shell, command)
        .with_nonce_from_a_file()
        .told(ENV, script::OPEN)
}

#[test]
fn it_runs_the_command_in_the_same_environment() {
    for shell in SHELLS {
        for locale in [None, Some("POSIX"), Some("")] {
            // Variables of bash or busybox only, and process numbers, are left out.
            let command = "env | grep -v -e ^_= -e ^SHLVL= -e ^PWD= -e ^OLDPWD= -e ^HOME= -e ^TMPDIR= | sort; pwd -P | wc -l";
            let with = |stage: Stage| match locale {
                Some(locale) => stage.env("LC_ALL", locale),
                None => stage,
            };
            let (ours, plain) = (
                with(told(shell, command)).play(),
                with(Stage::new(shell, command)).play(),
            );
            assert_eq!(ours.out(), plain.out(), "{shell:?}");
            assert_eq!(
                ours.out().contains("LC_ALL="),
                locale.is_some(),
                "{shell:?}: {}",
                ours.out()
            );
            assert_eq!(
                (ours.code, &ours.markers),
                (0, &vec![Marker::Start, Marker::Exit(0)]),
                "{shell:?}: {ours:?}"
            );
        }
    }
}

#[test]
fn it_ignores_no_signal_in_the_command_for_it() {
    let outcome = told(Shell::Dash, "grep SigIgn /proc/self/status").play();
    let mask = outcome
        .out()
        .split_whitespace()
        .nth(1)
        .map(|mask| u64::from_str_radix(mask, 16).unwrap());
    assert_eq!(mask.map(|mask| mask & 0x7fff_ffff), Some(0), "{outcome:?}");
}

#[test]
fn its_exit_code_and_its_time_are_as_ever() {
    for shell in SHELLS {
        assert_eq!(told(shell, "exit 3").play().code, 3, "{shell:?}");
        let late = told(shell, "sleep 7711")
            .env("MYCLI_TIMEOUT", "1")
            .env("MYCLI_GRACE", "1")
            .play();
        assert_eq!(
            (late.code, late.markers.last()),
            (124, Some(&Marker::Timeout)),
            "{shell:?}: {late:?}"
        );
        assert!(late.left.is_empty(), "{shell:?}: {late:?}");
    }
}

#[test]
fn the_nonce_is_nowhere_in_what_the_command_sees() {
    let look = "for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ; tr '\\0' '\\n' <$p/cmdline; done 2>/dev/null; set";
    for shell in SHELLS {
        let outcome = told(shell, look).with_pid_one().play();
        assert!(
            outcome.out().contains("mycli_"),
            "the look saw nothing: {outcome:?}"
        );
        assert!(
            !holds(&outcome.stdout, NONCE),
            "{shell:?}: {}",
            outcome.out()
        );
    }
}

#[test]
fn unless_told_that_it_is_open_the_environment_is_left_behind() {
    let command = "tr '\\0' '\\n' </proc/$PPID/environ";
    let outcome = Stage::new(Shell::Dash, command).told(ENV, "").play();
    assert!(
        !holds(&outcome.stdout, NONCE) && holds(&outcome.stdout, "MYCLI_ATTEMPT_ID"),
        "{}",
        outcome.out()
    );
}

/// As on the host, where the command can read what was printed before it.
#[test]
fn each_word_may_have_a_token_of_its_own() {
    let origin = Origin::new();
    for shell in SHELLS {
        let with_tokens =
            |command: &str| Stage::new(shell, command).env("MYCLI_NONCE", marker::tokens(NONCE));
        let commit = Marker::Commit(origin.commit("v1"));
        let cloned = with_tokens("exit 3").repo(origin.path(), "v1").play();
        assert_eq!(
            cloned.markers,
            [Marker::SetUp, commit, Marker::Start, Marker::Exit(3)],
            "{shell:?}: {cloned:?}"
        );
        let failed = with_tokens("exit 3").repo(origin.path(), "nope").play();
        assert!(
            failed
                .failure()
                .starts_with("no branch, tag or commit nope in "),
            "{shell:?}: {failed:?}"
        );
        let late = with_tokens("sleep 7712")
            .env("MYCLI_TIMEOUT", "1")
            .env("MYCLI_GRACE", "1")
            .play();
        assert_eq!(
            late.markers,
            [Marker::Start, Marker::Timeout],
            "{shell:?}: {late:?}"
        );
    }
}
