//! Marker lines out of a log.

use domain::{
    Timestamp,
    marker::{self, Marker},
    ports::{Logs, Unavailable},
};

/// Reads a stream from its start to its present end and returns the markers with this nonce.
///
/// # Errors
/// When the logs do not answer.
pub async fn read_all(logs: &impl Logs, stream: &str, nonce: &str) -> Result<Vec<(Timestamp, Marker)>, Unavailable> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = logs.read(stream, cursor.as_deref()).await?;
        found.extend(page.lines.iter().filter_map(|line| Some((line.at, marker::split(nonce, &line.text).1?))));
        match page.next {
            Some(next) if page.more => cursor = Some(next),
            _ => return Ok(found),
        }
    }
}
