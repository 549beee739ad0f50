//! The stream of the table's changes, from which ends are counted. It repeats batches, cuts them
//! in halves after a failure, and tells of an ended record again whenever it changes.

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use domain::{
    id::ExecutionId,
    ports::{Clock, PortError},
};

use super::{
    super::{script::locked, time::Time},
    World,
    lambda::Environment,
};

/// The shards. Their batches are counted at the same time.
const SHARDS: usize = 2;
/// How long a batch is collected.
const WINDOW: TimeDelta = TimeDelta::seconds(20);
/// The pause before a failed batch is repeated.
const AGAIN: TimeDelta = TimeDelta::seconds(1);

/// A shard: the executions whose ended records were written, and how many of these are dealt with.
#[derive(Default)]
struct Shard {
    written: Vec<ExecutionId>,
    read: usize,
}

/// The stream.
#[derive(Default)]
pub(super) struct Stream([Mutex<Shard>; SHARDS]);

impl Stream {
    /// Tells that the record of an ended execution was written.
    pub(super) fn tell(&self, id: &ExecutionId) {
        let shard = id
            .to_bytes()
            .iter()
            .map(|byte| usize::from(*byte))
            .sum::<usize>()
            % SHARDS;
        locked(&self.0[shard]).written.push(id.clone());
    }

    /// Whether all of it is dealt with.
    pub(super) fn is_read(&self) -> bool {
        let is_read = |shard: &Mutex<Shard>| {
            let shard = locked(shard);
            shard.read == shard.written.len()
        };
        self.0.iter().all(is_read)
    }
}

/// Starts the reader of each shard.
pub(super) fn start(world: &Arc<World>) {
    for shard in 0..SHARDS {
        world.time.clone().spawn(read(Arc::clone(world), shard));
    }
}

async fn read(world: Arc<World>, shard: usize) {
    loop {
        world.time.sleep(WINDOW).await;
        let (batch, before, read) = {
            let shard = locked(&world.stream.0[shard]);
            let batch = shard.written[shard.read..].to_vec();
            (
                batch,
                shard.written[..shard.read].to_vec(),
                shard.written.len(),
            )
        };
        if batch.is_empty() {
            continue;
        }
        count(&world, shard, batch).await;
        // Lambda lost its place, and goes back.
        if world.fate.strikes(|weather| weather.wakeup_doubled) {
            count(&world, shard, before).await;
        }
        locked(&world.stream.0[shard]).read = read;
    }
}

/// Hands a batch to the function until it is counted. A batch that fails is halved.
async fn count(world: &Arc<World>, shard: usize, batch: Vec<ExecutionId>) {
    let mut left = vec![batch];
    while let Some(batch) = left.pop() {
        let who = format!("counter {shard}");
        let process = Environment::new(world, &who);
        let told = world.fate.process(process.count(&batch)).await;
        let failed = match told {
            None => Some("dies".to_owned()),
            Some(result) => result.err().map(|error: PortError| error.to_string()),
        };
        let Some(failed) = failed else { continue };
        world
            .story
            .tell(&who, || format!("{} ends: {failed}", batch.len()));
        world.time.sleep(AGAIN).await;
        let (first, second) = batch.split_at(batch.len() / 2);
        left.extend(
            [second.to_vec(), first.to_vec()]
                .into_iter()
                .filter(|part| !part.is_empty()),
        );
    }
}
