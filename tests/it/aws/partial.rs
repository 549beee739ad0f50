//! Calls that succeed for only some of their entries.

use aws::{events::EventBus, sqs::SqsQueue};
use domain::{
    announcement::Announcement,
    execution::ExecutionStatus,
    id::ExecutionId,
    message::{Message, Outgoing},
    ports::{Announcer, Queue},
};

use super::stand_in::{Answer::File, Call, StandIn};

fn id(number: u128) -> ExecutionId {
    ExecutionId::new(domain::Timestamp::default(), number)
}

fn check(number: u128) -> Outgoing {
    Message::Check { id: id(number) }.into()
}

fn queue(stand_in: &StandIn) -> SqsQueue {
    SqsQueue::new(
        &stand_in.config(),
        "http://launch.invalid".into(),
        "http://control.invalid".into(),
    )
}

fn ids(call: &Call) -> Vec<String> {
    let entries = call.body["Entries"].as_array().unwrap();
    let body = |text: &str| Message::read(text).unwrap();
    entries
        .iter()
        .map(|entry| match body(entry["MessageBody"].as_str().unwrap()) {
            Message::Check { id } => id.to_string(),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn messages_that_were_not_taken_are_sent_again_and_no_others() {
    let stand_in = StandIn::new(|_, before| match before {
        0 => File(200, "send-message-batch-partial.json"),
        _ => File(200, "send-message-batch.json"),
    })
    .await;
    queue(&stand_in)
        .send(vec![check(1), check(2)])
        .await
        .unwrap();
    let calls: Vec<_> = stand_in.calls().iter().map(ids).collect();
    assert_eq!(
        calls,
        [
            vec![id(1).to_string(), id(2).to_string()],
            vec![id(2).to_string()]
        ]
    );
}

#[tokio::test]
async fn a_message_that_sqs_never_takes_is_said_and_not_repeated() {
    let stand_in = StandIn::always(File(200, "send-message-batch-refused.json")).await;
    let error = queue(&stand_in).send(vec![check(1)]).await.unwrap_err();
    let words = "the queue rejected the request: InvalidMessageContents: 1 were not accepted: The message contains characters outside the allowed set.";
    assert_eq!(error.to_string(), words);
    assert_eq!(stand_in.calls().len(), 1);
}

#[tokio::test]
async fn many_messages_go_ten_at_a_time() {
    let stand_in = StandIn::always(File(200, "send-message-batch.json")).await;
    queue(&stand_in)
        .send((0..25).map(check).collect())
        .await
        .unwrap();
    let mut sent: Vec<_> = stand_in
        .calls()
        .iter()
        .map(|call| ids(call).len())
        .collect();
    sent.sort_unstable();
    assert_eq!(sent, [5, 10, 10]);
}

#[tokio::test]
async fn a_delay_is_sent_up_to_the_longest_that_sqs_takes() {
    let stand_in = StandIn::always(File(200, "send-message-batch.json")).await;
    let delayed = |seconds| {
        vec![Outgoing {
            delay_seconds: seconds,
            ..check(1)
        }]
    };
    for seconds in [0, 7, 5_000] {
        queue(&stand_in).send(delayed(seconds)).await.unwrap();
    }
    let sent: Vec<_> = stand_in
        .calls()
        .iter()
        .map(|call| call.body["Entries"][0]["DelaySeconds"].as_i64())
        .collect();
    assert_eq!(sent, [None, Some(7), Some(900)]);
}

fn announcement(number: u128) -> Announcement {
    Announcement {
        execution_id: id(number),
        status: ExecutionStatus::Failed,
        exit_code: Some(3),
        reason: Some("the command exited with code 3".into()),
        name: None,
        group: None,
        repo: None,
        branch: None,
        commit: None,
        submitted_by: "ann".into(),
        submitted_at: domain::Timestamp::default(),
        started_at: None,
        stopped_at: domain::Timestamp::from_timestamp(1_795_478_475, 0),
        attempts: 1,
        cost: None,
    }
}

#[tokio::test]
async fn events_that_were_not_taken_are_sent_again_and_no_others() {
    let stand_in = StandIn::new(|_, before| match before {
        0 => File(200, "put-events-partial.json"),
        _ => File(200, "put-events.json"),
    })
    .await;
    let bus = EventBus::new(&stand_in.config(), "default".into());
    bus.announce(&[announcement(1), announcement(2)])
        .await
        .unwrap();
    let calls = stand_in.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1].body["Entries"].as_array().unwrap().len(), 1);
    let again = &calls[1].body["Entries"][0];
    assert_eq!(
        (&again["Source"], &again["DetailType"]),
        (&"mycli".into(), &"Execution State Change".into())
    );
    let detail: Announcement = serde_json::from_str(again["Detail"].as_str().unwrap()).unwrap();
    assert_eq!(detail, announcement(2));
    assert_eq!(again["Time"].as_f64(), Some(1_795_478_475.0));
}

#[tokio::test]
async fn an_event_that_is_never_taken_is_said() {
    let stand_in = StandIn::always(File(200, "put-events-failed.json")).await;
    let bus = EventBus::new(&stand_in.config(), "default".into());
    let error = bus.announce(&[announcement(1)]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "EventBridge is unavailable: InternalFailure: 1 were not accepted: Internal Service Failure"
    );
    assert!(stand_in.calls().len() > 1, "it was not sent again");
}

#[tokio::test]
async fn an_event_that_the_bus_does_not_take_is_not_sent_again() {
    let stand_in = StandIn::always(File(200, "put-events-denied.json")).await;
    let bus = EventBus::new(&stand_in.config(), "default".into());
    assert!(bus.announce(&[announcement(1)]).await.is_err());
    assert_eq!(stand_in.calls().len(), 1);
}
