//! How a command ends: by itself, by a signal, or by its timeout.

use std::{os::unix::process::CommandExt as _, process::Command};

use domain::marker::Marker;

use super::stage::{Outcome, SHELLS, Shell, Stage};

#[test]
fn its_exit_code_is_its_own() {
    for shell in SHELLS {
        for code in [0, 1, 7, 124, 125, 126, 127, 137, 143, 145, 255] {
            let outcome = Stage::new(shell, format!("exit {code}")).play();
            assert_eq!(
                (outcome.code, &outcome.markers[..]),
                (code, &[Marker::Start, Marker::Exit(code)][..]),
                "{shell:?}"
            );
            assert_eq!(
                outcome.ends,
                [true, true],
                "{shell:?}: the end is told on stdout and on stderr"
            );
        }
    }
}

#[test]
fn a_signal_is_128_and_its_number() {
    for shell in SHELLS {
        for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
            for (pause, pid_one) in [
                ("", false),
                ("sleep 0.1;", false),
                ("", true),
                ("sleep 0.1;", true),
            ] {
                let stage = Stage::new(shell, format!("{pause} kill -s {signal} $$"));
                let outcome = if pid_one { stage.with_pid_one() } else { stage }.play();
                assert_eq!(
                    (outcome.code, outcome.err()),
                    (code, String::new()),
                    "{shell:?} {signal}"
                );
                assert_eq!(
                    outcome.markers.last(),
                    Some(&Marker::Exit(code)),
                    "{shell:?} {signal}"
                );
            }
        }
    }
}

#[test]
fn a_failing_step_is_the_users_to_judge() {
    for shell in SHELLS {
        assert_eq!(
            Stage::new(shell, "false; echo on").play().out(),
            "on\n",
            "{shell:?}"
        );
        assert_eq!(
            Stage::new(shell, "set -e; false; echo on").play().out(),
            "",
            "{shell:?}"
        );
    }
}

#[test]
fn no_timer_outlives_the_command() {
    for shell in SHELLS {
        for pid_one in [false, true] {
            let stage = Stage::new(shell, "true").env("MYCLI_TIMEOUT", "86411");
            let outcome = if pid_one { stage.with_pid_one() } else { stage }.play();
            assert!(
                outcome.left.is_empty() && !is_running("86411"),
                "{shell:?}: {outcome:?}"
            );
        }
    }
}

/// Whether any process has this argument.
fn is_running(argument: &str) -> bool {
    let has = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == argument.as_bytes())
    };
    super::stage::processes().any(|process| has(process.pid))
}

fn assert_timed_out(outcome: &Outcome, left_over: &str) {
    assert_eq!(
        (outcome.code, &outcome.markers[..]),
        (124, &[Marker::Start, Marker::Timeout][..]),
        "{outcome:?}"
    );
    assert_eq!(outcome.ends, [true, true], "{outcome:?}");
    assert!(
        outcome.left.is_empty() && !is_running(left_over),
        "left behind: {outcome:?}"
    );
}

#[test]
fn its_time_is_over_for_the_whole_tree() {
    // In the foreground; in the background; in its own session; ignoring TERM; and in its own
    // session after its parent's death.
    let cases = [
        "sleep 7701",
        "sleep 7701 & sleep 7701",
        "setsid sleep 7701 & wait",
        "trap '' TERM; sleep 7701 & sleep 7701",
        "trap '' TERM; (setsid sh -c 'sleep 7701; :') & trap - TERM; wait",
    ];
    for shell in SHELLS {
        for pid_one in [false, true] {
            for command in cases {
                let stage = Stage::new(shell, command)
                    .env("MYCLI_TIMEOUT", "1")
                    .env("MYCLI_GRACE", "1");
                assert_timed_out(
                    &if pid_one { stage.with_pid_one() } else { stage }.play(),
                    "7701",
                );
            }
        }
    }
}

/// As on macOS, where `sh` is bash.
#[test]
fn its_time_is_over_for_the_whole_tree_where_there_is_no_proc() {
    for shell in [Shell::Dash, Shell::Bash] {
        for command in [
            "sleep 7703 & sleep 7703",
            "setsid sleep 7703 & wait",
            "trap '' TERM; sleep 7703 & sleep 7703",
        ] {
            let stage = Stage::new(shell, command)
                .env("MYCLI_TIMEOUT", "1")
                .env("MYCLI_GRACE", "1");
            assert_timed_out(&stage.without_proc().play(), "7703");
        }
    }
}

/// A script that waits for its children and is told of a TERM after them takes their end for its
/// own next step, and goes on. Under load the two signals were far enough apart.
#[test]
fn a_parent_is_signalled_before_its_children() {
    let supervise = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/domain/src/script/supervise.sh"
    );
    // Two shells and their two children; then each pid with its parent's, in the order of signals.
    let text = format!(
        r#"
        mycli_setting_up=1 mycli_seen=''
        . {supervise}
        sh -c 'sh -c "sleep 7704 & wait" & sleep 7704 & wait' &
        turns=0
        while mycli_tree; set -- $mycli_alive; [ $# -lt 4 ] && [ $turns -lt 1000 ]; do
            sleep 0.01
            turns=$((turns + 1))
        done
        for pid; do echo "$pid $(/usr/bin/ps -o ppid= -p "$pid")"; done
        kill -KILL $mycli_alive
        "#
    );
    for shell in SHELLS {
        let mut command = Command::new(shell.binary());
        if shell == Shell::Busybox {
            command.arg("sh");
        }
        let output = command.args(["-c", &text]).process_group(0).output();
        let output = output.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let pairs: Vec<Vec<u32>> = said
            .lines()
            .map(|line| {
                line.split_whitespace()
                    .map(|n| n.parse().unwrap())
                    .collect()
            })
            .collect();
        assert_eq!(pairs.len(), 4, "{shell:?}: {said}");
        for (at, pair) in pairs.iter().enumerate() {
            let later = pairs[at..].iter().any(|other| other[0] == pair[1]);
            assert!(
                !later,
                "{shell:?}: {} comes before its parent: {said}",
                pair[0]
            );
        }
    }
}

#[test]
fn killing_the_timer_does_not_stop_the_clock() {
    for shell in SHELLS {
        let stage = Stage::new(shell, "pkill -KILL -f '^sleep 2$'; exec sleep 7702")
            .env("MYCLI_TIMEOUT", "2")
            .env("MYCLI_GRACE", "1");
        assert_timed_out(&stage.with_pid_one().play(), "7702");
    }
}

#[test]
fn a_false_alarm_does_not_end_the_command() {
    for shell in SHELLS {
        for pid_one in [false, true] {
            let stage = Stage::new(
                shell,
                "for i in 1 2 3 4 5 6 7 8 9; do kill -s ALRM $PPID; sleep 0.01; done; echo on",
            );
            let outcome = if pid_one { stage.with_pid_one() } else { stage }.play();
            assert_eq!(
                (outcome.code, outcome.out()),
                (0, "on\n".to_owned()),
                "{shell:?}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_command_that_ends_in_its_grace_has_timed_out_all_the_same() {
    for shell in SHELLS {
        let command = "trap 'echo saved; exit 0' TERM; while :; do sleep 0.1; done";
        let outcome = Stage::new(shell, command).env("MYCLI_TIMEOUT", "1").play();
        assert_eq!(outcome.out(), "saved\n", "{shell:?}");
        assert_timed_out(&outcome, "7799");
    }
}

#[test]
fn being_stopped_reaches_what_the_shell_started() {
    let saver = "trap '' TERM INT; sh -c 'trap \"sleep 1; echo saved; exit 3\" TERM; echo >ready; while :; do sleep 0.1; done' & trap - TERM; wait";
    for shell in SHELLS {
        for signal in ["TERM", "INT"] {
            // `sh` itself dies of TERM at once. The processes it started get time to save.
            let command = saver.replace("trap '' TERM INT; ", "");
            let running = Stage::new(shell, command).start();
            running.has_made("ready");
            running.signal(signal);
            let outcome = running.end();
            assert_eq!(outcome.out(), "saved\n", "{shell:?} {signal}: {outcome:?}");
            assert_eq!(
                (outcome.code, outcome.markers.last()),
                (143, Some(&Marker::Exit(143))),
                "{shell:?} {signal}"
            );
        }
    }
}

#[test]
fn being_stopped_passes_on_the_commands_own_answer() {
    for shell in SHELLS {
        let running = Stage::new(
            shell,
            "trap 'exit 5' TERM; echo >ready; while :; do sleep 0.1; done",
        )
        .start();
        running.has_made("ready");
        running.signal("TERM");
        assert_eq!(running.end().code, 5, "{shell:?}");
    }
}

#[test]
fn who_ignores_being_stopped_is_killed_after_the_grace() {
    for shell in SHELLS {
        let command = "trap '' TERM; echo >ready; while :; do sleep 0.1; done";
        let running = Stage::new(shell, command).env("MYCLI_GRACE", "1").start();
        running.has_made("ready");
        running.signal("TERM");
        let outcome = running.end();
        assert_eq!(
            (outcome.code, outcome.markers.last()),
            (137, Some(&Marker::Exit(137))),
            "{shell:?}: {outcome:?}"
        );
    }
}

/// The signals ignored in the command's children, according to the kernel. (busybox ignores QUIT in
/// itself; without the `true` it would not fork.)
fn ignored(shell: Shell, pid_one: bool) -> u64 {
    let stage = Stage::new(shell, "grep SigIgn /proc/self/status; true");
    let outcome = if pid_one { stage.with_pid_one() } else { stage }.play();
    let mask = outcome
        .out()
        .split_whitespace()
        .nth(1)
        .map(|mask| u64::from_str_radix(mask, 16));
    // Without the two real-time signals that the C library reserves.
    mask.unwrap_or_else(|| panic!("{outcome:?}")).unwrap() & 0x7fff_ffff
}

#[test]
fn no_signal_is_ignored_in_the_command() {
    for pid_one in [true, false] {
        // With busybox alone nothing can undo the effect of `&`: INT and QUIT stay ignored.
        assert_eq!(SHELLS.map(|shell| ignored(shell, pid_one)), [0, 6, 0]);
    }
}

#[test]
fn a_command_that_kills_its_parent_gains_nothing() {
    for shell in SHELLS {
        let outcome = Stage::new(shell, "kill -KILL $PPID; echo on")
            .with_pid_one()
            .play();
        // A parent that is pid 1 cannot be killed. If it is the keeper, the command dies with it.
        assert!(
            matches!(outcome.markers.last(), Some(Marker::Exit(0 | 137))),
            "{shell:?}: {outcome:?}"
        );
        assert!(outcome.left.is_empty(), "{shell:?}: {outcome:?}");
    }
}
