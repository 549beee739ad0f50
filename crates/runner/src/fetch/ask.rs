//! The request to a repository's server, and the way to it.

use std::{num::NonZeroU32, rc::Rc};

use domain::request::RepoUrl;
use gix::hash::ObjectId;

use super::network::Network;
use crate::order::{Credentials, GitProgram};

/// How a repository is reached.
pub(super) struct Way<'a> {
    /// The ways to servers.
    pub(super) network: &'a Rc<Network>,
    /// The repository.
    pub(super) repo: &'a RepoUrl,
    /// The credentials, each for its hosts.
    pub(super) credentials: &'a Credentials,
    /// The host keys that are trusted, as lines of a `known_hosts` file.
    pub(super) known_hosts: &'a str,
    /// The program that speaks git's protocol.
    pub(super) git: GitProgram,
}

/// The request to a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    /// The objects, with all that they need.
    pub(super) wants: Vec<ObjectId>,
    /// How many commits of each history; all of them if there is no number.
    pub(super) depth: Option<NonZeroU32>,
    /// Whether files and folders are left out, if the server can do that.
    pub(super) commits_only: bool,
}
