//! Fetches a repository: the commit that a reference means, with as much of its history as is asked
//! for, and its files.

use std::{collections::HashSet, fs, num::NonZeroU32, path::PathBuf, rc::Rc};

use crate::order::{FetchFault, FetchFaultKind, FetchOrder, FetchedCommit};
use domain::request::{GitRef, RepoUrl};
use gix::{ObjectId, Repository, protocol::handshake::Ref};

use self::{
    ask::{Ask, Way},
    network::Network,
    reference::{Found, Reference, tips_with_prefix},
    remote::RemoteRepository,
    repository::Tracks,
};
pub use self::{
    checkout::check_out,
    endpoint::Endpoint,
    git::{CREDENTIAL, credential_helper},
    network::ReceivedBytes,
    watch::{CHILD, fetch_in_child, fetch_once},
};

/// The prefixes of the refs that make up a whole clone.
const ALL_REFS: [&str; 2] = ["refs/heads/", "refs/tags/"];
/// How many commits of each history are searched for a short commit id. Without files they take
/// about 3 MB. A commit that is older is found by its full id.
const HISTORY_MAX: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");

/// How deep submodules may be nested. A repository that is its own submodule would be fetched for
/// ever.
const SUBMODULE_LEVELS: u8 = 16;

mod ask;
mod checkout;
mod credentials;
mod endpoint;
mod error;
mod git;
mod http;
mod known_hosts;
mod lfs;
pub(crate) mod network;
mod reference;
mod remote;
mod repository;
mod submodules;
mod transport;
mod watch;

/// Fetches a repository. Its files are not written yet: [`check_out`] does that.
///
/// # Errors
/// The reason for a failed fetch. Parts of the repository may then be there.
pub fn fetch(order: &FetchOrder, received: ReceivedBytes) -> Result<FetchedCommit, FetchFault> {
    let network = Rc::new(Network::new(&order.network, received)?);
    let source = FetchSource {
        repo: order.repo.clone(),
        reference: Reference::of(order.reference.as_ref().map(GitRef::as_str)),
        git_dir: order.into.join(".git"),
    };
    fs::create_dir_all(&order.into).map_err(|error| {
        FetchFault::last(format!("cannot make {}: {error}", order.into.display()))
    })?;
    let fetch = Fetch {
        order,
        network: &network,
        source: &source,
    };
    fetch.run(SUBMODULE_LEVELS)
}

/// One of the repositories of a fetch: the one that was asked for, or a submodule.
struct FetchSource {
    repo: RepoUrl,
    reference: Reference,
    git_dir: PathBuf,
}

struct Fetch<'a> {
    order: &'a FetchOrder,
    network: &'a Rc<Network>,
    source: &'a FetchSource,
}

impl Fetch<'_> {
    fn run(&self, levels: u8) -> Result<FetchedCommit, FetchFault> {
        let remote = self.connect()?;
        let hash = remote.hash()?;
        repository::create(&self.source.git_dir, hash)?;
        let found = match self.source.reference {
            // Most servers give a commit by its id. Others give only what their refs name.
            Reference::Commit(id) if id.kind() == hash && self.order.depth.is_some() => {
                self.commit(remote, id)?
            }
            _ => self.named(remote)?,
        };
        let repo = repository::open(&self.source.git_dir)?;
        let commit = self.point_head(&repo, &found)?;
        if self.order.lfs {
            let (from, credentials) = (&self.source.repo, &self.order.credentials);
            lfs::fetch(&repo, commit, from, self.network, credentials)?;
        }
        if self.order.submodules {
            self.submodules(&repo, commit, levels)?;
        }
        Ok(FetchedCommit {
            commit: commit.to_string(),
        })
    }

    fn connect(&self) -> Result<RemoteRepository, FetchFault> {
        RemoteRepository::open(&Way {
            network: self.network,
            repo: &self.source.repo,
            credentials: &self.order.credentials,
            known_hosts: &self.order.known_hosts,
            git: self.order.git,
        })
    }

    /// Fetches the submodules of a commit, each with the credentials of its own host.
    fn submodules(
        &self,
        repo: &Repository,
        commit: ObjectId,
        levels: u8,
    ) -> Result<(), FetchFault> {
        for submodule in submodules::of(repo, commit)? {
            let named = |fault: FetchFault| {
                let reason = format!("submodule {}: {}", submodule.path, fault.reason);
                FetchFault::new(fault.kind, reason)
            };
            let Some(levels) = levels.checked_sub(1) else {
                return Err(named(FetchFault::last(format!(
                    "submodules are nested more than {SUBMODULE_LEVELS} levels deep"
                ))));
            };
            let source = FetchSource {
                repo: submodules::address(&self.source.repo, &submodule.url).map_err(named)?,
                reference: Reference::Commit(submodule.commit),
                git_dir: submodules::git_dir(&self.source.git_dir, &submodule.name),
            };
            if source.git_dir.exists() {
                return Err(named(FetchFault::last(
                    "its name is that of another submodule",
                )));
            }
            let fetch = Fetch {
                source: &source,
                ..*self
            };
            fs::create_dir_all(&source.git_dir)
                .map_err(|error| named(FetchFault::last(format!("cannot write: {error}"))))?;
            fetch.run(levels).map_err(named)?;
            repository::add_submodule(&self.source.git_dir, &submodule.name, &source.repo)?;
        }
        Ok(())
    }

    /// Fetches what a name means.
    fn named(&self, mut remote: RemoteRepository) -> Result<Found, FetchFault> {
        if self.order.depth.is_none() {
            return self.everything(remote);
        }
        let refs = remote.refs(self.source.reference.prefixes())?;
        match self.source.reference.among(&refs) {
            Some(found) => {
                if let Some(id) = found.object() {
                    self.ask(remote, vec![id])?;
                }
                Ok(found)
            }
            None => match self.source.reference.short_commit() {
                Some(digits) => {
                    let id = self.full_id(&digits)?;
                    self.commit(self.connect()?, id)
                }
                None => Err(self.unknown()),
            },
        }
    }

    /// Fetches a commit by its full id.
    fn commit(&self, remote: RemoteRepository, id: ObjectId) -> Result<Found, FetchFault> {
        match self.ask(remote, vec![id]) {
            Ok(()) => Ok(Found::Detached(id)),
            Err(fault) if fault.kind == FetchFaultKind::Passing => Err(fault),
            // There may be a branch or a tag of that name, or the server gives no commit by its id.
            Err(_) => {
                let mut remote = self.connect()?;
                let refs = remote.refs(self.source.reference.prefixes())?;
                match self.source.reference.among(&refs) {
                    Some(found) => {
                        let wants = found.object().into_iter().collect();
                        self.ask(remote, wants)?;
                        Ok(found)
                    }
                    None => self.everything(self.connect()?),
                }
            }
        }
    }

    fn ask(&self, remote: RemoteRepository, wants: Vec<ObjectId>) -> Result<(), FetchFault> {
        let ask = Ask {
            wants,
            depth: self.order.depth,
            commits_only: false,
        };
        remote.receive(&ask, &self.source.git_dir)
    }

    /// Fetches all branches and tags with their histories, and finds the reference there.
    fn everything(&self, mut remote: RemoteRepository) -> Result<Found, FetchFault> {
        let mut prefixes = self.source.reference.prefixes();
        prefixes.extend(ALL_REFS.map(Into::into));
        let refs = remote.refs(prefixes)?;
        let found = self.source.reference.among(&refs);
        let mut wants = tips(&refs);
        wants.extend(found.as_ref().and_then(Found::object));
        if wants.is_empty() {
            return found.ok_or_else(|| self.unknown());
        }
        let ask = Ask {
            wants,
            ..Ask::default()
        };
        remote.receive(&ask, &self.source.git_dir)?;
        let repo = repository::open(&self.source.git_dir)?;
        repository::write_all(&repo, &refs)?;
        let commit = match &self.source.reference {
            Reference::Commit(id) if repo.has_object(id) => Some(Found::Detached(*id)),
            _ => None,
        };
        if let Some(found) = commit.or(found) {
            return Ok(found);
        }
        let digits = self
            .source
            .reference
            .short_commit()
            .ok_or_else(|| self.unknown())?;
        self.commit_among(&repo, &digits).map(Found::Detached)
    }

    /// Finds the full id of a short one: among the tips of branches and tags, else in their
    /// histories, which are fetched without files if the server can leave those out.
    fn full_id(&self, digits: &str) -> Result<ObjectId, FetchFault> {
        let mut remote = self.connect()?;
        let refs = remote.refs(ALL_REFS.map(Into::into).to_vec())?;
        match tips_with_prefix(&refs, digits)[..] {
            [id] => return Ok(id),
            [] => {}
            _ => return Err(self.ambiguous()),
        }
        let wants = tips(&refs);
        if wants.is_empty() {
            return Err(self.unknown());
        }
        let scan = tempfile::TempDir::new_in(&self.source.git_dir)
            .map_err(|error| FetchFault::last(format!("cannot write the clone: {error}")))?;
        repository::create(scan.path(), remote.hash()?)?;
        let ask = Ask {
            wants,
            depth: Some(HISTORY_MAX),
            commits_only: true,
        };
        remote.receive(&ask, scan.path())?;
        let repo = repository::open(scan.path())?;
        self.commit_among(&repo, digits)
    }

    /// Finds the one commit of a repository whose id begins with these digits.
    fn commit_among(&self, repo: &Repository, digits: &str) -> Result<ObjectId, FetchFault> {
        let mut candidates = HashSet::default();
        let prefix = gix::hash::Prefix::from_hex(digits).map_err(|_| self.unknown())?;
        let _one_or_many = repo
            .objects
            .lookup_prefix(prefix, Some(&mut candidates))
            .map_err(|_| self.unknown())?;
        let mut commits = candidates.into_iter().filter(|id| {
            repo.find_header(*id)
                .is_ok_and(|header| header.kind().is_commit())
        });
        match (commits.next(), commits.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(self.ambiguous()),
            (None, _) => Err(self.unknown()),
        }
    }

    fn unknown(&self) -> FetchFault {
        FetchFault::last(format!(
            "no branch, tag or commit {} in {}",
            self.source.reference, self.source.repo
        ))
    }

    fn ambiguous(&self) -> FetchFault {
        FetchFault::last(format!(
            "several commits of {} begin with {}: give more of its digits",
            self.order.repo, self.source.reference
        ))
    }

    /// Points HEAD to what was found.
    fn point_head(&self, repo: &Repository, found: &Found) -> Result<ObjectId, FetchFault> {
        let FetchSource {
            repo: origin,
            reference,
            git_dir,
        } = self.source;
        let tracks = match found {
            _ if self.order.depth.is_none() => Tracks::All,
            Found::Branch(name, _) | Found::Unborn(name) => Tracks::Branch(name.clone()),
            Found::Tag(..) | Found::Detached(_) => Tracks::Nothing,
        };
        repository::set_origin(git_dir, origin, &tracks)?;
        let Some(object) = found.object() else {
            return Err(FetchFault::last(format!(
                "there is no commit at {reference}, the default branch, of {origin}: name a branch or a commit \
                 that is there"
            )));
        };
        let commit = repo
            .find_object(object)
            .and_then(gix::Object::peel_to_commit)
            .map_err(|_| FetchFault::last(format!("{reference} of {origin} is not a commit")))?
            .id;
        repository::point_head(repo, found, commit)?;
        Ok(commit)
    }
}

/// The objects that branches and tags name, each once.
fn tips(refs: &[Ref]) -> Vec<ObjectId> {
    let is_wanted = |found: &&Ref| {
        let name = found.unpack().0;
        ALL_REFS
            .iter()
            .any(|prefix| name.starts_with(prefix.as_bytes()))
    };
    let mut ids: Vec<_> = refs
        .iter()
        .filter(is_wanted)
        .filter_map(|found| found.unpack().1.map(ToOwned::to_owned))
        .collect();
    ids.sort();
    ids.dedup();
    ids
}
