//! The dead-letter queues: lists the messages that could not be processed, and redrives them.

use std::time::Duration;

use aws::sqs::{Messages, Received, SqsQueue};
use chrono::{DateTime, Utc};
use domain::{
    id::{AttemptId, ExecutionId},
    message::{Message, Outgoing},
    ports::{PortError, Queue as _},
};
use serde_json::Value;

use crate::{Account, CallError, stack::StackView};

/// How long a received message stays hidden. Handling a batch takes far less than a minute.
const HIDDEN: Duration = Duration::from_secs(60);
/// The most messages of one receive (Amazon SQS, `ReceiveMessage`).
const BATCH: usize = 10;

/// The dead-letter queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadQueue {
    /// The launch queue's dead letters.
    Launch,
    /// The control queue's dead letters.
    Control,
    /// The events that did not reach the state tracker.
    Events,
}

impl DeadQueue {
    /// All dead-letter queues.
    pub const ALL: [Self; 3] = [Self::Launch, Self::Control, Self::Events];

    /// The queue's short name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Control => "control",
            Self::Events => "events",
        }
    }

    fn output(self) -> &'static str {
        match self {
            Self::Launch => "LaunchDeadLettersUrl",
            Self::Control => "ControlDeadLettersUrl",
            Self::Events => "EventDeadLettersUrl",
        }
    }
}

/// Why dead letters could not be listed or moved.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The stack has no such queue.
    #[error(transparent)]
    Stack(#[from] CallError),
    /// A call to SQS failed.
    #[error(transparent)]
    Queue(#[from] PortError),
}

/// A dead letter. An event's text is not shown, since it may hold the values of variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The queue that it is in.
    pub queue: DeadQueue,
    /// Its SQS message id.
    pub id: String,
    /// When it was first sent.
    pub sent_at: Option<DateTime<Utc>>,
    /// Its subject, in words.
    pub about: String,
    /// The execution that it names.
    pub execution: Option<ExecutionId>,
}

/// The result of a redrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// How many messages were sent again.
    pub moved: usize,
    /// How many were removed as out of date, because the sweep has dealt with what they report.
    pub outlived: usize,
    /// How many were left in the queue.
    pub left: usize,
}

/// The dead-letter queues of one stack.
#[derive(Clone, Debug)]
pub struct DeadLetters<'a> {
    account: &'a Account,
    stack: &'a StackView,
}

impl<'a> DeadLetters<'a> {
    /// The dead-letter queues of this stack.
    #[must_use]
    pub fn new(account: &'a Account, stack: &'a StackView) -> Self {
        Self { account, stack }
    }

    fn messages(&self, queue: DeadQueue) -> Result<Messages, CallError> {
        Ok(Messages::new(
            &self.account.config,
            self.stack.output(queue.output())?.to_owned(),
        ))
    }

    /// Returns about how many dead letters there are.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub async fn count(&self, queue: DeadQueue) -> Result<usize, DeadLetterError> {
        Ok(self.messages(queue)?.count().await?)
    }

    /// Returns up to `most` messages of a queue, oldest first. They stay in the queue.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub async fn list(
        &self,
        queue: DeadQueue,
        most: usize,
    ) -> Result<Vec<DeadLetter>, DeadLetterError> {
        let received = self.messages(queue)?.list(most).await?;
        Ok(received
            .iter()
            .map(|message| letter(queue, message))
            .collect())
    }

    /// Sends all messages that are in a queue now on their way again.
    ///
    /// # Errors
    /// [`DeadLetterError`]. The messages moved before the failure stay moved.
    pub async fn redrive(&self, queue: DeadQueue) -> Result<Redriven, DeadLetterError> {
        let most = self.count(queue).await?;
        let source = match queue {
            DeadQueue::Launch => "LaunchQueueUrl",
            DeadQueue::Control => "ControlQueueUrl",
            DeadQueue::Events => return self.look_again(most).await,
        };
        let to = Messages::new(&self.account.config, self.stack.output(source)?.to_owned());
        let moved = self.messages(queue)?.redrive(&to, most).await?;
        Ok(Redriven {
            moved,
            ..Redriven::default()
        })
    }

    /// Redrives the events. An event cannot be sent again, because events have no queue of their
    /// own. For a task's event, a `Check` message on the control queue has the execution looked up
    /// anew. Sweep and log events are out of date: the sweep looks after those matters itself every
    /// minute.
    async fn look_again(&self, most: usize) -> Result<Redriven, DeadLetterError> {
        let dead = self.messages(DeadQueue::Events)?;
        let url = |output| self.stack.output(output).map(str::to_owned);
        let queues = SqsQueue::new(
            &self.account.config,
            url("LaunchQueueUrl")?,
            url("ControlQueueUrl")?,
        );
        let (mut redriven, mut seen, mut kept) = (Redriven::default(), 0, Vec::new());
        while seen < most {
            let received = dead.receive((most - seen).min(BATCH), HIDDEN).await?;
            if received.is_empty() {
                break;
            }
            seen += received.len();
            let (mut checks, mut done) = (Vec::new(), Vec::new());
            for message in received {
                match meaning(&message.body) {
                    DeadEvent::Task(id) => {
                        checks.push(Outgoing::from(Message::Check { id }));
                        redriven.moved += 1;
                        done.push(message.receipt);
                    }
                    DeadEvent::Sweep | DeadEvent::Log => {
                        redriven.outlived += 1;
                        done.push(message.receipt);
                    }
                    DeadEvent::Ends(_) | DeadEvent::Unknown => kept.push(message.receipt),
                }
            }
            queues.send(checks).await?;
            dead.delete(done).await?;
        }
        redriven.left = kept.len();
        dead.release(kept).await?;
        Ok(redriven)
    }
}

fn letter(queue: DeadQueue, message: &Received) -> DeadLetter {
    let (about, execution) = match queue {
        DeadQueue::Launch | DeadQueue::Control => described(&message.body),
        DeadQueue::Events => event(&message.body),
    };
    DeadLetter {
        queue,
        id: message.message_id.clone(),
        sent_at: message.sent_at,
        about,
        execution,
    }
}

fn described(body: &str) -> (String, Option<ExecutionId>) {
    match serde_json::from_str(body) {
        Ok(Message::Wakeup { backlog, id }) => (format!("start runs that wait for {backlog}"), id),
        Ok(Message::Check { id }) => ("check this execution".into(), Some(id)),
        Ok(Message::CancelGroup { group }) => (
            format!("close the members of the cancelled group {group}"),
            None,
        ),
        Ok(Message::RerunGroup { group }) => (
            format!("repeat the failed runs, as members of {group}"),
            None,
        ),
        Err(_) => ("not a message of mycli".into(), None),
    }
}

fn event(body: &str) -> (String, Option<ExecutionId>) {
    match meaning(body) {
        DeadEvent::Task(id) => ("a task has changed".into(), Some(id)),
        DeadEvent::Log => ("new log lines".into(), None),
        DeadEvent::Sweep => ("the sweep of each minute".into(), None),
        DeadEvent::Ends(n) => (
            format!("{n} ends of executions could not be announced"),
            None,
        ),
        DeadEvent::Unknown => ("not an event that mycli knows".into(), None),
    }
}

/// The meaning of a dead event.
#[derive(Clone, Debug, PartialEq, Eq)]
enum DeadEvent {
    /// A task of this execution has changed.
    Task(ExecutionId),
    /// Lines of a log.
    Log,
    /// The minute's sweep was due.
    Sweep,
    /// The number of ends of executions that were to be announced.
    Ends(u64),
    /// Any other event.
    Unknown,
}

/// Reads a dead event. EventBridge keeps the event itself, and Lambda wraps it as `requestPayload`.
/// Of a stream's records, Lambda keeps only their position and number.
fn meaning(body: &str) -> DeadEvent {
    let Ok(whole) = serde_json::from_str::<Value>(body) else {
        return DeadEvent::Unknown;
    };
    let event = whole
        .get("requestPayload")
        .filter(|payload| payload.is_object())
        .unwrap_or(&whole);
    let attempt = event["detail"]["startedBy"]
        .as_str()
        .and_then(|text| text.parse::<AttemptId>().ok());
    if let Some(attempt) = attempt {
        return DeadEvent::Task(attempt.execution().clone());
    }
    if event["sweep"] == true {
        return DeadEvent::Sweep;
    }
    if event.get("awslogs").is_some() {
        return DeadEvent::Log;
    }
    match whole.get("DDBStreamBatchInfo") {
        Some(batch) => DeadEvent::Ends(batch["batchSize"].as_u64().unwrap_or(1)),
        None => DeadEvent::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9";

    #[test]
    fn an_event_is_known_bare_and_as_lambda_wraps_it() {
        let bare = format!(
            r#"{{"source":"aws.ecs","detail":{{"startedBy":"{ID}-2","lastStatus":"STOPPED"}}}}"#
        );
        let task = DeadEvent::Task(ID.parse().unwrap());
        assert_eq!(meaning(&bare), task);
        assert_eq!(
            meaning(&format!(
                r#"{{"requestContext":{{}},"requestPayload":{bare}}}"#
            )),
            task
        );
        assert_eq!(
            meaning(r#"{"requestPayload":{"sweep":true}}"#),
            DeadEvent::Sweep
        );
        assert_eq!(meaning(r#"{"awslogs":{"data":"H4sI"}}"#), DeadEvent::Log);
        assert_eq!(
            meaning(r#"{"DDBStreamBatchInfo":{"batchSize":3}}"#),
            DeadEvent::Ends(3)
        );
        assert_eq!(meaning("not json"), DeadEvent::Unknown);
        assert_eq!(
            meaning(r#"{"detail":{"startedBy":"ecs-svc/1"}}"#),
            DeadEvent::Unknown
        );
    }

    #[test]
    fn a_dead_letter_is_told_without_the_values_in_it() {
        let body = format!(
            r#"{{"detail":{{"startedBy":"{ID}-1","overrides":{{"environment":[{{"value":"hunter2"}}]}}}}}}"#
        );
        let (about, execution) = event(&body);
        assert_eq!(
            (about.as_str(), execution.unwrap().as_str()),
            ("a task has changed", ID)
        );
        let (about, execution) = described(&format!(
            r#"{{"kind":"line","line":"pool:fargate-spot","id":"{ID}"}}"#
        ));
        assert_eq!(
            (about.as_str(), execution.unwrap().as_str()),
            ("start runs that wait for pool:fargate-spot", ID)
        );
    }
}
