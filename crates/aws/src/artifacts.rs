//! The files of runs that are kept, in S3.
//!
//! An object's key is `artifacts/<execution>/<attempt>/<batch>/<number>`. Names are in manifests
//! only, so no name of a file ever becomes a part of a key or a URL's path.

use std::{collections::BTreeMap, fmt, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_s3::{
    Client,
    config::Builder,
    error::ProvideErrorMetadata as _,
    operation::{get_object::GetObjectError, head_object::HeadObjectError},
    presigning::{PresignedRequest, PresigningConfig},
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::{
    artifact::{MANIFEST, MANIFEST_BYTES_MAX, Manifest, attachment},
    id::AttemptId,
    ports::{ArtifactReads, ArtifactWrites, PortError},
    stored,
    upload::{LargeUpload, SignedRequest, URL_SECONDS, UploadedPart},
};

use crate::{connect::Lazily, error::failed};

const SERVICE: &str = "S3";
/// The beginning of all keys.
const PREFIX: &str = "artifacts";

/// The files in one bucket.
#[derive(Clone)]
pub struct S3Artifacts {
    client: Lazily<Client>,
    bucket: String,
}

impl fmt::Debug for S3Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Artifacts")
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

impl S3Artifacts {
    /// The files in this bucket.
    #[must_use]
    pub fn new(config: &SdkConfig, bucket: String) -> Self {
        Self {
            client: Lazily::of(config, client),
            bucket,
        }
    }
}

/// An emulator has one host name, not one for each bucket.
fn client(config: &SdkConfig) -> Client {
    let is_emulator = config.endpoint_url().is_some();
    Client::from_conf(Builder::from(config).force_path_style(is_emulator).build())
}

fn key(attempt: &AttemptId, batch: u32, name: &str) -> String {
    let (execution, number) = (attempt.execution(), attempt.number());
    format!("{PREFIX}/{execution}/{number}/{batch}/{name}")
}

/// The name of a large file, which is the only one of its batch.
const ONLY: &str = "0";

fn signing() -> Result<PresigningConfig, PortError> {
    PresigningConfig::expires_in(Duration::from_secs(URL_SECONDS))
        .map_err(|error| PortError::invalid(SERVICE, error))
}

fn signed(request: &PresignedRequest) -> SignedRequest {
    let headers: BTreeMap<_, _> = request
        .headers()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    SignedRequest {
        url: request.uri().to_owned(),
        headers,
    }
}

/// A length as S3's API has it. It was checked against limits that are far below.
fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A SHA-256 in the form of S3's headers.
fn checksum(sha256: &str) -> Result<String, PortError> {
    let bytes = hex::decode(sha256).map_err(|error| PortError::invalid(SERVICE, error))?;
    Ok(STANDARD.encode(bytes))
}

impl ArtifactWrites for S3Artifacts {
    async fn sign_file(
        &self,
        attempt: &AttemptId,
        batch: u32,
        number: Option<u32>,
        bytes: u64,
        sha256: &str,
    ) -> Result<SignedRequest, PortError> {
        let name = number.map_or_else(|| MANIFEST.to_owned(), |number| number.to_string());
        let call = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key(attempt, batch, &name))
            .content_length(length(bytes))
            .checksum_sha256(checksum(sha256)?);
        let request = call.presigned(signing()?).await.map_err(failed(SERVICE))?;
        Ok(signed(&request))
    }

    async fn begin_large(&self, attempt: &AttemptId, batch: u32) -> Result<String, PortError> {
        let call = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key(attempt, batch, ONLY))
            .checksum_algorithm(ChecksumAlgorithm::Sha256);
        let begun = call.send().await.map_err(failed(SERVICE))?;
        begun
            .upload_id
            .ok_or_else(|| PortError::unavailable(SERVICE, "it gave an upload no id"))
    }

    async fn sign_part(
        &self,
        attempt: &AttemptId,
        batch: u32,
        upload: &LargeUpload,
        part: u32,
        sha256: &str,
    ) -> Result<SignedRequest, PortError> {
        let call = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(key(attempt, batch, ONLY))
            .upload_id(&upload.id)
            .part_number(i32::try_from(part).unwrap_or(i32::MAX))
            .content_length(length(upload.part_bytes(part).unwrap_or_default()))
            .checksum_sha256(checksum(sha256)?);
        let request = call.presigned(signing()?).await.map_err(failed(SERVICE))?;
        Ok(signed(&request))
    }

    /// S3 answers a repetition with `NoSuchUpload`. Then the file is there, or was never begun.
    async fn complete_large(
        &self,
        attempt: &AttemptId,
        batch: u32,
        upload: &LargeUpload,
        parts: &[UploadedPart],
    ) -> Result<(), PortError> {
        let mut completed = CompletedMultipartUpload::builder();
        for (number, part) in (1..).zip(parts) {
            completed = completed.parts(
                CompletedPart::builder()
                    .part_number(number)
                    .e_tag(&part.etag)
                    .checksum_sha256(checksum(&part.sha256)?)
                    .build(),
            );
        }
        let key = key(attempt, batch, ONLY);
        let call = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(&key)
            .upload_id(&upload.id)
            .mpu_object_size(length(upload.bytes))
            .multipart_upload(completed.build());
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error.code() == Some("NoSuchUpload") && self.has(&key, upload).await? =>
            {
                Ok(())
            }
            Err(error) => Err(failed(SERVICE)(error)),
        }
    }
}

impl S3Artifacts {
    /// Whether a large file is there, with its length.
    async fn has(&self, key: &str, upload: &LargeUpload) -> Result<bool, PortError> {
        let call = self.client.head_object().bucket(&self.bucket).key(key);
        match call.send().await {
            Ok(found) => Ok(found.content_length == Some(length(upload.bytes))),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(HeadObjectError::is_not_found) =>
            {
                Ok(false)
            }
            Err(error) => Err(failed(SERVICE)(error)),
        }
    }
}

impl ArtifactReads for S3Artifacts {
    async fn manifest(
        &self,
        attempt: &AttemptId,
        batch: u32,
    ) -> Result<Option<Manifest>, PortError> {
        let call = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key(attempt, batch, MANIFEST));
        let found = match call.send().await {
            Ok(found) => found,
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetObjectError::is_no_such_key) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed(SERVICE)(error)),
        };
        let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| {
            let what = format!("the list of artifacts of {attempt}");
            PortError::corrupt(what, error)
        };
        if found.content_length > Some(length(MANIFEST_BYTES_MAX as u64)) {
            return Err(unreadable("it is too long".into()));
        }
        let text = found.body.collect().await;
        let text = text.map_err(|error| PortError::unavailable(SERVICE, error))?;
        let read = stored::read_text(&text.into_bytes());
        read.map(|(manifest, _)| Some(manifest))
            .map_err(|error| unreadable(error.into()))
    }

    async fn download(
        &self,
        attempt: &AttemptId,
        batch: u32,
        number: u32,
        name: &str,
    ) -> Result<String, PortError> {
        let call = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key(attempt, batch, &number.to_string()))
            .response_content_type("application/octet-stream")
            .response_content_disposition(attachment(name));
        let request = call.presigned(signing()?).await.map_err(failed(SERVICE))?;
        Ok(request.uri().to_owned())
    }
}
