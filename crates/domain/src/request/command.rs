//! The command of a request: shell text, or a program and its arguments.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};

use super::given;

/// The beginning of the shell text for words.
const EXEC: &str = "exec ";

/// A command. In JSON it is a text or a list of words. `Display` gives shell text: words are quoted
/// so that a shell keeps them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for `/bin/sh -c`.
    Text(String),
    /// A program and its arguments, run without a shell.
    Words(Vec<String>),
}

impl CommandLine {
    /// Shell text that runs the command. Words are run by `exec`, so that none of them means
    /// something to the shell (`if`, `time`, a builtin `echo`).
    #[must_use]
    pub fn for_shell(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Words(_) => format!("{EXEC}{self}"),
        }
    }

    /// Reads back the words from [`Self::for_shell`]. `None` if the text is no list of words.
    #[must_use]
    pub fn from_shell(text: &str) -> Option<Self> {
        Self::from_quoted(text.strip_prefix(EXEC)?)
    }

    /// Reads back the words from the shell text that `Display` gives for them. `None` if the text
    /// is no list of words.
    #[must_use]
    pub fn from_quoted(text: &str) -> Option<Self> {
        shlex::split(text).map(Self::Words)
    }

    /// Whether it is run without a shell.
    #[must_use]
    pub fn is_words(&self) -> bool {
        matches!(self, Self::Words(_))
    }
}

impl Default for CommandLine {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl From<&str> for CommandLine {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for CommandLine {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Words(words) => {
                // Validation refuses a NUL byte, the only thing that cannot be quoted.
                let words = words.iter().map(String::as_str);
                f.write_str(&shlex::try_join(words).unwrap_or_default())
            }
        }
    }
}

impl Serialize for CommandLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Words(words) => words.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CommandVisitor;

        impl<'de> Visitor<'de> for CommandVisitor {
            type Value = CommandLine;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of words")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<CommandLine, E> {
                Ok(text.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<CommandLine, A::Error> {
                given::texts_of(list).map(CommandLine::Words)
            }
        }

        deserializer.deserialize_any(CommandVisitor)
    }
}

/// The form of a command in a record. A release of before there were words reads the shell text and
/// passes over the rest.
pub(super) mod stored {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::CommandLine;

    #[derive(Serialize, Deserialize)]
    struct StoredCommand {
        command: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_words: bool,
    }

    pub(crate) fn serialize<S: Serializer>(
        command: &CommandLine,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let form = StoredCommand {
            command: command.to_string(),
            is_words: command.is_words(),
        };
        form.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<CommandLine, D::Error> {
        let form = StoredCommand::deserialize(deserializer)?;
        match form.is_words {
            false => Ok(form.command.into()),
            true => CommandLine::from_quoted(&form.command)
                .ok_or_else(|| de::Error::custom("the command is no list of words")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<CommandLine, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn a_text_is_shell_text_and_a_list_is_words() {
        assert_eq!(read(json!("ls -l")), Ok(CommandLine::Text("ls -l".into())));
        let words = vec!["ls".to_owned(), "a b".into()];
        assert_eq!(read(json!(["ls", "a b"])), Ok(CommandLine::Words(words)));
        let wrong = read(json!(5)).expect_err("a number is no command");
        assert!(
            wrong.contains("expected a text or a list of words"),
            "{wrong}"
        );
        let null = read(json!(["ls", null])).expect_err("a null is no word");
        assert!(null.contains("entry 2 is null"), "{null}");
    }

    #[test]
    fn words_are_shown_quoted() {
        let words = ["printf", "%s", "a b", "$A", ""].map(str::to_owned);
        let shown = CommandLine::Words(words.into()).to_string();
        assert_eq!(shown, "printf '%s' 'a b' '$A' ''");
    }

    proptest! {
        #[test]
        fn words_come_back_from_what_is_shown(words in prop::collection::vec("[^\0]*", 1..5)) {
            let command = CommandLine::Words(words);
            let read = CommandLine::from_shell(&command.for_shell());
            prop_assert_eq!(read.as_ref(), Some(&command));
            prop_assert_eq!(CommandLine::from_quoted(&command.to_string()), Some(command));
        }
    }
}
