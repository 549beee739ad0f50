//! Stored forms: JSON in a text column. The conversion runs outside of transactions, which other
//! processes wait for.

use domain::{
    error::PortError,
    stored::{self, FormError, Unknown},
};
use serde::{Serialize, de::DeserializeOwned};

/// Converts a value to its stored form, with the unknown fields that a newer release wrote.
pub(crate) fn json(value: &impl Serialize, unknown: &Unknown) -> Result<String, PortError> {
    let form =
        stored::write(value, unknown).map_err(|error| PortError::invalid("the store", error))?;
    Ok(form.to_string())
}

/// Reads a column's value and its unknown fields.
pub(crate) fn read<T: DeserializeOwned + Serialize>(
    json: &[u8],
) -> Result<(T, Unknown), FormError> {
    let form = serde_json::from_slice(json).map_err(|_| FormError::NoForm)?;
    stored::read(form)
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
