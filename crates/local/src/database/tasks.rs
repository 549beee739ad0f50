//! The tasks that this machine ran or runs, and their definitions, which ECS keeps on AWS. Both are
//! stored as JSON; only the runner knows its fields.

use std::collections::HashSet;

use domain::{
    ecs::{RunTaskInput, Task, TaskStatus},
    id::AttemptId,
    ports::PortError,
    stored::Unknown,
    task::TaskDefinition,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Database, SERVICE, WorkerId};
use crate::{failpoint, form::json};

/// The row of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// Its ARN.
    pub arn: String,
    /// Whether it is not `STOPPED` yet.
    pub open: bool,
    /// The worker that runs it.
    pub worker: WorkerId,
    /// Its input: a [`RunTaskInput`] as JSON.
    pub input: String,
    /// Its definition: a [`TaskDefinition`] as JSON.
    pub definition: String,
    /// The process or container that it runs in, in the runner's own JSON.
    pub runtime: Option<String>,
    /// The latest state of its [`Task`], as JSON.
    pub task: String,
}

impl Database {
    /// Stores a definition under the hash of its content. Idempotent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn ensure_definition(
        &self,
        hash: &str,
        definition: &TaskDefinition,
    ) -> Result<(), PortError> {
        let known = hash.to_owned();
        if self
            .read(SERVICE, move |db| has_definition(db, &known))
            .await?
        {
            return Ok(());
        }
        let (hash, json) = (hash.to_owned(), json(definition, &Unknown::default())?);
        let write = move |db: &Connection| {
            db.prepare_cached("INSERT OR IGNORE INTO definitions (hash, json) VALUES (?1, ?2)")?
                .execute([hash, json])
                .map(drop)
        };
        failpoint!("database.ensure_definition.before");
        self.write(SERVICE, write).await?;
        failpoint!("database.ensure_definition.after");
        Ok(())
    }

    /// Records a task that is about to start from the definition with this hash. If a task with the
    /// same client token is recorded already, returns that one. Idempotent.
    ///
    /// # Errors
    /// When the file cannot be written, or has no such definition.
    pub async fn insert_task(
        &self,
        input: &RunTaskInput,
        definition: &str,
        task: &Task,
    ) -> Result<TaskRow, PortError> {
        let new = NewTask {
            arn: task.task_arn.to_string(),
            client_token: input.client_token.clone(),
            started_by: input.started_by.clone(),
            open: task.last_status != TaskStatus::Stopped,
            definition: definition.to_owned(),
            task: json(task, &Unknown::default())?,
            input: json(input, &Unknown::default())?,
        };
        let worker = self.worker().clone();
        failpoint!("database.insert_task.before");
        let row = self
            .write(SERVICE, move |db| insert(db, &new, &worker))
            .await?;
        failpoint!("database.insert_task.after");
        row.ok_or_else(|| {
            PortError::invalid(
                SERVICE,
                format!("there is no task definition {definition} in it"),
            )
        })
    }

    /// Writes the current state of a task. Without a `runtime`, keeps the stored one. Returns
    /// whether the state is now stored.
    ///
    /// Conditional on the task being open: the end of a stopped task is never overwritten.
    /// Idempotent: the same text again counts as stored.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn update_task(
        &self,
        arn: &str,
        runtime: Option<String>,
        task: String,
        stopped: bool,
    ) -> Result<bool, PortError> {
        let arn = arn.to_owned();
        let write = move |db: &Connection| {
            db.prepare_cached(
                "UPDATE tasks SET open = ?2, task = ?3, runtime = coalesce(?4, runtime)
                 WHERE arn = ?1 AND (open OR task = ?3)",
            )?
            .execute(params![arn, !stopped, task, runtime])
        };
        failpoint!("database.update_task.before");
        let rows = self.write(SERVICE, write).await?;
        failpoint!("database.update_task.after");
        Ok(rows > 0)
    }

    /// Asks the worker that runs the task to stop it. The first reason stays. Returns that worker;
    /// `None` if there is nothing (more) to stop. Idempotent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn request_stop(
        &self,
        arn: &str,
        reason: &str,
    ) -> Result<Option<WorkerId>, PortError> {
        let (arn, reason) = (arn.to_owned(), reason.to_owned());
        let write = move |db: &Connection| {
            db.prepare_cached(
                "UPDATE tasks SET stop = coalesce(stop, ?2) WHERE arn = ?1 AND open RETURNING pump",
            )?
            .query_row([arn, reason], |row| row.get(0).map(WorkerId))
            .optional()
        };
        failpoint!("database.request_stop.before");
        let worker = self.write(SERVICE, write).await?;
        failpoint!("database.request_stop.after");
        Ok(worker)
    }

    /// Returns the reason to stop this task, if a stop was requested.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn stop_requested(&self, arn: &str) -> Result<Option<String>, PortError> {
        let arn = arn.to_owned();
        let read = move |db: &Connection| {
            let reason = db
                .prepare_cached("SELECT stop FROM tasks WHERE arn = ?1")?
                .query_row([arn], |row| row.get(0))
                .optional()?;
            Ok(reason.flatten())
        };
        self.read(SERVICE, read).await
    }

    /// Returns this worker's open tasks with a stop request.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn to_be_stopped(&self) -> Result<Vec<String>, PortError> {
        let worker = self.worker().clone();
        let read = move |db: &Connection| {
            let mut select = db.prepare_cached(
                "SELECT arn FROM tasks WHERE open AND pump = ?1 AND stop IS NOT NULL",
            )?;
            select
                .query_map([worker.as_str()], |row| row.get(0))?
                .collect()
        };
        self.read(SERVICE, read).await
    }

    /// Returns the task with this ARN.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn task(&self, arn: &str) -> Result<Option<TaskRow>, PortError> {
        let arn = arn.to_owned();
        Ok(self
            .read(SERVICE, move |db| select(db, "arn = ?1", &arn))
            .await?
            .pop())
    }

    /// Returns the ARNs of the tasks that an attempt started, running and stopped.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn tasks_started_by(&self, attempt: &AttemptId) -> Result<Vec<String>, PortError> {
        let attempt = attempt.to_string();
        let read = move |db: &Connection| {
            let mut select =
                db.prepare_cached("SELECT arn FROM tasks WHERE started_by = ?1 ORDER BY rowid")?;
            select.query_map([attempt], |row| row.get(0))?.collect()
        };
        self.read(SERVICE, read).await
    }

    /// Returns the ARNs of all tasks that are not stopped, of any worker.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn every_open_task(&self) -> Result<HashSet<String>, PortError> {
        let read = |db: &Connection| {
            db.prepare_cached("SELECT arn FROM tasks INDEXED BY tasks_open WHERE open")?
                .query_map([], |row| row.get(0))?
                .collect()
        };
        self.read(SERVICE, read).await
    }

    /// Returns those of these ARNs that are recorded.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn recorded_tasks(&self, arns: Vec<String>) -> Result<HashSet<String>, PortError> {
        let read = move |db: &Connection| {
            let mut select = db.prepare_cached("SELECT 1 FROM tasks WHERE arn = ?1")?;
            let mut known = HashSet::new();
            for arn in arns {
                if select.exists([&arn])? {
                    known.insert(arn);
                }
            }
            Ok(known)
        };
        self.read_long(SERVICE, read).await
    }

    /// Returns the tasks of this worker that are not stopped.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn open_tasks(&self) -> Result<Vec<TaskRow>, PortError> {
        let worker = self.worker().clone();
        self.read(SERVICE, move |db| {
            select(db, "open AND pump = ?1", worker.as_str())
        })
        .await
    }
}

fn has_definition(db: &Connection, hash: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM definitions WHERE hash = ?1")?
        .exists([hash])
}

struct NewTask {
    arn: String,
    client_token: String,
    started_by: String,
    open: bool,
    definition: String,
    task: String,
    input: String,
}

/// Inserts a task. Returns `None` if the definition is missing. Then nothing is recorded.
fn insert(db: &Connection, new: &NewTask, worker: &WorkerId) -> rusqlite::Result<Option<TaskRow>> {
    if !has_definition(db, &new.definition)? {
        return Ok(None);
    }
    db.prepare_cached(
        "INSERT INTO tasks (arn, client_token, started_by, pump, open, definition, task, input) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (client_token) DO NOTHING",
    )?
    .execute(params![new.arn, new.client_token, new.started_by, worker.as_str(), new.open, new.definition, new.task, new.input])?;
    super::workers::register(db, worker)?;
    Ok(select(db, "client_token = ?1", &new.client_token)?.pop())
}

fn select(db: &Connection, condition: &str, value: &str) -> rusqlite::Result<Vec<TaskRow>> {
    let columns = "arn, pump, input, json, runtime, task, open";
    let sql = format!(
        "SELECT {columns} FROM tasks JOIN definitions ON hash = definition WHERE {condition} ORDER BY tasks.rowid"
    );
    db.prepare_cached(&sql)?.query_map([value], row)?.collect()
}

fn row(row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    Ok(TaskRow {
        arn: row.get(0)?,
        worker: row.get(1).map(WorkerId)?,
        input: row.get(2)?,
        definition: row.get(3)?,
        runtime: row.get(4)?,
        task: row.get(5)?,
        open: row.get(6)?,
    })
}
