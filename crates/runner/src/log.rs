//! The form of a task's log on one machine: one file for each task, in the format of Kubernetes'
//! CRI.
//!
//! Each line is `<RFC 3339 time> <F|P> <text>`. `F` ends a line of output. `P` is a part of one: of
//! a very long line, or of a last line that has no newline. From the file alone the writer can
//! count the bytes of output, so after a crash it continues exactly where it was.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use chrono::SecondsFormat;
use domain::{Timestamp, ports::LogLine};

/// The longest text in one line of the file, without the newline: the size of a CloudWatch Logs
/// event (256 KB). A longer line of output is cut into parts.
pub const PART_MAX: usize = 256 * 1024;
/// The most bytes of one character in UTF-8 (RFC 3629).
pub const CHARACTER_MAX: usize = 4;
/// Appends a task's output to its log.
#[derive(Debug)]
pub struct LogWriter {
    file: File,
    /// Bytes of output written to the file.
    written: u64,
    /// The current line, which has no newline yet.
    partial: Vec<u8>,
    /// The text that is still to be written, in the file's form, and its bytes of output.
    unwritten: (Vec<u8>, u64),
}

impl LogWriter {
    /// Opens a new or an existing log. A line that a crash cut short is removed, and is to be
    /// written again.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut written = 0;
        if file.metadata()?.len() > 0 {
            let (payload, whole) = measure(&mut BufReader::new(&file))?;
            file.set_len(whole)?;
            file.seek(SeekFrom::End(0))?;
            written = payload;
        }
        Ok(Self {
            file,
            written,
            partial: Vec::new(),
            unwritten: (Vec::new(), 0),
        })
    }

    /// How many bytes of output it has taken. A source that starts again continues from there.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.written + self.unwritten.1 + self.partial.len() as u64
    }

    /// Takes the next bytes of output. Writes the whole lines to the file, and returns them.
    ///
    /// # Errors
    /// When the file cannot be written (a full disk). The bytes are taken all the same:
    /// [`LogWriter::flush`] writes them.
    pub fn append(&mut self, at: Timestamp, bytes: &[u8]) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            while let Some(length) = next_part(&self.partial) {
                let text: Vec<u8> = self.partial.drain(..length).collect();
                lines.push(self.encode(at, &text));
            }
        }
        self.flush().map(|()| lines)
    }

    /// Ends the output. A last line without a newline is written as it is.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn finish(&mut self, at: Timestamp) -> io::Result<Option<LogLine>> {
        let line = match self.partial.is_empty() {
            true => None,
            false => {
                let text = std::mem::take(&mut self.partial);
                Some(self.encode(at, &text))
            }
        };
        self.flush().map(|()| line)
    }

    /// Writes what could not be written before.
    ///
    /// # Errors
    /// When it still cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.unwritten.0.is_empty() {
            match self.file.write(&self.unwritten.0) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.unwritten.0.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.written += std::mem::take(&mut self.unwritten.1);
        Ok(())
    }

    fn encode(&mut self, at: Timestamp, text: &[u8]) -> LogLine {
        self.unwritten.1 += text.len() as u64;
        encode(at, text, &mut self.unwritten.0)
    }
}

/// The length of the first part of `line`, with its newline if it comes that far; `None` while the
/// part may still grow.
#[must_use]
pub fn next_part(line: &[u8]) -> Option<usize> {
    let text = line.strip_suffix(b"\n");
    if text.unwrap_or(line).len() > PART_MAX {
        return Some(cut(line));
    }
    text.map(|_| line.len())
}

/// Where to cut a line that is longer than a part: before the character that does not fit as a
/// whole. Bytes that are not UTF-8 are cut at the limit.
fn cut(line: &[u8]) -> usize {
    let is_beginning = |at: &usize| line[*at] & 0b1100_0000 != 0b1000_0000;
    let Some(at) = (PART_MAX + 1 - CHARACTER_MAX..=PART_MAX)
        .rev()
        .find(is_beginning)
    else {
        return PART_MAX;
    };
    let character = &line[at..line.len().min(at + CHARACTER_MAX)];
    let valid = match std::str::from_utf8(character) {
        Ok(text) => text.len(),
        // The rest of the character has not arrived yet.
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => CHARACTER_MAX,
        Err(error) => error.valid_up_to(),
    };
    if at + valid > PART_MAX { at } else { PART_MAX }
}

/// Writes one piece of output, with its newline if it has one, in the file's format.
fn encode(at: Timestamp, text: &[u8], out: &mut Vec<u8>) -> LogLine {
    let (body, tag) = text
        .strip_suffix(b"\n")
        .map_or((text, 'P'), |body| (body, 'F'));
    out.extend_from_slice(at.to_rfc3339_opts(SecondsFormat::Millis, true).as_bytes());
    out.extend_from_slice(&[b' ', tag as u8, b' ']);
    out.extend_from_slice(body);
    out.push(b'\n');
    LogLine {
        at,
        text: String::from_utf8_lossy(body).into_owned(),
    }
}

/// The bytes of output in the whole lines of the file, and the bytes of the file that those lines
/// take.
fn measure(reader: &mut impl BufRead) -> io::Result<(u64, u64)> {
    let (mut payload, mut whole, mut line) = (0, 0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        let Some((_, tag, text)) = decode(&line) else {
            break;
        };
        payload += text.len() as u64 + u64::from(tag == b'F');
        whole += line.len() as u64;
        line.clear();
    }
    Ok((payload, whole))
}

/// Reads a whole line of the file: time, tag and text.
#[must_use]
pub fn decode(line: &[u8]) -> Option<(Timestamp, u8, &[u8])> {
    let line = line.strip_suffix(b"\n")?;
    let end = line.iter().position(|byte| *byte == b' ')?;
    let at = std::str::from_utf8(&line[..end]).ok()?.parse().ok()?;
    let (tag, text) = (*line.get(end + 1)?, line.get(end + 3..)?);
    Some((at, tag, text))
}
