//! Reads a container's log from any byte on.
//!
//! The engine keeps the whole log, and each reading gives the same bytes. So the number of bytes
//! taken is all that must be remembered, after a broken connection and after a crash of mycli
//! alike.

use std::{future::ready, io};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as Fault;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, SubsecRound, Utc};
use domain::Timestamp;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use runner::log::next_part;

/// How far to read the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// To the container's end, while it writes.
    ContainerEnds,
    /// To the current end of a log that may grow. A line without its end is left out.
    Now,
    /// To the end of an ended container's log.
    End,
    /// Only the last piece before the current end.
    NewestOnly,
}

/// A piece of output: a line with its newline, or a part of a line that is longer than
/// [`log_file`](crate::log_file) takes at once, or the rest of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// When the engine received it.
    pub(super) at: Timestamp,
    pub(super) bytes: Bytes,
}

/// Reads the bytes after the first `taken` bytes of stdout and stderr together, in the order in
/// which their lines ended.
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
    let frames = docker.logs(id, Some(options.build())).map(Some);
    let is_rest = matches!(until, Until::End | Until::NewestOnly);
    let (mut lines, mut to_skip) = (Lines::default(), taken);
    frames
        .chain(stream::once(ready(None)))
        .map(move |frame| match frame {
            Some(frame) => frame.and_then(|frame| lines.take(frame)),
            None if is_rest => Ok(lines.rest()),
            None => Ok(Vec::new()),
        })
        .map_ok(|pieces| stream::iter(pieces.into_iter().map(Ok)))
        .try_flatten()
        .map_ok(move |piece| Piece {
            bytes: beyond(piece.bytes, &mut to_skip),
            ..piece
        })
        .try_filter(|piece| ready(!piece.bytes.is_empty()))
}

/// The lines of stdout and of stderr that have not ended yet. An engine passes on a line in parts,
/// wherever its buffer was full, and between two of them a part of the other stream. Put together
/// as they come, they would make lines that the command never wrote.
#[derive(Default)]
struct Lines {
    out: Line,
    err: Line,
}

/// A line that has not ended yet, and when its last part came.
#[derive(Default)]
struct Line {
    at: Timestamp,
    bytes: BytesMut,
}

impl Lines {
    /// Takes a frame, and returns the pieces that it completes.
    fn take(&mut self, frame: LogOutput) -> Result<Vec<Piece>, Fault> {
        let (line, message) = match frame {
            LogOutput::StdOut { message } => (&mut self.out, message),
            LogOutput::StdErr { message } => (&mut self.err, message),
            // Without a terminal there is no other kind, so the stream broke off within a frame.
            _ => return Err(broken("the log broke off")),
        };
        let part = stamped(&message).ok_or_else(|| broken("the log has no timestamps"))?;
        line.at = part.at;
        let mut pieces = Vec::new();
        for bytes in part.bytes.split_inclusive(|byte| *byte == b'\n') {
            line.bytes.extend_from_slice(bytes);
            while let Some(length) = next_part(&line.bytes) {
                pieces.push(Piece {
                    at: line.at,
                    bytes: line.bytes.split_to(length).freeze(),
                });
            }
        }
        Ok(pieces)
    }

    /// Returns what has no end.
    fn rest(&mut self) -> Vec<Piece> {
        let lines = [&mut self.out, &mut self.err];
        let rest = lines.map(|line| Piece {
            at: line.at,
            bytes: line.bytes.split().freeze(),
        });
        rest.into()
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

    /// A line of stdout whose end comes after a line of stderr, as an engine passes them on whose
    /// buffer was full just before the line's end.
    #[test]
    fn lines_of_the_two_streams_are_not_mixed() {
        let frame = |text: &str| Bytes::from(format!("2026-11-24T01:21:49Z {text}"));
        let out = |text| LogOutput::StdOut {
            message: frame(text),
        };
        let err = |text| LogOutput::StdErr {
            message: frame(text),
        };
        let mut lines = Lines::default();
        let frames = [out("1859\n"), out("18"), err("end"), out("60"), err("ed\n")];
        let mut pieces: Vec<_> = frames
            .into_iter()
            .flat_map(|frame| lines.take(frame).unwrap())
            .collect();
        pieces.extend(lines.take(out("\nla")).unwrap());
        pieces.extend(lines.rest());
        let texts: Vec<_> = pieces.iter().map(|piece| &piece.bytes[..]).collect();
        let expected: [&[u8]; 5] = [b"1859\n", b"ended\n", b"1860\n", b"la", b""];
        assert_eq!(texts, expected);
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
