//! The administrator's key. It is made on this machine, and only its hash leaves the machine. So
//! the key is never in a log or an output of AWS.

use aws::system::System;
use chrono::{SubsecRound, Utc};
use domain::{
    key::{ApiKey, KeyRecord, Role},
    ports::{Entropy, KeyLookup, Keys, PortError},
    principal::Principal,
};

use pipeline::auth;

use crate::{Account, activity, stack::StackView};

/// How many names are tried for a key if its name is taken.
const NAMES: u32 = 100;

/// Whether the stack has a record of this key.
///
/// # Errors
/// When the table does not answer.
pub async fn is_known(
    account: &Account,
    stack: &StackView,
    key: &ApiKey,
) -> Result<bool, PortError> {
    Ok(activity::store(account, stack)
        .find_key(&key.id())
        .await?
        .is_some())
}

/// Makes a key of 32 random bytes.
///
/// # Errors
/// When the system's random source fails.
pub fn make() -> Result<ApiKey, PortError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| PortError::unavailable("the system's random source", error))?;
    Ok(ApiKey::from_entropy(bytes))
}

/// Adds a key with the administrator's role. If the name is taken, a number is appended to it.
/// Returns the name.
///
/// # Errors
/// When the table does not answer, or all names are taken.
pub async fn add(
    account: &Account,
    stack: &StackView,
    key: &ApiKey,
    name: &str,
) -> Result<String, PortError> {
    let (store, now) = (activity::store(account, stack), Utc::now().trunc_subsecs(3));
    let principal = Principal::new(now, System.bits());
    let record = auth::record(key, name, Role::Admin, principal, now).await?;
    for number in 1..=NAMES {
        let name = if number == 1 {
            name.to_owned()
        } else {
            format!("{name}-{number}")
        };
        let record = KeyRecord {
            name,
            ..record.clone()
        };
        if store.add_key(&record).await? {
            return Ok(record.name);
        }
    }
    Err(PortError::invalid(
        "the list of keys",
        format!("{NAMES} keys are called {name} already"),
    ))
}
