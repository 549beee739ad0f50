//! The runner in containers. It comes in by a volume that all containers of one version share. The
//! volume is filled through the engine's archive API, since the engine may be on another machine,
//! and may not let containers read this one's files (SELinux, Docker Desktop).

use std::{
    collections::HashMap,
    fs::{self, File},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bollard::{
    Docker, body_full,
    errors::Error as Fault,
    models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder,
        ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
        UploadToContainerOptionsBuilder,
    },
};
use domain::request::ImageRef;
use runner::{PROGRAM, order::place};
use tokio::sync::Mutex;

use super::error::{is_conflict, is_missing, plain};
use crate::{failpoint, runner_program::ContainerProgram};

/// The label on the volumes. Its value is the program's digest.
const VOLUME_LABEL: &str = "mycli.runner";
/// The permissions of the program.
const MODE: u32 = 0o755;
/// How long to look for the volumes of other versions.
const TIDY: Duration = Duration::from_secs(10);

/// The volume with this mycli's program.
#[derive(Clone)]
pub(super) struct ProgramVolume {
    docker: Docker,
    program: Arc<ContainerProgram>,
    /// A folder that all processes of this user share, for a lock.
    shared: PathBuf,
    /// Whether the volume was seen to have the program.
    is_filled: Arc<Mutex<bool>>,
}

impl ProgramVolume {
    pub(super) fn new(docker: Docker, program: ContainerProgram, shared: PathBuf) -> Self {
        Self {
            docker,
            program: Arc::new(program),
            shared,
            is_filled: Arc::default(),
        }
    }

    fn name(&self) -> String {
        format!("{PROGRAM}-{}", self.program.digest)
    }

    /// The path of the program in a container.
    pub(super) fn path() -> String {
        format!("{}/{PROGRAM}", place::PROGRAMS)
    }

    /// The mount for a container that runs the program.
    pub(super) fn mount(&self) -> Mount {
        self.mount_as(true)
    }

    fn mount_as(&self, is_read_only: bool) -> Mount {
        Mount {
            target: Some(place::PROGRAMS.to_owned()),
            source: Some(self.name()),
            typ: Some(MountType::VOLUME),
            read_only: Some(is_read_only),
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(true),
                labels: Some(self.labels()),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        }
    }

    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(VOLUME_LABEL.to_owned(), self.program.digest.clone())])
    }

    /// Sees to it that the program is there for a container that was made and not started.
    /// `image` is any image that the engine has.
    ///
    /// # Errors
    /// The engine's own reason.
    pub(super) async fn ensure(&self, container: &str, image: &ImageRef) -> Result<(), String> {
        let mut is_filled = self.is_filled.lock().await;
        if !*is_filled && !self.is_there(container).await? {
            self.fill(container, image).await?;
        }
        *is_filled = true;
        Ok(())
    }

    /// Whether the program has gone since it was seen (somebody has removed the volume). The next
    /// [`Self::ensure`] then fills the volume.
    pub(super) async fn has_gone(&self, container: &str) -> bool {
        let mut is_filled = self.is_filled.lock().await;
        let is_there = self.is_there(container).await.unwrap_or(true);
        *is_filled = is_there;
        !is_there
    }

    async fn is_there(&self, container: &str) -> Result<bool, String> {
        let options = ContainerArchiveInfoOptionsBuilder::new()
            .path(&Self::path())
            .build();
        failpoint!("container.program.look.before");
        let found = self
            .docker
            .get_container_archive_info(container, Some(options))
            .await;
        failpoint!("container.program.look.after");
        match found {
            Ok(found) => Ok(u64::try_from(found.size) == Ok(self.program.bytes.len() as u64)),
            Err(fault) if is_missing(&fault) => Ok(false),
            Err(fault) => Err(plain(&fault)),
        }
    }

    /// Fills the volume, by a container that is never started: the one that runs the program may
    /// only read it. One process at a time does this, so that no other one starts half a program.
    async fn fill(&self, container: &str, image: &ImageRef) -> Result<(), String> {
        let lock = self.lock().await?;
        if self.is_there(container).await? {
            return Ok(());
        }
        let filler = format!("{}-filler", self.name());
        // One of a mycli that died may be there.
        self.remove(&filler).await?;
        let filled = self.fill_by(&filler, image).await;
        let removed = self.remove(&filler).await;
        drop(lock);
        filled.map_err(|fault| plain(&fault))?;
        removed
    }

    async fn fill_by(&self, filler: &str, image: &ImageRef) -> Result<(), Fault> {
        let body = ContainerCreateBody {
            image: Some(image.to_string()),
            // An image may have no command of its own, and engines then make no container of it.
            entrypoint: Some(vec![Self::path()]),
            labels: Some(self.labels()),
            host_config: Some(HostConfig {
                mounts: Some(vec![self.mount_as(false)]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(filler).build();
        failpoint!("container.program.create.before");
        self.docker.create_container(Some(options), body).await?;
        failpoint!("container.program.create.after");
        let options = UploadToContainerOptionsBuilder::new()
            .path(place::PROGRAMS)
            .build();
        let archive = archive(&self.program.bytes)?;
        failpoint!("container.program.fill.before");
        self.docker
            .upload_to_container(filler, Some(options), body_full(archive.into()))
            .await?;
        failpoint!("container.program.fill.after");
        Ok(())
    }

    async fn lock(&self) -> Result<File, String> {
        let path = self.shared.join("volume.lock");
        let locked = tokio::task::spawn_blocking(move || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let file = File::create(&path)?;
            file.lock()?;
            Ok(file)
        });
        let locked = locked.await.map_err(std::io::Error::other);
        locked
            .and_then(|locked| locked)
            .map_err(|error| format!("{} cannot be locked: {error}", self.shared.display()))
    }

    async fn remove(&self, container: &str) -> Result<(), String> {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        match self.docker.remove_container(container, Some(options)).await {
            Err(fault) if !is_missing(&fault) && !is_conflict(&fault) => Err(plain(&fault)),
            _ => Ok(()),
        }
    }

    /// Removes the volumes of other versions that no container uses.
    pub(super) async fn remove_others(&self) {
        let work = async {
            let filters = HashMap::from([("label", vec![VOLUME_LABEL.to_owned()])]);
            let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
            let found = self.docker.list_volumes(Some(options)).await?;
            let (volumes, own) = (found.volumes.unwrap_or_default(), self.name());
            for volume in volumes.iter().filter(|volume| volume.name != own) {
                let removed = self
                    .docker
                    .remove_volume(&volume.name, None::<RemoveVolumeOptions>)
                    .await;
                match removed {
                    Err(fault) if !is_missing(&fault) && !is_conflict(&fault) => return Err(fault),
                    _ => {}
                }
            }
            Ok::<_, Fault>(())
        };
        match tokio::time::timeout(TIDY, work).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                tracing::warn!(error = plain(&fault), "a volume of another version stays");
            }
            Err(_) => tracing::warn!("the container engine does not answer"),
        }
    }
}

/// The program as an archive.
fn archive(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(MODE);
    header.set_size(program.len() as u64);
    let mut archive = tar::Builder::new(Vec::with_capacity(program.len() + 4096));
    archive.append_data(&mut header, PROGRAM, program)?;
    archive.into_inner()
}
