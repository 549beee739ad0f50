//! Event patterns, evaluated as EventBridge and Lambda's event filters do (Amazon EventBridge User
//! Guide, "Comparison operators"), since no emulator evaluates them.
//!
//! The module knows the operators that this project's patterns use and that users write in their
//! first rules: exact values, `prefix`, `suffix`, `equals-ignore-case`, `anything-but` and
//! `exists`. Another operator is an error, never a match.

use serde_json::Value;

/// An event pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern(Vec<(String, Field)>);

/// What the pattern requires of one field of the event.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    /// An object that matches.
    Object(Pattern),
    /// One of these values.
    Any(Vec<Test>),
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Is(Value),
    IgnoringCase(String),
    StartsWith(String),
    EndsWith(String),
    AnythingBut(Vec<Value>),
    Exists(bool),
}

/// A value that is not a pattern, or uses an operator that is not known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern's {field}: {fault}")]
pub struct PatternError {
    field: String,
    fault: String,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`PatternError`] names the field.
    pub fn parse(pattern: &Value) -> Result<Self, PatternError> {
        Self::below(pattern, "")
    }

    fn below(pattern: &Value, path: &str) -> Result<Self, PatternError> {
        let fault = |field: &str, fault: String| PatternError {
            field: field.to_owned(),
            fault,
        };
        let map = pattern
            .as_object()
            .ok_or_else(|| fault(path, "is no object".into()))?;
        let fields = map.iter().map(|(key, value)| {
            let path = format!("{path}.{key}");
            let field = match value {
                Value::Object(_) => Field::Object(Self::below(value, &path)?),
                Value::Array(tests) if !tests.is_empty() => {
                    let tests = tests
                        .iter()
                        .map(|test| Test::parse(test).map_err(|message| fault(&path, message)));
                    Field::Any(tests.collect::<Result<_, _>>()?)
                }
                other => {
                    return Err(fault(
                        &path,
                        format!("{other} is neither an object nor a list of values"),
                    ));
                }
            };
            Ok((key.clone(), field))
        });
        Ok(Self(fields.collect::<Result<_, _>>()?))
    }

    /// Whether an event matches: every field of the pattern must.
    #[must_use]
    pub fn matches(&self, event: &Value) -> bool {
        self.0.iter().all(|(key, field)| field.fits(event.get(key)))
    }
}

impl Field {
    fn fits(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            // In a list, of objects or of values, one item has to match.
            (Self::Object(pattern), Some(Value::Array(items))) => {
                items.iter().any(|item| pattern.matches(item))
            }
            (Self::Object(pattern), Some(value)) => pattern.matches(value),
            (Self::Object(pattern), None) => pattern.matches(&Value::Null),
            (Self::Any(tests), Some(Value::Array(items))) if !items.is_empty() => items
                .iter()
                .any(|item| tests.iter().any(|test| test.holds(Some(item)))),
            (Self::Any(tests), value) => tests.iter().any(|test| test.holds(value)),
        }
    }
}

impl Test {
    fn parse(test: &Value) -> Result<Self, String> {
        let Value::Object(map) = test else {
            return if test.is_array() {
                Err(format!("{test} is a list in a list"))
            } else {
                Ok(Self::Is(test.clone()))
            };
        };
        let mut operators = map.iter();
        match (operators.next(), operators.next()) {
            (Some((name, argument)), None) => match (name.as_str(), argument) {
                ("prefix", Value::String(text)) => Ok(Self::StartsWith(text.clone())),
                ("suffix", Value::String(text)) => Ok(Self::EndsWith(text.clone())),
                ("equals-ignore-case", Value::String(text)) => {
                    Ok(Self::IgnoringCase(text.to_lowercase()))
                }
                ("exists", Value::Bool(exists)) => Ok(Self::Exists(*exists)),
                ("anything-but", Value::Array(values)) => Ok(Self::AnythingBut(values.clone())),
                ("anything-but", value @ (Value::String(_) | Value::Number(_))) => {
                    Ok(Self::AnythingBut(vec![value.clone()]))
                }
                _ => Err(format!("{test} is not known here")),
            },
            _ => Err(format!("{test} is not one operator")),
        }
    }

    fn holds(&self, value: Option<&Value>) -> bool {
        let text = value.and_then(Value::as_str);
        match self {
            Self::Is(wanted) => value == Some(wanted),
            Self::IgnoringCase(wanted) => text.is_some_and(|text| text.to_lowercase() == *wanted),
            Self::StartsWith(start) => text.is_some_and(|text| text.starts_with(start)),
            Self::EndsWith(end) => text.is_some_and(|text| text.ends_with(end)),
            Self::AnythingBut(unwanted) => value.is_some_and(|value| !unwanted.contains(value)),
            // Only leaf fields can exist: the operator does not apply to objects (same guide).
            Self::Exists(wanted) => value.is_some_and(|value| !value.is_object()) == *wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(pattern: &Value, event: &Value, expected: bool) {
        assert_eq!(
            Pattern::parse(pattern).expect("a pattern").matches(event),
            expected,
            "{pattern} of {event}"
        );
    }

    #[test]
    fn every_field_has_to_fit_and_of_its_values_one() {
        let pattern = json!({"source": ["a", "b"], "detail": {"n": [1, null]}});
        check(
            &pattern,
            &json!({"source": "b", "detail": {"n": 1}, "more": true}),
            true,
        );
        check(
            &pattern,
            &json!({"source": "b", "detail": {"n": null}}),
            true,
        );
        check(&pattern, &json!({"source": "b", "detail": {"n": 2}}), false);
        check(&pattern, &json!({"source": "c", "detail": {"n": 1}}), false);
        check(&pattern, &json!({"source": "b", "detail": {}}), false);
        check(&pattern, &json!({"source": "b"}), false);
        check(&pattern, &json!({"source": "B", "detail": {"n": 1}}), false);
        check(
            &pattern,
            &json!({"source": "b", "detail": {"n": "1"}}),
            false,
        );
    }

    #[test]
    fn lists_in_the_event_fit_with_one_of_their_values() {
        check(&json!({"a": ["x"]}), &json!({"a": ["w", "x"]}), true);
        check(&json!({"a": ["x"]}), &json!({"a": ["w"]}), false);
        check(&json!({"a": ["x"]}), &json!({"a": []}), false);
        check(
            &json!({"a": {"b": ["x"]}}),
            &json!({"a": [{"b": "w"}, {"b": "x"}]}),
            true,
        );
        check(
            &json!({"a": {"b": ["x"]}}),
            &json!({"a": [{"b": "w"}]}),
            false,
        );
    }

    #[test]
    fn operators() {
        check(
            &json!({"a": [{"prefix": "ab"}]}),
            &json!({"a": "abc"}),
            true,
        );
        check(
            &json!({"a": [{"prefix": "bc"}]}),
            &json!({"a": "abc"}),
            false,
        );
        check(
            &json!({"a": [{"suffix": "bc"}]}),
            &json!({"a": "abc"}),
            true,
        );
        check(
            &json!({"a": [{"equals-ignore-case": "ABC"}]}),
            &json!({"a": "aBc"}),
            true,
        );
        check(
            &json!({"a": [{"anything-but": ["x", "y"]}]}),
            &json!({"a": "z"}),
            true,
        );
        check(
            &json!({"a": [{"anything-but": "x"}]}),
            &json!({"a": "x"}),
            false,
        );
        check(&json!({"a": [{"anything-but": "x"}]}), &json!({}), false);
        check(&json!({"a": [{"exists": true}]}), &json!({"a": null}), true);
        check(&json!({"a": [{"exists": false}]}), &json!({"b": 1}), true);
        check(&json!({"a": {"b": [{"exists": false}]}}), &json!({}), true);
    }

    #[test]
    fn what_is_not_known_is_no_match_but_an_error() {
        for pattern in [
            json!({"a": "x"}),
            json!({"a": []}),
            json!({"a": [["x"]]}),
            json!({"a": [{"numeric": [">", 1]}]}),
            json!({"a": [{"prefix": "x", "suffix": "y"}]}),
            json!({"$or": [{"a": ["x"]}]}),
            json!(["a"]),
        ] {
            assert!(Pattern::parse(&pattern).is_err(), "{pattern}");
        }
    }
}
