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
        .start_unless(&case.launch, async { Ok(None) }, std::future::ready(()))
        .await
        .unwrap_err();
    assert!(
        failure
            .reason
            .contains("stopped before its container was started"),
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

/// A program that the image does not have is the command's own fault, as in a shell.
#[tokio::test]
async fn container_program_that_is_missing_ends_as_in_a_shell() {
    let runner = runner().await;
    for (words, code, says) in [
        (
            "exec /no/such/program",
            127,
            "mycli: /no/such/program: not found\n",
        ),
        (
            "exec no-such-program 'a b'",
            127,
            "mycli: no-such-program: not found\n",
        ),
        (
            "exec /etc/passwd",
            126,
            "mycli: /etc/passwd: Permission denied",
        ),
    ] {
        let mut case = Case::new(BUSYBOX, words);
        case.set(variable::WORDS, "1");
        let (ended, output) = case.run(&runner).await;
        assert_eq!(ended.exit_code, Some(code), "{words}");
        assert!(text(&output).starts_with(says), "{}", text(&output));
    }
}
