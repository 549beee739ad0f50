//! The one way in which a record changes: load it, decide, write it if it is unchanged, and send
//! the wakeups that follow.

use domain::{
    Timestamp,
    execution::Execution,
    id::ExecutionId,
    limit::LimitKey,
    message::{Message, Outgoing},
    ports::{PortError, Queue, UpdateError, WriteStore},
};

/// How often a decision is made again because another writer was faster. Each conflict means that
/// another writer made progress, so more conflicts than this are a fault and not contention.
const CONFLICTS_MAX: usize = 64;

/// The longest delay of a message, in seconds (Amazon SQS, `DelaySeconds`).
const DELAY_MAX: i64 = 900;

/// Loads an execution, decides, and writes the decision. Decides again when another writer was
/// faster.
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
        Some(before) => advance_from(store, queue, now, before, decide).await,
        None => Ok(None),
    }
}

/// Does the same as [`advance`] for a record that was just loaded or written. If that record is out
/// of date by now, it is loaded again.
///
/// # Errors
/// As [`advance`].
pub async fn advance_from<F>(
    store: &impl WriteStore,
    queue: &impl Queue,
    now: Timestamp,
    before: Execution,
    decide: F,
) -> Result<Option<Execution>, PortError>
where
    F: Fn(&Execution) -> Option<Execution> + Send + Sync,
{
    match change(store, before, decide).await? {
        Changed::Yes { before, after } => wake(store, queue, now, &before, &after)
            .await
            .map(|()| Some(*after)),
        Changed::No(execution) => Ok(execution.map(|execution| *execution)),
    }
}

/// The outcome of a change.
pub(crate) enum Changed {
    /// The change was made.
    Yes {
        /// The record before the change.
        before: Box<Execution>,
        /// The record as written.
        after: Box<Execution>,
    },
    /// There was nothing to change, or the record is gone.
    No(Option<Box<Execution>>),
}

/// Changes a record without sending wakeups, for changes that release nothing that others wait for.
pub(crate) async fn change<F>(
    store: &impl WriteStore,
    mut before: Execution,
    decide: F,
) -> Result<Changed, PortError>
where
    F: Fn(&Execution) -> Option<Execution> + Send + Sync,
{
    let id = before.id.clone();
    for _ in 0..CONFLICTS_MAX {
        let Some(after) = decide(&before) else {
            return Ok(Changed::No(Some(Box::new(before))));
        };
        match store.update(&before, after, &[]).await {
            Ok(written) => {
                return Ok(Changed::Yes {
                    before: Box::new(before),
                    after: Box::new(written),
                });
            }
            Err(UpdateError::Conflict) => {}
            Err(UpdateError::Full(key)) => {
                return Err(PortError::invalid(
                    "the store",
                    format!("{key} used up without an admission"),
                ));
            }
            Err(UpdateError::Failed(error)) => return Err(error),
        }
        match store.load(&id).await? {
            Some(newer) => before = newer,
            None => return Ok(Changed::No(None)),
        }
    }
    Err(PortError::unavailable(
        "the store",
        format!("{id} was changed by others {CONFLICTS_MAX} times in a row"),
    ))
}

/// Writes one change and sends the wakeups that follow from it.
///
/// # Errors
/// As [`WriteStore::update`]. A lost wakeup is repaired by the sweep.
pub async fn commit(
    store: &impl WriteStore,
    queue: &impl Queue,
    now: Timestamp,
    before: &Execution,
    after: Execution,
) -> Result<Execution, UpdateError> {
    let written = store.update(before, after, &[]).await?;
    wake(store, queue, now, before, &written).await?;
    Ok(written)
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
