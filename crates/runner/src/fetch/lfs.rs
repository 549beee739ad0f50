//! Large files (Git LFS): the repository has pointers, and the files are at a server of their own.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    rc::Rc,
};

use bytes::Bytes;
use domain::request::{RepoKind, RepoUrl};
use gix::{
    Repository,
    bstr::{BString, ByteSlice as _},
    index::entry::Mode,
};
use reqwest::{
    Method, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    http::{Request, Server},
    network::Network,
    transport::words,
};
use crate::order::{Credentials, FetchFault};

/// The type of requests and answers (git-lfs, docs/api/batch.md).
const JSON: HeaderValue = HeaderValue::from_static("application/vnd.git-lfs+json");
/// The largest pointer, in bytes (git-lfs, docs/spec.md: less than 1024).
const POINTER_MAX: u64 = 1024;
/// The first line of a pointer (git-lfs, docs/spec.md).
const VERSION: &str = "version https://git-lfs.github.com/spec/v1";
/// The longest answer about a batch, in bytes. A signed address and its headers take some 3 KB.
const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// How many files one request asks for. git-lfs does the same.
const BATCH: usize = 100;

/// A file's pointer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Pointer {
    /// The SHA-256 of its content, as 64 hexadecimal digits.
    pub(super) oid: String,
    /// Its size in bytes.
    pub(super) size: u64,
}

impl Pointer {
    /// Reads a pointer.
    fn of(text: &[u8]) -> Option<Self> {
        let mut lines = text.to_str().ok()?.lines();
        if lines.next()? != VERSION {
            return None;
        }
        let values: BTreeMap<_, _> = lines.filter_map(|line| line.split_once(' ')).collect();
        let oid = values.get("oid")?.strip_prefix("sha256:")?;
        let is_digest = oid.len() == 64 && oid.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then_some(())?;
        Some(Self {
            oid: oid.to_ascii_lowercase(),
            size: values.get("size")?.parse().ok()?,
        })
    }

    /// Where its content is kept in a repository.
    pub(super) fn content(&self, git_dir: &Path) -> PathBuf {
        let folder = git_dir.join("lfs").join("objects");
        folder
            .join(&self.oid[..2])
            .join(&self.oid[2..4])
            .join(&self.oid)
    }
}

/// The pointers among the files of an index, with the files' paths. A pointer counts only where the
/// attribute `filter=lfs` is set.
///
/// # Errors
/// When an object cannot be read.
pub(super) fn pointers(
    repo: &Repository,
    index: &gix::index::State,
) -> gix::Result<Vec<(BString, Pointer)>> {
    let source = gix::worktree::stack::state::attributes::Source::IdMapping;
    let mut attributes = repo.attributes_only(index, source)?;
    let mut filter = attributes.selected_attribute_matches(["filter"]);
    let mut found = Vec::new();
    for entry in index.entries() {
        let is_file = matches!(entry.mode, Mode::FILE | Mode::FILE_EXECUTABLE);
        if !is_file || repo.find_header(entry.id)?.size() >= POINTER_MAX {
            continue;
        }
        let Some(pointer) = Pointer::of(&repo.find_object(entry.id)?.data) else {
            continue;
        };
        let path = entry.path(index);
        attributes
            .at_entry(path, Some(entry.mode))
            .map_err(gix::Error::from_error)?
            .matching_attributes(&mut filter);
        let is_large = filter.iter_selected().any(|matched| {
            matched
                .assignment
                .state
                .as_bstr()
                .is_some_and(|value| value == "lfs")
        });
        if is_large {
            found.push((path.to_owned(), pointer));
        }
    }
    Ok(found)
}

/// Gets the contents of all pointers of a commit.
///
/// # Errors
/// When one of them cannot be had.
pub(super) fn fetch(
    repo: &Repository,
    commit: gix::ObjectId,
    from: &RepoUrl,
    network: &Rc<Network>,
    credentials: &Credentials,
) -> Result<(), FetchFault> {
    let read = || {
        let tree = repo.find_commit(commit)?.tree_id()?.detach();
        let index = repo.index_from_tree(&tree)?;
        pointers(repo, &index)
    };
    let found = read().map_err(|error| {
        FetchFault::last(format!("cannot read the large files: {}", words(&error)))
    })?;
    let git_dir = repo.git_dir();
    let mut missing: Vec<_> = found.into_iter().map(|(_, pointer)| pointer).collect();
    missing.sort();
    missing.dedup();
    missing.retain(|pointer| !pointer.content(git_dir).exists());
    if missing.is_empty() {
        return Ok(());
    }
    match from.local_path() {
        Some(path) => missing
            .iter()
            .try_for_each(|pointer| copy(pointer, &path, git_dir)),
        None => {
            let lfs = Lfs::of(from, network, credentials)?;
            missing
                .chunks(BATCH)
                .try_for_each(|batch| lfs.fetch(batch, git_dir))
        }
    }
}

/// Copies a content from a repository of this machine.
fn copy(pointer: &Pointer, repo: &Path, git_dir: &Path) -> Result<(), FetchFault> {
    let bare = pointer.content(repo);
    let source = match bare.exists() {
        true => bare,
        false => pointer.content(&repo.join(".git")),
    };
    let file = fs::File::open(&source).map_err(|_| {
        FetchFault::last(format!(
            "the large file {} is not in {}",
            pointer.oid,
            repo.display()
        ))
    })?;
    let mut content = Content::create(pointer, git_dir)?;
    let mut reader = io::BufReader::with_capacity(256 * 1024, file);
    loop {
        let chunk = io::BufRead::fill_buf(&mut reader).map_err(|error| content.failed(&error))?;
        if chunk.is_empty() {
            return content.finish();
        }
        let length = chunk.len();
        content.write(&Bytes::copy_from_slice(chunk))?;
        io::BufRead::consume(&mut reader, length);
    }
}

/// The server of a repository's large files.
struct Lfs {
    server: Server,
    network: Rc<Network>,
    batch: Url,
}

#[derive(Serialize)]
struct BatchRequest<'a> {
    operation: &'static str,
    transfers: [&'static str; 1],
    objects: &'a [Pointer],
    hash_algo: &'static str,
}

#[derive(Deserialize)]
struct BatchAnswer {
    objects: Vec<BatchObject>,
}

#[derive(Deserialize)]
struct BatchObject {
    oid: String,
    #[serde(default)]
    actions: BTreeMap<String, DownloadAction>,
    error: Option<ObjectError>,
}

#[derive(Deserialize)]
struct DownloadAction {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ObjectError {
    code: u16,
    message: String,
}

impl Lfs {
    fn of(
        repo: &RepoUrl,
        network: &Rc<Network>,
        credentials: &Credentials,
    ) -> Result<Self, FetchFault> {
        if !matches!(repo.kind(), RepoKind::Https | RepoKind::Http) {
            return Err(FetchFault::last(
                "large files (LFS) are fetched over https:// only, and this repository is reached over SSH",
            ));
        }
        let text = repo.as_str().trim_end_matches('/');
        let suffix = if text.ends_with(".git") { "" } else { ".git" };
        let batch = Url::parse(&format!("{text}{suffix}/info/lfs/objects/batch"))
            .map_err(|error| FetchFault::last(format!("not a URL: {error}")))?;
        Ok(Self {
            server: Server::new(Rc::clone(network), credentials.basic_for(repo)),
            network: Rc::clone(network),
            batch,
        })
    }

    fn fetch(&self, batch: &[Pointer], git_dir: &Path) -> Result<(), FetchFault> {
        let answer = self.ask(batch)?;
        for pointer in batch {
            let object = answer
                .objects
                .iter()
                .find(|object| object.oid == pointer.oid);
            let action = match object {
                Some(BatchObject {
                    error: Some(error), ..
                }) => {
                    return Err(FetchFault::last(format!(
                        "the large file {} cannot be had: {} ({})",
                        pointer.oid, error.message, error.code
                    )));
                }
                Some(object) => object.actions.get("download"),
                None => None,
            };
            let action = action.ok_or_else(|| {
                FetchFault::last(format!(
                    "the server does not say where the large file {} is",
                    pointer.oid
                ))
            })?;
            self.download(pointer, action, git_dir)?;
        }
        Ok(())
    }

    fn ask(&self, objects: &[Pointer]) -> Result<BatchAnswer, FetchFault> {
        let request = BatchRequest {
            operation: "download",
            transfers: ["basic"],
            objects,
            hash_algo: "sha256",
        };
        let unreadable = |error: &dyn std::fmt::Display| {
            FetchFault::last(format!("the LFS server's answer: {error}"))
        };
        let body = serde_json::to_vec(&request).map_err(|error| unreadable(&error))?;
        let mut response = self.server.send(Request {
            method: Method::POST,
            url: self.batch.clone(),
            headers: vec![(ACCEPT, JSON), (CONTENT_TYPE, JSON)],
            body: body.into(),
        })?;
        let mut text = Vec::new();
        while let Some(chunk) = self.server.next_chunk(&mut response)? {
            text.extend_from_slice(&chunk);
            if text.len() > ANSWER_MAX {
                return Err(unreadable(&format!("it is longer than {ANSWER_MAX} bytes")));
            }
        }
        serde_json::from_slice(&text).map_err(|error| unreadable(&error))
    }

    /// Downloads a content. Its server may be another one, which then gets the headers that our
    /// server gives for it, and no credential of ours.
    fn download(
        &self,
        pointer: &Pointer,
        action: &DownloadAction,
        git_dir: &Path,
    ) -> Result<(), FetchFault> {
        let url = Url::parse(&action.href)
            .map_err(|error| FetchFault::last(format!("a large file is at no URL: {error}")))?;
        if url.scheme() != self.batch.scheme() && url.scheme() != "https" {
            return Err(FetchFault::last(format!(
                "a large file is at a {}:// address",
                url.scheme()
            )));
        }
        let headers: Vec<_> = action
            .header
            .iter()
            .filter_map(|(name, value)| {
                let mut value = HeaderValue::from_str(value).ok()?;
                value.set_sensitive(true);
                Some((name.parse().ok()?, value))
            })
            .collect();
        let server = match headers.is_empty() {
            true => self.server.clone(),
            false => Server::new(Rc::clone(&self.network), None),
        };
        let mut response = server.send(Request {
            method: Method::GET,
            url,
            headers,
            body: Bytes::new(),
        })?;
        let mut content = Content::create(pointer, git_dir)?;
        while let Some(chunk) = server.next_chunk(&mut response)? {
            content.write(&chunk)?;
        }
        content.finish()
    }
}

/// A content that is being written. It gets its name only if it is the one that is meant.
struct Content<'a> {
    pointer: &'a Pointer,
    path: PathBuf,
    file: tempfile::NamedTempFile,
    hash: Sha256,
    size: u64,
}

impl<'a> Content<'a> {
    fn create(pointer: &'a Pointer, git_dir: &Path) -> Result<Self, FetchFault> {
        let path = pointer.content(git_dir);
        let folder = path.parent().unwrap_or(git_dir);
        let file =
            fs::create_dir_all(folder).and_then(|()| tempfile::NamedTempFile::new_in(folder));
        Ok(Self {
            pointer,
            file: file.map_err(|error| cannot_write(pointer, &error))?,
            path,
            hash: Sha256::new(),
            size: 0,
        })
    }

    fn failed(&self, error: &io::Error) -> FetchFault {
        cannot_write(self.pointer, error)
    }

    fn write(&mut self, chunk: &Bytes) -> Result<(), FetchFault> {
        self.size += chunk.len() as u64;
        if self.size > self.pointer.size {
            return Err(FetchFault::last(format!(
                "the large file {} is larger than its {} bytes",
                self.pointer.oid, self.pointer.size
            )));
        }
        self.hash.update(chunk);
        let written = self.file.write_all(chunk);
        written.map_err(|error| self.failed(&error))
    }

    fn finish(self) -> Result<(), FetchFault> {
        let digest = hex::encode(self.hash.finalize());
        if self.size != self.pointer.size || digest != self.pointer.oid {
            return Err(FetchFault::passing(format!(
                "the large file {} came damaged: {} bytes with the SHA-256 {digest}, not {}",
                self.pointer.oid, self.size, self.pointer.size
            )));
        }
        let persisted = self.file.persist(&self.path);
        persisted.map_err(|error| cannot_write(self.pointer, &error.error))?;
        Ok(())
    }
}

fn cannot_write(pointer: &Pointer, error: &io::Error) -> FetchFault {
    FetchFault::last(format!(
        "cannot write the large file {}: {error}",
        pointer.oid
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_read_and_other_text_is_not() {
        let oid = "ab".repeat(32);
        let text = format!("{VERSION}\noid sha256:{oid}\nsize 12345\n");
        let wanted = Pointer { oid, size: 12345 };
        assert_eq!(Pointer::of(text.as_bytes()), Some(wanted));
        for other in [
            String::new(),
            "hello".into(),
            text.replace("v1", "v9"),
            text.replace("sha256:ab", "sha256:zz"),
            text.replace("sha256:ab", "sha256:../"),
            text.replace("12345", "many"),
        ] {
            assert_eq!(Pointer::of(other.as_bytes()), None, "{other}");
        }
    }
}
