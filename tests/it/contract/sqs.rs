//! The queue's contract over SQS: the emulator's, or the one named by `MYCLI_TEST_SQS_ENDPOINT`.

use std::time::Duration;

use aws::{
    sqs::{Messages, SqsQueue},
    system::System,
};
use aws_sdk_sqs::{Client, types::QueueAttributeName};
use aws_types::SdkConfig;
use domain::{
    message::{Message, Outgoing, QueueName},
    ports::{Entropy, PortError, Queue},
};
use tests::emulator;
use tokio::{runtime::Handle, task::block_in_place};

use super::queue::{Got, Receiver};

const ANSWERS: &str = "SQS answers";
const MAX_RECEIVES: u32 = 5;

/// The four queues of a stack. They are removed when this is dropped.
pub(crate) struct Queues {
    config: SdkConfig,
    client: Client,
    launch: String,
    control: String,
    launch_dead: String,
    control_dead: String,
}

impl Queues {
    pub(crate) async fn new(endpoint: &str) -> Self {
        let config = crate::aws::config(endpoint);
        let client = Client::new(&config);
        let stack = format!("mycli-{:016x}", System.bits() as u64);
        let launch_dead = make(&client, &format!("{stack}-launch-dead"), None).await;
        let control_dead = make(&client, &format!("{stack}-control-dead"), None).await;
        let launch = make(&client, &format!("{stack}-launch"), Some(&launch_dead)).await;
        let control = make(&client, &format!("{stack}-control"), Some(&control_dead)).await;
        Self {
            config,
            client,
            launch,
            control,
            launch_dead,
            control_dead,
        }
    }

    fn queue(&self) -> SqsQueue {
        SqsQueue::new(&self.config, self.launch.clone(), self.control.clone())
    }

    pub(crate) fn control(&self) -> Messages {
        Messages::new(&self.config, self.control.clone())
    }

    pub(crate) fn control_dead(&self) -> Messages {
        Messages::new(&self.config, self.control_dead.clone())
    }

    pub(crate) async fn control_arn(&self) -> String {
        arn(&self.client, &self.control).await
    }

    /// The number of dead letters, hidden ones included.
    pub(crate) async fn all_control_dead(&self) -> usize {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let call = self
            .client
            .get_queue_attributes()
            .queue_url(&self.control_dead);
        let output = call
            .set_attribute_names(Some(names.to_vec()))
            .send()
            .await
            .expect(ANSWERS);
        let attributes = output.attributes().expect("attributes");
        names
            .iter()
            .map(|name| attributes[name].parse::<usize>().expect("a number"))
            .sum()
    }

    pub(crate) async fn put_dead(&self, body: &str) {
        self.client
            .send_message()
            .queue_url(&self.control_dead)
            .message_body(body)
            .send()
            .await
            .expect(ANSWERS);
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        let remove = async {
            for url in [
                &self.launch,
                &self.control,
                &self.launch_dead,
                &self.control_dead,
            ] {
                let _gone = self.client.delete_queue().queue_url(url).send().await;
            }
        };
        block_in_place(|| Handle::current().block_on(remove));
    }
}

async fn make(client: &Client, name: &str, dead: Option<&String>) -> String {
    let mut call = client.create_queue().queue_name(name);
    if let Some(dead) = dead {
        let target = arn(client, dead).await;
        let policy = serde_json::json!({ "deadLetterTargetArn": target, "maxReceiveCount": MAX_RECEIVES.to_string() });
        call = call.attributes(QueueAttributeName::RedrivePolicy, policy.to_string());
    }
    call.send()
        .await
        .expect(ANSWERS)
        .queue_url
        .expect("a queue's address")
}

async fn arn(client: &Client, url: &str) -> String {
    let call = client
        .get_queue_attributes()
        .queue_url(url)
        .attribute_names(QueueAttributeName::QueueArn);
    let output = call.send().await.expect(ANSWERS);
    output.attributes().expect("attributes")[&QueueAttributeName::QueueArn].clone()
}

/// The queues, with the receiving ends that only a test has.
#[derive(Clone)]
pub(crate) struct Sqs {
    queue: SqsQueue,
    dead: [Messages; 2],
}

async fn fresh_queue() -> (Sqs, Queues) {
    let queues = Queues::new(&emulator::sqs_endpoint()).await;
    let dead = [&queues.launch_dead, &queues.control_dead]
        .map(|url| Messages::new(&queues.config, url.clone()));
    (
        Sqs {
            queue: queues.queue(),
            dead,
        },
        queues,
    )
}

mod queue {
    crate::contract::queue::suite!(super::fresh_queue);
}

impl Queue for Sqs {
    async fn send(&self, messages: Vec<Outgoing>) -> Result<(), PortError> {
        self.queue.send(messages).await
    }
}

impl Receiver for Sqs {
    type Handle = (QueueName, String);
    const MAX_RECEIVES: u32 = MAX_RECEIVES;

    async fn receive(
        &self,
        queue: QueueName,
        max: u32,
        visibility: Duration,
    ) -> Vec<Got<Self::Handle>> {
        let received = self
            .queue
            .messages(queue)
            .receive(max as usize, visibility)
            .await
            .expect(ANSWERS);
        let got = received.into_iter().map(|received| Got {
            message: message(&received.body),
            receives: received.receives,
            handle: (queue, received.receipt),
        });
        got.collect()
    }

    async fn delete(&self, handles: Vec<Self::Handle>) {
        for (queue, receipt) in handles {
            self.queue
                .messages(queue)
                .delete(vec![receipt])
                .await
                .expect(ANSWERS);
        }
    }

    async fn release(&self, handles: Vec<Self::Handle>) {
        for (queue, receipt) in handles {
            self.queue
                .messages(queue)
                .release(vec![receipt])
                .await
                .expect(ANSWERS);
        }
    }

    async fn dead_letters(&self) -> Vec<Message> {
        let mut letters = Vec::new();
        for queue in &self.dead {
            letters.extend(
                queue
                    .list(100)
                    .await
                    .expect(ANSWERS)
                    .iter()
                    .map(|letter| message(&letter.body)),
            );
        }
        letters
    }
}

fn message(body: &str) -> Message {
    serde_json::from_str(body).expect("a message")
}
