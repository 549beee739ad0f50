//! Removing a record that cannot be read: which ones may be removed, and in which order what
//! belongs to one goes.

use chrono::TimeDelta;
use domain::{
    api::Problem,
    ecs::STOPPED,
    error::PortError,
    forget::{Forgetting, Forgotten},
    id::ExecutionId,
    ports::{Clock, Store, Tasks},
};

use crate::query::{not_found, resolve};

/// Why the task of such a record is stopped.
pub const REASON: &str = "its record could not be read and is removed";
/// How long a task may take to end. ECS waits up to 120 s between TERM and KILL (AWS-FACTS §1) and
/// then gives the task's network back.
const PATIENCE: TimeDelta = TimeDelta::minutes(4);
/// The time between two looks at the task. Ours.
const PAUSE: TimeDelta = TimeDelta::milliseconds(500);

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The execution.
    pub id: ExecutionId,
    /// Why, in words that show nothing of the record.
    pub why: String,
}

/// Why a record is not forgotten.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ForgetError {
    /// There is none, or it can be read, or the text may mean several.
    #[error("{}", .0.title)]
    Refused(Problem),
    /// Its task was told to stop, and has not.
    #[error(
        "the task {0} was told to stop and still runs, so nothing was removed; try again in a minute"
    )]
    Runs(String),
    /// The store does not answer, or lets nobody in.
    #[error(transparent)]
    Store(#[from] PortError),
}

/// The record that a text names: an id, an unambiguous part of one, or a task's ARN.
///
/// # Errors
/// [`ForgetError`].
pub async fn look(store: &impl Store, text: &str) -> Result<Unreadable, ForgetError> {
    let id = resolve(store, text).await.map_err(ForgetError::Refused)?;
    match store.load(&id).await {
        // It is whole, and its parts may mean something else than this release takes them for.
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

/// Removes a record. `forget` is the store's, told of the task that is over; `stop` ends a task and
/// waits for its end.
///
/// The task goes first: the record may hold a lock, and no other run may have it while the task
/// runs.
///
/// # Errors
/// [`ForgetError::Refused`] where somebody else was first, or has mended the record; what `forget`
/// and `stop` say.
pub async fn remove(
    id: &ExecutionId,
    forget: impl AsyncFn(Option<&str>) -> Result<Forgetting, PortError>,
    stop: impl AsyncFn(&str) -> Result<(), ForgetError>,
) -> Result<Forgotten, ForgetError> {
    let mut stopped: Option<String> = None;
    loop {
        match forget(stopped.as_deref()).await? {
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

/// Stops a task, and waits until it is over.
///
/// # Errors
/// [`ForgetError::Runs`] when it does not end in time; what the calls say.
pub async fn stop(
    tasks: &impl Tasks,
    clock: &impl Clock,
    task_arn: &str,
) -> Result<(), ForgetError> {
    tasks.stop_task(task_arn, REASON).await?;
    let end = clock.now() + PATIENCE;
    while clock.now() < end {
        let seen = tasks.describe_tasks(&[task_arn.to_owned()]).await?;
        if !seen.missing.is_empty() || seen.tasks.iter().any(|task| task.last_status == STOPPED) {
            return Ok(());
        }
        clock.sleep(PAUSE).await;
    }
    Err(ForgetError::Runs(task_arn.to_owned()))
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
