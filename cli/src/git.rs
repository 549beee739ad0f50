//! What the working directory's git repository says about where to run: the remote `origin`, and
//! the current branch there.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, process::Stdio, time::Duration};

use domain::request::{Place, RepoUrl};
use tokio::process::Command;

use crate::draft::absolute;

/// The only remote that is looked at.
const REMOTE: &str = "origin";
/// A remote that does not answer within this time is not waited for: the run's own clone has a time
/// limit of its own.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checkout {
    /// The remote's URL, as git has it; of a relative path, the absolute one.
    pub(crate) url: String,
    /// What to check out; `None` means the remote's default branch.
    pub(crate) branch: Option<String>,
    /// What the user should know of it.
    pub(crate) notes: Vec<String>,
}

/// What the remote says of a branch.
enum Remote {
    /// Its commit.
    Has(String),
    /// It has no such branch.
    HasNot,
    /// It could not be asked.
    Silent,
}

/// The remote `origin` of the working directory's repository; with a `branch` that was asked for,
/// nothing is said of the current one.
///
/// # Errors
/// Why there is none; completes "name a repository" in [`crate::failure::Failure::NoRepository`].
pub(crate) async fn checkout(branch: Option<&str>) -> Result<Checkout, String> {
    let root = output(&["rev-parse", "--show-toplevel"])
        .await
        .ok_or("this is not a git repository")?;
    let url = git(&["remote", "get-url", REMOTE]).await;
    let url = url.ok_or_else(|| format!("this git repository has no remote `{REMOTE}`"))?;
    let url = absolute(&url, Path::new(OsStr::from_bytes(root.trim_ascii_end())))?;
    // What will be refused is not asked for its branches: the process that git does it by would
    // show the URL, and a password in it, to every user of this machine.
    let is_usable = RepoUrl::parse(&url, Place::OneMachine).is_ok();
    let found = Checkout {
        url,
        branch: branch.map(str::to_owned),
        notes: Vec::new(),
    };
    Ok(if branch.is_none() && is_usable {
        found.with_current_branch().await
    } else {
        found
    })
}

impl Checkout {
    async fn with_current_branch(mut self) -> Self {
        let Some(branch) = git(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await else {
            self.notes.push(format!(
                "no branch is checked out here: running on the default branch of {REMOTE} (--branch chooses)"
            ));
            return self;
        };
        match ask(&branch).await {
            Remote::HasNot => {
                let note = format!(
                    "{REMOTE} has no branch {branch}: running on its default branch (push {branch}, or choose with --branch)"
                );
                self.notes.push(note);
            }
            Remote::Has(commit) => {
                self.notes
                    .push(format!("running on branch {branch} of {REMOTE}"));
                self.notes.extend(unpushed(&branch, &commit).await);
                self.branch = Some(branch);
            }
            Remote::Silent => {
                self.notes.push(format!(
                    "{REMOTE} did not say whether it has the branch {branch}; running on that"
                ));
                self.branch = Some(branch);
            }
        }
        self.notes.extend(uncommitted().await);
        self
    }
}

async fn ask(branch: &str) -> Remote {
    let reference = format!("refs/heads/{branch}");
    match git(&["ls-remote", "--heads", REMOTE, &reference])
        .await
        .as_deref()
    {
        Some("") => Remote::HasNot,
        Some(lines) => Remote::Has(
            lines
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
        ),
        None => Remote::Silent,
    }
}

/// Commits here that the remote's branch lacks.
async fn unpushed(branch: &str, commit: &str) -> Option<String> {
    // Fails when the remote's commit is not known here: then the remote is ahead in any case.
    let count = git(&["rev-list", "--count", &format!("{commit}..HEAD")]).await?;
    let commits = if count == "1" { "commit" } else { "commits" };
    (count != "0").then(|| {
        format!("warning: {count} {commits} of {branch} not pushed yet will not be in the run")
    })
}

async fn uncommitted() -> Option<String> {
    let changes = git(&["status", "--porcelain"]).await?;
    let files = changes.lines().count();
    let noun = if files == 1 { "file is" } else { "files are" };
    (files > 0).then(|| {
        format!("warning: {files} {noun} not committed; changes to them will not be in the run")
    })
}

/// What git prints, trimmed; `None` if that is no text, or as of [`output`].
async fn git(arguments: &[&str]) -> Option<String> {
    let text = String::from_utf8(output(arguments).await?).ok()?;
    Some(text.trim().to_owned())
}

/// What git prints; `None` if it fails, is missing or takes too long. It asks nobody for a
/// password.
async fn output(arguments: &[&str]) -> Option<Vec<u8>> {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("MYCLI_API_KEY");
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .ok()?
        .ok()?;
    output.status.success().then_some(output.stdout)
}
