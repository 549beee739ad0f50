//! Task definitions: registered once for each content, whoever asks and however many do so at once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    limit::RateKey,
    ports::{Definitions, LaunchError, Store, Tasks, Unavailable},
    settings::Settings,
    task::TaskDefinition,
    throttle,
};

/// How long one launcher has the turn to register a definition. Ours: a call takes well below a second, and a launcher that died in
/// the middle holds the others up no longer than this.
const TURN: TimeDelta = TimeDelta::seconds(5);
/// After how long to look again for a definition that somebody else registers. Ours.
const LOOK_AGAIN: TimeDelta = TimeDelta::seconds(1);
/// Most ARNs remembered at once. Ours: about 100 KB.
const REMEMBERED_MAX: usize = 1024;

/// What this process knows to be registered.
#[derive(Debug, Default)]
pub struct Registered(Mutex<HashMap<String, String>>);

/// What came of asking for a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// It is registered under this ARN.
    Ready(String),
    /// Somebody registers it at this moment: look again.
    Soon,
    /// It will be there, but not yet.
    Later {
        /// Why, in words.
        reason: String,
        /// When to ask again.
        pause: TimeDelta,
    },
    /// ECS will never take it, and says why.
    Refused(String),
}

impl Registered {
    /// The ARN of a definition: remembered, or kept by another launcher, or registered now if it is this one's turn and the rate of
    /// registrations allows it.
    ///
    /// # Errors
    /// When the store or ECS does not answer; asking again is right.
    pub async fn ensure(
        &self,
        store: &(impl Store + Definitions),
        tasks: &impl Tasks,
        settings: &Settings,
        definition: &TaskDefinition,
        now: Timestamp,
    ) -> Result<Ensured, Unavailable> {
        let hash = definition.content_hash();
        if let Some(arn) = self.remembered(&hash) {
            return Ok(Ensured::Ready(arn));
        }
        if let Some(arn) = store.definition(&hash).await? {
            self.remember(hash, &arn);
            return Ok(Ensured::Ready(arn));
        }
        if let Some(later) = turn(store, settings, &hash, now).await? {
            return Ok(later);
        }
        match tasks.register_definition(definition).await {
            Ok(arn) => {
                store.keep_definition(&hash, &arn).await?;
                self.remember(hash, &arn);
                Ok(Ensured::Ready(arn))
            }
            Err(LaunchError::Refused(why)) => Ok(Ensured::Refused(why)),
            Err(LaunchError::Throttled(why)) => Ok(Ensured::Later { reason: why, pause: TURN }),
            Err(error) => Err(Unavailable::new("ECS", error)),
        }
    }

    /// Forgets an ARN that ECS does not know any more.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn forget(&self, store: &impl Definitions, hash: &str, arn: &str) -> Result<(), Unavailable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(hash);
        store.forget_definition(hash, arn).await
    }

    fn remembered(&self, hash: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    fn remember(&self, hash: String, arn: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(hash, arn.to_owned());
    }
}

/// Takes the turn to register, and a token for it; or says when to come again. The rate is looked at before the turn is taken, so
/// that nobody has a turn that is of no use to him. Where there is no rate, registering costs nothing and needs no turn.
async fn turn(
    store: &(impl Store + Definitions),
    settings: &Settings,
    hash: &str,
    now: Timestamp,
) -> Result<Option<Ensured>, Unavailable> {
    let too_fast = |rate, millis: u64| {
        let millis = i64::try_from(millis).unwrap_or(i64::MAX);
        Ensured::Later {
            reason: throttle::rate_reason(RateKey::Definitions, rate),
            pause: TimeDelta::milliseconds(millis).max(LOOK_AGAIN),
        }
    };
    let Some(rate) = settings.definitions_rate else { return Ok(None) };
    let (_, wait) = store.take_tokens(RateKey::Definitions, rate, 0, now).await?;
    if wait > 0 {
        return Ok(Some(too_fast(rate, wait)));
    }
    if !store.claim_definition(hash, now, now + TURN).await? {
        return Ok(Some(Ensured::Soon));
    }
    match store.take_tokens(RateKey::Definitions, rate, 1, now).await? {
        (0, wait) => Ok(Some(too_fast(rate, wait))),
        _ => Ok(None),
    }
}
