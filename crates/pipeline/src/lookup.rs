//! Finding what a request names: an execution by an id or a part of one, a group by its name.

use domain::{api::Problem, id::ExecutionId, key::ApiKey, ports::ReadStore, request::FieldError};

use crate::http;

/// How many candidates the answer to an ambiguous id lists. A few are enough to show that more of
/// the id is needed.
const CANDIDATES: u32 = 5;
/// The problem of a group without runs.
pub(crate) fn no_such_group(group: &str) -> Problem {
    Problem::new(
        404,
        "no_such_group",
        format!("there are no runs in the group '{}'", shown(group)),
    )
}

/// The longest text that may name a submitter, a key or an execution, in bytes. It is longer than
/// any user's name and any task's ARN, and within DynamoDB's 2,048 bytes of a key.
pub(crate) const TEXT_MAX: usize = 512;

/// Returns the one execution that a text means: an id, an unambiguous part of one, or a task's ARN.
///
/// # Errors
/// 404 for none, 409 with the candidates for several.
pub async fn resolve(store: &impl ReadStore, text: &str) -> Result<ExecutionId, Problem> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    if text.len() > TEXT_MAX {
        return Err(not_found(text));
    }
    let mut found = store
        .find(text, CANDIDATES + 1)
        .await
        .map_err(|e| http::failed(&e))?;
    match found.len() {
        0 => Err(not_found(text)),
        1 => Ok(found.remove(0)),
        _ => Err(Problem {
            errors: found
                .iter()
                .map(|id| FieldError {
                    field: "id".into(),
                    message: format!("could mean {id}"),
                })
                .collect(),
            ..Problem::new(
                409,
                "ambiguous_id",
                format!("'{text}' could mean several executions; give more of the id"),
            )
        }),
    }
}

/// The problem of an id that no execution has.
#[must_use]
pub fn not_found(id: &str) -> Problem {
    Problem::new(
        404,
        "not_found",
        format!("there is no execution '{}'", shown(id)),
    )
}

/// Returns the first 128 characters of a caller's text, for a problem or a log line to repeat. A
/// key that was pasted as a name is not repeated, and a line end does not begin another line.
pub(crate) fn shown(text: &str) -> String {
    let text = ApiKey::redacted(text);
    let printed = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(128).map(printed).collect()
}
