//! Helpers for the pages of a store, for tests that spoil no record.

use domain::{
    execution::Execution,
    history::{Cursor, Loaded, Page},
};

/// Returns the records of a page, all of which must be readable.
///
/// # Panics
/// When a record cannot be read.
#[must_use]
pub fn all(items: Vec<Loaded>) -> Vec<Execution> {
    let readable = |loaded: Loaded| loaded.unwrap_or_else(|corrupt| panic!("{corrupt}"));
    items.into_iter().map(readable).collect()
}

/// Returns every page of a list in order. `page` asks a store for the page that begins at a cursor.
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
