//! Removing a record that cannot be read: which records may be removed, and in which order their
//! parts go.

use chrono::TimeDelta;
use domain::{
    api::Problem,
    ecs::{TaskArn, TaskStatus},
    error::PortError,
    forget::{Forgetting, Forgotten},
    id::ExecutionId,
    ports::{Clock, ReadStore, Tasks},
};

use crate::lookup::{not_found, resolve};

/// The reason that ECS is given for stopping the task of such a record.
pub const REASON: &str = "its record could not be read and is removed";
/// How long a task may take to end. ECS waits up to 120 s between TERM and KILL (AWS-FACTS §1) and
/// then releases the task's network.
const PATIENCE: TimeDelta = TimeDelta::minutes(4);
/// The time between two looks at the task. It is short because a person waits for the command.
const PAUSE: TimeDelta = TimeDelta::milliseconds(500);

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The execution.
    pub id: ExecutionId,
    /// Why it cannot be read, in words that show nothing of the record.
    pub why: String,
}

/// Why a record is not removed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ForgetError {
    /// There is no such record, it can be read, or the text may mean several.
    #[error("{}", .0.title)]
    Refused(Problem),
    /// Its task was told to stop and still runs.
    #[error(
        "the task {0} was told to stop and still runs, so nothing was removed; try again in a minute"
    )]
    Runs(TaskArn),
    /// The store does not answer, or denies access.
    #[error(transparent)]
    Store(#[from] PortError),
}

/// Returns the unreadable record that a text names: an id, an unambiguous part of one, or a task's
/// ARN.
///
/// # Errors
/// [`ForgetError`].
pub async fn look(store: &impl ReadStore, text: &str) -> Result<Unreadable, ForgetError> {
    let id = resolve(store, text).await.map_err(ForgetError::Refused)?;
    match store.load(&id).await {
        // The record is intact, and its parts may mean something else than this release takes them
        // for.
        Err(PortError::Corrupt(corrupt)) if corrupt.is_newer() => Err(refused(
            "newer_record",
            format!(
                "a newer release of mycli wrote the record of {id}; `mycli upgrade` makes it readable, so it was not removed"
            ),
        )),
        Err(PortError::Corrupt(corrupt)) if corrupt.id() == Some(&id) => Ok(Unreadable {
            id,
            why: corrupt.source.to_string(),
        }),
        Err(error) => Err(error.into()),
        Ok(Some(_)) => Err(readable(&id)),
        Ok(None) => Err(missing(&id)),
    }
}

/// Removes a record. `forget` asks the store to remove it and is given the task that has ended, if
/// any; `stop` ends a task and waits for its end.
///
/// The task goes first: the record may hold a lock, and no other run may take that lock while the
/// task runs.
///
/// # Errors
/// [`ForgetError::Refused`] if somebody else removed or repaired the record first; any error of
/// `forget` and `stop`.
pub async fn remove(
    id: &ExecutionId,
    forget: impl AsyncFn(Option<&TaskArn>) -> Result<Forgetting, PortError>,
    stop: impl AsyncFn(&TaskArn) -> Result<(), ForgetError>,
) -> Result<Forgotten, ForgetError> {
    let mut stopped: Option<TaskArn> = None;
    loop {
        match forget(stopped.as_ref()).await? {
            Forgetting::Forgotten(forgotten) => return Ok(forgotten),
            Forgetting::Runs { task_arn } => {
                stop(&task_arn).await?;
                stopped = Some(task_arn);
            }
            Forgetting::Readable => return Err(readable(id)),
            Forgetting::Missing => return Err(missing(id)),
        }
    }
}

/// Stops a task and waits until it has ended.
///
/// # Errors
/// [`ForgetError::Runs`] if it does not end in time; any error of the calls.
pub async fn stop(
    tasks: &impl Tasks,
    clock: &impl Clock,
    task_arn: &TaskArn,
) -> Result<(), ForgetError> {
    tasks.stop_task(task_arn, REASON).await?;
    let end = clock.now() + PATIENCE;
    while clock.now() < end {
        let seen = tasks.describe_tasks(std::slice::from_ref(task_arn)).await?;
        if !seen.missing.is_empty()
            || seen
                .tasks
                .iter()
                .any(|task| task.last_status == TaskStatus::Stopped)
        {
            return Ok(());
        }
        clock.sleep(PAUSE).await;
    }
    Err(ForgetError::Runs(task_arn.clone()))
}

fn readable(id: &ExecutionId) -> ForgetError {
    refused(
        "readable",
        format!("the record of {id} can be read, so it was not removed"),
    )
}

fn refused(code: &str, title: String) -> ForgetError {
    ForgetError::Refused(Problem::new(409, code, title))
}

fn missing(id: &ExecutionId) -> ForgetError {
    ForgetError::Refused(not_found(id.as_str()))
}
