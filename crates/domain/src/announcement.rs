//! What is published when an execution has ended.

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    api::ExecutionView,
    execution::{Execution, ExecutionStatus},
    id::ExecutionId,
};

/// The `source` of our events on EventBridge.
pub const SOURCE: &str = "mycli";
/// Their `detail-type`.
pub const DETAIL_TYPE: &str = "Execution State Change";

/// The `detail` of the event that says how an execution ended. It holds no command, no value of a
/// variable and no secret: who gets the event need not be somebody who may read executions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Which execution.
    pub execution_id: ExecutionId,
    /// How it ended: a final state.
    pub status: ExecutionStatus,
    /// The command's own exit code.
    pub exit_code: Option<i32>,
    /// Why, in plain words.
    pub reason: Option<String>,
    /// Its short name.
    pub name: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// The repository, without credentials.
    pub repo: Option<String>,
    /// What was to be checked out.
    pub branch: Option<String>,
    /// What was checked out.
    pub commit: Option<String>,
    /// The name of the key that submitted it.
    pub submitted_by: String,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When the command started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// How many tries there were.
    pub attempts: usize,
}

impl Announcement {
    /// The announcement of an execution's end; `None` while it has none.
    #[must_use]
    pub fn of(execution: &Execution) -> Option<Self> {
        execution.end()?;
        let view = ExecutionView::new(execution, None);
        Some(Self {
            execution_id: view.execution_id,
            status: view.status,
            exit_code: view.exit_code,
            reason: view.reason,
            name: view.request.name,
            group: view.request.group,
            repo: view.request.repo,
            branch: view.request.branch,
            commit: view.commit,
            submitted_by: view.submitted_by,
            submitted_at: view.submitted_at,
            started_at: view.started_at,
            stopped_at: view.stopped_at,
            attempts: view.attempts.len(),
        })
    }
}
