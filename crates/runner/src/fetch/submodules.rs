//! The submodules of a commit: where they are, which commit of them is meant, and where they come
//! from. All of it is written by whoever writes the repository, so nothing of it is trusted.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use domain::request::{Place, RepoKind, RepoUrl};
use gix::{
    ObjectId, Repository,
    bstr::{BString, ByteSlice as _},
    index::entry::Mode,
};

use super::{repository, transport::words};
use crate::order::FetchFault;

/// The file that names the submodules.
const GITMODULES: &str = ".gitmodules";

/// A submodule of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Submodule {
    /// Its name, which is also that of its folder in `.git/modules`.
    pub(super) name: String,
    /// Where its files go.
    pub(super) path: BString,
    /// Its address, as it is written.
    pub(super) url: String,
    /// Its commit.
    pub(super) commit: ObjectId,
}

/// The submodules of a commit.
///
/// # Errors
/// When they cannot be read, or one of them could be turned against us.
pub(super) fn of(repo: &Repository, commit: ObjectId) -> Result<Vec<Submodule>, FetchFault> {
    let (links, text) = read(repo, commit).map_err(|error| {
        FetchFault::last(format!("cannot read the submodules: {}", words(&error)))
    })?;
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let config = gix::config::File::from_bytes_no_includes(
        &text,
        gix::config::file::Metadata::api(),
        gix::config::file::init::Options::default(),
    )
    .map_err(|error| FetchFault::last(format!("{GITMODULES} cannot be read: {}", words(&error))))?;
    let mut known: Vec<(String, BString, BString)> = Vec::new();
    for section in config.sections_by_name("submodule").into_iter().flatten() {
        let name = section.header().subsection_name().map(ToString::to_string);
        let value = |key: &str| section.value(key);
        if let (Some(name), Some(path), Some(url)) = (name, value("path"), value("url")) {
            known.push((name, path, url));
        }
    }
    links
        .into_iter()
        .map(|(path, commit)| {
            let found = known.iter().find(|(_, known, _)| *known == path);
            let (name, _, url) = found.ok_or_else(|| {
                FetchFault::last(format!("{GITMODULES} has no URL for the submodule {path}"))
            })?;
            if !is_safe_name(name) {
                return Err(FetchFault::last(format!(
                    "{GITMODULES} has a submodule of the forbidden name {name:?}"
                )));
            }
            Ok(Submodule {
                name: name.clone(),
                path,
                url: url.to_str_lossy().into_owned(),
                commit,
            })
        })
        .collect()
}

type Links = Vec<(BString, ObjectId)>;

/// The entries of a commit that are commits of other repositories, and the text of `.gitmodules`.
fn read(repo: &Repository, commit: ObjectId) -> gix::Result<(Links, Vec<u8>)> {
    let tree = repo.find_commit(commit)?.tree()?;
    let index = repo.index_from_tree(&tree.id)?;
    let links: Links = index
        .entries()
        .iter()
        .filter(|entry| entry.mode == Mode::COMMIT)
        .map(|entry| (entry.path(&index).to_owned(), entry.id))
        .collect();
    // A link would lead out of the repository, so only a file counts.
    let text = match tree.lookup_entry_by_path(GITMODULES)? {
        Some(entry) if entry.mode().is_blob() => entry.object()?.data.clone(),
        _ => Vec::new(),
    };
    Ok((links, text))
}

/// Whether a name stays in `.git/modules` (as git checks it since CVE-2018-11235).
fn is_safe_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\0', '\\'])
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

/// Where a submodule's own files are, beneath those of its repository.
pub(super) fn git_dir(parent: &Path, name: &str) -> PathBuf {
    parent.join("modules").join(name)
}

/// Joins a submodule's own files with the folder that its files go into: each names the other, so
/// that git finds them (gitrepository-layout, `gitdir`).
///
/// # Errors
/// When they cannot be written.
pub(super) fn connect(git_dir: &Path, folder: &Path) -> Result<(), FetchFault> {
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(folder.join(".git"), link(&relative(folder, git_dir))));
    written.map_err(|error| {
        FetchFault::last(format!("cannot write to {}: {error}", folder.display()))
    })?;
    repository::set_worktree(git_dir, &relative(git_dir, folder))
}

fn link(git_dir: &Path) -> Vec<u8> {
    let mut text = b"gitdir: ".to_vec();
    text.extend_from_slice(git_dir.as_os_str().as_bytes());
    text.push(b'\n');
    text
}

/// The way from one folder to another. Both are beneath the same root.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let common = from
        .components()
        .zip(to.components())
        .take_while(|(one, other)| one == other)
        .count();
    let ups = from.components().skip(common).map(|_| Component::ParentDir);
    ups.chain(to.components().skip(common)).collect()
}

/// The address of a submodule of a repository. A relative one begins where the repository is.
///
/// # Errors
/// When it is not an address, or one that a repository on a server may not name.
pub(super) fn address(parent: &RepoUrl, url: &str) -> Result<RepoUrl, FetchFault> {
    let place = match parent.kind() {
        RepoKind::File | RepoKind::Path => Place::OneMachine,
        _ => Place::Aws,
    };
    let text = match url.starts_with("./") || url.starts_with("../") {
        true => joined(parent.as_str(), url),
        false => Some(url.to_owned()),
    };
    let text = text.ok_or_else(|| {
        FetchFault::last(format!(
            "the submodule address {url:?} leads out of the server of {parent}"
        ))
    })?;
    RepoUrl::parse(&text, place)
        .map_err(|error| FetchFault::last(format!("the address of a submodule {error}")))
}

/// Joins a relative address to one that it is relative to, as `git submodule` does.
fn joined(base: &str, relative: &str) -> Option<String> {
    let mut base = base.trim_end_matches('/');
    let mut separator = '/';
    let mut rest = relative;
    loop {
        if let Some(next) = rest.strip_prefix("./") {
            rest = next;
        } else if let Some(next) = rest.strip_prefix("../") {
            let scheme_end = base.find("://").map_or(0, |at| at + 3);
            let end = base[scheme_end..].rfind(['/', ':'])? + scheme_end;
            separator = base[end..].chars().next()?;
            base = &base[..end];
            rest = next;
        } else {
            break;
        }
    }
    Some(format!("{base}{separator}{}", rest.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(parent: &str, url: &str) -> Result<String, String> {
        address(&parent.parse().expect("a repository"), url)
            .map(|url| url.to_string())
            .map_err(|fault| fault.reason)
    }

    #[test]
    fn a_relative_address_begins_where_the_repository_is() {
        for (parent, url, wanted) in [
            ("https://host/me/a.git", "../b.git", "https://host/me/b.git"),
            ("https://host/me/a.git/", "./b", "https://host/me/a.git/b"),
            ("https://host/me/a", "../../you/b", "https://host/you/b"),
            ("git@host:me/a.git", "../b.git", "git@host:me/b.git"),
            ("git@host:me/a.git", "../../you/b", "git@host:you/b"),
            ("ssh://git@host:22/me/a", "../b/", "ssh://git@host:22/me/b"),
            ("/srv/a", "../b", "/srv/b"),
        ] {
            assert_eq!(at(parent, url).as_deref(), Ok(wanted), "{parent} {url}");
        }
    }

    #[test]
    fn a_repository_on_a_server_names_no_file_and_no_command() {
        for url in [
            "/etc",
            "file:///etc",
            "ext::sh -c 'touch x'",
            "-u./payload",
            "--upload-pack=touch x",
            "ssh://-oProxyCommand=touch/x",
            "http://other.example/x",
            "../../../../../x",
        ] {
            assert!(at("https://host/me/a", url).is_err(), "{url}");
        }
        assert!(at("/srv/a", "/srv/b").is_ok());
    }

    #[test]
    fn a_submodule_is_found_from_both_sides() {
        let (git_dir, folder) = (Path::new("/w/.git/modules/a/b"), Path::new("/w/libs/a"));
        assert_eq!(
            relative(folder, git_dir),
            Path::new("../../.git/modules/a/b")
        );
        assert_eq!(relative(git_dir, folder), Path::new("../../../../libs/a"));
    }

    #[test]
    fn a_name_stays_in_its_folder() {
        for name in ["lib", "vendor/lib", "a.b"] {
            assert!(is_safe_name(name), "{name}");
        }
        for name in ["", "..", "../x", "a/../b", "/a", "a//b", "a/.", "a\\b"] {
            assert!(!is_safe_name(name), "{name}");
        }
    }
}
