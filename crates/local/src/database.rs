//! The SQLite file behind the store and the queue of one machine. Every process on the machine
//! shares it.
//!
//! WAL with `synchronous=OFF`: a commit survives `kill -9` of any process, but not the loss of
//! power. Each process has one writer thread, which puts all waiting writes into one transaction,
//! and one reader thread, which never waits for a write.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use domain::{
    Timestamp,
    error::{PortError, Rejected, RejectionKind},
};
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::oneshot;

use crate::{failpoint, system};

mod prune;
mod tasks;
mod workers;

pub use prune::Pruned;
pub use tasks::TaskRow;
pub use workers::Limits;
pub(crate) use workers::register;

/// The store's name in errors.
const SERVICE: &str = "the store";

/// The steps from an empty file to the newest schema. SQLite's `user_version` counts the steps that
/// a file has had. A released step is never changed (docs/UPGRADING.md).
const MIGRATIONS: [&str; 7] = [
    include_str!("database/migrations/1.sql"),
    include_str!("database/migrations/2.sql"),
    include_str!("database/migrations/3.sql"),
    include_str!("database/migrations/4.sql"),
    include_str!("database/migrations/5.sql"),
    include_str!("database/migrations/6.sql"),
    include_str!("database/migrations/7.sql"),
];
/// The version of the newest schema.
const SCHEMA_VERSION: i64 = 7;
const _: () = assert!(
    MIGRATIONS.len() == SCHEMA_VERSION as usize,
    "each step is one version"
);
/// The most writes in one transaction. With 256, the commit costs each write next to nothing, and
/// the wait stays bounded.
const BATCH_MAX: usize = 256;
/// The pause between two tries while another process writes to the file. A commit takes less than
/// 1 ms.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How often to try before giving up: half a minute. Other processes write in short transactions,
/// so a longer wait means a fault.
const BUSY_LOOKS: i32 = 30_000;
/// How many prepared statements a connection keeps: more than the code has.
const STATEMENTS: usize = 96;

/// The name of a worker: one process that owns executions. No other process ever has the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(String);

impl WorkerId {
    /// Makes a fresh name of 80 random bits, which is short enough for a socket's path.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self(hex::encode(system::bytes::<10>()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for WorkerId {
    fn from(name: String) -> Self {
        Self(name)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the file could not be opened. Each text completes "failed to open the store: ".
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory, the file or its lock cannot be made.
    #[error("{}: {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A later version of mycli wrote the file.
    #[error("{} has format {found} and this mycli knows {SCHEMA_VERSION}; use the newer mycli that wrote it, or another directory", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version found in it.
        found: i64,
    },
    /// SQLite cannot use the file.
    #[error("{}: {detail}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The fault, in plain words.
        detail: String,
    },
}

/// A handle to the file. Clones share it. The file is closed when the last one is dropped.
#[derive(Clone)]
pub struct Database(Arc<DatabaseInner>);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(self.worker()).finish()
    }
}

struct DatabaseInner {
    worker: WorkerId,
    writes: Worker<Box<dyn Write>>,
    reads: Worker<Read>,
}

impl Database {
    /// Opens the file. If there is none, makes it (0600) and its directory (0700). All records that
    /// this handle writes belong to `worker`.
    ///
    /// Two processes that open the file at once wait for each other, so that neither sees a
    /// half-made file.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, worker: WorkerId) -> Result<Self, OpenError> {
        // Held until both connections are open. The lock file stays: if it were removed, two
        // processes could hold two different locks.
        let _guard = guard(path)?;
        let sqlite = |error: rusqlite::Error| OpenError::Sqlite {
            path: path.to_owned(),
            detail: explain(&error),
        };
        let mut writer = connect(path).map_err(sqlite)?;
        migrate(&mut writer, path)?;
        let reader = connect(path).map_err(sqlite)?;
        reader
            .pragma_update(None, "query_only", true)
            .map_err(sqlite)?;
        let thread = |source| OpenError::File {
            path: path.to_owned(),
            source,
        };
        let writes =
            Worker::start("store-writer", move |jobs| write_all(&writer, &jobs)).map_err(thread)?;
        let reads = Worker::start("store-reader", move |jobs: mpsc::Receiver<Read>| {
            jobs.iter().for_each(|job| job(&reader));
        });
        Ok(Self(Arc::new(DatabaseInner {
            worker,
            writes,
            reads: reads.map_err(thread)?,
        })))
    }

    /// The worker that this handle writes for.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        &self.0.worker
    }

    /// Runs `work` in a transaction together with other writes, and returns once that is committed.
    /// An error undoes this work only. Dropping the future does not undo the write.
    pub(crate) async fn write<T, F>(&self, service: &'static str, work: F) -> Result<T, PortError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.0.writes.send(Box::new(Pending {
            work: Some(work),
            result: None,
            reply,
        }));
        answered(service, answer).await
    }

    /// Runs `work` over the last committed state. `work` must not write.
    pub(crate) async fn read<T, F>(&self, service: &'static str, work: F) -> Result<T, PortError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.0.reads.send(Box::new(move |connection| {
            // If the caller is gone, nothing waits for the answer.
            let _ = reply.send(work(connection).map_err(StoreFault::from));
        }));
        answered(service, answer).await
    }
}

async fn answered<T>(
    service: &'static str,
    answer: oneshot::Receiver<Result<T, StoreFault>>,
) -> Result<T, PortError> {
    answer
        .await
        .unwrap_or(Err(StoreFault::Ended))
        .map_err(|fault| fault.of_service(service))
}

/// Why the file was not read or written.
#[derive(Clone, Debug, thiserror::Error)]
enum StoreFault {
    /// SQLite's error. One failed transaction may fail many writes.
    #[error("{}", explain(.0))]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// The thread that answers is gone.
    #[error("its thread has ended")]
    Ended,
}

impl From<rusqlite::Error> for StoreFault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl StoreFault {
    /// Converts to the port's error by what can fix it: time, the machine's owner, or only a fix of
    /// mycli.
    fn of_service(self, service: &'static str) -> PortError {
        let Self::Sqlite(error) = &self else {
            return PortError::unavailable(service, self);
        };
        match (error.as_ref(), error.sqlite_error_code()) {
            (
                _,
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen),
            ) => {
                let rejection = RejectionKind::Denied { permission: None };
                Rejected {
                    service,
                    rejection,
                    source: Arc::new(self),
                }
                .into()
            }
            (_, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) => {
                PortError::corrupt("the store's file", self)
            }
            (
                _,
                Some(
                    ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::OutOfMemory
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::OperationInterrupted
                    | ErrorCode::SchemaChanged,
                ),
            ) => PortError::unavailable(service, self),
            (
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..),
                None,
            ) => PortError::corrupt("a row of the store", self),
            _ => PortError::invalid(service, self),
        }
    }
}

/// Takes the lock for opening the file and migrating its schema.
fn guard(path: &Path) -> Result<File, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: std::io::Error| OpenError::File { path, source }
    };
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed(directory))?;
    }
    let lock_path = path.with_added_extension("lock");
    let lock = private_file(&lock_path).map_err(failed(&lock_path))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| failed(&lock_path)(error.into()))?;
    // SQLite gives its side files the mode of this file. If SQLite made this file, all users could
    // read it.
    private_file(path).map_err(failed(path))?;
    Ok(lock)
}

fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_handler(Some(wait_for_others))?;
    connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Opens a file that exists and has the newest schema, only to read it. Nothing is made, migrated
/// or waited for. `None` if it cannot be read so.
pub(crate) fn glance(path: &Path) -> Option<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).ok()?;
    connection.pragma_update(None, "query_only", true).ok()?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
    (version == Ok(SCHEMA_VERSION)).then_some(connection)
}

/// Replaces SQLite's own busy handler, which sleeps up to 100 ms at a time, far longer than another
/// process's commit takes.
fn wait_for_others(looks: i32) -> bool {
    std::thread::sleep(BUSY_PAUSE);
    looks < BUSY_LOOKS
}

/// Migrates the file to the newest schema, in place and in one transaction: all missing steps, or
/// none.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |error: rusqlite::Error| OpenError::Sqlite {
        path: path.to_owned(),
        detail: explain(&error),
    };
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(sqlite)?;
    let made = usize::try_from(found)
        .ok()
        .filter(|made| *made <= MIGRATIONS.len());
    let made = made.ok_or_else(|| OpenError::Newer {
        path: path.to_owned(),
        found,
    })?;
    take_steps(connection, &MIGRATIONS[made..]).map_err(sqlite)
}

fn take_steps(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// Explains an error in words that help, or in SQLite's own if there are no better ones.
fn explain(error: &rusqlite::Error) -> String {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full; free some space and try again",
        Some(ErrorCode::ReadOnly) => "the file, its directory or the disk is read-only",
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "the file is damaged or is not mycli's; move it away to start anew"
        }
        // SQLite has a separate code for a full disk. If its shared memory or a page cannot be
        // written, it reports only an I/O error.
        Some(ErrorCode::SystemIoFailure) if is_for_want_of_room(error) => {
            "the disk is full, or fails; free some space and try again"
        }
        Some(ErrorCode::DatabaseBusy) => "another process kept the file busy for half a minute",
        _ => return error.to_string(),
    };
    format!("{advice} ({error})")
}

fn is_for_want_of_room(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        extended,
        Some(ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMMAP)
    )
}

/// A thread that works through its jobs in order. Dropping this waits until all jobs are done and
/// the thread has ended.
struct Worker<J> {
    jobs: Option<mpsc::Sender<J>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static> Worker<J> {
    fn start(
        name: &str,
        run: impl FnOnce(mpsc::Receiver<J>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || run(receiver))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }
}

impl<J> Worker<J> {
    /// Sends a job to the thread. If the thread has ended, the job is dropped together with its
    /// reply channel, which the caller notices.
    fn send(&self, job: J) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// A write that waits for its transaction.
trait Write: Send {
    /// Makes the changes.
    fn run(&mut self, connection: &Connection);
    /// Answers the caller once the transaction has succeeded or failed. `undone` is the reason of a
    /// failed one.
    fn answer(self: Box<Self>, undone: Option<&StoreFault>);
}

struct Pending<T, F> {
    work: Option<F>,
    result: Option<rusqlite::Result<T>>,
    reply: oneshot::Sender<Result<T, StoreFault>>,
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

/// The loop of the writer thread: waits for a write, then commits it together with all other
/// waiting writes.
fn write_all(connection: &Connection, jobs: &mpsc::Receiver<Box<dyn Write>>) {
    while let Ok(first) = jobs.recv() {
        let (batch, outcome) = write_batch(connection, first, jobs);
        let undone = outcome.err().map(StoreFault::from);
        for job in batch {
            job.answer(undone.as_ref());
        }
    }
}

fn write_batch(
    connection: &Connection,
    first: Box<dyn Write>,
    jobs: &mpsc::Receiver<Box<dyn Write>>,
) -> (Vec<Box<dyn Write>>, rusqlite::Result<()>) {
    let mut batch = Vec::new();
    let mut next = Some(first);
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
        return (next.into_iter().collect(), Err(error));
    }
    while let Some(mut job) = next {
        job.run(connection);
        batch.push(job);
        // A full disk and similar faults undo the whole transaction. After that, no job may write
        // outside of a transaction.
        let goes_on = batch.len() < BATCH_MAX && !connection.is_autocommit();
        next = if goes_on { jobs.try_recv().ok() } else { None };
    }
    let outcome = commit(connection);
    (batch, outcome)
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

/// Milliseconds since the epoch, as the file keeps times.
pub(crate) fn millis(at: Timestamp) -> i64 {
    at.timestamp_millis()
}

/// The time that is this many milliseconds since the epoch. A number out of range becomes the
/// epoch.
pub(crate) fn moment(millis: i64) -> Timestamp {
    Timestamp::from_timestamp_millis(millis).unwrap_or_default()
}

/// A count as SQLite stores it.
pub(crate) fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count that SQLite stored.
pub(crate) fn count<N: TryFrom<i64> + Default>(integer: i64) -> N {
    N::try_from(integer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &'static str) -> impl FnOnce(&Connection) -> rusqlite::Result<()> {
        move |db| {
            db.execute("INSERT INTO pumps (id) VALUES (?1)", [name])
                .map(drop)
        }
    }

    #[tokio::test]
    async fn a_write_that_fails_undoes_itself_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("store.sqlite"), WorkerId::new()).unwrap();
        let fails_halfway = |db: &Connection| {
            add("half")(db)?;
            db.execute("INSERT INTO nowhere (id) VALUES (1)", [])
                .map(drop)
        };
        // Sent before the first is answered, so that they share a transaction or closely follow
        // each other.
        let (one, failed, two) = tokio::join!(
            database.write(SERVICE, add("one")),
            database.write(SERVICE, fails_halfway),
            database.write(SERVICE, add("two"))
        );
        assert!(one.is_ok() && two.is_ok());
        assert!(failed.unwrap_err().to_string().contains("nowhere"));
        let mut names: Vec<_> = database
            .workers()
            .await
            .unwrap()
            .into_iter()
            .map(|worker| worker.0)
            .collect();
        names.sort();
        assert_eq!(names, ["one", "two"]);
    }

    /// The failing transaction of a full disk must not lose what is sent after it.
    #[tokio::test]
    async fn a_full_disk_is_said_and_passes() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("store.sqlite"), WorkerId::new()).unwrap();
        let limit = |pages: i64| {
            move |db: &Connection| {
                db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            }
        };
        database.write(SERVICE, limit(1)).await.unwrap();
        let large = |db: &Connection| {
            db.execute("INSERT INTO pumps (id) VALUES (hex(zeroblob(100000)))", [])
                .map(drop)
        };
        let (failed, beside) = tokio::join!(
            database.write(SERVICE, large),
            database.write(SERVICE, add("beside"))
        );
        let failed = failed.unwrap_err();
        assert!(failed.may_pass());
        let detail = failed.to_string();
        assert!(detail.contains("the disk is full"), "{detail}");
        drop(beside);
        database.write(SERVICE, limit(1_000_000)).await.unwrap();
        database.write(SERVICE, large).await.unwrap();
        assert_eq!(
            database
                .workers()
                .await
                .unwrap()
                .iter()
                .filter(|worker| worker.0.len() == 200_000)
                .count(),
            1
        );
    }
}
