//! The smart HTTP protocol, over our own requests.

use std::{
    any::Any,
    cell::RefCell,
    io::{self, BufRead, Cursor, Read, Write},
    rc::Rc,
};

use bytes::Bytes;
use gix::protocol::transport::client::blocking_io::http::{
    GetResponse, Http, PostBodyDataKind, PostResponse,
};
use reqwest::{
    Method, Response, Url,
    header::{CONTENT_TYPE, HeaderValue, USER_AGENT},
};

use super::FaultNote;
use crate::fetch::http::{Request, Server};
use crate::order::FetchFault;

/// The type of the answer to a request for objects.
const RESULT: &str = "application/x-git-upload-pack-result";

/// The requests of one connection.
pub(super) struct HttpClient {
    server: Server,
    fault: FaultNote,
    /// Where the repository is after a redirect of the first request.
    base: Option<String>,
}

impl HttpClient {
    /// Makes a client. Why a request fails is left in `fault`.
    pub(super) fn new(server: Server, fault: FaultNote) -> Self {
        Self {
            server,
            fault,
            base: None,
        }
    }
}

/// Notes a failure for the caller of the library, and makes an error for the library.
fn failed(note: &FaultNote, fault: FetchFault) -> io::Error {
    let text = fault.reason.clone();
    *note.borrow_mut() = Some(fault);
    io::Error::other(text)
}

impl Http for HttpClient {
    type Headers = Cursor<Vec<u8>>;
    type ResponseBody = Body;
    type PostBody = PostBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::error::Result<GetResponse<Self::Headers, Self::ResponseBody>> {
        let request = request(Method::GET, url, headers)
            .map_err(|fault| gix::Error::from_error(failed(&self.fault, fault)))?;
        let response = self
            .server
            .send(request)
            .map_err(|fault| gix::Error::from_error(failed(&self.fault, fault)))?;
        self.base = moved(url, base_url, response.url());
        let headers = Cursor::new(content_type(&response));
        let body = Body {
            server: self.server.clone(),
            fault: FaultNote::clone(&self.fault),
            state: BodyState::Coming(Box::new(response)),
            chunk: Bytes::new(),
        };
        Ok(GetResponse { headers, body })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> gix::error::Result<PostResponse<Self::Headers, Self::ResponseBody, Self::PostBody>> {
        let request = request(Method::POST, url, headers)
            .map_err(|fault| gix::Error::from_error(failed(&self.fault, fault)))?;
        let sent = Rc::new(RefCell::new(Vec::new()));
        let body = Body {
            server: self.server.clone(),
            fault: FaultNote::clone(&self.fault),
            state: BodyState::ToBeSent(request, Rc::clone(&sent)),
            chunk: Bytes::new(),
        };
        // The request goes out when its answer is read for the first time, and only then is its
        // type known. `Body` checks it.
        let headers = Cursor::new(format!("content-type: {RESULT}\n").into_bytes());
        Ok(PostResponse {
            post_body: PostBody(sent),
            headers,
            body,
        })
    }

    fn configure(&mut self, _config: &dyn Any) -> gix::error::Result {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.base.clone()
    }
}

/// The repository's address after a redirect of `url`, which is `base` and a tail.
fn moved(url: &str, base: &str, answered: &Url) -> Option<String> {
    let tail = url.strip_prefix(base)?;
    let base = answered.as_str().strip_suffix(tail)?;
    Some(base.to_owned())
}

fn request(
    method: Method,
    url: &str,
    headers: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<Request, FetchFault> {
    let url = Url::parse(url).map_err(|error| FetchFault::last(format!("not a URL: {error}")))?;
    let headers = headers
        .into_iter()
        .filter_map(|line| {
            let (name, value) = line.as_ref().split_once(':')?;
            Some((
                name.parse().ok()?,
                HeaderValue::from_str(value.trim()).ok()?,
            ))
        })
        .filter(|(name, _)| *name != USER_AGENT)
        .collect();
    Ok(Request {
        method,
        url,
        headers,
        body: Bytes::new(),
    })
}

fn content_type(response: &Response) -> Vec<u8> {
    let mut line = b"content-type: ".to_vec();
    if let Some(value) = response.headers().get(CONTENT_TYPE) {
        line.extend_from_slice(value.as_bytes());
    }
    line.push(b'\n');
    line
}

/// Collects the body of a POST. The requests of a fetch are small.
pub(super) struct PostBody(Rc<RefCell<Vec<u8>>>);

impl Write for PostBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of an answer, read as it comes.
pub(super) struct Body {
    server: Server,
    fault: FaultNote,
    state: BodyState,
    chunk: Bytes,
}

enum BodyState {
    /// The request waits until its answer is wanted.
    ToBeSent(Request, Rc<RefCell<Vec<u8>>>),
    /// The answer comes.
    Coming(Box<Response>),
    /// All of it came.
    Over,
}

impl Body {
    /// Sends the request if it was not sent yet.
    fn answered(&mut self) -> Result<(), FetchFault> {
        if let BodyState::ToBeSent(request, sent) = &self.state {
            let mut request = request.clone();
            request.body = Bytes::from(sent.take());
            self.state = BodyState::Over;
            let response = self.server.send(request)?;
            let kind = content_type(&response);
            if kind != format!("content-type: {RESULT}\n").into_bytes() {
                return Err(FetchFault::last(
                    "the server's answer is not one of git's smart protocol",
                ));
            }
            self.state = BodyState::Coming(Box::new(response));
        }
        Ok(())
    }

    fn next_chunk(&mut self) -> Result<Bytes, FetchFault> {
        self.answered()?;
        let BodyState::Coming(response) = &mut self.state else {
            return Ok(Bytes::new());
        };
        match self.server.next_chunk(response)? {
            Some(chunk) => Ok(chunk),
            None => {
                self.state = BodyState::Over;
                Ok(Bytes::new())
            }
        }
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() && !matches!(self.state, BodyState::Over) {
            let chunk = self.next_chunk();
            self.chunk = chunk.map_err(|fault| failed(&self.fault, fault))?;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk = self.chunk.split_off(amount);
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(buffer.len());
        buffer[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}
