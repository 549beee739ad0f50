//! Getting the files of a run.

mod folder;

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use domain::{
    api::{ArtifactView, ArtifactsView, ExecutionView},
    id::ExecutionId,
    patience::{Patience, Setback},
    request::{ArtifactGlob, ArtifactPatterns},
};
use futures_util::{StreamExt as _, stream};
use url::Url;

use self::folder::SaveFolder;
use crate::{
    client::{
        Client,
        download::{self, DownloadError},
    },
    failure::Failure,
    terminal::screen,
};

/// How many files are downloaded at once: enough that the network's delay does not matter.
const AT_ONCE: usize = 8;
/// How often an address that has expired is asked for anew. Each time, files have come meanwhile.
const REFRESHES: u32 = 100;

/// The files to get.
pub(crate) struct Wanted {
    /// The number of the attempt; the last one if there is none.
    pub(crate) attempt: Option<u32>,
    /// The patterns for the files; all files if there are none.
    pub(crate) globs: Option<ArtifactPatterns>,
    /// The folder to put them into.
    pub(crate) to: PathBuf,
}

/// The files that were got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// How many.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl Counted {
    /// The result in words.
    pub(crate) fn words(self, to: &Path) -> String {
        let files = match self.files {
            1 => "1 file".to_owned(),
            files => format!("{files} files"),
        };
        format!("{files} with {} bytes in {}", self.bytes, to.display())
    }
}

/// Reads patterns for paths.
///
/// # Errors
/// One is no pattern.
pub(crate) fn patterns(globs: &[String]) -> Result<Option<ArtifactPatterns>, Failure> {
    let read = |glob: &String| {
        let read = glob.parse::<ArtifactGlob>();
        read.map_err(|error| Failure::Usage(format!("GLOB {error}")))
    };
    let globs = globs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let patterns = (!globs.is_empty()).then(|| ArtifactPatterns::of(&globs));
    patterns.transpose().map_err(Failure::other)
}

/// Gets the files of a run. `told` is called with the path of each.
///
/// # Errors
/// One cannot be had, or not be written. Those before it are there.
pub(crate) async fn get(
    client: &Client,
    id: &ExecutionId,
    wanted: &Wanted,
    told: impl Fn(&str) -> Result<(), Failure>,
) -> Result<Counted, Failure> {
    let mut to = None;
    let (mut counted, mut cursor, mut refreshes) = (Counted::default(), None::<String>, 0);
    let mut done = 0;
    loop {
        let page = client
            .artifacts(id, wanted.attempt, cursor.as_deref())
            .await?
            .value;
        let is_wanted = |file: &&ArtifactView| {
            let globs = wanted.globs.as_ref();
            globs.is_none_or(|globs| globs.take(Path::new(OsStr::from_bytes(&file.path.bytes()))))
        };
        let files: Vec<_> = page.artifacts.iter().filter(is_wanted).skip(done).collect();
        let folder = match (&mut to, files.is_empty()) {
            (Some(folder), _) => Some(&*folder),
            (to, false) => Some(&*to.insert(open(&wanted.to)?)),
            (None, true) => None,
        };
        let mut downloads = stream::iter(files.iter().filter_map(|file| Some((file, folder?))))
            .map(async |(file, folder)| (*file, one(client, file, folder).await))
            .buffered(AT_ONCE);
        let mut has_expired = false;
        while let Some((file, got)) = downloads.next().await {
            match got {
                Ok(()) => {
                    done += 1;
                    counted.files += 1;
                    counted.bytes += file.bytes;
                    let path = screen::one_line(file.path.as_str(), usize::MAX);
                    told(&path)?;
                }
                Err(DownloadError::Expired) if refreshes < REFRESHES => {
                    has_expired = true;
                    break;
                }
                Err(error) => return Err(failed(file, &error)),
            }
        }
        if has_expired {
            refreshes += 1;
            continue;
        }
        let Some(next) = page.next_cursor else {
            return Ok(counted);
        };
        (cursor, done) = (Some(next), 0);
    }
}

fn open(to: &Path) -> Result<SaveFolder, Failure> {
    SaveFolder::open(to).map_err(|error| {
        Failure::Other(format!(
            "failed to make the folder {}: {error}",
            to.display()
        ))
    })
}

fn failed(file: &ArtifactView, error: &DownloadError) -> Failure {
    let path = screen::one_line(file.path.as_str(), usize::MAX);
    Failure::Other(format!("failed to get {path}: {error}"))
}

/// Gets one file, several times if the connection breaks.
async fn one(
    client: &Client,
    file: &ArtifactView,
    folder: &SaveFolder,
) -> Result<(), DownloadError> {
    let url = Url::parse(&file.url).map_err(|error| DownloadError::Read {
        reason: error.to_string(),
        may_pass: false,
    })?;
    let (begun, mut tried) = (tokio::time::Instant::now(), 0);
    loop {
        tried += 1;
        let error = match once(client, file, &url, folder).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let may_pass = match &error {
            DownloadError::Damaged(_) => true,
            DownloadError::Read { may_pass, .. } => *may_pass,
            DownloadError::Expired | DownloadError::Write(_) => false,
        };
        let chance = getrandom::u32().unwrap_or_default();
        let pause = Patience::Short.pause(tried, begun.elapsed(), Setback::Unreachable, chance);
        match pause.filter(|_| may_pass) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(error),
        }
    }
}

async fn once(
    client: &Client,
    file: &ArtifactView,
    url: &Url,
    folder: &SaveFolder,
) -> Result<(), DownloadError> {
    let mut draft = folder.draft(&file.path)?;
    download::read(client, url, |bytes| draft.write(bytes)).await?;
    draft.finish(file)
}

/// Why there is nothing to get.
pub(crate) fn nothing(run: &ExecutionView, globs: &[String]) -> Failure {
    let id = &run.execution_id;
    let Some(artifacts) = &run.request.artifacts else {
        return Failure::Nothing(format!(
            "{id} keeps no files: name them with --artifact when you run it"
        ));
    };
    let why = match (&artifacts.reason, artifacts.files) {
        (_, Some(files)) if files > 0 && !globs.is_empty() => {
            format!("none of the {files} files of {id} has such a path")
        }
        (_, Some(files)) if files > 0 => match artifacts.expires_at {
            Some(at) => {
                format!("the {files} files of {id} were removed; they were kept until {at}")
            }
            None => format!("the {files} files of {id} are no longer there"),
        },
        (Some(reason), _) => format!(
            "{id} left no files: {}",
            screen::one_line(reason, usize::MAX)
        ),
        (None, Some(_)) => format!(
            "{id} left no files that {} names",
            artifacts.globs.join(", ")
        ),
        (None, None) => format!("{id} is not over, and has kept no files yet"),
    };
    Failure::Nothing(why)
}

/// The words for a set of files that is not complete.
pub(crate) fn incomplete(artifacts: &ArtifactsView) -> Option<String> {
    if artifacts.complete != Some(false) {
        return None;
    }
    let reason = artifacts.reason.as_deref().unwrap_or("no reason is known");
    let reason = screen::one_line(reason, usize::MAX);
    Some(format!("the files are not complete: {reason}"))
}
