//! What a store's pages hold, in a test that has spoilt nothing.

use domain::{
    execution::Execution,
    history::{Cursor, Loaded, Page},
};

/// The records of a page, all of which can be read.
///
/// # Panics
/// When one of them cannot.
#[must_use]
pub fn all(items: Vec<Loaded>) -> Vec<Execution> {
    let readable = |loaded: Loaded| loaded.unwrap_or_else(|corrupt| panic!("{corrupt}"));
    items.into_iter().map(readable).collect()
}

/// Every page of a list, the first one first. `page` asks a store for the page that begins at a
/// cursor.
pub async fn pages(mut page: impl AsyncFnMut(Option<&Cursor>) -> Page<Loaded>) -> Vec<Vec<Loaded>> {
    let (mut pages, mut cursor) = (Vec::new(), None);
    loop {
        let Page { items, next } = page(cursor.as_ref()).await;
        pages.push(items);
        cursor = next;
        if cursor.is_none() {
            return pages;
        }
    }
}
