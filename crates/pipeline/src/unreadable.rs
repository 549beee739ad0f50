//! Records that cannot be read. Such a record stops nothing but itself: it is logged and skipped.

use domain::{
    error::{Corrupt, PortError},
    execution::Execution,
};

/// Returns the records that can be read, and logs the others.
pub(crate) fn readable(loaded: Vec<Result<Execution, Corrupt>>) -> Vec<Execution> {
    loaded
        .into_iter()
        .filter_map(|record| record.inspect_err(Corrupt::note).ok())
        .collect()
}

/// Replaces the error of an unreadable record with the default value, because repeating the read
/// would not help.
pub(crate) fn passed_over<T: Default>(result: Result<T, PortError>) -> Result<T, PortError> {
    match result {
        Err(PortError::Corrupt(corrupt)) => {
            corrupt.note();
            Ok(T::default())
        }
        other => other,
    }
}
