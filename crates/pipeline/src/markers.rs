//! Reading marker lines from a log.

use domain::{
    Timestamp,
    marker::{self, Marker},
    ports::{LogLine, Logs, ReadError},
};

/// Reads the first and the last part of a stream and returns the markers with this nonce.
///
/// The runner writes its markers before and after the command's output. The output between them may
/// be gigabytes and holds no markers. A part (1 MB or 10,000 lines; API reference, `GetLogEvents`)
/// is far longer than the lines around the command.
///
/// # Errors
/// When the logs do not answer, or are read too often.
pub async fn read_ends(
    logs: &impl Logs,
    stream: &str,
    nonce: &str,
) -> Result<Vec<(Timestamp, Marker)>, ReadError> {
    let marker = |line: &LogLine| Some((line.at, marker::split(nonce, &line.text).1?));
    let head = logs.read(stream, None).await?;
    let mut found: Vec<_> = head.lines.iter().filter_map(marker).collect();
    if head.more {
        // If the two parts overlap, a marker is found twice, which does no harm.
        found.extend(logs.last(stream).await?.iter().filter_map(marker));
    }
    Ok(found)
}
