//! Images with settings of their own, and what a command finds inside them.

use domain::script::{self, variable};
use tests::engine::{AWKWARD, BUSYBOX, ENTRYPOINT, USER, WORKDIR};

use super::*;

const NONCE: &str = "0123456789abcdef0123456789abcdef";

/// A task that runs `command` under the real script.
fn scripted(image: &str, command: &str) -> Case {
    let mut case = Case::new(image, script::text());
    let variables = [
        (variable::COMMAND, command),
        (variable::NONCE, NONCE),
        (variable::TIMEOUT, "50"),
    ];
    case.launch.environment = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    case
}

/// The command's own lines, without the script's marker lines.
fn own_lines(output: &[u8]) -> Vec<String> {
    let text = text(output);
    let own = text
        .lines()
        .filter_map(|line| domain::marker::split(NONCE, line).0);
    own.filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

async fn check(image: &str, command: &str, lines: &[&str]) {
    let case = scripted(image, &format!("{command}; exit 9"));
    let (ended, output) = case.run(&runner().await).await;
    assert_eq!(
        (ended.exit_code, own_lines(&output)),
        (Some(9), lines.iter().map(ToString::to_string).collect()),
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
async fn container_image_with_everything_awkward_runs_the_script() {
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
async fn container_mounts_are_at_the_same_path_and_read_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("with space");
    std::fs::create_dir(&path)
        .and_then(|()| std::fs::write(path.join("file"), "content\n"))
        .expect("a file");
    let mut case = Case::new(
        BUSYBOX,
        r#"cat "$P/file"; (echo x >"$P/file") 2>/dev/null || echo refused"#,
    );
    case.launch.environment = vec![("P".into(), path.to_string_lossy().into_owned())];
    case.launch.mounts = vec![path.clone()];
    let (_, output) = case.run(&runner().await).await;
    let output = text(&output);
    assert!(
        output.starts_with("content\n") && output.ends_with("refused\n"),
        "{output}"
    );
    assert_eq!(
        std::fs::read_to_string(path.join("file")).expect("the file"),
        "content\n"
    );
}

#[tokio::test]
async fn container_variables_and_secrets_arrive_byte_for_byte() {
    let mut case = Case::new(BUSYBOX, r#"printf '%s|%s|%s' "$PLAIN" "$TOKEN" "$BOTH""#);
    case.launch.environment = vec![
        ("PLAIN".into(), "a=b \"c\" $d\n é".into()),
        ("BOTH".into(), "plain".into()),
    ];
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
