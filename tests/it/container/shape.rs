//! Images with settings of their own, and what a command finds inside them.

use tests::engine::{AWKWARD, BUSYBOX, ENTRYPOINT, USER, WORKDIR};

use super::*;

async fn check(image: &str, command: &str, lines: &[&str]) {
    let case = Case::new(image, &format!("{command}; exit 9"));
    let (ended, output) = case.run(&runner().await).await;
    let output = text(&output);
    assert_eq!(
        (ended.exit_code, output.lines().collect::<Vec<_>>()),
        (Some(9), lines.to_vec()),
        "{image}"
    );
}

#[tokio::test]
async fn container_images_entry_point_is_set_aside() {
    check(ENTRYPOINT, "echo ran", &["ran"]).await;
}

#[tokio::test]
async fn container_images_working_directory_and_variables_are_kept() {
    check(
        WORKDIR,
        "pwd; echo $FROM_IMAGE",
        &["/srv/app", "set by the image"],
    )
    .await;
}

#[tokio::test]
async fn container_images_user_is_kept() {
    check(USER, "id -u; touch x && echo ok", &["1000", "ok"]).await;
}

#[tokio::test]
async fn container_image_with_everything_awkward_runs_the_command() {
    check(AWKWARD, "id -u; echo ran", &["1000", "ran"]).await;
}

#[tokio::test]
async fn container_has_no_standard_input_and_no_terminal() {
    let case = Case::new(BUSYBOX, "cat; [ -t 0 ] || [ -t 1 ] || echo none");
    let (ended, output) = case.run(&runner().await).await;
    assert_eq!(
        (ended.exit_code, text(&output).as_str()),
        (Some(0), "none\n")
    );
}

#[tokio::test]
async fn container_variables_and_secrets_arrive_byte_for_byte() {
    let mut case = Case::new(BUSYBOX, r#"printf '%s|%s|%s' "$PLAIN" "$TOKEN" "$BOTH""#);
    case.set("PLAIN", "a=b \"c\" $d\n é");
    case.set("BOTH", "plain");
    let secrets = [("TOKEN", "s3cr3t 'value'"), ("BOTH", "secret")];
    case.launch.secrets = secrets
        .map(|(name, value)| (name.to_owned(), value.to_owned().into()))
        .to_vec();
    let (_, output) = case.run(&runner().await).await;
    assert_eq!(text(&output), "a=b \"c\" $d\n é|s3cr3t 'value'|secret");
    let shown = format!("{:?}", case.launch);
    assert!(
        shown.contains("TOKEN") && !shown.contains("s3cr3t") && !shown.contains("a=b"),
        "{shown}"
    );
}

#[tokio::test]
async fn container_image_has_its_digest_and_is_not_pulled_when_it_is_there() {
    let (runner, case) = (runner().await, Case::new(BUSYBOX, "true"));
    let started = case.start(&runner).await;
    let digest = started.image_digest.expect("a digest");
    assert!(
        digest.starts_with("sha256:") && digest.len() == 71,
        "{digest}"
    );
    let format = "{{.Digest}}";
    assert_eq!(
        tests::engine::Engine::shared().podman(&["image", "inspect", "--format", format, BUSYBOX]),
        digest
    );
    assert_eq!(started.pull.started_at, started.pull.stopped_at);
}
