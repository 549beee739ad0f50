//! Artifacts: the files of a run that outlive its task.
//!
//! The runner takes them in batches. A batch has some files under numbers, and a manifest with
//! their names. The manifest is written last, so each file that it names is there. On AWS both are
//! objects of a bucket, `artifacts/<execution>/<attempt>/<batch>/<number>`; on one machine they are
//! files with such paths.

use std::{cmp::Reverse, fmt::Write as _};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Timestamp, request::ArtifactsOn};

/// The most files of one attempt. We chose it: a list of them is still read by a person, and it is
/// as many as one bulk submission has runs.
pub const FILES_MAX: u32 = 10_000;
/// The most bytes of one attempt: 20 GB. A task's disk has 20 GB by default (ECS Developer Guide,
/// "Fargate task ephemeral storage").
pub const BYTES_MAX: u64 = 20_000_000_000;
/// The most files of a batch: as many as one call of our API signs URLs for.
pub const BATCH_FILES_MAX: usize = 500;
/// The most bytes of a batch that has more than one file. The runner holds them in memory while
/// they are uploaded, and the smallest task has 512 MB.
pub const BATCH_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The longest path, in bytes (Linux, `PATH_MAX`).
pub const PATH_MAX: usize = 4096;
/// The longest name of a file or folder, in bytes (Linux, `NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// The largest manifest, in bytes: [`BATCH_FILES_MAX`] files whose paths are as long as they can
/// be, with each byte encoded.
pub const MANIFEST_BYTES_MAX: usize = BATCH_FILES_MAX * (3 * PATH_MAX + 256);

/// The file name of a batch's manifest. The names of its files are numbers.
pub const MANIFEST: &str = "manifest";

/// A path below the folder that a command starts in: parts that are separated by `/`, none of them
/// empty, `.` or `..`. As text, `%` and bytes that are no UTF-8 are percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactPath(String);

/// Why something is not an [`ArtifactPath`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArtifactPathError {
    /// It leads somewhere else than below its folder.
    #[error("it does not stay below its folder")]
    Outside,
    /// It is longer than a system takes.
    #[error("it is longer than {PATH_MAX} bytes, or a part of it than {NAME_MAX}")]
    TooLong,
    /// Its percent-encoding is broken, or a byte is encoded that need not be.
    #[error("it is not percent-encoded as mycli does it")]
    Encoding,
}

impl ArtifactPath {
    /// The path that these bytes are.
    ///
    /// # Errors
    /// [`ArtifactPathError`].
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, ArtifactPathError> {
        check(bytes)?;
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(&chunk.valid().replace('%', "%25"));
            for byte in chunk.invalid() {
                // Writing to a text cannot fail.
                let _written = write!(text, "%{byte:02X}");
            }
        }
        Ok(Self(text))
    }

    /// The path as a system has it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        decoded(&self.0).unwrap_or_default()
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the file, as text.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

fn check(bytes: &[u8]) -> Result<(), ArtifactPathError> {
    let mut parts = bytes.split(|byte| *byte == b'/');
    let is_odd = |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.contains(&0);
    if parts.clone().any(is_odd) {
        return Err(ArtifactPathError::Outside);
    }
    if bytes.len() > PATH_MAX || parts.any(|part| part.len() > NAME_MAX) {
        return Err(ArtifactPathError::TooLong);
    }
    Ok(())
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
        } else {
            let digits = tail
                .get(..2)
                .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            let code = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            bytes.push(code);
            rest = &tail[2..];
        }
    }
    Some(bytes)
}

impl TryFrom<String> for ArtifactPath {
    type Error = ArtifactPathError;

    /// Reads a path as text. Each path has one text only, so no two entries name one file.
    fn try_from(text: String) -> Result<Self, ArtifactPathError> {
        let bytes = decoded(&text).ok_or(ArtifactPathError::Encoding)?;
        let path = Self::of_bytes(&bytes)?;
        if path.0 == text {
            Ok(path)
        } else {
            Err(ArtifactPathError::Encoding)
        }
    }
}

impl From<ArtifactPath> for String {
    fn from(path: ArtifactPath) -> Self {
        path.0
    }
}

impl std::fmt::Display for ArtifactPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// The manifest of a batch, a stored form ([`crate::stored`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The files that are there, at most [`BATCH_FILES_MAX`].
    pub files: Vec<StoredFile>,
}

/// A file of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its number in the batch, from 0.
    pub number: u32,
    /// Its path.
    pub path: ArtifactPath,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its permissions, as `chmod` has them.
    pub mode: u32,
    /// Its SHA-256, as 64 hexadecimal digits.
    pub sha256: String,
}

/// The value of the marker line `uploaded`: the files that an attempt kept, and left out.
///
/// It is written `<files>:<bytes>`, and `<files>:<bytes>:<reason>` if the set is not complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadSummary {
    /// How many files are kept.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Why the set is not complete; `None` if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl UploadSummary {
    /// The value of the marker line. A reason is one line.
    #[must_use]
    pub fn written(&self) -> String {
        let Self {
            files,
            bytes,
            reason,
        } = self;
        match reason {
            Some(reason) => {
                let line: String = reason
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .collect();
                format!("{files}:{bytes}:{line}")
            }
            None => format!("{files}:{bytes}"),
        }
    }

    /// Reads the value of a marker line.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (files, bytes) = (u32::try_from(number()?).ok()?, number()?);
        Some(Self {
            files,
            bytes,
            reason: parts.next().map(str::to_owned),
        })
    }
}

/// An [`UploadSummary`] and the time of its marker line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// When the upload was over.
    pub at: Timestamp,
    /// The files that are kept.
    #[serde(flatten)]
    pub summary: UploadSummary,
}

impl Uploaded {
    /// The order in which lines correct each other, whatever order they are read in.
    pub(crate) fn order(&self) -> impl Ord + '_ {
        let summary = &self.summary;
        (self.at, Reverse(summary.files), &summary.reason)
    }
}

impl ArtifactsOn {
    /// Whether the files are kept after this end of a command.
    #[must_use]
    pub fn includes(self, succeeded: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Success => succeeded,
            Self::Failure => !succeeded,
        }
    }
}

/// The value of the header `Content-Disposition` by which a browser saves a file under a name,
/// whatever the name holds (RFC 6266, RFC 8187).
#[must_use]
pub fn attachment(name: &str) -> String {
    let mut header = "attachment; filename*=UTF-8''".to_owned();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                header.push(char::from(byte));
            }
            // Writing to a text cannot fail.
            _ => drop(write!(header, "%{byte:02X}")),
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_stays_below_its_folder() {
        for text in [
            "a", "a/b c", "…/ü", "a\nb", "..a", "a..", "100%25", "%FF/x", "C:/x",
        ] {
            let read = ArtifactPath::try_from(text.to_owned());
            assert_eq!(read.map(String::from), Ok(text.to_owned()));
        }
        for text in [
            "", "/", "/a", "a/", "a//b", ".", "./a", "..", "a/../b", "a\0", "%2E%2E",
        ] {
            let read = ArtifactPath::try_from(text.to_owned());
            assert!(read.is_err(), "{text}: {read:?}");
        }
        for text in ["%", "%4", "%GG", "%41", "%ff", "%2F"] {
            let read = ArtifactPath::try_from(text.to_owned());
            assert!(read.is_err(), "{text}: {read:?}");
        }
        let long = "x".repeat(NAME_MAX + 1);
        assert_eq!(
            ArtifactPath::try_from(long),
            Err(ArtifactPathError::TooLong)
        );
        let deep = "x/".repeat(PATH_MAX / 2) + "x";
        assert_eq!(
            ArtifactPath::try_from(deep),
            Err(ArtifactPathError::TooLong)
        );
    }

    #[test]
    fn a_summary_is_read_as_it_was_written() {
        let whole = UploadSummary {
            files: 3,
            bytes: 17,
            reason: None,
        };
        let partial = UploadSummary {
            reason: Some("1 of 4 files: disk full: no".into()),
            ..whole.clone()
        };
        for summary in [whole, partial] {
            assert_eq!(UploadSummary::read(&summary.written()), Some(summary));
        }
        for text in ["", "3", "3:", "-1:2", "x:y", "3:4x"] {
            assert_eq!(UploadSummary::read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_that_are_a_path_are_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(path) = ArtifactPath::of_bytes(&bytes) {
                prop_assert_eq!(path.bytes(), bytes);
                prop_assert_eq!(ArtifactPath::try_from(String::from(path.clone())), Ok(path));
            }
        }
    }
}
