//! The audit line: one line of the log for each request that changes something, whether it was
//! carried out or refused. It says who asked for what, and what came of it. It holds no variable
//! and no key.

use domain::{
    api::Problem,
    key::{Caller, Role},
};
use tracing::field;

use super::answer::WriteAnswer;
use crate::{http::Route, lookup};

/// The message of each audit line.
const MESSAGE: &str = "audit";

/// Writes the audit line of a request. The caller's principal and the request's id come from the
/// span of the request ([`crate::log::request`]).
///
/// A caller without a valid key gets no audit line: it cannot change anything, and anybody could
/// fill the log. API Gateway's access log has those requests.
pub(super) fn audit(caller: &Caller, route: &Route, outcome: &Result<WriteAnswer, Problem>) {
    let Some(action) = action(route) else {
        return;
    };
    let answer = outcome.as_ref().ok();
    let problem = outcome.as_ref().err();
    let (execution_id, lines) = match answer {
        Some(WriteAnswer::Execution(accepted)) => (Some(&accepted.execution_id), None),
        Some(WriteAnswer::Bulk { lines, .. }) => (None, Some(lines)),
        _ => (None, None),
    };
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    tracing::info!(
        action,
        caller = caller.name,
        role = %caller.role,
        target = target(route, answer).map(field::display),
        outcome = match problem {
            None => "done",
            Some(problem) if problem.status < 500 => "refused",
            Some(_) => "failed",
        },
        code = problem.map(|problem| problem.code.as_str()),
        execution_id = execution_id.map(field::display),
        new_role = new_role(answer).map(field::display),
        accepted = lines.map(|lines| count(lines.accepted.len())),
        existing = lines.map(|lines| count(lines.existing.len())),
        rejected = lines.map(|lines| count(lines.rejected.len())),
        "{MESSAGE}"
    );
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
        | Route::Group(_)
        | Route::ListKeys
        | Route::Whoami
        | Route::Version => return None,
    })
}

/// The execution, group or key that the request is about, as the caller wrote it. For a new key and
/// a submission, the name that they got.
fn target(route: &Route, answer: Option<&WriteAnswer>) -> Option<String> {
    match (route, answer) {
        (
            Route::Cancel(text)
            | Route::CancelGroup(text)
            | Route::Rerun(text)
            | Route::RerunGroup(text)
            | Route::RevokeKey(text)
            | Route::RotateKey(text),
            _,
        ) => Some(lookup::shown(text)),
        (_, Some(WriteAnswer::Bulk { submission_id, .. })) => Some(submission_id.clone()),
        (_, Some(WriteAnswer::NewKey(key))) => Some(key.name.clone()),
        _ => None,
    }
}

/// The role of a key that was made or replaced.
fn new_role(answer: Option<&WriteAnswer>) -> Option<Role> {
    match answer? {
        WriteAnswer::NewKey(key) => Some(key.role),
        WriteAnswer::RotatedKey(key) => Some(key.role),
        _ => None,
    }
}
