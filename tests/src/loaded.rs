//! What a store's pages hold, in a test that has spoilt nothing.

use domain::{execution::Execution, history::Loaded};

/// The records of a page, all of which can be read.
///
/// # Panics
/// When one of them cannot.
#[must_use]
pub fn all(items: Vec<Loaded>) -> Vec<Execution> {
    let readable = |loaded: Loaded| loaded.unwrap_or_else(|corrupt| panic!("{corrupt}"));
    items.into_iter().map(readable).collect()
}
