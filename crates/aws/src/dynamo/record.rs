//! One execution as two items, so that an update writes only what changes and not the request. The
//! request is in the partition of its day, in order of time. The state is in the partition of its
//! id's end.
//!
//! A record exists once its state exists. The request is written first, so a crash between the two
//! leaves an item that nobody reads and that expires. Its index entries are skipped.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    error::SdkError,
    operation::transact_write_items::{TransactWriteItemsError, TransactWriteItemsOutput},
    types::{CancellationReason, TransactWriteItem},
};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::TaskId,
    execution::Execution,
    history::Loaded,
    id::ExecutionId,
    limit::{Admission, LimitKey},
    ports::{Claim, Created, Entropy, PortError, UpdateError},
    stored, task,
};

use super::{
    DynamoStore, SERVICE,
    batch::WriteStep,
    item::{
        Item, Key, MARK, expiry, has_expired, id_of_request, id_of_state, item_of, number,
        number_of, request_key, small_item, state_key, text, text_of,
    },
    limits::LimitChange,
    request::RequestItem,
    state::{self, REQUEST, STATE, StateItem},
    table::{AGAIN, Condition, Freshness, Wrote, pause},
};
use crate::{
    error::{Fault, Remedy, failed},
    system::System,
};

/// Least time that a request is kept beyond its state's retention: as long as a run may wait and
/// run before it ends.
const UNFINISHED: TimeDelta = TimeDelta::days(30);

/// A claim as it is stored.
fn claim_item(claim: &Claim, id: &ExecutionId) -> Item {
    small_item(
        Key::single('C', &claim.key),
        [
            ("digest", text(&claim.digest)),
            ("holder", text(id.as_str())),
            ("expires_at", number(claim.expires_at.timestamp_millis())),
            ("expires", number(expiry(claim.expires_at))),
        ],
    )
}

fn holder(item: &Item) -> Result<ExecutionId, PortError> {
    text_of(item, "holder")
        .unwrap_or_default()
        .parse()
        .map_err(|error| PortError::corrupt("a claim", error))
}

/// The ids of an execution's tasks.
pub(super) fn task_ids(execution: &Execution) -> impl Iterator<Item = TaskId> {
    execution
        .attempts
        .iter()
        .filter_map(|attempt| Some(attempt.task_arn.as_ref()?.id()))
}

/// Why a transaction was refused.
enum Refused {
    Conflict,
    Full(LimitKey),
    /// It met another transaction, or too much traffic: nothing was decided.
    Busy(String),
}

impl Refused {
    /// `changes` are those after the state's own write, in order. The state's reason counts first:
    /// if the record has changed meanwhile, it no longer matters whether there is room.
    fn of(reasons: &[CancellationReason], changes: &[LimitChange]) -> Self {
        let failed = |reason: &CancellationReason| reason.code() == Some("ConditionalCheckFailed");
        let (state, counters) = reasons
            .split_first()
            .map_or((None, reasons), |(first, rest)| (Some(first), rest));
        if state.is_some_and(failed) {
            return Self::Conflict;
        }
        if let Some((_, change)) = counters
            .iter()
            .zip(changes)
            .find(|(reason, _)| failed(reason))
        {
            return Self::Full(change.key.clone());
        }
        let codes: Vec<_> = reasons
            .iter()
            .filter_map(CancellationReason::code)
            .filter(|code| *code != "None")
            .collect();
        Self::Busy(codes.join(", "))
    }
}

impl DynamoStore {
    /// How long the longest-lived item of an execution is kept, from its submission.
    pub(super) fn longest(&self) -> TimeDelta {
        self.retention + self.retention.max(UNFINISHED)
    }

    /// The two items that an execution is stored as: its request and its state.
    ///
    /// # Errors
    /// If it cannot be written as items.
    pub fn items(&self, execution: &Execution) -> Result<[Item; 2], PortError> {
        Ok([self.request_item(execution)?, self.state_item(execution)?])
    }

    fn request_item(&self, execution: &Execution) -> Result<Item, PortError> {
        let submitted_until = execution.submitted_at + self.longest();
        let end_until = execution.end().map(|end| end.at + self.retention);
        let expires = end_until.map_or(submitted_until, |end| end.max(submitted_until));
        let mut item = item_of(
            request_key(&execution.id),
            &RequestItem::of(execution, expires),
            &execution.unknown.of_form(REQUEST),
        )?;
        if task::needs_this_release(&execution.request) {
            item.insert(stored::VERSION.to_owned(), number(stored::NEWEST));
        }
        Ok(item)
    }

    fn state_item(&self, execution: &Execution) -> Result<Item, PortError> {
        let expires = execution.end().map(|end| end.at + self.retention);
        item_of(
            state_key(&execution.id),
            &StateItem::of(execution, expires),
            &execution.unknown.of_form(STATE),
        )
    }

    /// Whether the request would expire before the state does.
    fn outlives_its_request(&self, execution: &Execution) -> bool {
        execution
            .end()
            .is_some_and(|end| end.at + self.retention > execution.submitted_at + self.longest())
    }

    pub(super) async fn create_unclaimed(
        &self,
        execution: &Execution,
    ) -> Result<Created, PortError> {
        let new = self.write_new(execution).await?;
        Ok(if new {
            Created::New
        } else {
            Created::Existing(execution.id.clone())
        })
    }

    /// The caller that takes the claim first counts as the creator, even if another caller finished
    /// the record on its behalf.
    pub(super) async fn create_claimed(
        &self,
        execution: &Execution,
        claim: &Claim,
    ) -> Result<Created, PortError> {
        let now = execution.submitted_at;
        let free = Condition::new(
            "attribute_not_exists(pk) OR expires_at <= :now OR (digest = :digest AND holder = :id)",
            [
                (":now", number(now.timestamp_millis())),
                (":digest", text(&claim.digest)),
                (":id", text(execution.id.as_str())),
            ],
        );
        match self.put_if(claim_item(claim, &execution.id), free).await? {
            Wrote::Yes(before) => {
                let repeated = before.is_some_and(|before| {
                    text_of(&before, "holder") == Some(execution.id.as_str())
                });
                let new = self.write_new(execution).await?;
                let existing = repeated && !new;
                Ok(if existing {
                    Created::Existing(execution.id.clone())
                } else {
                    Created::New
                })
            }
            Wrote::No(Some(taken)) if text_of(&taken, "digest") == Some(&claim.digest) => {
                self.finish(execution, holder(&taken)?).await
            }
            Wrote::No(Some(taken)) => Ok(Created::Mismatch(holder(&taken)?)),
            Wrote::No(None) => Err(PortError::unavailable(
                SERVICE,
                "it does not name the execution that holds a claim",
            )),
        }
    }

    /// The caller that took the claim may have died before the record was written. If so, this
    /// writes the record, under the claimed id.
    async fn finish(
        &self,
        execution: &Execution,
        holder: ExecutionId,
    ) -> Result<Created, PortError> {
        if self.get(state_key(&holder)).await?.is_none() {
            let submitted_at = holder.made_at();
            self.write_new(&Execution {
                id: holder.clone(),
                submitted_at,
                ..execution.clone()
            })
            .await?;
        }
        Ok(Created::Existing(holder))
    }

    /// Writes a new record; returns whether there was none before.
    async fn write_new(&self, execution: &Execution) -> Result<bool, PortError> {
        let request = self.request_item(execution)?;
        let ((), (), wrote) = futures_util::future::try_join3(
            self.note_submission(execution),
            self.note_whereabouts(execution),
            self.put_if(request.clone(), Condition::absent()),
        )
        .await?;
        match self.write_state(None, execution, &[]).await {
            // Another process died between writing the request and the state. The record is now
            // this one, so its request must be too.
            Ok(()) if !wrote.is_yes() => self.put(request).await.map(|()| true),
            Ok(()) => Ok(true),
            Err(UpdateError::Conflict) => Ok(false),
            Err(UpdateError::Failed(error)) => Err(error),
            Err(UpdateError::Full(key)) => {
                Err(PortError::invalid(SERVICE, format!("{key} is used up")))
            }
        }
    }

    pub(super) async fn update(
        &self,
        before: &Execution,
        after: Execution,
        admissions: &[Admission],
    ) -> Result<Execution, UpdateError> {
        let written = Execution {
            revision: before.revision + 1,
            ..after
        };
        self.replace_all(&[WriteStep::new(before, &written, admissions)])
            .await
            .pop()
            .unwrap_or(Err(UpdateError::Conflict))
            .map(|()| written)
    }

    /// Like `update`, but leaves out what is counted apart from the records. `changes` are
    /// those counted in the same transaction.
    pub(super) async fn replace(
        &self,
        before: &Execution,
        after: &Execution,
        changes: &[LimitChange],
    ) -> Result<(), UpdateError> {
        if before.status() != after.status() || before.backlog_entry() != after.backlog_entry() {
            self.note_whereabouts(after).await?;
        }
        if self.outlives_its_request(after) {
            self.put(self.request_item(after)?).await?;
        }
        self.note_tasks(before, after).await?;
        self.write_state(Some(before), after, changes).await
    }

    /// Writes a task's id before the record names the task, so that a lookup never fails for a task
    /// that a reader has seen.
    async fn note_tasks(&self, before: &Execution, after: &Execution) -> Result<(), PortError> {
        let known: Vec<_> = task_ids(before).collect();
        for task_id in task_ids(after).filter(|task_id| !known.contains(task_id)) {
            let expires = number(expiry(after.submitted_at + self.longest()));
            let item = [("execution", text(after.id.as_str())), ("expires", expires)];
            self.put(small_item(Key::single('T', task_id), item))
                .await?;
        }
        Ok(())
    }

    /// Conditional on the version before, or on there being no record. A transaction with the
    /// counters if there are any.
    ///
    /// The SDK repeats a call that got no answer. A plain write may then find its own first try in
    /// the table, and recognises it by its mark.
    async fn write_state(
        &self,
        before: Option<&Execution>,
        after: &Execution,
        changes: &[LimitChange],
    ) -> Result<(), UpdateError> {
        let mut state = self.state_item(after)?;
        let mark = number(System.bits() >> 64);
        state.insert(MARK.to_owned(), mark.clone());
        let condition = match before {
            None => Condition::absent(),
            Some(before) => Condition::new(
                "revision = :revision",
                [(":revision", number(before.revision))],
            ),
        };
        if changes.is_empty() {
            return match self.put_if(state, condition).await? {
                Wrote::Yes(_) => Ok(()),
                Wrote::No(Some(current)) if current.get(MARK) == Some(&mark) => Ok(()),
                Wrote::No(_) => Err(UpdateError::Conflict),
            };
        }
        if let (Some(before), Some(full)) =
            (before, changes.iter().find(|change| change.never_fits()))
        {
            let current = self.is_current(before).await?;
            return Err(if current {
                UpdateError::Full(full.key.clone())
            } else {
                UpdateError::Conflict
            });
        }
        self.transact(state, &condition, changes).await
    }

    /// Whether this is the record as last written.
    pub(super) async fn is_current(&self, execution: &Execution) -> Result<bool, PortError> {
        let state = self
            .get(state_key(&execution.id))
            .await?
            .unwrap_or_default();
        Ok(number_of(&state, "revision") == Some(execution.revision))
    }

    /// Writes the state and the counters in one transaction. The SDK repeats one that got no answer
    /// under the same token, so it does not conflict with itself.
    async fn transact(
        &self,
        state: Item,
        condition: &Condition,
        changes: &[LimitChange],
    ) -> Result<(), UpdateError> {
        let mut busy = String::new();
        for round in 0..AGAIN {
            let writes = self.writes(state.clone(), condition, changes)?;
            match self
                .client
                .transact_write_items()
                .set_transact_items(Some(writes))
                .send()
                .await
            {
                Ok(TransactWriteItemsOutput { .. }) => return Ok(()),
                Err(error) => match refused(&error, changes) {
                    Some(Refused::Conflict) => return Err(UpdateError::Conflict),
                    Some(Refused::Full(key)) => return Err(UpdateError::Full(key)),
                    Some(Refused::Busy(why)) => busy = why,
                    None => return Err(failed(SERVICE)(error).into()),
                },
            }
            pause(round).await;
        }
        Err(PortError::unavailable(
            SERVICE,
            format!("a write conflicted with other writers {AGAIN} times in a row: {busy}"),
        )
        .into())
    }

    fn writes(
        &self,
        state: Item,
        condition: &Condition,
        changes: &[LimitChange],
    ) -> Result<Vec<TransactWriteItem>, PortError> {
        let now: Timestamp = (self.now)();
        let counters = changes.iter().map(|change| {
            change
                .update(&self.table, now)
                .map(|update| TransactWriteItem::builder().update(update).build())
        });
        std::iter::once(self.put_part(state, condition.clone()))
            .chain(counters)
            .collect()
    }

    pub(super) async fn load(&self, id: &ExecutionId) -> Result<Option<Execution>, PortError> {
        let (request, state) = futures_util::future::try_join(
            self.get_settled(request_key(id)),
            self.get(state_key(id)),
        )
        .await?;
        let found = self
            .records(request.into_iter().chain(state).collect())
            .pop();
        found
            .map(|(_, loaded)| loaded)
            .transpose()
            .map_err(PortError::from)
    }

    /// These executions, as last written, in the order of the ids. Those that no longer exist are
    /// left out.
    pub(super) async fn load_all(&self, ids: &[ExecutionId]) -> Result<Vec<Loaded>, PortError> {
        self.load_as(ids, Freshness::LastWritten).await
    }

    /// The same, with records that may be out of date.
    pub(super) async fn load_as(
        &self,
        ids: &[ExecutionId],
        freshness: Freshness,
    ) -> Result<Vec<Loaded>, PortError> {
        let mut records = self.records(self.both_of(ids, freshness).await?);
        let places: HashMap<_, _> = ids
            .iter()
            .enumerate()
            .map(|(place, id)| (id, place))
            .collect();
        records.sort_by_key(|(id, _)| places.get(id));
        Ok(records.into_iter().map(|(_, loaded)| loaded).collect())
    }

    /// The records that these items make up. A request without a state, or a state without a
    /// request, is no record, and neither is a state that has expired.
    fn records(&self, items: Vec<Item>) -> Vec<(ExecutionId, Loaded)> {
        let now = (self.now)();
        let mut requests = HashMap::new();
        let mut states = Vec::new();
        for item in items {
            let Some(sk) = text_of(&item, "sk") else {
                continue;
            };
            if let Some(id) = id_of_request(sk) {
                requests.insert(id, item);
            } else if let Some(id) = id_of_state(sk).filter(|_| !has_expired(&item, now)) {
                states.push((id, item));
            }
        }
        let paired = states
            .into_iter()
            .filter_map(|(id, state)| Some((requests.remove(&id)?, id, state)));
        paired
            .map(|(request, id, state)| (id.clone(), state::execution(id, request, state)))
            .collect()
    }
}

fn refused(
    error: &SdkError<
        TransactWriteItemsError,
        aws_smithy_runtime_api::client::orchestrator::HttpResponse,
    >,
    changes: &[LimitChange],
) -> Option<Refused> {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            Some(Refused::of(cancelled.cancellation_reasons(), changes))
        }
        _ => {
            let fault = Fault::of(error);
            (fault.remedy == Remedy::Wait || fault.is("TransactionInProgressException"))
                .then(|| Refused::Busy(fault.to_string()))
        }
    }
}
