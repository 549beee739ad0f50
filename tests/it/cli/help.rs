//! The built-in manual.

use super::stand_in::Mycli;

const COMMANDS: [&[&str]; 42] = [
    &[],
    &["exec"],
    &["bulk"],
    &["status"],
    &["wait"],
    &["logs"],
    &["artifacts"],
    &["artifacts", "list"],
    &["artifacts", "get"],
    &["cancel"],
    &["rerun"],
    &["history"],
    &["stats"],
    &["init"],
    &["upgrade"],
    &["destroy"],
    &["doctor"],
    &["whoami"],
    &["keys"],
    &["keys", "create"],
    &["keys", "list"],
    &["keys", "rotate"],
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

/// The script calls mycli at each TAB (`e2e::completions`).
#[test]
fn each_shell_has_a_completion_script() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = Mycli::unconfigured().run(&["completions", shell]).exits(0);
        assert!(ran.out.contains("MYCLI_COMPLETE"), "{shell}: {}", ran.out);
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    drop(Mycli::unconfigured().run(&["man", path]).exits(0));
    for command in &COMMANDS[..COMMANDS.len() - 1] {
        let name = [&["mycli"], *command].concat().join("-");
        let page = std::fs::read_to_string(folder.path().join(format!("{name}.1")));
        let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".SH SYNOPSIS"), "{name}: {page}");
        assert!(page.contains(".SH EXAMPLES\n.nf\nmycli "), "{name}: {page}");
    }
    // A command can be copied from the page as it is.
    let page = std::fs::read_to_string(folder.path().join("mycli-bulk.1")).unwrap();
    let text = page.replace("\\-", "-");
    assert!(
        text.contains(
            "mycli bulk jobs.jsonl --image node:22 --group nightly --max-parallel 20 --wait"
        ),
        "{text}"
    );
    let hidden = folder.path().join("mycli-local-supervise.1");
    assert!(!hidden.exists());
}

#[test]
fn colours_are_for_terminals() {
    let ran = Mycli::unconfigured().run(&["--help"]).exits(0);
    assert!(!ran.out.contains('\u{1b}'));
}
