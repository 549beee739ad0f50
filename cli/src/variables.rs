//! The environment variables that mycli reads, by name.

use std::env::{self, VarError};

/// The address of the endpoint.
pub(crate) const ENDPOINT: &str = "MYCLI_ENDPOINT";
/// The API key.
pub(crate) const API_KEY: &str = "MYCLI_API_KEY";
/// The name of the stack.
pub(crate) const STACK: &str = "MYCLI_STACK";
/// The folder with the user's settings and this machine's history.
pub(crate) const HOME: &str = "MYCLI_HOME";
/// The filter of what `-v` says.
pub(crate) const LOG: &str = "MYCLI_LOG";
/// The shell that wants completions. Only a completion script sets it.
pub(crate) const COMPLETE: &str = "MYCLI_COMPLETE";
/// The address of an AWS emulator, as every AWS SDK has it.
pub(crate) const ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";
/// The profile of `~/.aws`.
pub(crate) const AWS_PROFILE: &str = "AWS_PROFILE";
/// No colours, if it is set to anything (no-color.org).
pub(crate) const NO_COLOR: &str = "NO_COLOR";

/// An environment variable is not UTF-8. It is not ignored as if it were unset.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not UTF-8: set it again, or unset it")]
pub(crate) struct NotText(String);

/// The value of an environment variable, if it is not blank.
///
/// # Errors
/// [`NotText`].
pub(crate) fn variable(name: &str) -> Result<Option<String>, NotText> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(NotText(name.to_owned())),
    }
}
