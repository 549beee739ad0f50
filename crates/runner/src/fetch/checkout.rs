//! The files of a fetched repository, written by the library. Nothing of the repository is run for
//! it: it has no hooks, and no setting names a filter.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
    sync::atomic::AtomicBool,
};

use gix::{ObjectId, Repository, bstr::BStr, error::ResultExt as _, progress::Discard};
use rustix::process::geteuid;

use super::{
    lfs::{self, Pointer},
    repository, submodules,
    transport::words,
};
use crate::order::FetchFault;

/// Writes the files of the commit that HEAD names into a repository's folder, which has none yet;
/// those of its submodules and its large files too, as far as they were fetched. The repository is
/// first put in place, if it is in another folder.
///
/// # Errors
/// When the commit cannot be read, or a file cannot be written.
pub fn check_out(from: Option<&Path>, root: &Path) -> Result<ObjectId, FetchFault> {
    if let Some(from) = from {
        put_in_place(&from.join(".git"), &root.join(".git")).map_err(|error| {
            FetchFault::last(format!(
                "cannot put the repository into {}: {error}",
                root.display()
            ))
        })?;
    }
    let repo = repository::open(&root.join(".git"))?;
    let commit = repo
        .head_id()
        .map_err(|error| {
            FetchFault::last(format!("there is no commit at HEAD: {}", words(&error)))
        })?
        .detach();
    write_files(&repo, commit, root)?;
    check_out_submodules(&repo, commit, root)?;
    Ok(commit)
}

/// Moves a repository if it is ours, else copies it: git refuses to work in one that belongs to
/// another user.
fn put_in_place(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let is_own = fs::metadata(from)?.uid() == geteuid().as_raw();
    if is_own && fs::rename(from, to).is_ok() {
        return Ok(());
    }
    copy_folder(from, to)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&source, &target)?;
        } else {
            fs::copy(source, target)?;
        }
    }
    Ok(())
}

fn check_out_submodules(
    repo: &Repository,
    commit: ObjectId,
    root: &Path,
) -> Result<(), FetchFault> {
    if !repo.git_dir().join("modules").exists() {
        return Ok(());
    }
    for submodule in submodules::of(repo, commit)? {
        let git_dir = submodules::git_dir(repo.git_dir(), &submodule.name);
        if !git_dir.exists() {
            continue;
        }
        let folder = root.join(OsStr::from_bytes(&submodule.path));
        submodules::connect(&git_dir, &folder)?;
        let inner = repository::open(&git_dir)?;
        write_files(&inner, submodule.commit, &folder)?;
        check_out_submodules(&inner, submodule.commit, &folder)?;
    }
    Ok(())
}

fn write_files(repo: &Repository, commit: ObjectId, root: &Path) -> Result<(), FetchFault> {
    try_write_files(repo, commit, root).map_err(|error| {
        FetchFault::last(format!(
            "cannot write the files of {commit}: {}",
            words(&error)
        ))
    })
}

fn try_write_files(repo: &Repository, commit: ObjectId, root: &Path) -> gix::Result<()> {
    let tree = repo.find_commit(commit)?.tree_id()?.detach();
    let mut index = repo.index_from_tree(&tree)?;
    let mut options =
        repo.checkout_options(gix::worktree::stack::state::attributes::Source::IdMapping)?;
    options.destination_is_initially_empty = true;
    let outcome = gix::worktree::state::checkout(
        &mut index,
        root,
        repo.objects.clone().into_arc().or_error()?,
        &Discard,
        &Discard,
        &AtomicBool::new(false),
        options,
    )?;
    if let Some(collision) = outcome.collisions.first() {
        gix::error::bail!(gix::error::message!(
            "{} is there twice, by names that this file system takes for the same",
            collision.path
        ));
    }
    if repo.git_dir().join("lfs").exists() {
        for (path, pointer) in lfs::pointers(repo, &index)? {
            let file = root.join(OsStr::from_bytes(&path));
            if put_content(repo.git_dir(), &pointer, &file).or_error()? {
                note_file(&mut index, path.as_ref(), &file)?;
            }
        }
    }
    index.write(gix::index::write::Options::default())?;
    Ok(())
}

/// Puts a large file in the place of its pointer, if it was fetched.
fn put_content(git_dir: &Path, pointer: &Pointer, file: &Path) -> io::Result<bool> {
    let content = pointer.content(git_dir);
    if !content.exists() {
        return Ok(false);
    }
    let mode = fs::metadata(file)?.permissions().mode();
    fs::copy(content, file)?;
    fs::set_permissions(file, fs::Permissions::from_mode(mode))?;
    Ok(true)
}

/// Notes in the index that a file is as it should be, as git-lfs does.
fn note_file(index: &mut gix::index::File, path: &BStr, file: &Path) -> gix::Result<()> {
    let metadata = gix::index::fs::Metadata::from_path_no_follow(file).or_error()?;
    let stat = gix::index::entry::Stat::from_fs(&metadata).or_error()?;
    if let Some(entry) =
        index.entry_mut_by_path_and_stage(path, gix::index::entry::Stage::Unconflicted)
    {
        entry.stat = stat;
    }
    Ok(())
}
