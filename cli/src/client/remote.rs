//! The API over HTTP.

use std::{
    cell::Cell,
    error::Error as _,
    rc::Rc,
    time::{Duration, Instant},
};

use reqwest::{
    StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::{
    ApiAnswer, ApiError, Call, accepted,
    retry::{self, Setback},
};
use crate::{failure::Failure, terminal::screen::Screen};

/// How long to wait for an answer. API Gateway answers within 29 s or not at all (AWS-FACTS, API
/// Gateway's integration timeout).
const TIMEOUT: Duration = Duration::from_secs(35);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The request for the server to hold an answer for up to 5 seconds, well within API Gateway's 29
/// s.
const HOLD: &str = "wait=5";
/// How long a call may be repeated before the user is told why it waits. We chose 5 s because
/// shorter waits need no message.
const SILENCE: Duration = Duration::from_secs(5);

/// An endpoint, and the connection to it.
pub(crate) struct Remote {
    http: reqwest::Client,
    base: String,
    screen: Rc<Screen>,
    /// Whether the server answered at once although it was asked to hold its answer. API Gateway
    /// does that.
    holds_not: Cell<bool>,
}

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    /// The text is not an HTTP URL of the expected form.
    #[error(
        "the endpoint is not the address of a stack: write https://host/stage, as `mycli init` printed it, without user name and query"
    )]
    Form,
    /// The key has characters that an HTTP header cannot hold.
    #[error(
        "the API key holds a character that cannot be sent: copy it again, without spaces or line ends within"
    )]
    Key,
    /// The HTTP library could not be set up.
    #[error("failed to set up HTTP: {0}")]
    Http(#[from] reqwest::Error),
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        Self::other(error)
    }
}

/// Whether an endpoint is on this machine: `mycli local serve`, or a tunnel.
pub(crate) fn is_loopback(endpoint: &str) -> bool {
    Url::parse(endpoint).is_ok_and(|url| on_loopback(&url))
}

/// Whether a text has the form of a stack's address.
pub(crate) fn is_address(endpoint: &str) -> bool {
    address(endpoint).is_some()
}

fn address(endpoint: &str) -> Option<Url> {
    let url = Url::parse(endpoint)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.filter(|url| url.query().is_none() && url.password().is_none() && url.username().is_empty())
}

fn on_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl Remote {
    /// Sets up the client without connecting.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub(crate) fn new(
        endpoint: &str,
        key: &SecretString,
        screen: &Rc<Screen>,
    ) -> Result<Self, EndpointError> {
        let url = address(endpoint).ok_or(EndpointError::Form)?;
        Ok(Self {
            http: http(&url, key)?,
            screen: Rc::clone(screen),
            base: url.as_str().trim_end_matches('/').to_owned(),
            holds_not: Cell::new(false),
        })
    }

    /// The endpoint's address.
    pub(crate) fn name(&self) -> String {
        self.base.clone()
    }

    /// Whether the caller must pause because this server does not hold its answers until there is
    /// news. We assume that it does hold them until a quick answer without news shows otherwise.
    pub(super) fn answers_at_once(&self, answer: &ApiAnswer, news: bool, left: Duration) -> bool {
        if answer.held && !news && !left.is_zero() {
            self.holds_not.set(true);
        }
        self.holds_not.get()
    }

    /// Sends the call until there is an answer or the call's patience ends.
    pub(super) async fn call(&self, call: &Call) -> Result<ApiAnswer, ApiError> {
        let (begun, mut tried, mut told) = (Instant::now(), 0, false);
        loop {
            tried += 1;
            let tried_at = Instant::now();
            let attempt = self.attempt(call).await;
            let pause = setback(&attempt).and_then(|setback| {
                let chance = getrandom::u32().unwrap_or_default();
                let pause = call
                    .patience
                    .pause(tried, begun.elapsed(), setback, chance)?;
                Some((setback, pause))
            });
            let Some((setback, pause)) = pause else {
                return self.sorted(attempt, call, tried_at.elapsed());
            };
            tracing::debug!(path = call.path, tried, ?pause, "asking again");
            if !told && begun.elapsed() + pause >= SILENCE {
                told = true;
                self.tell(setback);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Tells the user why the command waits.
    fn tell(&self, setback: Setback) {
        let why = match setback {
            Setback::Unreachable => "does not answer",
            Setback::NotNow(_) => "is busy",
        };
        self.screen.say(&format!(
            "{} {why}; trying again, and nothing is lost meanwhile",
            self.base
        ));
    }

    async fn attempt(
        &self,
        call: &Call,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), reqwest::Error> {
        let mut request = self
            .http
            .request(call.method.clone(), format!("{}{}", self.base, call.path));
        if call.hold {
            request = request.header("prefer", HOLD);
        }
        if let Some(body) = &call.body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        let mut answer = request.send().await?;
        let headers = std::mem::take(answer.headers_mut());
        Ok((answer.status(), headers, answer.bytes().await?.into()))
    }

    fn sorted(
        &self,
        attempt: Result<(StatusCode, HeaderMap, Vec<u8>), reqwest::Error>,
        call: &Call,
        took: Duration,
    ) -> Result<ApiAnswer, ApiError> {
        let (status, headers, body) = attempt.map_err(|error| self.unreachable(&error))?;
        accepted(
            &self.base,
            status,
            ApiAnswer {
                headers,
                body,
                took,
                held: call.hold,
            },
        )
    }

    /// Takes the innermost cause of the error, which has the useful text, such as "Connection
    /// refused".
    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        let mut cause = error.source();
        let mut text = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            error.to_string()
        };
        while let Some(inner) = cause {
            if !error.is_timeout() {
                text = inner.to_string();
            }
            cause = inner.source();
        }
        ApiError::Unreachable {
            endpoint: self.base.clone(),
            error: text,
        }
    }
}

/// The reason to try again later; `None` if the answer is final.
fn setback(attempt: &Result<(StatusCode, HeaderMap, Vec<u8>), reqwest::Error>) -> Option<Setback> {
    match attempt {
        Ok((status, headers, _)) if retry::is_passing(status.as_u16()) => Some(Setback::NotNow(
            headers.get(RETRY_AFTER).and_then(retry::retry_after),
        )),
        Ok(_) => None,
        Err(error) if error.is_builder() => None,
        Err(_) => Some(Setback::Unreachable),
    }
}

fn http(url: &Url, key: &SecretString) -> Result<reqwest::Client, EndpointError> {
    // A process has one crypto provider. A second installation fails and changes nothing.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
        .map_err(|_| EndpointError::Key)?;
    bearer.set_sensitive(true);
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("mycli/", env!("CARGO_PKG_VERSION")))
        .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]))
        .http1_only()
        // The API never redirects, and the key must go nowhere else.
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT);
    if on_loopback(url) {
        // No proxy can reach this machine's own addresses.
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        // There is no certificate to verify, so the root certificates need not be loaded.
        builder = builder.tls_certs_only([]);
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::log::LogForm;

    #[test]
    fn an_endpoint_is_a_plain_url_of_http() {
        let screen = Rc::new(Screen::new(true, LogForm::Text));
        let new = |text: &str| Remote::new(text, &"k".to_owned().into(), &screen);
        assert_eq!(
            new("https://a.example/prod/").unwrap().name(),
            "https://a.example/prod"
        );
        for wrong in [
            "",
            "a.example",
            "ftp://a.example",
            "https://user:pw@a.example",
            "https://a.example/?x=1",
        ] {
            assert!(matches!(new(wrong), Err(EndpointError::Form)), "{wrong}");
        }
        assert!(matches!(
            Remote::new("http://a", &"a\nb".to_owned().into(), &screen),
            Err(EndpointError::Key)
        ));
    }

    #[test]
    fn loopback_is_known_in_all_its_forms() {
        for own in ["http://127.0.0.1:80", "http://localhost", "http://[::1]:9"] {
            assert!(is_loopback(own), "{own}");
        }
        assert!(!is_loopback("http://127.0.0.1.example.com"));
    }
}
