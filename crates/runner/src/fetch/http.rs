//! HTTP requests to the servers of a repository. Credentials go only to the server that they belong
//! to, and only once it asks for them.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderName, HeaderValue, LOCATION},
};

use super::{credentials::Basic, error::chain, network::Network};
use crate::order::FetchFault;

/// The most redirects that are followed, one after the other.
const REDIRECTS_MAX: usize = 5;

/// The headers that go along when a redirect leads to another server.
const HARMLESS: [&str; 3] = ["accept", "content-type", "git-protocol"];

/// The server of a repository.
#[derive(Clone)]
pub(super) struct Server(Rc<ServerInner>);

struct ServerInner {
    network: Rc<Network>,
    /// The credential for the repository's server, if there is one.
    basic: Option<Basic>,
    /// Whether the server has asked for it.
    asked: Cell<bool>,
}

/// A request with everything but a credential.
#[derive(Clone)]
pub(super) struct Request {
    /// The method.
    pub(super) method: Method,
    /// Where it goes.
    pub(super) url: Url,
    /// Its headers.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub(super) body: Bytes,
}

impl Server {
    /// A server that is shown `basic` if it asks for it and it is its own.
    pub(super) fn new(network: Rc<Network>, basic: Option<Basic>) -> Self {
        let asked = Cell::new(false);
        Self(Rc::new(ServerInner {
            network,
            basic,
            asked,
        }))
    }

    /// Sends a request, follows redirects, and shows the credential if it is asked for.
    ///
    /// # Errors
    /// When no answer comes, or none that is a success.
    pub(super) fn send(&self, mut request: Request) -> Result<Response, FetchFault> {
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send_once(&request)?;
            match response.status() {
                StatusCode::UNAUTHORIZED if self.may_offer(&request.url) => self.0.asked.set(true),
                status if status.is_redirection() => {
                    let target = target(&request.url, &response)?;
                    if target.origin() != request.url.origin() {
                        // Its headers may prove to the first server who we are.
                        let is_harmless = |name: &HeaderName| HARMLESS.contains(&name.as_str());
                        request.headers.retain(|(name, _)| is_harmless(name));
                    }
                    request.url = target;
                    if request.method == Method::POST && !keeps_method(status) {
                        return Err(FetchFault::last(format!(
                            "the server answered a POST with the redirect {status}"
                        )));
                    }
                }
                status if status.is_success() => return Ok(response),
                status => {
                    let was_shown = self.0.asked.get() && self.is_own(&request.url);
                    return Err(refused(status, &request.url, was_shown));
                }
            }
        }
        Err(FetchFault::last(format!(
            "the server redirects more than {REDIRECTS_MAX} times"
        )))
    }

    /// The next bytes of an answer; none at its end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) fn next_chunk(&self, response: &mut Response) -> Result<Option<Bytes>, FetchFault> {
        let chunk = self.0.network.wait(response.chunk());
        let chunk = chunk.map_err(|error| FetchFault::passing(chain(&error.without_url())))?;
        self.0
            .network
            .received()
            .add(chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }

    /// Whether the server at this URL may be shown the credential, and was not yet.
    fn may_offer(&self, url: &Url) -> bool {
        !self.0.asked.get() && self.is_own(url)
    }

    /// Whether the credential is for the server at this URL.
    fn is_own(&self, url: &Url) -> bool {
        let basic = self.0.basic.as_ref();
        basic.is_some_and(|basic| basic.is_for(url))
    }

    fn send_once(&self, request: &Request) -> Result<Response, FetchFault> {
        let mut builder = self
            .0
            .network
            .client()?
            .request(request.method.clone(), request.url.clone())
            .body(request.body.clone());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let basic = self.0.basic.as_ref();
        if let Some(basic) = basic.filter(|basic| self.0.asked.get() && basic.is_for(&request.url))
        {
            builder = builder.header(AUTHORIZATION, basic.header());
        }
        let sent = self.0.network.wait(builder.send());
        sent.map_err(|error| unreachable_server(&error.without_url()))
    }
}

/// Where a redirect leads. From TLS it may not lead into the open.
fn target(from: &Url, response: &Response) -> Result<Url, FetchFault> {
    let location = response.headers().get(LOCATION);
    let target = location
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| FetchFault::last("the server redirects to no valid address"))?;
    match (from.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => Ok(target),
        (from, to) => Err(FetchFault::last(format!(
            "the server redirects from {from}:// to {to}://"
        ))),
    }
}

fn keeps_method(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
    )
}

/// The meaning of a status that is no success.
fn refused(status: StatusCode, url: &Url, was_shown: bool) -> FetchFault {
    let host = url.host_str().unwrap_or_default();
    let code = status.as_u16();
    match code {
        401 if was_shown => FetchFault::last(format!(
            "authentication failed: {host} does not accept the credential"
        )),
        401 => FetchFault::last(format!(
            "authentication failed: {host} asks for a credential, and there is none for it"
        )),
        403 => FetchFault::last(format!("{host} refuses access (HTTP 403)")),
        404 | 410 => FetchFault::last(format!("repository not found (HTTP {code} from {host})")),
        429 | 500..=599 => FetchFault::passing(format!("{host} returned error: {code}")),
        _ => FetchFault::last(format!("{host} returned error: {code}")),
    }
}

/// The failure behind a request without an answer.
fn unreachable_server(error: &reqwest::Error) -> FetchFault {
    let text = chain(error);
    // A certificate stays as it is; everything else on the way to a server may pass.
    if text.contains("ertificate") {
        FetchFault::last(text)
    } else {
        FetchFault::passing(text)
    }
}
