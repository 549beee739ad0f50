//! The rules of `domain::ports::Queue`, and of the event source at its other end.

use std::{collections::BTreeSet, time::Duration};

use domain::{
    message::{Message, Outgoing, QueueName},
    ports::Queue,
};

use QueueName::{Control, Launch};

use super::records::{POOL, Wish, lock};

/// Makes a test of each rule, for the queue that `$fresh` makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::rules! { queue, $fresh:
            what_is_sent_is_received_as_it_was
            each_message_is_on_its_own_queue
            a_received_message_is_hidden
            a_message_that_is_not_deleted_comes_back
            a_deleted_message_is_gone
            a_released_message_is_there_again
            a_delayed_message_comes_late
            two_receivers_do_not_get_the_same
            a_receive_takes_no_more_than_asked_for
            what_is_received_too_often_becomes_a_dead_letter
        }
    };
}
pub(crate) use suite;

/// A message as a receiver gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got<H> {
    pub(crate) message: Message,
    pub(crate) receives: u32,
    /// The handle that deletes or releases it.
    pub(crate) handle: H,
}

/// The receiving end of a queue: SQS and its event source on AWS.
pub(crate) trait Receiver: Queue + Clone + 'static {
    type Handle: Clone + std::fmt::Debug + PartialEq + Send;
    /// How many times a message is received before it becomes a dead letter.
    const MAX_RECEIVES: u32;
    fn receive(
        &self,
        queue: QueueName,
        max: u32,
        visibility: Duration,
    ) -> impl Future<Output = Vec<Got<Self::Handle>>> + Send;
    fn delete(&self, handles: Vec<Self::Handle>) -> impl Future<Output = ()> + Send;
    fn release(&self, handles: Vec<Self::Handle>) -> impl Future<Output = ()> + Send;
    fn dead_letters(&self) -> impl Future<Output = Vec<Message>> + Send;
}

const LONG: Duration = Duration::from_secs(300);
/// How long a test waits for something that must come. It is far more than needed.
const PATIENCE: Duration = Duration::from_secs(30);

fn check(entropy: u128) -> Message {
    Message::Check {
        id: Wish {
            entropy,
            ..Wish::default()
        }
        .execution()
        .id,
    }
}

async fn send(queue: &impl Queue, messages: impl IntoIterator<Item = Message>) {
    queue
        .send(messages.into_iter().map(Outgoing::from).collect())
        .await
        .expect("the queue answers");
}

/// Receives until something comes.
async fn received<R: Receiver>(
    queue: &R,
    name: QueueName,
    visibility: Duration,
) -> Vec<Got<R::Handle>> {
    let waiting = async {
        loop {
            let got = queue.receive(name, 10, visibility).await;
            if !got.is_empty() {
                return got;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("a message comes")
}

pub(crate) async fn what_is_sent_is_received_as_it_was(queue: impl Receiver) {
    let id = Wish::default().execution().id;
    let messages = [
        Message::Wakeup {
            backlog: POOL,
            id: Some(id),
        },
        Message::Wakeup {
            backlog: lock("deploy"),
            id: None,
        },
    ];
    send(&queue, messages.clone()).await;
    let got = received(&queue, Launch, LONG).await;
    assert_eq!(
        got.iter()
            .map(|got| got.message.clone())
            .collect::<Vec<_>>(),
        messages
    );
    assert!(got.iter().all(|got| got.receives == 1));
}

pub(crate) async fn each_message_is_on_its_own_queue(queue: impl Receiver) {
    send(
        &queue,
        [
            check(1),
            Message::Wakeup {
                backlog: POOL,
                id: None,
            },
        ],
    )
    .await;
    let control = received(&queue, Control, LONG).await;
    assert_eq!(
        control.iter().map(|got| &got.message).collect::<Vec<_>>(),
        [&check(1)]
    );
    let launch = received(&queue, Launch, LONG).await;
    assert_eq!(launch.len(), 1);
    assert!(matches!(launch[0].message, Message::Wakeup { .. }));
}

pub(crate) async fn a_received_message_is_hidden(queue: impl Receiver) {
    send(&queue, [check(1)]).await;
    assert_eq!(received(&queue, Control, LONG).await.len(), 1);
    assert_eq!(queue.receive(Control, 10, LONG).await.len(), 0);
}

pub(crate) async fn a_message_that_is_not_deleted_comes_back(queue: impl Receiver) {
    send(&queue, [check(1)]).await;
    received(&queue, Control, Duration::from_secs(1)).await;
    let again = received(&queue, Control, LONG).await;
    assert_eq!((again[0].message.clone(), again[0].receives), (check(1), 2));
}

pub(crate) async fn a_deleted_message_is_gone(queue: impl Receiver) {
    send(&queue, [check(1), check(2)]).await;
    let got = received(&queue, Control, Duration::ZERO).await;
    assert_eq!(got.len(), 2);
    queue
        .delete(
            got.iter()
                .filter(|got| got.message == check(1))
                .map(|got| got.handle.clone())
                .collect(),
        )
        .await;
    let left = received(&queue, Control, LONG).await;
    assert_eq!(
        left.iter().map(|got| &got.message).collect::<Vec<_>>(),
        [&check(2)]
    );
}

pub(crate) async fn a_released_message_is_there_again(queue: impl Receiver) {
    send(&queue, [check(1)]).await;
    let got = received(&queue, Control, LONG).await;
    queue
        .release(got.into_iter().map(|got| got.handle).collect())
        .await;
    assert_eq!(received(&queue, Control, LONG).await[0].receives, 2);
}

pub(crate) async fn a_delayed_message_comes_late(queue: impl Receiver) {
    queue
        .send(vec![
            Outgoing {
                message: check(1),
                delay_seconds: 2,
            },
            check(2).into(),
        ])
        .await
        .expect("the queue answers");
    let first = received(&queue, Control, LONG).await;
    assert_eq!(
        first.iter().map(|got| &got.message).collect::<Vec<_>>(),
        [&check(2)],
        "what is not delayed comes first"
    );
    let second = received(&queue, Control, LONG).await;
    assert_eq!((&second[0].message, second[0].receives), (&check(1), 1));
}

pub(crate) async fn two_receivers_do_not_get_the_same(queue: impl Receiver) {
    for chunk in 0..5 {
        send(&queue, (0..10).map(|number| check(chunk * 10 + number))).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let queue = queue.clone();
        tasks.spawn(async move {
            queue
                .receive(Control, 10, LONG)
                .await
                .into_iter()
                .map(|got| got.message)
                .collect::<Vec<_>>()
        });
    }
    let got = tasks.join_all().await.concat();
    let different: BTreeSet<_> = got.iter().map(|message| format!("{message:?}")).collect();
    assert_eq!(different.len(), got.len(), "a message was received twice");
    assert!(!got.is_empty());
}

pub(crate) async fn a_receive_takes_no_more_than_asked_for(queue: impl Receiver) {
    send(&queue, (0..5).map(check)).await;
    assert_eq!(queue.receive(Control, 3, LONG).await.len(), 3);
    assert_eq!(queue.receive(Control, 10, LONG).await.len(), 2);
}

pub(crate) async fn what_is_received_too_often_becomes_a_dead_letter<R: Receiver>(queue: R) {
    send(&queue, [check(1), check(2)]).await;
    for receives in 1..=R::MAX_RECEIVES {
        let got = received(&queue, Control, Duration::ZERO).await;
        assert!(got.iter().all(|got| got.receives == receives), "{got:?}");
        if receives == 1 {
            queue
                .delete(
                    got.iter()
                        .filter(|got| got.message == check(2))
                        .map(|got| got.handle.clone())
                        .collect(),
                )
                .await;
        }
    }
    let dead = async {
        loop {
            assert_eq!(
                queue.receive(Control, 10, Duration::ZERO).await,
                [],
                "it was received once too often"
            );
            let dead = queue.dead_letters().await;
            if !dead.is_empty() {
                return dead;
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(PATIENCE, dead)
            .await
            .expect("it becomes a dead letter"),
        [check(1)]
    );
}
