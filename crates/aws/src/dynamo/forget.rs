//! Removes a record that cannot be read. Only an administrator with the account's own credentials
//! can do so: no function's role allows it.

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};
use domain::{
    ecs::{TaskArn, TaskId},
    forget::{Forgetting, Forgotten, RawAttempt, RawRecord, Traces, Untold},
    id::ExecutionId,
    limit::{Allocation, LimitKey},
    ports::PortError,
};
use serde_json::Value;

use super::{
    DynamoStore, SERVICE,
    item::{
        Item, Key, MARK, expiry, has_expired, number, number_of, request_key, state_key, text,
        text_of,
    },
    limits::{UNUSED, counter_key},
    state,
    table::{AGAIN, Condition, pause},
};

/// Both items of a record that cannot be read.
struct Broken {
    request: Item,
    state: Item,
}

impl Broken {
    fn traces(&self) -> Traces {
        let attempt = |form: &Value| RawAttempt::of(form, "arn", "input");
        let attempts = value(&self.state, "attempts");
        // A record whose attribute `attempts` is absent has no attempts.
        let attempts = if self.state.contains_key("attempts") {
            attempts
        } else {
            Value::Array(Vec::new())
        };
        let raw = RawRecord {
            status: value(&self.state, "status"),
            request: value(&self.request, "request"),
            pool: value(&self.state, "pool"),
            attempts: attempts
                .as_array()
                .map(|attempts| attempts.iter().map(attempt).collect()),
        };
        raw.traces()
    }

    /// The key of its claim, if it has one.
    fn claim(&self) -> Option<String> {
        let request = value(&self.request, "request");
        let key = request.get("idempotency_key").and_then(Value::as_str)?;
        Some(format!(
            "{}/{key}",
            text_of(&self.request, "submitted_by_id")?
        ))
    }

    /// The condition that nobody has written the state since it was read.
    fn unchanged(&self) -> Condition {
        let of = |name: &str| self.state.get(name).cloned();
        match (of("revision"), of(MARK)) {
            (Some(revision), Some(mark)) => Condition::new(
                "revision = :revision AND mark = :mark",
                [(":revision", revision), (":mark", mark)],
            ),
            (Some(revision), None) => {
                Condition::new("revision = :revision", [(":revision", revision)])
            }
            (None, Some(mark)) => Condition::new("mark = :mark", [(":mark", mark)]),
            (None, None) => Condition::new("attribute_exists(pk)", []),
        }
    }
}

/// An attribute as JSON; `null` if it is absent or cannot be written as JSON.
fn value(item: &Item, name: &str) -> Value {
    let attribute = item.get(name).cloned();
    attribute
        .and_then(|it| serde_dynamo::aws_sdk_dynamodb_1::from_attribute_value(it).ok())
        .unwrap_or_default()
}

impl DynamoStore {
    /// Removes a record that cannot be read. Conditional: a record stays if it can be read, or if
    /// somebody writes it meanwhile. It also stays if its task may be running, unless that task is
    /// `stopped`, which the caller knows to be over.
    ///
    /// The record's lock and its slot in a group are given back in the same transaction. Its share
    /// of a pool is not: the sweep counts pools anew, and already leaves out records that cannot be
    /// read.
    ///
    /// # Errors
    /// If the table does not answer, or others keep writing the same items.
    pub async fn forget(
        &self,
        id: &ExecutionId,
        stopped: Option<&TaskArn>,
    ) -> Result<Forgetting, PortError> {
        for round in 0..AGAIN {
            let (request, state) =
                futures_util::future::try_join(self.get(request_key(id)), self.get(state_key(id)))
                    .await?;
            let state = state.filter(|state| !has_expired(state, (self.now)()));
            let Some((request, state)) = request.zip(state) else {
                return Ok(Forgetting::Missing);
            };
            if state::execution(id.clone(), request.clone(), state.clone()).is_ok() {
                return Ok(Forgetting::Readable);
            }
            let broken = Broken { request, state };
            let traces = broken.traces();
            if let Some(task_arn) = traces.open_task.clone().filter(|arn| Some(arn) != stopped) {
                return Ok(Forgetting::Runs { task_arn });
            }
            if let Some(forgotten) = self.remove(id, &broken, traces, stopped).await? {
                return Ok(Forgetting::Forgotten(forgotten));
            }
            pause(round).await;
        }
        Err(PortError::unavailable(
            SERVICE,
            format!("other writers keep changing the record of {id}"),
        ))
    }

    /// Removes the items. `None` if somebody else wrote one of them meanwhile.
    async fn remove(
        &self,
        id: &ExecutionId,
        broken: &Broken,
        traces: Traces,
        stopped: Option<&TaskArn>,
    ) -> Result<Option<Forgotten>, PortError> {
        let held = self.in_use(&traces).await?;
        let mut writes = vec![
            self.delete_part(state_key(id), broken.unchanged())?,
            self.delete_part(request_key(id), Condition::default())?,
        ];
        for allocation in &held {
            writes.push(self.less(allocation)?);
        }
        if !self.all_or_nothing(&writes).await? {
            return Ok(None);
        }
        self.forget_traces(id, broken, &traces.task_ids).await;
        let untold = traces
            .untold
            .into_iter()
            .filter(|untold| *untold != Untold::Pool)
            .collect();
        let released = held.into_iter().map(|allocation| allocation.key).collect();
        Ok(Some(Forgotten {
            id: id.clone(),
            released,
            untold,
            task_arn: stopped.cloned(),
        }))
    }

    /// The units that the record holds of the limits that are counted with the records, as far as
    /// the counters agree: no counter may fall below zero.
    async fn in_use(&self, traces: &Traces) -> Result<Vec<Allocation>, PortError> {
        let mut held = Vec::new();
        for allocation in traces
            .allocations
            .iter()
            .filter(|allocation| !matches!(allocation.key, LimitKey::Pool(_)))
        {
            let counter = self
                .get(counter_key(&allocation.key))
                .await?
                .unwrap_or_default();
            let used: i64 = number_of(&counter, "used").unwrap_or_default();
            held.extend(
                Some(allocation.clone()).filter(|allocation| used >= i64::from(allocation.amount)),
            );
        }
        Ok(held)
    }

    /// Takes this allocation off its counter, on condition that the counter includes it.
    fn less(&self, allocation: &Allocation) -> Result<TransactWriteItem, PortError> {
        let values: [(&str, AttributeValue); 4] = [
            (":by", number(-i64::from(allocation.amount))),
            (":amount", number(allocation.amount)),
            (":expires", number(expiry((self.now)() + UNUSED))),
            (":v", number(domain::stored::FORM)),
        ];
        let update = Update::builder()
            .table_name(&self.table)
            .set_key(Some(counter_key(&allocation.key).into_item()))
            .update_expression("ADD used :by SET expires = :expires, v = if_not_exists(v, :v)")
            .condition_expression("used >= :amount")
            .set_expression_attribute_values(Some(
                values.map(|(name, value)| (name.to_owned(), value)).into(),
            ))
            .build()
            .map_err(|error| PortError::invalid(SERVICE, error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Deletes the small items that lead to the record: its tasks, and its idempotency key, under
    /// which the record would be created again. An item that stays expires by itself, so the record
    /// counts as removed even if one of these calls fails.
    async fn forget_traces(&self, id: &ExecutionId, broken: &Broken, task_ids: &[TaskId]) {
        let tasks = task_ids.iter().map(|id| {
            (
                Key::single('T', id),
                Condition::new("attribute_exists(pk)", []),
            )
        });
        let own = || Condition::new("holder = :id", [(":id", text(id.as_str()))]);
        let claim = broken.claim().map(|key| (Key::single('C', key), own()));
        for (key, condition) in tasks.chain(claim) {
            if let Err(error) = self.delete_if(key, condition).await {
                tracing::warn!(execution_id = %id, %error, "an item that leads to a removed record stays");
            }
        }
    }
}
