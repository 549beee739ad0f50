//! Moves things along on one machine: what SQS's event source, EventBridge, the logs' subscription
//! and the one-minute schedule do on AWS. Messages and events reach the handlers in their real
//! forms, and partial batch failures are honoured.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aws_lambda_events::{
    cloudwatch_logs::{LogEntry, LogsEvent},
    eventbridge::EventBridgeEvent,
    sqs::{SqsBatchResponse, SqsEvent, SqsMessage},
};
use domain::{
    ecs::{TASK_STATE_CHANGE, Task},
    execution::Execution,
    history::Cursor,
    message::{Message, QueueName},
    ports::{Clock, LogLine, PortError, Queue, Store},
    settings::Settings,
    task,
};
use futures_util::future::join_all;
use pipeline::{
    definitions::Registered,
    launcher::{Launcher, Pace},
    state_tracker::{DATA_MESSAGE, StateTracker},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};

use crate::{
    log_file::LocalLogs,
    queue::{LocalQueue, Received},
    secrets::Secrets,
    store::LocalStore,
    system::System,
    tasks::{LocalTasks, TaskReport, task_id},
};

/// Messages taken at once (an SQS event source mapping's default, AWS-FACTS §5, is 10; there is no
/// network here).
const BATCH: u32 = 100;
/// How long a message is invisible while it is being dealt with. Ours: no handler takes this long.
const VISIBILITY: Duration = Duration::from_secs(60);
/// Batches of one queue dealt with at once. Ours: as many as launchers on AWS, and some more.
const BATCHES: usize = 8;
/// How long a message that failed waits for its next turn. Ours.
const RETRY: Duration = Duration::from_secs(1);
/// Time between two sweeps (DESIGN §5), and the most that one takes.
const SWEEP: Duration = Duration::from_secs(60);
/// How many executions are looked at together. Ours.
const PAGE: u32 = 100;
/// How often a report that could not be written down is tried again before the sweep is left to
/// repair it. Ours.
const REPORT_TRIES: u32 = 5;
/// Most reports taken at once. Ours: more than so many writes at a time gain nothing.
const REPORTS: usize = 256;

/// The handlers of one machine, and what they work on.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The records.
    pub store: LocalStore,
    /// The messages.
    pub queue: LocalQueue,
    /// ECS.
    pub tasks: LocalTasks,
    /// The logs.
    pub logs: LocalLogs,
    /// The secrets.
    pub secrets: Secrets,
    /// The task definitions.
    pub registered: Arc<Registered>,
    /// How fast held backlogs move.
    pub pace: Arc<Pace>,
    /// What the installation is set to.
    pub settings: watch::Sender<Arc<Settings>>,
    /// Told whenever something may have changed.
    pub changed: watch::Sender<()>,
    /// Notified when the work of a dead process has become this one's.
    pub inherited: Arc<Notify>,
}

impl Worker {
    /// Runs until `stop` becomes true. What has been begun is finished first: a write and the
    /// wakeup that follows from it belong together, and others may wait for that wakeup.
    pub async fn run(
        self,
        reports: mpsc::UnboundedReceiver<TaskReport>,
        stop: watch::Receiver<bool>,
    ) {
        tokio::join!(
            self.take_messages(QueueName::Launch, stop.clone()),
            self.take_messages(QueueName::Control, stop.clone()),
            self.tell(reports, stop.clone()),
            self.sweep(stop),
        );
    }

    /// The settings at this moment. They change when work with limits is taken over.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    fn launcher<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> Launcher<'a, LocalStore, LocalQueue, LocalTasks, LocalLogs, Secrets, System> {
        let Self {
            store,
            queue,
            tasks,
            logs,
            secrets,
            registered,
            pace,
            ..
        } = self;
        Launcher {
            store,
            queue,
            tasks,
            logs,
            secrets,
            registered,
            pace,
            system: &System,
            settings,
        }
    }

    fn tracker<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> StateTracker<'a, LocalStore, LocalQueue, LocalTasks, LocalLogs, System, System> {
        let Self {
            store,
            queue,
            tasks,
            logs,
            ..
        } = self;
        StateTracker {
            store,
            queue,
            tasks,
            logs,
            quotas: &System,
            system: &System,
            settings,
        }
    }

    /// Batches are dealt with side by side, as by a function's instances: a backlog that waits for
    /// its rate holds up no other.
    async fn take_messages(&self, name: QueueName, mut stop: watch::Receiver<bool>) {
        let mut batches = JoinSet::new();
        while !*stop.borrow() {
            while batches.try_join_next().is_some() {}
            if batches.len() >= BATCHES {
                until(&mut stop, async { drop(batches.join_next().await) }).await;
                continue;
            }
            match self.queue.receive(name, BATCH, VISIBILITY).await {
                Ok(received) if received.is_empty() => {
                    until(&mut stop, self.queue.arrived(name)).await
                }
                Ok(received) => drop(batches.spawn(self.clone().deal_with(name, received))),
                Err(error) => {
                    tracing::error!(queue = name.as_str(), %error, "messages cannot be taken");
                    until(&mut stop, tokio::time::sleep(RETRY)).await;
                }
            }
        }
        while batches.join_next().await.is_some() {}
    }

    async fn deal_with(self, name: QueueName, received: Vec<Received>) {
        let response = self
            .launcher(&self.settings())
            .handle(event(&received))
            .await;
        let (failed, done): (Vec<_>, Vec<_>) = received
            .into_iter()
            .partition(|message| has_failed(&response, message));
        let given_back = async {
            self.queue.delete(done).await?;
            self.queue.release(failed, RETRY).await
        };
        if let Err(error) = given_back.await {
            // They become visible again by themselves, and find nothing left to do.
            tracing::error!(queue = name.as_str(), %error, "messages dealt with cannot be deleted");
        }
        self.changed.send_replace(());
    }

    /// Tells what has come meanwhile of all tasks at once, so that the writes share a transaction;
    /// of one task in order, so that its history reads well and its writes are not in each other's
    /// way.
    async fn tell(
        &self,
        mut reports: mpsc::UnboundedReceiver<TaskReport>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut come = Vec::new();
        loop {
            tokio::select! {
                biased;
                count = reports.recv_many(&mut come, REPORTS) => if count == 0 { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
            join_all(
                by_task(come.drain(..))
                    .into_values()
                    .map(|reports| self.tell_in_order(reports)),
            )
            .await;
        }
    }

    /// A report that cannot be written down is tried again on its own, so that it holds up no
    /// other: order does not matter.
    async fn tell_in_order(&self, reports: Vec<TaskReport>) {
        for report in reports {
            if let Err(error) = self.tell_one(&report).await {
                tracing::debug!(%error, "a task's report could not be written down; trying again");
                tokio::spawn(self.clone().tell_again(report));
            }
            self.changed.send_replace(());
        }
    }

    async fn tell_again(self, report: TaskReport) {
        for _ in 0..REPORT_TRIES {
            tokio::time::sleep(RETRY).await;
            match self.tell_one(&report).await {
                Ok(()) => return self.changed.send_replace(()),
                Err(error) => tracing::warn!(%error, "a task's report could not be written down"),
            }
        }
        tracing::error!("a task's report is left to the sweep");
    }

    async fn tell_one(&self, report: &TaskReport) -> Result<(), PortError> {
        let settings = self.settings();
        let tracker = self.tracker(&settings);
        match report {
            TaskReport::Changed(task) => tracker.task_changed(&task_event(task)).await,
            TaskReport::Lines(arn, lines) => {
                tracker
                    .lines_written(&logs_event(arn, lines, &settings))
                    .await
            }
        }
    }

    /// A dead letter was only a wakeup: its execution goes on by the sweep. It stays on the list of
    /// dead letters.
    async fn settle_dead_letters(&self) -> Result<(), PortError> {
        let letters = self.queue.unsettled_dead_letters().await?;
        for letter in &letters {
            tracing::error!(
                body = letter.body,
                reason = letter.reason,
                "a message became a dead letter"
            );
        }
        if letters.is_empty() {
            Ok(())
        } else {
            self.queue.settle(letters).await
        }
    }

    async fn sweep(&self, mut stop: watch::Receiver<bool>) {
        let mut cursor: Option<Cursor> = None;
        while !*stop.borrow() {
            match self
                .tracker(&self.settings())
                .sweep(cursor.take(), System.now() + SWEEP)
                .await
            {
                // What could not be looked at is said where it was.
                Ok(swept) => cursor = swept.next,
                Err(error) => tracing::error!(%error, "a sweep failed"),
            }
            if let Err(error) = self.settle_dead_letters().await {
                tracing::error!(%error, "dead letters cannot be read");
            }
            self.changed.send_replace(());
            if cursor.is_some() {
                continue;
            }
            tokio::select! {
                () = until(&mut stop, tokio::time::sleep(SWEEP)) => {}
                () = self.inherited.notified() => self.ask_after_launches().await,
            }
        }
    }

    /// Who died between the record of a launch and the launch is in the middle of nothing any more,
    /// so that nobody has to wait for the sweep's patience with launches that say nothing.
    async fn ask_after_launches(&self) {
        let mut cursor = None;
        loop {
            match self.ask_after_page(cursor).await {
                Ok(None) => return,
                Ok(next) => cursor = next,
                Err(error) => {
                    return tracing::warn!(%error, "launches of a dead process are left to the sweep");
                }
            }
        }
    }

    async fn ask_after_page(&self, cursor: Option<Cursor>) -> Result<Option<Cursor>, PortError> {
        let page = self.store.launched(cursor.as_ref(), PAGE).await?;
        let unknown = |execution: &&Execution| {
            execution
                .open_attempt()
                .is_some_and(|open| open.task_arn.is_none())
        };
        let check = |execution: &Execution| {
            Message::Check {
                id: execution.id.clone(),
            }
            .into()
        };
        self.queue
            .send(
                page.items
                    .iter()
                    .flatten()
                    .filter(unknown)
                    .map(check)
                    .collect(),
            )
            .await?;
        Ok(page.next)
    }
}

/// Waits for something, but no longer than until everything is to stop.
async fn until(stop: &mut watch::Receiver<bool>, something: impl Future<Output = ()>) {
    tokio::select! {
        () = something => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Sorts reports by their tasks, each task's in their order. Lines that came one after the other
/// are told together, as CloudWatch Logs would.
fn by_task(reports: impl Iterator<Item = TaskReport>) -> BTreeMap<String, Vec<TaskReport>> {
    let mut sorted: BTreeMap<String, Vec<TaskReport>> = BTreeMap::new();
    for report in reports {
        let of_task = sorted.entry(report.arn().to_owned()).or_default();
        match (of_task.last_mut(), report) {
            (Some(TaskReport::Lines(_, lines)), TaskReport::Lines(_, more)) => lines.extend(more),
            (_, report) => of_task.push(report),
        }
    }
    sorted
}

/// Messages as Lambda's event source for SQS gives them.
fn event(received: &[Received]) -> SqsEvent {
    let mut event = SqsEvent::default();
    event.records = received
        .iter()
        .map(|message| {
            let mut record = SqsMessage::default();
            record.message_id = Some(message.message_id.clone());
            record.body = Some(message.body.clone());
            record.event_source = Some("aws:sqs".into());
            record.attributes.insert(
                "ApproximateReceiveCount".into(),
                message.receives.to_string(),
            );
            record
        })
        .collect();
    event
}

fn has_failed(response: &SqsBatchResponse, message: &Received) -> bool {
    response
        .batch_item_failures
        .iter()
        .any(|failure| failure.item_identifier == message.message_id)
}

/// A task as EventBridge delivers its change.
fn task_event(task: &Task) -> EventBridgeEvent<Task> {
    let mut event = EventBridgeEvent::default();
    event.version = Some("0".into());
    event.detail_type = TASK_STATE_CHANGE.into();
    event.source = "aws.ecs".into();
    event.time = Some(System.now());
    event.resources = Some(vec![task.task_arn.clone()]);
    event.detail = task.clone();
    event
}

/// Lines as CloudWatch Logs' subscription filter delivers them.
fn logs_event(arn: &str, lines: &[LogLine], settings: &Settings) -> LogsEvent {
    let mut event = LogsEvent::default();
    let data = &mut event.aws_logs.data;
    data.message_type = DATA_MESSAGE.into();
    data.log_group.clone_from(&settings.log_group);
    data.log_stream = task::log_stream(arn);
    data.log_events = lines
        .iter()
        .enumerate()
        .map(|(number, line)| {
            let mut entry = LogEntry::default();
            entry.id = format!("{}-{number}", task_id(arn));
            entry.timestamp = line.at.timestamp_millis();
            entry.message.clone_from(&line.text);
            entry
        })
        .collect();
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(arn: &str, text: &str) -> TaskReport {
        TaskReport::Lines(
            arn.into(),
            vec![LogLine {
                at: System.now(),
                text: text.into(),
            }],
        )
    }

    fn changed(arn: &str) -> TaskReport {
        TaskReport::Changed(Box::new(Task {
            task_arn: arn.into(),
            ..Task::default()
        }))
    }

    /// What each report tells: a change, or its lines.
    fn told(reports: &[TaskReport]) -> Vec<String> {
        let what = |report: &TaskReport| match report {
            TaskReport::Changed(_) => "changed".to_owned(),
            TaskReport::Lines(_, lines) => lines.iter().map(|line| line.text.as_str()).collect(),
        };
        reports.iter().map(what).collect()
    }

    #[test]
    fn a_tasks_reports_stay_in_order_and_lines_in_a_row_are_told_together() {
        let come = [
            changed("a"),
            lines("a", "1"),
            lines("b", "x"),
            lines("a", "2"),
            changed("a"),
            lines("a", "3"),
        ];
        let sorted = by_task(come.into_iter());
        assert_eq!(told(&sorted["a"]), ["changed", "12", "changed", "3"]);
        assert_eq!(told(&sorted["b"]), ["x"]);
    }
}
