//! The identifiers of executions and of their attempts, which are derived from the executions'.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ulid::Ulid;

use crate::Timestamp;

/// `exec_` and a ULID: 31 characters, sortable by the time of submission.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExecutionId(String);

/// The error for a text that is not an identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "'{0}' is not an execution id: expected {expected}",
    expected = "exec_ and 26 characters of a ULID"
)]
pub struct InvalidId(String);

const PREFIX: &str = "exec_";

/// The most lines of one submission: as many as 24 bits can count. That is over 16 million, more
/// than a submission needs, and leaves 56 bits to distinguish submissions.
pub const LINES_MAX: u32 = 1 << 24;

/// How many of a ULID's 80 free bits distinguish lines of different submissions at the same index:
/// what [`LINES_MAX`] leaves.
const TAG_BITS: u32 = 56;

/// A submission of many lines: who made it, under which id, and when it was first sent. The ids of
/// its lines are derived from these. So a line that is sent again is the same execution, and
/// nothing has to be stored for each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The submitter ([`crate::principal::Principal`], as text).
    pub by: String,
    /// The submitter's own id for the submission.
    pub id: String,
    /// When its first line was sent.
    pub opened_at: Timestamp,
}

impl Submission {
    /// The id of the line with this index. The ids are in the lines' order, and their last digits
    /// look random. `None` from [`LINES_MAX`] on.
    #[must_use]
    pub fn execution(&self, index: u32) -> Option<ExecutionId> {
        let entropy = u128::from(index) << TAG_BITS | u128::from(self.tag(index));
        (index < LINES_MAX).then(|| ExecutionId::new(self.opened_at, entropy))
    }

    /// 56 bits that differ between submissions of the same moment at the same line. The
    /// submission's id comes last in the hash, so that no part can run into another.
    fn tag(&self, index: u32) -> u64 {
        let name_length = u64::try_from(self.by.len()).unwrap_or(u64::MAX);
        let hash = Sha256::new()
            .chain_update(index.to_be_bytes())
            .chain_update(name_length.to_be_bytes())
            .chain_update(&self.by)
            .chain_update(&self.id);
        let digits = hash
            .finalize()
            .into_iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(byte));
        digits >> (u64::BITS - TAG_BITS)
    }
}

impl ExecutionId {
    /// Makes a new id of this moment and 80 random bits (the low ten bytes of `entropy`).
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

    /// The moment of the id, to the millisecond: its first ten digits.
    #[must_use]
    pub fn made_at(&self) -> Timestamp {
        let millis =
            Ulid::from_string(&self.0[PREFIX.len()..]).map_or(0, |ulid| ulid.timestamp_ms());
        i64::try_from(millis)
            .ok()
            .and_then(Timestamp::from_timestamp_millis)
            .unwrap_or_default()
    }

    /// The 16 bytes of its ULID, for where many ids are stored together.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        Ulid::from_string(&self.0[PREFIX.len()..]).map_or([0; 16], |ulid| ulid.to_bytes())
    }

    /// The id of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(format!("{PREFIX}{}", Ulid::from_bytes(bytes)))
    }

    /// The id of attempt `number` (counted from 1) of this execution.
    #[must_use]
    pub fn attempt(&self, number: u32) -> AttemptId {
        AttemptId {
            execution: self.clone(),
            number,
        }
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

/// One attempt to run an execution as a task: `exec_<ULID>-<number>`.
///
/// It is the task's `startedBy`, so it uses only that field's characters (`[A-Za-z0-9-_/]`, at most
/// 128: ECS API model). A task's events thus name the attempt.
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

    /// The number of the attempt, counted from 1.
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
        Ok(Self {
            execution: execution.parse()?,
            number,
        })
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
        ExecutionId::new(
            Timestamp::from_timestamp_millis(1_764_000_000_000).expect("in range"),
            7,
        )
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

    fn submission(by: &str, name: &str) -> Submission {
        Submission {
            by: by.to_owned(),
            id: name.to_owned(),
            opened_at: id().made_at(),
        }
    }

    proptest::proptest! {
        #[test]
        fn lines_have_ids_of_their_own_in_their_order(a in 0..LINES_MAX, b in 0..LINES_MAX, by in ".{1,8}", name in "[ -~]{1,64}") {
            let lines = submission(&by, &name);
            let (first, second) = (lines.execution(a).expect("a line"), lines.execution(b).expect("a line"));
            proptest::prop_assert_eq!(a.cmp(&b), first.cmp(&second));
            proptest::prop_assert_eq!(first.made_at(), lines.opened_at);
            proptest::prop_assert_eq!(first.as_str().parse(), Ok(first.clone()));
        }
    }

    #[test]
    fn the_same_line_of_another_submission_is_another_execution() {
        let first = submission("alice", "s").execution(7);
        assert_eq!(first, submission("alice", "s").execution(7));
        let later = Submission {
            opened_at: id().made_at() + chrono::TimeDelta::days(1),
            ..submission("alice", "s")
        };
        for other in [
            submission("alice", "t"),
            submission("bob", "s"),
            submission("alices", ""),
            later,
        ] {
            assert_ne!(first, other.execution(7), "{other:?}");
        }
        assert_ne!(
            submission("ab", "c").execution(0),
            submission("a", "bc").execution(0)
        );
    }

    /// Adapters distribute executions by the last digits of their ids.
    #[test]
    fn the_last_digits_of_lines_are_spread_evenly() {
        let lines = submission("alice", "s");
        let mut counts = std::collections::BTreeMap::new();
        for index in 0..8_000 {
            let last = lines
                .execution(index)
                .and_then(|id| id.as_str().chars().next_back());
            *counts.entry(last).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 32);
        assert!(
            counts.values().all(|count| (150..=350).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn there_are_only_so_many_lines() {
        assert!(submission("alice", "s").execution(LINES_MAX - 1).is_some());
        assert_eq!(submission("alice", "s").execution(LINES_MAX), None);
    }

    #[test]
    fn ids_are_read_in_either_case_and_kept_in_one() {
        let lower = id().as_str().to_lowercase();
        assert_eq!(lower.parse::<ExecutionId>(), Ok(id()));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "exec_",
            "01K",
            "exec_01K-1",
            "job_01KAPR1BX0000000000000000",
            "exec_01KAPR1BX000000000000000é",
        ] {
            assert!(text.parse::<ExecutionId>().is_err(), "{text}");
        }
        assert!(format!("{}-0", id()).parse::<AttemptId>().is_err());
    }
}
