//! The routes for the runners of attempts, `/attempts/{id}/…`.
//!
//! The caller is no person with a key but a task with its attempt's token. The token opens these
//! routes for this attempt only, and dies with it.

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use domain::{
    api::Problem, attempt_secret::AttemptToken, execution::Execution, id::AttemptId,
    ports::ReadStore, task, upload::AttemptRequest,
};

use crate::{
    auth,
    http::{self, Route},
};

/// Whether a request is one of a runner, which no handler for keys answers.
#[must_use]
pub fn takes(request: &ApiGatewayProxyRequest) -> bool {
    matches!(
        Route::of(request),
        Ok(Route::Upload(_) | Route::AttemptRequest(_))
    )
}

/// Returns the attempt that a request is about, and its execution, if the request has the attempt's
/// token and the attempt is open. The answer is the same for every fault, so that nobody learns
/// from it which attempts there are.
///
/// # Errors
/// 401, or why the store does not answer.
pub(crate) async fn admit(
    store: &impl ReadStore,
    request: &ApiGatewayProxyRequest,
) -> Result<(AttemptId, Execution), Problem> {
    let attempt: AttemptId = match Route::of(request)? {
        Route::Upload(id) | Route::AttemptRequest(id) => id.parse().map_err(|_| not_admitted())?,
        _ => return Err(not_admitted()),
    };
    http::only_parameters(request, &[])?;
    let token = auth::bearer(request).ok_or_else(not_admitted)?;
    let shown = AttemptToken::of_text(token.to_owned()).hash();
    let found = store.load(attempt.execution()).await;
    let execution = found
        .map_err(|e| http::failed(&e))?
        .ok_or_else(not_admitted)?;
    let open = execution.open_attempt();
    let hash = open
        .filter(|open| open.number == attempt.number())
        .and_then(|open| open.token_hash.as_deref());
    // The time that this takes tells at most of a hash, which leads to no token.
    if hash == Some(&shown) {
        Ok((attempt, execution))
    } else {
        Err(not_admitted())
    }
}

/// Answers a request of a runner where no attempt has a token: on one machine, whose runners are
/// given all they need.
pub async fn refuse(request: &ApiGatewayProxyRequest) -> ApiGatewayProxyResponse {
    http::answered(request, async { Err(not_admitted()) }).await
}

fn not_admitted() -> Problem {
    Problem::new(
        401,
        "unauthorized",
        "this is for the runner of an open attempt, with the attempt's own token",
    )
}

/// Answers `GET /attempts/{id}/request`: what of the attempt's request was too large for ECS.
pub async fn request(
    store: &impl ReadStore,
    request: &ApiGatewayProxyRequest,
) -> ApiGatewayProxyResponse {
    let work = async {
        let (_, execution) = admit(store, request).await?;
        let environment = task::request_variables(&execution.request);
        Ok(http::json(200, &AttemptRequest { environment }))
    };
    http::answered(request, work).await
}
