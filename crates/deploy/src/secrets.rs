//! The secrets of a stack. Their values are in the Parameter Store. The records of who may use them
//! are in the table.

use aws::ssm::{ParameterError, Parameters};
use chrono::{SubsecRound, Utc};
use domain::{
    git::GitHost,
    key::Role,
    ports::{PortError, Secrets as _},
    request::SecretName,
    secret::SecretRecord,
};
use secrecy::SecretString;

use crate::{Account, activity, stack::StackView};

/// Why a secret could not be set, listed or removed. It holds no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The value could not be checked, stored, listed or removed.
    #[error(transparent)]
    Value(#[from] ParameterError),
    /// The record could not be read or written.
    #[error(transparent)]
    Record(#[from] PortError),
}

/// The secrets as the Parameter Store and the table have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptSecret {
    /// The records.
    pub records: Vec<SecretRecord>,
    /// The names that have a value.
    pub values: Vec<String>,
    /// Why records cannot be read, one text for each such record. Setting the secret again repairs
    /// its record.
    pub unreadable: Vec<String>,
}

impl KeptSecret {
    /// Returns the names of records without a value. A run that names one cannot start.
    #[must_use]
    pub fn without_value(&self) -> Vec<&str> {
        self.records
            .iter()
            .map(|record| record.name.as_str())
            .filter(|name| !self.values.iter().any(|own| own == name))
            .collect()
    }

    /// Returns the names of values without a record. No run may name them.
    #[must_use]
    pub fn without_record(&self) -> Vec<&str> {
        self.values
            .iter()
            .map(String::as_str)
            .filter(|name| !self.records.iter().any(|own| own.name == *name))
            .collect()
    }
}

/// Who may use a secret. A setting that is not given stays as it is, so setting a new value opens
/// the secret to nobody else.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// The least role of a key whose runs may use the secret. The default for a new secret is
    /// [`Role::Submit`].
    pub role: Option<Role>,
    /// The hosts that a git credential is for. If empty, an existing secret keeps its hosts, and a
    /// new one gets the default hosts.
    pub hosts: Vec<GitHost>,
}

/// Checks that a value can be stored and a task started with it. [`set`] checks this too.
///
/// # Errors
/// [`SecretError::Value`].
pub fn check(name: &SecretName, value: &SecretString) -> Result<(), SecretError> {
    Ok(Parameters::check(name, value)?)
}

/// Sets a secret and returns its record. Idempotent.
///
/// # Errors
/// [`SecretError`].
pub async fn set(
    account: &Account,
    stack: &StackView,
    path: String,
    name: &SecretName,
    uses: Uses,
    value: &SecretString,
) -> Result<SecretRecord, SecretError> {
    // The value is checked before the record changes. A refused value must not change who may use
    // the value that stays.
    check(name, value)?;
    let store = activity::store(account, stack);
    let before = match store.find_secret(name.as_str()).await {
        // Setting the secret again repairs a record that cannot be read.
        Err(PortError::Corrupt(_)) => None,
        before => before?,
    };
    let is_new = before.is_none();
    let (role, hosts) = before.map_or((Role::Submit, Vec::new()), |before| {
        (before.role, before.hosts)
    });
    let record = SecretRecord {
        name: name.to_string(),
        role: uses.role.unwrap_or(role),
        set_at: Some(Utc::now().trunc_subsecs(3)),
        hosts: if uses.hosts.is_empty() {
            hosts
        } else {
            uses.hosts
        },
    };
    // For a new secret the value is written first, so that every recorded secret can be used. For
    // an existing one the record is written first, so that the new value is never used where only
    // the old one was allowed.
    if !is_new {
        store.put_secret(&record).await?;
    }
    let key = stack
        .parameters
        .get("KmsKeyArn")
        .filter(|key| !key.is_empty());
    Parameters::new(&account.config, path)
        .with_key(key.cloned())
        .put(name, value)
        .await?;
    if is_new {
        store.put_secret(&record).await?;
    }
    Ok(record)
}

/// Lists the records and values.
///
/// # Errors
/// [`SecretError`].
pub async fn list(
    account: &Account,
    stack: &StackView,
    path: String,
) -> Result<KeptSecret, SecretError> {
    let mut kept = KeptSecret::default();
    for record in activity::store(account, stack).list_secrets().await? {
        match record {
            Ok(record) => kept.records.push(record),
            Err(error) => kept.unreadable.push(error.to_string()),
        }
    }
    let values = Parameters::new(&account.config, path).list().await?;
    Ok(KeptSecret {
        values: values.into_iter().map(|parameter| parameter.name).collect(),
        ..kept
    })
}

/// Removes a secret. Returns whether a record or a value existed. The record is removed first, so
/// that every recorded secret can be used. Idempotent.
///
/// # Errors
/// [`SecretError`].
pub async fn remove(
    account: &Account,
    stack: &StackView,
    path: String,
    name: &SecretName,
) -> Result<bool, SecretError> {
    let parameters = Parameters::new(&account.config, path);
    let had_record = activity::store(account, stack)
        .remove_secret(name.as_str())
        .await?;
    let had_value = parameters
        .list()
        .await?
        .iter()
        .any(|parameter| parameter.name == name.as_str());
    parameters.remove(&[name.to_string()]).await?;
    Ok(had_record || had_value)
}
