//! How git's protocol reaches a repository: over HTTP, over SSH, or from git on this machine.

use std::{cell::RefCell, rc::Rc};

use domain::request::{RepoKind, RepoUrl};
use gix::protocol::transport::{
    Protocol,
    client::blocking_io::{Transport, http::Transport as HttpTransport},
};

use self::smart_http::HttpClient;
use super::{http::Server, network::Network};
use crate::order::{Credentials, FetchFault};

mod smart_http;
mod ssh;
mod upload_pack;

/// A connection to a repository.
pub(super) struct Connection {
    /// The transport of git's protocol.
    pub(super) transport: Box<dyn Transport>,
    fault: FaultNote,
}

/// A transport's note about its failure. The library passes on only texts of it.
pub(super) type FaultNote = Rc<RefCell<Option<FetchFault>>>;

impl Connection {
    /// Connects to a repository.
    ///
    /// # Errors
    /// When the repository cannot be reached.
    pub(super) fn open(
        network: &Rc<Network>,
        repo: &RepoUrl,
        credentials: &Credentials,
        known_hosts: &str,
    ) -> Result<Self, FetchFault> {
        let fault = FaultNote::default();
        let transport: Box<dyn Transport> = match repo.kind() {
            RepoKind::Https | RepoKind::Http => {
                let url = gix::url::parse(gix::bstr::BStr::new(repo.as_str()))
                    .map_err(|_| FetchFault::last("the repository's URL cannot be read"))?;
                let server = Server::new(Rc::clone(network), credentials.basic_for(repo));
                let client = HttpClient::new(server, Rc::clone(&fault));
                Box::new(HttpTransport::new_http(client, url, Protocol::V2, false))
            }
            RepoKind::Ssh | RepoKind::ScpLike => {
                let key = credentials.key_for(repo);
                Box::new(ssh::connect(network, repo, key, known_hosts, &fault)?)
            }
            RepoKind::File | RepoKind::Path => {
                Box::new(upload_pack::start(network.received(), repo, &fault)?)
            }
        };
        Ok(Self { transport, fault })
    }

    /// The failure behind an error of the library: the transport's note, else the library's own
    /// words.
    pub(super) fn fault(&self, error: &gix::Error) -> FetchFault {
        self.fault
            .borrow_mut()
            .take()
            .unwrap_or_else(|| by_words(&words(error)))
    }
}

/// Notes what the other side's git wrote to stderr, if it wrote anything, as the reason of a
/// failure.
fn note_said(note: &FaultNote, said: &str) {
    let lines = said
        .lines()
        .map(|line| line.trim_start_matches("fatal: ").trim());
    let reason = lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    if !reason.is_empty() {
        *note.borrow_mut() = Some(FetchFault::last(reason));
    }
}

/// The library's words about an error, on one line.
pub(super) fn words(error: &gix::Error) -> String {
    super::error::chain(error)
}

/// The meaning of a failure that is known by its words only.
fn by_words(text: &str) -> FetchFault {
    if text.contains("'dumb' protocol is not supported") {
        return FetchFault::needs_git(
            "it is served as plain files (git's dumb HTTP protocol), which our library does not read",
        );
    }
    FetchFault::last(text)
}
