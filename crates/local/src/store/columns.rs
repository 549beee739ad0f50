//! From what the file keeps to the domain's types, and back. Run on the caller's side, not on the writing or reading thread.

use domain::{
    execution::Execution,
    history::{Cursor, Page},
    id::ExecutionId,
    limit::LimitKey,
    ports::Unavailable,
};
use serde::{Serialize, de::DeserializeOwned};

use super::SERVICE;

pub(super) fn json(value: &impl Serialize) -> Result<String, Unavailable> {
    serde_json::to_string(value).map_err(|error| Unavailable::new(SERVICE, error))
}

/// `what` names the thing in the error's text, which shows no content.
pub(super) fn parsed<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Unavailable> {
    serde_json::from_str(json).map_err(|error| unreadable(what, error))
}

pub(super) fn execution(json: &str) -> Result<Execution, Unavailable> {
    parsed("a record", json)
}

pub(super) fn id(text: &str) -> Result<ExecutionId, Unavailable> {
    text.parse().map_err(|error| unreadable("an id", error))
}

pub(super) fn limit_key(text: &str) -> Result<LimitKey, Unavailable> {
    text.parse().map_err(|error| unreadable("a line's key", error))
}

fn unreadable(what: &str, error: impl std::fmt::Display) -> Unavailable {
    Unavailable::new(SERVICE, format_args!("{what} in it cannot be read: {error}"))
}

/// The page of these records, of which one more than `limit` was asked for to know whether there is a next page.
pub(super) fn page(records: &[String], limit: u32) -> Result<Page<Execution>, Unavailable> {
    let shown = usize::try_from(limit).unwrap_or(usize::MAX).min(records.len());
    let items = records[..shown].iter().map(|json| execution(json)).collect::<Result<Vec<_>, _>>()?;
    let last = items.last().filter(|_| records.len() > shown);
    let next = last.map(|execution| Cursor(execution.id.clone()));
    Ok(Page { items, next })
}
