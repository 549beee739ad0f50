//! Records that cannot be read. One stops nothing but itself: it is passed over, and said in the
//! log.

use domain::{
    error::{Corrupt, PortError},
    execution::Execution,
};

/// The records that can be read.
pub(crate) fn readable(loaded: Vec<Result<Execution, Corrupt>>) -> Vec<Execution> {
    loaded
        .into_iter()
        .filter_map(|record| record.inspect_err(Corrupt::note).ok())
        .collect()
}

/// What came of looking at one record, with nothing in place of one that cannot be read: repeating
/// the look would not help.
pub(crate) fn passed_over<T: Default>(result: Result<T, PortError>) -> Result<T, PortError> {
    match result {
        Err(PortError::Corrupt(corrupt)) => {
            corrupt.note();
            Ok(T::default())
        }
        other => other,
    }
}
