//! Finding the files that patterns name.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use domain::{
    artifact::{ArtifactPath, BYTES_MAX, FILES_MAX},
    container::place,
    request::{ArtifactGlob, ArtifactPatterns},
};
use walkdir::{DirEntry, WalkDir};

use crate::platform;

/// The folder of a repository that is ours and not the command's.
const GIT: &str = ".git";
/// The folders of ours that a command in a container's root has below it.
const OURS: [&str; 2] = [place::PROGRAMS, place::ARTIFACTS];

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
    /// Why a file that the patterns name is not among them: the first reason, and how many files
    /// that are.
    pub(super) left_out: Option<(String, usize)>,
}

/// Finds the files below `root` that the patterns name, until it is told to end. The repository's
/// own `.git` is not looked into, nor are what the kernel shows as files, our own folders, and
/// folders that the patterns cannot mean. No link to a folder is followed. A link to a file is that
/// file, if it is below `root` too.
pub(super) fn files(root: &Path, globs: &[ArtifactGlob], told: &AtomicBool) -> Collected {
    let mut collected = Collected::default();
    let (patterns, root) = match (ArtifactPatterns::of(globs), root.canonicalize()) {
        (Ok(patterns), Ok(root)) => (patterns, root),
        (Err(error), _) => {
            collected.leave_out(error.to_string(), 1);
            return collected;
        }
        // The command has removed its own folder.
        (_, Err(error)) => {
            collected.leave_out(format!("{}: {error}", root.display()), 1);
            return collected;
        }
    };
    let is_wanted = |entry: &DirEntry| {
        let is_git = entry.depth() == 1 && entry.file_name() == GIT;
        let may_be_in = || {
            let path = entry.path();
            patterns.may_be_in(below(&root, path))
                && !OURS.iter().any(|ours| path == Path::new(ours))
                && !platform::is_of_the_kernel(path)
        };
        !is_git && (!entry.file_type().is_dir() || may_be_in())
    };
    let entries = WalkDir::new(&root).min_depth(1).into_iter();
    for entry in entries.filter_entry(is_wanted) {
        if told.load(Ordering::Relaxed) {
            collected.leave_out("the search was ended before it was done".to_owned(), 1);
            break;
        }
        match entry {
            Ok(entry) if entry.file_type().is_dir() => {}
            Ok(entry) => collected.add(&root, &entry, &patterns),
            Err(error) => collected.miss(&root, &error, &patterns),
        }
        if collected.files.len() >= 2 * files_max() {
            collected.limit();
        }
    }
    collected.limit();
    collected
}

/// A path as the command's folder has it.
fn below<'a>(root: &Path, path: &'a Path) -> &'a Path {
    path.strip_prefix(root).unwrap_or(path)
}

fn files_max() -> usize {
    usize::try_from(FILES_MAX).unwrap_or(usize::MAX)
}

impl Collected {
    fn leave_out(&mut self, why: String, count: usize) {
        self.left_out.get_or_insert((why, 0)).1 += count;
    }

    fn add(&mut self, root: &Path, entry: &DirEntry, patterns: &ArtifactPatterns) {
        let below = below(root, entry.path());
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
            Err((name, why)) => self.leave_out(format!("{name}: {why}"), 1),
        }
    }

    /// Notes a folder that cannot be read, if it may have files that the patterns name.
    fn miss(&mut self, root: &Path, error: &walkdir::Error, patterns: &ArtifactPatterns) {
        let Some(path) = error.path() else {
            return;
        };
        let below = below(root, path);
        if patterns.take(below) || patterns.take(&below.join("x")) {
            let why = error.io_error().map(ToString::to_string);
            let why = why.unwrap_or_else(|| error.to_string());
            self.leave_out(format!("{}: {why}", below.display()), 1);
        }
    }

    /// Sorts the files, and leaves out those beyond the limits.
    fn limit(&mut self) {
        let order = |file: &FoundFile| (file.bytes, file.path.clone());
        self.files.sort_by_cached_key(order);
        if let Some(over) = self.files.len().checked_sub(files_max() + 1) {
            let why = format!("a run keeps at most {FILES_MAX} files");
            self.leave_out(why, over + 1);
            self.files.truncate(files_max());
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
            self.leave_out(why, over);
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
