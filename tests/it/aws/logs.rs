//! Pages of a log as CloudWatch Logs cuts them: an empty page may come before the end.

use aws::logs::CloudWatchLogs;
use domain::ports::{Logs, ReadError};

use super::stand_in::{
    Answer::{self, File, Text},
    Call, StandIn,
};

const STREAM: &str = "task/main/0123456789abcdef0123456789abcdef";

fn logs(stand_in: &StandIn) -> CloudWatchLogs {
    CloudWatchLogs::new(&stand_in.config(), "/aws/mycli/team".into())
}

fn page(call: &Call) -> Answer {
    let file = match call.body.get("nextToken").and_then(|token| token.as_str()) {
        None => "logs-page-1.json",
        Some("f/1") => "logs-page-2.json",
        Some("f/2") => "logs-page-3.json",
        Some(_) => "logs-end.json",
    };
    File(200, file)
}

#[tokio::test]
async fn a_log_is_read_to_its_end_and_not_to_its_first_empty_page() {
    let stand_in = StandIn::new(|call, _| page(call)).await;
    let (logs, mut cursor, mut lines) = (logs(&stand_in), None, Vec::new());
    loop {
        let page = logs.read(STREAM, cursor.as_deref()).await.unwrap();
        lines.extend(
            page.lines
                .into_iter()
                .map(|line| (line.at.timestamp_millis(), line.text)),
        );
        cursor = page.next;
        if !page.more {
            break;
        }
        assert!(stand_in.calls().len() < 10, "there is no end to it");
    }
    let expected = [
        (1_795_478_432_500, "one"),
        (1_795_478_432_501, "two\u{1b}[0m"),
        (1_795_478_440_000, "three"),
    ];
    assert_eq!(lines, expected.map(|(at, text)| (at, text.to_owned())));
    assert_eq!(cursor.as_deref(), Some("f/3"));
    let first = &stand_in.calls()[0].body;
    assert_eq!(
        *first,
        serde_json::json!({ "logGroupName": "/aws/mycli/team", "logStreamName": STREAM, "startFromHead": true })
    );
}

#[tokio::test]
async fn a_log_whose_lines_have_expired_has_an_end_though_its_tokens_have_none() {
    let stand_in = StandIn::new(|_, before| {
        Text(
            200,
            serde_json::json!({ "events": [], "nextForwardToken": format!("f/{before}") })
                .to_string(),
        )
    })
    .await;
    let page = logs(&stand_in).read(STREAM, None).await.unwrap();
    assert_eq!((page.lines.len(), page.more), (0, false));
    assert_eq!(
        page.next,
        Some(format!("f/{}", stand_in.calls().len() - 1)),
        "a line that still comes is found"
    );
}

#[tokio::test]
async fn a_page_that_no_answer_could_hold_is_read_again_in_a_shorter_form() {
    let junk = "\u{1}".repeat(256 * 1024);
    let stand_in = StandIn::new(move |call, _| {
        let count = call
            .body
            .get("limit")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(4);
        let event = serde_json::json!({ "timestamp": 1, "message": junk });
        let events = vec![event; usize::try_from(count).unwrap()];
        Text(
            200,
            serde_json::json!({ "events": events, "nextForwardToken": format!("f/{count}") })
                .to_string(),
        )
    })
    .await;
    let page = logs(&stand_in).read(STREAM, None).await.unwrap();
    let (lines, next) = (page.lines.len(), page.next.unwrap());
    assert!((1..4).contains(&lines), "{lines}");
    assert_eq!(
        next,
        format!("f/{lines}"),
        "the cursor goes on after the lines that were given"
    );
    assert_eq!(stand_in.calls().len(), 2);
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_no_fault() {
    let nothing = StandIn::always(File(400, "logs-none.json")).await;
    assert_eq!(
        logs(&nothing).read(STREAM, Some("f/1")).await.unwrap().next,
        None
    );
}

/// A throttled read is not retried: two more calls to a throttled service do not help.
#[tokio::test]
async fn a_throttled_read_is_asked_once_and_one_without_an_answer_again() {
    let busy = StandIn::always(File(400, "throttled.json")).await;
    assert!(matches!(
        logs(&busy).read(STREAM, None).await,
        Err(ReadError::Throttled)
    ));
    assert!(matches!(
        logs(&busy).last(STREAM).await,
        Err(ReadError::Throttled)
    ));
    assert_eq!(busy.calls().len(), 2);
    let broken = StandIn::new(|_, _| {
        Text(
            500,
            r#"{"__type":"ServiceUnavailableException"}"#.to_owned(),
        )
    })
    .await;
    assert!(matches!(
        logs(&broken).read(STREAM, None).await,
        Err(ReadError::Failed(_))
    ));
    assert_eq!(broken.calls().len(), 3);
}

/// A token lives for a day, and a caller may send anything. A bad token is the caller's fault, so
/// the read is not retried.
#[tokio::test]
async fn a_cursor_that_is_none_or_too_old_is_told_from_logs_that_do_not_answer() {
    let refusal =
        r#"{"__type":"InvalidParameterException","message":"The specified nextToken is invalid."}"#;
    let stand_in = StandIn::new(move |_, _| Text(400, refusal.to_owned())).await;
    let logs = logs(&stand_in);
    assert!(matches!(
        logs.read(STREAM, Some("f/0")).await,
        Err(ReadError::Cursor)
    ));
    assert!(matches!(
        logs.read(STREAM, None).await,
        Err(ReadError::Failed(_))
    ));
}
