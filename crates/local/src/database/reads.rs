//! Reads. Each sees what was committed last, and none waits for a write.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use domain::error::PortError;
use rusqlite::Connection;

use super::{Database, DatabaseInner, StoreFault, connect};

/// The most long reads at once. More would gain nothing on the usual machine.
pub(super) const LONG_READS: usize = 4;
/// How many connections for reads are kept open.
const KEPT: usize = 8;

impl Database {
    /// Runs `work` on this thread. `work` must not write, and must be short: what is found by an
    /// index, and few rows of it.
    pub(crate) async fn read<T, F>(&self, service: &'static str, work: F) -> Result<T, PortError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T>,
    {
        // A caller that reads one thing after the other lets others have their turn.
        tokio::task::coop::consume_budget().await;
        self.0.read(service, work)
    }

    /// Runs `work` on a thread for work that may take long, such as a look through the history.
    /// `work` must not write.
    pub(crate) async fn read_long<T, F>(
        &self,
        service: &'static str,
        work: F,
    ) -> Result<T, PortError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let ended = || StoreFault::Ended.of_service(service);
        let turns = Arc::clone(&self.0.long_reads);
        let turn = turns.acquire_owned().await.map_err(|_| ended())?;
        let database = Arc::clone(&self.0);
        let read = move || {
            // Also while nobody waits for it any more.
            let _turn = turn;
            let connection = database.reader();
            database.read_on(service, connection, work)
        };
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| Err(ended()))
    }
}

impl DatabaseInner {
    fn read<T>(
        &self,
        service: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        let writer = match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        // A transaction that could not be undone must not be read.
        match writer.filter(|writer| writer.is_autocommit()) {
            Some(writer) => {
                work(&writer).map_err(|error| StoreFault::from(error).of_service(service))
            }
            None => self.read_on(service, self.reader(), work),
        }
    }

    /// A connection for reads.
    fn reader(&self) -> rusqlite::Result<Connection> {
        if let Some(kept) = lock(&self.readers).pop() {
            return Ok(kept);
        }
        let reader = connect(&self.path)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(reader)
    }

    fn read_on<T>(
        &self,
        service: &'static str,
        connection: rusqlite::Result<Connection>,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        let read = connection.and_then(|connection| {
            let read = work(&connection);
            let mut readers = lock(&self.readers);
            if readers.len() < KEPT {
                readers.push(connection);
            }
            read
        });
        read.map_err(|error| StoreFault::from(error).of_service(service))
    }
}

/// Locks also after a panic, which has ended the process.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
