//! The repository that a fetch makes: its settings, its refs and its HEAD, as `git clone` leaves
//! them.

use std::{os::unix::ffi::OsStrExt as _, path::Path};

use domain::request::RepoUrl;
use gix::{
    ObjectId, Repository,
    bstr::{BStr, ByteSlice as _},
    error::ResultExt as _,
    hash::Kind,
    protocol::handshake::Ref,
    refs::{
        FullName, Target,
        transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog},
    },
    sec::Trust,
};

use super::{reference::Found, transport::words};
use crate::order::FetchFault;

/// The refs of `origin` that a later `git fetch` of the command brings up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tracks {
    /// All branches.
    All,
    /// One branch.
    Branch(String),
    /// None: a tag or a commit is checked out.
    Nothing,
}

/// Makes an empty repository whose own files are at `git_dir`, where nothing is yet.
///
/// # Errors
/// When it cannot be written.
pub(super) fn create(git_dir: &Path, hash: Kind) -> Result<(), FetchFault> {
    let options = gix::create::Options {
        destination_must_be_empty: Some(true),
        object_hash: Some(hash),
        ..gix::create::Options::default()
    };
    gix::create::into(git_dir, gix::create::Kind::Bare, options)
        .map_err(|error| written(git_dir, &error))?;
    // Samples of hooks help nobody here.
    let _none = std::fs::remove_dir_all(git_dir.join("hooks"));
    change_settings(git_dir, |config| {
        config.set_raw_value("core.bare", "false")?;
        config.set_raw_value("core.logallrefupdates", "true")?;
        Ok(())
    })
}

/// Notes where the files of a repository go that does not have them beside its own.
///
/// # Errors
/// When it cannot be written.
pub(super) fn set_worktree(git_dir: &Path, worktree: &Path) -> Result<(), FetchFault> {
    let worktree = BStr::new(worktree.as_os_str().as_bytes());
    change_settings(git_dir, |config| {
        config.set_raw_value("core.worktree", worktree)?;
        Ok(())
    })
}

fn change_settings(
    git_dir: &Path,
    change: impl FnOnce(&mut gix::config::File) -> gix::Result<()>,
) -> Result<(), FetchFault> {
    let path = git_dir.join("config");
    let changed = || -> gix::Result<()> {
        let mut config =
            gix::config::File::from_path_no_includes(path.clone(), gix::config::Source::Local)?;
        change(&mut config)?;
        std::fs::write(&path, config.to_bstring()).or_error()
    };
    changed().map_err(|error| written(&path, &error))
}

/// Opens a repository. Only its own settings count: neither those of a user or a system nor any
/// variable.
///
/// # Errors
/// When it cannot be read.
pub(super) fn open(git_dir: &Path) -> Result<Repository, FetchFault> {
    gix::open::Options::isolated()
        .with(Trust::Full)
        .open_path_as_is(true)
        // git clone writes no reflog of its own first refs that anybody would miss.
        .config_overrides(["core.logAllRefUpdates=false"])
        .open(git_dir)
        .map(Into::into)
        .map_err(|error| written(git_dir, &error))
}

fn written(root: &Path, error: &gix::Error) -> FetchFault {
    FetchFault::last(format!(
        "cannot write to {}: {}",
        root.display(),
        words(error)
    ))
}

/// Writes where the repository is from.
///
/// # Errors
/// When it cannot be written.
pub(super) fn set_origin(
    git_dir: &Path,
    repo: &RepoUrl,
    tracks: &Tracks,
) -> Result<(), FetchFault> {
    let spec = match tracks {
        Tracks::All => Some("+refs/heads/*:refs/remotes/origin/*".to_owned()),
        Tracks::Branch(name) => Some(format!("+refs/heads/{name}:refs/remotes/origin/{name}")),
        Tracks::Nothing => None,
    };
    change_settings(git_dir, |config| {
        config.set_raw_value("remote.origin.url", repo.as_str())?;
        if let Some(spec) = spec {
            config.set_raw_value("remote.origin.fetch", spec.as_str())?;
        }
        Ok(())
    })
}

/// Notes a submodule, so that git takes it for one that is wanted.
///
/// # Errors
/// When it cannot be written.
pub(super) fn add_submodule(git_dir: &Path, name: &str, from: &RepoUrl) -> Result<(), FetchFault> {
    change_settings(git_dir, |config| {
        let mut section = config.new_section("submodule", Some(name.to_owned().into()))?;
        section.push("active", "true")?;
        section.push("url", from.as_str())?;
        Ok(())
    })
}

/// Writes the branch's upstream, so that `git pull` and `git status` know it.
fn set_upstream(git_dir: &Path, branch: &str) -> Result<(), FetchFault> {
    change_settings(git_dir, |config| {
        let mut section = config.new_section("branch", Some(branch.to_owned().into()))?;
        section.push("remote", "origin")?;
        section.push("merge", format!("refs/heads/{branch}").as_str())?;
        Ok(())
    })
}

/// Points HEAD to what was found, with the refs that a clone of it has.
///
/// # Errors
/// When it cannot be written.
pub(super) fn point_head(
    repo: &Repository,
    found: &Found,
    commit: ObjectId,
) -> Result<(), FetchFault> {
    match found {
        Found::Branch(name, _) => {
            let edits = vec![
                edit(
                    &format!("refs/remotes/origin/{name}"),
                    Target::Object(commit),
                )?,
                edit(&format!("refs/heads/{name}"), Target::Object(commit))?,
                edit(
                    "HEAD",
                    Target::Symbolic(full(&format!("refs/heads/{name}"))?),
                )?,
            ];
            apply(repo, edits)?;
            set_upstream(repo.git_dir(), name)
        }
        Found::Tag(name, id) => apply(
            repo,
            vec![
                edit(&format!("refs/tags/{name}"), Target::Object(*id))?,
                edit("HEAD", Target::Object(commit))?,
            ],
        ),
        Found::Detached(_) => apply(repo, vec![edit("HEAD", Target::Object(commit))?]),
        Found::Unborn(name) => apply(
            repo,
            vec![edit(
                "HEAD",
                Target::Symbolic(full(&format!("refs/heads/{name}"))?),
            )?],
        ),
    }
}

/// Writes all branches of the server as branches of `origin`, and all tags.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_all(repo: &Repository, refs: &[Ref]) -> Result<(), FetchFault> {
    let mut edits = Vec::new();
    for found in refs {
        let (name, target, peeled) = found.unpack();
        let Some(id) = target.or(peeled) else {
            continue;
        };
        let name = name.to_str_lossy();
        let local = match name.strip_prefix("refs/heads/") {
            Some(branch) => format!("refs/remotes/origin/{branch}"),
            None if name.starts_with("refs/tags/") => name.into_owned(),
            None => continue,
        };
        edits.push(edit(&local, Target::Object(id.to_owned()))?);
    }
    apply(repo, edits)
}

fn full(name: &str) -> Result<FullName, FetchFault> {
    name.try_into().map_err(|_| {
        FetchFault::last(format!(
            "the server has a ref of a forbidden name: {name:?}"
        ))
    })
}

fn edit(name: &str, new: Target) -> Result<RefEdit, FetchFault> {
    Ok(RefEdit {
        change: Change::Update {
            log: LogChange {
                mode: RefLog::AndReference,
                force_create_reflog: false,
                message: "clone".into(),
            },
            expected: PreviousValue::Any,
            new,
        },
        name: full(name)?,
        deref: false,
    })
}

fn apply(repo: &Repository, edits: Vec<RefEdit>) -> Result<(), FetchFault> {
    repo.edit_references(edits)
        .map(drop)
        .map_err(|error| written(repo.git_dir(), &error))
}
