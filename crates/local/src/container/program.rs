//! The runner in containers. It comes in by a volume that all containers of one version share. The
//! volume is filled through the engine's archive API, since the engine may be on another machine,
//! and may not let containers read this one's files (SELinux, Docker Desktop).
//!
//! Several processes, of several users or machines, may fill a volume at the same time. Each writes
//! a file of its own, and then makes the program's name a link to it. So no container ever starts a
//! part of the program.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bollard::{
    Docker, body_full,
    errors::Error as Fault,
    models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder,
        ListContainersOptionsBuilder, ListVolumesOptions, RemoveContainerOptionsBuilder,
        RemoveVolumeOptions, UploadToContainerOptionsBuilder,
    },
};
use chrono::Utc;
use domain::{ports::Entropy as _, request::ImageRef};
use runner::{PROGRAM, order::place};
use tokio::sync::Mutex;

use super::{
    error::{is_conflict, is_missing, plain},
    persistently,
};
use crate::{failpoint, runner_program::ContainerProgram, system::System};

/// The label on the containers that fill a volume. Its value is the program's digest.
const FILLER_LABEL: &str = "mycli.runner";
/// The permissions of the program.
const MODE: u32 = 0o755;
/// How long to look for what other versions left.
const TIDY: Duration = Duration::from_secs(10);
/// The age in seconds from which on a container that fills a volume belongs to nobody any more.
const FILLER_AGE: i64 = 3600;

/// The volume with this mycli's program.
#[derive(Clone)]
pub(super) struct ProgramVolume {
    docker: Docker,
    program: Arc<ContainerProgram>,
    /// Whether the volume was seen to have the program.
    is_filled: Arc<Mutex<bool>>,
}

impl ProgramVolume {
    pub(super) fn new(docker: Docker, program: ContainerProgram) -> Self {
        Self {
            docker,
            program: Arc::new(program),
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
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        }
    }

    /// Sees to it that the program is there for a container that was made and not started.
    /// `image` is any image that the engine has.
    ///
    /// # Errors
    /// The engine's own reason.
    pub(super) async fn ensure(&self, container: &str, image: &ImageRef) -> Result<(), String> {
        let mut is_filled = self.is_filled.lock().await;
        if !*is_filled && !self.is_there(container).await? {
            self.fill(image).await?;
        }
        *is_filled = true;
        Ok(())
    }

    /// Forgets that the program was seen: a container could not start it. Somebody may have removed
    /// the volume.
    pub(super) async fn forget(&self) {
        *self.is_filled.lock().await = false;
    }

    async fn is_there(&self, container: &str) -> Result<bool, String> {
        let options = ContainerArchiveInfoOptionsBuilder::new()
            .path(&Self::path())
            .build();
        let found = persistently(|| async {
            failpoint!("container.program.look.before");
            let found = self
                .docker
                .get_container_archive_info(container, Some(options.clone()))
                .await;
            failpoint!("container.program.look.after");
            found
        });
        match found.await {
            // The link is made once the program is whole.
            Ok(found) => Ok(!found.link_target.is_empty()),
            Err(fault) if is_missing(&fault) => Ok(false),
            Err(fault) => Err(plain(&fault)),
        }
    }

    /// Fills the volume, by a container that is never started: the one that runs the program may
    /// only read it.
    async fn fill(&self, image: &ImageRef) -> Result<(), String> {
        let filler = format!("{PROGRAM}-filler-{:016x}", System.bits());
        let filled = self.fill_by(&filler, image).await;
        let removed = self.remove(&filler).await;
        filled.map_err(|fault| plain(&fault))?;
        removed.map_err(|fault| plain(&fault))
    }

    async fn fill_by(&self, filler: &str, image: &ImageRef) -> Result<(), Fault> {
        let body = ContainerCreateBody {
            image: Some(image.to_string()),
            // An image may have no command of its own, and engines then make no container of it.
            entrypoint: Some(vec![Self::path()]),
            labels: Some(HashMap::from([(
                FILLER_LABEL.to_owned(),
                self.program.digest.clone(),
            )])),
            host_config: Some(HostConfig {
                mounts: Some(vec![self.mount_as(false)]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        persistently(|| async {
            let options = CreateContainerOptionsBuilder::new().name(filler).build();
            failpoint!("container.program.create.before");
            let made = self
                .docker
                .create_container(Some(options), body.clone())
                .await;
            failpoint!("container.program.create.after");
            match made {
                // The answer to an earlier call was lost.
                Err(fault) if is_conflict(&fault) => Ok(()),
                made => made.map(drop),
            }
        })
        .await?;
        let archive = bytes::Bytes::from(archive(&self.program.bytes, filler)?);
        persistently(|| async {
            let options = UploadToContainerOptionsBuilder::new()
                .path(place::PROGRAMS)
                .build();
            failpoint!("container.program.fill.before");
            let filled = self
                .docker
                .upload_to_container(filler, Some(options), body_full(archive.clone()))
                .await;
            failpoint!("container.program.fill.after");
            filled
        })
        .await
    }

    /// Removes a container that fills a volume, with the volumes that its image declares.
    async fn remove(&self, container: &str) -> Result<(), Fault> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let removed = persistently(|| {
            self.docker
                .remove_container(container, Some(options.clone()))
        });
        match removed.await {
            Err(fault) if !is_missing(&fault) && !is_conflict(&fault) => Err(fault),
            _ => Ok(()),
        }
    }

    /// Removes what nobody needs any more: the volumes of other versions that no container uses,
    /// and containers that were to fill one when their mycli died.
    pub(super) async fn remove_others(&self) {
        match tokio::time::timeout(TIDY, self.try_remove_others()).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                tracing::warn!(error = plain(&fault), "a runner of another version stays");
            }
            Err(_) => tracing::warn!("the container engine does not answer"),
        }
    }

    async fn try_remove_others(&self) -> Result<(), Fault> {
        let filters = HashMap::from([("label", vec![FILLER_LABEL.to_owned()])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let old = Utc::now().timestamp() - FILLER_AGE;
        for filler in self.docker.list_containers(Some(options)).await? {
            if filler.created.is_some_and(|created| created < old) {
                self.remove(&filler.id.unwrap_or_default()).await?;
            }
        }
        let found = self.docker.list_volumes(None::<ListVolumesOptions>).await?;
        let own = self.name();
        let of_others = |name: &str| {
            let digest = name
                .strip_prefix(PROGRAM)
                .and_then(|rest| rest.strip_prefix('-'));
            name != own
                && digest.is_some_and(|digest| digest.len() == own.len() - PROGRAM.len() - 1)
        };
        for volume in found.volumes.unwrap_or_default() {
            if !of_others(&volume.name) {
                continue;
            }
            let removed = self
                .docker
                .remove_volume(&volume.name, None::<RemoveVolumeOptions>)
                .await;
            match removed {
                // One that is in use stays.
                Err(fault) if !is_missing(&fault) && !is_conflict(&fault) => return Err(fault),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The program as an archive: under a name that nobody else uses, and then the link to it.
fn archive(program: &[u8], name: &str) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::with_capacity(program.len() + 4096));
    let mut header = tar::Header::new_gnu();
    header.set_mode(MODE);
    header.set_size(program.len() as u64);
    archive.append_data(&mut header, name, program)?;
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_mode(0o777);
    link.set_size(0);
    archive.append_link(&mut link, PROGRAM, name)?;
    archive.into_inner()
}
