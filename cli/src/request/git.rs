//! Finds out from the working directory's git repository where to run: the URL of the remote
//! `origin`, and the current branch.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, process::Stdio, time::Duration};

use domain::request::{Place, RepoUrl};
use tokio::process::Command;

use crate::variables::API_KEY;

/// The only remote that we read.
const REMOTE: &str = "origin";
/// How long to wait for the remote. If it does not answer by then we go on without it: the run's
/// own clone has its own time limit.
const PATIENCE: Duration = Duration::from_secs(15);

/// The findings in the repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checkout {
    /// The remote's URL as git has it. A relative path is made absolute.
    pub(crate) url: String,
    /// The branch to check out; `None` means the remote's default branch.
    pub(crate) branch: Option<String>,
    /// Notes for the user.
    pub(crate) notes: Vec<String>,
}

/// Whether the remote has a branch.
enum Remote {
    /// It has the branch, at this commit.
    Has(String),
    /// It has no such branch.
    HasNot,
    /// It did not answer.
    Silent,
}

/// Returns the remote `origin` of the working directory's repository. If `branch` is given, the
/// current branch is not looked at.
///
/// # Errors
/// Why there is no such remote. The text completes "name a repository" in
/// a usage error of the draft.
pub(crate) async fn checkout(branch: Option<&str>) -> Result<Checkout, String> {
    let root = output(&["rev-parse", "--show-toplevel"])
        .await
        .ok_or("this is not a git repository")?;
    let url = git(&["remote", "get-url", REMOTE]).await;
    let url = url.ok_or_else(|| format!("this git repository has no remote `{REMOTE}`"))?;
    let url = absolute(&url, Path::new(OsStr::from_bytes(root.trim_ascii_end())))?;
    // We do not ask an unusable URL for its branches. The request would be refused anyway, and the
    // process that git starts would show the URL, with any password in it, to every user of this
    // machine.
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

/// Warns of commits here that the remote's branch lacks.
async fn unpushed(branch: &str, commit: &str) -> Option<String> {
    // This fails when the remote's commit is not known here. In that case the remote is ahead.
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

/// Returns what git prints, trimmed. `None` if that is not UTF-8, and where [`output`] gives
/// `None`.
async fn git(arguments: &[&str]) -> Option<String> {
    let text = String::from_utf8(output(arguments).await?).ok()?;
    Some(text.trim().to_owned())
}

/// Returns what git prints. `None` if git fails, is missing or takes too long. Git never asks for a
/// password here.
async fn output(arguments: &[&str]) -> Option<Vec<u8>> {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command.env("GIT_TERMINAL_PROMPT", "0").env_remove(API_KEY);
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .ok()?
        .ok()?;
    output.status.success().then_some(output.stdout)
}

/// Makes a plain relative path absolute, starting from `folder`. Anything else stays as it is.
///
/// # Errors
/// The path is not UTF-8, which a request cannot hold. The text says what to do.
pub(crate) fn absolute(repo: &str, folder: &Path) -> Result<String, String> {
    if !is_relative_path(repo) {
        return Ok(repo.to_owned());
    }
    let path = folder.join(repo);
    let path = path
        .canonicalize()
        .or_else(|_| std::path::absolute(&path))
        .unwrap_or(path);
    path.into_os_string().into_string().map_err(|path| {
        let shown = path.to_string_lossy();
        format!("the repository's path {shown} is not UTF-8, and a request cannot hold it: move or link it to a path that is")
    })
}

/// Whether `repo` is a relative path by git's own rule: a colon before the first slash makes it a
/// host.
fn is_relative_path(repo: &str) -> bool {
    let first = repo.split('/').next().unwrap_or_default();
    !repo.is_empty() && !repo.starts_with(['/', '-']) && !first.contains(':')
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A directory that exists.
    fn folder() -> PathBuf {
        std::env::temp_dir().canonicalize().unwrap()
    }

    #[test]
    fn only_plain_relative_paths_are_made_absolute() {
        let same = [
            "/a/b",
            "https://h/p",
            "git@h:p",
            "file:///x",
            "host:path",
            "-x",
            "",
        ];
        for repo in same {
            assert_eq!(absolute(repo, &folder()).as_deref(), Ok(repo));
        }
        assert_eq!(
            absolute(".", &folder()).unwrap(),
            folder().to_str().unwrap()
        );
        assert_eq!(
            absolute("no-such/repo", &folder()).unwrap(),
            folder().join("no-such/repo").to_str().unwrap()
        );
    }

    #[test]
    fn a_path_that_is_no_text_is_told_and_not_sent_as_another() {
        let odd = Path::new("/no-such").join(OsStr::from_bytes(b"a\xffb"));
        assert!(absolute("repo", &odd).unwrap_err().contains("is not UTF-8"));
        assert_eq!(absolute("https://h/p", &odd).as_deref(), Ok("https://h/p"));
    }
}
