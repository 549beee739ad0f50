//! The secrets of a stack: their values in the Parameter Store, and beside the history who may name
//! them.

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

/// Why a secret could not be set, listed or removed. Holds no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its value.
    #[error(transparent)]
    Value(#[from] ParameterError),
    /// What is known of it.
    #[error(transparent)]
    Record(#[from] PortError),
}

/// The secrets as the two places have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What is known of them.
    pub records: Vec<SecretRecord>,
    /// The names that have a value.
    pub values: Vec<String>,
    /// Which records cannot be read, and why. To set the secret anew mends it.
    pub unreadable: Vec<String>,
}

impl Kept {
    /// Names of records without a value: a run that names one cannot start.
    #[must_use]
    pub fn without_value(&self) -> Vec<&str> {
        self.records
            .iter()
            .map(|record| record.name.as_str())
            .filter(|name| !self.values.iter().any(|own| own == name))
            .collect()
    }

    /// Names of values without a record: no run may name them.
    #[must_use]
    pub fn without_record(&self) -> Vec<&str> {
        self.values
            .iter()
            .map(String::as_str)
            .filter(|name| !self.records.iter().any(|own| own.name == *name))
            .collect()
    }
}

/// Who may use a secret. A setting that is not given stays as it is, so that setting a new value
/// opens the secret to nobody else.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// The least role of a key whose runs may use it; [`Role::Submit`] of one that is new.
    pub role: Option<Role>,
    /// The hosts that a credential for git is for; empty for those that it has, or for the default
    /// ones if it is new.
    pub hosts: Vec<GitHost>,
}

/// Whether a value can be kept, and a task started with it. [`set`] asks too.
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
    // Before the record of a secret that is there changes: who may use the value that stays is not
    // to hang on one that is refused.
    check(name, value)?;
    let store = activity::store(account, stack);
    let before = match store.find_secret(name.as_str()).await {
        // To set it anew mends it.
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
    // Of a new secret the value goes first: what is recorded can be used. Later the record does:
    // the new value is never used for what only the old one was for.
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

/// Lists them.
///
/// # Errors
/// [`SecretError`].
pub async fn list(account: &Account, stack: &StackView, path: String) -> Result<Kept, SecretError> {
    let mut kept = Kept::default();
    for record in activity::store(account, stack).list_secrets().await? {
        match record {
            Ok(record) => kept.records.push(record),
            Err(error) => kept.unreadable.push(error.to_string()),
        }
    }
    let values = Parameters::new(&account.config, path).list().await?;
    Ok(Kept {
        values: values.into_iter().map(|parameter| parameter.name).collect(),
        ..kept
    })
}

/// Removes a secret; says whether there was any of it. The record goes first: what is recorded can
/// be used. Idempotent.
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
