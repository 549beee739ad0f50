//! Stored forms as the file keeps them: JSON in a text column. Run on the caller's side, not on the
//! writing or reading thread.

use domain::{
    error::PortError,
    stored::{self, FormError, Unknown},
};
use serde::{Serialize, de::DeserializeOwned};

/// A value as it is kept, with what a newer release wrote beside it.
pub(crate) fn json(value: &impl Serialize, unknown: &Unknown) -> Result<String, PortError> {
    let form =
        stored::write(value, unknown).map_err(|error| PortError::invalid("the store", error))?;
    Ok(form.to_string())
}

/// What a column holds.
pub(crate) fn read<T: DeserializeOwned + Serialize>(
    json: &[u8],
) -> Result<(T, Unknown), FormError> {
    let form = serde_json::from_slice(json).map_err(|_| FormError::NoForm)?;
    stored::read(form)
}

/// The same of something that this process itself does not write back. `what` names it in the
/// error.
pub(crate) fn parsed<T: DeserializeOwned + Serialize>(
    what: &str,
    json: &str,
) -> Result<T, PortError> {
    read(json.as_bytes())
        .map(|(value, _)| value)
        .map_err(|error| PortError::corrupt(what, error))
}
