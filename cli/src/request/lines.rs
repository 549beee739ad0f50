//! The lines of a submission. They are read, combined with the defaults from flags and files, and
//! checked before anything is sent.

use std::{
    collections::BTreeSet,
    fmt::Display,
    str::{Utf8Error, from_utf8},
};

use domain::{
    api::BulkRequest,
    request::{Defaults, FieldError, SubmitRequest, without_value, written_keys},
};
use serde_json::{Map, Value};

/// The keys of a request.
pub(crate) type JsonKeys = Map<String, Value>;

/// A line as it was written.
#[derive(Debug, PartialEq)]
pub(crate) struct BulkLine {
    /// The line number, from 1. Empty lines count.
    pub(crate) number: usize,
    /// The keys that the line sets.
    pub(crate) keys: JsonKeys,
}

/// Whether these keys include the one that a fault is about.
pub(crate) fn say(keys: &JsonKeys, field: &str) -> bool {
    match field.strip_prefix("env.") {
        Some(name) => keys.get("env").is_some_and(|env| env.get(name).is_some()),
        None => keys.contains_key(field.split('[').next().unwrap_or_default()),
    }
}

/// A line as it will be sent.
#[derive(Clone, Debug)]
pub(crate) struct ReadyLine {
    /// The line number, from 1. Empty lines count.
    pub(crate) number: usize,
    /// All keys of the request.
    pub(crate) keys: JsonKeys,
}

/// The faults in the lines of one source.
pub(crate) struct LineFaults<'a> {
    source: &'a str,
    /// Faults with their line numbers, for sorting.
    found: Vec<(usize, FieldError)>,
    /// Faults of values that lines take from a flag or a file. Each is reported once, for all lines
    /// that do not override the value.
    shared: Vec<FieldError>,
    /// The numbers of the lines at fault.
    numbers: BTreeSet<usize>,
}

impl<'a> LineFaults<'a> {
    pub(crate) fn of(source: &'a str) -> Self {
        Self {
            source,
            found: Vec::new(),
            shared: Vec::new(),
            numbers: BTreeSet::new(),
        }
    }

    pub(crate) fn add(
        &mut self,
        number: usize,
        column: Option<usize>,
        field: Option<&str>,
        message: impl Display,
    ) {
        let column = column
            .map(|column| format!(":{column}"))
            .unwrap_or_default();
        let place = format!("{}:{number}{column}", self.source);
        let field = field.map_or_else(|| place.clone(), |field| format!("{place}: {field}"));
        self.found.push((
            number,
            FieldError {
                field,
                message: message.to_string(),
            },
        ));
        self.numbers.insert(number);
    }

    /// Adds a fault of a value that a line takes from a flag or from `.mycli.yaml`.
    pub(crate) fn add_shared(&mut self, number: usize, fault: FieldError) {
        self.numbers.insert(number);
        if !self.shared.contains(&fault) {
            self.shared.push(fault);
        }
    }

    /// Returns how many lines are at fault, and every fault. Shared faults come first, then the
    /// others in the order of their lines.
    pub(crate) fn told(mut self) -> Option<(usize, Vec<FieldError>)> {
        self.found.sort_by_key(|(number, _)| *number);
        let found = self.found.into_iter().map(|(_, fault)| fault);
        (!self.numbers.is_empty()).then(|| {
            (
                self.numbers.len(),
                self.shared.into_iter().chain(found).collect(),
            )
        })
    }
}

/// Reads one request from each line. Faults go to `faults`; empty lines are skipped.
pub(crate) fn read(bytes: &[u8], faults: &mut LineFaults<'_>) -> Vec<BulkLine> {
    lines(bytes)
        .filter_map(|(number, line)| {
            Some(BulkLine {
                number,
                keys: keys(number, line, faults)?,
            })
        })
        .collect()
}

/// Reads one value from each line, with its line number.
pub(crate) fn values(bytes: &[u8], faults: &mut LineFaults<'_>) -> Vec<(usize, String)> {
    let value = |(number, line): (usize, &[u8])| {
        let text = text(number, line.strip_suffix(b"\r").unwrap_or(line), faults)?;
        (!text.is_empty()).then(|| (number, text.to_owned()))
    };
    lines(bytes).filter_map(value).collect()
}

/// A file's lines with their numbers. A byte order mark at the start is removed.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    (1..).zip(bytes.split(|byte| *byte == b'\n'))
}

fn text<'l>(number: usize, line: &'l [u8], faults: &mut LineFaults<'_>) -> Option<&'l str> {
    let not_text = |error: Utf8Error| {
        let sound = line
            .get(..error.valid_up_to())
            .map(String::from_utf8_lossy)
            .unwrap_or_default();
        faults.add(
            number,
            Some(sound.chars().count() + 1),
            None,
            "is not UTF-8",
        );
    };
    from_utf8(line).map_err(not_text).ok()
}

fn keys(number: usize, line: &[u8], faults: &mut LineFaults<'_>) -> Option<JsonKeys> {
    let text = text(number, line, faults).filter(|text| !text.trim().is_empty())?;
    let keys = written_keys(text)
        .map_err(|error| malformed(number, &error, faults))
        .ok()?;
    match serde_json::from_value::<SubmitRequest>(Value::Object(keys.clone())) {
        Ok(_) => Some(keys),
        Err(error) => {
            let before = faults.found.len();
            keys.iter()
                .for_each(|(key, value)| check_key(number, key, value, faults));
            if faults.found.len() == before {
                malformed(number, &error, faults);
            }
            None
        }
    }
}

/// Adds a fault for a malformed line. The column goes in front, as compilers put it.
fn malformed(number: usize, error: &serde_json::Error, faults: &mut LineFaults<'_>) {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let problem = error
        .to_string()
        .replace(&place, "")
        .replace("expected a map", "expected an object");
    let column = Some(error.column()).filter(|column| *column > 0);
    if problem.starts_with("duplicate field") {
        return faults.add(number, column, None, format!("{problem}: give it once"));
    }
    if error.is_data() {
        return faults.add(
            number,
            column,
            None,
            format!("{problem}: write a line as {{\"command\": …}}"),
        );
    }
    let remedy = "write a line as {\"command\": …}, or run one command for each plain line with --map-over-file";
    faults.add(
        number,
        column,
        None,
        format!("is not JSON ({problem}): {remedy}"),
    );
}

/// Checks a key by itself, so that every wrong key of a line is reported.
fn check_key(number: usize, key: &str, value: &Value, faults: &mut LineFaults<'_>) {
    let alone = JsonKeys::from_iter([(key.to_owned(), value.clone())]);
    let Err(error) = serde_json::from_value::<SubmitRequest>(Value::Object(alone)) else {
        return;
    };
    if key != "env" {
        return faults.add(number, None, Some(key), error);
    }
    // A variable's value is never printed, not even where it has the wrong type.
    let Value::Object(variables) = value else {
        return faults.add(number, None, Some(key), "must map names to texts");
    };
    for (name, value) in variables.iter().filter(|(_, value)| !value.is_string()) {
        let problem = match value {
            Value::Null => "is null: write \"\" for an empty text, or leave it out",
            _ => "is not a text: write it in quotes",
        };
        faults.add(
            number,
            None,
            Some(&format!("env.{}", without_value(name).escape_debug())),
            problem,
        );
    }
}

/// Combines a line with the defaults. A key of the line replaces the default; variables and secrets
/// are merged by name; null removes a key. Another repository drops the default branch. CPU or
/// memory alone drops the other's default. The command line's flags do the same.
///
/// The result holds no nulls. So a resumed submission sends the same body again, and the API
/// accepts it: it takes no nulls.
pub(crate) fn over(defaults: &JsonKeys, line: &JsonKeys) -> JsonKeys {
    let mut keys = defaults.clone();
    let is_given = |key: &str| line.get(key).is_some_and(|value| !value.is_null());
    if line.contains_key("repo") {
        keys.remove("branch");
    }
    if is_given("cpu") || is_given("memory") {
        keys.remove("cpu");
        keys.remove("memory");
    }
    for (key, value) in line {
        match (keys.get_mut(key), value) {
            (_, Value::Null) => drop(keys.remove(key)),
            (Some(Value::Object(ours)), Value::Object(theirs)) => ours.extend(theirs.clone()),
            (Some(Value::Array(ours)), Value::Array(theirs)) if key == "secrets" => {
                let new: Vec<_> = theirs
                    .iter()
                    .filter(|name| !ours.contains(name))
                    .cloned()
                    .collect();
                ours.extend(new);
            }
            _ => drop(keys.insert(key.clone(), value.clone())),
        }
    }
    keys
}

/// The faults that the API will find in a line, as far as they can be known here.
pub(crate) fn check(keys: &JsonKeys, defaults: &Defaults) -> Vec<FieldError> {
    match serde_json::from_value::<SubmitRequest>(Value::Object(keys.clone())) {
        Ok(request) => {
            let misplaced = BulkRequest::line_fault(&request);
            misplaced
                .into_iter()
                .chain(request.validate(defaults).err().into_iter().flatten())
                .collect()
        }
        // This is not expected: both parts were read as requests before.
        Err(error) => vec![FieldError {
            field: "line".into(),
            message: error.to_string(),
        }],
    }
}

/// The keys of a request.
pub(crate) fn keys_of(request: &SubmitRequest) -> JsonKeys {
    match serde_json::to_value(request) {
        Ok(Value::Object(keys)) => keys,
        // This is not expected: a request is always an object.
        _ => JsonKeys::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> JsonKeys {
        let Value::Object(keys) = value else {
            panic!("{value} is no object")
        };
        keys
    }

    #[track_caller]
    fn check_faults(text: &[u8], expected: &[&str]) {
        let mut faults = LineFaults::of("f");
        let lines = read(text, &mut faults);
        let told = faults.told().map(|(_, faults)| faults).unwrap_or_default();
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(
                told.starts_with(expected),
                "{told:?} is not {expected:?}; lines {lines:?}"
            );
        }
    }

    #[test]
    fn empty_lines_are_counted_and_nothing_else() {
        let mut faults = LineFaults::of("f");
        let text = "\u{feff}{\"command\":\"a\"}\r\n\n  \t\n{\"command\":\"b\"}";
        let lines = read(text.as_bytes(), &mut faults);
        assert!(faults.told().is_none());
        assert_eq!(
            lines.iter().map(|line| line.number).collect::<Vec<_>>(),
            [1, 4]
        );
        assert_eq!(lines[1].keys["command"], "b");
    }

    #[test]
    fn every_fault_has_its_place() {
        check_faults(
            b"{\"command\": \"a\"\n\n{\"command\":}\n",
            &[
                "f:1:15: is not JSON (EOF",
                "f:3:12: is not JSON (expected value)",
            ],
        );
        check_faults(b"\n{\"command\": \"a\xff\"}", &["f:2:15: is not UTF-8"]);
        check_faults(
            b"[1]\n\"x\"",
            &[
                "f:1: invalid type: sequence, expected an object",
                "f:2:3: invalid type",
            ],
        );
        check_faults(
            b"{\"comand\": \"a\", \"retries\": \"x\", \"env\": {\"A\": [5]}, \"image\": \"i\"}",
            &[
                "f:1: comand: unknown field `comand`, expected one of",
                "f:1: env.A: is not a text",
                "f:1: retries: invalid type",
            ],
        );
        check_faults(
            b"{\"command\": \"a\", \"env\": {\"A\": null, \"B=hidden\": []}, \"secrets\": [null]}",
            &[
                "f:1: env.A: is null: write \"\"",
                "f:1: env.B=: is not a text",
                "f:1: secrets: entry 1 is null: leave it out",
            ],
        );
        check_faults(
            b"{\"command\": \"a\", \"command\": \"b\"}",
            &["f:1:26: duplicate field `command`"],
        );
        check_faults(
            b"{}\n{\"env\": {\"A\": \"first\", \"\\u0041\": \"second\"}}",
            &["f:2:31: duplicate field `A`: give it once"],
        );
    }

    #[test]
    fn a_fault_of_all_lines_is_told_once_and_counted_for_each() {
        let mut faults = LineFaults::of("f");
        let shared = FieldError {
            field: "cpu".into(),
            message: "is odd".into(),
        };
        faults.add(2, None, Some("retries"), "is 99");
        (1..=3).for_each(|number| faults.add_shared(number, shared.clone()));
        let (lines, told) = faults.told().unwrap();
        assert_eq!(lines, 3);
        assert_eq!(
            told.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["cpu: is odd", "f:2: retries: is 99"]
        );
    }

    #[test]
    fn variables_may_be_numbers_as_in_the_project_s_file() {
        let mut faults = LineFaults::of("f");
        let lines = read(
            b"{\"env\": {\"A\": 1.10, \"B\": true, \"C\": \"c\"}}",
            &mut faults,
        );
        assert!(faults.told().is_none());
        assert_eq!(
            lines[0].keys["env"],
            json!({"A": "1.10", "B": "true", "C": "c"})
        );
    }

    #[test]
    fn a_line_goes_over_the_defaults() {
        let defaults = object(
            json!({"image": "a", "repo": "r", "branch": "b", "cpu": "512", "env": {"A": "1", "B": "2"}, "secrets": ["S"]}),
        );
        let check = |line: Value, expected: Value| {
            assert_eq!(Value::Object(over(&defaults, &object(line))), expected);
        };
        check(
            json!({"command": "c", "env": {"B": "3"}, "secrets": ["T", "S"]}),
            json!({"command": "c", "image": "a", "repo": "r", "branch": "b", "cpu": "512", "env": {"A": "1", "B": "3"}, "secrets": ["S", "T"]}),
        );
        check(
            json!({"repo": "q", "memory": 1024, "env": null, "secrets": null}),
            json!({"image": "a", "repo": "q", "memory": 1024}),
        );
        check(
            json!({"repo": null, "cpu": null, "image": null, "name": null}),
            json!({"env": {"A": "1", "B": "2"}, "secrets": ["S"]}),
        );
        check(json!({"branch": null, "memory": null}), {
            let mut same = Value::Object(defaults.clone());
            same.as_object_mut().unwrap().remove("branch");
            same
        });
    }
}
