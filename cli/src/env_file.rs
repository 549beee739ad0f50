//! `--env-file` and `-e`, as `docker run` reads them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Why variables cannot be taken. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvFileError {
    /// The file cannot be read.
    #[error("failed to read the variables in {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line that sets nothing.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// The same in a `-e`.
    #[error("-e: {0}")]
    Flag(&'static str),
}

/// What a `K=V` or a `K` gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    /// A value.
    Set(String, String),
    /// `K` alone, and the environment has none: docker gives nothing, and so do we.
    Absent(String),
}

/// Reads `K=V`, or `K` for what `environment` has.
///
/// # Errors
/// What is wrong with it.
fn variable(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Variable, &'static str> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, environment(text)),
    };
    if name.is_empty() {
        return Err("has no name before the `=`: write NAME=value");
    }
    if name.contains(char::is_whitespace) {
        return Err("has a name with a space in it: write NAME=value");
    }
    Ok(value.map_or_else(|| Variable::Absent(name.to_owned()), |value| Variable::Set(name.to_owned(), value)))
}

/// Of this process.
fn own(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the value of a `-e`.
///
/// # Errors
/// [`EnvFileError::Flag`].
pub(crate) fn flag(text: &str) -> Result<Variable, EnvFileError> {
    variable(text, own).map_err(EnvFileError::Flag)
}

/// Reads a file of them, in order: one a line, `#` begins a comment at the start of a line only, quotes are part of the value.
///
/// # Errors
/// [`EnvFileError`].
pub(crate) fn read(path: &Path) -> Result<Vec<Variable>, EnvFileError> {
    let text = fs::read_to_string(path).map_err(|error| EnvFileError::Read { path: path.to_owned(), error })?;
    parse(&text, own).map_err(|(line, problem)| EnvFileError::Line { path: path.to_owned(), line, problem })
}

fn parse(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Vec<Variable>, (usize, &'static str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim_start).enumerate();
    let meant = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    meant.map(|(index, line)| variable(line, &environment).map_err(|problem| (index + 1, problem))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Variable {
        Variable::Set(name.into(), value.into())
    }

    #[test]
    fn a_file_is_read_as_docker_reads_it() {
        let text = "\u{feff}A=1\r\n# comment\n\n  B=\"two # words\"\nC=\nHOME\nNONE\nD=a=b \n";
        let environment = |name: &str| (name == "HOME").then(|| "/h".to_owned());
        let expected = [
            set("A", "1"),
            set("B", "\"two # words\""),
            set("C", ""),
            set("HOME", "/h"),
            Variable::Absent("NONE".into()),
            set("D", "a=b "),
        ];
        assert_eq!(parse(text, environment).unwrap(), expected);
    }

    #[test]
    fn a_line_without_a_name_is_named() {
        assert_eq!(parse("A=1\n\n=secret", |_| None).unwrap_err().0, 3);
        assert_eq!(parse("export A=secret", |_| None).unwrap_err().0, 1);
    }
}
