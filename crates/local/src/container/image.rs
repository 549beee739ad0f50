//! Images: pulled if the engine lacks them, and identified by their digest.

use bollard::Docker;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptions, CreateImageOptionsBuilder};
use domain::request::{Arch, ImageRef};
use futures_util::TryStreamExt;

use super::error::{is_missing, plain};
use super::{PULL_TIMEOUT, now};
use crate::failpoint;
use crate::task::{Pull, StartFailure};

/// An image that the engine has.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) digest: Option<String>,
    /// Its `USER`; empty if it has none.
    pub(super) user: String,
    pub(super) pull: Pull,
}

/// The name of an architecture in image manifests (the OCI image specification, which has Go's
/// names).
pub(super) fn architecture(arch: Arch) -> &'static str {
    match arch {
        Arch::Arm64 => "arm64",
        Arch::X86_64 => "amd64",
    }
}

/// Pulls the image unless the engine has it. `foreign` is set if the image must be for an
/// architecture that is not the engine's own.
pub(super) async fn fetch(
    docker: &Docker,
    image: &ImageRef,
    foreign: Option<Arch>,
) -> Result<Fetched, StartFailure> {
    let started_at = now();
    let (inspect, stopped_at) = match inspect(docker, image).await? {
        Some(found) if is_for(&found, foreign) => (found, started_at),
        _ => (pull(docker, image, foreign).await?, now()),
    };
    Ok(Fetched {
        digest: digest(image, &inspect),
        user: inspect
            .config
            .and_then(|config| config.user)
            .unwrap_or_default(),
        pull: Pull {
            started_at,
            stopped_at,
        },
    })
}

/// The digest of the image that a container runs, if the engine still has it.
pub(super) async fn digest_of(docker: &Docker, image: &ImageRef) -> Option<String> {
    let found = inspect(docker, image).await.ok().flatten()?;
    digest(image, &found)
}

async fn inspect(docker: &Docker, image: &ImageRef) -> Result<Option<ImageInspect>, StartFailure> {
    failpoint!("container.image.inspect.before");
    let inspected = docker.inspect_image(image.as_str()).await;
    failpoint!("container.image.inspect.after");
    match inspected {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(cannot_pull(&plain(&error))),
    }
}

async fn pull(
    docker: &Docker,
    image: &ImageRef,
    foreign: Option<Arch>,
) -> Result<ImageInspect, StartFailure> {
    let patient = docker.clone().with_timeout(PULL_TIMEOUT);
    failpoint!("container.image.pull.before");
    let pulled = patient
        .create_image(Some(options(image, foreign)), None, None)
        .try_for_each(|_| async { Ok(()) })
        .await;
    failpoint!("container.image.pull.after");
    pulled.map_err(|error| cannot_pull(&plain(&error)))?;
    let found = inspect(docker, image).await?;
    let found = found.ok_or_else(|| cannot_pull("the engine pulled it but does not have it"))?;
    match foreign {
        // Podman pulls an image for its own architecture, whatever it is asked for.
        Some(arch) if !is_for(&found, foreign) => Err(cannot_pull(&format!(
            "the image is not for linux/{}",
            architecture(arch)
        ))),
        _ => Ok(found),
    }
}

fn cannot_pull(reason: &str) -> StartFailure {
    StartFailure::never(format!("CannotPullContainerError: {reason}"))
}

fn is_for(image: &ImageInspect, foreign: Option<Arch>) -> bool {
    foreign.is_none_or(|arch| image.architecture.as_deref() == Some(architecture(arch)))
}

/// Always names a tag. Without one, Docker's API pulls every tag.
fn options(image: &ImageRef, foreign: Option<Arch>) -> CreateImageOptions {
    let tag = image.digest().or(image.tag()).unwrap_or("latest");
    let options = CreateImageOptionsBuilder::new()
        .from_image(name(image))
        .tag(tag);
    match foreign {
        Some(arch) => options
            .platform(&format!("linux/{}", architecture(arch)))
            .build(),
        None => options.build(),
    }
}

/// The reference without tag and digest.
fn name(image: &ImageRef) -> &str {
    let text = image.as_str();
    let text = text.split_once('@').map_or(text, |(before, _)| before);
    match image.tag() {
        Some(tag) => &text[..text.len() - tag.len() - 1],
        None => text,
    }
}

/// The digest of the image in its registry. An engine lists one for each repository that it saw the
/// image in.
fn digest(image: &ImageRef, inspect: &ImageInspect) -> Option<String> {
    let known = || {
        inspect
            .repo_digests
            .iter()
            .flatten()
            .filter_map(|known| known.split_once('@'))
    };
    let own = known().find(|(repository, _)| is_same(repository, name(image)));
    own.or_else(|| known().next())
        .map(|(_, digest)| digest.to_owned())
}

/// Whether both are the same repository. Engines write the parts that a user may leave out:
/// `docker.io/library/alpine`.
fn is_same(repository: &str, name: &str) -> bool {
    repository == name
        || repository
            .strip_suffix(name)
            .is_some_and(|rest| matches!(rest, "docker.io/" | "docker.io/library/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn one_tag_or_digest_is_asked_for() {
        let pinned = format!("host:5000/team/tool:1@{DIGEST}");
        for (image, from, tag) in [
            ("alpine", "alpine", "latest"),
            ("ubuntu:22.04", "ubuntu", "22.04"),
            ("host:5000/tool", "host:5000/tool", "latest"),
            ("host:5000/tool:dev", "host:5000/tool", "dev"),
            (&pinned, "host:5000/team/tool", DIGEST),
        ] {
            let options = options(&image.parse().unwrap(), None);
            assert_eq!(
                (options.from_image.as_deref(), options.tag.as_deref()),
                (Some(from), Some(tag)),
                "{image}"
            );
            assert_eq!(options.platform, "", "{image}");
        }
        let options = options(&"alpine".parse().unwrap(), Some(Arch::Arm64));
        assert_eq!(options.platform, "linux/arm64");
    }

    #[test]
    fn the_digest_is_that_of_the_repository_asked_for() {
        let inspect = ImageInspect {
            repo_digests: Some(vec![
                "mirror.example/alpine@sha256:a".into(),
                "docker.io/library/alpine@sha256:b".into(),
            ]),
            ..ImageInspect::default()
        };
        let of = |image: &str, inspect: &ImageInspect| digest(&image.parse().unwrap(), inspect);
        assert_eq!(of("alpine:3", &inspect).as_deref(), Some("sha256:b"));
        assert_eq!(
            of("mirror.example/alpine", &inspect).as_deref(),
            Some("sha256:a")
        );
        assert_eq!(of("renamed", &inspect).as_deref(), Some("sha256:a"));
        assert_eq!(of("alpine", &ImageInspect::default()), None);
    }
}
