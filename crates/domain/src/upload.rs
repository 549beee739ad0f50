//! The upload of an attempt's files: what the runner asks of our API, and what it may have.
//!
//! The runner sends the files straight to S3, by requests that the API has signed. Each signature
//! covers the length and the SHA-256 of what is sent, so S3 takes nothing else. Before it signs, the
//! API records the batch, with the sums of all batches so far. So the limits hold however often a
//! runner asks, and the same question has the same answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    api::Problem,
    artifact::{BATCH_BYTES_MAX, BATCH_FILES_MAX, BYTES_MAX, FILES_MAX, MANIFEST_BYTES_MAX},
    ecs::KeyValuePair,
    request::FieldError,
};

/// The bytes of each part of a large file but the last. The runner holds four of them in memory. S3
/// takes parts from 5 MiB on and 10,000 of them (S3 User Guide, "Multipart upload limits").
pub const PART_BYTES: u64 = 16 * 1024 * 1024;
/// The most URLs in one answer.
pub const URLS_MAX: usize = 500;
/// How many seconds a signed request is good for. A part of 16 MiB takes a minute on a slow line.
pub const URL_SECONDS: u64 = 900;
/// The largest body of `POST /attempts/{id}/uploads`, in bytes: 500 files or parts, or the tags of
/// all parts of the largest file.
pub const UPLOAD_BODY_MAX: usize = 512 * 1024;
/// The most batches of an attempt: as many as 20 GB of files can make that are just too large to
/// share one, and those of 10,000 small files.
pub const BATCHES_MAX: u32 = 2_000;

/// The body of `POST /attempts/{id}/uploads`: one step of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum UploadStep {
    /// Begins a batch of files that are sent as a whole. The answer has a request for each.
    Files {
        /// The number of the batch, from 0, without gaps.
        batch: u32,
        /// The files, in the order of their numbers.
        files: Vec<FileToUpload>,
    },
    /// Begins a batch of one file that is sent in parts. The answer has no requests.
    Large {
        /// The number of the batch.
        batch: u32,
        /// The file's length.
        bytes: u64,
    },
    /// Asks for requests for consecutive parts of a large file.
    Parts {
        /// The number of the batch.
        batch: u32,
        /// The number of the first part, from 1.
        first: u32,
        /// The SHA-256 of each part, in hexadecimal digits.
        sha256: Vec<String>,
    },
    /// Ends a large file, of which all parts were sent.
    Complete {
        /// The number of the batch.
        batch: u32,
        /// The parts, in their order.
        parts: Vec<UploadedPart>,
    },
    /// Asks for a request for a batch's manifest.
    Manifest {
        /// The number of the batch.
        batch: u32,
        /// The manifest's length.
        bytes: u64,
        /// Its SHA-256, in hexadecimal digits.
        sha256: String,
    },
}

/// A file that is sent as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileToUpload {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// A part that S3 has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadedPart {
    /// S3's tag of the part.
    pub etag: String,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// The answer to `GET /attempts/{id}/request`: what of a request is too large for the overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRequest {
    /// The variables of `main` that follow from the request.
    pub environment: Vec<KeyValuePair>,
}

/// The answer to a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAnswer {
    /// The requests to make, in the order of what was asked for.
    pub requests: Vec<SignedRequest>,
}

/// A `PUT` that S3 takes for a while, with exactly these headers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRequest {
    /// The address.
    pub url: String,
    /// The headers that the signature covers.
    pub headers: BTreeMap<String, String>,
}

impl std::fmt::Debug for SignedRequest {
    /// Hides the address, which is a secret while it is good.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignedRequest(…)")
    }
}

/// A batch as it is recorded, a stored form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadBatch {
    /// Its number.
    pub number: u32,
    /// The hash of what was asked for.
    pub digest: String,
    /// The files of this batch and of those before it.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
    /// The length of its file and S3's id of its upload, if it is sent in parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large: Option<LargeUpload>,
}

/// A file that is sent in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeUpload {
    /// The file's length.
    pub bytes: u64,
    /// S3's id of the upload.
    pub id: String,
}

impl LargeUpload {
    /// How many parts it has.
    #[must_use]
    pub fn parts(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(PART_BYTES)).unwrap_or(u32::MAX)
    }

    /// The length of a part, from 1; `None` if there is no such part.
    #[must_use]
    pub fn part_bytes(&self, part: u32) -> Option<u64> {
        let before = u64::from(part.checked_sub(1)?) * PART_BYTES;
        let left = self.bytes.checked_sub(before).filter(|left| *left > 0)?;
        Some(left.min(PART_BYTES))
    }
}

impl UploadStep {
    /// The number of the batch that it is about.
    #[must_use]
    pub fn batch(&self) -> u32 {
        match self {
            Self::Files { batch, .. }
            | Self::Large { batch, .. }
            | Self::Parts { batch, .. }
            | Self::Complete { batch, .. }
            | Self::Manifest { batch, .. } => *batch,
        }
    }

    /// Checks the step by itself.
    ///
    /// # Errors
    /// All faults.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, message: String| {
            faults.push(FieldError {
                field: field.to_owned(),
                message,
            });
        };
        if self.batch() >= BATCHES_MAX {
            fault(
                "batch",
                format!(
                    "is {}: an attempt has at most {BATCHES_MAX} batches",
                    self.batch()
                ),
            );
        }
        let hashes: Vec<&str> = match self {
            Self::Files { files, .. } => {
                if files.is_empty() || files.len() > BATCH_FILES_MAX {
                    fault(
                        "files",
                        format!("has {} files: give 1 to {BATCH_FILES_MAX}", files.len()),
                    );
                }
                let bytes: u64 = files
                    .iter()
                    .map(|file| file.bytes)
                    .fold(0, u64::saturating_add);
                if bytes > BATCH_BYTES_MAX {
                    fault(
                        "files",
                        format!("has {bytes} bytes: the limit is {BATCH_BYTES_MAX}"),
                    );
                }
                files.iter().map(|file| &*file.sha256).collect()
            }
            Self::Large { bytes, .. } => {
                if *bytes <= BATCH_BYTES_MAX {
                    fault(
                        "bytes",
                        format!(
                            "is {bytes}: a file of up to {BATCH_BYTES_MAX} bytes is sent as a whole"
                        ),
                    );
                }
                Vec::new()
            }
            Self::Parts { sha256, .. } => {
                if sha256.is_empty() || sha256.len() > URLS_MAX {
                    fault(
                        "sha256",
                        format!("has {} parts: give 1 to {URLS_MAX}", sha256.len()),
                    );
                }
                sha256.iter().map(String::as_str).collect()
            }
            Self::Complete { parts, .. } => parts.iter().map(|part| &*part.sha256).collect(),
            Self::Manifest { bytes, sha256, .. } => {
                if *bytes > MANIFEST_BYTES_MAX as u64 {
                    fault(
                        "bytes",
                        format!("is {bytes}: the limit is {MANIFEST_BYTES_MAX}"),
                    );
                }
                vec![sha256]
            }
        };
        let is_hash = |text: &&str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(wrong) = hashes.iter().position(|hash| !is_hash(hash)) {
            fault(
                "sha256",
                format!("number {wrong} is not 64 hexadecimal digits"),
            );
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults)
        }
    }

    /// The batch that this step begins, after the batch before it; `None` if it begins none. A large
    /// one still lacks S3's id of its upload.
    ///
    /// # Errors
    /// 409 when the batch before it is missing, 413 when the limits are exceeded.
    pub fn begun(&self, before: Option<&UploadBatch>) -> Result<Option<UploadBatch>, Problem> {
        let (files, bytes, large) = match self {
            Self::Files { files, .. } => (
                u32::try_from(files.len()).unwrap_or(u32::MAX),
                files.iter().map(|file| file.bytes).sum(),
                None,
            ),
            Self::Large { bytes, .. } => (
                1,
                *bytes,
                Some(LargeUpload {
                    bytes: *bytes,
                    id: String::new(),
                }),
            ),
            Self::Parts { .. } | Self::Complete { .. } | Self::Manifest { .. } => return Ok(None),
        };
        let number = self.batch();
        if before.map(|before| before.number) != number.checked_sub(1) {
            let title = format!("the batch before number {number} was not begun");
            return Err(Problem::new(409, "batch_missing", title));
        }
        let (files, bytes) = before.map_or((files, bytes), |before| {
            (
                before.files.saturating_add(files),
                before.bytes.saturating_add(bytes),
            )
        });
        if files > FILES_MAX || bytes > BYTES_MAX {
            let title = format!(
                "{files} files with {bytes} bytes are too many: an attempt keeps at most {FILES_MAX} files and {BYTES_MAX} bytes"
            );
            return Err(Problem::new(413, "too_many_artifacts", title));
        }
        Ok(Some(UploadBatch {
            number,
            digest: self.digest(),
            files,
            bytes,
            large,
        }))
    }

    /// The hash of what is asked for, by which a repetition is known.
    fn digest(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(&Sha256::digest(json)[..16])
    }

    /// Whether this step, once more, is the one that began the batch.
    #[must_use]
    pub fn has_begun(&self, batch: &UploadBatch) -> bool {
        batch.digest == self.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(batch: u32, lengths: &[u64]) -> UploadStep {
        let file = |bytes: &u64| FileToUpload {
            bytes: *bytes,
            sha256: "ab".repeat(32),
        };
        UploadStep::Files {
            batch,
            files: lengths.iter().map(file).collect(),
        }
    }

    #[test]
    fn the_limits_hold_over_all_batches() {
        let first = files(0, &[3, 4]).begun(None).unwrap().unwrap();
        assert_eq!((first.files, first.bytes), (2, 7));
        let second = files(1, &[5]).begun(Some(&first)).unwrap().unwrap();
        assert_eq!((second.files, second.bytes), (3, 12));
        assert!(files(1, &[5]).has_begun(&second) && !files(1, &[6]).has_begun(&second));
        let code = |step: &UploadStep, before: Option<&UploadBatch>| {
            step.begun(before).err().map(|problem| problem.code)
        };
        assert_eq!(
            code(&files(2, &[5]), Some(&first)).as_deref(),
            Some("batch_missing")
        );
        assert_eq!(
            code(&files(1, &[5]), None).as_deref(),
            Some("batch_missing")
        );
        let nearly = UploadBatch {
            files: FILES_MAX,
            ..first.clone()
        };
        assert_eq!(
            code(&files(1, &[0]), Some(&nearly)).as_deref(),
            Some("too_many_artifacts")
        );
        let nearly = UploadBatch {
            bytes: BYTES_MAX - 1,
            ..first
        };
        assert_eq!(
            code(&files(1, &[2]), Some(&nearly)).as_deref(),
            Some("too_many_artifacts")
        );
        assert_eq!(code(&files(1, &[1]), Some(&nearly)), None);
        let endless = UploadStep::Large {
            batch: 1,
            bytes: u64::MAX,
        };
        assert_eq!(
            code(&endless, Some(&nearly)).as_deref(),
            Some("too_many_artifacts")
        );
    }

    #[test]
    fn each_step_is_checked() {
        let field = |step: UploadStep| step.check().err().map(|faults| faults[0].field.clone());
        assert_eq!(field(files(0, &[1])), None);
        assert_eq!(field(files(BATCHES_MAX, &[1])).as_deref(), Some("batch"));
        assert_eq!(field(files(0, &[])).as_deref(), Some("files"));
        assert_eq!(field(files(0, &[1; 501])).as_deref(), Some("files"));
        assert_eq!(field(files(0, &[u64::MAX, 2])).as_deref(), Some("files"));
        let manifest = |bytes, sha256: &str| UploadStep::Manifest {
            batch: 0,
            bytes,
            sha256: sha256.to_owned(),
        };
        assert_eq!(field(manifest(1, &"AB".repeat(32))), None);
        assert_eq!(field(manifest(1, "ab")).as_deref(), Some("sha256"));
        assert_eq!(
            field(manifest(u64::MAX, &"ab".repeat(32))).as_deref(),
            Some("bytes")
        );
        let large = UploadStep::Large { batch: 0, bytes: 1 };
        assert_eq!(field(large).as_deref(), Some("bytes"));
    }

    #[test]
    fn the_parts_of_a_large_file_add_up() {
        for bytes in [1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES - 1] {
            let large = LargeUpload {
                bytes,
                id: String::new(),
            };
            let parts: Vec<_> = (1..=large.parts())
                .map(|part| large.part_bytes(part).unwrap())
                .collect();
            assert_eq!(parts.iter().sum::<u64>(), bytes);
            assert_eq!(large.part_bytes(0), None);
            assert_eq!(large.part_bytes(large.parts() + 1), None);
        }
    }
}
