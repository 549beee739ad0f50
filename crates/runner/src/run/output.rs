//! The keeper's way to the log.

use std::{
    io::{self, PipeReader, Write},
    os::fd::AsFd,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use chrono::Utc;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, fchmod},
};

use crate::log::LogWriter;

/// How long to wait before a write that failed is tried again. The usual cause is a full disk, and
/// nobody frees one faster than in 1 s.
const AGAIN: Duration = Duration::from_secs(1);

/// The place where the lines of a run go.
pub(super) enum Output {
    /// Into a file, which the keeper alone writes.
    File(FileOutput),
    /// To the keeper's own streams, which the command has too. A container's engine reads them.
    Streams,
}

/// The streams of a child.
pub(super) struct Streams {
    pub(super) out: Stdio,
    pub(super) err: Stdio,
    /// The other end of both, if the keeper is to read them.
    pub(super) reading: Option<PipeReader>,
}

impl Output {
    /// Opens a log, if there is one.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(log: Option<&Path>) -> io::Result<Self> {
        match log {
            Some(path) => Ok(Self::File(FileOutput::open(path)?)),
            None => Ok(Self::Streams),
        }
    }

    /// The streams for a child.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn for_child(&self) -> io::Result<Streams> {
        if matches!(self, Self::Streams) {
            return Ok(Streams {
                out: Stdio::inherit(),
                err: Stdio::inherit(),
                reading: None,
            });
        }
        // Both streams go into one pipe, so that their order stays.
        let (reading, writing) = io::pipe()?;
        rustix::io::ioctl_fionbio(&reading, true)?;
        // Lets a command that has changed its user open /dev/stdout. Where pipes have no modes, it
        // cannot.
        let _refused = fchmod(&writing, Mode::from_raw_mode(0o622));
        Ok(Streams {
            out: writing.try_clone()?.into(),
            err: writing.into(),
            reading: Some(reading),
        })
    }

    /// Writes output that the keeper has read.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Streams => write_all(&mut io::stderr(), bytes),
        }
    }

    /// Writes a line of its own, also after a line of the command that has no end.
    pub(super) fn line(&mut self, text: &str) {
        if let Self::File(file) = self {
            file.end();
        }
        // One write: the command may write to the same stream.
        self.write(format!("{text}\n").as_bytes());
    }

    /// Writes the last line of both streams. The log is complete once both have it, since an engine
    /// may read one of them later than the other.
    pub(super) fn last_line(&mut self, text: &str) {
        self.line(text);
        match self {
            Self::File(_) => self.line(text),
            Self::Streams => write_all(&mut io::stdout(), format!("{text}\n").as_bytes()),
        }
    }

    /// Writes a note of ours.
    pub(super) fn note(&mut self, text: &str) {
        self.line(&format!("mycli: {text}"));
    }

    /// Until when nothing can be written, if that is so.
    pub(super) fn blocked_until(&self) -> Option<Instant> {
        match self {
            Self::File(file) => file.blocked_until,
            Self::Streams => None,
        }
    }

    /// Tries again to write what could not be written.
    pub(super) fn retry(&mut self) {
        if let Self::File(file) = self {
            file.retry();
        }
    }

    /// Waits until everything is written.
    pub(super) fn settle(&mut self) {
        while let Some(at) = self.blocked_until() {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            self.retry();
        }
    }
}

/// Writes to a stream that the command has too, and may have made non-blocking. A stream that
/// nobody reads any more is no reason to end otherwise.
fn write_all(stream: &mut (impl Write + AsFd), mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(stream.as_fd(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let _signal = poll(&mut [PollFd::new(stream, PollFlags::OUT)], None);
            }
            Err(_) => return,
        }
    }
}

/// The log of a run, as its keeper writes it. Text that the disk does not take is kept and tried
/// again.
pub(super) struct FileOutput {
    log: LogWriter,
    blocked_until: Option<Instant>,
    /// Whether the log is as long as it may be (`ulimit -f`). Nothing more is written then.
    is_full: bool,
}

impl FileOutput {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            log: LogWriter::open(path)?,
            blocked_until: None,
            is_full: false,
        })
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.is_full {
            return;
        }
        let written = self.log.append(Utc::now(), bytes).map(drop);
        self.note_failure(&written);
    }

    /// Ends the line of the command that has no end.
    fn end(&mut self) {
        let ended = self.log.finish(Utc::now()).map(drop);
        self.note_failure(&ended);
    }

    fn retry(&mut self) {
        if self.blocked_until.is_some_and(|at| at <= Instant::now()) {
            let flushed = self.log.flush();
            self.note_failure(&flushed);
        }
    }

    fn note_failure(&mut self, written: &io::Result<()>) {
        self.is_full |=
            matches!(written, Err(error) if error.kind() == io::ErrorKind::FileTooLarge);
        self.blocked_until = (written.is_err() && !self.is_full).then(|| Instant::now() + AGAIN);
    }
}
