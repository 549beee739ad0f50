//! The ports, implemented over the state.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::NaiveDate;
use domain::{
    Timestamp,
    ecs::TaskId,
    execution::{BacklogEntry, Execution},
    group::GroupWork,
    history::{Cursor, Filter, Loaded, Page},
    id::{AttemptId, ExecutionId, Submission},
    key::KeyRecord,
    limit::{Admission, BacklogSize, LimitKey, RateKey, Usage},
    ports::{
        Claim, Created, Definitions, KeyLookup, Keys, LaunchStore, PortError, ReadStore, Secrets,
        StatisticsStore, SweepStore, Update, UpdateError, UploadRecords, WriteStore,
    },
    principal::Principal,
    quota::Rate,
    request::Name,
    scheduler::state::LimitState,
    secret::SecretRecord,
    statistics::{DatedTally, DayStatistics, Dimension, RunEnd},
    upload::UploadBatch,
};

use super::{
    meter::{Meter, Shared, counters},
    state::{Definition, State, Work},
};

/// A store in memory. Clones share the same store.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>, Arc<Mutex<Option<Interruption>>>);

/// An action of somebody else just before a call.
struct Interruption {
    call: &'static str,
    /// How many calls of this name come first.
    after: u32,
    by: Box<dyn FnOnce(&MemoryStore) + Send>,
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state for a call that is counted.
    fn call(&self, name: &'static str) -> MutexGuard<'_, State> {
        if let Some(interruption) = self.interruption(name) {
            (interruption.by)(self);
        }
        let mut state = self.state();
        state.meter.call(name);
        state
    }

    /// Runs `by` just before a call of this name, as if somebody else acted then. `after` calls of
    /// this name come first, counted from now on.
    pub fn interrupt(
        &self,
        call: &'static str,
        after: u32,
        by: impl FnOnce(&Self) + Send + 'static,
    ) {
        let interruption = Interruption {
            call,
            after,
            by: Box::new(by),
        };
        *self.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(interruption);
    }

    fn interruption(&self, call: &str) -> Option<Interruption> {
        let mut next = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let interruption = next.as_mut().filter(|next| next.call == call)?;
        match interruption.after.checked_sub(1) {
            Some(less) => interruption.after = less,
            None => return next.take(),
        }
        None
    }

    /// The store's counters.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.state().meter.clone()
    }

    /// Ends the current second of the meter and compares its writes with earlier seconds.
    pub fn second(&self) {
        self.state().meter.second();
    }

    /// How many executions have not ended.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.state().unfinished
    }

    /// Calls `look` on every record, oldest first.
    pub fn for_each(&self, look: impl FnMut(&Execution)) {
        self.state().all().for_each(look);
    }

    /// Removes and returns every record, oldest first.
    #[must_use]
    pub fn take_all(&self) -> Vec<Execution> {
        self.state().take_all()
    }

    /// Makes the record of this execution unreadable from now on.
    pub fn spoil(&self, id: &ExecutionId) {
        self.state().spoil(id);
    }

    /// Sets a secret.
    pub fn set_secret(&self, secret: SecretRecord) {
        self.state().secrets.insert(secret.name.clone(), secret);
    }
}

impl ReadStore for MemoryStore {
    async fn load(&self, id: &ExecutionId) -> Result<Option<Execution>, PortError> {
        self.call("load")
            .load(id)
            .transpose()
            .map_err(PortError::from)
    }

    async fn find(&self, fragment: &str, limit: u32) -> Result<Vec<ExecutionId>, PortError> {
        Ok(self.call("find").find(fragment, limit))
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        Ok(self.call("list").list(filter, after, limit))
    }

    /// Group work does not expire here.
    async fn group_work<W: GroupWork>(&self, group: &Name) -> Result<Option<W>, PortError> {
        let state = self.call("group_work");
        Ok(state
            .group_work
            .get(&(W::KIND, group.clone()))
            .map(Work::read))
    }

    /// Exact for a backlog of any length.
    async fn ahead(&self, backlog_entry: &BacklogEntry, _exact: u32) -> Result<u32, PortError> {
        let ahead = self
            .call("ahead")
            .backlogs
            .get(&backlog_entry.backlog)
            .map_or(0, |backlog| backlog.ahead(backlog_entry));
        Ok(u32::try_from(ahead).unwrap_or(u32::MAX))
    }

    async fn backlog(
        &self,
        key: &LimitKey,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<BacklogEntry>, PortError> {
        Ok(self
            .call("backlog")
            .backlogs
            .get(key)
            .map(|backlog| backlog.first(key, now, limit))
            .unwrap_or_default())
    }

    async fn backlog_sizes(&self, _most: u32) -> Result<Vec<BacklogSize>, PortError> {
        let state = self.call("backlog_sizes");
        let sizes = state
            .backlogs
            .iter()
            .filter_map(|(key, backlog)| backlog.size(key));
        Ok(sizes.collect())
    }

    async fn limit_state(&self, key: &LimitKey) -> Result<LimitState, PortError> {
        Ok(self
            .call("limit_state")
            .limit_states
            .get(key)
            .cloned()
            .unwrap_or_default())
    }

    async fn usage(&self, key: &LimitKey) -> Result<Usage, PortError> {
        Ok(Usage {
            used: self
                .call("usage")
                .usage
                .get(key)
                .copied()
                .unwrap_or_default(),
        })
    }

    async fn tallies(
        &self,
        dimension: Dimension,
        days: RangeInclusive<NaiveDate>,
    ) -> Result<Vec<DatedTally>, PortError> {
        let state = self.call("tallies");
        let of_days = state.statistics.range(days);
        let of_day = |(day, statistics): (&NaiveDate, &DayStatistics)| -> Vec<_> {
            let of_dimension = statistics
                .tallies
                .iter()
                .filter(|(place, _)| place.0 == dimension.stored());
            of_dimension
                .map(|(place, tally)| DatedTally {
                    day: *day,
                    slot: place.1.clone(),
                    tally: tally.clone(),
                })
                .collect()
        };
        Ok(of_days.flat_map(of_day).collect())
    }
}

impl WriteStore for MemoryStore {
    async fn create(
        &self,
        execution: &Execution,
        claim: Option<&Claim>,
    ) -> Result<Created, PortError> {
        Ok(self.call("create").create(execution, claim))
    }

    async fn create_all(&self, executions: Vec<Execution>) -> Result<Vec<Created>, PortError> {
        let mut state = self.call("create_all");
        Ok(executions
            .iter()
            .map(|execution| state.create(execution, None))
            .collect())
    }

    async fn open_submission(
        &self,
        by: &Principal,
        id: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Submission, PortError> {
        let mut state = self.call("open_submission");
        let opened = |opened_at| Submission {
            by: by.to_string(),
            id: id.to_owned(),
            opened_at,
        };
        let key = format!("{by}/{id}");
        if let Some((opened_at, _)) = state
            .submissions
            .get(&key)
            .filter(|(_, expires_at)| *expires_at > now)
        {
            return Ok(opened(*opened_at));
        }
        state.submissions.insert(key, (now, expires_at));
        Ok(opened(now))
    }

    async fn update(
        &self,
        before: &Execution,
        after: Execution,
        admissions: &[Admission],
    ) -> Result<Execution, UpdateError> {
        let mut state = self.call("update");
        counters(before, &after)
            .into_iter()
            .for_each(|counter| state.meter.write(counter));
        state.update(before, after, admissions)
    }

    async fn update_all(&self, updates: Vec<Update>) -> Vec<Result<Execution, UpdateError>> {
        let mut state = self.call("update_all");
        let changed = updates
            .iter()
            .flat_map(|update| counters(&update.before, &update.after));
        changed
            .collect::<BTreeSet<_>>()
            .into_iter()
            .for_each(|counter| state.meter.write(counter));
        let update = |Update {
                          before,
                          after,
                          admissions,
                      }| state.update(&before, after, &admissions);
        updates.into_iter().map(update).collect()
    }

    async fn set_group_work<W: GroupWork>(&self, work: &W) -> Result<bool, PortError> {
        let mut state = self.call("set_group_work");
        let key = (W::KIND, work.progress().group.clone());
        if state
            .group_work
            .get(&key)
            .is_some_and(|known| known.read::<W>().progress().revision != work.progress().revision)
        {
            return Ok(false);
        }
        state.group_work.insert(key, Work::of(work));
        Ok(true)
    }

    async fn has_backlog(&self, key: &LimitKey, now: Timestamp) -> Result<bool, PortError> {
        Ok(self
            .call("has_backlog")
            .backlogs
            .get(key)
            .is_some_and(|backlog| backlog.has_due(now)))
    }
}

impl LaunchStore for MemoryStore {
    async fn set_limit_state(
        &self,
        key: &LimitKey,
        before: &LimitState,
        after: LimitState,
    ) -> Result<bool, PortError> {
        let mut state = self.call("set_limit_state");
        state.meter.write(Shared::Backlog(key.clone()));
        let known = state.limit_states.entry(key.clone()).or_default();
        if known.revision != before.revision {
            return Ok(false);
        }
        *known = LimitState {
            revision: before.revision + 1,
            ..after
        };
        Ok(true)
    }

    async fn take_tokens(
        &self,
        key: RateKey,
        rate: Rate,
        want: u32,
        now: Timestamp,
    ) -> Result<(u32, u64), PortError> {
        let mut state = self.call("take_tokens");
        state.meter.tokens(key);
        let bucket = state.buckets.entry(key).or_default();
        let (granted, after) = bucket.take(rate, want, now);
        *bucket = after;
        Ok((granted, after.wait_millis(rate, now)))
    }
}

impl SweepStore for MemoryStore {
    type Survey = ();

    async fn of_task(&self, task: &TaskId) -> Result<Option<ExecutionId>, PortError> {
        Ok(self.call("of_task").of_task(task))
    }

    async fn launched(
        &self,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Page<Loaded>, PortError> {
        Ok(self.call("launched").launched(after, limit))
    }

    async fn backlogs(&self, now: Timestamp) -> Result<Vec<LimitKey>, PortError> {
        let state = self.call("backlogs");
        let due = state
            .backlogs
            .iter()
            .filter(|(_, backlog)| backlog.has_due(now));
        Ok(due.map(|(key, _)| key.clone()).collect())
    }

    async fn open_group_work<W: GroupWork>(&self) -> Result<Vec<W>, PortError> {
        let state = self.call("open_group_work");
        let of_kind = state
            .group_work
            .iter()
            .filter(|((kind, _), _)| *kind == W::KIND);
        Ok(of_kind
            .map(|(_, work)| work.read::<W>())
            .filter(|work| !work.progress().done)
            .collect())
    }

    /// Does nothing: usage changes in the same step as the record that holds it.
    async fn reconcile(&self, (): ()) -> Result<(), PortError> {
        Ok(())
    }

    async fn bookmark(&self) -> Result<Option<Cursor>, PortError> {
        Ok(self.call("bookmark").bookmark.clone())
    }

    async fn set_bookmark(&self, at: Option<&Cursor>) -> Result<(), PortError> {
        self.call("set_bookmark").bookmark = at.cloned();
        Ok(())
    }
}

impl StatisticsStore for MemoryStore {
    async fn load_all(&self, ids: &[ExecutionId]) -> Result<Vec<Loaded>, PortError> {
        let state = self.call("load_all");
        Ok(ids.iter().filter_map(|id| state.load(id)).collect())
    }

    async fn day_statistics(
        &self,
        day: NaiveDate,
        ends: &[RunEnd],
    ) -> Result<DayStatistics, PortError> {
        let state = self.call("day_statistics");
        let Some(mut statistics) = state.statistics.get(&day).cloned() else {
            return Ok(DayStatistics::empty(day));
        };
        let asked: BTreeSet<_> = ends.iter().map(|end| &end.id).collect();
        statistics.counted.retain(|id| asked.contains(id));
        Ok(statistics)
    }

    async fn set_day_statistics(
        &self,
        before: &DayStatistics,
        after: &DayStatistics,
        counted: &[RunEnd],
    ) -> Result<bool, PortError> {
        let mut state = self.call("set_day_statistics");
        let whole = state
            .statistics
            .entry(before.day)
            .or_insert_with(|| DayStatistics::empty(before.day));
        if whole.revision != before.revision {
            return Ok(false);
        }
        let mut ids = std::mem::take(&mut whole.counted);
        ids.extend(counted.iter().map(|end| end.id.clone()));
        *whole = DayStatistics {
            counted: ids,
            ..after.clone()
        };
        Ok(true)
    }
}

impl Definitions for MemoryStore {
    async fn definition(&self, hash: &str) -> Result<Option<String>, PortError> {
        Ok(match self.state().definitions.get(hash) {
            Some(Definition::Registered(arn)) => Some(arn.clone()),
            Some(Definition::Turn(_)) | None => None,
        })
    }

    async fn claim_definition(
        &self,
        hash: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, PortError> {
        let mut state = self.state();
        let free = match state.definitions.get(hash) {
            Some(Definition::Registered(_)) => false,
            Some(Definition::Turn(other)) => *other <= now,
            None => true,
        };
        if free {
            state
                .definitions
                .insert(hash.to_owned(), Definition::Turn(until));
        }
        Ok(free)
    }

    async fn keep_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        self.state()
            .definitions
            .insert(hash.to_owned(), Definition::Registered(arn.to_owned()));
        Ok(())
    }

    async fn forget_definition(&self, hash: &str, arn: &str) -> Result<(), PortError> {
        let is_it = |definition: &Definition| matches!(definition, Definition::Registered(known) if known == arn);
        let mut state = self.state();
        if state.definitions.get(hash).is_some_and(is_it) {
            state.definitions.remove(hash);
        }
        Ok(())
    }
}

impl UploadRecords for MemoryStore {
    async fn upload_batch(
        &self,
        attempt: &AttemptId,
        number: u32,
    ) -> Result<Option<UploadBatch>, PortError> {
        let key = (attempt.clone(), number);
        Ok(self.state().uploads.get(&key).cloned())
    }

    async fn begin_upload_batch(
        &self,
        attempt: &AttemptId,
        batch: &UploadBatch,
        _expires_at: Timestamp,
    ) -> Result<UploadBatch, PortError> {
        let key = (attempt.clone(), batch.number);
        let mut state = self.state();
        Ok(state
            .uploads
            .entry(key)
            .or_insert_with(|| batch.clone())
            .clone())
    }
}

impl KeyLookup for MemoryStore {
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, PortError> {
        let state = self.state();
        Ok(state
            .keys
            .values()
            .chain(&state.retired_keys)
            .find(|key| key.id == id)
            .cloned())
    }
}

impl Keys for MemoryStore {
    async fn list_keys(&self) -> Result<Vec<KeyRecord>, PortError> {
        Ok(self.state().keys.values().cloned().collect())
    }

    async fn add_key(&self, key: &KeyRecord) -> Result<bool, PortError> {
        let mut state = self.state();
        let free = !state.keys.contains_key(&key.name);
        if free {
            state.keys.insert(key.name.clone(), key.clone());
        }
        Ok(free)
    }

    async fn rotate_key(&self, old: &KeyRecord, new: &KeyRecord) -> Result<bool, PortError> {
        let mut state = self.state();
        if state
            .keys
            .get(&new.name)
            .is_none_or(|known| known.id != old.id)
        {
            return Ok(false);
        }
        state.keys.insert(new.name.clone(), new.clone());
        state.retired_keys.push(old.clone());
        state
            .retired_keys
            .retain(|key| key.name != new.name || new.keeps(&key.id));
        Ok(true)
    }

    async fn remove_key(&self, name: &str) -> Result<bool, PortError> {
        let mut state = self.state();
        state.retired_keys.retain(|key| key.name != name);
        Ok(state.keys.remove(name).is_some())
    }
}

impl Secrets for MemoryStore {
    async fn find_secret(&self, name: &str) -> Result<Option<SecretRecord>, PortError> {
        Ok(self.state().secrets.get(name).cloned())
    }

    fn how_to_set(&self, name: &str) -> String {
        format!("set {name} with MemoryStore::set_secret")
    }
}
