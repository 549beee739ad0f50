//! A container that cannot start gives the engine's own reason and leaves nothing behind.

use tests::engine::{BUSYBOX, MISSING};

use super::proxy::{Fate, Proxy};
use super::*;

#[tokio::test]
async fn container_image_that_is_missing_has_the_engines_own_reason() {
    let case = Case::new("localhost/mycli-test/no-such-image", "true");
    let reason = case.refusal(&runner().await).await;
    assert!(reason.starts_with("CannotPullContainerError: "), "{reason}");
    assert!(
        reason.contains("localhost/mycli-test/no-such-image:latest"),
        "{reason}"
    );
}

#[tokio::test]
async fn container_registry_that_cannot_be_reached_has_the_engines_own_reason() {
    let reason = Case::new(MISSING, "true").refusal(&runner().await).await;
    assert!(reason.starts_with("CannotPullContainerError: "), "{reason}");
    assert!(reason.contains("registry.invalid"), "{reason}");
}

/// A cancel does not wait for a pull, which may take minutes.
#[tokio::test]
async fn container_pull_that_is_not_wanted_any_more_is_given_up() {
    let case = Case::new(MISSING, "true");
    let failure = runner()
        .await
        .start_unless(&case.launch, std::future::ready(()))
        .await
        .unwrap_err();
    assert!(
        failure
            .reason
            .contains("stopped while its image was being pulled"),
        "{failure:?}"
    );
}

/// Podman may pull an image of its own architecture, whatever was asked for. To run it would mean
/// another machine's program, or none.
#[tokio::test]
async fn container_image_for_another_machine_is_refused_in_plain_words() {
    let (other, name) = if cfg!(target_arch = "aarch64") {
        (Arch::X86_64, "amd64")
    } else {
        (Arch::Arm64, "arm64")
    };
    let mut case = Case::new(BUSYBOX, "true");
    case.launch.arch = other;
    let proxy =
        Proxy::before_engine(&[("/images/create", Fate::Answered(200, "pulled".into()))]).await;
    let reason = case.refusal(&runner_at(&proxy.docker_host()).await).await;
    assert_eq!(
        reason,
        format!("CannotPullContainerError: the image is not for linux/{name}")
    );
    assert_eq!(proxy.unused(), 0);
}

#[tokio::test]
async fn container_whose_program_is_missing_never_started() {
    let mut case = Case::new(BUSYBOX, "true");
    case.launch.entry_point = vec!["/no/such/program".into()];
    let reason = case.refusal(&runner().await).await;
    assert!(
        reason.starts_with("CannotStartContainerError: "),
        "{reason}"
    );
    assert!(reason.contains("/no/such/program"), "{reason}");
}

#[tokio::test]
async fn container_mount_that_does_not_exist_is_no_empty_directory() {
    let mut case = Case::new(BUSYBOX, "true");
    case.launch.mounts = vec!["/no/such/directory".into()];
    let reason = case.refusal(&runner().await).await;
    assert!(reason.contains("/no/such/directory"), "{reason}");
    assert!(!Path::new("/no/such/directory").exists());
}
