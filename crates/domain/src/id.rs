//! Identifiers: an execution's, and those of its attempts, which derive from it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::Timestamp;

/// `exec_` and a ULID: 31 characters, sortable by the time of submission.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExecutionId(String);

/// Why a text is not an identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not an execution id: expected {expected}", expected = "exec_ and 26 characters of a ULID")]
pub struct InvalidId(String);

const PREFIX: &str = "exec_";

impl ExecutionId {
    /// A new id for this moment and 80 bits of randomness (the low ten bytes of `entropy`).
    #[must_use]
    pub fn new(now: Timestamp, entropy: u128) -> Self {
        let millis = u64::try_from(now.timestamp_millis()).unwrap_or_default();
        Self(format!("{PREFIX}{}", Ulid::from_parts(millis, entropy)))
    }

    /// The whole id, with its prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The moment it was made for, to the millisecond: its first ten digits.
    #[must_use]
    pub fn made_at(&self) -> Timestamp {
        let millis = Ulid::from_string(&self.0[PREFIX.len()..]).map_or(0, |ulid| ulid.timestamp_ms());
        i64::try_from(millis).ok().and_then(Timestamp::from_timestamp_millis).unwrap_or_default()
    }

    /// The id of attempt `number` (counted from 1) at this execution.
    #[must_use]
    pub fn attempt(&self, number: u32) -> AttemptId {
        AttemptId { execution: self.clone(), number }
    }
}

impl FromStr for ExecutionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(text.chars().take(64).collect());
        let ulid = text.strip_prefix(PREFIX).ok_or_else(invalid)?;
        let parsed = Ulid::from_string(ulid).map_err(|_| invalid())?;
        Ok(Self(format!("{PREFIX}{parsed}")))
    }
}

impl TryFrom<String> for ExecutionId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<ExecutionId> for String {
    fn from(id: ExecutionId) -> Self {
        id.0
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One try to run an execution as a task: `exec_<ULID>-<number>`.
///
/// It is the task's `startedBy`, so it keeps to that field's alphabet (`[A-Za-z0-9-_/]`, at most 128 characters: ECS API model)
/// and a task's events name the attempt by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttemptId {
    execution: ExecutionId,
    number: u32,
}

impl AttemptId {
    /// The execution this attempt belongs to.
    #[must_use]
    pub fn execution(&self) -> &ExecutionId {
        &self.execution
    }

    /// Which attempt, counted from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl FromStr for AttemptId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(text.chars().take(64).collect());
        let (execution, number) = text.rsplit_once('-').ok_or_else(invalid)?;
        let number = number.parse().ok().filter(|n| *n > 0).ok_or_else(invalid)?;
        Ok(Self { execution: execution.parse()?, number })
    }
}

impl TryFrom<String> for AttemptId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<AttemptId> for String {
    fn from(id: AttemptId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.execution, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ExecutionId {
        ExecutionId::new(Timestamp::from_timestamp_millis(1_764_000_000_000).expect("in range"), 7)
    }

    #[test]
    fn an_attempt_names_its_execution() {
        let attempt: AttemptId = id().attempt(3).to_string().parse().expect("an attempt id");
        assert_eq!((attempt.execution(), attempt.number()), (&id(), 3));
    }

    #[test]
    fn an_id_tells_its_moment() {
        assert_eq!(id().made_at().timestamp_millis(), 1_764_000_000_000);
    }

    #[test]
    fn ids_are_read_in_either_case_and_kept_in_one() {
        let lower = id().as_str().to_lowercase();
        assert_eq!(lower.parse::<ExecutionId>(), Ok(id()));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in
            ["", "exec_", "01K", "exec_01K-1", "job_01KAPR1BX0000000000000000", "exec_01KAPR1BX000000000000000é"]
        {
            assert!(text.parse::<ExecutionId>().is_err(), "{text}");
        }
        assert!(format!("{}-0", id()).parse::<AttemptId>().is_err());
    }
}
