//! The administrator's key. It is made on this machine and only its hash leaves it, so that it is never in a log or an output of AWS's.

use chrono::{SubsecRound, Utc};
use domain::{
    key::{ApiKey, KeyRecord, Role},
    ports::{Keys, Unavailable},
};

use crate::{Account, activity, stack::StackView};

/// bcrypt's cost for API keys, as the API's own (`pipeline::auth::COST`).
const COST: u32 = 10;
/// How many names are tried for a key whose name is taken.
const NAMES: u32 = 100;

/// Whether the stack knows this key.
///
/// # Errors
/// When the table does not answer.
pub async fn is_known(account: &Account, stack: &StackView, key: &ApiKey) -> Result<bool, Unavailable> {
    Ok(activity::store(account, stack).find_key(&key.id()).await?.is_some())
}

/// A new key of 32 random bytes.
///
/// # Errors
/// When the system has none.
pub fn make() -> Result<ApiKey, Unavailable> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Unavailable::new("the system's random source", error))?;
    Ok(ApiKey::from_entropy(bytes))
}

/// Lets the stack know a key as an administrator's, under this name or, where that is taken, one with a number behind it. Gives the name.
///
/// # Errors
/// When the table does not answer, or all names are taken.
pub async fn add(account: &Account, stack: &StackView, key: &ApiKey, name: &str) -> Result<String, Unavailable> {
    let (store, text) = (activity::store(account, stack), key.clone());
    let failed = |error: &dyn std::fmt::Display| Unavailable::new("bcrypt", error);
    let hash = tokio::task::spawn_blocking(move || bcrypt::hash(text.expose(), COST)).await;
    let hash = hash.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    for number in 1..=NAMES {
        let name = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
        let created_at = Utc::now().trunc_subsecs(3);
        let record = KeyRecord { id: key.id(), name, role: Role::Admin, hash: hash.clone(), created_at };
        if store.add_key(&record).await? {
            return Ok(record.name);
        }
    }
    Err(Unavailable::new("the list of keys", format!("{NAMES} keys are called {name} already")))
}
