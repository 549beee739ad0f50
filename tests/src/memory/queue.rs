//! Queues with SQS's semantics: delay, visibility, counted receives, dead letters (SQS Developer
//! Guide).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    message::{Message, Outgoing, QueueName},
    ports::{Clock, PortError, Queue},
};

/// After so many receives a message becomes a dead letter, as the template has it.
pub const MAX_RECEIVES: u32 = 5;

/// A message as it is received. It is deleted or released by what it is: a message that was
/// received again since stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message's number: the same with each receive.
    pub id: u64,
    /// What it says.
    pub message: Message,
    /// How often it was received, this time included.
    pub receives: u32,
}

struct Kept {
    message: Message,
    receives: u32,
    visible_at: Timestamp,
}

/// One queue and its dead letters.
#[derive(Default)]
struct State {
    kept: BTreeMap<u64, Kept>,
    /// By when each is visible.
    visible: BTreeSet<(Timestamp, u64)>,
    dead: Vec<Message>,
    sent: u64,
    received: u64,
}

impl State {
    fn show_at(&mut self, id: u64, at: Timestamp) {
        if let Some(kept) = self.kept.get_mut(&id) {
            self.visible.remove(&(kept.visible_at, id));
            kept.visible_at = at;
            self.visible.insert((at, id));
        }
    }

    fn remove(&mut self, id: u64) -> Option<Kept> {
        let kept = self.kept.remove(&id)?;
        self.visible.remove(&(kept.visible_at, id));
        Some(kept)
    }

    fn is_current(&self, received: &Received) -> bool {
        self.kept
            .get(&received.id)
            .is_some_and(|kept| kept.receives == received.receives)
    }

    /// Receives one message of this queue, or buries it when it was received too often.
    fn receive(&mut self, id: u64, until: Timestamp) -> Option<Received> {
        let kept = self.kept.get_mut(&id)?;
        if kept.receives >= MAX_RECEIVES {
            let buried = self.remove(id)?;
            self.dead.push(buried.message);
            return None;
        }
        kept.receives += 1;
        self.received += 1;
        let received = Received {
            id,
            message: kept.message.clone(),
            receives: kept.receives,
        };
        self.show_at(id, until);
        Some(received)
    }
}

/// The launch queue and the control queue, each with its dead letters. Clones are handles of the
/// same ones.
#[derive(Clone)]
pub struct MemoryQueue<C> {
    launch: Arc<Mutex<State>>,
    control: Arc<Mutex<State>>,
    clock: C,
}

impl<C: Clock> MemoryQueue<C> {
    /// Empty queues by this clock.
    #[must_use]
    pub fn new(clock: C) -> Self {
        Self {
            launch: Arc::default(),
            control: Arc::default(),
            clock,
        }
    }

    fn state(&self, queue: QueueName) -> MutexGuard<'_, State> {
        let state = match queue {
            QueueName::Launch => &self.launch,
            QueueName::Control => &self.control,
        };
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives up to so many, first those that are visible the longest, and hides them for so
    /// long. As with SQS there may be fewer though more are there: what becomes a dead letter is
    /// not replaced.
    #[must_use]
    pub fn receive(&self, queue: QueueName, max: u32, visibility: TimeDelta) -> Vec<Received> {
        let (now, mut state) = (self.clock.now(), self.state(queue));
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let ids: Vec<_> = state
            .visible
            .range(..=(now, u64::MAX))
            .map(|(_, id)| *id)
            .take(max)
            .collect();
        ids.into_iter()
            .filter_map(|id| state.receive(id, now + visibility))
            .collect()
    }

    /// Deletes what was dealt with.
    pub fn delete(&self, received: &[Received]) {
        for one in received {
            let mut state = self.state(one.message.queue());
            if state.is_current(one) {
                state.remove(one.id);
            }
        }
    }

    /// Gives back what could not be dealt with: it is visible at once.
    pub fn release(&self, received: &[Received]) {
        let now = self.clock.now();
        for one in received {
            let mut state = self.state(one.message.queue());
            if state.is_current(one) {
                state.show_at(one.id, now);
            }
        }
    }

    /// When the next message of a queue is visible; `None` if there is none at all.
    #[must_use]
    pub fn next_at(&self, queue: QueueName) -> Option<Timestamp> {
        self.state(queue).visible.first().map(|(at, _)| *at)
    }

    /// The dead letters of both queues.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<Message> {
        QueueName::ALL
            .into_iter()
            .flat_map(|queue| self.state(queue).dead.clone())
            .collect()
    }

    /// How many messages were sent to a queue, and how often one of it was received.
    #[must_use]
    pub fn counts(&self, queue: QueueName) -> (u64, u64) {
        let state = self.state(queue);
        (state.sent, state.received)
    }
}

impl<C: Clock> Queue for MemoryQueue<C> {
    async fn send(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        let now = self.clock.now();
        for Outgoing {
            message,
            delay_seconds,
        } in messages
        {
            let mut state = self.state(message.queue());
            let (id, visible_at) = (
                state.sent,
                now + TimeDelta::seconds(i64::from(delay_seconds)),
            );
            state.sent += 1;
            state.kept.insert(
                id,
                Kept {
                    message,
                    receives: 0,
                    visible_at,
                },
            );
            state.visible.insert((visible_at, id));
        }
        Ok(())
    }
}
