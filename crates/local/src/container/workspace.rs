//! Files for a container: what a folder of this machine holds is put into `/workspace` of a
//! container that was made and not started.

use std::{
    fs,
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bollard::{
    Docker, body_try_stream,
    errors::Error as Fault,
    models::{Mount, MountType, MountVolumeOptions},
    query_parameters::UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use runner::order::place;
use tokio::sync::mpsc;

use super::{PULL_TIMEOUT, owner::Owner, persistently};
use crate::failpoint;

/// How many bytes are sent at once.
const CHUNK: usize = 256 * 1024;
/// How many chunks wait to be sent.
const CHUNKS: usize = 4;

/// The mount of a volume of the container's own. It is removed with the container.
pub(super) fn mount() -> Mount {
    Mount {
        target: Some(place::WORKSPACE.to_owned()),
        typ: Some(MountType::VOLUME),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

/// Puts what `folder` holds into the container's volume. It will belong to `owner`.
pub(super) async fn fill(
    docker: &Docker,
    container: &str,
    folder: &Path,
    owner: Owner,
) -> Result<(), Fault> {
    let options = UploadToContainerOptionsBuilder::new()
        .path(place::WORKSPACE)
        .build();
    let docker = docker.clone().with_timeout(PULL_TIMEOUT);
    persistently(|| async {
        failpoint!("container.workspace.before");
        let packed = body_try_stream(packed(folder.to_owned(), owner));
        let filled = docker
            .upload_to_container(container, Some(options.clone()), packed)
            .await;
        failpoint!("container.workspace.after");
        filled
    })
    .await
}

/// The content of a folder as an archive.
fn packed(folder: PathBuf, owner: Owner) -> impl Stream<Item = io::Result<Bytes>> {
    let (send, receive) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = pack(&folder, owner, Chunks(send.clone())) {
            // Nobody receives any more if the engine has hung up.
            let _nobody = send.blocking_send(Err(error));
        }
    });
    stream::unfold(receive, async |mut receive| {
        let chunk = receive.recv().await?;
        Some((chunk, receive))
    })
}

fn pack(folder: &Path, owner: Owner, to: Chunks) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::with_capacity(CHUNK, to));
    append(&mut archive, folder, Path::new(""), owner)?;
    archive.into_inner()?.flush()
}

/// Appends what a folder holds. A fetched repository has files and folders only.
fn append(
    archive: &mut tar::Builder<impl Write>,
    folder: &Path,
    name: &Path,
    owner: Owner,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&path)?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        header.set_uid(owner.user);
        header.set_gid(owner.group);
        // Not as the umask of this machine's user has it: a command may become another user.
        let is_for_all = metadata.is_dir() || metadata.permissions().mode() & 0o111 != 0;
        header.set_mode(if is_for_all { 0o755 } else { 0o644 });
        if metadata.is_dir() {
            archive.append_data(&mut header, &name, io::empty())?;
            append(archive, &path, &name, owner)?;
        } else if metadata.is_file() {
            archive.append_data(&mut header, &name, fs::File::open(&path)?)?;
        }
    }
    Ok(())
}

/// The sending end of a stream of bytes.
struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
