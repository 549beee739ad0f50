//! The code uses the words of the design's dictionary.

use std::path::Path;

use shape::{sources, words};

/// Words in comments and strings do not count.
#[test]
fn no_identifier_is_a_word_that_the_dictionary_replaced() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let sources = sources::all(&root).expect("the sources can be read");
    assert!(sources.len() > 300, "only {} sources", sources.len());
    let found: Vec<_> = sources
        .iter()
        .flat_map(|source| words::of(source).expect("it is Rust"))
        .map(|found| {
            let words::Found {
                path,
                line,
                word,
                instead,
            } = found;
            format!("{path}:{line}: `{word}`, better: {instead}")
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
