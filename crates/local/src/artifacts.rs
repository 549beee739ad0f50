//! The files of runs that are kept on one machine: a folder for each attempt, as
//! [`domain::artifact`] describes it.

use std::{fs, io, path::PathBuf};

use domain::{
    artifact::{MANIFEST, Manifest},
    id::AttemptId,
    ports::{ArtifactReads, PortError},
    stored,
};
use url::Url;

use crate::removal::remove_folder;

/// The name of the folders in errors.
const ARTIFACTS: &str = "the artifacts' directory";

/// The kept files of one machine.
#[derive(Clone, Debug)]
pub struct LocalArtifacts {
    dir: PathBuf,
}

impl LocalArtifacts {
    /// Keeps files in this directory, which is made when the first one comes.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The folder of an attempt.
    #[must_use]
    pub fn folder(&self, attempt: &AttemptId) -> PathBuf {
        self.dir.join(attempt.to_string())
    }

    /// The attempts that have a folder.
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
            let name = entry?.file_name();
            attempts.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        Ok(attempts)
    }

    /// Removes the files of an attempt. Idempotent.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove(&self, attempt: &AttemptId) -> io::Result<()> {
        remove_folder(&self.folder(attempt))
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
        _name: &str,
    ) -> Result<String, PortError> {
        let folder = self.folder(attempt).join(batch.to_string());
        let path = folder.join(number.to_string());
        let not_absolute = |()| PortError::unavailable(ARTIFACTS, "its path is not absolute");
        let url = Url::from_file_path(path).map_err(not_absolute)?;
        Ok(url.into())
    }
}
