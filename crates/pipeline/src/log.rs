//! The log lines that more than one handler writes. Their fields have the same names everywhere;
//! docs/LOGGING.md lists them.

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use domain::{
    ecs::{TaskArn, TaskId},
    execution::{Attempt, Execution, ExecutionStatus},
    key::Caller,
};
use tracing::{
    Span,
    field::{Empty, display},
};

/// Returns the span around the handling of an HTTP request. Each line within it has the request's
/// id, which API Gateway also writes into its access log and returns to the caller in the header
/// `x-amzn-requestid`. Once the caller is known ([`note_caller`]), each line has the principal too.
pub(crate) fn request(request: &ApiGatewayProxyRequest) -> Span {
    let request_id = request.request_context.request_id.as_deref();
    tracing::info_span!("request", request_id, principal = Empty)
}

/// Adds the caller's principal to the lines of the request that is being handled.
pub(crate) fn note_caller(caller: &Caller) {
    Span::current().record("principal", display(&caller.principal));
}

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
        previous_status = %before,
        %status,
        exit_code = execution.end().and_then(|end| end.outcome.exit_code()),
        "the status changed"
    );
}

fn task_id(attempt: &Attempt) -> Option<TaskId> {
    attempt.task_arn.as_ref().map(TaskArn::id)
}
