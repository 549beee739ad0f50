//! Submissions of many executions: one small item for each submission, and its executions written
//! many at a time.

use domain::{
    Timestamp,
    execution::Execution,
    id::Submission,
    ports::{Created, PortError},
    principal::Principal,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{
    DynamoStore,
    item::{Item, Key, expiry, number, number_of, small_item},
    table::{Condition, Wrote},
};

/// Executions written at the same time. A request has at most 500, and each takes two writes of
/// some milliseconds. So a whole request is done within a second or two, far below the writes that
/// one table takes.
const PARALLEL: usize = 32;

fn item_of(key: &str, opened_at: Timestamp, expires_at: Timestamp) -> Item {
    let opened_at = number(opened_at.timestamp_millis());
    let ends = [
        ("expires_at", number(expires_at.timestamp_millis())),
        ("expires", number(expiry(expires_at))),
    ];
    small_item(
        Key::single('S', key),
        [("opened_at", opened_at)].into_iter().chain(ends),
    )
}

impl DynamoStore {
    pub(super) async fn open_submission(
        &self,
        by: &Principal,
        id: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Submission, PortError> {
        let opened_at = self
            .opened_at(&format!("{by}/{id}"), now, expires_at)
            .await?;
        Ok(Submission {
            by: by.to_string(),
            id: id.to_owned(),
            opened_at,
        })
    }

    async fn opened_at(
        &self,
        key: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Timestamp, PortError> {
        let free = "attribute_not_exists(pk) OR expires_at <= :now";
        let free = Condition::new(free, [(":now", number(now.timestamp_millis()))]);
        match self.put_if(item_of(key, now, expires_at), free).await? {
            Wrote::Yes(_) => Ok(now),
            Wrote::No(taken) => {
                let opened_at = taken.and_then(|item| number_of(&item, "opened_at"));
                let moment = opened_at.and_then(Timestamp::from_timestamp_millis);
                moment.ok_or_else(|| {
                    PortError::corrupt("a submission", "it does not say when it was opened")
                })
            }
        }
    }

    /// Creates these executions. The first is created alone: the others find its notes in the
    /// directories.
    pub(super) async fn create_all(
        &self,
        executions: Vec<Execution>,
    ) -> Result<Vec<Created>, PortError> {
        let mut executions = executions.into_iter();
        let Some(first) = executions.next() else {
            return Ok(Vec::new());
        };
        let first = self.create_unclaimed(&first).await?;
        let create = async |execution: Execution| self.create_unclaimed(&execution).await;
        let others = stream::iter(executions.map(create)).buffered(PARALLEL);
        stream::iter([Ok(first)]).chain(others).try_collect().await
    }
}
