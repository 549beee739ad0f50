//! Finding executions by a fragment of an id, or by a task ARN.

use std::collections::BTreeSet;

use domain::{ecs::TaskId, id::ExecutionId, ports::PortError};

use super::{
    DynamoStore, SERVICE,
    history::{Ids, Range, id_of},
    item::{
        Key, has_expired, id_of_state, partition_of_suffix, partitions_of_last, reversed,
        state_key, text, text_of,
    },
};
use crate::error::failed;

/// The number of characters in a ULID.
const ULID: usize = 26;

/// The possible meanings of a fragment.
enum WantedId {
    /// Ids whose ULID begins or ends with these characters.
    Ulid(String),
    /// The execution of the task with this id.
    Task(TaskId),
}

impl WantedId {
    /// `None` if the fragment can be neither a part of an id nor an ARN.
    fn of(fragment: &str) -> Option<Self> {
        let fragment = fragment.trim();
        let task_id = fragment.rsplit('/').next().unwrap_or_default();
        if fragment.contains(':') || is_task_id(task_id) {
            return Some(Self::Task(task_id.into()));
        }
        let upper = fragment.to_uppercase();
        let of_ulid = upper.strip_prefix("EXEC_").unwrap_or(&upper);
        (of_ulid.len() <= ULID && of_ulid.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            .then(|| Self::Ulid(of_ulid.to_owned()))
    }
}

/// Whether this is a task id: 32 hexadecimal digits in ECS; an emulator puts dashes between them.
/// No part of an execution's id is that long.
fn is_task_id(text: &str) -> bool {
    let digits = text.bytes().filter(|byte| *byte != b'-');
    digits.clone().count() == 32 && digits.into_iter().all(|byte| byte.is_ascii_hexdigit())
}

impl DynamoStore {
    pub(super) async fn find(
        &self,
        fragment: &str,
        limit: u32,
    ) -> Result<Vec<ExecutionId>, PortError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        match WantedId::of(fragment) {
            None => Ok(Vec::new()),
            Some(WantedId::Task(task_id)) => Ok(self
                .of_task(&task_id)
                .await?
                .into_iter()
                .take(limit)
                .collect()),
            Some(WantedId::Ulid(ulid)) if ulid.len() == ULID => self.exactly(&ulid).await,
            Some(WantedId::Ulid(part)) => {
                let (begin, end) = futures_util::future::try_join(
                    self.beginning(&part, limit),
                    self.ending(&part, limit),
                )
                .await?;
                let both: BTreeSet<_> = begin.into_iter().chain(end).collect();
                Ok(both.into_iter().rev().take(limit).collect())
            }
        }
    }

    pub(super) async fn of_task(&self, task_id: &TaskId) -> Result<Option<ExecutionId>, PortError> {
        let item = self
            .get_settled(Key::single('T', task_id))
            .await?
            .filter(|item| !has_expired(item, (self.now)()));
        Ok(item
            .as_ref()
            .and_then(|item| text_of(item, "execution")?.parse().ok()))
    }

    /// The same, for lines of a task's log: it is asked for several times, and never changes.
    pub(super) async fn of_task_of_lines(
        &self,
        task_id: &TaskId,
    ) -> Result<Option<ExecutionId>, PortError> {
        if let Some(known) = self.memory.of_task(task_id) {
            return Ok(Some(known));
        }
        let found = self.of_task(task_id).await?;
        if let Some(execution) = &found {
            self.memory.keep_task(task_id.clone(), execution.clone());
        }
        Ok(found)
    }

    async fn exactly(&self, ulid: &str) -> Result<Vec<ExecutionId>, PortError> {
        let Ok(id) = format!("exec_{ulid}").parse::<ExecutionId>() else {
            return Ok(Vec::new());
        };
        let state = self
            .get(state_key(&id))
            .await?
            .filter(|state| !has_expired(state, (self.now)()));
        Ok(state.map(|_| id).into_iter().collect())
    }

    /// The newest ids that begin with `part`, found through the days they can lie in.
    async fn beginning(&self, part: &str, limit: usize) -> Result<Vec<ExecutionId>, PortError> {
        let Some(range) = Range::of_prefix(part) else {
            return Ok(Vec::new());
        };
        let ids = Ids::by_day(self, range, limit, None)
            .await?
            .take(limit)
            .await?;
        Ok(self
            .load_all(&ids)
            .await?
            .iter()
            .filter_map(id_of)
            .collect())
    }

    /// Ids that end with `part`. The table itself is the index: the last two characters of the ULID
    /// are the partition, and the reversed ULID is the sort key. If more than `limit` ids match,
    /// those returned are not always the newest.
    async fn ending(&self, part: &str, limit: usize) -> Result<Vec<ExecutionId>, PortError> {
        let partitions: Vec<_> = match (part.len(), part.chars().next_back()) {
            (_, None) => Vec::new(),
            (1, Some(last)) => partitions_of_last(last).collect(),
            _ => vec![partition_of_suffix(&part[part.len() - 2..])],
        };
        let backwards = reversed(part);
        let looks = partitions
            .iter()
            .map(|partition| self.in_partition(partition, &backwards, limit));
        Ok(futures_util::future::try_join_all(looks).await?.concat())
    }

    async fn in_partition(
        &self,
        partition: &str,
        backwards: &str,
        limit: usize,
    ) -> Result<Vec<ExecutionId>, PortError> {
        let items = i32::try_from(limit.max(1)).unwrap_or(i32::MAX);
        let call = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .limit(items);
        let call = call
            .key_condition_expression("pk = :pk AND begins_with(sk, :sk)")
            .projection_expression("sk, expires")
            .expression_attribute_values(":pk", text(partition))
            .expression_attribute_values(":sk", text(backwards));
        let (output, now) = (call.send().await.map_err(failed(SERVICE))?, (self.now)());
        let states = output
            .items
            .iter()
            .flatten()
            .filter(|item| !has_expired(item, now));
        let sort_keys = states.filter_map(|item| text_of(item, "sk"));
        Ok(sort_keys.filter_map(id_of_state).collect())
    }
}
