//! Files that a container leaves and that are to be kept. Its runner puts them into a volume, and
//! they are taken from there once it has ended.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read, Write as _},
    path::{Component, Path},
};

use bollard::{
    Docker, body_full,
    errors::Error as Fault,
    models::{Mount, MountType, MountVolumeOptions},
    query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder},
};
use bytes::Bytes;
use domain::{
    artifact::{BYTES_MAX, FILES_MAX, MANIFEST, MANIFEST_BYTES_MAX},
    upload::BATCHES_MAX,
};
use futures_util::StreamExt as _;
use runner::order::place;
use thiserror::Error;
use tokio::sync::mpsc;

use super::{
    PULL_TIMEOUT,
    error::{is_missing, plain},
    persistently,
};
use crate::{artifacts::draft_of, failpoint, host::is_for_want_of_room, removal::remove_folder};

/// Why files could not be taken out of a container.
#[derive(Debug, Error)]
pub enum TakeError {
    /// There is no room on this machine. It may be tried again.
    #[error("{0}")]
    NoRoom(io::Error),
    /// They are lost.
    #[error("{0}")]
    Lost(String),
}

impl TakeError {
    fn of(at: &Path, error: io::Error) -> Self {
        match is_for_want_of_room(&error) {
            true => Self::NoRoom(error),
            false => Self::Lost(format!("{}: {error}", at.display())),
        }
    }
}

/// How many chunks wait to be written.
const CHUNKS: usize = 4;

/// The mount of a volume of the container's own. It is removed with the container.
pub(super) fn mount() -> Mount {
    Mount {
        target: Some(place::ARTIFACTS.to_owned()),
        typ: Some(MountType::VOLUME),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

/// Makes the folder that every user of the container may write to.
pub(super) async fn prepare(docker: &Docker, container: &str) -> Result<(), Fault> {
    let options = UploadToContainerOptionsBuilder::new()
        .path(place::ARTIFACTS)
        .build();
    let archive = Bytes::from(empty_folder()?);
    persistently(|| async {
        failpoint!("container.artifacts.prepare.before");
        let body = body_full(archive.clone());
        let made = docker
            .upload_to_container(container, Some(options.clone()), body)
            .await;
        failpoint!("container.artifacts.prepare.after");
        made
    })
    .await
}

fn empty_folder() -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o777);
    header.set_size(0);
    archive.append_data(&mut header, format!("{}/", place::KEPT), io::empty())?;
    archive.into_inner()
}

/// Takes the files out of a container that has ended, into this folder, unless that was done
/// before. The command could write to the volume too, so only what has the form of a batch is
/// taken.
///
/// # Errors
/// [`TakeError`].
pub(super) async fn take(docker: &Docker, container: &str, into: &Path) -> Result<(), TakeError> {
    if into.exists() {
        return Ok(());
    }
    let draft = draft_of(into);
    let io = |error| TakeError::of(&draft, error);
    let unpacked = persistently(|| async {
        match remove_folder(&draft) {
            Ok(()) => unpack_all(docker, container, &draft).await,
            Err(error) => Ok(Err(error)),
        }
    });
    let has_any = match unpacked.await {
        Ok(unpacked) => unpacked.map_err(io),
        Err(fault) if is_missing(&fault) => Ok(false),
        Err(fault) => Err(TakeError::Lost(plain(&fault))),
    };
    if matches!(has_any, Ok(true)) {
        return fs::rename(&draft, into).map_err(io);
    }
    // It is tried again, or removed with the next one.
    let _left = remove_folder(&draft);
    has_any.map(drop)
}

/// Returns whether there was anything, or why it could not be written.
async fn unpack_all(
    docker: &Docker,
    container: &str,
    into: &Path,
) -> Result<io::Result<bool>, Fault> {
    let path = Path::new(place::ARTIFACTS).join(place::KEPT);
    let options = DownloadFromContainerOptionsBuilder::new()
        .path(&path.to_string_lossy())
        .build();
    let docker = docker.clone().with_timeout(PULL_TIMEOUT);
    failpoint!("container.artifacts.take.before");
    let mut parts = docker.download_from_container(container, Some(options));
    let (send, receive) = mpsc::channel(CHUNKS);
    let folder = into.to_owned();
    let unpacked =
        tokio::task::spawn_blocking(move || unpack(ReceivedChunks::new(receive), &folder));
    let mut fault = None;
    while let Some(part) = parts.next().await {
        match part {
            Ok(part) => {
                // Nobody receives any more if it could not be unpacked.
                if send.send(part).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                fault = Some(error);
                break;
            }
        }
    }
    drop(send);
    let unpacked = unpacked.await.map_err(io::Error::other);
    failpoint!("container.artifacts.take.after");
    fault.map_or_else(|| Ok(unpacked.flatten()), Err)
}

fn unpack(archive: ReceivedChunks, into: &Path) -> io::Result<bool> {
    let mut archive = tar::Archive::new(archive);
    let (mut bytes_left, mut files_left, mut lists_left) = (BYTES_MAX, FILES_MAX, BATCHES_MAX);
    let mut has_any = false;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let is_file = entry.header().entry_type() == tar::EntryType::Regular;
        let Some((batch, name)) = place_of(&entry.path()?).filter(|_| is_file) else {
            continue;
        };
        let too_much = || io::Error::other("it left more than the limits allow");
        let size = entry.size();
        if name == MANIFEST {
            lists_left = lists_left.checked_sub(1).ok_or_else(too_much)?;
            if size > MANIFEST_BYTES_MAX as u64 {
                return Err(too_much());
            }
        } else {
            files_left = files_left.checked_sub(1).ok_or_else(too_much)?;
            bytes_left = bytes_left.checked_sub(size).ok_or_else(too_much)?;
        }
        let folder = into.join(batch);
        fs::create_dir_all(&folder)?;
        let mut file = File::create(folder.join(name))?;
        io::copy(&mut entry, &mut file)?;
        file.flush()?;
        has_any = true;
    }
    Ok(has_any)
}

/// The batch and the name of an entry: `kept/3/17`, `kept/3/manifest`.
fn place_of(path: &Path) -> Option<(String, String)> {
    let parts: Vec<_> = path
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let is_number = |text: &str| {
        let number = text.parse::<u32>();
        number.is_ok_and(|number| number.to_string() == text)
    };
    match parts[..] {
        [place::KEPT, batch, name] if is_number(batch) && (name == MANIFEST || is_number(name)) => {
            Some((batch.to_owned(), name.to_owned()))
        }
        _ => None,
    }
}

/// The receiving end of a stream of bytes.
struct ReceivedChunks {
    receive: mpsc::Receiver<Bytes>,
    rest: VecDeque<u8>,
}

impl ReceivedChunks {
    fn new(receive: mpsc::Receiver<Bytes>) -> Self {
        Self {
            receive,
            rest: VecDeque::new(),
        }
    }
}

impl Read for ReceivedChunks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest
                .extend(self.receive.blocking_recv().unwrap_or_default());
        }
        self.rest.read(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_form_of_a_batch_is_taken() {
        let place = |path: &str| place_of(Path::new(path));
        let of = |batch: &str, name: &str| Some((batch.to_owned(), name.to_owned()));
        assert_eq!(place("kept/3/17"), of("3", "17"));
        assert_eq!(place("kept/0/manifest"), of("0", "manifest"));
        for path in [
            "kept",
            "kept/3",
            "other/3/17",
            "kept/03/1",
            "kept/x/1",
            "kept/1/../2",
            "kept/1/2/3",
            "/kept/1/2",
            "kept/../1/2",
            "kept/1/manifest.new",
            "kept/-1/2",
            "kept/1/+2",
        ] {
            assert_eq!(place(path), None, "{path}");
        }
    }
}
