//! The error of an AWS call, in one form for all services.

use std::error::Error;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// A call that failed. The SDK has already retried it where that could help. The text is AWS's own
/// and names no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to {doing}: {message}{}", code.as_deref().map(|code| format!(" ({code})")).unwrap_or_default())]
pub struct CallError {
    /// The action that failed; completes "failed to".
    pub doing: String,
    /// The service's error code, if it answered.
    pub code: Option<String>,
    /// The message in words.
    pub message: String,
}

impl CallError {
    /// Makes an error that is not AWS's answer but the outcome of several calls.
    pub fn new(doing: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            doing: doing.into(),
            code: None,
            message: message.into(),
        }
    }

    /// Makes the function for `map_err`. `doing` completes "failed to".
    pub fn of<E, R>(doing: impl Into<String>) -> impl FnOnce(SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        move |error| {
            let answer = error.as_service_error().map(ProvideErrorMetadata::meta);
            let code = answer.and_then(|meta| meta.code()).map(str::to_owned);
            let message = answer.and_then(|meta| meta.message()).map(str::to_owned);
            Self {
                doing: doing.into(),
                message: message.unwrap_or_else(|| words(&error, code.is_some())),
                code,
            }
        }
    }

    /// Whether the service answered with one of these codes.
    #[must_use]
    pub fn is(&self, codes: &[&str]) -> bool {
        self.code
            .as_deref()
            .is_some_and(|code| codes.contains(&code))
    }

    /// Whether these credentials lack the permission.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.is(&[
            "AccessDenied",
            "AccessDeniedException",
            "UnauthorizedOperation",
        ])
    }
}

/// Returns the innermost cause, which is the informative one: "Connection refused", "profile `x`
/// was not defined".
fn words(error: &(dyn Error + 'static), answered: bool) -> String {
    if answered {
        return "AWS gave no further reason".into();
    }
    let mut said = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        said.push(error.to_string());
        cause = error.source();
    }
    said.retain(|text| !is_wrapping(text));
    said.dedup();
    let last = said.pop().unwrap_or_else(|| "no answer".into());
    match said.pop() {
        Some(before) if !last.contains(&before) && !before.contains(&last) => {
            format!("{before}: {last}")
        }
        _ => last,
    }
}

/// Whether a text is only what the SDK's layers add around a cause.
fn is_wrapping(text: &str) -> bool {
    [
        "dispatch failure",
        "service error",
        "failed to construct request",
        "io error",
        "other",
    ]
    .contains(&text)
}
