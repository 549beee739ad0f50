//! Keeping files in a folder, on one machine.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use domain::{
    artifact::{MANIFEST, Manifest, StoredFile},
    stored,
};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::{Kept, collect::FoundFile};

/// How many bytes are copied at once.
const CHUNK: usize = 256 * 1024;

/// Why a file is not kept.
#[derive(Debug)]
enum PutError {
    /// This file cannot be read.
    File(String),
    /// Nothing can be written any more.
    Destination(String),
}

/// A folder with a folder for each batch.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    fn batch(&self, batch: u32) -> PathBuf {
        self.path.join(batch.to_string())
    }

    /// Copies the files of a batch.
    pub(super) fn put(&self, batch: u32, files: &[FoundFile]) -> Kept {
        let mut kept = Kept::default();
        for (number, file) in (0..).zip(files) {
            let index = usize::try_from(number).unwrap_or_default();
            if let Some(why) = &kept.fatal {
                kept.lost.push((index, why.clone()));
                continue;
            }
            match self.put_one(batch, number, file) {
                Ok(stored) => kept.stored.push(stored),
                Err(PutError::File(why)) => kept.lost.push((index, why)),
                Err(PutError::Destination(why)) => {
                    kept.lost.push((index, why.clone()));
                    kept.fatal = Some(why);
                }
            }
        }
        kept.is_begun = !kept.stored.is_empty();
        kept
    }

    fn put_one(&self, batch: u32, number: u32, file: &FoundFile) -> Result<StoredFile, PutError> {
        let from = open(&file.at).map_err(|error| PutError::File(error.to_string()))?;
        let folder = self.batch(batch);
        let to = folder.join(number.to_string());
        let cannot_write = |error: io::Error| PutError::Destination(error.to_string());
        fs::create_dir_all(&folder).map_err(cannot_write)?;
        let copied = File::create(&to)
            .map_err(cannot_write)
            .and_then(|to| copy(from, file.bytes, to));
        if copied.is_err() {
            let _not_there = fs::remove_file(&to);
        }
        let (bytes, sha256) = copied?;
        Ok(StoredFile {
            number,
            path: file.path.clone(),
            bytes,
            mode: file.mode,
            sha256,
        })
    }

    /// Writes the manifest of a batch. Nobody sees a part of it.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub(super) fn finish(&self, batch: u32, manifest: &Manifest) -> Result<(), String> {
        let folder = self.batch(batch);
        let text = stored::write_text(manifest, &stored::Unknown::default())
            .map_err(|error| error.to_string())?;
        let draft = folder.join(format!("{MANIFEST}.new"));
        fs::write(&draft, text)
            .and_then(|()| fs::rename(draft, folder.join(MANIFEST)))
            .map_err(|error| error.to_string())
    }
}

/// Opens a file, and nothing else: opening a pipe would wait for its other end.
///
/// # Errors
/// When it cannot be opened, or is no file any more.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file any more")),
    }
}

/// Copies as much of a file as it had when it was found, which is all unless it grows. Returns the
/// length of the copy and its SHA-256.
fn copy(mut from: File, most: u64, mut to: File) -> Result<(u64, String), PutError> {
    let (mut hash, mut length, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
    let mut limited = (&mut from).take(most);
    loop {
        let read = match limited.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(PutError::File(error.to_string())),
        };
        let part = &chunk[..read];
        hash.update(part);
        to.write_all(part)
            .map_err(|error| PutError::Destination(error.to_string()))?;
        length += part.len() as u64;
    }
    Ok((length, hex::encode(hash.finalize())))
}
