//! AWS's part: event source mappings, EventBridge, the one-minute schedule.

use std::sync::Arc;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::TimeDelta;
use domain::{message::QueueName, ports::Clock};
use pipeline::gauges;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    World, script,
    time::{Time, Virtual},
    way::Way,
};
use crate::{ecs::Change, memory::Received};

/// How long a poller takes to receive a new message. Our choice: long polls answer at once, and the
/// way to a function takes some milliseconds.
const POLL: TimeDelta = TimeDelta::milliseconds(50);
/// From the message or event to the handler's first line, in a warm function (our choice).
const INVOKE: TimeDelta = TimeDelta::milliseconds(20);
/// The visibility timeout, as in the template: six times the function's timeout.
const VISIBILITY: TimeDelta = TimeDelta::seconds(360);
/// `MaximumConcurrency` of both event source mappings, as in the template.
const LAUNCHERS: [(QueueName, usize); 2] = [(QueueName::Launch, 5), (QueueName::Control, 2)];
/// Messages per invocation (AWS-FACTS §5).
const BATCH: u32 = 10;

/// Starts everything except the delivery of events. All of it ends with the simulation.
pub(super) fn start<W: Way>(world: &Arc<World<W>>) {
    for (queue, count) in LAUNCHERS {
        for _ in 0..count {
            world.clock.spawn(poll(Arc::clone(world), queue));
        }
    }
    world.clock.spawn(sweep(Arc::clone(world)));
}

async fn poll<W: Way>(world: Arc<World<W>>, queue: QueueName) {
    loop {
        let received = world.queue.receive(queue, BATCH, VISIBILITY);
        if received.is_empty() {
            world.clock.sleep(POLL).await;
            continue;
        }
        world.clock.sleep(INVOKE).await;
        let source = match queue {
            QueueName::Launch => "launch queue",
            QueueName::Control => "control queue",
        };
        let event = event(&received);
        let response = world.invoke(source, world.launcher().handle(event)).await;
        let failed = |received: &Received| {
            let id = received.id.to_string();
            response
                .batch_item_failures
                .iter()
                .any(|failure| failure.item_identifier == id)
        };
        let done: Vec<_> = received
            .into_iter()
            .filter(|received| !failed(received))
            .collect();
        world.queue.delete(&done);
    }
}

/// Wraps these messages as SQS hands them to a function.
pub(super) fn event(received: &[Received]) -> SqsEvent {
    let mut event = SqsEvent::default();
    event.records = received
        .iter()
        .map(|received| {
            let mut record = SqsMessage::default();
            record.message_id = Some(received.id.to_string());
            record.body = received.message.body().ok();
            record
        })
        .collect();
    event
}

/// EventBridge on virtual time: polls the model for events.
pub(super) async fn look_for_events<W: Way<Time = Virtual>>(world: Arc<World<W>>) {
    loop {
        let events = script::locked(&world.ecs).take_events(world.clock.now());
        events
            .into_iter()
            .for_each(|(_, change)| deliver(&world, &change));
        world.clock.sleep(POLL).await;
    }
}

/// EventBridge for a model behind a wire, which sends each event when it is due.
pub(super) async fn watch_events<W: Way>(
    world: Arc<World<W>>,
    mut events: UnboundedReceiver<Change>,
) {
    while let Some(change) = events.recv().await {
        deliver(&world, &change);
    }
}

fn deliver<W: Way>(world: &Arc<World<W>>, change: &Change) {
    let envelope = change.envelope();
    if !W::hears(&envelope.detail) {
        return;
    }
    let world = Arc::clone(world);
    world.clock.clone().spawn(async move {
        world.clock.sleep(INVOKE).await;
        let before = world.clock.now();
        // EventBridge retries what a function failed at; the sweep repairs what is lost.
        let told = world
            .invoke("a task's change", world.tracker().task_changed(&envelope))
            .await;
        if told.is_ok() && script::is_stop(&envelope.detail) {
            script::note_freed(&world, before, &envelope.detail);
        }
    });
}

async fn sweep<W: Way>(world: Arc<World<W>>) {
    loop {
        world.clock.sleep(TimeDelta::minutes(1)).await;
        let until = world.clock.now() + TimeDelta::seconds(45);
        let swept = async {
            // The next sweep goes on from here.
            let _failed = world.tracker().next_sweep(until).await;
            gauges::measure(&world.store, &world.settings, world.clock.now()).await;
        };
        world.invoke("the sweep", swept).await;
    }
}
