//! The rules of `domain::ports::Logs`.

use std::time::{SystemTime, UNIX_EPOCH};

use aws::logs::CloudWatchLogs;
use aws_sdk_cloudwatchlogs::{Client, types::InputLogEvent};
use domain::{
    Timestamp,
    ports::{Entropy, Logs},
};
use local::log_file::LocalLogs;
use runner::log::LogWriter;
use tempfile::TempDir;
use tests::emulator;

/// Makes a test of each rule, for the logs that `$fresh` makes.
macro_rules! suite {
    ($fresh:path) => {
        $crate::contract::rules! { logs, $fresh:
            a_log_is_followed_without_a_gap_and_without_a_repetition
            a_long_log_comes_in_parts_that_join
            a_cursor_is_good_for_more_than_one_reading
            a_log_that_is_not_there_yet_has_no_cursor
            a_log_is_nobody_else_s
            the_end_of_a_long_log_is_read_at_once
        }
    };
}

const ANSWERS: &str = "the logs answer";
const STREAM: &str = "task/main/0123456789abcdef0123456789abcdef";
const ANOTHER: &str = "task/main/fedcba9876543210fedcba9876543210";

/// Logs that a test can write to, as a task does.
pub(crate) trait Written {
    type Logs: Logs;
    fn logs(&self) -> &Self::Logs;
    /// Appends lines to [`STREAM`]. With no lines it creates an empty stream.
    async fn write(&self, lines: &[String]);
}

/// Logs in files.
struct Files(LocalLogs);

impl Written for Files {
    type Logs = LocalLogs;

    fn logs(&self) -> &LocalLogs {
        &self.0
    }

    async fn write(&self, lines: &[String]) {
        let path = self.0.path(STREAM.rsplit('/').next().expect("an id"));
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        LogWriter::open(&path)
            .expect("it opens")
            .append(now(), text.as_bytes())
            .expect("it is written");
    }
}

/// A log group of the emulator.
struct Group {
    logs: CloudWatchLogs,
    client: Client,
    name: String,
}

impl Written for Group {
    type Logs = CloudWatchLogs;

    fn logs(&self) -> &CloudWatchLogs {
        &self.logs
    }

    async fn write(&self, lines: &[String]) {
        // The stream may exist already.
        let _made = self
            .client
            .create_log_stream()
            .log_group_name(&self.name)
            .log_stream_name(STREAM)
            .send()
            .await;
        let at = now().timestamp_millis();
        let event = |line: &String| {
            InputLogEvent::builder()
                .message(line)
                .timestamp(at)
                .build()
                .expect("complete")
        };
        // A call takes 10,000 events and 1 MB (API reference, `PutLogEvents`).
        for lines in lines.chunks(5_000) {
            let call = self
                .client
                .put_log_events()
                .log_group_name(&self.name)
                .log_stream_name(STREAM);
            call.set_log_events(Some(lines.iter().map(event).collect()))
                .send()
                .await
                .expect(ANSWERS);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let delete = self
            .client
            .delete_log_group()
            .log_group_name(&self.name)
            .send();
        tokio::task::block_in_place(|| {
            let _deleted = tokio::runtime::Handle::current().block_on(delete);
        });
    }
}

async fn files() -> (Files, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    (Files(LocalLogs::new(dir.path().to_owned())), dir)
}

async fn group() -> (Group, ()) {
    let endpoint = tokio::task::spawn_blocking(emulator::shared)
        .await
        .expect("it has an address");
    let config = crate::aws::config(&endpoint);
    // All tests share the emulator.
    let name = format!("/aws/mycli/test-{:032x}", aws::system::System.bits());
    let client = Client::new(&config);
    client
        .create_log_group()
        .log_group_name(&name)
        .send()
        .await
        .expect(ANSWERS);
    (
        Group {
            logs: CloudWatchLogs::new(&config, name.clone()),
            client,
            name,
        },
        (),
    )
}

mod on_one_machine {
    suite!(super::files);
}

mod in_cloudwatch {
    suite!(super::group);
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    Timestamp::from_timestamp_millis(i64::try_from(since.as_millis()).expect("in range"))
        .expect("in range")
}

fn numbered(lines: std::ops::Range<usize>) -> Vec<String> {
    lines.map(|number| format!("line {number}")).collect()
}

/// Reads everything from a cursor to the current end. Returns the lines, the next cursor and the
/// number of parts.
async fn read(log: &impl Written, from: Option<&str>) -> (Vec<String>, String, usize) {
    let (mut lines, mut cursor, mut parts) = (Vec::new(), from.map(str::to_owned), 0);
    loop {
        let page = log
            .logs()
            .read(STREAM, cursor.as_deref())
            .await
            .expect(ANSWERS);
        lines.extend(page.lines.into_iter().map(|line| line.text));
        (cursor, parts) = (page.next, parts + 1);
        if !page.more {
            return (lines, cursor.expect("the log is there"), parts);
        }
    }
}

pub(crate) async fn a_log_is_followed_without_a_gap_and_without_a_repetition(log: impl Written) {
    log.write(&[]).await;
    let (lines, cursor, _) = read(&log, None).await;
    assert_eq!(lines, [""; 0]);
    log.write(&numbered(0..50)).await;
    let (lines, cursor, _) = read(&log, Some(&cursor)).await;
    assert_eq!(lines, numbered(0..50));
    log.write(&numbered(50..51)).await;
    let (lines, cursor, _) = read(&log, Some(&cursor)).await;
    assert_eq!(lines, numbered(50..51));
    assert_eq!(read(&log, Some(&cursor)).await.0, [""; 0]);
    assert_eq!(read(&log, None).await.0, numbered(0..51));
}

pub(crate) async fn a_long_log_comes_in_parts_that_join(log: impl Written) {
    let long: Vec<_> = numbered(0..15_000)
        .into_iter()
        .map(|line| format!("{line:<100}."))
        .collect();
    log.write(&long).await;
    let (lines, _, parts) = read(&log, None).await;
    assert!(
        lines == long && parts > 1,
        "{} lines in {parts} parts, the last {:?}",
        lines.len(),
        lines.last()
    );
}

pub(crate) async fn a_cursor_is_good_for_more_than_one_reading(log: impl Written) {
    log.write(&numbered(0..3)).await;
    let (_, cursor, _) = read(&log, None).await;
    for count in 1..4 {
        log.write(&numbered(2 + count..3 + count)).await;
        assert_eq!(read(&log, Some(&cursor)).await.0, numbered(3..3 + count));
    }
}

pub(crate) async fn a_log_that_is_not_there_yet_has_no_cursor(log: impl Written) {
    let page = log.logs().read(STREAM, None).await.expect(ANSWERS);
    assert_eq!((page.lines.len(), page.next, page.more), (0, None, false));
    log.write(&numbered(0..1)).await;
    assert_eq!(read(&log, None).await.0, numbered(0..1));
}

pub(crate) async fn a_log_is_nobody_else_s(log: impl Written) {
    log.write(&numbered(0..3)).await;
    assert!(
        log.logs()
            .read(ANOTHER, None)
            .await
            .expect(ANSWERS)
            .lines
            .is_empty()
    );
}

pub(crate) async fn the_end_of_a_long_log_is_read_at_once(log: impl Written) {
    assert_eq!(log.logs().last(STREAM).await.expect(ANSWERS), []);
    log.write(&numbered(0..3)).await;
    let texts = async || {
        log.logs()
            .last(STREAM)
            .await
            .expect(ANSWERS)
            .into_iter()
            .map(|line| line.text)
    };
    assert!(texts().await.eq(numbered(0..3)));
    let long: Vec<_> = numbered(3..15_000)
        .into_iter()
        .map(|line| format!("{line:<100}."))
        .collect();
    log.write(&long).await;
    let last: Vec<_> = texts().await.collect();
    assert!(
        long.ends_with(&last) && last.len() >= 5_000,
        "{} lines, from {:?}",
        last.len(),
        last.first()
    );
}
