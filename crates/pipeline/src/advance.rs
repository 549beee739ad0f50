//! The one way in which something stored changes: load it, decide, write it if it is unchanged, and
//! decide again if another writer was faster. A changed execution also sends the wakeups that
//! follow.

use std::marker::PhantomData;

use domain::{
    Timestamp,
    execution::{Attempt, Execution},
    group::GroupWork,
    id::ExecutionId,
    limit::{CapacityPool, LimitKey},
    measure,
    message::{Message, Outgoing},
    ports::{LaunchStore, PortError, Queue, UpdateError, WriteStore},
    request::Name,
    scheduler::state::LimitState,
};

use crate::log;

/// How often a decision is made again because another writer was faster. Each conflict means that
/// another writer made progress, so more conflicts than this are a fault and not contention.
const CONFLICTS_MAX: usize = 64;

/// The longest delay of a message, in seconds (Amazon SQS, `DelaySeconds`).
const DELAY_MAX: i64 = 900;

/// Something stored that is replaced only if it is unchanged.
pub(crate) trait Stored {
    /// Its value.
    type Value: Send + Sync;

    /// Returns the value as it is stored.
    fn read(&self) -> impl Future<Output = Result<Option<Self::Value>, PortError>> + Send;

    /// Replaces the value. Returns the value as written, or `None` if another writer was faster.
    fn replace(
        &self,
        before: Option<&Self::Value>,
        after: Self::Value,
    ) -> impl Future<Output = Result<Option<Self::Value>, PortError>> + Send;

    /// Its name, for an error.
    fn name(&self) -> String;
}

/// The outcome of a change.
#[derive(Debug)]
pub(crate) enum Changed<T> {
    /// The change was made.
    Yes {
        /// The value before the change; `None` if there was none.
        before: Option<Box<T>>,
        /// The value as written.
        after: Box<T>,
    },
    /// There was nothing to change. The value as it is, if there is one.
    No(Option<Box<T>>),
}

impl<T> Default for Changed<T> {
    fn default() -> Self {
        Self::No(None)
    }
}

impl<T> Changed<T> {
    /// The value as it stands now.
    pub(crate) fn now(self) -> Option<T> {
        match self {
            Self::Yes { after, .. } => Some(*after),
            Self::No(found) => found.map(|found| *found),
        }
    }
}

/// Changes something stored. A `None` from `decide` leaves it as it is.
///
/// # Errors
/// When the store does not answer, or other writers are faster again and again.
pub(crate) async fn change<S: Stored + Sync>(
    stored: &S,
    decide: impl Fn(Option<&S::Value>) -> Option<S::Value> + Send + Sync,
) -> Result<Changed<S::Value>, PortError> {
    change_from(stored, stored.read().await?, decide).await
}

/// Does the same as [`change`] for a value that was just read or written. If that value is out of
/// date by now, it is read again.
///
/// # Errors
/// As [`change`].
pub(crate) async fn change_from<S: Stored + Sync>(
    stored: &S,
    mut before: Option<S::Value>,
    decide: impl Fn(Option<&S::Value>) -> Option<S::Value> + Send + Sync,
) -> Result<Changed<S::Value>, PortError> {
    for _ in 0..CONFLICTS_MAX {
        let Some(after) = decide(before.as_ref()) else {
            return Ok(Changed::No(before.map(Box::new)));
        };
        if let Some(written) = stored.replace(before.as_ref(), after).await? {
            return Ok(Changed::Yes {
                before: before.map(Box::new),
                after: Box::new(written),
            });
        }
        before = stored.read().await?;
    }
    Err(PortError::unavailable(
        "the store",
        format!(
            "{} was changed by others {CONFLICTS_MAX} times in a row",
            stored.name()
        ),
    ))
}

/// The record of an execution.
struct ExecutionRecord<'a, S> {
    store: &'a S,
    id: &'a ExecutionId,
}

impl<S: WriteStore> Stored for ExecutionRecord<'_, S> {
    type Value = Execution;

    async fn read(&self) -> Result<Option<Execution>, PortError> {
        self.store.load(self.id).await
    }

    async fn replace(
        &self,
        before: Option<&Execution>,
        after: Execution,
    ) -> Result<Option<Execution>, PortError> {
        let Some(before) = before else {
            return Ok(None);
        };
        match self.store.update(before, after, &[]).await {
            Ok(written) => {
                log::status_changed(&before.status(), &written);
                if let Some(pool) = launched(before, &written) {
                    measure::record_launch(pool);
                }
                Ok(Some(written))
            }
            Err(UpdateError::Conflict) => Ok(None),
            Err(UpdateError::Full(key)) => Err(PortError::invalid(
                "the store",
                format!("{key} used up without an admission"),
            )),
            Err(UpdateError::Failed(error)) => Err(error),
        }
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

/// The pool of a task that is on record since this change.
fn launched(before: &Execution, after: &Execution) -> Option<CapacityPool> {
    let has_task = |attempt: &&Attempt| attempt.task_arn.is_some();
    let last = after.attempts.last().filter(has_task)?;
    let mut known = before.attempts.iter().filter(has_task);
    let is_new = known.all(|attempt| attempt.number != last.number);
    is_new.then_some(last.pool)
}

/// The stored state of a limit.
pub(crate) struct StateOfLimit<'a, S> {
    pub(crate) store: &'a S,
    pub(crate) key: &'a LimitKey,
}

impl<S: LaunchStore> Stored for StateOfLimit<'_, S> {
    type Value = LimitState;

    async fn read(&self) -> Result<Option<LimitState>, PortError> {
        self.store.limit_state(self.key).await.map(Some)
    }

    async fn replace(
        &self,
        before: Option<&LimitState>,
        after: LimitState,
    ) -> Result<Option<LimitState>, PortError> {
        let before = before.cloned().unwrap_or_default();
        let is_written = self
            .store
            .set_limit_state(self.key, &before, after.clone())
            .await?;
        let revision = before.revision + 1;
        Ok(is_written.then_some(LimitState { revision, ..after }))
    }

    fn name(&self) -> String {
        format!("the state of {}", self.key)
    }
}

/// The work of one kind on a group.
pub(crate) struct WorkOnGroup<'a, S, W> {
    store: &'a S,
    group: &'a Name,
    work: PhantomData<W>,
}

impl<'a, S, W> WorkOnGroup<'a, S, W> {
    pub(crate) fn new(store: &'a S, group: &'a Name) -> Self {
        Self {
            store,
            group,
            work: PhantomData,
        }
    }
}

impl<S: WriteStore, W: GroupWork> Stored for WorkOnGroup<'_, S, W> {
    type Value = W;

    async fn read(&self) -> Result<Option<W>, PortError> {
        self.store.group_work(self.group).await
    }

    /// The condition is the revision of `after`, which each change takes over from `before`.
    async fn replace(&self, _: Option<&W>, after: W) -> Result<Option<W>, PortError> {
        let is_written = self.store.set_group_work(&after).await?;
        Ok(is_written.then_some(after))
    }

    fn name(&self) -> String {
        format!("the {} of group {}", W::WHAT, self.group)
    }
}

/// Loads an execution, decides, writes the decision, and sends the wakeups that follow. Decides
/// again when another writer was faster.
///
/// Returns the record as it stands afterwards (changed or not), or `None` if there is no such
/// execution.
///
/// # Errors
/// When the store or the queue does not answer. The change may have been made; the call may be
/// repeated.
pub async fn advance<F>(
    store: &impl WriteStore,
    queue: &impl Queue,
    now: Timestamp,
    id: &ExecutionId,
    decide: F,
) -> Result<Option<Execution>, PortError>
where
    F: Fn(&Execution) -> Option<Execution> + Send + Sync,
{
    match store.load(id).await? {
        Some(before) => advance_from(store, queue, now, before, decide)
            .await
            .map(Changed::now),
        None => Ok(None),
    }
}

/// Does the same as [`advance`] for a record that was just loaded or written. If that record is out
/// of date by now, it is loaded again. The result says whether it was changed.
///
/// # Errors
/// As [`advance`].
pub(crate) async fn advance_from<F>(
    store: &impl WriteStore,
    queue: &impl Queue,
    now: Timestamp,
    before: Execution,
    decide: F,
) -> Result<Changed<Execution>, PortError>
where
    F: Fn(&Execution) -> Option<Execution> + Send + Sync,
{
    let changed = advance_quietly(store, before, decide).await?;
    if let Changed::Yes {
        before: Some(before),
        after,
    } = &changed
    {
        wake(store, queue, now, before, after).await?;
    }
    Ok(changed)
}

/// Changes a record without sending wakeups, for changes that release nothing that others wait for.
///
/// # Errors
/// As [`advance`].
pub(crate) async fn advance_quietly<F>(
    store: &impl WriteStore,
    before: Execution,
    decide: F,
) -> Result<Changed<Execution>, PortError>
where
    F: Fn(&Execution) -> Option<Execution> + Send + Sync,
{
    let id = before.id.clone();
    let record = ExecutionRecord { store, id: &id };
    change_from(&record, Some(before), |record| decide(record?)).await
}

/// Sends a wakeup for each backlog that waits for something this change released, and a delayed one
/// for an entry that is due later.
pub(crate) async fn wake(
    store: &impl WriteStore,
    queue: &impl Queue,
    now: Timestamp,
    before: &Execution,
    written: &Execution,
) -> Result<(), PortError> {
    let mut messages = Vec::new();
    for backlog in released(before, written) {
        if !store.limit_state(&backlog).await?.backlog.is_watched(now)
            && store.has_backlog(&backlog, now).await?
        {
            messages.push(Message::Wakeup { backlog, id: None }.into());
        }
    }
    messages.extend(due_later(before, written, now));
    if messages.is_empty() {
        Ok(())
    } else {
        queue.send(messages).await
    }
}

/// Returns the limits that have more room after this change, or whose backlog got a new head.
fn released(before: &Execution, after: &Execution) -> Vec<LimitKey> {
    let held = before.allocations();
    let left_the_backlog = after.end().is_some() && before.backlog_entry().is_some();
    let freed = if left_the_backlog {
        before.demand()
    } else {
        held
    };
    let still = after.allocations();
    freed
        .into_iter()
        .filter(|allocation| !still.contains(allocation))
        .map(|allocation| allocation.key)
        .collect()
}

/// Returns the wakeup for an entry that is due later.
fn due_later(before: &Execution, after: &Execution, now: Timestamp) -> Option<Outgoing> {
    let entry = after.backlog_entry()?;
    let known = before.backlog_entry().and_then(|entry| entry.not_before);
    let due = entry
        .not_before
        .filter(|due| *due > now && Some(*due) != known)?;
    Some(delayed(
        Message::Wakeup {
            backlog: entry.backlog,
            id: None,
        },
        (due - now).num_milliseconds(),
    ))
}

/// Returns a message that is received no sooner than after `millis` milliseconds, rounded up to
/// SQS's seconds.
#[must_use]
pub fn delayed(message: Message, millis: i64) -> Outgoing {
    let seconds = millis.max(0).saturating_add(999) / 1000;
    Outgoing {
        message,
        delay_seconds: u32::try_from(seconds.min(DELAY_MAX)).unwrap_or_default(),
    }
}
