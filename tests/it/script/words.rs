//! What the command receives: its text byte for byte, run once, with nothing of mycli around it.

use std::fs;

use domain::marker::Marker;
use proptest::prelude::*;

use super::stage::{NONCE, SHELLS, Stage, os, quoted};

/// Random combinations of pieces that a shell interprets in its own way.
fn shell_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"echo one".to_vec()),
        Just(b"printf '%s.' a\\\\b \"c$((1+2))\"".to_vec()),
        Just(b"$(echo echo two)".to_vec()),
        Just(b"`echo three`".to_vec()),
        Just(b"\n".to_vec()),
        Just(b";".to_vec()),
        Just(b" && ".to_vec()),
        Just(b" || ".to_vec()),
        Just(b" # ".to_vec()),
        Just(b"'".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"\\".to_vec()),
        Just(b"-".to_vec()),
        Just(b"set -e\nfalse\n".to_vec()),
        Just(b"set -u; echo $nope\n".to_vec()),
        Just(b"exit 7".to_vec()),
        Just(b"echo err >&2\n".to_vec()),
        Just(b"cat <<E\n$HOME\nE\n".to_vec()),
        Just(b"\xc3\x28 \x81\x88".to_vec()),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_but_nul_arrives(data in proptest::collection::vec(1_u8.., 0..300)) {
        for shell in SHELLS {
            let command = [b"printf %s ".as_slice(), &quoted(&data)].concat();
            let outcome = Stage::new(shell, os(&command)).play();
            prop_assert_eq!((&outcome.stdout, outcome.code), (&data, 0), "{:?}: {:?}", shell, outcome);
        }
    }

    #[test]
    fn any_text_means_what_sh_says_it_means_and_runs_once(text in shell_text()) {
        for shell in SHELLS {
            // The comment's line keeps a leading dash in `text` where a shell would take it for an
            // option.
            let command = [text.as_slice(), b"\n"].concat();
            let (ours, bare) = (Stage::new(shell, os(&command)).env("HOME", "/"), Stage::new(shell, os(&command)).env("HOME", "/"));
            let (ours, bare) = (ours.play(), bare.play_bare());
            prop_assert_eq!((ours.code, ours.out(), ours.err()), (bare.code, bare.out(), bare.err()), "{:?}", shell);
        }
    }
}

#[test]
fn all_bytes_at_once_with_trailing_newlines() {
    let data: Vec<u8> = (1..=255).chain(*b"\n\n\n").collect();
    for shell in SHELLS {
        let outcome = Stage::new(
            shell,
            os(&[b"printf %s ".as_slice(), &quoted(&data)].concat()),
        )
        .play();
        assert_eq!(outcome.stdout, data, "{shell:?}");
    }
}

#[test]
fn it_runs_once_even_if_it_is_expanded_text() {
    for shell in SHELLS {
        let outcome = Stage::new(
            shell,
            "echo \"$(echo x >>\"$HOME/ran\"; cat \"$HOME/ran\")\"",
        )
        .play();
        assert_eq!(outcome.out(), "x\n", "{shell:?}");
    }
}

#[test]
fn a_leading_dash_is_no_option() {
    for shell in SHELLS {
        let outcome = Stage::new(shell, "-x").play();
        assert_eq!(outcome.code, 127, "{shell:?}: {outcome:?}");
    }
}

#[test]
fn our_shell_options_are_not_the_commands() {
    for shell in SHELLS {
        let bare = Stage::new(
            shell,
            "false; echo \"$- $nope$? $# $0 ${mycli_nonce-none}\"; trap",
        )
        .play();
        let ours = Stage::new(
            shell,
            "false; echo \"$- $nope$? $# $0 ${mycli_nonce-none}\"; trap",
        )
        .play_bare();
        assert_eq!(bare.out(), ours.out(), "{shell:?}");
    }
}

#[test]
fn the_users_variables_arrive_untouched_and_ours_are_gone() {
    let hostile = [
        ("GIT_DIR", "/nowhere"),
        ("GIT_CONFIG_COUNT", "9"),
        ("GIT_CONFIG_PARAMETERS", "'broken"),
        ("CDPATH", "/:/tmp"),
        ("BASH_ENV", "/nowhere/env"),
        ("ENV", "/nowhere/env"),
        ("token", "t o'k"),
        ("mycli_nonce", "mine"),
        ("LINES_", "a\nb\n"),
    ];
    let seen: Vec<_> = hostile
        .iter()
        .filter(|(name, _)| *name != "mycli_nonce")
        .collect();
    let ours = format!(
        "env -0 >$HOME/env; for name in {}; do eval \"printf '%s\\0' \\\"\\$$name\\\"\"; done",
        {
            let names: Vec<_> = seen.iter().map(|(name, _)| *name).collect();
            names.join(" ")
        }
    );
    let origin = super::server::Origin::new();
    for shell in SHELLS {
        for repository in [false, true] {
            let mut stage = Stage::new(shell, &ours)
                .env("MYCLI_GIT_TOKEN", "hush")
                .env("MYCLI_SSH_KEY", "hush");
            stage = hostile
                .iter()
                .fold(stage, |stage, (name, value)| stage.env(name, value));
            if repository {
                stage = stage.repo(origin.path(), "main");
            }
            let outcome = stage.play();
            let values: String = seen.iter().map(|(_, value)| format!("{value}\0")).collect();
            assert_eq!(outcome.out(), values, "{shell:?}: {outcome:?}");
            let env = fs::read_to_string(outcome.root.path().join("home/env")).unwrap();
            let mut own: Vec<_> = env
                .split('\0')
                .filter(|line| line.starts_with("MYCLI_"))
                .collect();
            own.sort_unstable();
            let commit = format!("MYCLI_COMMIT={}", origin.commit("main"));
            let expected = [
                "MYCLI_ATTEMPT_ID=exec_1-1",
                &commit,
                "MYCLI_EXECUTION_ID=exec_1",
            ];
            assert_eq!(
                own,
                expected
                    .into_iter()
                    .filter(|line| repository || *line != commit)
                    .collect::<Vec<_>>(),
                "{shell:?}"
            );
            assert!(
                !env.contains(NONCE) && !env.contains("hush"),
                "{shell:?}: {env}"
            );
        }
    }
}

/// Variables that the set-up must not see reach the command under their own names, with any
/// content.
#[test]
fn variables_that_are_held_until_the_set_up_is_over_reach_the_command() {
    let origin = super::server::Origin::new();
    let held = [
        ("PATH", "/evil:/usr/bin:/bin"),
        ("LD_LIBRARY_PATH", "a'b\"c $HOME `id`\n\\n"),
        ("http_proxy", ""),
    ];
    let names: Vec<_> = held.iter().map(|(name, _)| *name).collect();
    let show = "printf '%s|' \"$PATH\" \"$LD_LIBRARY_PATH\" \"${http_proxy-unset}\"; env | grep -c MYCLI_ENV_";
    for shell in SHELLS {
        for repository in [false, true] {
            let mut stage = Stage::new(shell, show)
                .env("MYCLI_HELD", names.join(" "))
                .env("MYCLI_WITHOUT", "no token");
            for (name, value) in held {
                stage = stage.env(&format!("MYCLI_ENV_{name}"), value);
            }
            if repository {
                stage = stage.repo(origin.path(), "main");
            }
            let outcome = stage.play();
            let values: String = held.iter().map(|(_, value)| format!("{value}|")).collect();
            assert_eq!(
                outcome.out(),
                format!("{values}0\n"),
                "{shell:?}: {outcome:?}"
            );
            assert_eq!(
                outcome.err().contains("mycli: no token\n"),
                repository,
                "{shell:?}: {outcome:?}"
            );
        }
    }
}

#[test]
fn without_a_repository_nothing_is_said_but_start_and_exit() {
    for shell in SHELLS {
        let outcome = Stage::new(shell, "pwd; cat; printf unfinished >&2").play();
        assert_eq!(
            outcome.out().trim_end(),
            outcome.root.path().join("home").to_str().unwrap()
        );
        assert_eq!(outcome.err(), "unfinished");
        assert_eq!(
            outcome.markers,
            [Marker::Start, Marker::Exit(0)],
            "{shell:?}"
        );
    }
}
