//! The layer between API Gateway's events and the handlers: routes, bodies and problems.

use aws_lambda_events::{
    apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse},
    encodings::Body,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    api::Problem,
    error::{Corrupt, PortError, Rejected, RejectionKind, Unavailable, What},
    key::Role,
    request::{FieldError, without_value},
};
use http::{
    HeaderValue, Method,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::Instrument as _;

use crate::log;

/// Seconds after which a client may ask again when a service did not answer. It is the least that
/// `Retry-After` can name, which has whole seconds.
const RETRY_SECONDS: u32 = 1;
/// The most characters of an error about a body that are repeated. All keys of a request fit.
const SAID_MAX: usize = 1_000;

/// The request's route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /execute`
    Execute,
    /// `POST /executions/bulk`
    Bulk,
    /// `GET /executions`
    List,
    /// `GET /executions/{id}`
    Get(String),
    /// `GET /executions/{id}/logs`
    Logs(String),
    /// `GET /executions/{id}/artifacts`
    Artifacts(String),
    /// `POST /executions/{id}/cancel`
    Cancel(String),
    /// `POST /executions/{id}/rerun`
    Rerun(String),
    /// `GET /attempts/{id}/request`
    AttemptRequest(String),
    /// `POST /attempts/{id}/uploads`
    Upload(String),
    /// `GET /groups/{group}`
    Group(String),
    /// `POST /groups/{group}/cancel`
    CancelGroup(String),
    /// `POST /groups/{group}/rerun-failed`
    RerunGroup(String),
    /// `GET /keys`
    ListKeys,
    /// `POST /keys`
    CreateKey,
    /// `DELETE /keys/{name}`
    RevokeKey(String),
    /// `POST /keys/{name}/rotate`
    RotateKey(String),
    /// `GET /backlogs`
    Backlogs,
    /// `GET /stats`
    Stats,
    /// `GET /whoami`
    Whoami,
    /// `GET /version`
    Version,
}

impl Route {
    /// Returns the route for a request's method and path.
    ///
    /// # Errors
    /// 404 for an unknown path, 405 for a known one with another method.
    pub fn of(request: &ApiGatewayProxyRequest) -> Result<Self, Problem> {
        let known = Self::at(request);
        let path = request
            .path
            .as_deref()
            .unwrap_or_default()
            .trim_end_matches('/');
        if known.is_empty() {
            return Err(Problem::new(
                404,
                "no_such_path",
                format!("there is nothing at {path}"),
            ));
        }
        let found = known
            .iter()
            .find(|(method, _)| *method == request.http_method);
        let found = found.map(|(_, route)| route.clone());
        found.ok_or_else(|| {
            Problem::new(
                405,
                "method_not_allowed",
                format!("{path} allows only {}", methods(&known)),
            )
        })
    }

    /// Returns the routes at the request's path, by method.
    fn at(request: &ApiGatewayProxyRequest) -> Vec<(Method, Self)> {
        let path = request
            .path
            .as_deref()
            .unwrap_or_default()
            .trim_end_matches('/');
        let parts = parts(request, path);
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["execute"] => vec![(Method::POST, Self::Execute)],
            ["executions"] => vec![(Method::GET, Self::List)],
            ["executions", "bulk"] => vec![(Method::POST, Self::Bulk)],
            ["executions", id] => vec![(Method::GET, Self::Get((*id).into()))],
            ["executions", id, "logs"] => vec![(Method::GET, Self::Logs((*id).into()))],
            ["executions", id, "artifacts"] => {
                vec![(Method::GET, Self::Artifacts((*id).into()))]
            }
            ["executions", id, "cancel"] => vec![(Method::POST, Self::Cancel((*id).into()))],
            ["executions", id, "rerun"] => vec![(Method::POST, Self::Rerun((*id).into()))],
            ["attempts", id, "request"] => {
                vec![(Method::GET, Self::AttemptRequest((*id).into()))]
            }
            ["attempts", id, "uploads"] => vec![(Method::POST, Self::Upload((*id).into()))],
            ["groups", group] => vec![(Method::GET, Self::Group((*group).into()))],
            ["groups", group, "cancel"] => vec![(Method::POST, Self::CancelGroup((*group).into()))],
            ["groups", group, "rerun-failed"] => {
                vec![(Method::POST, Self::RerunGroup((*group).into()))]
            }
            ["keys"] => vec![
                (Method::GET, Self::ListKeys),
                (Method::POST, Self::CreateKey),
            ],
            ["keys", name] => vec![(Method::DELETE, Self::RevokeKey((*name).into()))],
            ["keys", name, "rotate"] => vec![(Method::POST, Self::RotateKey((*name).into()))],
            ["backlogs"] => vec![(Method::GET, Self::Backlogs)],
            ["stats"] => vec![(Method::GET, Self::Stats)],
            ["whoami"] => vec![(Method::GET, Self::Whoami)],
            ["version"] => vec![(Method::GET, Self::Version)],
            _ => Vec::new(),
        }
    }

    /// Returns the least role of a key that may use the route. No key opens the routes of runners:
    /// their handler asks for an attempt's token, and no other handler serves them.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::List
            | Self::Get(_)
            | Self::Logs(_)
            | Self::Artifacts(_)
            | Self::Group(_)
            | Self::Backlogs
            | Self::Stats
            | Self::Whoami
            | Self::Version => Role::Read,
            Self::Execute
            | Self::Bulk
            | Self::Cancel(_)
            | Self::Rerun(_)
            | Self::CancelGroup(_)
            | Self::RerunGroup(_) => Role::Submit,
            Self::AttemptRequest(_)
            | Self::Upload(_)
            | Self::ListKeys
            | Self::CreateKey
            | Self::RevokeKey(_)
            | Self::RotateKey(_) => Role::Admin,
        }
    }

    /// Whether the route only reads. The query function serves such routes, the submit function the
    /// others.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::List
                | Self::Get(_)
                | Self::Logs(_)
                | Self::Artifacts(_)
                | Self::AttemptRequest(_)
                | Self::Group(_)
                | Self::Backlogs
                | Self::Stats
                | Self::Whoami
                | Self::Version
        )
    }
}

fn methods(known: &[(Method, Route)]) -> String {
    known
        .iter()
        .map(|(method, _)| method.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns the parts of the path. API Gateway sends the resource and the values of its parameters,
/// whatever stage or base path comes before. Elsewhere there is only the path.
fn parts(request: &ApiGatewayProxyRequest, path: &str) -> Vec<String> {
    let Some(resource) = request
        .resource
        .as_deref()
        .filter(|resource| resource.starts_with('/'))
    else {
        return path.split('/').skip(1).map(decoded).collect();
    };
    let filled = |part: &str| match part
        .strip_prefix('{')
        .and_then(|name| name.strip_suffix('}'))
    {
        Some(name) => request
            .path_parameters
            .get(name)
            .map(|value| decoded(value))
            .unwrap_or_default(),
        None => part.to_owned(),
    };
    resource
        .trim_end_matches('/')
        .split('/')
        .skip(1)
        .map(filled)
        .collect()
}

/// Undoes percent-encoding. Anything that is not valid stays as it is.
#[must_use]
pub fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &tail[2..]).1,
            None => (bytes.push(*first), rest = tail).1,
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| part.to_owned())
}

/// Returns a query parameter.
#[must_use]
pub fn parameter<'a>(request: &'a ApiGatewayProxyRequest, name: &str) -> Option<&'a str> {
    request.query_string_parameters.first(name)
}

/// Returns how many items of a page are asked for: the parameter `limit`, or `default` without it.
///
/// # Errors
/// Names the parameter when it is not a number from 1 to `most`.
pub fn limit(request: &ApiGatewayProxyRequest, default: u32, most: u32) -> Result<u32, FieldError> {
    let Some(text) = parameter(request, "limit") else {
        return Ok(default);
    };
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| FieldError {
        field: "limit".into(),
        message: format!("is not a number from 1 to {most}"),
    })
}

/// Refuses query parameters that the route does not read, so that a misspelt filter is not ignored.
///
/// # Errors
/// Names each unknown parameter.
pub fn only_parameters(request: &ApiGatewayProxyRequest, known: &[&str]) -> Result<(), Problem> {
    let unknown: Vec<_> = request
        .query_string_parameters
        .iter()
        .filter(|(name, _)| !known.contains(name))
        .map(|(name, _)| FieldError {
            field: name.into(),
            message: format!("is not a parameter here; use {}", known.join(", ")),
        })
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(Problem::invalid(unknown))
    }
}

/// Reads a JSON body of at most `max` bytes.
///
/// # Errors
/// 413 for a larger body, 400 for a body that is not this JSON, with the location of the fault.
pub fn body<T: DeserializeOwned>(
    request: &ApiGatewayProxyRequest,
    max: usize,
) -> Result<T, Problem> {
    let text = request.body.as_deref().unwrap_or_default();
    if text.len() > max {
        let title = format!("the body has {} bytes, the limit is {max}", text.len());
        return Err(Problem::new(413, "body_too_large", title));
    }
    // The error repeats an unknown key, which may be any text.
    let fit = |error: &dyn std::fmt::Display| {
        let characters = error
            .to_string()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(SAID_MAX)
            .collect::<String>();
        format!("the body cannot be read: {characters}")
    };
    let not_json = |error: &dyn std::fmt::Display| Problem::new(400, "invalid_json", fit(error));
    let bytes = if request.is_base64_encoded {
        STANDARD.decode(text).map_err(|e| not_json(&e))?
    } else {
        text.as_bytes().to_vec()
    };
    // serde would read the elements of a list as the fields in order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(not_json(&"it is a list; send an object"));
    }
    // This check comes before the types are read, because their own errors about null, if any, name
    // no field.
    if let Some(at) = null_in(&bytes) {
        return Err(not_json(&format!(
            "`{at}` is null; leave it out, or give it a value"
        )));
    }
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|e| not_json(&misread(&e)))?;
    json.end().map_err(|e| not_json(&e))?;
    Ok(read)
}

/// Does the same as [`body`] for a body that may be left out; it is then the default.
///
/// # Errors
/// As [`body`].
pub fn optional_body<T>(request: &ApiGatewayProxyRequest, max: usize) -> Result<T, Problem>
where
    T: DeserializeOwned + Default,
{
    match request.body.as_deref() {
        None | Some("") => Ok(T::default()),
        Some(_) => body(request, max),
    }
}

/// Returns what is wrong with a body, and where, in terms of JSON instead of Rust.
fn misread(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    const WORDS: [(&str, &str); 4] = [
        ("expected i64", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected keys with values"),
    ];
    let said = WORDS
        .iter()
        .fold(error.inner().to_string(), |said, (rust, json)| {
            said.replace(rust, json)
        });
    let at = error.path().iter().map(segment).collect::<String>();
    let at = at.trim_start_matches('.');
    // The message already names an unknown key.
    let is_told = said.starts_with("unknown field") && !at.contains(['.', '[']);
    if error.inner().is_data() && !at.is_empty() && !is_told {
        format!("`{at}`: {said}")
    } else {
        said
    }
}

/// Returns one step of the path to a field. If a name was given as `NAME=value`, the value is left
/// out, because it may be a secret.
fn segment(step: &serde_path_to_error::Segment) -> String {
    use serde_path_to_error::Segment;
    match step {
        Segment::Seq { index } => format!("[{index}]"),
        Segment::Map { key } => format!(".{}", without_value(key)),
        Segment::Enum { variant } => format!(".{variant}"),
        Segment::Unknown => ".?".to_owned(),
    }
}

/// Returns where a null is. The API's document allows null nowhere and API Gateway refuses it. The
/// types themselves treat a null as a key that is left out, as `.mycli.yaml` and a bulk file do.
fn null_in(bytes: &[u8]) -> Option<String> {
    fn find(value: &Value, at: String) -> Option<String> {
        let below = |name: &str| {
            let name = without_value(name);
            if at.is_empty() {
                name.to_owned()
            } else {
                format!("{at}.{name}")
            }
        };
        match value {
            Value::Null => Some(at),
            Value::Object(keys) => keys
                .iter()
                .find_map(|(name, value)| find(value, below(name))),
            Value::Array(values) => values
                .iter()
                .enumerate()
                .find_map(|(index, value)| find(value, format!("{at}[{index}]"))),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }
    // Most bodies have no null and are not read twice.
    let has_the_word = bytes.windows(4).any(|word| word == b"null");
    let body = has_the_word
        .then(|| serde_json::from_slice(bytes).ok())
        .flatten()?;
    find(&body, String::new())
}

/// Returns an answer with a JSON body.
#[must_use]
pub fn json(status: u16, value: &impl Serialize) -> ApiGatewayProxyResponse {
    let body = serde_json::to_string(value).unwrap_or_default();
    answer(status, "application/json", body)
}

/// Returns an answer that says what is wrong.
#[must_use]
pub fn problem(problem: &Problem) -> ApiGatewayProxyResponse {
    let body = serde_json::to_string(problem).unwrap_or_default();
    let mut response = answer(problem.status, "application/problem+json", body);
    if problem.status == 503 {
        response
            .headers
            .insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
    }
    response
}

/// Carries out the work of a request within the request's span, and makes an answer of a problem.
pub(crate) async fn answered(
    request: &ApiGatewayProxyRequest,
    work: impl Future<Output = Result<ApiGatewayProxyResponse, Problem>>,
) -> ApiGatewayProxyResponse {
    work.instrument(log::request(request))
        .await
        .unwrap_or_else(|problem| refusal(request, &problem))
}

/// Returns the answer to a refused request. For a method that the path does not take, it lists the
/// methods that the path takes (RFC 9110, section 15.5.6).
fn refusal(request: &ApiGatewayProxyRequest, of: &Problem) -> ApiGatewayProxyResponse {
    let mut response = problem(of);
    if of.status == 405
        && let Ok(methods) = HeaderValue::from_str(&methods(&Route::at(request)))
    {
        response.headers.insert(ALLOW, methods);
    }
    response
}

/// Adds `Retry-After`, which tells the client when to ask again.
#[must_use]
pub fn retry_after(mut response: ApiGatewayProxyResponse, seconds: u32) -> ApiGatewayProxyResponse {
    response
        .headers
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Returns the problem of a call that failed on our side. The service's own words go into our log
/// and not to the caller. Only a 503 is worth repeating the same request.
#[must_use]
pub fn failed(error: &PortError) -> Problem {
    tracing::error!(%error, "a request failed");
    match error {
        PortError::Unavailable(Unavailable { service, .. }) => Problem::new(
            503,
            "unavailable",
            format!("{service} did not answer; the same request may succeed later"),
        ),
        PortError::Rejected(rejected) => refused(rejected),
        PortError::Corrupt(corrupt) => unreadable(corrupt),
    }
}

fn refused(
    Rejected {
        service, rejection, ..
    }: &Rejected,
) -> Problem {
    let (code, title) = match rejection {
        RejectionKind::Denied {
            permission: Some(permission),
        } => (
            "permission_missing",
            format!(
                "{service} denied access: this installation lacks the permission {permission}; an administrator can \
                 restore its roles with `mycli upgrade`, and `mycli doctor` looks for more"
            ),
        ),
        RejectionKind::Denied { permission: None } => (
            "permission_missing",
            format!("{service} denied access to mycli itself; its log has the details"),
        ),
        RejectionKind::Missing => (
            "resource_missing",
            format!("{service} does not exist; an administrator can run `mycli doctor`"),
        ),
        RejectionKind::Invalid => (
            "internal_error",
            format!(
                "{service} rejected a request of mycli; this is a fault of mycli, and its log has the details"
            ),
        ),
    };
    Problem::new(500, code, title)
}

fn unreadable(corrupt: &Corrupt) -> Problem {
    let title = match &corrupt.what {
        What::Execution(id) => format!(
            "the record of {id} cannot be read by this release of mycli. No other run is affected. A newer release may read it; \
             `mycli forget {id}` removes it (with --local on one machine)"
        ),
        What::Other(what) => {
            format!("{what} cannot be read by this release of mycli; its log has the details")
        }
    };
    Problem::new(500, "unreadable_record", title)
}

fn answer(status: u16, content_type: &'static str, body: String) -> ApiGatewayProxyResponse {
    let mut response = ApiGatewayProxyResponse::default();
    response.status_code = status.into();
    response
        .headers
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.body = Some(Body::Text(body));
    response
}

#[cfg(test)]
mod tests {
    use domain::{
        api::BulkRequest,
        key::Role,
        request::{Changes, SubmitRequest},
    };
    use serde::Deserialize;

    use super::*;

    #[track_caller]
    fn check<T: DeserializeOwned>(text: &str, expected: &str) {
        let mut request = ApiGatewayProxyRequest::default();
        request.body = Some(text.to_owned());
        let problem = body::<T>(&request, 1_000).err().expect(text);
        assert_eq!(
            (problem.status, problem.code.as_str()),
            (400, "invalid_json")
        );
        let said = problem
            .title
            .strip_prefix("the body cannot be read: ")
            .expect("our words");
        assert!(said.starts_with(expected), "{said}");
    }

    #[derive(Deserialize)]
    struct NewKey {
        #[expect(dead_code, reason = "it is only read")]
        role: Role,
    }

    #[test]
    fn a_null_is_named_by_its_field_whatever_belongs_there() {
        let left_out = |at: &str| format!("`{at}` is null; leave it out");
        check::<SubmitRequest>(r#"{"command":"x","image":null}"#, &left_out("image"));
        check::<SubmitRequest>(
            r#"{"command":"x","secrets":["A",null]}"#,
            &left_out("secrets[1]"),
        );
        check::<SubmitRequest>(
            r#"{"command":"x","env":{"A=hidden":null}}"#,
            &left_out("env.A="),
        );
        check::<Changes>(r#"{"env":null}"#, &left_out("env"));
        check::<BulkRequest>(
            r#"{"submission_id":"s","executions":[{"env":{"A":null}}]}"#,
            &left_out("executions[0].env.A"),
        );
        check::<NewKey>(r#"{"name":"x","role":null}"#, &left_out("role"));
    }

    #[test]
    fn a_variable_that_is_given_twice_is_named_without_its_values() {
        let twice = r#"{"env":{"A":"first","\u0041":"second"}}"#;
        check::<SubmitRequest>(twice, "`env.A`: duplicate field `A` at line 1");
        check::<Changes>(twice, "`env.A`: duplicate field `A` at line 1");
        let bulk = format!(r#"{{"submission_id":"s","executions":[{{}},{twice}]}}"#);
        check::<BulkRequest>(
            &bulk,
            "`executions[1].env.A`: duplicate field `A` at line 1",
        );
    }

    #[test]
    fn what_has_another_type_is_named_by_its_place() {
        check::<SubmitRequest>(
            r#"{"env":{"A":1}}"#,
            "`env.A`: invalid type: integer `1`, expected a string",
        );
        check::<SubmitRequest>(
            r#"{"secrets":["A",3]}"#,
            "`secrets[1]`: invalid type: integer `3`, expected a string",
        );
        check::<SubmitRequest>(
            r#"{"retry_on":"spot"}"#,
            "`retry_on`: invalid type: string \"spot\", expected a list",
        );
        check::<SubmitRequest>(
            r#"{"env":[]}"#,
            "`env`: invalid type: sequence, expected keys with values",
        );
    }
}
