//! Reads `--env-file` and `-e` as `docker run` does: each line is a variable, and quotes are part
//! of its value.
//!
//! Compose reads the same files differently: it removes quotes and allows values of several lines.
//! We refuse lines that only Compose understands. Otherwise the pieces of a multi-line key would
//! become variables, and they would be printed as the names of missing variables.

use std::{
    env::{VarError, var},
    fs, io,
    path::{Path, PathBuf},
};

use crate::request::encoding;

/// Why variables cannot be read. Never holds a value or a part of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvFileError {
    /// The file cannot be read.
    #[error("failed to read the variables in {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
    /// The file is not UTF-8.
    #[error("{} {problem}", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The encoding that it seems to have, and the fix.
        problem: String,
    },
    /// A line that does not set a variable.
    #[error("{}:{line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
        /// The fault of the line.
        fault: EnvFileFault,
    },
    /// A `-e` that does not set a variable.
    #[error("-e: {0}")]
    Flag(EnvFileFault),
    /// A `-e NAME`, where the value in this environment is not UTF-8.
    #[error(
        "-e: the value of {0} in this environment is not UTF-8: encode it, for example as base64"
    )]
    FlagNotText(String),
}

/// A fault of a variable. The messages for a file quote nothing from the line, because the
/// line may be a piece of the value before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvFileFault {
    /// The text is empty.
    #[error("is empty: write NAME=value, or NAME alone to take its value from this environment")]
    Empty,
    /// There is a value without a name.
    #[error("has no name before the `=`: write NAME=value{SEVERAL}")]
    NoName,
    /// The name has a space in it, as in `export A=1`.
    #[error("has a name with a space in it: write NAME=value, without `export`{SEVERAL}")]
    Space,
    /// The text before the `=` is not a name.
    #[error("sets no variable: write NAME=value, with a name of letters, digits and `_`{SEVERAL}")]
    NoVariable,
    /// The value opens a quote and does not close it.
    #[error("has a value that begins with a quote and does not end with one{SEVERAL}")]
    Quote,
    /// The value is the first line of a key or a certificate.
    #[error("has only the first line of a key or a certificate{SEVERAL}")]
    Pem,
    /// The text holds a NUL byte.
    #[error(
        "holds a NUL byte, which no environment can carry: encode the value, for example as base64"
    )]
    Nul,
    /// The environment's value for the name is not UTF-8.
    #[error(
        "the value that the environment has for this name is not UTF-8: encode it, for example as base64"
    )]
    NotText,
}

/// Advice for a value of several lines.
const SEVERAL: &str = ". A value is one line, with its quotes, as for docker's --env-file: give a value of several lines with \
                       -e NAME=\"$(cat FILE)\", or as a secret";

/// The result of reading a `K=V` or a `K`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    /// A variable's name and value.
    Set(String, String),
    /// A `K` alone that the environment does not have. It is not set for the run, as with docker.
    /// Holds the note for the user.
    Absent(String),
}

/// The meaning of a text: a value, or the environment's value for a name.
enum Lookup<'t> {
    Value(&'t str, &'t str),
    FromHere(&'t str),
}

fn asked(text: &str) -> Result<Lookup<'_>, EnvFileFault> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    match value {
        _ if text.is_empty() => Err(EnvFileFault::Empty),
        _ if text.contains('\0') => Err(EnvFileFault::Nul),
        _ if name.is_empty() => Err(EnvFileFault::NoName),
        _ if name.contains(char::is_whitespace) => Err(EnvFileFault::Space),
        Some(value) => Ok(Lookup::Value(name, value)),
        None if is_name(name) => Ok(Lookup::FromHere(name)),
        None => Err(EnvFileFault::NoVariable),
    }
}

/// Whether `text` is a name by POSIX's rule. A request allows only these names too; its own check
/// refuses others with a longer message.
fn is_name(text: &str) -> bool {
    let character = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.chars().all(character) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Reads the text of a `-e`.
///
/// # Errors
/// [`EnvFileError::Flag`], and [`EnvFileError::FlagNotText`].
pub(crate) fn flag(text: &str) -> Result<Variable, EnvFileError> {
    match asked(text).map_err(EnvFileError::Flag)? {
        Lookup::Value(name, value) => Ok(Variable::Set(name.to_owned(), value.to_owned())),
        Lookup::FromHere(name) => match var(name) {
            Ok(value) => Ok(Variable::Set(name.to_owned(), value)),
            Err(VarError::NotPresent) => Ok(Variable::Absent(format!(
                "the environment has no {name}: it is not set for the run"
            ))),
            Err(VarError::NotUnicode(_)) => Err(EnvFileError::FlagNotText(name.to_owned())),
        },
    }
}

/// Reads the variables in a file, in order. Each line is one variable. `#` begins a comment only at
/// the start of a line. Quotes are part of the value.
///
/// # Errors
/// [`EnvFileError`].
pub(crate) fn read(path: &Path) -> Result<Vec<Variable>, EnvFileError> {
    let bytes = fs::read(path).map_err(|error| EnvFileError::Read {
        path: path.to_owned(),
        error,
    })?;
    if let Some(problem) = encoding::fault(&bytes) {
        return Err(EnvFileError::Encoding {
            path: path.to_owned(),
            problem,
        });
    }
    let text = String::from_utf8_lossy(&bytes);
    parse(path, &text, |name| var(name)).map_err(|(line, fault)| EnvFileError::Line {
        path: path.to_owned(),
        line,
        fault,
    })
}

fn parse(
    path: &Path,
    text: &str,
    environment: impl Fn(&str) -> Result<String, VarError>,
) -> Result<Vec<Variable>, (usize, EnvFileFault)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = (1..).zip(text.lines().map(str::trim_start));
    let meant = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let read = |(number, line): (usize, &str)| {
        let place = format!("{}:{number}", path.display());
        variable(line, &place, &environment).map_err(|fault| (number, fault))
    };
    meant.map(read).collect()
}

fn variable(
    line: &str,
    place: &str,
    environment: impl Fn(&str) -> Result<String, VarError>,
) -> Result<Variable, EnvFileFault> {
    match asked(line)? {
        Lookup::Value(name, _) if !is_name(name) => Err(EnvFileFault::NoVariable),
        Lookup::Value(_, value) if is_torn(value) => Err(EnvFileFault::Quote),
        Lookup::Value(_, value)
            if value.contains("-----BEGIN ") && !value.contains("-----END ") =>
        {
            Err(EnvFileFault::Pem)
        }
        Lookup::Value(name, value) => Ok(Variable::Set(name.to_owned(), value.to_owned())),
        Lookup::FromHere(name) => match environment(name) {
            Ok(value) => Ok(Variable::Set(name.to_owned(), value)),
            // The name may be a line of a key, so we print its place instead.
            Err(VarError::NotPresent) => Ok(Variable::Absent(format!(
                "{place}: the environment has no variable of this name: it is not set for the run"
            ))),
            Err(VarError::NotUnicode(_)) => Err(EnvFileFault::NotText),
        },
    }
}

/// Whether a value begins with a quote that does not close on its line. A quote after a backslash
/// does not close, unless it is the last character.
fn is_torn(value: &str) -> bool {
    let value = value.trim_end();
    let Some(quote) = value
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''))
    else {
        return false;
    };
    let rest = &value[1..];
    let mut escaped = false;
    let ends = |character: char| {
        let ends = character == quote && !escaped;
        escaped = character == '\\' && quote == '"' && !escaped;
        ends
    };
    !rest.ends_with(quote) && !rest.chars().any(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Variable {
        Variable::Set(name.into(), value.into())
    }

    fn none(_: &str) -> Result<String, VarError> {
        Err(VarError::NotPresent)
    }

    fn parsed(text: &str) -> Result<Vec<Variable>, (usize, EnvFileFault)> {
        parse(Path::new("f"), text, none)
    }

    #[test]
    fn a_file_is_read_as_docker_reads_it() {
        let text = "\u{feff}A=1\r\n# comment\n\n  B=\"two # words\"\nC=\nHOME\nNONE\nD=a=b \nE=it's\nF='x' y\nG=\"C:\\dir\\\"\n";
        let environment = |name: &str| {
            if name == "HOME" {
                Ok("/h".to_owned())
            } else {
                Err(VarError::NotPresent)
            }
        };
        let expected = [
            set("A", "1"),
            set("B", "\"two # words\""),
            set("C", ""),
            set("HOME", "/h"),
            Variable::Absent(
                "f:7: the environment has no variable of this name: it is not set for the run"
                    .into(),
            ),
            set("D", "a=b "),
            set("E", "it's"),
            set("F", "'x' y"),
            set("G", "\"C:\\dir\\\""),
        ];
        assert_eq!(parse(Path::new("f"), text, environment).unwrap(), expected);
    }

    #[test]
    fn a_line_without_a_name_is_refused_with_its_number() {
        assert_eq!(parsed("A=1\n\n=secret"), Err((3, EnvFileFault::NoName)));
        assert_eq!(parsed("export A=secret"), Err((1, EnvFileFault::Space)));
        assert_eq!(parsed("A=1\nB=a\0b"), Err((2, EnvFileFault::Nul)));
    }

    #[test]
    fn a_value_of_several_lines_is_refused_with_the_first_line_that_shows_it() {
        for (text, line, fault) in [
            ("A=1\nCERT=\"line1\nline2==\"\n", 2, EnvFileFault::Quote),
            ("CERT='line1\nline2'\n", 1, EnvFileFault::Quote),
            ("CERT=\"say \\\"x\\\" to\nline2\"\n", 1, EnvFileFault::Quote),
            ("CERT=\"\n", 1, EnvFileFault::Quote),
            (
                "CERT=-----BEGIN PRIVATE KEY-----\nMIIE\n",
                1,
                EnvFileFault::Pem,
            ),
            ("A=1\nsecret+/abc==\n", 2, EnvFileFault::NoVariable),
            ("A=1\nsecret+/abc\n", 2, EnvFileFault::NoVariable),
            ("A={\n  \"key\":\"secret=\"\n", 2, EnvFileFault::NoVariable),
            ("A={\n  \"key\": \"secret=\"\n", 2, EnvFileFault::Space),
            ("A=1\n\"secret\"\n", 2, EnvFileFault::NoVariable),
            ("A=1\n1secret=\n", 2, EnvFileFault::NoVariable),
        ] {
            assert_eq!(parsed(text), Err((line, fault)), "{text:?}");
            assert!(
                !fault.to_string().contains("secret=") && fault.to_string().contains("$(cat FILE)"),
                "{fault}"
            );
        }
    }

    #[test]
    fn what_the_environment_has_and_cannot_be_sent_is_told_as_that() {
        let environment = |_: &str| Err(VarError::NotUnicode("x".into()));
        assert_eq!(
            parse(Path::new("f"), "A=1\nBAD\n", environment),
            Err((2, EnvFileFault::NotText))
        );
    }

    #[test]
    fn a_flag_says_what_is_wrong_with_it() {
        let fault = |text: &str| flag(text).unwrap_err().to_string();
        assert_eq!(
            fault(""),
            "-e: is empty: write NAME=value, or NAME alone to take its value from this environment"
        );
        assert!(
            fault("=x").starts_with("-e: has no name before the `=`"),
            "{}",
            fault("=x")
        );
        assert!(!fault("hidden+/\nhidden").contains("hidden"));
        assert_eq!(
            flag("A=\"x\ny").unwrap(),
            set("A", "\"x\ny"),
            "a flag's value may have several lines"
        );
        assert_eq!(
            flag("1A=x").unwrap(),
            set("1A", "x"),
            "its name is for the request's own check to refuse"
        );
    }
}
