//! What AWS does for the functions: event source mappings, EventBridge, the one-minute schedule.

use std::sync::Arc;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::TimeDelta;
use domain::{message::QueueName, ports::Clock};

use super::{World, script};
use crate::memory::Received;

/// How long a poller takes to find that a message has come (ours: long polls answer at once, the way to a function takes some milliseconds).
const POLL: TimeDelta = TimeDelta::milliseconds(50);
/// From the message to the handler's first line, and the same for events: a warm function (ours).
const INVOKE: TimeDelta = TimeDelta::milliseconds(20);
/// As in the template: six times the function's timeout.
const VISIBILITY: TimeDelta = TimeDelta::seconds(360);
/// As in the template, `MaximumConcurrency` of both event source mappings.
const LAUNCHERS: [(QueueName, usize); 2] = [(QueueName::Launch, 5), (QueueName::Control, 2)];
/// Messages given to a function together (AWS-FACTS §5).
const BATCH: u32 = 10;

/// Starts all of it; it ends with the simulation.
pub(super) fn start(world: &Arc<World>) {
    for (queue, count) in LAUNCHERS {
        for _ in 0..count {
            world.clock.spawn(poll(Arc::clone(world), queue));
        }
    }
    world.clock.spawn(deliver(Arc::clone(world)));
    world.clock.spawn(sweep(Arc::clone(world)));
}

async fn poll(world: Arc<World>, queue: QueueName) {
    loop {
        let received = world.queue.receive(queue, BATCH, VISIBILITY);
        if received.is_empty() {
            world.clock.sleep(POLL).await;
            continue;
        }
        world.clock.sleep(INVOKE).await;
        let response = world.launcher().handle(event(&received)).await;
        let failed = |received: &Received| {
            let id = received.id.to_string();
            response.batch_item_failures.iter().any(|failure| failure.item_identifier == id)
        };
        let done: Vec<_> = received.into_iter().filter(|received| !failed(received)).collect();
        world.queue.delete(&done);
    }
}

/// These messages as SQS hands them to a function.
pub(super) fn event(received: &[Received]) -> SqsEvent {
    let mut event = SqsEvent::default();
    event.records = received
        .iter()
        .map(|received| {
            let mut record = SqsMessage::default();
            record.message_id = Some(received.id.to_string());
            record.body = serde_json::to_string(&received.message).ok();
            record
        })
        .collect();
    event
}

async fn deliver(world: Arc<World>) {
    loop {
        let events = script::locked(&world.ecs).take_events(world.clock.now());
        for (_, change) in events {
            let world = Arc::clone(&world);
            world.clock.clone().spawn(async move {
                world.clock.sleep(INVOKE).await;
                let (envelope, before) = (change.envelope(), world.clock.now());
                // EventBridge delivers again what a function failed at; the sweep sees to what is lost.
                let told = world.tracker().task_changed(&envelope).await.is_ok();
                if told && script::is_stop(&envelope.detail) {
                    script::note_freed(&world, before);
                }
            });
        }
        world.clock.sleep(POLL).await;
    }
}

async fn sweep(world: Arc<World>) {
    loop {
        world.clock.sleep(TimeDelta::minutes(1)).await;
        let until = world.clock.now() + TimeDelta::seconds(45);
        // The next one goes on.
        let _ = world.tracker().next_sweep(until).await;
    }
}
