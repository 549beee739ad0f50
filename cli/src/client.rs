//! The client for both kinds of installation: a stack behind HTTPS, or this machine. The code above
//! it does not know the difference.

use std::time::Duration;

use domain::api::Problem;
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

use crate::{
    failure::{self, Failure},
    local,
    terminal::screen::Screen,
};

pub(crate) mod api;
pub(crate) mod download;
mod remote;
mod retry;

pub(crate) use remote::{Remote, is_address, is_loopback};
pub(crate) use retry::Patience;

/// How long to pause between two looks at something unchanged, unless the API asks for another
/// pause.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait for a notice of a change before looking anyway. A notice is lost when the
/// process that would have sent it crashes.
const LOCAL_PAUSE: Duration = Duration::from_secs(1);

/// The installation that answers. A process has one client.
pub(crate) enum Client {
    /// An endpoint.
    Remote(Remote),
    /// This machine's store and runner, in this process.
    Local(local::Machine),
}

/// One request to the API.
#[derive(Debug)]
pub(crate) struct Call {
    /// `GET`, `POST` or `DELETE`.
    pub(crate) method: Method,
    /// The path from `/` on, with the query.
    pub(crate) path: String,
    /// The JSON body. Each call may be repeated when its answer is lost: a `POST` either holds an
    /// idempotency key or is idempotent by itself (cancel). The one exception, a new API key, is
    /// sent only once.
    pub(crate) body: Option<Vec<u8>>,
    /// Whether the server is asked to hold its answer until there is news.
    pub(crate) hold: bool,
    /// How long to keep trying.
    pub(crate) patience: Patience,
}

impl Call {
    /// Makes a `GET`.
    pub(crate) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
            hold: false,
            patience: Patience::Short,
        }
    }

    /// Makes a `POST`.
    pub(crate) fn post(path: String, body: Option<Vec<u8>>) -> Self {
        Self {
            method: Method::POST,
            path,
            body,
            hold: false,
            patience: Patience::Short,
        }
    }

    /// Makes a `DELETE`.
    pub(crate) fn delete(path: String) -> Self {
        Self {
            method: Method::DELETE,
            path,
            body: None,
            hold: false,
            patience: Patience::Short,
        }
    }

    /// Makes the call be sent only once.
    pub(crate) fn once(self) -> Self {
        Self {
            patience: Patience::Once,
            ..self
        }
    }

    /// Makes the call wait for a busy server, as needed for the lines of a submission.
    pub(crate) fn handing_in(self) -> Self {
        Self {
            patience: Patience::HandingIn,
            ..self
        }
    }

    /// Makes the call fit for following something: the server may hold its answer, and the call
    /// keeps trying through an outage for longer.
    pub(crate) fn following(self) -> Self {
        Self {
            hold: true,
            patience: Patience::Long,
            ..self
        }
    }
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct ApiAnswer {
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Vec<u8>,
    /// How long the answer took.
    pub(crate) took: Duration,
    /// Whether the server was asked to hold the answer until there is news.
    pub(crate) held: bool,
}

impl ApiAnswer {
    /// How long the API asks the client to wait before the next request.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.headers.get(RETRY_AFTER).and_then(retry::retry_after)
    }
}

/// Why there is no successful answer. `Display` is shown to the user and never holds the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The API refused and said why.
    #[error("{}", .0.title)]
    Refused(Problem),
    /// Something other than the API answered.
    #[error("{endpoint} answered {status}{}", said(.text))]
    Foreign {
        /// The endpoint.
        endpoint: String,
        /// The HTTP status.
        status: StatusCode,
        /// The start of the answer's text.
        text: String,
    },
    /// The answer is not what the API documents.
    #[error(
        "this version of mycli cannot read the answer of {endpoint} ({error}): check that it is the address of a mycli stack"
    )]
    Unreadable {
        /// The endpoint.
        endpoint: String,
        /// Why the body cannot be parsed.
        error: serde_json::Error,
    },
    /// There was no answer.
    #[error("failed to reach {endpoint}: {error}")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// Why it could not be reached.
        error: String,
    },
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Refused(problem) => Self::Refused(problem),
            error if error.is_about_the_key() => {
                Self::Other(format!("{error}\n{}", failure::about_the_key()))
            }
            error => Self::other(error),
        }
    }
}

fn said(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

impl ApiError {
    /// Whether the key was missing, wrong or too weak.
    pub(crate) fn is_about_the_key(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.status == 401,
            Self::Foreign { status, .. } => {
                *status == StatusCode::UNAUTHORIZED || *status == StatusCode::FORBIDDEN
            }
            Self::Unreadable { .. } | Self::Unreachable { .. } => false,
        }
    }
}

impl Client {
    /// Sends the call. Sends it again after a lost or a "not now" answer, as far as the call's
    /// patience allows.
    ///
    /// # Errors
    /// [`ApiError`]; any answer without a success status is one too.
    pub(crate) async fn call(&self, call: Call) -> Result<ApiAnswer, ApiError> {
        match self {
            // On the heap: what calls this would be as large as all functions of a stack.
            Self::Remote(remote) => Box::pin(remote.call(&call)).await,
            Self::Local(machine) => {
                let answer = Box::pin(machine.call(call.method, &call.path, call.body));
                let (status, headers, body) = answer.await;
                let status =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let answer = ApiAnswer {
                    headers,
                    body,
                    took: Duration::ZERO,
                    held: false,
                };
                accepted(&self.name(), status, answer)
            }
        }
    }

    /// Parses an answer's JSON.
    ///
    /// # Errors
    /// [`ApiError::Unreadable`].
    pub(crate) fn read<T: serde::de::DeserializeOwned>(
        &self,
        answer: &ApiAnswer,
    ) -> Result<T, ApiError> {
        serde_json::from_slice(&answer.body).map_err(|error| ApiError::Unreadable {
            endpoint: self.name(),
            error,
        })
    }

    /// Pauses after `answer` before the same call is made again. On this machine it waits until
    /// something changes. Otherwise it waits for `usual`, or longer if the API asks for that. An
    /// API that holds its answers until there is news needs no pause.
    pub(crate) async fn pause(&self, answer: &ApiAnswer, news: bool, usual: Duration) {
        match self {
            Self::Local(_) if news => {}
            // The wait may end by a change or by the timeout; both are fine.
            Self::Local(machine) => {
                drop(tokio::time::timeout(LOCAL_PAUSE, machine.changed()).await);
            }
            Self::Remote(remote) => {
                let asked = answer.retry_after().unwrap_or_default();
                let left = usual.max(asked).saturating_sub(answer.took);
                if remote.answers_at_once(answer, news, left) {
                    tokio::time::sleep(left).await;
                }
            }
        }
    }

    /// Whether the client works on this machine, without a server.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// Whether the installation is on this machine: the client itself, or a server on loopback.
    pub(crate) fn is_near(&self) -> bool {
        match self {
            Self::Remote(remote) => is_loopback(&remote.name()),
            Self::Local(_) => true,
        }
    }

    /// Closes the client in order. A supervisor goes on with unfinished runs on this machine.
    pub(crate) async fn close(self, screen: &Screen) {
        let Self::Local(machine) = self else { return };
        let remains = machine.remains();
        if let Err(error) = Box::pin(machine.close()).await {
            // The command has its answer by now, and the next start finds what was left.
            screen.say(&format!("failed to close this machine's history: {error}"));
        }
        for words in remains.tell() {
            screen.say(&format!("{words}; `mycli local prune` tries again"));
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Remote(remote) => remote.name(),
            Self::Local(_) => "this machine".into(),
        }
    }
}

/// Sorts answers: success, a refusal by the API, or an answer from something else.
fn accepted(endpoint: &str, status: StatusCode, answer: ApiAnswer) -> Result<ApiAnswer, ApiError> {
    if status.is_success() {
        return Ok(answer);
    }
    match serde_json::from_slice(&answer.body) {
        Ok(problem) => Err(ApiError::Refused(problem)),
        Err(_) => Err(ApiError::Foreign {
            endpoint: endpoint.to_owned(),
            status,
            text: start_of(&answer.body),
        }),
    }
}

/// The first line of an answer that is not the API's. API Gateway's own errors are `{"message":
/// …}`; a proxy answers with whole pages.
fn start_of(body: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = json.as_ref().and_then(|json| json.get("message")?.as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    let line = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    line.trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}
