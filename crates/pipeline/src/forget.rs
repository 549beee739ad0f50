//! Which record is to be forgotten: only one that cannot be read is.

use domain::{
    api::Problem,
    error::PortError,
    forget::{Forgetting, Forgotten},
    id::ExecutionId,
    ports::Store,
};

use crate::query::{not_found, resolve};

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The execution.
    pub id: ExecutionId,
    /// Why, in words that show nothing of the record.
    pub why: String,
}

/// Why a record is not forgotten.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ForgetError {
    /// There is none, or it can be read, or the text may mean several.
    #[error("{}", .0.title)]
    Refused(Problem),
    /// The store does not answer, or lets nobody in.
    #[error(transparent)]
    Store(#[from] PortError),
}

/// The record that a text names: an id, an unambiguous part of one, or a task's ARN.
///
/// # Errors
/// [`ForgetError`].
pub async fn look(store: &impl Store, text: &str) -> Result<Unreadable, ForgetError> {
    let id = resolve(store, text).await.map_err(ForgetError::Refused)?;
    match store.load(&id).await {
        Err(PortError::Corrupt(corrupt)) if corrupt.id() == Some(&id) => {
            Ok(Unreadable { id, why: corrupt.source.to_string() })
        }
        Err(error) => Err(error.into()),
        Ok(Some(_)) => Err(readable(&id)),
        Ok(None) => Err(missing(&id)),
    }
}

/// What was removed.
///
/// # Errors
/// [`ForgetError::Refused`] where nothing was: somebody else was first, or has mended the record.
pub fn removed(id: &ExecutionId, forgetting: Forgetting) -> Result<Forgotten, ForgetError> {
    match forgetting {
        Forgetting::Forgotten(forgotten) => Ok(forgotten),
        Forgetting::Readable => Err(readable(id)),
        Forgetting::Missing => Err(missing(id)),
    }
}

fn readable(id: &ExecutionId) -> ForgetError {
    let title = format!("{id} can be read; `mycli cancel` stops it, and history forgets it by itself");
    ForgetError::Refused(Problem::new(409, "readable", title))
}

fn missing(id: &ExecutionId) -> ForgetError {
    ForgetError::Refused(not_found(id.as_str()))
}
