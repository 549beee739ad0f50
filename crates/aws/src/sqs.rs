//! The queues: sending for the functions, and what the CLI needs for dead letters.
//!
//! The queues are standard ones. A `MessageGroupId` could make them fair, but that would gain
//! nothing: a message only wakes a backlog that has work, the store decides the order, and one
//! wakeup serves the whole backlog.

use std::{collections::BTreeMap, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_sqs::{
    Client,
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
        DeleteMessageBatchRequestEntry, Message as SdkMessage, MessageSystemAttributeName,
        QueueAttributeName, SendMessageBatchRequestEntry,
    },
};
use domain::{
    Timestamp,
    message::{Outgoing, QueueName},
    ports::{PortError, Queue},
};

use crate::{
    batch::{self, ENTRIES, LeftItem},
    connect::Lazily,
    error::{Fault, Remedy, failed},
};

const SERVICE: &str = "the queue";
/// Longest delay of a message, in seconds (Amazon SQS, `DelaySeconds`). A longer wait is woken
/// early, and waits again.
const DELAY_MAX_SECONDS: u32 = 900;
/// How long a receive waits for a message. Above zero, SQS asks all its servers and not only some
/// (SQS Developer Guide, "long polling").
const POLL_SECONDS: i32 = 1;
/// How long a dead letter is hidden while it is looked at. A reader shows it again at once
/// afterwards; the time only matters if the reader dies.
const LOOK: Duration = Duration::from_secs(30);

/// The two queues.
#[derive(Clone, Debug)]
pub struct SqsQueue {
    client: Lazily<Client>,
    launch_url: String,
    control_url: String,
}

/// A message as a receiver gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// SQS's id of the message.
    pub message_id: String,
    /// The receipt by which this receive of the message is deleted or shown again.
    pub receipt: String,
    /// The message, as JSON.
    pub body: String,
    /// How often it was received, including this time.
    pub receives: u32,
    /// When it was sent. A dead letter keeps the time at which it was first sent.
    pub sent_at: Option<Timestamp>,
}

impl SqsQueue {
    /// The queues at these addresses.
    #[must_use]
    pub fn new(config: &SdkConfig, launch_url: String, control_url: String) -> Self {
        Self {
            client: Lazily::of(config, Client::new),
            launch_url,
            control_url,
        }
    }

    fn url(&self, queue: QueueName) -> &str {
        match queue {
            QueueName::Launch => &self.launch_url,
            QueueName::Control => &self.control_url,
        }
    }

    /// The messages of one of the queues. Functions do not receive with it: their event source
    /// does.
    #[must_use]
    pub fn messages(&self, queue: QueueName) -> Messages {
        Messages {
            client: self.client.clone(),
            url: self.url(queue).to_owned(),
        }
    }
}

impl Queue for SqsQueue {
    async fn send(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        let mut by_queue: [Vec<BatchEntry>; 2] = Default::default();
        for outgoing in messages {
            let body = outgoing
                .message
                .body()
                .map_err(|error| PortError::invalid(SERVICE, error))?;
            let place = usize::from(outgoing.message.queue() == QueueName::Control);
            by_queue[place].push(BatchEntry {
                body,
                delay_seconds: outgoing.delay_seconds.min(DELAY_MAX_SECONDS),
            });
        }
        let [launch, control] = by_queue;
        let (launch_queue, control_queue) = (
            self.messages(QueueName::Launch),
            self.messages(QueueName::Control),
        );
        let (launched, controlled) =
            futures_util::future::join(launch_queue.send(launch), control_queue.send(control))
                .await;
        launched.and(controlled)
    }
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BatchEntry {
    body: String,
    delay_seconds: u32,
}

/// The messages of any one queue.
#[derive(Clone, Debug)]
pub struct Messages {
    client: Lazily<Client>,
    url: String,
}

impl Messages {
    /// The queue at this address.
    #[must_use]
    pub fn new(config: &SdkConfig, url: String) -> Self {
        Self {
            client: Lazily::of(config, Client::new),
            url,
        }
    }

    /// Sends messages, ten a call. Their bytes need no counting: a wakeup has some hundred bytes,
    /// and a call may have 1 MiB (Amazon SQS, "Message quotas").
    async fn send(&self, entries: Vec<BatchEntry>) -> Result<(), PortError> {
        batch::send(SERVICE, entries, |entries| self.send_batch(entries)).await
    }

    async fn send_batch(
        &self,
        entries: Vec<BatchEntry>,
    ) -> Result<Vec<LeftItem<BatchEntry>>, PortError> {
        let requests: Result<Vec<_>, _> = entries
            .iter()
            .enumerate()
            .map(|(id, entry)| entry.request(id))
            .collect();
        let requests = requests.map_err(|error| PortError::invalid(SERVICE, error))?;
        let call = self
            .client
            .send_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(requests));
        let output = call.send().await.map_err(failed(SERVICE))?;
        Ok(left_over(entries, output.failed()))
    }

    /// Receives up to `most` (at most ten) messages and hides them for `visibility`.
    ///
    /// # Errors
    /// If SQS does not answer.
    pub async fn receive(
        &self,
        most: usize,
        visibility: Duration,
    ) -> Result<Vec<Received>, PortError> {
        let seconds = |time: Duration| i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
        let output = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(most.clamp(1, ENTRIES)).unwrap_or(1))
            .visibility_timeout(seconds(visibility))
            .wait_time_seconds(POLL_SECONDS)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(failed(SERVICE))?;
        Ok(output
            .messages
            .unwrap_or_default()
            .into_iter()
            .map(received)
            .collect())
    }

    /// Deletes messages that are done with. Idempotent.
    ///
    /// # Errors
    /// If SQS does not answer, or does not accept all of them.
    pub async fn delete(&self, receipts: Vec<String>) -> Result<(), PortError> {
        batch::send(SERVICE, receipts, |receipts| self.delete_batch(receipts)).await
    }

    async fn delete_batch(
        &self,
        receipts: Vec<String>,
    ) -> Result<Vec<LeftItem<String>>, PortError> {
        let entry = |(id, receipt): (usize, &String)| {
            DeleteMessageBatchRequestEntry::builder()
                .id(id.to_string())
                .receipt_handle(receipt)
                .build()
        };
        let entries: Result<Vec<_>, _> = receipts.iter().enumerate().map(entry).collect();
        let entries = entries.map_err(|error| PortError::invalid(SERVICE, error))?;
        let call = self
            .client
            .delete_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries));
        let output = call.send().await.map_err(failed(SERVICE))?;
        Ok(left_over(receipts, output.failed()))
    }

    /// Shows received messages again, at once. Idempotent.
    ///
    /// # Errors
    /// If SQS does not answer, or does not accept all of them.
    pub async fn release(&self, receipts: Vec<String>) -> Result<(), PortError> {
        batch::send(SERVICE, receipts, |receipts| self.release_batch(receipts)).await
    }

    async fn release_batch(
        &self,
        receipts: Vec<String>,
    ) -> Result<Vec<LeftItem<String>>, PortError> {
        let entry = |(id, receipt): (usize, &String)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id.to_string());
            entry.receipt_handle(receipt).visibility_timeout(0).build()
        };
        let entries: Result<Vec<_>, _> = receipts.iter().enumerate().map(entry).collect();
        let entries = entries.map_err(|error| PortError::invalid(SERVICE, error))?;
        let call = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries));
        let output = call.send().await.map_err(failed(SERVICE))?;
        Ok(left_over(receipts, output.failed()))
    }

    /// The approximate number of messages to receive.
    ///
    /// # Errors
    /// If SQS does not answer.
    pub async fn count(&self) -> Result<usize, PortError> {
        let visible = QueueAttributeName::ApproximateNumberOfMessages;
        let call = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(visible.clone());
        let output = call.send().await.map_err(failed(SERVICE))?;
        let count = output
            .attributes()
            .and_then(|attributes| attributes.get(&visible));
        Ok(count
            .and_then(|count| count.parse().ok())
            .unwrap_or_default())
    }

    /// Lists up to `most` messages, oldest first, and leaves all of them in the queue.
    ///
    /// SQS has no call that only looks: each message is received, hidden for a moment and shown
    /// again.
    ///
    /// # Errors
    /// If SQS does not answer.
    pub async fn list(&self, most: usize) -> Result<Vec<Received>, PortError> {
        let mut seen: BTreeMap<String, Received> = BTreeMap::new();
        while seen.len() < most {
            let received = self.receive(most - seen.len(), LOOK).await?;
            if received.is_empty() {
                break;
            }
            seen.extend(
                received
                    .into_iter()
                    .map(|message| (message.message_id.clone(), message)),
            );
        }
        self.release(
            seen.values()
                .map(|message| message.receipt.clone())
                .collect(),
        )
        .await?;
        let mut messages: Vec<_> = seen.into_values().collect();
        messages.sort_by_key(|message| message.sent_at);
        Ok(messages)
    }

    /// Moves up to `most` messages to another queue; returns how many it moved.
    ///
    /// Each message is sent to the other queue before it is deleted here. A process that dies in
    /// between leaves it in both, and a message sent twice is harmless. SQS's own
    /// `StartMessageMoveTask` is not used: it only starts the move, moves only to the queue the
    /// messages came from, and runs once at a time for a queue. This function returns when the move
    /// is done. A message that becomes a dead letter again meanwhile is not moved again if `most`
    /// is the number that was there at first.
    ///
    /// # Errors
    /// If SQS does not answer. Messages moved before that stay moved.
    pub async fn redrive(&self, to: &Self, most: usize) -> Result<usize, PortError> {
        let mut moved = 0;
        while moved < most {
            let received = self.receive(most - moved, LOOK).await?;
            if received.is_empty() {
                break;
            }
            let entry = |message: &Received| BatchEntry {
                body: message.body.clone(),
                delay_seconds: 0,
            };
            to.send(received.iter().map(entry).collect()).await?;
            moved += received.len();
            self.delete(
                received
                    .into_iter()
                    .map(|message| message.receipt)
                    .collect(),
            )
            .await?;
        }
        Ok(moved)
    }
}

impl BatchEntry {
    fn request(
        &self,
        id: usize,
    ) -> Result<SendMessageBatchRequestEntry, aws_smithy_types::error::operation::BuildError> {
        let delay = i32::try_from(self.delay_seconds).unwrap_or_default();
        let entry = SendMessageBatchRequestEntry::builder()
            .id(id.to_string())
            .message_body(&self.body);
        // A delay of zero is left out: it would override the queue's own delay.
        entry
            .set_delay_seconds((delay > 0).then_some(delay))
            .build()
    }
}

/// The items that a batch call did not accept, found by their ids, which are their indexes in the
/// call.
fn left_over<T>(items: Vec<T>, failed: &[BatchResultErrorEntry]) -> Vec<LeftItem<T>> {
    let failed: BTreeMap<usize, _> = failed
        .iter()
        .filter_map(|entry| Some((entry.id().parse().ok()?, entry)))
        .collect();
    let left = |(place, item)| {
        let entry = failed.get(&place)?;
        let fault = Fault::answered(400, Some(entry.code()), entry.message().unwrap_or_default());
        // SQS reports a throttle as the sender's fault, but it passes like any other throttle.
        let remedy = match fault.remedy {
            Remedy::Wait => Remedy::Wait,
            Remedy::Ask | Remedy::Change if entry.sender_fault() => Remedy::Change,
            Remedy::Ask | Remedy::Change => Remedy::Ask,
        };
        Some(LeftItem {
            item,
            fault: Fault { remedy, ..fault },
        })
    };
    items.into_iter().enumerate().filter_map(left).collect()
}

fn received(message: SdkMessage) -> Received {
    let attribute = |name| {
        message
            .attributes()
            .and_then(|attributes| attributes.get(&name))
            .cloned()
    };
    let receives = attribute(MessageSystemAttributeName::ApproximateReceiveCount);
    let sent_at = attribute(MessageSystemAttributeName::SentTimestamp);
    Received {
        receives: receives.and_then(|count| count.parse().ok()).unwrap_or(1),
        sent_at: sent_at
            .and_then(|millis| millis.parse().ok())
            .and_then(Timestamp::from_timestamp_millis),
        message_id: message.message_id.unwrap_or_default(),
        receipt: message.receipt_handle.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(id: &str, sender_fault: bool, code: &str) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder()
            .id(id)
            .sender_fault(sender_fault)
            .code(code)
            .build()
            .unwrap()
    }

    #[test]
    fn what_a_batch_call_left_over_is_found_by_its_place() {
        let left = left_over(
            vec!["a", "b", "c"],
            &[
                failed("1", false, "InternalError"),
                failed("2", true, "InvalidMessageContents"),
            ],
        );
        let seen: Vec<_> = left
            .iter()
            .map(|left| (left.item, left.may_pass()))
            .collect();
        assert_eq!(seen, [("b", true), ("c", false)]);
    }

    #[test]
    fn a_throttled_entry_passes_whosever_fault_it_is() {
        let left = left_over(vec!["a"], &[failed("0", true, "ThrottlingException")]);
        assert!(left[0].may_pass());
    }
}
