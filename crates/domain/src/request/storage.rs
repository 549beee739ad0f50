//! The size of a task's disk.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The size of a task's disk in GB, where it is larger than the one that each task has: 21 to 200
/// (ECS API reference, `EphemeralStorage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u32")]
pub struct TaskStorage(u32);

/// The size is not one that Fargate offers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{gb} GB is not offered by Fargate: use {free}, which each task has, to {most}",
    gb = .0, free = TaskStorage::FREE, most = TaskStorage::MAX
)]
pub struct StorageError(u64);

impl TaskStorage {
    /// The disk that each task has at no extra price, in GB.
    pub const FREE: u32 = 20;
    /// The largest disk, in GB.
    pub const MAX: u32 = 200;

    /// Returns the size for so many GB.
    ///
    /// # Errors
    /// [`StorageError`] if Fargate does not offer it.
    pub fn new(gb: u64) -> Result<Self, StorageError> {
        u32::try_from(gb)
            .ok()
            .filter(|gb| (Self::FREE + 1..=Self::MAX).contains(gb))
            .map(Self)
            .ok_or(StorageError(gb))
    }

    /// Returns the GB.
    #[must_use]
    pub fn gb(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for TaskStorage {
    type Error = StorageError;

    fn try_from(gb: u64) -> Result<Self, StorageError> {
        Self::new(gb)
    }
}

impl From<TaskStorage> for u32 {
    fn from(storage: TaskStorage) -> Self {
        storage.0
    }
}

impl fmt::Display for TaskStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sizes_that_fargate_offers_are_taken() {
        for gb in [21, 200] {
            assert_eq!(
                TaskStorage::new(gb).map(|storage| u64::from(storage.gb())),
                Ok(gb)
            );
        }
        for gb in [0, 20, 201, u64::MAX] {
            let message = TaskStorage::new(gb).expect_err("refused").to_string();
            assert!(message.contains("to 200"), "{message}");
        }
    }
}
