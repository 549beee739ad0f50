//! Writing files whose paths come from somebody else.
//!
//! Each step is one name within an open folder, and no link is followed. So a path leads nowhere
//! else than below the folder, whatever is there already. A file appears whole, or not at all.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use domain::{api::ArtifactView, artifact::ArtifactPath};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, Mode, OFlags, fchmod, mkdirat, openat, renameat, unlinkat},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use crate::client::download::DownloadError;

/// The flags for a folder on the way.
const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::RDONLY)
    .union(OFlags::CLOEXEC);
/// The permissions that a file can be given.
const PERMISSIONS: u32 = 0o777;

/// A folder to write files into.
#[derive(Debug)]
pub(super) struct SaveFolder {
    top: OwnedFd,
}

impl SaveFolder {
    /// Opens the folder, and makes it if it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        // The user named it, so it may be a link.
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let top = openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { top })
    }

    /// Begins a file. Makes the folders on the way.
    ///
    /// # Errors
    /// When one cannot be made, or is something else.
    pub(super) fn draft(&self, path: &ArtifactPath) -> io::Result<FileDraft> {
        let bytes = path.bytes();
        let mut names: Vec<_> = bytes.split(|byte| *byte == b'/').collect();
        let name = names.pop().unwrap_or_default().to_vec();
        let mut folder = self.top.try_clone()?;
        for part in names {
            match mkdirat(&folder, part, Mode::from_raw_mode(PERMISSIONS as _)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            folder = openat(&folder, part, FOLDER, Mode::empty()).map_err(|error| {
                let part = String::from_utf8_lossy(part);
                match error {
                    Errno::LOOP | Errno::NOTDIR => {
                        io::Error::other(format!("{part} is there already, and is no folder"))
                    }
                    error => io::Error::from(error),
                }
            })?;
        }
        let draft = format!(
            ".mycli-{:016x}",
            getrandom::u64().map_err(io::Error::other)?
        );
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&folder, draft.as_str(), flags, mode)?;
        Ok(FileDraft {
            folder,
            draft,
            name,
            file: file.into(),
            hash: Sha256::new(),
            length: 0,
            is_done: false,
        })
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct FileDraft {
    folder: OwnedFd,
    /// Its name while it is written.
    draft: String,
    /// Its own name.
    name: Vec<u8>,
    file: File,
    hash: Sha256,
    length: u64,
    is_done: bool,
}

impl FileDraft {
    /// Writes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Gives the file its name, if it is the one that was kept.
    ///
    /// # Errors
    /// When it is another, or its name is taken by a folder.
    pub(super) fn finish(mut self, kept: &ArtifactView) -> Result<(), DownloadError> {
        let sha256 = hex::encode(std::mem::take(&mut self.hash).finalize());
        if self.length != kept.bytes || sha256 != kept.sha256 {
            let words = format!(
                "{} bytes with the SHA-256 {sha256}, instead of {} with {}",
                self.length, kept.bytes, kept.sha256
            );
            return Err(DownloadError::Damaged(words));
        }
        // No set-user-id bit: the file comes from somebody else.
        let mode = u32::from_str_radix(&kept.mode, 8).unwrap_or(0o644) & PERMISSIONS;
        fchmod(&self.file, Mode::from_raw_mode(mode as _)).map_err(io::Error::from)?;
        let name = std::ffi::OsStr::from_bytes(&self.name);
        renameat(&self.folder, self.draft.as_str(), &self.folder, name).map_err(io::Error::from)?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for FileDraft {
    fn drop(&mut self) {
        if !self.is_done {
            let _gone = unlinkat(&self.folder, self.draft.as_str(), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(path: &str, content: &[u8]) -> ArtifactView {
        ArtifactView {
            path: path.to_owned().try_into().expect("a path"),
            bytes: content.len() as u64,
            mode: "755".into(),
            sha256: hex::encode(Sha256::digest(content)),
            attempt: 1,
            url: String::new(),
        }
    }

    fn save(folder: &SaveFolder, file: &ArtifactView, content: &[u8]) -> Result<(), DownloadError> {
        let mut draft = folder.draft(&file.path)?;
        draft.write(content)?;
        draft.finish(file)
    }

    #[test]
    fn no_link_is_followed_and_nothing_is_left_of_a_failure() {
        let outside = tempfile::tempdir().expect("a folder");
        let inside = tempfile::tempdir().expect("a folder");
        let link = inside.path().join("link");
        std::os::unix::fs::symlink(outside.path(), &link).expect("a link");
        let folder = SaveFolder::open(inside.path()).expect("it opens");
        let through = save(&folder, &kept("link/a", b"x"), b"x");
        assert!(through.is_err_and(|error| error.to_string().contains("is no folder")));
        let damaged = save(&folder, &kept("b", b"x"), b"y");
        assert!(matches!(damaged, Err(DownloadError::Damaged(_))));
        save(&folder, &kept("link", b"x"), b"x").expect("the link itself is replaced");
        assert!(
            !fs::symlink_metadata(&link)
                .expect("it is there")
                .is_symlink()
        );
        save(&folder, &kept("a/b/%FF", b"x"), b"x").expect("it is saved");
        assert!(
            save(&folder, &kept("a/b", b"x"), b"x").is_err(),
            "a folder stays"
        );
        assert_eq!(
            fs::read_dir(outside.path()).expect("it is there").count(),
            0
        );
        let names: Vec<_> = fs::read_dir(inside.path())
            .expect("it is there")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
