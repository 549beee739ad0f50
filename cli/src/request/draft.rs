//! Builds the request that `exec` sends. Precedence, highest first: flags, `.mycli.yaml`, the git
//! repository here.

use domain::request::{Arch, CommandLine, Defaults, FieldError, SubmitRequest};

use crate::{
    failure::Failure,
    request::{flags::RunFlags, git, project::Project},
    terminal::screen::Screen,
};

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
        command: CommandLine,
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
                .map(|repo| git::absolute(&repo, folder))
                .transpose()
                .map_err(Failure::Usage)?;
        }
        apply(flags, &mut request, screen)?;
        if local {
            request.repo = request
                .repo
                .map(|repo| git::absolute(&repo, &here))
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
