//! The story of a run: what each process did, in order. It helps to understand a seed that failed.

use std::sync::Mutex;

use domain::{Timestamp, ports::Clock};

use super::super::{script::locked, start, time::Virtual};

/// The story so far. Nothing is recorded unless it was asked for.
pub(super) struct Story {
    lines: Option<Mutex<Vec<String>>>,
    time: Virtual,
}

impl Story {
    pub(super) fn new(time: Virtual, told: bool) -> Self {
        Self {
            lines: told.then(Mutex::default),
            time,
        }
    }

    /// Adds a line: `who` did `what`.
    pub(super) fn tell(&self, who: &str, what: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            locked(lines).push(format!("{} {who}: {}", clock(self.time.now()), what()));
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines
            .as_ref()
            .map(|lines| locked(lines).clone())
            .unwrap_or_default()
    }
}

/// A time as minutes, seconds and milliseconds since the beginning.
pub(super) fn clock(at: Timestamp) -> String {
    let millis = (at - start()).num_milliseconds();
    format!(
        "{:02}:{:02}.{:03}",
        millis / 60_000,
        millis / 1000 % 60,
        millis % 1000
    )
}
