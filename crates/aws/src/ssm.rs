//! The values of secrets, as SecureString parameters under the stack's own path. Only the CLI
//! writes them, and only ECS reads them.

use std::fmt;

use aws_config::SdkConfig;
use aws_sdk_ssm::{
    Client,
    operation::describe_parameters::DescribeParametersOutput,
    types::{ParameterMetadata, ParameterStringFilter, ParameterTier, ParameterType},
};
use aws_smithy_types::error::operation::BuildError;
use domain::{
    Timestamp,
    request::SecretName,
    secret::{self, ValueError},
};
use secrecy::{ExposeSecret, SecretString};

use crate::error::Fault;

/// Most bytes of a value (Systems Manager quotas, standard parameters).
///
/// Advanced parameters hold 8 KB, cost 0.05 dollars a month each, and cannot be made standard
/// again. They are not offered: keys and tokens fit, and a larger value is a file, which is better
/// kept where the command can fetch it.
pub const VALUE_MAX: usize = 4096;
/// Most names in one call (Systems Manager API reference, `DeleteParameters`).
const NAMES: usize = 10;

/// Why a secret's value could not be stored, listed or removed.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    /// The value is longer than [`VALUE_MAX`].
    #[error(
        "the value has {0} bytes, the limit of the Parameter Store is {VALUE_MAX}: keep a file in S3 or Secrets Manager, and let the \
         command fetch it with its task role"
    )]
    TooLong(usize),
    /// The value is empty, and the Parameter Store accepts no empty values.
    #[error("the value is empty")]
    Empty,
    /// No task could be started with the value.
    #[error(transparent)]
    Unusable(#[from] ValueError),
    /// The Parameter Store refused the call, or did not answer.
    #[error("failed to use the Parameter Store: {0}")]
    Store(#[from] Fault),
}

impl From<BuildError> for ParameterError {
    fn from(error: BuildError) -> Self {
        Self::Store(Fault {
            code: None,
            words: error.to_string(),
            remedy: crate::error::Remedy::Change,
        })
    }
}

/// A parameter that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The secret's name, without the path.
    pub name: String,
    /// When its value was last set.
    pub set_at: Option<Timestamp>,
}

/// The parameters of one stack.
#[derive(Clone)]
pub struct Parameters {
    client: Client,
    path: String,
    key: Option<String>,
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameters")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Parameters {
    /// The parameters under this path, which ends with a slash.
    #[must_use]
    pub fn new(config: &SdkConfig, path: String) -> Self {
        Self {
            client: Client::new(config),
            path,
            key: None,
        }
    }

    /// Encrypts values with this KMS key instead of the Parameter Store's own.
    #[must_use]
    pub fn with_key(self, key: Option<String>) -> Self {
        Self { key, ..self }
    }

    /// Checks that a value can be stored, and that a task can be started with it.
    ///
    /// # Errors
    /// See [`ParameterError`].
    pub fn check(name: &SecretName, value: &SecretString) -> Result<(), ParameterError> {
        match value.expose_secret().len() {
            0 => Err(ParameterError::Empty),
            length if length > VALUE_MAX => Err(ParameterError::TooLong(length)),
            _ => Ok(secret::check_value(name.as_str(), value.expose_secret())?),
        }
    }

    /// Stores a value, and replaces an earlier one. Idempotent.
    ///
    /// # Errors
    /// See [`ParameterError`].
    pub async fn put(&self, name: &SecretName, value: &SecretString) -> Result<(), ParameterError> {
        Self::check(name, value)?;
        let call = self
            .client
            .put_parameter()
            .name(format!("{}{name}", self.path))
            .value(value.expose_secret())
            .r#type(ParameterType::SecureString)
            .set_key_id(self.key.clone())
            .tier(ParameterTier::Standard)
            .overwrite(true);
        call.send()
            .await
            .map(drop)
            .map_err(|error| Fault::of(&error).into())
    }

    /// Every parameter under the path, by name, without its value.
    ///
    /// # Errors
    /// If the Parameter Store does not answer.
    pub async fn list(&self) -> Result<Vec<Parameter>, ParameterError> {
        let path = self.path.trim_end_matches('/');
        let below = ParameterStringFilter::builder()
            .key("Path")
            .option("OneLevel")
            .values(path)
            .build()?;
        let pages = self
            .client
            .describe_parameters()
            .parameter_filters(below)
            .into_paginator();
        let pages: Vec<_> = pages
            .send()
            .collect::<Result<_, _>>()
            .await
            .map_err(|error| Fault::of(&error))?;
        let found = pages.iter().flat_map(DescribeParametersOutput::parameters);
        let mut parameters: Vec<_> = found
            .filter_map(|parameter| self.parameter(parameter))
            .collect();
        parameters.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(parameters)
    }

    fn parameter(&self, found: &ParameterMetadata) -> Option<Parameter> {
        let set_at = found
            .last_modified_date()
            .and_then(|at| at.to_millis().ok());
        Some(Parameter {
            name: found.name()?.strip_prefix(&self.path)?.to_owned(),
            set_at: set_at.and_then(Timestamp::from_timestamp_millis),
        })
    }

    /// Removes values. Idempotent: a name that does not exist is no error.
    ///
    /// # Errors
    /// If the Parameter Store does not answer.
    pub async fn remove(&self, names: &[String]) -> Result<(), ParameterError> {
        for names in names.chunks(NAMES) {
            let names = names
                .iter()
                .map(|name| format!("{}{name}", self.path))
                .collect();
            self.client
                .delete_parameters()
                .set_names(Some(names))
                .send()
                .await
                .map_err(|error| Fault::of(&error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_cannot_be_used_is_refused_before_anything_is_asked_of_aws() {
        let check = |value: String| Parameters::check(&"T".parse().expect("a name"), &value.into());
        assert!(check("x".repeat(VALUE_MAX)).is_ok());
        assert!(matches!(
            check("x".repeat(VALUE_MAX + 1)),
            Err(ParameterError::TooLong(4097))
        ));
        assert!(matches!(check(String::new()), Err(ParameterError::Empty)));
        let refused = check("hidden\0b".to_owned()).expect_err("a NUL");
        assert!(
            matches!(refused, ParameterError::Unusable(ValueError::Nul))
                && !refused.to_string().contains("hidden")
        );
    }
}
