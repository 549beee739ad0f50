//! Finding the files that patterns name.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use domain::{
    artifact::{ArtifactPath, BYTES_MAX, FILES_MAX},
    request::{ArtifactGlob, ArtifactPatterns},
};
use walkdir::{DirEntry, WalkDir};

/// The folder of a repository that is ours and not the command's.
const GIT: &str = ".git";

/// A file to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundFile {
    /// Its path below the command's folder.
    pub(super) path: ArtifactPath,
    /// Where it is. No part of it is a link.
    pub(super) at: PathBuf,
    /// Its length when it was found.
    pub(super) bytes: u64,
    /// Its permissions.
    pub(super) mode: u32,
}

/// The files that were found.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// The files, the smallest first.
    pub(super) files: Vec<FoundFile>,
    /// Reasons for which files that the patterns name are not among them, each with their number.
    pub(super) left_out: Vec<(String, usize)>,
}

/// Finds the files below `root` that the patterns name. The repository's own `.git` is not looked
/// into, and no link to a folder is followed. A link to a file is that file, if it is below `root`
/// too.
pub(super) fn files(root: &Path, globs: &[ArtifactGlob]) -> Collected {
    let mut collected = Collected::default();
    let (patterns, root) = match (ArtifactPatterns::of(globs), root.canonicalize()) {
        (Ok(patterns), Ok(root)) => (patterns, root),
        (Err(error), _) => {
            collected.left_out.push((error.to_string(), 1));
            return collected;
        }
        // The command has removed its own folder.
        (_, Err(error)) => {
            let why = format!("{}: {error}", root.display());
            collected.left_out.push((why, 1));
            return collected;
        }
    };
    let entries = WalkDir::new(&root).min_depth(1).into_iter();
    let is_wanted = |entry: &DirEntry| entry.depth() != 1 || entry.file_name() != GIT;
    for entry in entries.filter_entry(is_wanted) {
        match entry {
            Ok(entry) if entry.file_type().is_dir() => {}
            Ok(entry) => collected.add(&root, &entry, &patterns),
            Err(error) => collected.miss(&root, &error, &patterns),
        }
    }
    collected.limit();
    collected
}

impl Collected {
    fn add(&mut self, root: &Path, entry: &DirEntry, patterns: &ArtifactPatterns) {
        let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
        if !patterns.take(below) {
            return;
        }
        let found = ArtifactPath::of_bytes(below.as_os_str().as_bytes())
            .map_err(|error| (below.display().to_string(), error.to_string()))
            .and_then(|path| {
                let (at, metadata) = file(root, entry).map_err(|why| (path.to_string(), why))?;
                Ok(FoundFile {
                    path,
                    at,
                    bytes: metadata.len(),
                    mode: metadata.permissions().mode() & 0o777,
                })
            });
        match found {
            Ok(found) => self.files.push(found),
            Err((name, why)) => self.left_out.push((format!("{name}: {why}"), 1)),
        }
    }

    /// Notes a folder that cannot be read, if it may have files that the patterns name.
    fn miss(&mut self, root: &Path, error: &walkdir::Error, patterns: &ArtifactPatterns) {
        let Some(path) = error.path() else {
            return;
        };
        let below = path.strip_prefix(root).unwrap_or(path);
        if patterns.take(below) || patterns.take(&below.join("x")) {
            let why = error.io_error().map(ToString::to_string);
            let why = why.unwrap_or_else(|| error.to_string());
            self.left_out
                .push((format!("{}: {why}", below.display()), 1));
        }
    }

    /// Sorts the files, and leaves out those beyond the limits.
    fn limit(&mut self) {
        let order = |file: &FoundFile| (file.bytes, file.path.clone());
        self.files.sort_by_cached_key(order);
        let most = usize::try_from(FILES_MAX).unwrap_or(usize::MAX);
        if self.files.len() > most {
            let over = self.files.len() - most;
            let why = format!("a run keeps at most {FILES_MAX} files");
            self.left_out.push((why, over));
            self.files.truncate(most);
        }
        let mut bytes = 0;
        let fits = |file: &&FoundFile| {
            bytes += file.bytes;
            bytes <= BYTES_MAX
        };
        let count = self.files.iter().take_while(fits).count();
        if count < self.files.len() {
            let over = self.files.len() - count;
            let why = format!("a run keeps at most {BYTES_MAX} bytes");
            self.left_out.push((why, over));
            self.files.truncate(count);
        }
    }
}

/// The file that an entry is, or links to.
fn file(root: &Path, entry: &DirEntry) -> Result<(PathBuf, Metadata), String> {
    let words = |error: io::Error| error.to_string();
    if !entry.path_is_symlink() {
        let metadata = entry.metadata().map_err(|error| error.to_string())?;
        return match metadata.is_file() {
            true => Ok((entry.path().to_owned(), metadata)),
            false => Err("it is no file".to_owned()),
        };
    }
    let target = entry.path().canonicalize().map_err(words)?;
    if !target.starts_with(root) {
        return Err("it is a link that leads out of the command's folder".to_owned());
    }
    let metadata = fs::symlink_metadata(&target).map_err(words)?;
    match metadata.is_file() {
        true => Ok((target, metadata)),
        false => Err("it is a link to what is no file".to_owned()),
    }
}
