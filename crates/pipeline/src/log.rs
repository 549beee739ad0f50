//! The log lines that more than one handler writes. Their fields have the same names everywhere;
//! docs/LOGGING.md lists them.

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use domain::{
    ecs::{TaskArn, TaskId},
    execution::{Attempt, Execution, ExecutionStatus, State},
    key::Caller,
};
use tracing::{
    Span,
    field::{Empty, display},
};

/// Returns the span around the handling of an HTTP request. Each line within it has the request's
/// id, which API Gateway also writes into its access log and returns to the caller in the header
/// `x-amzn-requestid`. A caller may choose that id (API Gateway developer guide,
/// `x-amzn-requestid`), so it proves nothing. Once the caller is known ([`note_caller`]), each line
/// has the principal too.
pub(crate) fn request(request: &ApiGatewayProxyRequest) -> Span {
    let request_id = request.request_context.request_id.as_deref();
    // The level of errors, so that a warning within it has its fields at any level of the log.
    tracing::error_span!("request", request_id, principal = Empty)
}

/// Adds the caller's principal to the lines of the request that is being handled.
pub(crate) fn note_caller(caller: &Caller) {
    Span::current().record("principal", display(&caller.principal));
}

/// The longest reason in a log line, in characters. The record has the whole of it.
const REASON_MAX: usize = 1000;

/// Writes that an execution has another status than before.
pub(crate) fn status_changed(before: &ExecutionStatus, execution: &Execution) {
    let status = execution.status();
    if status == *before {
        return;
    }
    let attempt = execution.attempts.last();
    let backlog = execution.backlog_entry().map(|entry| entry.backlog);
    tracing::info!(
        execution_id = %execution.id,
        attempt = attempt.map(|attempt| attempt.number),
        task_id = attempt.and_then(task_id).map(display),
        backlog = backlog.map(display),
        group = execution.request.group.as_ref().map(display),
        submitter = execution.submitter(),
        previous_status = %before,
        %status,
        reason = reason(execution),
        exit_code = execution.end().and_then(|end| end.outcome.exit_code()),
        "the status changed"
    );
}

fn task_id(attempt: &Attempt) -> Option<TaskId> {
    attempt.task_arn.as_ref().map(TaskArn::id)
}

/// Why it waits, or why it ended so.
fn reason(execution: &Execution) -> Option<String> {
    let reason = match &execution.state {
        State::Waiting { reason, .. } => Some(reason.as_str()),
        State::Final(end) => end.outcome.reason(),
        _ => None,
    };
    Some(reason?.chars().take(REASON_MAX).collect())
}
