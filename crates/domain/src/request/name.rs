//! Names that users give to things: runs, locks, groups, and the key that makes a submission
//! repeatable.

use thiserror::Error;

use super::text::{shown, text_type};

/// The longest name, in characters. It fits a DynamoDB key, an ECS tag and a terminal column.
pub const NAME_MAX: usize = 64;

/// The longest idempotency key, in characters. ECS's own `clientToken` has the same limit.
pub const IDEMPOTENCY_KEY_MAX: usize = 64;

text_type! {
    /// The name of a run, a lock or a group: 1 to 64 of `A-Z a-z 0-9 . _ -`, starting with a letter
    /// or digit.
    Name, NameError
}

text_type! {
    /// The caller's own key for a submission, 1 to 64 printable ASCII characters. The same key
    /// within 24 hours is the same run.
    IdempotencyKey, IdempotencyKeyError
}

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("is empty: give 1 to {NAME_MAX} characters, or leave it out")]
    Empty,
    /// Longer than [`NAME_MAX`].
    #[error("is {0} characters long, the limit is {NAME_MAX}: shorten it")]
    TooLong(usize),
    /// Starts with something other than a letter or digit.
    #[error(
        "{} starts with {first:?}: start with a letter or a digit",
        shown(text)
    )]
    Start {
        /// The whole text.
        text: String,
        /// Its first character.
        first: char,
    },
    /// Holds a character that names may not have.
    #[error(
        "{} holds {character:?}: use only letters, digits, `.`, `_` and `-`",
        shown(text)
    )]
    Character {
        /// The whole text.
        text: String,
        /// The first character that is not allowed.
        character: char,
    },
}

/// Why a text is not an [`IdempotencyKey`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdempotencyKeyError {
    /// Nothing was given.
    #[error("is empty: give 1 to {IDEMPOTENCY_KEY_MAX} characters, or leave it out")]
    Empty,
    /// Longer than [`IDEMPOTENCY_KEY_MAX`].
    #[error(
        "is {0} characters long, the limit is {IDEMPOTENCY_KEY_MAX}: shorten it, or send a hash of it"
    )]
    TooLong(usize),
    /// Holds a character outside printable ASCII.
    #[error("holds {0:?}: use printable ASCII only")]
    Character(char),
}

impl Name {
    fn check(text: &str) -> Result<(), NameError> {
        let first = text.chars().next().ok_or(NameError::Empty)?;
        let length = text.chars().count();
        if length > NAME_MAX {
            return Err(NameError::TooLong(length));
        }
        if let Some(character) = text.chars().find(|c| !is_name_character(*c)) {
            return Err(NameError::Character {
                text: text.to_owned(),
                character,
            });
        }
        if !first.is_ascii_alphanumeric() {
            return Err(NameError::Start {
                text: text.to_owned(),
                first,
            });
        }
        Ok(())
    }
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

impl IdempotencyKey {
    fn check(text: &str) -> Result<(), IdempotencyKeyError> {
        let length = text.chars().count();
        if length == 0 {
            return Err(IdempotencyKeyError::Empty);
        }
        if length > IDEMPOTENCY_KEY_MAX {
            return Err(IdempotencyKeyError::TooLong(length));
        }
        match text.chars().find(|c| !matches!(c, ' '..='~')) {
            Some(character) => Err(IdempotencyKeyError::Character(character)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_fault(text: &str) -> String {
        text.parse::<Name>().unwrap_err().to_string()
    }

    fn key_fault(text: &str) -> String {
        text.parse::<IdempotencyKey>().unwrap_err().to_string()
    }

    #[test]
    fn names_of_the_usual_shapes_are_accepted() {
        for text in ["a", "0", "nightly-build", "team.infra_2", &"x".repeat(64)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_refused_name_says_what_to_change() {
        assert_eq!(
            name_fault(""),
            "is empty: give 1 to 64 characters, or leave it out"
        );
        assert_eq!(
            name_fault(&"x".repeat(65)),
            "is 65 characters long, the limit is 64: shorten it"
        );
        assert_eq!(
            name_fault("-rf"),
            "`-rf` starts with '-': start with a letter or a digit"
        );
        assert_eq!(
            name_fault("a b"),
            "`a b` holds ' ': use only letters, digits, `.`, `_` and `-`"
        );
        assert_eq!(
            name_fault("é"),
            "`é` holds 'é': use only letters, digits, `.`, `_` and `-`"
        );
        assert_eq!(
            name_fault("a\n"),
            "`a\\n` holds '\\n': use only letters, digits, `.`, `_` and `-`"
        );
    }

    #[test]
    fn idempotency_keys_are_printable_ascii() {
        for text in ["k", "deploy #12 ~ {\"a\":1}", &"~".repeat(64)] {
            assert_eq!(text.parse::<IdempotencyKey>().unwrap().as_str(), text);
        }
        assert_eq!(
            key_fault(""),
            "is empty: give 1 to 64 characters, or leave it out"
        );
        assert_eq!(
            key_fault(&"k".repeat(65)),
            "is 65 characters long, the limit is 64: shorten it, or send a hash of it"
        );
        assert_eq!(key_fault("a\tb"), "holds '\\t': use printable ASCII only");
        assert_eq!(key_fault("clé"), "holds 'é': use printable ASCII only");
    }
}
