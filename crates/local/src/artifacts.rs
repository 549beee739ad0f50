//! The files of runs that are kept on one machine: a folder for each attempt, as
//! [`domain::artifact`] describes it.

pub(crate) mod links;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use axum::{http::request::Parts, response::Response};
use domain::{
    api::Problem,
    artifact::{MANIFEST, Manifest},
    id::AttemptId,
    ports::{ArtifactReads, Clock as _, PortError},
    stored,
};
use url::Url;

use self::links::FileLinks;
use crate::{removal::remove_folder, system::System};

/// The name of the folders in errors.
const ARTIFACTS: &str = "the artifacts' directory";

/// The ending of the name of a folder that is not whole yet.
const DRAFT: &str = "new";

/// The folder in which an attempt's folder is made.
pub(crate) fn draft_of(folder: &Path) -> PathBuf {
    folder.with_extension(DRAFT)
}

/// The kept files of one machine.
#[derive(Clone, Debug)]
pub struct LocalArtifacts {
    dir: PathBuf,
    /// The addresses of the server, if there is one.
    links: Arc<OnceLock<FileLinks>>,
}

impl LocalArtifacts {
    /// Keeps files in this directory, which is made when the first one comes.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            links: Arc::default(),
        }
    }

    /// From now on, files have addresses of a server that listens here.
    pub(crate) fn serve_at(&self, server: SocketAddr) {
        self.links.get_or_init(|| FileLinks::of(server));
    }

    /// The server's answer to a request for a file; `None` if the request is for something else.
    pub(crate) async fn answer(&self, request: &Parts) -> Option<Result<Response, Problem>> {
        self.links.get()?.answer(request, &self.dir).await
    }

    /// The folder of an attempt.
    #[must_use]
    pub fn folder(&self, attempt: &AttemptId) -> PathBuf {
        self.dir.join(attempt.to_string())
    }

    /// The attempts that have a folder, whole or not.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn attempts(&self) -> io::Result<Vec<AttemptId>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut attempts = Vec::new();
        for entry in entries {
            let name = PathBuf::from(entry?.file_name());
            let name = match name.extension().is_some_and(|ending| ending == DRAFT) {
                true => name.file_stem(),
                false => Some(name.as_os_str()),
            };
            attempts.extend(name.and_then(|name| name.to_str()?.parse::<AttemptId>().ok()));
        }
        attempts.sort();
        attempts.dedup();
        Ok(attempts)
    }

    /// Removes the files of an attempt. Idempotent.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove(&self, attempt: &AttemptId) -> io::Result<()> {
        let folder = self.folder(attempt);
        remove_folder(&draft_of(&folder))?;
        remove_folder(&folder)
    }
}

impl ArtifactReads for LocalArtifacts {
    async fn manifest(
        &self,
        attempt: &AttemptId,
        batch: u32,
    ) -> Result<Option<Manifest>, PortError> {
        let path = self.folder(attempt).join(batch.to_string()).join(MANIFEST);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| PortError::unavailable(ARTIFACTS, error))?,
        };
        let unreadable = |error| {
            let what = format!("the list of artifacts {}", path.display());
            PortError::corrupt(what, error)
        };
        let (manifest, _) = stored::read_text(&text).map_err(unreadable)?;
        Ok(Some(manifest))
    }

    async fn download(
        &self,
        attempt: &AttemptId,
        batch: u32,
        number: u32,
        name: &str,
    ) -> Result<String, PortError> {
        if let Some(links) = self.links.get() {
            let url = links.url(attempt, batch, number, name, System.now());
            let url = url.map_err(|error| PortError::invalid(ARTIFACTS, error))?;
            return Ok(url.into());
        }
        let folder = self.folder(attempt).join(batch.to_string());
        let path = folder.join(number.to_string());
        let not_absolute = |()| PortError::unavailable(ARTIFACTS, "its path is not absolute");
        let url = Url::from_file_path(path).map_err(not_absolute)?;
        Ok(url.into())
    }
}
