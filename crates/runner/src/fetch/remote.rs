//! A repository on a server: which refs it has, and the objects that are asked of it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::AtomicBool,
};

use gix::{
    bstr::BString,
    hash::Kind,
    odb::pack::{Bundle, bundle::write},
    progress::Discard,
    protocol::{
        self, Handshake, LsRefsCommand, SendFlushOnDrop,
        fetch::{
            Arguments, Context, Negotiate, Options, Response, Shallow, Tags,
            negotiate::{Action, Round, one_round},
        },
        handshake::Ref,
        ls_refs::RefPrefixes,
        transport::{Protocol, Service, client::Capabilities},
    },
};

use super::{
    ask::{Ask, Way},
    git::GitRemote,
    network::USER_AGENT,
    transport::Connection,
};
use crate::order::{FetchFault, GitProgram};

/// A repository on a server that has answered.
pub(super) enum RemoteRepository {
    /// Our library speaks with it.
    Library(Box<LibraryRemote>),
    /// Real git speaks with it.
    Git(Box<GitRemote>),
}

/// The permissions of a pack, as git has them (pack-write.c).
const PACK_MODE: u32 = 0o444;

/// A repository that our library speaks with.
pub(super) struct LibraryRemote {
    connection: Connection,
    handshake: Handshake,
}

impl RemoteRepository {
    /// Connects to a repository, and reads what its server can do.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub(super) fn open(way: &Way<'_>) -> Result<Self, FetchFault> {
        Ok(match way.git {
            GitProgram::Library => Self::Library(Box::new(LibraryRemote::open(way)?)),
            GitProgram::System => Self::Git(Box::new(GitRemote::open(way)?)),
        })
    }

    /// How the repository's objects are hashed.
    ///
    /// # Errors
    /// For a hash that we do not know.
    pub(super) fn hash(&self) -> Result<Kind, FetchFault> {
        match self {
            Self::Library(remote) => remote.hash(),
            Self::Git(remote) => Ok(remote.hash()),
        }
    }

    /// The refs whose names begin with one of these prefixes, and maybe others.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(super) fn refs(&mut self, prefixes: Vec<BString>) -> Result<Vec<Ref>, FetchFault> {
        match self {
            Self::Library(remote) => remote.refs(prefixes),
            Self::Git(remote) => Ok(remote.refs()),
        }
    }

    /// Receives objects into the repository at `git_dir`.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or sends what cannot be read.
    pub(super) fn receive(self, ask: &Ask, git_dir: &Path) -> Result<(), FetchFault> {
        match self {
            Self::Library(remote) => remote.receive(ask, git_dir),
            Self::Git(remote) => remote.receive(ask, git_dir),
        }
    }
}

impl LibraryRemote {
    /// Connects to a repository, and reads what its server can do.
    ///
    /// # Errors
    /// When it cannot be reached.
    fn open(way: &Way<'_>) -> Result<Self, FetchFault> {
        let mut connection =
            Connection::open(way.network, way.repo, way.credentials, way.known_hosts)?;
        let shaken = protocol::handshake(
            &mut connection.transport,
            Service::UploadPack,
            // Credentials are shown by the transport itself.
            |_| Ok(None),
            Vec::new(),
            &mut Discard,
        );
        let mut handshake = shaken.map_err(|error| connection.fault(&error))?;
        if handshake.server_protocol_version != Protocol::V2 {
            handshake.capabilities = without_relative_depth(&handshake.capabilities);
        }
        Ok(Self {
            connection,
            handshake,
        })
    }

    /// How the repository's objects are hashed.
    ///
    /// # Errors
    /// For a hash that we do not know.
    fn hash(&self) -> Result<Kind, FetchFault> {
        let format = self.handshake.capabilities.capability("object-format");
        match format.and_then(|format| format.value().map(ToString::to_string)) {
            None => Ok(Kind::Sha1),
            Some(name) => name
                .parse()
                .map_err(|_| FetchFault::needs_git(format!("its objects are hashed by {name}"))),
        }
    }

    /// The refs whose names begin with one of these prefixes. An older server lists all of its
    /// refs.
    ///
    /// # Errors
    /// When the server cannot be reached.
    fn refs(&mut self, prefixes: Vec<BString>) -> Result<Vec<Ref>, FetchFault> {
        if let Some(refs) = &self.handshake.refs {
            return Ok(refs.clone());
        }
        let mut asked = RefPrefixes::new();
        asked.extend(prefixes);
        let command = LsRefsCommand::new(Some(asked), &self.handshake.capabilities, agent());
        command
            .invoke_blocking(&mut self.connection.transport, &mut Discard, false)
            .map_err(|error| self.connection.fault(&error))
    }

    /// Receives objects into the repository at `git_dir`.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or sends what cannot be read.
    fn receive(mut self, ask: &Ask, git_dir: &Path) -> Result<(), FetchFault> {
        let hash = self.hash()?;
        let shallow = ask.depth.map_or(Shallow::NoChange, Shallow::DepthAtRemote);
        let options = Options {
            shallow_file: git_dir.join("shallow"),
            shallow: &shallow,
            tags: Tags::None,
            reject_shallow_remote: false,
        };
        let packs = git_dir.join("objects").join("pack");
        let never = AtomicBool::new(false);
        let mut transport = SendFlushOnDrop::new(&mut self.connection.transport, false);
        let context = Context {
            handshake: &mut self.handshake,
            transport: &mut transport.inner,
            user_agent: agent(),
            trace_packetlines: false,
        };
        let received = protocol::fetch(
            &mut Wants(ask),
            |pack, progress, interrupted| {
                let options = write::Options::default();
                let none: Option<gix::objs::find::Never> = None;
                Bundle::write_to_directory(
                    pack,
                    Some(&packs),
                    progress,
                    interrupted,
                    none,
                    hash,
                    options,
                )
                .map(|written| {
                    // It keeps the pack until refs name its objects. Nobody else is here.
                    if let Some(keep) = written.keep_path {
                        let _kept = fs::remove_file(keep);
                    }
                    for file in written.data_path.into_iter().chain(written.index_path) {
                        // The library makes them readable for their owner alone. In a task another
                        // user reads them.
                        let _stays = fs::set_permissions(file, Permissions::from_mode(PACK_MODE));
                    }
                    true
                })
            },
            Discard,
            &never,
            context,
            options,
        );
        drop(transport);
        match received {
            Ok(_) => Ok(()),
            Err(error) => Err(self.connection.fault(&error)),
        }
    }
}

/// The capabilities without `deepen-relative`. The library accepts each capability that it knows,
/// and a depth that is counted from nothing means all (gitprotocol-capabilities,
/// `deepen-relative`).
fn without_relative_depth(capabilities: &Capabilities) -> Capabilities {
    let mut text = vec![0];
    for capability in capabilities.iter() {
        if capability.name() == "deepen-relative" {
            continue;
        }
        text.extend_from_slice(capability.name());
        if let Some(value) = capability.value() {
            text.push(b'=');
            text.extend_from_slice(value);
        }
        text.push(b' ');
    }
    text.pop();
    Capabilities::from_bytes(&text).map_or_else(|_| capabilities.clone(), |(read, _)| read)
}

fn agent() -> (&'static str, Option<String>) {
    ("agent", Some(USER_AGENT.into()))
}

/// Asks for objects by their ids. A new clone has nothing to offer, so nothing is negotiated.
struct Wants<'a>(&'a Ask);

impl Negotiate for Wants<'_> {
    fn mark_complete_and_common_ref(&mut self) -> gix::error::Result<Action> {
        Ok(Action::MustNegotiate {
            remote_ref_target_known: Vec::new(),
        })
    }

    fn add_wants(&mut self, arguments: &mut Arguments, _known: &[bool]) -> bool {
        if self.0.commits_only && arguments.can_use_filter() {
            arguments.filter("tree:0");
        }
        for id in &self.0.wants {
            arguments.want(id);
        }
        !self.0.wants.is_empty()
    }

    fn one_round(
        &mut self,
        _state: &mut one_round::State,
        _arguments: &mut Arguments,
        _previous: Option<&Response>,
    ) -> gix::error::Result<(Round, bool)> {
        let round = Round {
            haves_sent: 0,
            in_vain: 0,
            haves_to_send: 0,
            previous_response_had_at_least_one_in_common: false,
        };
        Ok((round, true))
    }
}
