//! The facts in a stack's table about the runs that have not ended.

use aws::dynamo::DynamoStore;
use chrono::{DateTime, Utc};
use domain::{
    execution::{Execution, ExecutionStatus},
    history::{Filter, Loaded, PAGE_MAX},
    ports::{PortError, ReadStore, SweepStore},
};

use crate::{Account, stack::StackView};

/// How many launched runs are read at most: enough to say that there are many.
const LOOK_MAX: usize = 500;
/// How many of them are read at a time, so that [`LOOK_MAX`] of them take five reads.
const PAGE: u32 = 100;
/// The days that history is kept if the stack does not say: the template's default.
const RETENTION_DAYS: u32 = 90;

/// Returns the store with a stack's records.
pub(crate) fn store(account: &Account, stack: &StackView) -> DynamoStore {
    let table = stack.outputs.get("Table").cloned().unwrap_or_default();
    let days = stack
        .parameters
        .get("RetentionDays")
        .and_then(|days| days.parse().ok())
        .unwrap_or(RETENTION_DAYS);
    DynamoStore::new(aws_sdk_dynamodb::Client::new(&account.config), table, days)
}

/// A run that was launched and has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchedRun {
    /// The execution's id.
    pub id: String,
    /// The execution's status.
    pub status: ExecutionStatus,
    /// When its task was requested, which is when RunTask was called.
    pub since: DateTime<Utc>,
}

/// A backlog that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingBacklog {
    /// The limit that its entries wait for.
    pub key: String,
    /// The execution of its first entry.
    pub head: String,
    /// When that execution was submitted.
    pub since: DateTime<Utc>,
}

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRecord {
    /// The execution's id.
    pub id: String,
    /// The reason, in words.
    pub why: String,
}

/// The runs that have not ended, and the unreadable records among them and the newest history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// The launching and running ones; only the newest if there are very many.
    pub launched: Vec<LaunchedRun>,
    /// The backlogs that are not empty.
    pub backlogs: Vec<WaitingBacklog>,
    /// Records that cannot be read.
    pub unreadable: Vec<UnreadableRecord>,
    /// The ids of the unreadable records whose run was launched, and may still run.
    pub may_run: Vec<String>,
}

impl Activity {
    /// Whether every run has ended.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.launched.is_empty() && self.backlogs.is_empty() && self.may_run.is_empty()
    }

    fn note_launched(&mut self, loaded: &[Loaded]) {
        self.note_unreadable(loaded);
        let corrupt = loaded
            .iter()
            .filter_map(|loaded| loaded.as_ref().err()?.id());
        self.may_run.extend(corrupt.map(ToString::to_string));
        self.launched.extend(loaded.iter().flatten().map(launched));
    }

    fn note_unreadable(&mut self, loaded: &[Loaded]) {
        for corrupt in loaded.iter().filter_map(|loaded| loaded.as_ref().err()) {
            let found = corrupt.id().map(|id| UnreadableRecord {
                id: id.to_string(),
                why: corrupt.source.to_string(),
            });
            self.unreadable
                .extend(found.filter(|found| !self.unreadable.contains(found)));
        }
    }

    /// Describes the activity: "2 running or starting, some waiting for pool:fargate-spot".
    #[must_use]
    pub fn words(&self) -> String {
        let launched = match self.launched.len() {
            0 => None,
            n if n >= LOOK_MAX => Some(format!("{n} or more running or starting")),
            n => Some(format!("{n} running or starting")),
        };
        let backlogs: Vec<_> = self
            .backlogs
            .iter()
            .map(|backlog| backlog.key.as_str())
            .collect();
        let backlogs =
            (!backlogs.is_empty()).then(|| format!("some waiting for {}", backlogs.join(", ")));
        let may_run = (!self.may_run.is_empty()).then(|| {
            format!(
                "{} launched, with a record that cannot be read",
                self.may_run.join(", ")
            )
        });
        launched
            .into_iter()
            .chain(backlogs)
            .chain(may_run)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Reads what has not ended.
///
/// # Errors
/// When the table does not answer.
pub async fn look(account: &Account, stack: &StackView) -> Result<Activity, PortError> {
    let store = store(account, stack);
    let mut activity = Activity::default();
    let mut cursor = None;
    loop {
        let page = store.launched(cursor.as_ref(), PAGE).await?;
        activity.note_launched(&page.items);
        cursor = page.next;
        if cursor.is_none() || activity.launched.len() >= LOOK_MAX {
            break;
        }
    }
    activity.note_unreadable(&store.list(&Filter::default(), None, PAGE_MAX).await?.items);
    for key in store.backlogs(Utc::now()).await? {
        let Some(entry) = store.backlog(&key, Utc::now(), 1).await?.into_iter().next() else {
            continue;
        };
        if let Err(PortError::Corrupt(corrupt)) = store.load(&entry.id).await {
            activity.note_unreadable(&[Err(corrupt)]);
        }
        activity.backlogs.push(WaitingBacklog {
            key: key.to_string(),
            since: entry.submitted_at,
            head: entry.id.to_string(),
        });
    }
    Ok(activity)
}

fn launched(execution: &Execution) -> LaunchedRun {
    LaunchedRun {
        id: execution.id.to_string(),
        status: execution.status(),
        since: execution
            .attempts
            .last()
            .map_or(execution.submitted_at, |attempt| attempt.launched_at),
    }
}

#[cfg(test)]
mod tests {
    use domain::{error::Corrupt, id::ExecutionId};

    use super::*;

    /// Otherwise `destroy` would stop the run's task without asking.
    #[test]
    fn a_stack_with_a_launched_run_that_cannot_be_read_is_not_idle() {
        let mut activity = Activity::default();
        assert!(activity.is_idle());
        let id = ExecutionId::new(DateTime::UNIX_EPOCH, 7);
        let unreadable = [Err(Corrupt::execution(
            id.clone(),
            "this release cannot read its `status`",
        ))];
        activity.note_unreadable(&unreadable);
        assert!(activity.is_idle(), "one that is over holds up nothing");
        activity.note_launched(&unreadable);
        assert!(!activity.is_idle());
        assert_eq!(
            activity.words(),
            format!("{id} launched, with a record that cannot be read")
        );
    }
}
