//! Runs the handlers on one machine, as SQS's event source, EventBridge, the logs' subscription and
//! the one-minute schedule do on AWS. Messages and events reach the handlers in their real forms,
//! and partial batch failures are honoured.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aws_lambda_events::{
    cloudwatch_logs::{LogEntry, LogsEvent},
    eventbridge::EventBridgeEvent,
    sqs::{SqsBatchResponse, SqsEvent, SqsMessage},
};
use domain::{
    ecs::{TASK_STATE_CHANGE, Task, TaskArn},
    execution::Execution,
    history::Cursor,
    message::{Message, QueueName},
    ports::{Clock, LogLine, PortError, Queue, SweepStore},
    settings::Settings,
};
use futures_util::future::join_all;
use pipeline::{
    definitions::Registered,
    launcher::{Heads, Launcher, Pace},
    state_tracker::{DATA_MESSAGE, StateTracker},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};

use crate::{
    artifacts::LocalArtifacts,
    log_file::LocalLogs,
    queue::{LocalQueue, LocalReceived},
    secrets::SecretFiles,
    store::LocalStore,
    system::System,
    tasks::{LocalTasks, TaskReport, task_id},
};

/// The most messages taken at once. An SQS event source mapping takes 10 by default (AWS-FACTS §5).
/// Here no network limits the size.
const BATCH: u32 = 100;
/// How long a message is invisible while a handler works on it. No handler takes 60 s.
const VISIBILITY: Duration = Duration::from_secs(60);
/// The most batches of one queue that are handled at once: as many as there are launchers on AWS,
/// and some more.
const BATCHES: usize = 8;
/// How long to wait before a failed message or report is tried again. A store that is briefly
/// unavailable can recover in 1 s, and 1 s is a short wait for a run.
const RETRY: Duration = Duration::from_secs(1);
/// The time between two sweeps (DESIGN §5), and the longest that one may take.
const SWEEP: Duration = Duration::from_secs(60);
/// The page size when launches of a dead process are checked. A page is one short read.
const PAGE: u32 = 100;
/// How many more times a report is tried if it could not be written. After these 5 tries, [`RETRY`]
/// apart, the next sweep repairs the record anyway.
const REPORT_TRIES: u32 = 5;
/// The most reports taken at once. Their writes share a transaction, and a larger one gains
/// nothing.
const REPORTS: usize = 256;

/// The handlers of one machine, and the ports that they use.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The store.
    pub store: LocalStore,
    /// The queue.
    pub queue: LocalQueue,
    /// The stand-in for ECS.
    pub tasks: LocalTasks,
    /// The logs.
    pub logs: LocalLogs,
    /// The files of runs that are kept.
    pub artifacts: LocalArtifacts,
    /// The secrets.
    pub secrets: SecretFiles,
    /// The task definitions.
    pub registered: Arc<Registered>,
    /// The pace at which held backlogs move.
    pub pace: Arc<Pace>,
    /// The first records of backlogs.
    pub heads: Arc<Heads>,
    /// The settings of the installation.
    pub settings: watch::Sender<Arc<Settings>>,
    /// Notified whenever something may have changed.
    pub changed: watch::Sender<()>,
    /// Notified when this process has taken over the work of a dead one.
    pub inherited: Arc<Notify>,
}

impl Worker {
    /// Runs until `stop` becomes true. Handlers that have begun are finished first: a write and the
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

    /// The current settings. They change when work with limits is taken over.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    fn launcher<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> Launcher<'a, LocalStore, LocalQueue, LocalTasks, LocalLogs, SecretFiles, System> {
        let Self {
            store,
            queue,
            tasks,
            logs,
            secrets,
            registered,
            pace,
            heads,
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
            heads,
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

    /// Takes messages and handles their batches side by side, like a function's instances. A
    /// backlog that waits for its launch rate then holds up no other backlog.
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
                    until(&mut stop, self.queue.arrived(name)).await;
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

    async fn deal_with(self, name: QueueName, received: Vec<LocalReceived>) {
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
            // The messages become visible again by themselves. The handlers then find nothing left
            // to do.
            tracing::error!(queue = name.as_str(), %error, "messages dealt with cannot be deleted");
        }
        self.changed.send_replace(());
    }

    /// Passes new reports to the state tracker. Reports of different tasks run side by side, so
    /// that their writes share a transaction. Reports of one task run in order, so that its history
    /// reads well and its writes do not conflict.
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

    /// A failed report is tried again on its own, so that it holds up no other. The order does not
    /// matter to the result.
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

    /// Logs the new dead letters and marks them as settled. A dead letter was only a wakeup, and
    /// the sweep moves its execution on. It stays on the list of dead letters.
    async fn settle_dead_letters(&self) -> Result<(), PortError> {
        let letters = self.queue.unsettled_dead_letters().await?;
        for letter in &letters {
            tracing::error!(
                body = letter.body,
                error = letter.reason,
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
                // The sweep itself logs the records that it could not read.
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

    /// Sends a check for each launch without a task. The process that recorded such a launch has
    /// died, so this need not wait as long as the sweep waits for a silent launch.
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

/// Waits for `something`, or until `stop` becomes true.
async fn until(stop: &mut watch::Receiver<bool>, something: impl Future<Output = ()>) {
    tokio::select! {
        () = something => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Groups reports by task, in order within each task. Consecutive log lines of a task become one
/// report, as CloudWatch Logs would deliver them.
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

/// Builds an event as Lambda's event source for SQS does.
fn event(received: &[LocalReceived]) -> SqsEvent {
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

fn has_failed(response: &SqsBatchResponse, message: &LocalReceived) -> bool {
    response
        .batch_item_failures
        .iter()
        .any(|failure| failure.item_identifier == message.message_id)
}

/// Builds the event of a changed task, as EventBridge delivers it.
fn task_event(task: &Task) -> EventBridgeEvent<Task> {
    let mut event = EventBridgeEvent::default();
    event.version = Some("0".into());
    event.detail_type = TASK_STATE_CHANGE.into();
    event.source = "aws.ecs".into();
    event.time = Some(System.now());
    event.resources = Some(vec![task.task_arn.to_string()]);
    event.detail = task.clone();
    event
}

/// Builds the event of log lines, as CloudWatch Logs' subscription filter delivers it.
fn logs_event(arn: &str, lines: &[LogLine], settings: &Settings) -> LogsEvent {
    let mut event = LogsEvent::default();
    let data = &mut event.aws_logs.data;
    data.message_type = DATA_MESSAGE.into();
    data.log_group.clone_from(&settings.log_group);
    data.log_stream = TaskArn::from(arn).log_stream();
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

    /// The content of each report: "changed", or its lines.
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
