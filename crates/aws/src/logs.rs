//! The tasks' output in CloudWatch Logs.

use std::fmt;

use aws_config::SdkConfig;
use aws_sdk_cloudwatchlogs::{
    Client,
    config::{Builder, retry::RetryConfig},
    operation::get_log_events::GetLogEventsOutput,
    types::OutputLogEvent,
};
use domain::{
    Timestamp,
    ports::{LogLine, LogPage, Logs, ReadError},
};

use crate::{
    connect::Lazily,
    error::{Fault, Remedy},
};

const SERVICE: &str = "CloudWatch Logs";
/// Most bytes that a page may take in an answer of the API. The answer of a synchronous invocation
/// has at most 6 MB (AWS Lambda quotas), and is a JSON text that contains the page's JSON. The rest
/// is for what surrounds the page.
const PAGE_MAX: usize = 5_000_000;
/// After this many empty pages in a row, the stream counts as read to its present end. An empty
/// page can come before the end, and the end should show as an unchanged token (API reference,
/// `GetLogEvents`). But if the lines of a stream have expired, each page is empty and has a new
/// token, without end (boto/boto3#4591). Airflow uses the same number.
const EMPTY_PAGES: usize = 3;
/// How often a read that got no answer is tried in all: as often as the SDK would try it.
const TRIES: u32 = 3;
/// The bytes around a line in that answer, including its time and the field names.
const AROUND_A_LINE: usize = 80;

/// Where a read without a cursor starts in a stream.
#[derive(Clone, Copy)]
enum End {
    Head,
    Tail,
}

/// The streams of one log group.
#[derive(Clone)]
pub struct CloudWatchLogs {
    client: Lazily<Client>,
    group: String,
}

impl fmt::Debug for CloudWatchLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudWatchLogs")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl CloudWatchLogs {
    /// The streams of this group.
    #[must_use]
    pub fn new(config: &SdkConfig, group: String) -> Self {
        Self {
            client: Lazily::of(config, Client::new),
            group,
        }
    }

    /// A page that fits into an answer of the API. Control characters grow sevenfold there. If a
    /// page does not fit, it is read once more with a smaller limit, so that the cursor matches the
    /// lines.
    async fn page_that_fits(
        &self,
        stream: &str,
        cursor: Option<&str>,
    ) -> Result<Option<GetLogEventsOutput>, ReadError> {
        let page = self.page(stream, cursor, End::Head, None).await?;
        match page.as_ref().and_then(|page| shorter(page.events())) {
            Some(limit) => self.page(stream, cursor, End::Head, Some(limit)).await,
            None => Ok(page),
        }
    }

    /// Reads a page; `None` if there is no such stream or group (yet).
    async fn page(
        &self,
        stream: &str,
        cursor: Option<&str>,
        from: End,
        limit: Option<i32>,
    ) -> Result<Option<GetLogEventsOutput>, ReadError> {
        let call = self
            .client
            .get_log_events()
            .log_group_name(&self.group)
            .log_stream_name(stream)
            .start_from_head(matches!(from, End::Head))
            .set_next_token(cursor.map(str::to_owned))
            .set_limit(limit);
        let mut tried = 1;
        // The SDK's retries are off: they would ask a throttled service two more times.
        let answer = loop {
            let once = Builder::new().retry_config(RetryConfig::disabled());
            match call
                .clone()
                .customize()
                .config_override(once)
                .send()
                .await
                .map_err(|error| Fault::of(&error))
            {
                Err(fault) if fault.remedy == Remedy::Ask && tried < TRIES => tried += 1,
                answer => break answer,
            }
        };
        match answer {
            Ok(page) => Ok(Some(page)),
            Err(fault) if fault.remedy == Remedy::Wait => Err(ReadError::Throttled),
            Err(fault) if fault.is("ResourceNotFoundException") => Ok(None),
            // The cursor is the only parameter that comes from the caller, so a bad parameter is a
            // bad cursor. A token lives for 24 hours (API reference, `GetLogEvents`).
            Err(fault) if cursor.is_some() && fault.is("InvalidParameterException") => {
                Err(ReadError::Cursor)
            }
            Err(fault) => Err(fault.of_service(SERVICE).into()),
        }
    }
}

impl Logs for CloudWatchLogs {
    /// Reads as much as CloudWatch Logs gives in one call (1 MB or 10,000 lines, API reference,
    /// `GetLogEvents`), because calls are scarce: 10 to 25 a second for a whole region.
    async fn read(&self, stream: &str, cursor: Option<&str>) -> Result<LogPage, ReadError> {
        let mut at = cursor.map(str::to_owned);
        for _ in 0..EMPTY_PAGES {
            let Some(page) = self.page_that_fits(stream, at.as_deref()).await? else {
                return Ok(LogPage::default());
            };
            let next = page.next_forward_token.clone().or_else(|| at.clone());
            let (moved, lines) = (next != at, page.events.unwrap_or_default());
            if !moved || !lines.is_empty() {
                return Ok(LogPage {
                    lines: lines.into_iter().map(line).collect(),
                    next,
                    more: moved,
                });
            }
            at = next;
        }
        Ok(LogPage {
            lines: Vec::new(),
            next: at,
            more: false,
        })
    }

    async fn last(&self, stream: &str) -> Result<Vec<LogLine>, ReadError> {
        let mut at = None;
        for _ in 0..EMPTY_PAGES {
            let Some(page) = self.page(stream, at.as_deref(), End::Tail, None).await? else {
                break;
            };
            let lines = page.events.unwrap_or_default();
            if !lines.is_empty() {
                return Ok(lines.into_iter().map(line).collect());
            }
            at = page.next_backward_token;
        }
        Ok(Vec::new())
    }
}

fn line(event: OutputLogEvent) -> LogLine {
    let at = event
        .timestamp
        .and_then(Timestamp::from_timestamp_millis)
        .unwrap_or_default();
    let mut text = event.message.unwrap_or_default();
    if text.ends_with('\n') {
        text.pop();
    }
    LogLine { at, text }
}

/// How many of these lines fit into an answer, or `None` if all do. At least one fits, because a
/// line has at most 256 KB.
fn shorter(events: &[OutputLogEvent]) -> Option<i32> {
    let weights = events
        .iter()
        .map(|event| AROUND_A_LINE + event.message().map_or(0, weight));
    let fits = weights.scan(0, |sum, weight| {
        *sum += weight;
        Some(*sum)
    });
    let count = fits.take_while(|sum| *sum <= PAGE_MAX).count();
    (count < events.len()).then(|| i32::try_from(count.max(1)).unwrap_or(i32::MAX))
}

/// A text's bytes as JSON within JSON: a quote or a backslash becomes `\\\"`, another control
/// character `\\u001b`.
fn weight(text: &str) -> usize {
    text.bytes()
        .map(|byte| {
            if matches!(byte, b'"' | b'\\') {
                4
            } else if byte < b' ' {
                7
            } else {
                1
            }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str, count: usize) -> Vec<OutputLogEvent> {
        vec![OutputLogEvent::builder().message(text).timestamp(1).build(); count]
    }

    fn answer(events: &[OutputLogEvent]) -> usize {
        let lines: Vec<_> = events
            .iter()
            .map(|e| serde_json::json!({"at": "2026-11-24T00:00:00.000Z", "text": e.message()}))
            .collect();
        let body = serde_json::json!({ "lines": lines }).to_string();
        serde_json::json!({ "body": body }).to_string().len()
    }

    #[test]
    fn an_ordinary_page_is_given_whole() {
        assert_eq!(shorter(&events(&"x".repeat(100), 10_000)), None);
        assert_eq!(shorter(&[]), None);
    }

    #[test]
    fn a_page_that_no_answer_could_hold_is_made_shorter_until_one_can() {
        for text in [
            "\u{1b}".repeat(100),
            "\"".repeat(100),
            "\\".repeat(100),
            String::new(),
        ] {
            let all = events(&text, 1_048_576 / 126);
            let kept = shorter(&all).map_or(all.len(), |limit| usize::try_from(limit).unwrap());
            assert!(answer(&all[..kept]) < 6_000_000, "{text:?}: {kept}");
        }
        let junk = events(&"\u{1}".repeat(256 * 1024), 4);
        let kept = usize::try_from(shorter(&junk).unwrap()).unwrap();
        assert!((1..4).contains(&kept) && answer(&junk[..kept]) < 6_000_000);
    }
}
