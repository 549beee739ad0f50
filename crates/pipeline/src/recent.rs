//! A cache of recent log reads: many followers of the same run cost one call a second and not one
//! each.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use chrono::TimeDelta;
use domain::{
    Timestamp,
    ports::{Clock, LogLine, LogPage, Logs, ReadError},
};

/// How long a part is remembered. It is short because new lines are shown up to this much later.
const REMEMBERED: TimeDelta = TimeDelta::seconds(1);
/// The most parts that are remembered. A part has at most a megabyte, and a function half a
/// gigabyte.
const PARTS_MAX: usize = 32;

/// Logs that are not asked for the same part of a stream twice in a second.
#[derive(Debug)]
pub struct Recent<'a, L, A> {
    logs: L,
    clock: &'a A,
    parts: Mutex<HashMap<Part, (Timestamp, LogPage)>>,
}

/// A stream, and the cursor of a part of it.
type Part = (String, Option<String>);

impl<'a, L, A: Clock> Recent<'a, L, A> {
    /// Returns the logs with a cache.
    pub fn new(logs: L, clock: &'a A) -> Self {
        Self {
            logs,
            clock,
            parts: Mutex::default(),
        }
    }

    fn remembered(&self, part: &Part) -> Option<LogPage> {
        let (now, parts) = (
            self.clock.now(),
            self.parts.lock().unwrap_or_else(PoisonError::into_inner),
        );
        let (at, page) = parts.get(part)?;
        is_recent(*at, now).then(|| page.clone())
    }

    fn remember(&self, part: Part, page: LogPage) {
        let (now, mut parts) = (
            self.clock.now(),
            self.parts.lock().unwrap_or_else(PoisonError::into_inner),
        );
        parts.retain(|_, (at, _)| is_recent(*at, now));
        if parts.len() < PARTS_MAX {
            parts.insert(part, (now, page));
        }
    }
}

fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    at <= now && now - at < REMEMBERED
}

impl<L: Logs, A: Clock> Logs for Recent<'_, L, A> {
    async fn read(&self, stream: &str, cursor: Option<&str>) -> Result<LogPage, ReadError> {
        let part = (stream.to_owned(), cursor.map(str::to_owned));
        if let Some(page) = self.remembered(&part) {
            return Ok(page);
        }
        let page = self.logs.read(stream, cursor).await?;
        self.remember(part, page.clone());
        Ok(page)
    }

    async fn last(&self, stream: &str) -> Result<Vec<LogLine>, ReadError> {
        self.logs.last(stream).await
    }
}
