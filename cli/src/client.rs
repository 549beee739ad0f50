//! One client for the two worlds: a stack behind HTTPS, or this machine. Nothing above it knows the
//! difference.

use std::time::Duration;

use domain::api::Problem;
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

use crate::{local, screen::Screen};

mod remote;
mod retry;

pub(crate) use remote::{EndpointError, Remote, is_address, is_loopback};
pub(crate) use retry::Patience;

/// How long to pause between two looks at something that has not changed, unless the API says
/// otherwise.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// A notice of a change may be missed, by a crash of who would have given it: look again after this
/// time anyway.
const LOCAL_PAUSE: Duration = Duration::from_secs(1);

/// Who answers. There is one in a process.
pub(crate) enum Client {
    /// An endpoint.
    Remote(Remote),
    /// This machine's own store and runner, in this process.
    Local(local::Machine),
}

/// What to ask.
#[derive(Debug)]
pub(crate) struct Call {
    /// `GET`, `POST` or `DELETE`.
    pub(crate) method: Method,
    /// The path, from `/` on, and the query.
    pub(crate) path: String,
    /// JSON. `POST`s are only ever sent with an idempotency key in it, or are idempotent by
    /// themselves (cancel), so that each call may be repeated when its answer is lost; the one that
    /// is neither is sent once (a new API key).
    pub(crate) body: Option<Vec<u8>>,
    /// Ask the server to hold its answer until there is news.
    pub(crate) hold: bool,
    /// For how long to try.
    pub(crate) patience: Patience,
}

impl Call {
    /// A `GET`.
    pub(crate) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
            hold: false,
            patience: Patience::Short,
        }
    }

    /// A `POST`.
    pub(crate) fn post(path: String, body: Option<Vec<u8>>) -> Self {
        Self {
            method: Method::POST,
            path,
            body,
            hold: false,
            patience: Patience::Short,
        }
    }

    /// A `DELETE`.
    pub(crate) fn delete(path: String) -> Self {
        Self {
            method: Method::DELETE,
            path,
            body: None,
            hold: false,
            patience: Patience::Short,
        }
    }

    /// The same, but never a second time.
    pub(crate) fn once(self) -> Self {
        Self {
            patience: Patience::Once,
            ..self
        }
    }

    /// The same, for lines of a submission: a server that is busy is waited for.
    pub(crate) fn handing_in(self) -> Self {
        Self {
            patience: Patience::HandingIn,
            ..self
        }
    }

    /// The same, for something that is followed: the server may hold its answer, and an outage does
    /// not end it soon.
    pub(crate) fn following(self) -> Self {
        Self {
            hold: true,
            patience: Patience::Long,
            ..self
        }
    }
}

/// A good answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Vec<u8>,
    /// How long it took.
    pub(crate) took: Duration,
    /// It was asked to be held until there is news.
    pub(crate) held: bool,
}

impl Answer {
    /// How long the API asks whoever asks again to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.headers.get(RETRY_AFTER).and_then(retry::retry_after)
    }
}

/// Why there is no good answer. `Display` is shown to the user; the key is in none of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The API said why, in its own words.
    #[error("{}", .0.title)]
    Refused(Problem),
    /// Something other than the API answered.
    #[error("{endpoint} answered {status}{}", said(.text))]
    Foreign {
        /// Who.
        endpoint: String,
        /// What.
        status: StatusCode,
        /// The start of its text.
        text: String,
    },
    /// An answer that is not what the API documents.
    #[error(
        "{endpoint} answered what this version of mycli cannot read ({error}): is it the address of a mycli stack?"
    )]
    Unreadable {
        /// Who.
        endpoint: String,
        /// Why.
        error: serde_json::Error,
    },
    /// No answer at all.
    #[error("failed to reach {endpoint}: {error}")]
    Unreachable {
        /// Who.
        endpoint: String,
        /// Why.
        error: String,
    },
}

fn said(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

impl CallError {
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
    /// Asks, and asks again where a lost or a "not now" answer allows it.
    ///
    /// # Errors
    /// [`CallError`], for any answer that is not a success too.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer, CallError> {
        match self {
            Self::Remote(remote) => remote.call(&call).await,
            Self::Local(machine) => {
                let (status, headers, body) =
                    machine.call(call.method, &call.path, call.body).await;
                let status =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let answer = Answer {
                    headers,
                    body,
                    took: Duration::ZERO,
                    held: false,
                };
                accepted(&self.name(), status, answer)
            }
        }
    }

    /// Reads an answer's JSON.
    ///
    /// # Errors
    /// [`CallError::Unreadable`].
    pub(crate) fn read<T: serde::de::DeserializeOwned>(
        &self,
        answer: &Answer,
    ) -> Result<T, CallError> {
        serde_json::from_slice(&answer.body).map_err(|error| CallError::Unreadable {
            endpoint: self.name(),
            error,
        })
    }

    /// Pauses after `answer` before asking the same again: until something changes here, else for
    /// `usual`, or longer if the API asks for it. An API that held its answer until there was news
    /// has paused already.
    pub(crate) async fn pause(&self, answer: &Answer, news: bool, usual: Duration) {
        match self {
            Self::Local(_) if news => {}
            // Both ends of the wait are fine.
            Self::Local(machine) => {
                drop(tokio::time::timeout(LOCAL_PAUSE, machine.changed()).await)
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

    /// Whether it is this machine.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// Whether no network lies between: this machine itself, or a server on it.
    pub(crate) fn is_near(&self) -> bool {
        match self {
            Self::Remote(remote) => is_loopback(&remote.name()),
            Self::Local(_) => true,
        }
    }

    /// Ends it in order. What runs here is left to a supervisor.
    pub(crate) async fn close(self, screen: &Screen) {
        let Self::Local(machine) = self else { return };
        let remains = machine.remains();
        if let Err(error) = machine.close().await {
            // The answer is known by now, and the next start finds what was left.
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

/// Sorts answers into good ones, the API's refusals and others' words.
fn accepted(endpoint: &str, status: StatusCode, answer: Answer) -> Result<Answer, CallError> {
    if status.is_success() {
        return Ok(answer);
    }
    match serde_json::from_slice(&answer.body) {
        Ok(problem) => Err(CallError::Refused(problem)),
        Err(_) => Err(CallError::Foreign {
            endpoint: endpoint.to_owned(),
            status,
            text: start_of(&answer.body),
        }),
    }
}

/// API Gateway's own errors are `{"message": …}`; a proxy's are pages, of which the first line will
/// do.
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
