//! A key of a request is known everywhere: in the request and its changes, in the API document, as
//! a flag of `exec`, in the project's file, and in the manual. [`KEYS`] is the list.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use domain::request::{Changes, KEYS, SubmitRequest};
use serde::de::DeserializeOwned;
use serde_json::json;
use tests::{mycli, sandbox::Sandbox};

use super::api::document;

fn keys() -> BTreeSet<String> {
    KEYS.iter().map(|key| key.name.to_owned()).collect()
}

/// All keys but `action`, which says what is done with the others.
fn keys_of_changes() -> BTreeSet<String> {
    let mut keys = keys();
    keys.remove("action");
    keys
}

/// The keys that a type reads, as its error for an unknown key lists them.
fn read_by<T: DeserializeOwned>() -> BTreeSet<String> {
    let Err(error) = serde_json::from_value::<T>(json!({"no_such_key": 1})) else {
        panic!("an unknown key is refused")
    };
    let error = error.to_string();
    let (_, known) = error.split_once("expected one of").expect("a list of keys");
    let names = known.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

fn documented(schema: &str) -> BTreeSet<String> {
    let document = document();
    let properties = document["components"]["schemas"][schema]["properties"].as_object();
    properties.expect("an object").keys().cloned().collect()
}

#[test]
fn requests_and_changes_have_every_key_of_the_list_and_no_other() {
    assert_eq!(read_by::<SubmitRequest>(), keys());
    assert_eq!(read_by::<Changes>(), keys_of_changes());
}

#[test]
fn the_api_document_has_every_key_of_the_list_and_no_other() {
    assert_eq!(documented("SubmitRequest"), keys());
    assert_eq!(documented("Changes"), keys_of_changes());
}

#[test]
fn exec_and_rerun_have_a_flag_for_every_key() {
    for command in ["exec", "rerun"] {
        let help = Command::new(mycli()).args([command, "--help"]).output();
        let help = String::from_utf8(help.expect("it runs").stdout).expect("it is text");
        let words: BTreeSet<_> = help.split([' ', ',', '\n', '[', ']', '=', '<']).collect();
        for flag in KEYS.iter().flat_map(|key| key.flags) {
            assert!(words.contains(flag), "{command} has no {flag}");
        }
    }
}

#[test]
fn the_manual_has_a_row_for_every_key_with_its_flags() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
    let manual = fs::read_to_string(path).expect("the reference");
    let (_, keys) = manual
        .split_once("## Keys of a request")
        .expect("its section");
    for key in KEYS.iter().filter(|key| key.name != "action") {
        let begin = format!("| `{}` |", key.name);
        let row = keys.lines().find(|line| line.starts_with(&begin));
        let row = row.unwrap_or_else(|| panic!("docs/reference.md has no row for `{}`", key.name));
        for flag in key.flags {
            assert!(
                row.contains(&format!("`{flag}`")),
                "{flag} is missing in: {row}"
            );
        }
    }
}

/// Each in a line of its own, or in a comment: `key: value`.
#[test]
fn the_example_of_a_projects_file_shows_every_key_but_those_of_one_run() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/project/.mycli.yaml");
    let file = fs::read_to_string(path).expect("the example");
    let is_key = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let shown = file.lines().filter_map(|line| {
        let (name, _) = line.split_once(':')?;
        let name = name.strip_prefix('#').map_or(name, str::trim_start);
        Some(name).filter(is_key).map(str::to_owned)
    });
    let known = KEYS.iter().filter(|key| !key.is_of_one_run);
    let known: BTreeSet<_> = known.map(|key| key.name.to_owned()).collect();
    assert_eq!(shown.collect::<BTreeSet<_>>(), known);
}

/// Most values are refused. Then the message is about the value and not about the key.
#[test]
fn the_projects_file_takes_every_key_but_those_of_one_run() {
    for key in &KEYS {
        let sandbox = Sandbox::new();
        let value = match key.name {
            "env" => "{A: b}",
            "secrets" | "retry_on" | "command" => "[x]",
            _ => "7",
        };
        let file = format!("{}: {value}\n", key.name);
        fs::write(sandbox.path(".mycli.yaml"), file).expect("the file is written");
        let said = sandbox.run(&["--local", "exec", "--no-repo", "true"]).err;
        let is_refused = said.contains("belongs to one run");
        let is_unknown = said.contains("unknown field") || said.contains("unknown key");
        assert_eq!(
            (is_refused, is_unknown),
            (key.is_of_one_run, false),
            "{said}"
        );
    }
}
