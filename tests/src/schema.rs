//! Checks JSON against a schema of the API's document. It knows the part of OpenAPI 3.0 that the
//! document uses, and nothing else.

use serde_json::Value;

/// Returns the faults of a value, each with its path. The list is empty if the value follows the
/// schema.
///
/// # Panics
/// When the schema uses a keyword that is not known here.
#[must_use]
pub fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    Check {
        document,
        faults: &mut faults,
    }
    .value(schema, value, "");
    faults
}

struct Check<'a> {
    document: &'a Value,
    faults: &'a mut Vec<String>,
}

impl Check<'_> {
    fn value(&mut self, schema: &Value, value: &Value, at: &str) {
        if let Some(path) = schema.get("$ref").and_then(Value::as_str) {
            let target = self
                .document
                .pointer(path.trim_start_matches('#'))
                .unwrap_or_else(|| panic!("{path} leads nowhere"));
            return self.value(&target.clone(), value, at);
        }
        for keyword in schema
            .as_object()
            .into_iter()
            .flat_map(|keywords| keywords.keys())
        {
            let known = [
                "type",
                "description",
                "nullable",
                "enum",
                "format",
                "items",
                "properties",
                "required",
                "additionalProperties",
            ];
            assert!(
                known.contains(&keyword.as_str()),
                "the keyword {keyword} is not known here"
            );
        }
        if value.is_null() && schema["nullable"] == true {
            return;
        }
        if let Some(kind) = schema["type"].as_str().filter(|kind| !is_a(value, kind)) {
            return self.fault(at, &format!("{value} is no {kind}"));
        }
        if schema["enum"]
            .as_array()
            .is_some_and(|allowed| !allowed.contains(value))
        {
            self.fault(at, &format!("{value} is none of {}", schema["enum"]));
        }
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &format!("{at}[{index}]"));
                }
            }
            Value::Object(_) => self.object(schema, value, at),
            _ => {}
        }
    }

    fn object(&mut self, schema: &Value, value: &Value, at: &str) {
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if value.get(name).is_none() {
                self.fault(at, &format!("{name} is missing"));
            }
        }
        for (name, inner) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            match (
                schema["properties"].get(name),
                &schema["additionalProperties"],
            ) {
                (Some(property), _) => self.value(property, inner, &at),
                (None, Value::Bool(false)) => self.fault(&at, "is not known"),
                (None, Value::Object(_)) => self.value(&schema["additionalProperties"], inner, &at),
                (None, _) => {}
            }
        }
    }

    fn fault(&mut self, at: &str, message: &str) {
        self.faults.push(format!(
            "{}: {message}",
            if at.is_empty() { "the whole" } else { at }
        ));
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other} is not known here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_fault_is_told_with_its_place() {
        let document = json!({"a": {"type": "string", "enum": ["x"]}});
        let schema = json!({
            "type": "object", "required": ["n"], "additionalProperties": false,
            "properties": {
                "n": {"type": "integer", "nullable": true},
                "l": {"type": "array", "items": {"$ref": "#/a"}},
                "m": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        });
        let of = |value: Value| faults(&document, &schema, &value);
        assert_eq!(of(json!({"n": null, "l": ["x"], "m": {"k": "v"}})), [""; 0]);
        assert_eq!(of(json!([])), ["the whole: [] is no object"]);
        let wrong = of(json!({"l": ["x", "y", 1], "m": {"k": 1}, "z": 1, "n": 1.5}));
        assert_eq!(
            wrong,
            [
                ".l[1]: \"y\" is none of [\"x\"]",
                ".l[2]: 1 is no string",
                ".m.k: 1 is no string",
                ".n: 1.5 is no integer",
                ".z: is not known"
            ]
        );
        assert_eq!(of(json!({})), ["the whole: n is missing"]);
    }
}
