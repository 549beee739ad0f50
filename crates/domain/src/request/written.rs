//! Reading a request from a line of JSON as it was written, before it becomes a `SubmitRequest`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::given::NewName;

/// Reads the keys of a JSON object. A name that is given twice at any depth is an error, because
/// one of the two values would be dropped silently.
///
/// A number or a boolean among the variables of `env` becomes the text that was written, as in
/// `.mycli.yaml`: `1.10` stays `1.10`.
///
/// # Errors
/// The text is not JSON, is not an object, or has a name twice.
pub fn written_keys(text: &str) -> serde_json::Result<Map<String, Value>> {
    let WrittenKeys(mut keys) = serde_json::from_str(text)?;
    if let Some(Value::Object(env)) = keys.get_mut("env")
        && env.values().any(is_bare)
    {
        let written: WrittenEnv<'_> = serde_json::from_str(text)?;
        let bare = env.iter_mut().filter(|(_, value)| is_bare(value));
        bare.for_each(|(name, value)| {
            *value = as_written(written.env.get(name.as_str()).copied(), value);
        });
    }
    Ok(keys)
}

fn is_bare(value: &Value) -> bool {
    value.is_number() || value.is_boolean()
}

fn as_written(raw: Option<&RawValue>, value: &Value) -> Value {
    Value::String(raw.map_or_else(|| value.to_string(), |raw| raw.get().to_owned()))
}

/// The variables' values as written in the text.
#[derive(Deserialize)]
struct WrittenEnv<'t> {
    #[serde(borrow)]
    env: BTreeMap<String, &'t RawValue>,
}

struct WrittenKeys(Map<String, Value>);

impl<'de> Deserialize<'de> for WrittenKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor;

        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = WrittenKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenKeys, A::Error> {
                each_once(map).map(WrittenKeys)
            }
        }

        deserializer.deserialize_map(KeysVisitor)
    }
}

/// Any JSON in which no name is given twice.
struct Any(Value);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Any;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Any, E> {
        Ok(Any(Value::Null))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Any, E> {
        Ok(Any(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Any, E> {
        Ok(Any(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Any, E> {
        Ok(Any(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Any, E> {
        Ok(Any(value.into()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Any, E> {
        Ok(Any(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Any, A::Error> {
        let mut values = Vec::new();
        while let Some(Any(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Any(Value::Array(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Any, A::Error> {
        each_once(map).map(|keys| Any(Value::Object(keys)))
    }
}

fn each_once<'de, A: MapAccess<'de>>(mut map: A) -> Result<Map<String, Value>, A::Error> {
    let (mut names, mut keys) = (BTreeSet::new(), Map::new());
    while let Some(name) = map.next_key_seed(NewName(&mut names))? {
        let Any(value) = map.next_value()?;
        keys.insert(name, value);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = written_keys(text).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn a_name_is_given_once_wherever_it_stands() {
        check_error(
            r#"{"command": "a", "command": "b"}"#,
            "duplicate field `command` at line 1 column 26",
        );
        check_error(
            r#"{"env": {"A": "first", "\u0041": "second"}}"#,
            "duplicate field `A`",
        );
        check_error(r#"{"x": [{"a": 1, "a": 2}]}"#, "duplicate field `a`");
        check_error("[1]", "invalid type: sequence, expected an object");
        check_error("{\"command\":}", "expected value");
    }

    #[test]
    fn numbers_and_booleans_are_variables_as_they_are_written() {
        let text = r#"{"cpu": 512, "x": [null, -1, 1.5, true, {}], "env": {"A": 1.10, "B": 1e3, "C": true, "D": "\u0041", "E": -0,
            "F": 123456789012345678901234567890}}"#;
        let expected = json!({
            "cpu": 512, "x": [null, -1, 1.5, true, {}],
            "env": {"A": "1.10", "B": "1e3", "C": "true", "D": "A", "E": "-0", "F": "123456789012345678901234567890"}
        });
        assert_eq!(Value::Object(written_keys(text).unwrap()), expected);
        let others = json!({"env": {"A": null, "B": [], "C": {}}});
        assert_eq!(
            Value::Object(written_keys(&others.to_string()).unwrap()),
            others
        );
        assert_eq!(
            Value::Object(written_keys(r#"{"env": 1}"#).unwrap()),
            json!({"env": 1})
        );
    }
}
