//! The runner's image: an empty one with the program alone. It is made here, and pushed through the
//! registry's own API into a repository of the stack's. No container engine is needed.
//!
//! The authorities that the runner trusts are in the program, so the image has no certificates.

use std::{borrow::Cow, collections::BTreeMap, io, time::Duration};

use aws_sdk_ecr::{
    Client as Ecr,
    operation::{
        create_repository::CreateRepositoryError, delete_repository::DeleteRepositoryError,
        describe_images::DescribeImagesError, describe_repositories::DescribeRepositoriesError,
    },
    types::{ImageDetail, ImageFailure, ImageFailureCode, ImageIdentifier, Tag},
};
use aws_smithy_types::DateTime;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{TimeDelta, Utc};
use domain::{container::PROGRAM, request::Arch};
use flate2::{Compression, write::GzEncoder};
use oci_client::{
    Client as Registry, Reference,
    client::{ClientConfig, ClientProtocol},
    manifest::{
        IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
        OCI_IMAGE_MEDIA_TYPE,
    },
    secrets::RegistryAuth,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Account, CallError, StackName, names::TAG, stack::StackProgress};

/// How long an image is kept that no task was started from. Nothing starts a task from the image of
/// an older release for longer than an hour; the rest is for whoever goes back to that release.
const KEPT: TimeDelta = TimeDelta::days(30);
/// The most images in one deletion (ECR API reference, `BatchDeleteImage`).
const DELETE_MAX: usize = 100;
/// How long a connection to the registry may take, and an answer of it. Our choice: a person waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The beginning of our images' tags.
const TAG_PREFIX: &str = "runner-";
/// The digits of a digest in a tag.
const TAG_DIGITS: usize = 16;

/// An error for which no code has a reason.
type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The runner's image: an index with a manifest for each processor.
#[derive(Clone)]
pub struct RunnerImage {
    variants: Vec<Variant>,
    index: Vec<u8>,
}

/// The part of the image for one processor.
#[derive(Clone)]
struct Variant {
    arch: Arch,
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl std::fmt::Debug for RunnerImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunnerImage")
            .field("digest", &self.digest())
            .field("archs", &self.archs())
            .finish_non_exhaustive()
    }
}

impl RunnerImage {
    /// The image of these programs, one for each processor. The same programs always make the same
    /// image.
    ///
    /// # Errors
    /// When a program cannot be packed.
    pub fn of(programs: &BTreeMap<Arch, Cow<'static, [u8]>>) -> io::Result<Self> {
        let variants: Vec<_> = programs
            .iter()
            .map(|(arch, program)| Variant::of(*arch, program))
            .collect::<io::Result<_>>()?;
        let manifests: Vec<_> = variants.iter().map(Variant::entry).collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE,
            "manifests": manifests,
        });
        Ok(Self {
            variants,
            index: index.to_string().into_bytes(),
        })
    }

    /// The digest that pins it.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.index)
    }

    /// The processors that it is for.
    #[must_use]
    pub fn archs(&self) -> Vec<Arch> {
        self.variants.iter().map(|variant| variant.arch).collect()
    }

    fn tag(&self) -> String {
        let digits = &self.digest()["sha256:".len()..][..TAG_DIGITS];
        format!("{TAG_PREFIX}{digits}")
    }
}

impl Variant {
    fn of(arch: Arch, program: &[u8]) -> io::Result<Self> {
        let archive = archive(program)?;
        let mut layer = GzEncoder::new(Vec::new(), Compression::default());
        io::Write::write_all(&mut layer, &archive)?;
        let layer = layer.finish()?;
        let config = json!({
            "architecture": oci_name(arch),
            "os": "linux",
            "config": { "Entrypoint": [format!("/{PROGRAM}")] },
            "rootfs": { "type": "layers", "diff_ids": [digest(&archive)] },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE_MEDIA_TYPE,
            "config": descriptor(IMAGE_CONFIG_MEDIA_TYPE, &config),
            "layers": [descriptor(IMAGE_LAYER_GZIP_MEDIA_TYPE, &layer)],
        });
        Ok(Self {
            arch,
            layer,
            config,
            manifest: manifest.to_string().into_bytes(),
        })
    }

    /// Its entry in the index.
    fn entry(&self) -> Value {
        let mut entry = descriptor(OCI_IMAGE_MEDIA_TYPE, &self.manifest);
        entry["platform"] = json!({ "architecture": oci_name(self.arch), "os": "linux" });
        entry
    }
}

/// A file system with the program alone. It has no times, so that the same program makes the same
/// bytes.
fn archive(program: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, PROGRAM, program)?;
    archive.into_inner()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// The processor's name in images (OCI image specification, "Image Index Property Descriptions":
/// the values of Go's `GOARCH`).
fn oci_name(arch: Arch) -> &'static str {
    match arch {
        Arch::Arm64 => "arm64",
        Arch::X86_64 => "amd64",
    }
}

/// The repository of a stack's runner images.
pub(crate) struct RunnerRepository {
    client: Ecr,
    name: String,
    stack: StackName,
}

impl RunnerRepository {
    pub(crate) fn new(account: &Account, stack: &StackName) -> Self {
        Self {
            client: Ecr::new(&account.config),
            name: stack.full(),
            stack: stack.clone(),
        }
    }

    fn doing(&self, verb: &str) -> String {
        format!("{verb} the image repository {}", self.name)
    }

    /// Pushes the image unless it is there. Returns its reference, pinned by its digest. Makes the
    /// repository if it is missing. Idempotent.
    ///
    /// # Errors
    /// When a call fails, or the registry does not take the image.
    pub(crate) async fn push(
        &self,
        image: &RunnerImage,
        tell: &impl Fn(StackProgress),
    ) -> Result<String, CallError> {
        let address = self.ensure(tell).await?;
        let pinned = format!("{address}@{}", image.digest());
        if self.has(&image.digest()).await? {
            return Ok(pinned);
        }
        let names: Vec<_> = image.archs().iter().map(ToString::to_string).collect();
        tell(StackProgress::Step(format!(
            "pushing the runner's image ({})",
            names.join(", ")
        )));
        self.upload(&address, image)
            .await
            .map_err(|error| CallError::new(self.doing("push to"), words(&*error)))?;
        Ok(pinned)
    }

    /// The address of the repository.
    async fn ensure(&self, tell: &impl Fn(StackProgress)) -> Result<String, CallError> {
        if let Some(address) = self.find().await? {
            return Ok(address);
        }
        let tag = Tag::builder().key(TAG).value(self.stack.as_str()).build();
        let tag = tag.map_err(|error| CallError::new(self.doing("tag"), error.to_string()))?;
        let call = self.client.create_repository();
        let made = call.repository_name(&self.name).tags(tag).send().await;
        let made = match made {
            // Another `init` was faster.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(CreateRepositoryError::is_repository_already_exists_exception) =>
            {
                self.find().await?
            }
            made => {
                let made = made.map_err(CallError::of(self.doing("make")))?;
                tell(StackProgress::Step(format!(
                    "made the image repository {}",
                    self.name
                )));
                made.repository
                    .and_then(|repository| repository.repository_uri)
            }
        };
        made.ok_or_else(|| CallError::new(self.doing("find"), "it has no address"))
    }

    async fn find(&self) -> Result<Option<String>, CallError> {
        let call = self.client.describe_repositories();
        match call.repository_names(&self.name).send().await {
            Ok(found) => Ok(found
                .repositories
                .unwrap_or_default()
                .into_iter()
                .find_map(|repository| repository.repository_uri)),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(DescribeRepositoriesError::is_repository_not_found_exception) =>
            {
                Ok(None)
            }
            Err(error) => Err(CallError::of(self.doing("look at"))(error)),
        }
    }

    /// Whether it has the image of this digest.
    ///
    /// # Errors
    /// When the call fails.
    pub(crate) async fn has(&self, digest: &str) -> Result<bool, CallError> {
        let id = ImageIdentifier::builder().image_digest(digest).build();
        let call = self.client.describe_images().repository_name(&self.name);
        match call.image_ids(id).send().await {
            Ok(found) => Ok(!found.image_details().is_empty()),
            Err(error)
                if error.as_service_error().is_some_and(|error| {
                    matches!(
                        error,
                        DescribeImagesError::ImageNotFoundException(_)
                            | DescribeImagesError::RepositoryNotFoundException(_)
                    )
                }) =>
            {
                Ok(false)
            }
            Err(error) => Err(CallError::of(self.doing("look into"))(error)),
        }
    }

    /// Pushes each blob in one piece: ECR keeps the first piece of an upload only
    /// (containers-roadmap#2831). Each manifest has a tag, because the client needs one where a
    /// registry does not tell a manifest's address, as ECR does not.
    async fn upload(&self, address: &str, image: &RunnerImage) -> Result<(), AnyError> {
        let (registry, auth) = self.log_in().await?;
        let tag = image.tag();
        let reference: Reference = format!("{address}:{tag}").parse()?;
        registry
            .store_auth_if_needed(reference.resolve_registry(), &auth)
            .await;
        for variant in &image.variants {
            for blob in [&variant.layer, &variant.config] {
                let digest = digest(blob);
                if !registry.blob_exists(&reference, &digest).await? {
                    registry
                        .push_blob(&reference, blob.clone(), &digest)
                        .await?;
                }
            }
            let tagged: Reference = format!("{address}:{tag}-{}", variant.arch).parse()?;
            let kind = OCI_IMAGE_MEDIA_TYPE.parse()?;
            registry
                .push_manifest_raw(&tagged, variant.manifest.clone(), kind)
                .await?;
        }
        let kind = OCI_IMAGE_INDEX_MEDIA_TYPE.parse()?;
        registry
            .push_manifest_raw(&reference, image.index.clone(), kind)
            .await?;
        Ok(())
    }

    async fn log_in(&self) -> Result<(Registry, RegistryAuth), AnyError> {
        let call = self.client.get_authorization_token().send().await;
        let answer = call.map_err(CallError::of("sign in to the image registry"))?;
        let given = answer.authorization_data().first();
        let given = given.ok_or("ECR gave no token for its registry")?;
        let token = BASE64_STANDARD.decode(given.authorization_token().unwrap_or_default())?;
        let token = String::from_utf8(token)?;
        let (user, password) = token.split_once(':').unwrap_or(("AWS", &token));
        let is_plain = given
            .proxy_endpoint()
            .is_some_and(|address| address.starts_with("http://"));
        // A second one changes nothing.
        drop(rustls::crypto::ring::default_provider().install_default());
        let registry = Registry::try_from(ClientConfig {
            // Only an emulator has no TLS.
            protocol: match is_plain {
                true => ClientProtocol::Http,
                false => ClientProtocol::Https,
            },
            use_monolithic_push: true,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(ANSWER_TIMEOUT),
            ..ClientConfig::default()
        })?;
        let auth = RegistryAuth::Basic(user.to_owned(), password.to_owned());
        Ok((registry, auth))
    }

    /// Removes images that no task was started from for a month, except this one. Returns why ECR
    /// kept some of them, if it did.
    ///
    /// # Errors
    /// When a call fails. The next call goes on.
    pub(crate) async fn expire(&self, current: &str) -> Result<Vec<String>, CallError> {
        let mut images = Vec::new();
        let mut pages = self
            .client
            .describe_images()
            .repository_name(&self.name)
            .into_paginator()
            .items()
            .send();
        while let Some(image) = pages.next().await {
            images.push(image.map_err(CallError::of(self.doing("list")))?);
        }
        let expired = expired(&images, current, Utc::now().timestamp());
        let mut kept = Vec::new();
        for some in expired.iter().flat_map(|kind| kind.chunks(DELETE_MAX)) {
            let ids = some
                .iter()
                .map(|digest| ImageIdentifier::builder().image_digest(*digest).build());
            let call = self.client.batch_delete_image();
            let answer = call
                .repository_name(&self.name)
                .set_image_ids(Some(ids.collect()))
                .send()
                .await
                .map_err(CallError::of(self.doing("clear")))?;
            kept.extend(answer.failures().iter().filter_map(why_kept));
        }
        Ok(kept)
    }

    /// Removes the repository with all its images. Returns whether there was one. Idempotent.
    ///
    /// # Errors
    /// When the call fails.
    pub(crate) async fn remove(&self) -> Result<bool, CallError> {
        let call = self.client.delete_repository();
        match call.repository_name(&self.name).force(true).send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(DeleteRepositoryError::is_repository_not_found_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(CallError::of(self.doing("remove"))(error)),
        }
    }
}

/// The innermost cause, which is the informative one.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    let mut said: Vec<_> = [error.to_string()]
        .into_iter()
        .chain(causes.map(ToString::to_string))
        .collect();
    said.dedup();
    said.join(": ")
}

/// Why ECR kept an image that it was asked to remove. One that is gone already was not kept.
fn why_kept(failure: &ImageFailure) -> Option<String> {
    let image = failure.image_id().and_then(ImageIdentifier::image_digest);
    let reason = failure.failure_reason().unwrap_or("no reason was given");
    Some(failure)
        .filter(|failure| failure.failure_code() != Some(&ImageFailureCode::ImageNotFound))
        .map(|_| format!("{}: {reason}", image.unwrap_or("an image")))
}

/// The digests of the images to remove: the indexes, then the manifests that they name. ECR keeps a
/// manifest while an index names it, so they need calls of their own. The parts of one image have
/// tags that begin alike.
fn expired<'a>(images: &'a [ImageDetail], current: &str, now: i64) -> [Vec<&'a str>; 2] {
    let since = now - KEPT.num_seconds();
    let name = |image: &ImageDetail| -> Option<String> {
        let tag = image
            .image_tags()
            .iter()
            .find(|tag| tag.starts_with(TAG_PREFIX))?;
        Some(tag.chars().take(TAG_PREFIX.len() + TAG_DIGITS).collect())
    };
    let used = |image: &&ImageDetail| {
        let seconds = |at: Option<&DateTime>| at.map_or(now, DateTime::secs);
        let pulled = image.last_recorded_pull_time();
        image.image_digest() == Some(current)
            || seconds(image.image_pushed_at()) > since
            || pulled.is_some_and(|at| at.secs() > since)
    };
    let kept: Vec<_> = images.iter().filter(used).map(name).collect();
    let is_part = |image: &ImageDetail| {
        let is_of_part = |tag: &String| tag.len() > TAG_PREFIX.len() + TAG_DIGITS;
        image.image_tags().iter().any(is_of_part)
    };
    let of_kind = |part: bool| {
        let expired = images
            .iter()
            .filter(|image| !kept.contains(&name(image)) && is_part(image) == part);
        expired.filter_map(ImageDetail::image_digest).collect()
    };
    [of_kind(false), of_kind(true)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(programs: &[(Arch, &'static [u8])]) -> RunnerImage {
        let programs = programs.iter();
        let programs = programs.map(|(arch, program)| (*arch, Cow::Borrowed(*program)));
        RunnerImage::of(&programs.collect()).unwrap()
    }

    #[test]
    fn the_same_programs_make_the_same_image() {
        let both = [(Arch::Arm64, &b"a"[..]), (Arch::X86_64, &b"x"[..])];
        let one = image(&both);
        assert_eq!(one.digest(), image(&both).digest());
        assert_ne!(one.digest(), image(&both[..1]).digest());
        assert_eq!(one.archs(), [Arch::Arm64, Arch::X86_64]);
        let index: Value = serde_json::from_slice(&one.index).unwrap();
        let names: Vec<_> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["arm64", "amd64"]);
    }

    #[test]
    fn an_image_is_kept_while_any_part_of_it_is_used() {
        let now = 100 * 24 * 3600;
        let days_ago = |days: i64| DateTime::from_secs(now - days * 24 * 3600);
        let detail = |digest: &str, tag: &str, pushed: i64, pulled: Option<i64>| {
            ImageDetail::builder()
                .image_digest(digest)
                .image_tags(tag)
                .image_pushed_at(days_ago(pushed))
                .set_last_recorded_pull_time(pulled.map(days_ago))
                .build()
        };
        let (old, current, pulled) = (
            "runner-aaaaaaaaaaaaaaaa",
            "runner-bbbbbbbbbbbbbbbb",
            "runner-cccccccccccccccc",
        );
        let images = [
            detail("old-part", &format!("{old}-arm64"), 40, None),
            detail("old", old, 40, Some(31)),
            detail("current", current, 90, None),
            detail("current-part", &format!("{current}-arm64"), 90, None),
            detail("pulled", pulled, 90, None),
            detail("pulled-part", &format!("{pulled}-x86_64"), 90, Some(3)),
            detail("new", "runner-dddddddddddddddd", 1, None),
        ];
        assert_eq!(expired(&images, "current", now), [["old"], ["old-part"]]);
    }

    #[test]
    fn an_image_that_ecr_keeps_is_told_with_its_reason() {
        let failure = |code| {
            let id = ImageIdentifier::builder().image_digest("sha256:a").build();
            ImageFailure::builder()
                .image_id(id)
                .failure_code(code)
                .failure_reason("it is named by an index")
                .build()
        };
        assert_eq!(
            why_kept(&failure(ImageFailureCode::ImageReferencedByManifestList)),
            Some("sha256:a: it is named by an index".to_owned())
        );
        assert_eq!(why_kept(&failure(ImageFailureCode::ImageNotFound)), None);
    }
}
