//! The contract suites on the simulation's stores and queues.

use std::time::Duration;

use aws::system::System;
use chrono::TimeDelta;
use domain::{
    id::ExecutionId,
    message::{Message, QueueName},
};
use tests::memory::{MAX_RECEIVES, MemoryQueue, MemoryStore, Received};

use super::{
    queue::{Got, Receiver},
    spoilt::Spoil,
    statistics::{CountEnds, count_in},
};

async fn fresh_store() -> (MemoryStore, ()) {
    (MemoryStore::default(), ())
}

async fn fresh_and_raw() -> (MemoryStore, MemoryStore) {
    let store = MemoryStore::default();
    (store.clone(), store)
}

impl Spoil for MemoryStore {
    async fn spoil(&self, id: &ExecutionId) {
        MemoryStore::spoil(self, id);
    }
}

mod spoilt {
    crate::contract::spoilt::suite!(super::fresh_and_raw);
}

async fn fresh_queue() -> (MemoryQueue<System>, ()) {
    (MemoryQueue::new(System), ())
}

mod store {
    crate::contract::store::suite!(super::fresh_store);
}

impl CountEnds for MemoryStore {
    async fn count_ends(&self, ids: &[ExecutionId]) {
        count_in(self, ids).await;
    }
}

mod statistics {
    crate::contract::statistics::suite!(super::fresh_store);
    crate::contract::statistics::batch_suite!(super::fresh_store);
}

mod keys {
    crate::contract::keys::suite!(super::fresh_store);
}

mod definitions {
    crate::contract::definitions::suite!(super::fresh_store);
}

mod queue {
    crate::contract::queue::suite!(super::fresh_queue);
}

impl Receiver for MemoryQueue<System> {
    type Handle = Received;
    const MAX_RECEIVES: u32 = MAX_RECEIVES;

    async fn receive(
        &self,
        queue: QueueName,
        max: u32,
        visibility: Duration,
    ) -> Vec<Got<Received>> {
        let received = Self::receive(
            self,
            queue,
            max,
            TimeDelta::from_std(visibility).expect("a span"),
        );
        let got = |handle: Received| Got {
            message: handle.message.clone(),
            receives: handle.receives,
            handle,
        };
        received.into_iter().map(got).collect()
    }

    async fn delete(&self, handles: Vec<Received>) {
        Self::delete(self, &handles);
    }

    async fn release(&self, handles: Vec<Received>) {
        Self::release(self, &handles);
    }

    async fn dead_letters(&self) -> Vec<Message> {
        Self::dead_letters(self)
    }
}
