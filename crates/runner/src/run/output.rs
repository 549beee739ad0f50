//! The keeper's way to the log.

use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use chrono::Utc;

use crate::log::LogWriter;

/// How long to wait before a write that failed is tried again. The usual cause is a full disk, and
/// nobody frees one faster than in 1 s.
const AGAIN: Duration = Duration::from_secs(1);

/// The log of a run, as its keeper writes it. Text that the disk does not take is kept and tried again.
pub(super) struct Output {
    log: LogWriter,
    blocked_until: Option<Instant>,
    /// Whether the log is as long as it may be (`ulimit -f`). Nothing more is written then.
    is_full: bool,
}

impl Output {
    /// Opens the log.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            log: LogWriter::open(path)?,
            blocked_until: None,
            is_full: false,
        })
    }

    /// Writes output of the command.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.is_full {
            return;
        }
        let written = self.log.append(Utc::now(), bytes).map(drop);
        self.note_failure(&written);
    }

    /// Writes a line of its own, also after a line of the command that has no end.
    pub(super) fn line(&mut self, text: &str) {
        self.end();
        self.write(format!("{text}\n").as_bytes());
    }

    /// Writes a note of ours.
    pub(super) fn note(&mut self, text: &str) {
        self.line(&format!("mycli: {text}"));
    }

    /// Ends the line of the command that has no end.
    pub(super) fn end(&mut self) {
        let ended = self.log.finish(Utc::now()).map(drop);
        self.note_failure(&ended);
    }

    /// Until when nothing can be written, if that is so.
    pub(super) fn blocked_until(&self) -> Option<Instant> {
        self.blocked_until
    }

    /// Tries again to write what could not be written.
    pub(super) fn retry(&mut self) {
        if self.blocked_until.is_some_and(|at| at <= Instant::now()) {
            let flushed = self.log.flush();
            self.note_failure(&flushed);
        }
    }

    /// Waits until everything is written.
    pub(super) fn settle(&mut self) {
        while let Some(at) = self.blocked_until {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            self.retry();
        }
    }

    fn note_failure(&mut self, written: &io::Result<()>) {
        self.is_full |=
            matches!(written, Err(error) if error.kind() == io::ErrorKind::FileTooLarge);
        self.blocked_until = (written.is_err() && !self.is_full).then(|| Instant::now() + AGAIN);
    }
}
