//! What a user sees if DynamoDB denies or rejects a call, or holds an unreadable record. Each case
//! has its own message, after one attempt of the call.

use aws::dynamo::DynamoStore;
use aws_sdk_dynamodb::Client;
use domain::{
    Timestamp,
    api::Problem,
    error::{PortError, RejectionKind},
    id::ExecutionId,
    ports::ReadStore,
};
use serde_json::json;

use super::stand_in::{Answer, StandIn};

const ID: &str = "exec_01JD3ZQ5T7Y9W1N8M2K4C6X7Q9";

/// An error answer of DynamoDB.
fn error(code: &str, message: &str) -> Answer {
    Answer::Text(
        400,
        json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": message})
            .to_string(),
    )
}

/// Reads a record. Returns the error, the API's problem for it, and the number of calls.
async fn load(stand_in: &StandIn) -> (PortError, Problem, usize) {
    let store = DynamoStore::new(Client::new(&stand_in.config()), "table", 90)
        .with_clock(|| Timestamp::UNIX_EPOCH);
    let id: ExecutionId = ID.parse().unwrap();
    let error = store.load(&id).await.expect_err("it is refused");
    let problem = pipeline::http::failed(&error);
    (error, problem, stand_in.calls().len())
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let words = "User: arn:aws:sts::1:assumed-role/mycli-query/x is not authorized to perform: dynamodb:GetItem on resource: arn:aws:dynamodb:…";
    let stand_in = StandIn::always(error("AccessDeniedException", words)).await;
    let (error, problem, calls) = load(&stand_in).await;
    let PortError::Rejected(rejected) = &error else {
        panic!("{error}")
    };
    assert_eq!(
        rejected.rejection,
        RejectionKind::Denied {
            permission: Some("dynamodb:GetItem".into())
        }
    );
    assert_eq!(
        (problem.status, &*problem.code),
        (500, "permission_missing")
    );
    assert!(
        problem
            .title
            .contains("lacks the permission dynamodb:GetItem"),
        "{}",
        problem.title
    );
    assert!(
        !problem.title.contains("arn:"),
        "what the service said is for our log: {}",
        problem.title
    );
    assert!(
        calls <= 2,
        "one try for each of the two items, and no more: {calls}"
    );
}

#[tokio::test]
async fn a_request_that_is_invalid_is_our_fault() {
    let words = "One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes";
    let stand_in = StandIn::always(error("ValidationException", words)).await;
    let (error, problem, calls) = load(&stand_in).await;
    assert!(
        matches!(&error, PortError::Rejected(rejected) if rejected.rejection == RejectionKind::Invalid),
        "{error}"
    );
    assert_eq!((problem.status, &*problem.code), (500, "internal_error"));
    assert!(
        problem.title.contains("this is a fault of mycli"),
        "{}",
        problem.title
    );
    assert!(calls <= 2, "{calls}");
}

#[tokio::test]
async fn a_table_that_is_not_there_is_said() {
    let stand_in = StandIn::always(error(
        "ResourceNotFoundException",
        "Requested resource not found",
    ))
    .await;
    let (_, problem, calls) = load(&stand_in).await;
    assert_eq!((problem.status, &*problem.code), (500, "resource_missing"));
    assert!(problem.title.contains("mycli doctor"), "{}", problem.title);
    assert!(calls <= 2, "{calls}");
}

#[tokio::test]
async fn an_item_that_is_corrupt_is_named_by_its_run() {
    let stand_in = StandIn::new(|call, _| {
        let item = json!({"Item": {"pk": call.body["Key"]["pk"], "sk": call.body["Key"]["sk"], "status": {"S": "hunter2"}}});
        Answer::Text(200, item.to_string())
    });
    let stand_in = stand_in.await;
    let (error, problem, calls) = load(&stand_in).await;
    assert!(
        matches!(&error, PortError::Corrupt(corrupt) if corrupt.id().is_some_and(|id| id.as_str() == ID)),
        "{error}"
    );
    assert_eq!((problem.status, &*problem.code), (500, "unreadable_record"));
    assert!(
        problem.title.contains(&format!("mycli forget {ID}")),
        "{}",
        problem.title
    );
    assert!(
        !format!("{error} {error:?} {}", problem.title).contains("hunter2"),
        "nothing of it is shown"
    );
    assert_eq!(calls, 2);
}

/// The opposite case: the SDK retries a transient error, and the message says that it is transient.
#[tokio::test]
async fn a_throttle_is_no_refusal() {
    let stand_in = StandIn::always(error("ThrottlingException", "Rate exceeded")).await;
    let (error, problem, calls) = load(&stand_in).await;
    assert!(error.may_pass(), "{error}");
    assert_eq!((problem.status, &*problem.code), (503, "unavailable"));
    assert!(calls > 2, "{calls}");
}
