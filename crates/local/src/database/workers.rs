//! Workers: the processes that own executions, and the takeover of a dead worker's work.

use domain::ports::PortError;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Database, SERVICE, WorkerId, count};
use crate::failpoint;

/// The limits of one worker. The other workers of a machine have their own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// The vCPUs in use at once. `None`: as many as the machine has.
    pub vcpus: Option<f64>,
    /// Launches per second. `None`: no limit.
    pub launch_rate: Option<f64>,
}

impl Limits {
    /// Whether there is no limit.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the tighter of both limits, for each field.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let tighter =
            |one: Option<f64>, other: Option<f64>| one.into_iter().chain(other).reduce(f64::min);
        Self {
            vcpus: tighter(self.vcpus, other.vcpus),
            launch_rate: tighter(self.launch_rate, other.launch_rate),
        }
    }
}

impl Database {
    /// Registers this handle's worker with its limits, so that other processes can take over its
    /// work. Idempotent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn register_worker(&self, limits: Limits) -> Result<(), PortError> {
        let worker = self.worker().clone();
        let write = move |db: &Connection| {
            register(db, &worker)?;
            set_limits(db, &worker, limits)
        };
        failpoint!("database.register_pump.before");
        self.write(SERVICE, write).await?;
        failpoint!("database.register_pump.after");
        Ok(())
    }

    /// Returns the limits for the unfinished work of a worker. There are none if it has no such
    /// work.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn limits(&self, worker: &WorkerId) -> Result<Limits, PortError> {
        let worker = worker.clone();
        let read = move |db: &Connection| {
            if has_unfinished(db, &worker)? {
                limits(db, &worker)
            } else {
                Ok(Limits::default())
            }
        };
        self.read(SERVICE, read).await
    }

    /// Returns every registered worker, dead or alive, including this one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn workers(&self) -> Result<Vec<WorkerId>, PortError> {
        let read = |db: &Connection| {
            db.prepare_cached("SELECT id FROM pumps ORDER BY id")?
                .query_map([], |row| row.get(0).map(WorkerId))?
                .collect()
        };
        self.read(SERVICE, read).await
    }

    /// Makes this worker the owner of all unfinished work of `dead`, and deletes `dead`. Returns
    /// whether there was any work. The caller has made sure that `dead` is dead. From then on this
    /// worker has these limits. Idempotent: if two workers try, one gets everything and the other
    /// nothing.
    ///
    /// # Errors
    /// When the file cannot be written. Then nothing was taken.
    pub async fn adopt(&self, dead: &WorkerId, limits: Limits) -> Result<bool, PortError> {
        let (successor, dead) = (self.worker().clone(), dead.clone());
        failpoint!("database.adopt.before");
        let adopted = self
            .write(SERVICE, move |db| adopt(db, &dead, &successor, limits))
            .await?;
        failpoint!("database.adopt.after");
        Ok(adopted)
    }

    /// Deletes this worker, and returns whether it did. It refuses while the worker owns an
    /// unfinished execution or task, so that another process can take that over. The messages that
    /// are left are wakeups about finished work, and are deleted too. Idempotent.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn unregister_worker(&self) -> Result<bool, PortError> {
        let worker = self.worker().clone();
        failpoint!("database.unregister_pump.before");
        let gone = self
            .write(SERVICE, move |db| unregister(db, &worker))
            .await?;
        failpoint!("database.unregister_pump.after");
        Ok(gone)
    }

    /// Whether an execution of this worker is unfinished, or a task of a finished one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn has_unfinished_here(&self) -> Result<bool, PortError> {
        let worker = self.worker().clone();
        self.read(SERVICE, move |db| has_unfinished(db, &worker))
            .await
    }

    /// Returns how many executions of this worker were launched, are not final, and have no open
    /// task. The next check closes them or launches them again.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn unsettled(&self) -> Result<u64, PortError> {
        let worker = self.worker().clone();
        let read = move |db: &Connection| {
            db.prepare_cached(
                "SELECT count(*) FROM executions WHERE ended_at IS NULL AND pump = ?1 AND line IS NULL AND NOT EXISTS (
                     SELECT 1 FROM tasks WHERE open AND started_by > executions.id || '-' AND started_by < executions.id || '.')",
            )?
            .query_row([worker.as_str()], |row| row.get(0).map(count))
        };
        self.read(SERVICE, read).await
    }
}

pub(crate) fn register(db: &Connection, worker: &WorkerId) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO pumps (id) VALUES (?1)")?
        .execute([worker.as_str()])
        .map(drop)
}

fn set_limits(db: &Connection, worker: &WorkerId, limits: Limits) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE pumps SET vcpus = ?2, launch_rate = ?3 WHERE id = ?1")?
        .execute(params![worker.as_str(), limits.vcpus, limits.launch_rate])
        .map(drop)
}

fn limits(db: &Connection, worker: &WorkerId) -> rusqlite::Result<Limits> {
    let known = db
        .prepare_cached("SELECT vcpus, launch_rate FROM pumps WHERE id = ?1")?
        .query_row([worker.as_str()], |row| {
            Ok(Limits {
                vcpus: row.get(0)?,
                launch_rate: row.get(1)?,
            })
        })
        .optional()?;
    Ok(known.unwrap_or_default())
}

fn adopt(
    db: &Connection,
    dead: &WorkerId,
    successor: &WorkerId,
    limits: Limits,
) -> rusqlite::Result<bool> {
    if dead == successor {
        return Ok(false);
    }
    let names = [dead.as_str(), successor.as_str()];
    let adopted = db
        .prepare_cached("UPDATE executions SET pump = ?2 WHERE ended_at IS NULL AND pump = ?1")?
        .execute(names)?
        + db.prepare_cached("UPDATE tasks SET pump = ?2 WHERE open AND pump = ?1")?
            .execute(names)?
        + db.prepare_cached("UPDATE messages SET pump = ?2 WHERE pump = ?1")?
            .execute(names)?
        + db.prepare_cached("UPDATE dead_letters SET pump = ?2 WHERE NOT settled AND pump = ?1")?
            .execute(names)?;
    if adopted > 0 {
        register(db, successor)?;
        set_limits(db, successor, limits)?;
    }
    forget(db, dead)?;
    Ok(adopted > 0)
}

fn has_unfinished(db: &Connection, worker: &WorkerId) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM executions WHERE ended_at IS NULL AND pump = ?1)
             OR EXISTS (SELECT 1 FROM tasks WHERE open AND pump = ?1 AND NOT EXISTS (
                    SELECT 1 FROM executions WHERE ended_at IS NULL AND id = substr(started_by, 1, instr(started_by, '-') - 1)))",
    )?
    .query_row([worker.as_str()], |row| row.get(0))
}

fn unregister(db: &Connection, worker: &WorkerId) -> rusqlite::Result<bool> {
    let finished = !has_unfinished(db, worker)?;
    if finished {
        db.prepare_cached("DELETE FROM messages WHERE pump = ?1")?
            .execute([worker.as_str()])?;
        forget(db, worker)?;
    }
    Ok(finished)
}

fn forget(db: &Connection, worker: &WorkerId) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM shares WHERE pump = ?1")?
        .execute([worker.as_str()])?;
    db.prepare_cached("DELETE FROM line_states WHERE pump = ?1")?
        .execute([worker.as_str()])?;
    db.prepare_cached("DELETE FROM line_times WHERE pump = ?1")?
        .execute([worker.as_str()])?;
    db.prepare_cached("DELETE FROM pumps WHERE id = ?1")?
        .execute([worker.as_str()])
        .map(drop)
}
