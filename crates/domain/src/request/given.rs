//! Reading `env` and lists of texts as users write them. With serde alone the last of two values
//! for one name would win, and YAML's null would become the text `null`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};

use super::{env::without_value, text::shown};

/// Reads variables by name, each given once. An `env:` with nothing below it is null in YAML and
/// means the same as no `env` at all.
pub(super) fn variables<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::<Variables>::deserialize(deserializer)?
        .unwrap_or_default()
        .0)
}

/// Reads a list of texts. Null is an empty list.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(given_texts(deserializer)?.unwrap_or_default())
}

/// Reads a list of texts where an empty list means something else than no list.
pub(super) fn given_texts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    Ok(Option::<Texts>::deserialize(deserializer)?.map(|texts| texts.0))
}

/// Returns the error for a name that is given twice. For a name given as `NAME=value` it does not
/// repeat the value.
pub(super) fn twice(name: &str) -> String {
    format!("duplicate field {}", shown(without_value(name)))
}

#[derive(Default)]
struct Variables(BTreeMap<String, String>);

#[derive(Default)]
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(VariablesVisitor)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(TextsVisitor)
    }
}

struct VariablesVisitor;

impl<'de> Visitor<'de> for VariablesVisitor {
    type Value = Variables;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // This is serde's wording, which the API and the command line replace in their messages.
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Variables, A::Error> {
        let mut names = BTreeSet::new();
        let mut variables = BTreeMap::new();
        while let Some(name) = map.next_key_seed(NewName(&mut names))? {
            let what = shown(without_value(&name));
            let value = map.next_value_seed(NoNull(&format!(
                "{what} is null: write \"\" for an empty text, or leave it out"
            )))?;
            variables.insert(name, value);
        }
        Ok(Variables(variables))
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Texts, A::Error> {
        texts_of(list).map(Texts)
    }
}

/// Reads the texts of a list.
pub(super) fn texts_of<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Vec<String>, A::Error> {
    let mut texts = Vec::new();
    loop {
        let null = format!("entry {} is null: leave it out", texts.len() + 1);
        match list.next_element_seed(NoNull(&null))? {
            Some(text) => texts.push(text),
            None => return Ok(texts),
        }
    }
}

/// A name that must not be among the earlier names. It is checked while it is read, so that the
/// error has its location.
pub(super) struct NewName<'a>(pub(super) &'a mut BTreeSet<String>);

impl<'de> DeserializeSeed<'de> for NewName<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NewName<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<String, E> {
        match self.0.insert(name.to_owned()) {
            true => Ok(name.to_owned()),
            false => Err(E::custom(twice(name))),
        }
    }
}

/// A text that must not be null, with the error for a null. YAML's reader returns `null` as a text
/// if a text is asked for, quoted or not. Only if an optional value is asked for does it tell the
/// two apart.
struct NoNull<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for NoNull<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for NoNull<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_none<E: de::Error>(self) -> Result<String, E> {
        Err(E::custom(self.0))
    }

    fn visit_unit<E: de::Error>(self) -> Result<String, E> {
        self.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use crate::request::{Changes, SubmitRequest};

    /// Checks that a request and the changes of a rerun give the same error.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let request = serde_json::from_str::<SubmitRequest>(text).map(drop);
        let changes = serde_json::from_str::<Changes>(text).map(drop);
        for read in [request, changes] {
            let error = read.expect_err(text).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_variable_is_given_once_however_its_name_is_written() {
        check(
            r#"{"env": {"A": "first", "B": "", "A": "second"}}"#,
            "duplicate field `A` at line 1 column 35",
        );
        check(
            r#"{"env": {"A": "first", "\u0041": "second"}}"#,
            "duplicate field `A`",
        );
        check(
            r#"{"env": {"A=hidden": "first", "A=hidden": "second"}}"#,
            "duplicate field `A=` at",
        );
        check(
            r#"{"env": {"A": "1"}, "env": {"A": "2"}}"#,
            "duplicate field `env`",
        );
    }

    #[test]
    fn null_is_no_text() {
        check(
            r#"{"env": {"A": null}}"#,
            "`A` is null: write \"\" for an empty text, or leave it out",
        );
        check(
            r#"{"secrets": ["A", null]}"#,
            "entry 2 is null: leave it out",
        );
        check(r#"{"retry_on": [null]}"#, "entry 1 is null: leave it out");
        let empty: SubmitRequest =
            serde_json::from_str(r#"{"env": {"A": "", "null": "null"}}"#).unwrap();
        assert_eq!(
            (empty.env["A"].as_str(), empty.env["null"].as_str()),
            ("", "null")
        );
    }

    #[test]
    fn what_is_no_text_is_named_as_before() {
        check(
            r#"{"env": {"A": 1}}"#,
            "invalid type: integer `1`, expected a string",
        );
        check(
            r#"{"secrets": [true]}"#,
            "invalid type: boolean `true`, expected a string",
        );
        check(
            r#"{"env": ["A"]}"#,
            "invalid type: sequence, expected a map",
        );
        check(
            r#"{"secrets": "A"}"#,
            "invalid type: string \"A\", expected a sequence",
        );
    }
}
