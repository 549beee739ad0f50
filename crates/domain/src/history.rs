//! Queries of history: filters, pages, cursors.

use std::str::FromStr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    error::Corrupt,
    execution::{Execution, ExecutionStatus},
    id::ExecutionId,
    limit::LimitKey,
    principal::Principal,
    request::{FieldError, Name},
};

/// How many executions a page has by default: about as many as a terminal shows at once.
pub const PAGE_DEFAULT: u32 = 20;
/// The most executions of a page. We chose it. A page has fewer if their records are large, so that
/// they fit into Lambda's answer.
pub const PAGE_MAX: u32 = 200;

/// The conditions for the wanted executions; all that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only executions in this status. Whether a waiting execution is shown as `QUEUED` or
    /// `WAITING` depends on its backlog, so a store treats the two as the same.
    pub status: Option<ExecutionStatus>,
    /// Only members of this group.
    pub group: Option<Name>,
    /// Only executions submitted with a key of this name, whoever had it.
    pub by: Option<String>,
    /// Only executions submitted by this principal. Its name is in `by` too.
    pub by_id: Option<Principal>,
    /// Only executions submitted at or after this moment.
    pub since: Option<Timestamp>,
}

impl Filter {
    /// Whether an execution meets the conditions.
    #[must_use]
    pub fn admits(&self, execution: &Execution) -> bool {
        let members = |status: &ExecutionStatus| {
            matches!(status, ExecutionStatus::Queued | ExecutionStatus::Waiting)
        };
        let stands = execution.status();
        let is =
            |status: &ExecutionStatus| stands == *status || (members(status) && members(&stands));
        self.status.as_ref().is_none_or(is)
            && self
                .group
                .as_ref()
                .is_none_or(|group| execution.request.group.as_ref() == Some(group))
            && self
                .by
                .as_ref()
                .is_none_or(|by| execution.submitted_by == *by)
            && self
                .by_id
                .as_ref()
                .is_none_or(|by| execution.submitted_by_id.as_ref() == Some(by))
            && self
                .since
                .is_none_or(|since| execution.submitted_at >= since)
    }
}

/// A loaded record, or why it cannot be read. An unreadable record keeps its position in a page and
/// stops no page and no sweep.
pub type Loaded = Result<Execution, Corrupt>;

/// A page of items, newest first, and the cursor of the next one.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor for the next page; `None` on the last.
    pub next: Option<Cursor>,
}

/// A position in history: everything older than this execution. Opaque to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub ExecutionId);

impl Cursor {
    /// The text given to callers.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.as_str())
    }

    /// Reads what [`Cursor::encode`] wrote.
    ///
    /// # Errors
    /// Names the field when the text is anything else.
    pub fn decode(text: &str) -> Result<Self, FieldError> {
        decoded(text)
            .map(Self)
            .filter(|cursor| cursor.encode() == text)
            .ok_or_else(invalid_cursor)
    }
}

/// The value whose text is encoded in a cursor. A cursor that only has the same meaning as one of
/// ours is refused by comparing it with the cursor of this value.
fn decoded<T: FromStr>(text: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    String::from_utf8(bytes).ok()?.parse().ok()
}

fn invalid_cursor() -> FieldError {
    FieldError {
        field: "cursor".into(),
        message: "is not a cursor of this API; pass next_cursor of the previous page unchanged"
            .into(),
    }
}

/// A position in the list of backlogs: those after this limit's. Opaque to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogCursor(pub LimitKey);

impl BacklogCursor {
    /// The text given to callers.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.to_string())
    }

    /// Reads what [`BacklogCursor::encode`] wrote, and nothing else.
    ///
    /// # Errors
    /// Names the field when the text is anything else.
    pub fn decode(text: &str) -> Result<Self, FieldError> {
        decoded(text)
            .map(Self)
            .filter(|cursor| cursor.encode() == text)
            .ok_or_else(invalid_cursor)
    }
}

/// The position of a reader in a list of artifacts: the attempt, and the file that comes next.
/// Opaque to callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArtifactCursor {
    /// The attempt's number.
    pub attempt: u32,
    /// The batch's number.
    pub batch: u32,
    /// How many files of the batch come before it.
    pub passed: u32,
}

impl ArtifactCursor {
    /// The text given to callers.
    #[must_use]
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}.{}.{}", self.attempt, self.batch, self.passed))
    }

    /// Reads what [`ArtifactCursor::encode`] wrote, and nothing else.
    ///
    /// # Errors
    /// Names the field when the text is anything else.
    pub fn decode(text: &str) -> Result<Self, FieldError> {
        let read = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let mut numbers = text.split('.').map(str::parse);
            Some(Self {
                attempt: numbers.next()?.ok()?,
                batch: numbers.next()?.ok()?,
                passed: numbers.next()?.ok()?,
            })
        };
        read()
            .filter(|cursor| cursor.encode() == text)
            .ok_or_else(Self::fault)
    }

    /// The fault of an invalid cursor.
    #[must_use]
    pub fn fault() -> FieldError {
        FieldError {
            field: "cursor".into(),
            message:
                "is not a cursor of this list; pass next_cursor of the previous answer unchanged"
                    .into(),
        }
    }
}

/// The position of a reader in an execution's log: the attempt, and the position in its stream.
/// Opaque to callers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredLogCursor", into = "StoredLogCursor")]
pub struct LogCursor {
    /// The attempt's number; 0 before there is one.
    pub attempt: u32,
    /// The stream's own cursor.
    pub stream: Option<String>,
    /// Which `ended` markers of the log were seen.
    pub ends: LogEnds,
}

/// Which of the marker lines at the end of a log were seen. The runner writes one on stdout and one
/// on stderr, and they arrive in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogEnds {
    /// Neither.
    #[default]
    None,
    /// One of the two: lines of the other stream may still arrive.
    One,
    /// Both: no line follows.
    Both,
}

impl LogEnds {
    /// The state after this many more `ended` markers.
    #[must_use]
    pub fn and(self, more: usize) -> Self {
        match (self, more) {
            (ends, 0) => ends,
            (Self::None, 1) => Self::One,
            _ => Self::Both,
        }
    }
}

/// The cursor as callers carry it. A cursor without `h` is from a release whose program wrote only
/// one `ended` marker.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLogCursor {
    #[serde(rename = "a")]
    attempt: u32,
    #[serde(rename = "c")]
    stream: Option<String>,
    #[serde(rename = "e")]
    both_ends: bool,
    #[serde(rename = "h", default, skip_serializing_if = "std::ops::Not::not")]
    one_end: bool,
}

impl From<StoredLogCursor> for LogCursor {
    fn from(stored: StoredLogCursor) -> Self {
        let ends = match (stored.both_ends, stored.one_end) {
            (true, _) => LogEnds::Both,
            (false, true) => LogEnds::One,
            (false, false) => LogEnds::None,
        };
        Self {
            attempt: stored.attempt,
            stream: stored.stream,
            ends,
        }
    }
}

impl From<LogCursor> for StoredLogCursor {
    fn from(
        LogCursor {
            attempt,
            stream,
            ends,
        }: LogCursor,
    ) -> Self {
        Self {
            attempt,
            stream,
            both_ends: ends == LogEnds::Both,
            one_end: ends == LogEnds::One,
        }
    }
}

impl LogCursor {
    /// The text given to callers.
    #[must_use]
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads what [`LogCursor::encode`] wrote, and refuses a text that only has the same meaning.
    ///
    /// # Errors
    /// Names the field when the text is anything else.
    pub fn decode(text: &str) -> Result<Self, FieldError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let cursor = bytes.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        cursor
            .filter(|cursor| cursor.encode() == text)
            .ok_or_else(Self::fault)
    }

    /// The fault of an invalid cursor.
    #[must_use]
    pub fn fault() -> FieldError {
        FieldError {
            field: "cursor".into(),
            message:
                "is not a cursor of this log, or is older than a day; pass next_cursor of the previous answer unchanged"
                    .into(),
        }
    }
}
