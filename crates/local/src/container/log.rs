//! A container's log, read from any byte on.
//!
//! The engine keeps the whole log, and its bytes are the same however often they are read. So the number of bytes already taken
//! is all there is to remember, over a broken connection and over a crash of ours alike.

use std::io;
use std::pin::pin;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as Fault;
use bollard::query_parameters::LogsOptionsBuilder;
use chrono::{DateTime, SubsecRound, Utc};
use domain::Timestamp;
use futures_util::StreamExt;

/// Whether to stay until the container ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Read on as the container writes.
    ContainerEnds,
    /// Read what there is.
    Now,
}

/// Hands on what follows the first `taken` bytes of stdout and stderr together, in the engine's order, and counts it in `taken`.
///
/// Dropping the future loses nothing: what is counted was handed on.
pub(super) async fn read<F>(docker: &Docker, id: &str, until: Until, taken: &mut u64, on: &mut F) -> Result<(), Fault>
where
    F: FnMut(Timestamp, &[u8]),
{
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true);
    let mut frames = pin!(docker.logs(id, Some(options.follow(until == Until::ContainerEnds).build())));
    let mut to_skip = *taken;
    while let Some(frame) = frames.next().await {
        let (LogOutput::StdOut { message } | LogOutput::StdErr { message }) = frame? else {
            // Without a terminal there is no other kind: the stream broke off in the middle of a frame.
            return Err(broken("the log broke off"));
        };
        let (at, bytes) = stamped(&message).ok_or_else(|| broken("the log has no timestamps"))?;
        let new = beyond(bytes, &mut to_skip);
        if !new.is_empty() {
            on(at, new);
            *taken += new.len() as u64;
        }
    }
    Ok(())
}

fn broken(reason: &str) -> Fault {
    Fault::IOError { err: io::Error::new(io::ErrorKind::InvalidData, reason) }
}

/// Takes the engine's timestamp off a frame.
fn stamped(frame: &[u8]) -> Option<(Timestamp, &[u8])> {
    let space = frame.iter().position(|byte| *byte == b' ')?;
    let stamp = std::str::from_utf8(&frame[..space]).ok()?;
    Some((timestamp(stamp)?, &frame[space + 1..]))
}

/// A time as engines write it.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let parsed = DateTime::parse_from_rfc3339(text).ok()?;
    Some(parsed.with_timezone(&Utc).trunc_subsecs(3))
}

/// What of `bytes` is still new when `to_skip` bytes of the log are not.
fn beyond<'a>(bytes: &'a [u8], to_skip: &mut u64) -> &'a [u8] {
    let skipped = usize::try_from(*to_skip).unwrap_or(usize::MAX).min(bytes.len());
    *to_skip -= skipped as u64;
    &bytes[skipped..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lose_their_timestamp_and_nothing_else() {
        let (at, bytes) = stamped(b"2026-11-24T01:21:49.123456789+01:00 \xff a b \n").unwrap();
        assert_eq!((at.to_rfc3339().as_str(), bytes), ("2026-11-24T00:21:49.123+00:00", b"\xff a b \n".as_slice()));
        assert_eq!(stamped(b"2026-11-24T01:21:49Z ").unwrap().1, b"");
        assert_eq!(stamped(b"no stamp"), None);
        assert_eq!(stamped(b"2026-11-24T01:21:49Z"), None);
    }

    #[test]
    fn skipping_ends_anywhere_in_a_frame() {
        let mut to_skip = 7;
        let rest: Vec<_> = [b"abc", b"def", b"ghi", b"jkl"].iter().map(|frame| beyond(*frame, &mut to_skip)).collect();
        assert_eq!(rest, [b"".as_slice(), b"", b"hi", b"jkl"]);
        assert_eq!(to_skip, 0);
    }
}
