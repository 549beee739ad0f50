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
/// The part of a pattern that stands for any folders.
const ANY_DEPTH: &str = "**";

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

    /// Patterns for the folders on the way to what it takes: of `a/*/b.txt` those are `a` and `a/*`.
    fn on_the_way(&self) -> Vec<Glob> {
        let path = below(&self.0);
        let mut globs = Vec::new();
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            match glob(folder) {
                Ok(glob) if !folder.contains(ANY_DEPTH) => globs.push(glob),
                // `**`, or a `/` that is within braces: any folder may be on the way.
                _ => return glob(ANY_DEPTH).into_iter().collect(),
            }
        }
        globs
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
    /// The folders on the way to what is taken.
    on_the_way: GlobSet,
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
        let mut on_the_way = GlobSetBuilder::new();
        let taken = globs.iter().filter(|glob| !glob.is_exception());
        for glob in taken.flat_map(ArtifactGlob::on_the_way) {
            on_the_way.add(glob);
        }
        Ok(Self {
            taken: set(false)?,
            left_out: set(true)?,
            on_the_way: on_the_way.build()?,
        })
    }

    /// Whether a folder below the command's folder, or one in it, may hold a file that is taken. So
    /// a search need not look into all folders.
    #[must_use]
    pub fn may_be_in(&self, folder: &Path) -> bool {
        !is_in(folder, &self.left_out)
            && (self.on_the_way.is_match(folder) || is_in(folder, &self.taken))
    }

    /// Whether a path below the command's folder is taken: it, or a folder that it is in, is named
    /// by a pattern that takes, and none of them by one that leaves out.
    #[must_use]
    pub fn take(&self, path: &Path) -> bool {
        is_in(path, &self.taken) && !is_in(path, &self.left_out)
    }
}

/// Whether a pattern of the set names a path, or a folder that it is in.
fn is_in(path: &Path, set: &GlobSet) -> bool {
    let mut folders = path
        .ancestors()
        .filter(|folder| !folder.as_os_str().is_empty());
    folders.any(|folder| set.is_match(folder))
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
    let path = if path == "." { ANY_DEPTH } else { path };
    GlobBuilder::new(path)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

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
    fn a_search_looks_only_where_files_may_be() {
        let may_be_in = |globs: &[&str], folder: &str| {
            let globs: Vec<_> = globs.iter().map(|glob| glob.parse().unwrap()).collect();
            let patterns = ArtifactPatterns::of(&globs).unwrap();
            patterns.may_be_in(Path::new(folder))
        };
        for (globs, folder, may) in [
            (&["dist/**"][..], "dist", true),
            (&["dist/**"], "dist/a/b", true),
            (&["dist/**"], "proc", false),
            (&["dist"], "dist/a", true),
            (&["a/b/c.txt"], "a/b", true),
            (&["a/b/c.txt"], "a/c", false),
            (&["a/*/c.txt"], "a/x", true),
            (&["a/*/c.txt"], "a/x/y", false),
            (&["*.xml"], "src", false),
            (&["*.xml"], "x.xml", true),
            (&["**/*.xml"], "src/a", true),
            (&["src/**/x"], "src/a/b", true),
            (&["{a/b,c}/d"], "a/b", true),
            (&["."], "a", true),
            (&["**", "!node_modules"], "node_modules", false),
            (&["**", "!**/node_modules"], "a/node_modules", false),
            (&["**", "!**/*.tmp"], "a", true),
        ] {
            assert_eq!(may_be_in(globs, folder), may, "{globs:?} {folder}");
        }
    }

    proptest! {
        /// A file that is taken is never in a folder that is passed over.
        #[test]
        fn no_file_is_passed_over(globs in vec("!?[ab*?/{},]{1,8}", 1..4), path in "[ab]{1,2}(/[ab]{1,2}){0,4}") {
            let globs: Vec<ArtifactGlob> = globs.iter().filter_map(|glob| glob.parse().ok()).collect();
            let patterns = ArtifactPatterns::of(&globs).unwrap();
            let path = Path::new(&path);
            if patterns.take(path) {
                let folders = path.ancestors().skip(1).filter(|folder| *folder != Path::new(""));
                for folder in folders {
                    prop_assert!(patterns.may_be_in(folder), "{globs:?} {}", folder.display());
                }
            }
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
