//! `.mycli.yaml`: what a project asks of every run.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use domain::request::{FieldError, SubmitRequest};

/// Its name.
pub(crate) const FILE: &str = ".mycli.yaml";

/// The file, read.
#[derive(Debug)]
pub(crate) struct Project {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it asks.
    pub(crate) request: SubmitRequest,
    text: String,
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProjectError {
    /// Reading failed.
    #[error("failed to read {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not YAML, an unknown key, or a value of another kind.
    #[error("{}{}: {problem}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Form {
        /// Which.
        path: PathBuf,
        /// Where.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
    },
}

impl Project {
    /// The file in `folder` or the nearest parent that has one, up to the root of the git repository (outside of one: in `folder` alone).
    ///
    /// # Errors
    /// [`ProjectError`].
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>, ProjectError> {
        let Some(path) = places(folder).into_iter().find(|path| path.is_file()) else { return Ok(None) };
        let text = fs::read_to_string(&path).map_err(|error| ProjectError::Read { path: path.clone(), error })?;
        Self::parse(path, text).map(Some)
    }

    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// [`ProjectError::Form`].
    pub(crate) fn parse(path: PathBuf, text: String) -> Result<Self, ProjectError> {
        let parsed = serde_norway::from_str::<Option<SubmitRequest>>(&text);
        let request = match parsed {
            Ok(request) => request.unwrap_or_default(),
            Err(error) => return Err(malformed(path, &error)),
        };
        let project = Self { path, request, text };
        match key_of_one_run(&project.request) {
            Some(key) => Err(ProjectError::Form {
                line: project.line_of(key),
                problem: format!("`{key}` belongs to one run: give it on the command line"),
                path: project.path,
            }),
            None => Ok(project),
        }
    }

    /// Says of a fault in what this file asked where it stands.
    pub(crate) fn placed(&self, fault: FieldError) -> FieldError {
        let key = fault.field.split(['.', '[']).next().unwrap_or_default();
        let line = self.line_of(key).map(|line| format!(":{line}")).unwrap_or_default();
        FieldError { message: format!("{} ({}{line})", fault.message, self.path.display()), field: fault.field }
    }

    fn line_of(&self, key: &str) -> Option<usize> {
        let is_key = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
        self.text.lines().position(is_key).map(|index| index + 1)
    }
}

/// A key that makes no sense for all runs of a project.
fn key_of_one_run(request: &SubmitRequest) -> Option<&'static str> {
    let set =
        [("command", &request.command), ("action", &request.action), ("idempotency_key", &request.idempotency_key)];
    set.into_iter().find(|(_, value)| value.is_some()).map(|(key, _)| key)
}

/// serde's words name the key and those that are known; the place is said in front of them.
fn malformed(path: PathBuf, error: &serde_norway::Error) -> ProjectError {
    let place = error.location();
    let problem = error.to_string();
    let problem = match &place {
        Some(place) => problem.replace(&format!(" at line {} column {}", place.line(), place.column()), ""),
        None => problem,
    };
    ProjectError::Form { path, line: place.map(|place| place.line()), problem }
}

fn places(folder: &Path) -> Vec<PathBuf> {
    let depth = folder.ancestors().position(|parent| parent.join(".git").exists()).unwrap_or(0);
    folder.ancestors().take(depth + 1).map(|parent| parent.join(FILE)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let error = Project::parse(PathBuf::from("p/.mycli.yaml"), text.into()).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[test]
    fn a_fault_is_named_with_its_line() {
        check("image: alpine\ntimeuot: 3m\n", "p/.mycli.yaml:2: unknown field `timeuot`, expected one of");
        check("image: alpine\n\ncommand: ls\n", "p/.mycli.yaml:3: `command` belongs to one run");
        check("env:\n  A: 1\n  B: [\n", "p/.mycli.yaml:");
    }

    #[test]
    fn the_nearest_file_within_the_repository_counts() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("repo/a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(root.path().join(FILE), "image: outside").unwrap();
        assert!(Project::find(&deep).unwrap().is_none());
        fs::create_dir(root.path().join("repo/.git")).unwrap();
        assert!(Project::find(&deep).unwrap().is_none());
        fs::write(root.path().join("repo").join(FILE), "image: root").unwrap();
        assert_eq!(Project::find(&deep).unwrap().unwrap().request.image.as_deref(), Some("root"));
        fs::write(deep.join(FILE), "# nothing").unwrap();
        assert_eq!(Project::find(&deep).unwrap().unwrap().request, SubmitRequest::default());
    }
}
