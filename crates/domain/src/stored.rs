//! Reads and writes stored forms. A stored form outlives the release that wrote it, and no release
//! may lose what another one wrote.
//!
//! A stored form is a JSON object, in whatever format the store saves it. Three rules hold for each
//! (docs/UPGRADING.md explains how to change one):
//!
//! - It carries the version of its form, as `v`. A form without `v` is from before versions
//!   existed. Only a change that an older release would misread raises the version; a new field
//!   does not.
//! - A form of a newer version is not read. It is reported as [`FormError::Newer`] and left as it
//!   is.
//! - Fields that this release does not know are kept as [`Unknown`] and written back with the rest.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The version of nearly all forms that this release writes.
pub const FORM: u64 = 1;
/// The version of a request of which the launcher of an older release would start another task
/// ([`crate::task::needs_this_release`]), and the newest version that this release reads.
pub const NEWEST: u64 = 2;
/// The field that contains the version.
pub const VERSION: &str = "v";

/// The error of a stored form that cannot be read. Neither its text nor its `Debug` output nor its
/// causes contain any of the content.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// A newer release wrote it.
    #[error(
        "a newer release of mycli wrote it, in form {found}; this release reads forms up to {NEWEST}"
    )]
    Newer {
        /// The version of the form.
        found: u64,
    },
    /// A part of it is missing or has a value that this release does not know.
    #[error("this release cannot read its {at}")]
    Malformed {
        /// The path of the part: `request.arch`.
        at: String,
    },
    /// It cannot be written as JSON.
    #[error("it cannot be written as JSON")]
    Unspeakable,
    /// It is not an object, or its version is not a number.
    #[error("it is not an object that mycli stored")]
    NoForm,
}

impl FormError {
    fn malformed(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = error.path().to_string();
        let said = error.inner().to_string();
        // "missing field `command`": the path names only the object that lacks the field.
        let missing = said
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split('`').next());
        let at = match (path.as_str(), missing) {
            (".", None) => "content".to_owned(),
            (".", Some(field)) => format!("`{field}`"),
            (path, None) => format!("`{path}`"),
            (path, Some(field)) => format!("`{path}.{field}`"),
        };
        // serde's message may quote the value, so it is dropped here.
        Self::Malformed { at }
    }
}

/// Fields of a stored form that this release does not know. They are never read, only written back.
#[derive(Clone, Default, PartialEq)]
pub struct Unknown(Option<Box<Beyond>>);

impl fmt::Debug for Unknown {
    /// Hides the fields: they may contain anything, secrets too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() {
            "Unknown"
        } else {
            "Unknown(…)"
        })
    }
}

impl Unknown {
    /// Whether there are no such fields.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Combines the unknown fields of several forms that make up one value, in their order.
    #[must_use]
    pub fn of_forms<const N: usize>(forms: [Self; N]) -> Self {
        let any = forms.iter().any(|form| !form.is_none());
        Self(any.then(|| Box::new(Beyond::Forms(forms.into()))))
    }

    /// The unknown fields of one of several forms, by its index.
    #[must_use]
    pub fn of_form(&self, place: usize) -> Self {
        match self.0.as_deref() {
            Some(Beyond::Forms(forms)) => forms.get(place).cloned().unwrap_or_default(),
            _ => Self::default(),
        }
    }
}

/// The parts of a form that this release does not know.
#[derive(Clone, PartialEq)]
enum Beyond {
    /// Of an object: whole unknown fields, and unknown parts within known fields.
    Fields {
        new: Map<String, Value>,
        within: Vec<(String, Beyond)>,
    },
    /// Of a list: unknown parts within elements, each with the element's identity.
    Elements(Vec<(Identity, Beyond)>),
    /// Of several forms that make up one value.
    Forms(Vec<Unknown>),
}

/// The fields that identify the elements of our lists: the number and nonce of an attempt, the time
/// of an event.
const IDENTITY: [&str; 3] = ["number", "nonce", "at"];

/// The identity of an element of a list: its [`IDENTITY`] fields, and the number of earlier
/// elements with equal ones.
#[derive(Clone, PartialEq)]
struct Identity {
    fields: Vec<Value>,
    before: usize,
}

impl Identity {
    /// The identity of each element.
    fn of_all(list: &[Value]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for element in list {
            let fields: Vec<_> = IDENTITY
                .iter()
                .filter_map(|name| element.get(name))
                .cloned()
                .collect();
            let before = all.iter().filter(|other| other.fields == fields).count();
            all.push(Self { fields, before });
        }
        all
    }
}

/// Reads a stored form: its value, and the parts that this release does not know.
///
/// # Errors
/// When the form is malformed or of a newer release.
pub fn read<T: DeserializeOwned + Serialize>(mut raw: Value) -> Result<(T, Unknown), FormError> {
    let form = raw.as_object_mut().ok_or(FormError::NoForm)?;
    match form.remove(VERSION).map(|version| version.as_u64()) {
        None => {}
        Some(Some(version)) if version <= NEWEST => {}
        Some(Some(found)) => return Err(FormError::Newer { found }),
        Some(None) => return Err(FormError::NoForm),
    }
    let value: T = serde_path_to_error::deserialize(raw.clone())
        .map_err(|error| FormError::malformed(&error))?;
    let known = serde_json::to_value(&value).map_err(|_| FormError::Unspeakable)?;
    Ok((value, Unknown(beyond(raw, &known).map(Box::new))))
}

/// The stored form of a value, together with the parts that this release does not know.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn write(value: &impl Serialize, unknown: &Unknown) -> Result<Value, FormError> {
    let mut form = serde_json::to_value(value).map_err(|_| FormError::Unspeakable)?;
    if let Some(beyond) = &unknown.0 {
        join(&mut form, beyond);
    }
    if let Value::Object(fields) = &mut form {
        fields.insert(VERSION.to_owned(), FORM.into());
    }
    Ok(form)
}

/// Reads the text of a stored form, as [`read`] does.
///
/// # Errors
/// See [`read`]; [`FormError::NoForm`] also for what is no JSON.
pub fn read_text<T: DeserializeOwned + Serialize>(text: &[u8]) -> Result<(T, Unknown), FormError> {
    // A text that comes out the same again has the version of this release, and nothing unknown.
    // So it is for nearly all forms, and no tree has to be made and compared.
    if let Ok(value) = serde_json::from_slice::<T>(text)
        && write_text(&value, &Unknown::default()).is_ok_and(|again| again.as_bytes() == text)
    {
        return Ok((value, Unknown::default()));
    }
    read(serde_json::from_slice(text).map_err(|_| FormError::NoForm)?)
}

/// The text of a value's stored form, together with the parts that this release does not know.
///
/// # Errors
/// See [`write()`].
pub fn write_text(value: &impl Serialize, unknown: &Unknown) -> Result<String, FormError> {
    if !unknown.is_none() {
        return Ok(write(value, unknown)?.to_string());
    }
    let mut text = serde_json::to_string(value).map_err(|_| FormError::Unspeakable)?;
    if text.ends_with('}') {
        text.pop();
        let comma = if text.ends_with('{') { "" } else { "," };
        text.push_str(&format!("{comma}\"{VERSION}\":{FORM}}}"));
    }
    Ok(text)
}

/// The parts of `raw` that `known` does not have; `None` if there are none. A `null` field counts
/// as missing.
fn beyond(raw: Value, known: &Value) -> Option<Beyond> {
    match (raw, known) {
        (Value::Object(raw), Value::Object(known)) => {
            let (mut new, mut within) = (Map::new(), Vec::new());
            for (name, value) in raw {
                match known.get(&name) {
                    Some(known) => within.extend(beyond(value, known).map(|beyond| (name, beyond))),
                    None if value.is_null() => {}
                    None => drop(new.insert(name, value)),
                }
            }
            (!new.is_empty() || !within.is_empty()).then_some(Beyond::Fields { new, within })
        }
        (Value::Array(raw), Value::Array(known)) => {
            let pairs = raw
                .into_iter()
                .zip(known)
                .map(|(raw, known)| beyond(raw, known));
            let pairs = Identity::of_all(known).into_iter().zip(pairs);
            let elements: Vec<_> = pairs
                .filter_map(|(identity, beyond)| Some((identity, beyond?)))
                .collect();
            (!elements.is_empty()).then_some(Beyond::Elements(elements))
        }
        _ => None,
    }
}

/// Puts the unknown parts back into a form. Known fields take precedence. Unknown parts of
/// something that was removed are dropped.
fn join(form: &mut Value, beyond: &Beyond) {
    match (form, beyond) {
        (Value::Object(form), Beyond::Fields { new, within }) => {
            fill(form, new);
            for (name, beyond) in within {
                if let Some(inner) = form.get_mut(name) {
                    join(inner, beyond);
                }
            }
        }
        (Value::Array(form), Beyond::Elements(elements)) => {
            let there = Identity::of_all(form);
            for (identity, beyond) in elements {
                if let Some(place) = there.iter().position(|other| other == identity) {
                    join(&mut form[place], beyond);
                }
            }
        }
        _ => {}
    }
}

/// Adds the fields that are missing.
fn fill(form: &mut Map<String, Value>, new: &Map<String, Value>) {
    for (name, value) in new {
        match (form.get_mut(name), value) {
            (None, value) => drop(form.insert(name.clone(), value.clone())),
            (Some(Value::Object(inner)), Value::Object(new)) => fill(inner, new),
            (Some(_), _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    /// A stored form as one release knows it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Record {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        input: Option<Inner>,
        attempts: Vec<Inner>,
        words: Vec<String>,
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Inner {
        number: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        said: Option<String>,
    }

    fn of_a_newer_release() -> Value {
        json!({
            "v": 1, "name": "a", "cost": {"usd": 1.5}, "input": {"number": 7, "secret": "x"},
            "attempts": [{"number": 1, "timings": [1, 2]}, {"number": 2, "timings": [3]}], "words": ["b"],
        })
    }

    #[test]
    fn what_is_not_known_survives_a_change_of_what_is() {
        let (mut record, unknown): (Record, _) = read(of_a_newer_release()).unwrap();
        assert_eq!(write(&record, &unknown).unwrap(), of_a_newer_release());
        record.name = "c".into();
        record.attempts[1].said = Some("d".into());
        record.attempts.push(Inner {
            number: 3,
            said: None,
        });
        let written = write(&record, &unknown).unwrap();
        assert_eq!(written["cost"], json!({"usd": 1.5}));
        assert_eq!(
            (&written["name"], &written["attempts"][1]),
            (
                &json!("c"),
                &json!({"number": 2, "said": "d", "timings": [3]})
            )
        );
        assert_eq!(written["attempts"][2], json!({"number": 3}));
    }

    #[test]
    fn elements_that_look_alike_keep_what_is_their_own() {
        let form = json!({
            "v": 1, "name": "a", "words": [],
            "attempts": [{"number": 1}, {"number": 1, "cost": 2}, {"number": 2, "cost": 3}, {"number": 1, "cost": 4}],
        });
        let (mut record, unknown): (Record, _) = read(form.clone()).unwrap();
        assert_eq!(write(&record, &unknown).unwrap(), form);
        record.attempts.push(Inner {
            number: 1,
            said: None,
        });
        record.attempts.remove(2);
        let costs: Vec<_> = write(&record, &unknown).unwrap()["attempts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|attempt| attempt["cost"].as_u64())
            .collect();
        assert_eq!(costs, [None, Some(2), Some(4), None]);
    }

    #[test]
    fn what_was_within_something_goes_with_it() {
        let (mut record, unknown): (Record, _) = read(of_a_newer_release()).unwrap();
        record.input = None;
        record.attempts.remove(0);
        let written = write(&record, &unknown).unwrap();
        assert_eq!(
            (written.get("input"), &written["attempts"]),
            (None, &json!([{"number": 2, "timings": [3]}]))
        );
    }

    #[test]
    fn a_form_of_before_there_were_versions_is_read() {
        let (record, unknown): (Record, _) = read(json!({"name": "a"})).unwrap();
        assert!(unknown.is_none());
        assert_eq!(write(&record, &unknown).unwrap()["v"], FORM);
    }

    #[test]
    fn text_is_read_as_its_form_is() {
        for text in [
            r#"{"v":1}"#,
            r#"{"v":2}"#,
            r#"{"v":3}"#,
            r#"{"v":"1"}"#,
            r#"{"name":1,"v":1}"#,
            "{}",
            "[]",
            "7",
            r#"{"name":"n","v":1}x"#,
        ] {
            let form = serde_json::from_str(text).map_err(|_| FormError::NoForm);
            let said = |read: Result<(Record, Unknown), FormError>| {
                read.map_err(|error| error.to_string())
            };
            assert_eq!(
                said(read_text(text.as_bytes())),
                said(form.and_then(read)),
                "{text}"
            );
        }
        assert_eq!(
            write_text(&json!({}), &Unknown::default()).unwrap(),
            r#"{"v":1}"#
        );
    }

    #[test]
    fn a_form_of_a_newer_version_is_not() {
        let newer = read::<Record>(json!({"v": NEWEST + 1, "name": "a"})).unwrap_err();
        assert!(
            matches!(newer, FormError::Newer { found } if found == NEWEST + 1),
            "{newer}"
        );
        assert!(matches!(
            read::<Record>(json!(["a"])),
            Err(FormError::NoForm)
        ));
        assert!(matches!(
            read::<Record>(json!({"v": "one"})),
            Err(FormError::NoForm)
        ));
    }

    #[test]
    fn an_error_shows_nothing_of_the_form() {
        for form in [
            json!({"name": ["hunter2"]}),
            json!({"attempts": "hunter2"}),
            json!({"attempts": [{"number": "hunter2"}]}),
        ] {
            let error = read::<Record>(form).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
            let error = crate::error::PortError::corrupt("a record", error);
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                error.source()
            });
            let said: Vec<_> = causes.map(|error| format!("{error} {error:?}")).collect();
            assert!(!said.concat().contains("hunter2"), "{said:?}");
        }
        let error = read::<Record>(json!({"attempts": [{"number": 1}, {"number": "hunter2"}]}))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "this release cannot read its `attempts[1].number`"
        );
        let (_, unknown): (Record, _) = read(json!({"token": "hunter2"})).unwrap();
        assert!(!format!("{unknown:?}").contains("hunter2"));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Value::from),
            "[a-z]{0,3}".prop_map(Value::from),
            any::<bool>().prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,2}", inner, 0..3)
                    .prop_map(|fields| json!(fields)),
            ]
        })
    }

    proptest! {
        /// Whatever a newer release adds at any depth of the known parts, reading and writing
        /// leaves the form unchanged.
        #[test]
        fn reading_and_writing_changes_nothing(
            new in prop::collection::btree_map("x[a-z]{1,2}", values(), 0..4),
            inner in prop::collection::btree_map("x[a-z]{1,2}", values(), 0..4),
            numbers in prop::collection::vec(0..3_u32, 0..4),
        ) {
            let with = |fields: BTreeMap<String, Value>, more: &BTreeMap<String, Value>| -> Value {
                json!(fields.into_iter().chain(more.clone()).collect::<BTreeMap<_, _>>())
            };
            let element = |number| with([("number".to_owned(), json!(number))].into(), &inner);
            let attempts: Vec<_> = numbers.into_iter().map(element).collect();
            let known = [
                ("v".to_owned(), json!(FORM)), ("name".to_owned(), json!("n")), ("attempts".to_owned(), json!(attempts)),
                ("words".to_owned(), json!([])), ("input".to_owned(), element(1)),
            ];
            let form = with(known.into(), &new);
            let (record, unknown): (Record, _) = read(form.clone()).unwrap();
            prop_assert_eq!(&write(&record, &unknown).unwrap(), &form);
            // Text says the same, whatever the order of its fields.
            let text = write_text(&record, &unknown).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &form);
            for text in [text, form.to_string()] {
                let (same, unknown_too) = read_text::<Record>(text.as_bytes()).unwrap();
                prop_assert_eq!((&same, &unknown_too), (&record, &unknown));
            }
        }
    }
}
