//! Reads a container's log from any byte on.
//!
//! The engine keeps the whole log, and each reading gives the same bytes. So the number of bytes
//! taken is all that must be remembered, after a broken connection and after a crash of mycli
//! alike.

use std::io;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as Fault;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use chrono::{DateTime, SubsecRound, Utc};
use domain::Timestamp;
use futures_util::{Stream, StreamExt, TryStreamExt};

/// How far to read the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// To the container's end, while it writes.
    ContainerEnds,
    /// To the current end.
    Now,
    /// Only the last piece before the current end.
    NewestOnly,
}

/// A piece of output: a line with its newline, or part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// When the engine received it.
    pub(super) at: Timestamp,
    pub(super) bytes: Bytes,
}

/// Reads the bytes after the first `taken` bytes of stdout and stderr together, in the engine's
/// order.
pub(super) fn read(
    docker: &Docker,
    id: &str,
    until: Until,
    taken: u64,
) -> impl Stream<Item = Result<Piece, Fault>> + use<> {
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .timestamps(true);
    let options =
        options
            .follow(until == Until::ContainerEnds)
            .tail(if until == Until::NewestOnly {
                "1"
            } else {
                "all"
            });
    let frames = docker.logs(id, Some(options.build()));
    let mut to_skip = taken;
    frames
        .map(|frame| piece(frame?))
        .map_ok(move |piece| Piece {
            bytes: beyond(piece.bytes, &mut to_skip),
            ..piece
        })
        .try_filter(|piece| std::future::ready(!piece.bytes.is_empty()))
}

fn piece(frame: LogOutput) -> Result<Piece, Fault> {
    match frame {
        LogOutput::StdOut { message } | LogOutput::StdErr { message } => {
            stamped(&message).ok_or_else(|| broken("the log has no timestamps"))
        }
        // Without a terminal there is no other kind, so the stream broke off within a frame.
        _ => Err(broken("the log broke off")),
    }
}

fn broken(reason: &str) -> Fault {
    Fault::IOError {
        err: io::Error::new(io::ErrorKind::InvalidData, reason),
    }
}

/// Splits the engine's timestamp off a frame.
fn stamped(frame: &Bytes) -> Option<Piece> {
    let space = frame.iter().position(|byte| *byte == b' ')?;
    let at = timestamp(std::str::from_utf8(&frame[..space]).ok()?)?;
    Some(Piece {
        at,
        bytes: frame.slice(space + 1..),
    })
}

/// Parses a time in the engines' format.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let parsed = DateTime::parse_from_rfc3339(text).ok()?;
    Some(parsed.with_timezone(&Utc).trunc_subsecs(3))
}

/// Returns the part of `bytes` that is left after the next `to_skip` bytes of the log are skipped.
fn beyond(mut bytes: Bytes, to_skip: &mut u64) -> Bytes {
    let skipped = usize::try_from(*to_skip)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    *to_skip -= skipped as u64;
    bytes.split_off(skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lose_their_timestamp_and_nothing_else() {
        let read = |frame: &'static [u8]| {
            stamped(&Bytes::from_static(frame)).map(|piece| (piece.at.to_rfc3339(), piece.bytes))
        };
        let (at, bytes) = read(b"2026-11-24T01:21:49.123456789+01:00 \xff a b \n").unwrap();
        assert_eq!(
            (at.as_str(), &bytes[..]),
            ("2026-11-24T00:21:49.123+00:00", b"\xff a b \n".as_slice())
        );
        assert_eq!(&read(b"2026-11-24T01:21:49Z ").unwrap().1[..], b"");
        assert_eq!(read(b"no stamp"), None);
        assert_eq!(read(b"2026-11-24T01:21:49Z"), None);
    }

    #[test]
    fn skipping_ends_anywhere_in_a_frame() {
        let mut to_skip = 7;
        let rest = ["abc", "def", "ghi", "jkl"]
            .map(|frame| beyond(Bytes::from_static(frame.as_bytes()), &mut to_skip));
        assert_eq!(rest, ["", "", "hi", "jkl"]);
        assert_eq!(to_skip, 0);
    }
}
