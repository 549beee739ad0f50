//! The records, and the data derived from them in the same write.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use domain::{
    Timestamp,
    ecs::TaskId,
    error::Corrupt,
    execution::Execution,
    group::{GroupWork, GroupWorkKind},
    history::{Cursor, Filter, Loaded, Page},
    id::{AttemptId, ExecutionId},
    key::KeyRecord,
    limit::{Admission, Allocation, LimitKey, RateKey},
    ports::{Claim, Created, UpdateError},
    quota::TokenBucket,
    request::Name,
    scheduler::state::LimitState,
    secret::SecretRecord,
    statistics::DayStatistics,
    stored,
    upload::UploadBatch,
};

use super::{backlog::Backlog, find::Names, meter::Meter};

/// A task definition: somebody's turn to register it, until a time, or its registered ARN.
pub(super) enum Definition {
    Turn(Timestamp),
    Registered(String),
}

/// A piece of group work in its stored form.
pub(super) struct Work(serde_json::Value);

impl Work {
    /// Stores the work with its revision counted up.
    pub(super) fn of<W: GroupWork>(work: &W) -> Self {
        Self(
            stored::write(&work.next_revision(), &work.progress().unknown)
                .expect("it can be spelled in JSON"),
        )
    }

    pub(super) fn read<W: GroupWork>(&self) -> W {
        let (work, unknown) = stored::read::<W>(self.0.clone()).expect("it was written as this");
        work.with_unknown(unknown)
    }
}

struct Claimed {
    claim: Claim,
    id: ExecutionId,
}

/// Everything the store keeps.
#[derive(Default)]
pub(super) struct State {
    records: BTreeMap<ExecutionId, Execution>,
    /// The executions whose records cannot be read.
    spoilt: BTreeSet<ExecutionId>,
    open: BTreeSet<ExecutionId>,
    /// How many executions have not ended.
    pub(super) unfinished: usize,
    names: Names,
    claims: BTreeMap<String, Claimed>,
    /// When each submission was opened, and when it expires.
    pub(super) submissions: BTreeMap<String, (Timestamp, Timestamp)>,
    pub(super) backlogs: BTreeMap<LimitKey, Backlog>,
    pub(super) limit_states: BTreeMap<LimitKey, LimitState>,
    pub(super) usage: BTreeMap<LimitKey, u32>,
    pub(super) buckets: BTreeMap<RateKey, TokenBucket>,
    /// Group work by kind and group.
    pub(super) group_work: BTreeMap<(GroupWorkKind, Name), Work>,
    /// The files that attempts may upload, by batch.
    pub(super) uploads: BTreeMap<(AttemptId, u32), UploadBatch>,
    pub(super) bookmark: Option<Cursor>,
    pub(super) definitions: BTreeMap<String, Definition>,
    pub(super) keys: BTreeMap<String, KeyRecord>,
    /// Rotated keys that are still valid, found by name.
    pub(super) retired_keys: Vec<KeyRecord>,
    pub(super) secrets: BTreeMap<String, SecretRecord>,
    /// The statistics of each day, whole.
    pub(super) statistics: BTreeMap<NaiveDate, DayStatistics>,
    pub(super) meter: Meter,
}

impl State {
    pub(super) fn load(&self, id: &ExecutionId) -> Option<Loaded> {
        self.records.get(id).map(|record| self.loaded(record))
    }

    /// Makes the record of this execution unreadable from now on.
    pub(super) fn spoil(&mut self, id: &ExecutionId) {
        self.spoilt.insert(id.clone());
    }

    fn loaded(&self, record: &Execution) -> Loaded {
        if self.spoilt.contains(&record.id) {
            return Err(Corrupt::execution(
                record.id.clone(),
                "it was spoilt by a test",
            ));
        }
        Ok(record.clone())
    }

    pub(super) fn create(&mut self, execution: &Execution, claim: Option<&Claim>) -> Created {
        if self.records.contains_key(&execution.id) {
            return Created::Existing(execution.id.clone());
        }
        if let Some(taken) = claim.and_then(|claim| self.taken(claim, execution.submitted_at)) {
            return taken;
        }
        if let Some(claim) = claim {
            let claimed = Claimed {
                claim: claim.clone(),
                id: execution.id.clone(),
            };
            self.claims.insert(claim.key.clone(), claimed);
        }
        self.names.add(&execution.id);
        self.derive(None, execution);
        self.records.insert(execution.id.clone(), execution.clone());
        Created::New
    }

    fn taken(&self, claim: &Claim, now: Timestamp) -> Option<Created> {
        let Claimed { claim: known, id } = self
            .claims
            .get(&claim.key)
            .filter(|held| held.claim.expires_at > now)?;
        Some(if known.digest == claim.digest {
            Created::Existing(id.clone())
        } else {
            Created::Mismatch(id.clone())
        })
    }

    pub(super) fn update(
        &mut self,
        before: &Execution,
        after: Execution,
        admissions: &[Admission],
    ) -> Result<Execution, UpdateError> {
        let current = self
            .records
            .get(&before.id)
            .filter(|record| record.revision == before.revision);
        let before = current.ok_or(UpdateError::Conflict)?.clone();
        if let Some(full) = self.first_full(&before, &after, admissions) {
            return Err(UpdateError::Full(full));
        }
        let written = Execution {
            revision: before.revision + 1,
            ..after
        };
        self.derive(Some(&before), &written);
        self.records.insert(written.id.clone(), written.clone());
        Ok(written)
    }

    /// Returns the first limit that the change would overdraw.
    fn first_full(
        &self,
        before: &Execution,
        after: &Execution,
        admissions: &[Admission],
    ) -> Option<LimitKey> {
        let (held, holds) = (before.allocations(), after.allocations());
        let amount = |allocations: &[Allocation], key: &LimitKey| {
            allocations
                .iter()
                .filter(|allocation| allocation.key == *key)
                .map(|allocation| i64::from(allocation.amount))
                .sum::<i64>()
        };
        let overdrawn = admissions.iter().find(|Admission { key, max }| {
            let used = i64::from(self.usage.get(key).copied().unwrap_or_default());
            max.is_some_and(|max| used + amount(&holds, key) - amount(&held, key) > i64::from(max))
        });
        overdrawn.map(|admission| admission.key.clone())
    }

    pub(super) fn of_task(&self, task: &TaskId) -> Option<ExecutionId> {
        self.names.of_task(task)
    }

    /// Updates backlogs, usage and names after a change of a record.
    fn derive(&mut self, before: Option<&Execution>, after: &Execution) {
        for allocation in before.map(Execution::allocations).unwrap_or_default() {
            self.release(&allocation);
        }
        for allocation in after.allocations() {
            *self.usage.entry(allocation.key).or_default() += allocation.amount;
        }
        for arn in after
            .attempts
            .iter()
            .filter_map(|attempt| attempt.task_arn.as_ref())
        {
            self.names.add_task(arn, &after.id);
        }
        self.unfinished += usize::from(before.is_none());
        let had_ended = before.is_some_and(|before| before.end().is_some());
        self.unfinished -= usize::from(after.end().is_some() && !had_ended);
        match after.open_attempt() {
            Some(_) => self.open.insert(after.id.clone()),
            None => self.open.remove(&after.id),
        };
        self.move_entry(before, after);
    }

    fn release(&mut self, allocation: &Allocation) {
        if let Some(used) = self.usage.get_mut(&allocation.key) {
            *used = used.saturating_sub(allocation.amount);
            if *used == 0 {
                self.usage.remove(&allocation.key);
            }
        }
    }

    /// Moves the record's backlog entry. An empty backlog is dropped, and the next entry creates a
    /// new one.
    fn move_entry(&mut self, before: Option<&Execution>, after: &Execution) {
        let (old, new) = (
            before.and_then(Execution::backlog_entry),
            after.backlog_entry(),
        );
        if let Some(old) = old.filter(|old| new.as_ref() != Some(old)) {
            if let Some(backlog) = self.backlogs.get_mut(&old.backlog) {
                backlog.remove(&old);
                if backlog.is_empty() {
                    self.backlogs.remove(&old.backlog);
                }
            }
            for key in after.started_from() {
                if let Some(backlog) = self.backlogs.get_mut(&key) {
                    backlog.charge(&old.submitter);
                }
            }
        }
        if let Some(new) = new {
            self.backlogs
                .entry(new.backlog.clone())
                .or_default()
                .add(&new);
        }
    }

    pub(super) fn find(&self, fragment: &str, limit: u32) -> Vec<ExecutionId> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.names.find(fragment, limit, |beginning| {
            let beginning = beginning.to_owned();
            self.records
                .keys()
                .filter(move |id| id.as_str().starts_with(&beginning))
        })
    }

    /// Lists records, newest first. It applies filters to one record at a time, since a simulation
    /// reads little history.
    pub(super) fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: u32) -> Page<Loaded> {
        let older = self
            .records
            .values()
            .rev()
            .filter(|record| after.is_none_or(|cursor| record.id < cursor.0));
        let admits = |record: &&Execution| {
            filter.admits(record) && (filter.status.is_none() || !self.spoilt.contains(&record.id))
        };
        self.page(older.filter(admits), limit)
    }

    /// Lists launched records, oldest first.
    pub(super) fn launched(&self, after: Option<&Cursor>, limit: u32) -> Page<Loaded> {
        let later = self
            .open
            .iter()
            .filter(|id| after.is_none_or(|cursor| **id > cursor.0));
        self.page(later.filter_map(|id| self.records.get(id)), limit)
    }

    fn page<'a>(
        &self,
        mut records: impl Iterator<Item = &'a Execution>,
        limit: u32,
    ) -> Page<Loaded> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let shown: Vec<_> = records.by_ref().take(limit).collect();
        let next = records
            .next()
            .and(shown.last())
            .map(|last| Cursor(last.id.clone()));
        Page {
            items: shown
                .into_iter()
                .map(|record| self.loaded(record))
                .collect(),
            next,
        }
    }

    pub(super) fn take_all(&mut self) -> Vec<Execution> {
        std::mem::take(&mut self.records).into_values().collect()
    }

    /// Every record, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Execution> {
        self.records.values()
    }
}
