//! Authentication of callers: API keys, verified against bcrypt hashes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use aws_lambda_events::apigw::ApiGatewayProxyRequest;
use chrono::TimeDelta;
use domain::{
    Timestamp,
    api::Problem,
    key::{ApiKey, Caller, KeyRecord, Role},
    ports::{KeyLookup, PortError},
    principal::Principal,
    stored,
};
use http::{HeaderMap, header::AUTHORIZATION};

/// bcrypt's cost for API keys: 62 ms on a full core (AWS-FACTS §8).
pub const COST: u32 = 10;
/// How long a verdict is remembered, right or wrong. A revoked key may go on working for as long
/// (DESIGN §7).
const REMEMBERED: TimeDelta = TimeDelta::seconds(60);
/// The most verdicts that are remembered at once. It is bounded so that a flood of wrong keys
/// cannot fill the memory.
const VERDICTS_MAX: usize = 4096;

/// Verifies keys, and remembers each verdict for a minute.
#[derive(Debug, Default)]
pub struct Auth {
    verdicts: Mutex<HashMap<String, (Timestamp, Option<Caller>)>>,
}

/// Why a caller is refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The key is missing or wrong.
    #[error("no valid API key")]
    Unknown,
    /// The keys cannot be read.
    #[error(transparent)]
    Failed(#[from] PortError),
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unknown => Self::new(
                401,
                "unauthorized",
                "no valid API key; send 'Authorization: Bearer sk_live_…' with a key of this installation",
            ),
            AuthError::Failed(error) => crate::http::failed(&error),
        }
    }
}

/// Returns the `Authorization` header of a request. Two of them count as none, because a proxy in
/// front of us may have checked the other one.
fn authorization(request: &ApiGatewayProxyRequest) -> Option<&str> {
    // API Gateway sends the last header of each name, and all of them separately.
    let is_one = |headers: &HeaderMap| headers.get_all(AUTHORIZATION).iter().count() <= 1;
    let told = request.headers.get(AUTHORIZATION).filter(|_| {
        [&request.headers, &request.multi_value_headers]
            .into_iter()
            .all(is_one)
    });
    told.and_then(|value| value.to_str().ok())
}

/// Returns the token of a `Bearer` header. The scheme's name may be written in any case (RFC 9110,
/// section 11.1).
fn bearer_of(header: &str) -> Option<&str> {
    let (scheme, given) = header.split_once(' ')?;
    Some(given).filter(|_| scheme.eq_ignore_ascii_case("bearer"))
}

/// Returns the bearer token of a request, if it has one `Authorization` header.
pub(crate) fn bearer(request: &ApiGatewayProxyRequest) -> Option<&str> {
    authorization(request).and_then(bearer_of)
}

impl Auth {
    /// Returns the caller behind a request. Two `Authorization` headers count as none, because a
    /// proxy in front of us may have checked the other one.
    ///
    /// # Errors
    /// The problem to answer with: 401 without a valid key.
    pub async fn admit(
        &self,
        request: &ApiGatewayProxyRequest,
        keys: &impl KeyLookup,
        now: Timestamp,
    ) -> Result<Caller, Problem> {
        self.caller(authorization(request), keys, now)
            .await
            .map_err(Problem::from)
    }

    /// Returns the caller behind an `Authorization` header.
    ///
    /// # Errors
    /// [`AuthError::Unknown`] for anything but a valid key.
    pub async fn caller(
        &self,
        header: Option<&str>,
        keys: &impl KeyLookup,
        now: Timestamp,
    ) -> Result<Caller, AuthError> {
        let key = header
            .and_then(bearer_of)
            .and_then(ApiKey::parse)
            .ok_or(AuthError::Unknown)?;
        let digest = key.digest();
        if let Some(verdict) = self.remembered(&digest, now) {
            return verdict.ok_or(AuthError::Unknown);
        }
        let verdict = verify(key, keys, now).await?;
        self.remember(digest, verdict.clone(), now);
        verdict.ok_or(AuthError::Unknown)
    }

    fn remembered(&self, digest: &str, now: Timestamp) -> Option<Option<Caller>> {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, verdict) = verdicts.get(digest)?;
        (now - *at < REMEMBERED && now >= *at).then(|| verdict.clone())
    }

    fn remember(&self, digest: String, verdict: Option<Caller>, now: Timestamp) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if verdicts.len() >= VERDICTS_MAX {
            verdicts.retain(|_, (at, _)| now - *at < REMEMBERED);
        }
        if verdicts.len() >= VERDICTS_MAX {
            verdicts.clear();
        }
        verdicts.insert(digest, (now, verdict));
    }
}

/// Returns the caller with a key, or `None` if the key is not one of this installation or has
/// expired. A key with a known id takes about 60 ms of a core. An unknown id is refused without
/// bcrypt, because wrong keys, which anybody can send, would otherwise use up the functions'
/// capacity. The difference in time reveals no key, because the id is a hash of the whole key.
///
/// # Errors
/// When the keys cannot be read.
pub async fn verify(
    key: ApiKey,
    keys: &impl KeyLookup,
    now: Timestamp,
) -> Result<Option<Caller>, PortError> {
    let Some(record) = keys.find_key(&key.id()).await? else {
        return Ok(None);
    };
    let hash = record.hash.clone();
    let checked = tokio::task::spawn_blocking(move || bcrypt::verify(key.expose(), &hash)).await;
    let right = checked.ok().and_then(Result::ok).unwrap_or(false);
    Ok((right && record.is_good(now)).then(|| record.caller()))
}

/// Returns the record to store for a key. Takes about 60 ms of a core.
///
/// # Errors
/// When the system's random source fails.
pub async fn record(
    key: &ApiKey,
    name: &str,
    role: Role,
    principal: Principal,
    now: Timestamp,
) -> Result<KeyRecord, PortError> {
    let text = key.clone();
    let hash = tokio::task::spawn_blocking(move || bcrypt::hash(text.expose(), COST)).await;
    let hash = hash
        .map_err(|e| PortError::unavailable("bcrypt", e))?
        .map_err(|e| PortError::unavailable("bcrypt", e))?;
    Ok(KeyRecord {
        id: key.id(),
        name: name.to_owned(),
        role,
        hash,
        created_at: now,
        principal: Some(principal),
        expires_at: None,
        previous: Vec::new(),
        unknown: stored::Unknown::default(),
    })
}

/// Refuses a caller with too low a role.
///
/// # Errors
/// The problem to answer with.
pub fn require(caller: &Caller, role: Role) -> Result<(), Problem> {
    if caller.role >= role {
        return Ok(());
    }
    Err(Problem::new(
        403,
        "forbidden",
        format!(
            "key '{}' may not do this; use a key of role {role}",
            caller.name
        ),
    ))
}
