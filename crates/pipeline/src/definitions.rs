//! Task definitions: each content is registered once, however many launchers ask for it at once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    limit::RateKey,
    ports::{Definitions, LaunchError, LaunchStore, PortError, Tasks},
    quota::Rate,
    request::Place,
    scheduler::reason::rate_words,
    settings::Settings,
    task::TaskDefinition,
};

/// How long one launcher has the turn to register a definition. A call takes well below a second,
/// and a launcher that dies in the middle delays the others no longer than this.
const TURN: TimeDelta = TimeDelta::seconds(5);
/// After how long to look again for a definition that another launcher is registering. Its call
/// takes well below a second.
const LOOK_AGAIN: TimeDelta = TimeDelta::seconds(1);
/// The most definitions that are remembered at once: about 100 KB.
const REMEMBERED_MAX: usize = 1024;

/// How far apart turns are planned: ECS takes one registration a second (AWS-FACTS §2).
const EVERY: TimeDelta = TimeDelta::seconds(1);
/// How far ahead turns are planned. A longer wait is planned again after this time, so that the
/// order of the backlog, newcomers included, counts again.
const AHEAD: TimeDelta = TimeDelta::seconds(10);

/// The definitions that this process knows to be registered, and the planned turns of the others.
#[derive(Debug, Default)]
pub struct Registered(Mutex<DefinitionMemory>);

#[derive(Debug, Default)]
struct DefinitionMemory {
    arns: HashMap<String, String>,
    plan: TurnPlan,
}

/// When to try each definition that the rate delays: one after the other at that rate, so that an
/// execution that needs the thousandth definition is not looked at a thousand times. The plan is
/// this process's alone and other processes may upset it, so a definition whose turn has come is
/// tried again until it is granted.
#[derive(Debug, Default)]
struct TurnPlan {
    turns: HashMap<String, Timestamp>,
    last: Timestamp,
}

impl TurnPlan {
    /// Returns how long this definition still waits for its turn.
    fn left(&self, hash: &str, now: Timestamp) -> Option<TimeDelta> {
        self.turns
            .get(hash)
            .map(|turn| *turn - now)
            .filter(|left| *left > TimeDelta::zero())
    }

    /// Plans the turn of a definition that cannot be registered for `wait`. Returns when to come
    /// again: at that turn, or earlier to have the turn planned.
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

/// The outcome of asking for a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// It is registered under this ARN.
    Ready(String),
    /// Another launcher is registering it now: look again.
    Soon,
    /// It cannot be registered yet.
    Later {
        /// Why not, for people.
        reason: String,
        /// When to ask again.
        pause: TimeDelta,
    },
    /// ECS will never accept it, for this reason.
    Refused(String),
}

impl Registered {
    /// Returns the ARN of a definition: the remembered one, one that another launcher stored, or
    /// that of a new registration, if it is this launcher's turn and the rate of registrations
    /// allows it.
    ///
    /// # Errors
    /// When the store or ECS does not answer. The call may be repeated.
    pub async fn ensure(
        &self,
        store: &(impl LaunchStore + Definitions),
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
        if definition.helpers.is_none() && settings.defaults.place == Place::Aws {
            // Lambda changes a function's code and its variables in two calls.
            return Ok(Ensured::Later {
                reason: "the stack does not name the runner's image yet: `mycli upgrade` does that"
                    .into(),
                pause: TURN,
            });
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

    /// Forgets an ARN that ECS no longer knows.
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

    fn memory(&self) -> MutexGuard<'_, DefinitionMemory> {
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

    /// Takes the turn to register and a token for it, or returns when to come again. The rate is
    /// checked before the turn is taken, so that no launcher holds a turn it cannot use. Without a
    /// rate, registering costs nothing and needs no turn.
    async fn turn(
        &self,
        store: &(impl LaunchStore + Definitions),
        rate: Rate,
        hash: &str,
        now: Timestamp,
    ) -> Result<Option<Ensured>, PortError> {
        let later = |pause| {
            Some(Ensured::Later {
                reason: rate_words(RateKey::Definitions, rate),
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
