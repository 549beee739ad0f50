//! Our API, as the runner of an attempt calls it.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::{api::Problem, backoff::Backoff, upload::AttemptRequest};
use reqwest::{
    Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use secrecy::ExposeSecret as _;

use crate::{
    fetch::network::{Network, ReceivedBytes},
    order::{AttemptAccess, FetchFault, NetworkSettings, SET_UP_SECONDS},
};

/// How long one request may take: 32 MiB on a line of 1 Mbit/s.
pub(crate) const REQUEST: Duration = Duration::from_secs(300);
/// The pauses before a request is tried again.
const PAUSES: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(20),
};

/// Our API, and the way to it.
pub(crate) struct AttemptApi {
    network: Network,
    base: String,
    token: HeaderValue,
}

/// Why a call has no answer.
pub(crate) enum ApiCallError {
    /// The API does not take it.
    Refused(String),
    /// It may be taken later.
    Passing(String),
}

impl AttemptApi {
    /// The API for this attempt.
    ///
    /// # Errors
    /// When it cannot be called from here.
    pub(crate) fn new(access: &AttemptAccess) -> Result<Self, FetchFault> {
        let mut token = HeaderValue::try_from(format!("Bearer {}", access.token.expose_secret()))
            .map_err(|_| FetchFault::last("the attempt's token cannot be sent"))?;
        token.set_sensitive(true);
        let address = access.api.trim_end_matches('/');
        Ok(Self {
            network: Network::new(&NetworkSettings::default(), ReceivedBytes::default())?,
            base: format!("{address}/attempts/{}", access.attempt),
            token,
        })
    }

    /// The way to servers.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Makes a call once. Returns the text of its answer.
    ///
    /// # Errors
    /// [`ApiCallError`].
    pub(crate) fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Bytes, ApiCallError> {
        let client = self.network.client();
        let client = client.map_err(|fault| ApiCallError::Refused(fault.reason))?;
        let mut call = client
            .request(method, format!("{}/{path}", self.base))
            .timeout(REQUEST)
            .header(AUTHORIZATION, &self.token);
        if let Some(body) = body {
            call = call.header(CONTENT_TYPE, "application/json").body(body);
        }
        let answer = self.network.wait(async {
            let answer = call.send().await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        });
        match answer {
            Ok((status, text)) if status.is_success() => Ok(text),
            Ok((status, text)) if !may_pass(status) => {
                Err(ApiCallError::Refused(refusal(status, &text)))
            }
            Ok((status, _)) => Err(ApiCallError::Passing(format!("the API answers {status}"))),
            Err(error) => Err(ApiCallError::Passing(words(&error))),
        }
    }
}

/// Asks for what of an attempt's request was too large for its task's overrides, for as long as a
/// set-up may take.
///
/// # Errors
/// Why it cannot be had.
pub fn get_request(access: &AttemptAccess) -> Result<AttemptRequest, String> {
    let api = AttemptApi::new(access).map_err(|fault| fault.reason)?;
    let (begun, mut tried) = (Instant::now(), 0);
    loop {
        let why = match api.call(Method::GET, "request", None) {
            Ok(text) => {
                return serde_json::from_slice(&text)
                    .map_err(|_| "the API's answer cannot be read".to_owned());
            }
            Err(ApiCallError::Refused(why)) => return Err(why),
            Err(ApiCallError::Passing(why)) => why,
        };
        tried += 1;
        let pause = pause(tried);
        if begun.elapsed() + pause > Duration::from_secs(SET_UP_SECONDS) {
            return Err(why);
        }
        thread::sleep(pause);
    }
}

pub(crate) fn may_pass(status: StatusCode) -> bool {
    status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
}

/// A pause of random length, so that many tasks do not come again together.
pub(crate) fn pause(tried: u32) -> Duration {
    let chance = RandomState::new().build_hasher().finish();
    PAUSES.pause(tried - 1, chance.into())
}

/// The API's own words for a refusal.
fn refusal(status: StatusCode, text: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(text) {
        Ok(problem) => format!("the API refuses it: {}", problem.title),
        Err(_) => format!("the API answers {status}"),
    }
}

/// An error's words, without the address, which is a secret while it is good.
pub(crate) fn words(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match error.is_timeout() {
        true => "no answer in time".to_owned(),
        false if std::ptr::addr_eq(cause, error) => "the request cannot be sent".to_owned(),
        false => cause.to_string(),
    }
}
