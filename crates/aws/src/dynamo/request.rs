//! The item of an execution that never changes.

use domain::{
    Timestamp, execution::Execution, key::Role, principal::Principal, request::LaunchRequest,
};
use serde::{Deserialize, Serialize};

use super::item::{expiry, shard, sharded};

/// The request, and what the indexes by submitter and by group need of it. Its key holds the
/// execution and the day.
#[derive(Serialize, Deserialize)]
pub(super) struct RequestItem {
    submitter: String,
    grp: Option<String>,
    pub(super) request: LaunchRequest,
    pub(super) submitted_by: String,
    #[serde(default)]
    pub(super) submitted_by_id: Option<Principal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) submitted_role: Option<Role>,
    pub(super) submitted_at: Timestamp,
    /// When the item may be deleted: later than the state, which is kept for a time after the run's
    /// end.
    pub(super) expires: i64,
}

impl RequestItem {
    pub(super) fn of(execution: &Execution, expires: Timestamp) -> Self {
        let shard = shard(&execution.id);
        Self {
            submitter: sharded(&execution.submitted_by, shard),
            grp: execution
                .request
                .group
                .as_ref()
                .map(|group| sharded(group.as_str(), shard)),
            request: execution.request.clone(),
            submitted_by: execution.submitted_by.clone(),
            submitted_by_id: execution.submitted_by_id.clone(),
            submitted_role: execution.submitted_role,
            submitted_at: execution.submitted_at,
            expires: expiry(expires),
        }
    }
}
