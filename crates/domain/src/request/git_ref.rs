//! The ref to check out: a branch, a tag or a commit, by a name that git cannot misread as
//! something else.

use thiserror::Error;

use super::text::{shown, text_type};

/// The longest ref, in bytes: a ref is a file name in most stores, and file systems allow 255.
pub const REF_MAX: usize = 255;

text_type! {
    /// A branch, a tag, `HEAD`, or a commit's full or short SHA.
    ///
    /// The rules are those of `git check-ref-format --allow-onelevel`. In addition a ref must not
    /// start with `-`, because git would read it as an option.
    GitRef, RefError
}

/// Why a text is not a [`GitRef`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RefError {
    /// Nothing was given.
    #[error(
        "is empty: name a branch, a tag or a commit, or leave it out for the repository's default branch"
    )]
    Empty,
    /// Longer than [`REF_MAX`].
    #[error("is {0} bytes long, the limit is {REF_MAX}: name the commit's SHA instead")]
    TooLong(usize),
    /// Starts with a dash.
    #[error("{} starts with `-`, which git reads as an option: name the commit's SHA instead", shown(.0))]
    Dash(String),
    /// Breaks one of git's own rules.
    #[error(
        "{} is not a ref that git accepts, because it {rule}: check its spelling, or name the commit's SHA",
        shown(text)
    )]
    Git {
        /// The whole text.
        text: String,
        /// The rule it breaks, in words that follow "it".
        rule: RefRule,
    },
}

/// The rules of `git check-ref-format`, in the words of our messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RefRule {
    /// A control character, a space, or one of `~^:?*[\`.
    #[error("holds {0:?}")]
    Character(char),
    /// Two dots in a row, which mean a range.
    #[error("holds `..`")]
    DoubleDot,
    /// `@{`, which names an earlier value of a ref.
    #[error("holds `@{{`")]
    Reflog,
    /// `@` alone, which is another name for HEAD.
    #[error("is a bare `@`")]
    BareAt,
    /// A slash at either end, or two in a row.
    #[error("has an empty part between slashes")]
    EmptyPart,
    /// A part that starts with a dot.
    #[error("has a part that starts with a dot")]
    LeadingDot,
    /// A dot at the very end.
    #[error("ends with a dot")]
    TrailingDot,
    /// A part that ends with `.lock`, git's name for its own lock files.
    #[error("has a part that ends with `.lock`")]
    Lock,
}

impl GitRef {
    fn check(text: &str) -> Result<(), RefError> {
        if text.is_empty() {
            return Err(RefError::Empty);
        }
        if text.len() > REF_MAX {
            return Err(RefError::TooLong(text.len()));
        }
        if text.starts_with('-') {
            return Err(RefError::Dash(text.to_owned()));
        }
        match broken_rule(text) {
            Some(rule) => Err(RefError::Git {
                text: text.to_owned(),
                rule,
            }),
            None => Ok(()),
        }
    }
}

fn broken_rule(text: &str) -> Option<RefRule> {
    if let Some(character) = text.chars().find(|c| is_forbidden(*c)) {
        return Some(RefRule::Character(character));
    }
    let whole = [
        (text.contains(".."), RefRule::DoubleDot),
        (text.contains("@{"), RefRule::Reflog),
        (text == "@", RefRule::BareAt),
        (text.ends_with('.'), RefRule::TrailingDot),
    ];
    let of_whole = whole
        .into_iter()
        .find_map(|(broken, rule)| broken.then_some(rule));
    of_whole.or_else(|| text.split('/').find_map(part_rule))
}

fn part_rule(part: &str) -> Option<RefRule> {
    match part {
        "" => Some(RefRule::EmptyPart),
        _ if part.starts_with('.') => Some(RefRule::LeadingDot),
        _ if part.ends_with(".lock") => Some(RefRule::Lock),
        _ => None,
    }
}

fn is_forbidden(character: char) -> bool {
    character.is_control() || " ~^:?*[\\".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        text.parse::<GitRef>().unwrap_err().to_string()
    }

    #[test]
    fn branches_tags_and_commits_are_accepted() {
        for text in [
            "main",
            "HEAD",
            "feature/login-2",
            "v1.2.3",
            "refs/pull/7/head",
            "a.lockfile",
            "x@y",
            "née",
            "+1",
            "0123abc",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            &"b".repeat(255),
        ] {
            assert_eq!(text.parse::<GitRef>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn nothing_that_git_reads_as_an_option() {
        for text in ["-", "-b", "--upload-pack=touch /tmp/x", "--help"] {
            let expected = format!(
                "`{text}` starts with `-`, which git reads as an option: name the commit's SHA instead"
            );
            assert_eq!(fault(text), expected);
        }
    }

    #[test]
    fn a_broken_rule_of_git_is_named() {
        for (text, rule) in [
            ("a b", "holds ' '"),
            ("a\nb", "holds '\\n'"),
            ("a\u{7f}", "holds '\\u{7f}'"),
            ("a~1", "holds '~'"),
            ("a^", "holds '^'"),
            ("a:b", "holds ':'"),
            ("a?", "holds '?'"),
            ("a*", "holds '*'"),
            ("a[b", "holds '['"),
            ("a\\b", "holds '\\\\'"),
            ("a..b", "holds `..`"),
            ("a@{1}", "holds `@{`"),
            ("@", "is a bare `@`"),
            ("/a", "has an empty part between slashes"),
            ("a/", "has an empty part between slashes"),
            ("a//b", "has an empty part between slashes"),
            (".a", "has a part that starts with a dot"),
            ("a/.b", "has a part that starts with a dot"),
            ("a.", "ends with a dot"),
            ("a.lock", "has a part that ends with `.lock`"),
            ("a.lock/b", "has a part that ends with `.lock`"),
        ] {
            let shown = text.escape_debug();
            let expected = format!(
                "`{shown}` is not a ref that git accepts, because it {rule}: check its spelling, or name the commit's SHA"
            );
            assert_eq!(fault(text), expected);
        }
    }

    #[test]
    fn length_is_limited() {
        assert_eq!(
            fault(""),
            "is empty: name a branch, a tag or a commit, or leave it out for the repository's default branch"
        );
        assert_eq!(
            fault(&"b".repeat(256)),
            "is 256 bytes long, the limit is 255: name the commit's SHA instead"
        );
    }
}
