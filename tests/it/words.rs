//! The words of the code are those of the design's dictionary, and each stands for one thing.
//! Its modules can be read one after the other.

use std::{collections::BTreeSet, path::Path};

use shape::{
    circles, names,
    sources::{self, Source},
    words,
};

/// The clock and the randomness of the machine. Both adapters have one, and neither imports the
/// other.
const SAME_THING: [&str; 1] = ["System"];

fn all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources::all(&root).expect("the sources can be read");
    assert!(sources.len() > 300, "only {} sources", sources.len());
    sources
}

/// Words in comments and texts are not looked at.
#[test]
fn no_identifier_is_a_word_that_the_dictionary_replaced() {
    let mut found = Vec::new();
    for source in all() {
        for identifier in words::of(&source).expect("it is Rust") {
            let words::Found {
                path,
                line,
                word,
                instead,
            } = identifier;
            found.push(format!("{path}:{line}: `{word}`, better: {instead}"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_type_name_stands_for_different_things_in_two_crates() {
    let shared = names::shared(&all()).expect("they are Rust");
    let names: BTreeSet<_> = shared.keys().map(String::as_str).collect();
    assert_eq!(names, SAME_THING.into(), "{shared:#?}");
}

/// Modules that import each other in a circle can only be read together.
#[test]
fn no_modules_import_each_other_in_a_circle() {
    let sources = all();
    let packages: BTreeSet<_> = sources
        .iter()
        .filter(|source| source.is_shipped)
        .map(Source::package)
        .collect();
    for package in packages {
        let circles = circles::of(package, &sources).expect("it is Rust");
        assert!(circles.is_empty(), "{package}: {circles:#?}");
    }
}
