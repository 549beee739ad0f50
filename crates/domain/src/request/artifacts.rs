//! The files of a run that are to be kept: which ones, and after which end.

use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    choice::ArtifactsOn,
    text::{shown, text_type},
};

/// The most patterns of one request. We chose it: a request that needs more of them wants a folder.
pub const ARTIFACT_GLOBS_MAX: usize = 50;
/// The longest pattern, in bytes. We chose it: it leaves room for the rest of a request in what ECS
/// takes ([`crate::task::OVERRIDES_MAX`]).
pub const ARTIFACT_GLOB_MAX: usize = 256;
/// The beginning of a pattern that leaves files out.
const EXCEPT: char = '!';

/// The files of a run that are to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifacts {
    /// The patterns. There is at least one that takes files.
    pub globs: Vec<ArtifactGlob>,
    /// After which end the files are kept.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub on: ArtifactsOn,
}

text_type! {
    /// A pattern for paths below the folder that the command starts in: `dist/**`, `*.xml`,
    /// `report.{html,css}`. `*` and `?` stay within a folder, `**` crosses them. A pattern that
    /// names a folder takes all that is in it. One that begins with `!` leaves files out.
    ArtifactGlob, ArtifactGlobError
}

/// Why a text is not an [`ArtifactGlob`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArtifactGlobError {
    /// Nothing was given.
    #[error("is empty: name files, as in `dist/**`")]
    Empty,
    /// Longer than [`ARTIFACT_GLOB_MAX`].
    #[error(
        "is {0} bytes long, the limit is {ARTIFACT_GLOB_MAX}: use a shorter pattern, or a folder"
    )]
    TooLong(usize),
    /// It does not stay below the command's folder.
    #[error(
        "{} leads out of the folder that the command starts in: give a path below it, as in `dist/**`",
        shown(text)
    )]
    Outside {
        /// The whole text.
        text: String,
    },
    /// It holds a character that no variable can have.
    #[error("holds a NUL byte, which no path has: remove it")]
    Nul,
    /// It is no pattern.
    #[error("{} is not a pattern: {why}", shown(text))]
    Malformed {
        /// The whole text.
        text: String,
        /// The fault.
        why: String,
    },
}

impl ArtifactGlob {
    fn check(text: &str) -> Result<(), ArtifactGlobError> {
        if text.len() > ARTIFACT_GLOB_MAX {
            return Err(ArtifactGlobError::TooLong(text.len()));
        }
        if text.contains('\0') {
            return Err(ArtifactGlobError::Nul);
        }
        let path = below(text);
        if path.is_empty() {
            return Err(ArtifactGlobError::Empty);
        }
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(ArtifactGlobError::Outside {
                text: text.to_owned(),
            });
        }
        let malformed = |error: globset::Error| ArtifactGlobError::Malformed {
            text: text.to_owned(),
            why: error.kind().to_string(),
        };
        glob(path).map(drop).map_err(malformed)
    }

    /// The pattern. `None` never happens: it was checked.
    fn glob(&self) -> Option<Glob> {
        glob(below(&self.0)).ok()
    }

    /// Whether it leaves files out.
    #[must_use]
    pub fn is_exception(&self) -> bool {
        self.0.starts_with(EXCEPT)
    }
}

/// Patterns that are ready to be compared with paths.
#[derive(Clone, Debug)]
pub struct ArtifactPatterns {
    taken: GlobSet,
    left_out: GlobSet,
}

impl ArtifactPatterns {
    /// Prepares patterns.
    ///
    /// # Errors
    /// When they are too large together.
    pub fn of(globs: &[ArtifactGlob]) -> Result<Self, globset::Error> {
        let set = |is_exception: bool| {
            let mut set = GlobSetBuilder::new();
            let globs = globs
                .iter()
                .filter(|glob| glob.is_exception() == is_exception);
            for glob in globs.filter_map(ArtifactGlob::glob) {
                set.add(glob);
            }
            set.build()
        };
        Ok(Self {
            taken: set(false)?,
            left_out: set(true)?,
        })
    }

    /// Whether a path below the command's folder is taken: it, or a folder that it is in, is named
    /// by a pattern that takes, and none of them by one that leaves out.
    #[must_use]
    pub fn take(&self, path: &Path) -> bool {
        let is_in = |set: &GlobSet| {
            let mut folders = path
                .ancestors()
                .filter(|folder| !folder.as_os_str().is_empty());
            folders.any(|folder| set.is_match(folder))
        };
        is_in(&self.taken) && !is_in(&self.left_out)
    }
}

/// The pattern without what only says that it begins in the command's folder, or that it names a
/// folder.
fn below(text: &str) -> &str {
    let mut path = text.strip_prefix(EXCEPT).unwrap_or(text);
    while let Some(rest) = path.strip_prefix("./") {
        path = rest;
    }
    let folder = path.trim_end_matches('/');
    if folder.is_empty() { path } else { folder }
}

fn glob(path: &str) -> Result<Glob, globset::Error> {
    // The folder itself is all that is in it.
    let path = if path == "." { "**" } else { path };
    GlobBuilder::new(path)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_a_file_or_all_of_a_folder() {
        let take = |globs: &[&str], path: &str| {
            let globs: Vec<_> = globs.iter().map(|glob| glob.parse().unwrap()).collect();
            ArtifactPatterns::of(&globs).unwrap().take(Path::new(path))
        };
        for (globs, path, is_taken) in [
            (&["dist/**"][..], "dist/a/b", true),
            (&["dist"], "dist/a/b", true),
            (&["./dist/"], "dist/a", true),
            (&["dist"], "src/dist/a", false),
            (&["**/dist"], "src/dist/a", true),
            (&["*.xml"], "a.xml", true),
            (&["*.xml"], "a/b.xml", false),
            (&["**/*.xml"], "b.xml", true),
            (&["**/*.xml"], "a/b.xml", true),
            (&["**"], "a/b", true),
            (&["."], "a/b", true),
            (&["a/*"], "a/b/c", true),
            (&["report.{html,css}"], "report.css", true),
            (&["**", "!**/*.tmp"], "a/b.tmp", false),
            (&["**", "!node_modules"], "node_modules/x/y", false),
            (&["**", "!node_modules"], "a/node_modules/x", true),
            (&["a\\*b"], "a*b", true),
        ] {
            assert_eq!(take(globs, path), is_taken, "{globs:?} {path}");
        }
    }

    #[test]
    fn patterns_stay_below_the_commands_folder() {
        for text in [
            "dist/**",
            "./a/b.txt",
            "a/",
            "!**/*.tmp",
            "a{b,c}",
            "x[0-9]",
            "a\\*b",
            "…",
            ".",
        ] {
            let read = text.parse::<ArtifactGlob>();
            assert!(
                read.as_ref().is_ok_and(|glob| glob.glob().is_some()),
                "{read:?}"
            );
        }
        let outside = |text: &str| ArtifactGlobError::Outside {
            text: text.to_owned(),
        };
        for text in ["/etc/passwd", "../x", "a/../../b", "!/x", ".//x"] {
            assert_eq!(text.parse::<ArtifactGlob>(), Err(outside(text)), "{text}");
        }
        assert_eq!("".parse::<ArtifactGlob>(), Err(ArtifactGlobError::Empty));
        assert_eq!("!".parse::<ArtifactGlob>(), Err(ArtifactGlobError::Empty));
        assert_eq!("./".parse::<ArtifactGlob>(), Err(ArtifactGlobError::Empty));
        assert_eq!("a\0".parse::<ArtifactGlob>(), Err(ArtifactGlobError::Nul));
        let long = "x".repeat(ARTIFACT_GLOB_MAX + 1);
        assert_eq!(
            long.parse::<ArtifactGlob>(),
            Err(ArtifactGlobError::TooLong(257))
        );
        let error = "a[".parse::<ArtifactGlob>().unwrap_err().to_string();
        assert!(error.starts_with("`a[` is not a pattern: "), "{error}");
    }
}
