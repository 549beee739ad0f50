//! Marker lines out of a log.

use domain::{
    Timestamp,
    marker::{self, Marker},
    ports::{LogLine, Logs, ReadError},
};

/// Reads the first and the last part of a stream and returns the markers with this nonce.
///
/// The script says what it has to say before the command's output and after it, so what is between
/// the two, which may be gigabytes, tells nothing; and a part is far longer than what stands around
/// the command (1 MB or 10,000 lines; API reference, `GetLogEvents`).
///
/// # Errors
/// When the logs do not answer, or are asked too often.
pub async fn read_ends(
    logs: &impl Logs,
    stream: &str,
    nonce: &str,
) -> Result<Vec<(Timestamp, Marker)>, ReadError> {
    let marker = |line: &LogLine| Some((line.at, marker::split(nonce, &line.text).1?));
    let head = logs.read(stream, None).await?;
    let mut found: Vec<_> = head.lines.iter().filter_map(marker).collect();
    if head.more {
        // Where the two overlap a marker is found twice, which is the same as once.
        found.extend(logs.last(stream).await?.iter().filter_map(marker));
    }
    Ok(found)
}
