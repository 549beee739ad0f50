//! Stored forms: JSON in a text column. The conversion runs outside of transactions, which other
//! processes wait for.

use domain::{
    error::PortError,
    stored::{self, Unknown},
};
use serde::{Serialize, de::DeserializeOwned};

/// Reads a column's value and its unknown fields.
pub(crate) use domain::stored::read_text as read;

/// Converts a value to its stored form, with the unknown fields that a newer release wrote.
pub(crate) fn json(value: &impl Serialize, unknown: &Unknown) -> Result<String, PortError> {
    stored::write_text(value, unknown).map_err(|error| PortError::invalid("the store", error))
}

/// Reads a column's value without its unknown fields, because this process does not write it back.
/// `what` names it in the error.
pub(crate) fn parsed<T: DeserializeOwned + Serialize>(
    what: &str,
    json: &str,
) -> Result<T, PortError> {
    read(json.as_bytes())
        .map(|(value, _)| value)
        .map_err(|error| PortError::corrupt(what, error))
}
