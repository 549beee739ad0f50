//! Writes. They wait in one list, and a task of the runtime commits what has come together.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::{runtime::Handle, sync::oneshot};

use super::{BUSY_MAX, BUSY_PAUSE, DatabaseInner, StoreFault, reads::lock, wait_for_others};
use crate::failpoint;

/// The most writes in one transaction. With 256, the commit costs each write next to nothing, and
/// the wait stays bounded.
const BATCH_MAX: usize = 256;

/// The writes that are not committed yet.
#[derive(Default)]
pub(super) struct WaitingWrites {
    list: VecDeque<Box<dyn Write>>,
    /// Whether a task is about to commit them.
    has_task: bool,
}

/// Adds a write. It is committed even if the caller does not wait for it.
pub(super) fn add(database: &Arc<DatabaseInner>, write: Box<dyn Write>) {
    let runtime = Handle::current();
    let is_first = {
        let mut waiting = lock(&database.waiting);
        waiting.list.push_back(write);
        !std::mem::replace(&mut waiting.has_task, true)
    };
    if is_first {
        runtime.spawn(commit_waiting(CommitTask {
            database: Arc::clone(database),
            is_over: false,
        }));
    }
}

/// The one task that commits.
struct CommitTask {
    database: Arc<DatabaseInner>,
    /// Whether another task may be there already.
    is_over: bool,
}

impl Drop for CommitTask {
    /// If this ends early, with its runtime: commits what waits, since nobody else does.
    fn drop(&mut self) {
        if !self.is_over {
            self.database.commit_all();
        }
    }
}

async fn commit_waiting(mut task: CommitTask) {
    let mut since = Instant::now();
    loop {
        match task.database.commit_some(since) {
            CommitStep::NoneLeft => {
                task.is_over = true;
                return;
            }
            CommitStep::Committed => {
                tokio::task::yield_now().await;
                since = Instant::now();
            }
            CommitStep::Busy => tokio::time::sleep(BUSY_PAUSE).await,
        }
    }
}

/// The result of a try to commit.
enum CommitStep {
    /// No write waits. The next one starts a task of its own.
    NoneLeft,
    /// More writes wait.
    Committed,
    /// Another process writes.
    Busy,
}

impl DatabaseInner {
    /// Commits waiting writes in one transaction, unless another process writes. If that process
    /// has written all the time since `since`, that is a fault, and the first write is answered
    /// with it.
    fn commit_some(&self, since: Instant) -> CommitStep {
        let mut connection = lock(&self.writer);
        // Others on this thread have work to do meanwhile.
        let begun = without_waiting(&mut connection, "BEGIN IMMEDIATE");
        if matches!(&begun, Err(error) if is_busy(error)) && since.elapsed() < BUSY_MAX {
            return CommitStep::Busy;
        }
        self.commit_batch(&connection, begun)
    }

    fn commit_all(&self) {
        let connection = lock(&self.writer);
        loop {
            let begun = execute(&connection, "BEGIN IMMEDIATE");
            if let CommitStep::NoneLeft = self.commit_batch(&connection, begun) {
                return;
            }
        }
    }

    fn next(&self) -> Option<Box<dyn Write>> {
        lock(&self.waiting).list.pop_front()
    }

    fn commit_batch(&self, connection: &Connection, begun: rusqlite::Result<()>) -> CommitStep {
        let (batch, outcome) = match begun {
            Ok(()) => self.write_batch(connection),
            // The others may have more luck.
            Err(error) => (self.next().into_iter().collect(), Err(error)),
        };
        let undone = outcome.err().map(StoreFault::from);
        for write in batch {
            write.answer(undone.as_ref());
        }
        let mut waiting = lock(&self.waiting);
        waiting.has_task = !waiting.list.is_empty();
        match waiting.has_task {
            true => CommitStep::Committed,
            false => CommitStep::NoneLeft,
        }
    }

    fn write_batch(&self, connection: &Connection) -> (Vec<Box<dyn Write>>, rusqlite::Result<()>) {
        let mut batch = Vec::new();
        // A full disk and similar faults undo the whole transaction. After that, nothing may be
        // written outside of a transaction.
        while batch.len() < BATCH_MAX && !connection.is_autocommit() {
            let Some(mut write) = self.next() else {
                break;
            };
            write.run(connection);
            batch.push(write);
        }
        let outcome = commit(connection);
        (batch, outcome)
    }
}

/// Executes a statement. If another process writes, it fails at once.
fn without_waiting(connection: &mut Connection, sql: &str) -> rusqlite::Result<()> {
    connection.busy_handler(None::<fn(i32) -> bool>)?;
    let done = execute(connection, sql);
    connection.busy_handler(Some(wait_for_others))?;
    done
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// A write that waits for its transaction.
pub(super) trait Write: Send {
    /// Makes the changes.
    fn run(&mut self, connection: &Connection);
    /// Answers the caller once the transaction has succeeded or failed. `undone` is the reason of a
    /// failed one.
    fn answer(self: Box<Self>, undone: Option<&StoreFault>);
}

/// A write and the caller that waits for it.
pub(super) struct Pending<T, F> {
    work: Option<F>,
    result: Option<rusqlite::Result<T>>,
    reply: oneshot::Sender<Result<T, StoreFault>>,
}

impl<T, F> Pending<T, F> {
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T, StoreFault>>) -> Self {
        Self {
            work: Some(work),
            result: None,
            reply,
        }
    }
}

impl<T, F> Write for Pending<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) {
        self.result = self.work.take().map(|work| in_savepoint(connection, work));
    }

    fn answer(self: Box<Self>, undone: Option<&StoreFault>) {
        let result = match (undone, self.result) {
            // The write's own error says more than that of the transaction.
            (_, Some(Err(error))) => Err(error.into()),
            (None, Some(Ok(value))) => Ok(value),
            (Some(fault), _) => Err(fault.clone()),
            (None, None) => Err(StoreFault::Ended),
        };
        // The caller may be gone. The write is committed all the same.
        let _ = self.reply.send(result);
    }
}

/// Runs `work`, and undoes this work alone if it fails.
fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    execute(connection, "SAVEPOINT work")?;
    let result = work(connection);
    if result.is_err() && !connection.is_autocommit() {
        execute(connection, "ROLLBACK TO work")?;
    }
    if !connection.is_autocommit() {
        execute(connection, "RELEASE work")?;
    }
    result
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

fn commit(connection: &Connection) -> rusqlite::Result<()> {
    failpoint!("database.commit.before");
    if let Err(error) = execute(connection, "COMMIT") {
        if !connection.is_autocommit() {
            // Best effort: the next transaction cannot begin before this one has ended.
            let _ = execute(connection, "ROLLBACK");
        }
        return Err(error);
    }
    failpoint!("database.commit.after");
    Ok(())
}
