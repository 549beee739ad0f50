//! Task definitions: registered once for each content, whoever asks and however many do so at once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    limit::RateKey,
    ports::{Definitions, LaunchError, PortError, Store, Tasks},
    settings::Settings,
    task::TaskDefinition,
    throttle::{self, Rate},
};

/// How long one launcher has the turn to register a definition. Ours: a call takes well below a
/// second, and a launcher that died in the middle holds the others up no longer than this.
const TURN: TimeDelta = TimeDelta::seconds(5);
/// After how long to look again for a definition that somebody else registers. Ours.
const LOOK_AGAIN: TimeDelta = TimeDelta::seconds(1);
/// Most definitions remembered at once. Ours: about 100 KB.
const REMEMBERED_MAX: usize = 1024;

/// How far apart turns are planned: ECS takes one registration a second (AWS-FACTS §2).
const EVERY: TimeDelta = TimeDelta::seconds(1);
/// How far ahead turns are planned. Ours: so often the backlog's own order, and who has come
/// meanwhile, count anew.
const AHEAD: TimeDelta = TimeDelta::seconds(10);

/// What this process knows to be registered, and when what is not has its turn.
#[derive(Debug, Default)]
pub struct Registered(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    arns: HashMap<String, String>,
    plan: Plan,
}

/// When each definition that the rate holds up is to be tried: one after the other at that rate, so
/// that who waits for the thousandth is not looked at a thousand times. A plan of this process
/// alone, which others may thwart: whose turn has come tries again until it is granted.
#[derive(Debug, Default)]
struct Plan {
    turns: HashMap<String, Timestamp>,
    last: Timestamp,
}

impl Plan {
    /// How long this one still has to wait for its turn.
    fn left(&self, hash: &str, now: Timestamp) -> Option<TimeDelta> {
        self.turns
            .get(hash)
            .map(|turn| *turn - now)
            .filter(|left| *left > TimeDelta::zero())
    }

    /// Plans the turn of one that cannot be registered for so long, and says when to come again:
    /// then, or to have it planned.
    fn delay(&mut self, hash: &str, wait: TimeDelta, now: Timestamp) -> TimeDelta {
        let soonest = now + wait.max(LOOK_AGAIN);
        let had_its_turn = self.turns.contains_key(hash);
        let turn = if had_its_turn {
            soonest
        } else {
            soonest.max(self.last + EVERY)
        };
        if turn - now > AHEAD {
            return AHEAD;
        }
        if self.turns.len() >= REMEMBERED_MAX {
            self.turns.clear();
        }
        self.turns.insert(hash.to_owned(), turn);
        self.last = self.last.max(turn);
        turn - now
    }
}

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
    /// The ARN of a definition: remembered, or kept by another launcher, or registered now if it is
    /// this one's turn and the rate of registrations allows it.
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
    ) -> Result<Ensured, PortError> {
        let hash = definition.content_hash();
        if let Some(arn) = self.remembered(&hash) {
            return Ok(Ensured::Ready(arn));
        }
        if let Some(arn) = store.definition(&hash).await? {
            self.remember(hash, &arn);
            return Ok(Ensured::Ready(arn));
        }
        if let Some(rate) = settings.definitions_rate
            && let Some(later) = self.turn(store, rate, &hash, now).await?
        {
            return Ok(later);
        }
        match tasks.register_definition(definition).await {
            Ok(arn) => {
                store.keep_definition(&hash, &arn).await?;
                self.remember(hash, &arn);
                Ok(Ensured::Ready(arn))
            }
            Err(LaunchError::Refused(why)) => Ok(Ensured::Refused(why)),
            Err(LaunchError::Throttled(why)) => Ok(Ensured::Later {
                reason: why,
                pause: TURN,
            }),
            Err(error) => Err(PortError::unavailable("ECS", error)),
        }
    }

    /// Forgets an ARN that ECS does not know any more.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn forget(
        &self,
        store: &impl Definitions,
        hash: &str,
        arn: &str,
    ) -> Result<(), PortError> {
        self.memory().arns.remove(hash);
        store.forget_definition(hash, arn).await
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, hash: &str) -> Option<String> {
        self.memory().arns.get(hash).cloned()
    }

    fn remember(&self, hash: String, arn: &str) {
        let mut memory = self.memory();
        memory.plan.turns.remove(&hash);
        if memory.arns.len() >= REMEMBERED_MAX {
            memory.arns.clear();
        }
        memory.arns.insert(hash, arn.to_owned());
    }

    /// Takes the turn to register, and a token for it; or says when to come again. The rate is
    /// looked at before the turn is taken, so that nobody has a turn that is of no use to him.
    /// Where there is no rate, registering costs nothing and needs no turn.
    async fn turn(
        &self,
        store: &(impl Store + Definitions),
        rate: Rate,
        hash: &str,
        now: Timestamp,
    ) -> Result<Option<Ensured>, PortError> {
        let later = |pause| {
            Some(Ensured::Later {
                reason: throttle::rate_reason(RateKey::Definitions, rate),
                pause,
            })
        };
        let too_fast = |millis: u64| {
            let wait = TimeDelta::milliseconds(i64::try_from(millis).unwrap_or(i64::MAX));
            later(self.memory().plan.delay(hash, wait, now))
        };
        if let Some(left) = self.memory().plan.left(hash, now) {
            return Ok(later(left));
        }
        let (_, wait) = store
            .take_tokens(RateKey::Definitions, rate, 0, now)
            .await?;
        if wait > 0 {
            return Ok(too_fast(wait));
        }
        if !store.claim_definition(hash, now, now + TURN).await? {
            return Ok(Some(Ensured::Soon));
        }
        match store
            .take_tokens(RateKey::Definitions, rate, 1, now)
            .await?
        {
            (0, wait) => Ok(too_fast(wait)),
            _ => Ok(None),
        }
    }
}
