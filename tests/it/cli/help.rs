//! The built-in manual.

use super::stand_in::Mycli;

const COMMANDS: [&[&str]; 36] = [
    &[],
    &["exec"],
    &["bulk"],
    &["status"],
    &["wait"],
    &["logs"],
    &["cancel"],
    &["rerun"],
    &["history"],
    &["init"],
    &["upgrade"],
    &["destroy"],
    &["doctor"],
    &["keys"],
    &["keys", "create"],
    &["keys", "list"],
    &["keys", "revoke"],
    &["secrets"],
    &["secrets", "set"],
    &["secrets", "list"],
    &["secrets", "remove"],
    &["dead-letters"],
    &["dead-letters", "list"],
    &["dead-letters", "redrive"],
    &["forget"],
    &["config"],
    &["config", "show"],
    &["config", "set"],
    &["config", "unset"],
    &["config", "use"],
    &["config", "path"],
    &["local"],
    &["local", "serve"],
    &["local", "prune"],
    &["completions"],
    &["local", "supervise"],
];

#[test]
fn every_command_has_examples() {
    for command in &COMMANDS[..COMMANDS.len() - 1] {
        let ran = Mycli::unconfigured()
            .run(&[command, &["--help"][..]].concat())
            .exits(0);
        assert!(
            ran.out.contains("Examples:\n  mycli "),
            "{command:?}: {}",
            ran.out
        );
    }
}

#[test]
fn the_command_line_is_as_documented() {
    let help = |command: &&[&str]| {
        Mycli::unconfigured()
            .run(&[command, &["--help"][..]].concat())
            .exits(0)
            .out
    };
    let manual: Vec<_> = COMMANDS.iter().map(help).collect();
    insta::assert_snapshot!("help", manual.join("\n----\n"));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = Mycli::unconfigured().run(&["completions", shell]).exits(0);
        assert!(
            ["history", "--retry-on"]
                .iter()
                .all(|word| ran.out.contains(word.trim_start_matches('-'))),
            "{shell}"
        );
    }
}

#[test]
fn colours_are_for_terminals() {
    let ran = Mycli::unconfigured().run(&["--help"]).exits(0);
    assert!(!ran.out.contains('\u{1b}'));
}
