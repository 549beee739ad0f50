//! Builds the request that `exec` sends. Precedence, highest first: flags, `.mycli.yaml`, the git
//! repository here.

use std::path::Path;

use domain::request::{Arch, Defaults, FieldError, SubmitRequest};

use crate::{failure::Failure, flags::RunFlags, git, project::Project, screen::Screen};

/// A request, and the file that some of it came from.
pub(crate) struct RunDraft {
    /// The request that will be sent.
    pub(crate) request: SubmitRequest,
    project: Option<Project>,
}

impl RunDraft {
    /// Builds the request for `command`. With `local`, a directory may be the repository.
    ///
    /// # Errors
    /// A file cannot be used, or there is no repository.
    pub(crate) async fn gather(
        command: String,
        flags: &RunFlags,
        local: bool,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        let mut draft = Self::settings(flags, local, screen)?;
        draft.request.command = Some(command);
        if draft.request.repo.is_none() && !flags.no_repo {
            draft.take_origin(screen).await?;
        }
        Ok(draft)
    }

    /// Builds the request without a command, from flags and `.mycli.yaml` only. The git repository
    /// here is not read.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(crate) fn settings(
        flags: &RunFlags,
        local: bool,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        let here = std::env::current_dir().map_err(Failure::io("find the working directory"))?;
        let project = Project::find(&here)?;
        let mut request = project
            .as_ref()
            .map(|project| project.request.clone())
            .unwrap_or_default();
        if let (true, Some(project)) = (local, &project) {
            let folder = project.path.parent().unwrap_or(&here);
            request.repo = request
                .repo
                .map(|repo| absolute(&repo, folder))
                .transpose()
                .map_err(Failure::Usage)?;
        }
        apply(flags, &mut request, screen)?;
        if local {
            request.repo = request
                .repo
                .map(|repo| absolute(&repo, &here))
                .transpose()
                .map_err(Failure::Usage)?;
        }
        Ok(Self { request, project })
    }

    /// Takes the repository from git's origin, and the branch too if none is set.
    ///
    /// # Errors
    /// There is no git origin.
    pub(crate) async fn take_origin(&mut self, screen: &Screen) -> Result<(), Failure> {
        let found = git::checkout(self.request.branch.as_deref())
            .await
            .map_err(|why| {
                Failure::Usage(format!(
                    "{why}: name a repository with --repo, or run without one with --no-repo"
                ))
            })?;
        for note in &found.notes {
            screen.say(note);
        }
        self.request.repo = Some(found.url);
        self.request.branch = found.branch;
        Ok(())
    }

    /// Adds the place in `.mycli.yaml` to faults in values from that file.
    pub(crate) fn placed(&self, faults: Vec<FieldError>) -> Vec<FieldError> {
        faults
            .into_iter()
            .map(|fault| self.placed_one(fault))
            .collect()
    }

    /// Does the same for one fault.
    pub(crate) fn placed_one(&self, fault: FieldError) -> FieldError {
        match &self.project {
            Some(project) if self.is_from(project, &fault.field) => project.placed(fault),
            _ => fault,
        }
    }

    /// Whether the value at fault came from the file: the file has it, and the same value is sent.
    fn is_from(&self, project: &Project, field: &str) -> bool {
        let key = field.split(['.', '[']).next().unwrap_or_default();
        let value = |request: &SubmitRequest| serde_json::to_value(request).ok()?.get(key).cloned();
        match (value(&project.request), value(&self.request)) {
            (Some(theirs), Some(sent)) if field.starts_with("env.") => {
                let name = &field["env.".len()..];
                theirs.get(name).is_some() && theirs.get(name) == sent.get(name)
            }
            (Some(theirs), sent) => Some(theirs) == sent,
            (None, _) => false,
        }
    }
}

/// Applies the flags, and says which variables the environment did not have.
///
/// # Errors
/// A `-e` or `--env-file` cannot be used.
pub(crate) fn apply(
    flags: &RunFlags,
    request: &mut SubmitRequest,
    screen: &Screen,
) -> Result<(), Failure> {
    flags.apply(request, |words| screen.say(words))?;
    Ok(())
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

/// The defaults for what a request leaves out: this machine's, or those of an unchanged stack.
pub(crate) fn defaults(one_machine: bool) -> Defaults {
    let arch = if cfg!(target_arch = "aarch64") {
        Arch::Arm64
    } else {
        Arch::X86_64
    };
    if one_machine {
        Defaults::one_machine(arch)
    } else {
        Defaults::aws()
    }
}

/// A directory that exists, for the tests.
#[cfg(test)]
fn folder() -> std::path::PathBuf {
    std::env::temp_dir().canonicalize().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let odd = Path::new("/no-such").join(OsStr::from_bytes(b"a\xffb"));
        assert!(absolute("repo", &odd).unwrap_err().contains("is not UTF-8"));
        assert_eq!(absolute("https://h/p", &odd).as_deref(), Ok("https://h/p"));
    }
}
