//! The event that is published when an execution has ended.

use serde::{Deserialize, Serialize};

use crate::{
    Timestamp,
    api::{CostView, ExecutionView},
    execution::{Execution, ExecutionStatus},
    id::ExecutionId,
};

/// The `source` of our events on EventBridge.
pub const SOURCE: &str = "mycli";
/// The `detail-type` of our events on EventBridge.
pub const DETAIL_TYPE: &str = "Execution State Change";

/// The `detail` of the event that reports how an execution ended. It has no command, no value of a
/// variable and no secret, because its receivers may lack the permission to read executions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// The execution's id.
    pub execution_id: ExecutionId,
    /// The final status.
    pub status: ExecutionStatus,
    /// The command's own exit code.
    pub exit_code: Option<i32>,
    /// The reason, in plain words.
    pub reason: Option<String>,
    /// The execution's short name.
    pub name: Option<String>,
    /// The execution's group.
    pub group: Option<String>,
    /// The repository, without credentials.
    pub repo: Option<String>,
    /// The branch, tag or commit that was requested.
    pub branch: Option<String>,
    /// The commit that was checked out.
    pub commit: Option<String>,
    /// The name of the key that submitted it.
    pub submitted_by: String,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When the command started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// The number of attempts.
    pub attempts: usize,
    /// The cost of all attempts at list price, if it is known.
    pub cost: Option<CostView>,
}

impl Announcement {
    /// The announcement of an execution's end; `None` while the execution has not ended.
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
            cost: view.cost,
        })
    }
}
