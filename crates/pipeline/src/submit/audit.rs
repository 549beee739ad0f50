//! The audit line: one line of the log for each request to the API that changes something, whether
//! it was carried out or refused. It says who asked for what, and what came of it. It holds no
//! variable and no key.

use domain::{
    Timestamp,
    api::{BulkAnswer, Problem},
    id::ExecutionId,
    key::{Caller, Role},
    ports::Created,
};
use tracing::field;

use crate::{http::Route, lookup};

/// The facts about a request, noted as they become known. A request that fails half-way has an
/// audit line with what was done by then.
#[derive(Debug, Default)]
pub(super) struct AuditFacts {
    /// The execution, group, key or submission that the request is about.
    pub(super) target: Option<String>,
    /// The execution that was submitted or cancelled.
    pub(super) execution_id: Option<ExecutionId>,
    /// The role of a key that is made or replaced.
    pub(super) new_role: Option<Role>,
    /// Until when the replaced key works.
    pub(super) old_key_until: Option<Timestamp>,
    /// How many executions were recorded now, were recorded before, and were refused.
    counts: Option<[u64; 3]>,
}

impl AuditFacts {
    /// Returns the facts in the path of the request.
    pub(super) fn of(route: &Route) -> Self {
        let target = match route {
            Route::Cancel(text)
            | Route::CancelGroup(text)
            | Route::Rerun(text)
            | Route::RerunGroup(text)
            | Route::RevokeKey(text)
            | Route::RotateKey(text) => Some(lookup::shown(text)),
            _ => None,
        };
        Self {
            target,
            ..Self::default()
        }
    }

    /// Notes the result of recording one execution.
    pub(super) fn recorded(&mut self, created: &Created, id: &ExecutionId) {
        let (id, counts) = match created {
            Created::New => (id, [1, 0, 0]),
            Created::Existing(known) => (known, [0, 1, 0]),
            Created::Mismatch(known) => (known, [0, 0, 1]),
        };
        self.execution_id = Some(id.clone());
        self.counts = Some(counts);
    }

    /// Notes the results of the lines of a submission.
    pub(super) fn counted(&mut self, answer: &BulkAnswer) {
        let counts = [
            answer.accepted.len(),
            answer.existing.len(),
            answer.rejected.len(),
        ];
        self.counts = Some(counts.map(|count| u64::try_from(count).unwrap_or(u64::MAX)));
    }

    /// Writes the audit line. The caller's principal and the request's id come from the span of the
    /// request ([`crate::log::request`]).
    ///
    /// A caller without a valid key gets no audit line: it cannot change anything, and anybody
    /// could fill the log. API Gateway's access log has those requests.
    pub(super) fn write(&self, caller: &Caller, route: &Route, problem: Option<&Problem>) {
        let Some(action) = action(route) else {
            return;
        };
        let [accepted, existing, rejected] =
            self.counts.map_or([None; 3], |counts| counts.map(Some));
        tracing::info!(
            action,
            caller = caller.name,
            role = %caller.role,
            target = self.target,
            execution_id = self.execution_id.as_ref().map(field::display),
            new_role = self.new_role.map(field::display),
            old_key_until = self.old_key_until.map(|until| until.to_rfc3339()),
            accepted,
            existing,
            rejected,
            outcome = self.outcome(problem),
            code = problem.map(|problem| problem.code.as_str()),
            "audit"
        );
    }

    fn outcome(&self, problem: Option<&Problem>) -> &'static str {
        match (problem, self.counts) {
            (Some(problem), _) if problem.status >= 500 => "failed",
            (Some(_), _) => "refused",
            (None, Some([0, 0, rejected])) if rejected > 0 => "refused",
            (None, Some([_, _, rejected])) if rejected > 0 => "partly",
            (None, _) => "done",
        }
    }
}

/// The name of what the request does; `None` for a route that changes nothing.
fn action(route: &Route) -> Option<&'static str> {
    Some(match route {
        Route::Execute => "execute",
        Route::Bulk => "bulk",
        Route::Cancel(_) => "cancel",
        Route::CancelGroup(_) => "cancel_group",
        Route::Rerun(_) => "rerun",
        Route::RerunGroup(_) => "rerun_group",
        Route::CreateKey => "create_key",
        Route::RevokeKey(_) => "revoke_key",
        Route::RotateKey(_) => "rotate_key",
        Route::List
        | Route::Get(_)
        | Route::Logs(_)
        | Route::Artifacts(_)
        | Route::Upload(_)
        | Route::AttemptRequest(_)
        | Route::Group(_)
        | Route::ListKeys
        | Route::Backlogs
        | Route::Stats
        | Route::Whoami
        | Route::Version => return None,
    })
}
