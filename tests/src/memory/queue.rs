//! Queues with SQS's semantics: delay, visibility, receive counts, dead letters (SQS Developer
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

/// How many times a message is received before it becomes a dead letter, as in the template.
pub const MAX_RECEIVES: u32 = 5;

/// A received message. Deleting or releasing it does nothing if the message was received again in
/// the meantime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message's number, the same with each receive.
    pub id: u64,
    /// The message itself.
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
    /// The messages, ordered by when each becomes visible.
    visible: BTreeSet<(Timestamp, u64)>,
    dead: Vec<Message>,
    sent: u64,
    received: u64,
    /// Requests, as SQS bills them: of at most ten messages each (AWS-FACTS §5).
    requests: u64,
}

/// The most messages in a request.
const BATCH: usize = 10;

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

    /// Receives one message of this queue, or makes it a dead letter if it was received too often.
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

/// The launch queue and the control queue, each with its dead letters. Clones share the same
/// queues.
#[derive(Clone)]
pub struct MemoryQueue<C> {
    launch: Arc<Mutex<State>>,
    control: Arc<Mutex<State>>,
    clock: C,
}

impl<C: Clock> MemoryQueue<C> {
    /// Empty queues with this clock.
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

    /// Receives at most `max` messages, those visible longest first, and hides them for
    /// `visibility`. As with SQS it may return fewer though more are there: it does not replace a
    /// message that becomes a dead letter.
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
        state.requests += u64::from(!ids.is_empty());
        ids.into_iter()
            .filter_map(|id| state.receive(id, now + visibility))
            .collect()
    }

    /// How many requests were made, empty receives left out: a long poll makes few of those.
    #[must_use]
    pub fn requests(&self) -> u64 {
        let of = |queue| self.state(queue).requests;
        QueueName::ALL.into_iter().map(of).sum()
    }

    /// Deletes messages that were processed.
    pub fn delete(&self, received: &[Received]) {
        if let Some(first) = received.first() {
            self.state(first.message.queue()).requests += 1;
        }
        for one in received {
            let mut state = self.state(one.message.queue());
            if state.is_current(one) {
                state.remove(one.id);
            }
        }
    }

    /// Releases messages that could not be processed: they are visible at once.
    pub fn release(&self, received: &[Received]) {
        let now = self.clock.now();
        for one in received {
            let mut state = self.state(one.message.queue());
            if state.is_current(one) {
                state.show_at(one.id, now);
            }
        }
    }

    /// When the next message of a queue becomes visible. `None` if the queue is empty.
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

    /// How many messages were sent to a queue, and how many receives there were.
    #[must_use]
    pub fn counts(&self, queue: QueueName) -> (u64, u64) {
        let state = self.state(queue);
        (state.sent, state.received)
    }
}

impl<C: Clock> Queue for MemoryQueue<C> {
    async fn send(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        let now = self.clock.now();
        for queue in QueueName::ALL {
            let theirs = |outgoing: &&Outgoing| outgoing.message.queue() == queue;
            let count = messages.iter().filter(theirs).count();
            self.state(queue).requests += count.div_ceil(BATCH) as u64;
        }
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
