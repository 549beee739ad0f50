//! Events on their way from the model to its listener.

use crate::ecs::STOPPED;
use std::collections::BTreeMap;

use domain::Timestamp;

use super::{
    account::Delivery,
    task::{Change, Shown},
};
use crate::random::Random;

/// Events that were sent and have not arrived yet.
pub(super) struct Outbox {
    seed: u64,
    delivery: Delivery,
    /// Events ordered by arrival. Events of the same arrival time keep the order of sending.
    sent: BTreeMap<(Timestamp, u64), Change>,
    /// Events that wait for the next one of their task.
    held: BTreeMap<usize, Change>,
    count: u64,
}

impl Outbox {
    pub(super) fn new(seed: u64, delivery: Delivery) -> Self {
        Self {
            seed,
            delivery,
            sent: BTreeMap::new(),
            held: BTreeMap::new(),
            count: 0,
        }
    }

    /// When the next event arrives.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.sent.first_key_value().map(|((at, _), _)| *at)
    }

    /// Returns the events that have arrived by now.
    pub(super) fn take(&mut self, now: Timestamp) -> Vec<(Timestamp, Change)> {
        let mut taken = Vec::new();
        while let Some(first) = self.sent.first_entry().filter(|first| first.key().0 <= now) {
            let ((at, _), change) = first.remove_entry();
            taken.push((at, change));
        }
        taken
    }

    /// Sends the event of a task's change, as reliably as the account's delivery is. Returns
    /// whether the event was dropped.
    pub(super) fn post(&mut self, task: usize, shown: Shown, at: Timestamp) -> bool {
        let version = shown.task.version;
        let purpose = format!("event {version}");
        let mut random =
            Random::keyed(self.seed, &purpose, u64::try_from(task).unwrap_or_default());
        let id = format!("{:016x}-{:016x}", random.bits(), random.bits());
        let is_last = shown.task.last_status == STOPPED;
        let change = Change { id, at, shown };
        let comes_at = self.comes_at(&mut random, at);
        let dropped = random.chance(self.delivery.dropped);
        let overtaken =
            random.chance(self.delivery.reordered) && !is_last && !self.held.contains_key(&task);
        if !dropped && random.chance(self.delivery.duplicated) {
            let again_at = self.comes_at(&mut random, at);
            self.send(again_at, change.clone());
        }
        if !dropped && overtaken {
            self.held.insert(task, change);
            return false;
        }
        if !dropped {
            self.send(comes_at, change);
        }
        if let Some(held) = self.held.remove(&task) {
            self.send(comes_at, held);
        }
        dropped
    }

    fn comes_at(&self, random: &mut Random, at: Timestamp) -> Timestamp {
        let (probability, late_by) = &self.delivery.late;
        let comes_at = at + random.within(&self.delivery.delay);
        if random.chance(*probability) {
            comes_at + random.within(late_by)
        } else {
            comes_at
        }
    }

    fn send(&mut self, at: Timestamp, change: Change) {
        self.count += 1;
        self.sent.insert((at, self.count), change);
    }
}
