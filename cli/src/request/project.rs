//! `.mycli.yaml`: the settings for every run of a project.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use domain::request::{FieldError, SubmitRequest, key_of_one_run};
use serde::{Deserialize, de::IgnoredAny};

use super::encoding;

/// The file's name.
pub(crate) const FILE: &str = ".mycli.yaml";

/// The file, read and parsed.
#[derive(Debug)]
pub(crate) struct Project {
    /// The file's path.
    pub(crate) path: PathBuf,
    /// The settings in the file.
    pub(crate) request: SubmitRequest,
    text: String,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProjectError {
    /// The file cannot be read.
    #[error("failed to read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
    /// The file is not valid YAML, or has an unknown key or a value of the wrong type.
    #[error("{}{}: {problem}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Form {
        /// The file.
        path: PathBuf,
        /// The line number, from 1, if it is known.
        line: Option<usize>,
        /// The fault.
        problem: String,
    },
}

impl Project {
    /// Finds the file in `folder` or the nearest parent that has one, up to the root of the git
    /// repository. Outside of a repository only `folder` is searched.
    ///
    /// # Errors
    /// [`ProjectError`].
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>, ProjectError> {
        // Anything of this name counts. A folder, or a link to nothing, is a mistake, and a run
        // that silently ignored the file's settings would hide it.
        let there_is = |path: &PathBuf| path.symlink_metadata().is_ok();
        let Some(path) = places(folder).into_iter().find(there_is) else {
            return Ok(None);
        };
        // We read plain files only: reading a pipe, for example, might never end.
        let is_other = fs::metadata(&path).is_ok_and(|found| !found.is_file());
        if is_other {
            let what = if path.is_dir() {
                "a folder"
            } else {
                "not a plain file"
            };
            let problem = format!("is {what}: the settings of a project are a file of this name");
            return Err(ProjectError::Form {
                path,
                line: None,
                problem,
            });
        }
        let bytes = fs::read(&path).map_err(|error| ProjectError::Read {
            path: path.clone(),
            error,
        })?;
        match encoding::fault(&bytes) {
            Some(problem) => Err(ProjectError::Form {
                path,
                line: None,
                problem,
            }),
            None => Self::parse(path, String::from_utf8_lossy(&bytes).into_owned()).map(Some),
        }
    }

    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    /// [`ProjectError::Form`].
    pub(crate) fn parse(path: PathBuf, text: String) -> Result<Self, ProjectError> {
        let parsed = serde_norway::from_str::<Option<SubmitRequest>>(&text);
        let request = match parsed {
            Ok(request) => request.unwrap_or_default(),
            Err(error) => return Err(malformed(path, &text, &error)),
        };
        let project = Self {
            path,
            request,
            text,
        };
        match key_of_one_run(&project.request) {
            Some(key) => Err(ProjectError::Form {
                line: project.line_of(key),
                problem: format!("`{key}` belongs to one run: give it on the command line"),
                path: project.path,
            }),
            None => Ok(project),
        }
    }

    /// Adds the file and line to a fault in a value from this file.
    pub(crate) fn placed(&self, fault: FieldError) -> FieldError {
        let key = fault.field.split(['.', '[']).next().unwrap_or_default();
        let line = self
            .line_of(key)
            .map(|line| format!(":{line}"))
            .unwrap_or_default();
        FieldError {
            message: format!("{} ({}{line})", fault.message, self.path.display()),
            field: fault.field,
        }
    }

    fn line_of(&self, key: &str) -> Option<usize> {
        let is_key = |line: &str| {
            line.strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with(':'))
        };
        self.text.lines().position(is_key).map(|index| index + 1)
    }
}

/// Makes an error from serde's message, which names the key and the known keys. The line goes in
/// front of the message.
fn malformed(path: PathBuf, text: &str, error: &serde_norway::Error) -> ProjectError {
    let place = error.location();
    let problem = error.to_string();
    let problem = match &place {
        Some(place) => problem.replace(
            &format!(" at line {} column {}", place.line(), place.column()),
            "",
        ),
        None => problem,
    };
    let null = problem
        .contains(" is null: ")
        .then(|| line_of_null(text))
        .flatten();
    ProjectError::Form {
        path,
        line: null.or(place.map(|place| place.line())),
        problem,
    }
}

/// The variables, read only to find those that are null.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Nulls {
    env: Option<BTreeMap<String, Option<IgnoredAny>>>,
}

/// The line of the first variable with the value null. The error's own location is that of the
/// whole `env`, since the YAML reader keeps no location for a null.
fn line_of_null(text: &str) -> Option<usize> {
    let nulls: Nulls = serde_norway::from_str(text).ok()?;
    let names = nulls
        .env?
        .into_iter()
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| name);
    let names: Vec<_> = names.collect();
    let start = text.lines().position(|line| line.starts_with("env"))?;
    let is_null = |line: &str| names.iter().any(|name| names_key(line, name));
    let line = text.lines().skip(start).position(is_null)?;
    Some(start + line + 1)
}

/// Whether a line begins with this key, quoted or not.
fn names_key(line: &str, key: &str) -> bool {
    let line = line.trim_start().trim_start_matches(['"', '\'']);
    let rest = line
        .strip_prefix(key)
        .map(|rest| rest.trim_start_matches(['"', '\'']).trim_start());
    rest.is_some_and(|rest| rest.starts_with(':'))
}

fn places(folder: &Path) -> Vec<PathBuf> {
    let depth = folder
        .ancestors()
        .position(|parent| parent.join(".git").exists())
        .unwrap_or(0);
    folder
        .ancestors()
        .take(depth + 1)
        .map(|parent| parent.join(FILE))
        .collect()
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
        check(
            "image: alpine\ntimeuot: 3m\n",
            "p/.mycli.yaml:2: unknown field `timeuot`, expected one of",
        );
        check(
            "image: alpine\n\ncommand: ls\n",
            "p/.mycli.yaml:3: `command` belongs to one run",
        );
        check("env:\n  A: 1\n  B: [\n", "p/.mycli.yaml:");
    }

    #[test]
    fn a_name_that_is_given_twice_is_told_with_the_line_of_the_second() {
        check(
            "env: {A: first, A: second}\n",
            "p/.mycli.yaml:1: env: duplicate field `A`",
        );
        check(
            "env:\n  A: first\n  B: x\n  \"A\": second\n",
            "p/.mycli.yaml:4: env: duplicate field `A`",
        );
        check(
            "env:\n  A: 1\n  A: 2\n",
            "p/.mycli.yaml:3: env: duplicate field `A`",
        );
        check("image: a\nimage: b\n", "p/.mycli.yaml:");
    }

    #[test]
    fn null_is_no_value_of_a_variable_and_no_entry_of_a_list() {
        check(
            "env: {A: null}\n",
            "p/.mycli.yaml:1: env: `A` is null: write \"\"",
        );
        check(
            "image: a\nenv:\n  A: 1\n  'B': ~\n",
            "p/.mycli.yaml:4: env: `B` is null: write \"\"",
        );
        check(
            "env:\n  A:\n  B: 1\n",
            "p/.mycli.yaml:2: env: `A` is null: write \"\"",
        );
        check(
            "secrets: [null]\n",
            "p/.mycli.yaml:1: secrets: entry 1 is null: leave it out",
        );
        check("image: a\nretry_on:\n- spot\n- ~\n", "p/.mycli.yaml:");
        let text = "env:\n  A: ''\n  B: 'null'\n  C: 1.10\n  D: yes\nsecrets:\nimage: null\n";
        let request = Project::parse(PathBuf::from("p"), text.into())
            .unwrap()
            .request;
        let env = [("A", ""), ("B", "null"), ("C", "1.10"), ("D", "yes")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            request,
            SubmitRequest {
                env: env.into(),
                ..SubmitRequest::default()
            }
        );
    }

    #[test]
    fn what_is_no_file_of_utf8_is_told_as_what_it_is() {
        let root = tempfile::tempdir().unwrap();
        let check = |expected: &str| {
            let error = Project::find(root.path()).unwrap_err().to_string();
            assert!(error.contains(FILE) && error.contains(expected), "{error}");
        };
        let path = root.path().join(FILE);
        fs::write(
            &path,
            "image: a\n"
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<_>>(),
        )
        .unwrap();
        check("iconv -f utf-16le -t utf-8");
        fs::write(&path, b"image: a\nname: \xff\n").unwrap();
        check("is not UTF-8 in line 2");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        check("failed to read");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        check("is not a plain file");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        check("is a folder");
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
        assert_eq!(
            Project::find(&deep)
                .unwrap()
                .unwrap()
                .request
                .image
                .as_deref(),
            Some("root")
        );
        fs::write(deep.join(FILE), "# nothing").unwrap();
        assert_eq!(
            Project::find(&deep).unwrap().unwrap().request,
            SubmitRequest::default()
        );
    }
}
