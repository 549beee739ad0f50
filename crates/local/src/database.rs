//! The SQLite file behind the store and the queue of one machine. Every process on the machine
//! shares it.
//!
//! WAL with `synchronous=OFF`: a commit survives `kill -9` of any process, but not the loss of
//! power.
//!
//! Reads and writes are made on the thread that asks for them. A statement takes some ten
//! microseconds, which is less than to hand it to another thread and back. All writes that are
//! asked for at the same moment share a transaction.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use domain::{
    Timestamp,
    error::{PortError, Rejected, RejectionKind},
};
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig, ffi};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{Semaphore, oneshot};

use crate::system;

mod prune;
mod reads;
mod tasks;
mod workers;
mod writes;

pub use prune::Pruned;
pub use tasks::TaskRow;
pub use workers::Limits;
pub(crate) use workers::register;

use writes::{Pending, WaitingWrites};

/// The store's name in errors.
const SERVICE: &str = "the store";

/// The steps from an empty file to the newest schema. SQLite's `user_version` counts the steps that
/// a file has had. A released step is never changed (docs/UPGRADING.md).
const MIGRATIONS: [&str; 8] = [
    include_str!("database/migrations/1.sql"),
    include_str!("database/migrations/2.sql"),
    include_str!("database/migrations/3.sql"),
    include_str!("database/migrations/4.sql"),
    include_str!("database/migrations/5.sql"),
    include_str!("database/migrations/6.sql"),
    include_str!("database/migrations/7.sql"),
    include_str!("database/migrations/8.sql"),
];
/// The version of the newest schema.
const SCHEMA_VERSION: i64 = 8;
const _: () = assert!(
    MIGRATIONS.len() == SCHEMA_VERSION as usize,
    "each step is one version"
);
/// The pause between two tries while another process writes to the file. A commit takes less than
/// 1 ms.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How long to try before giving up. Other processes write in short transactions, so a longer wait
/// means a fault.
const BUSY_MAX: Duration = Duration::from_secs(30);
/// How many prepared statements a connection keeps: more than the code has.
const STATEMENTS: usize = 160;

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

/// A handle to the file. Clones share it. The file is closed when the last one is dropped. Its
/// methods need a runtime of tokio that is driven until they have answered.
#[derive(Clone)]
pub struct Database(Arc<DatabaseInner>);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(self.worker()).finish()
    }
}

struct DatabaseInner {
    worker: WorkerId,
    path: PathBuf,
    /// The connection for writes. It also reads while nothing is written, since it has the latest
    /// pages at hand.
    writer: Mutex<Connection>,
    waiting: Mutex<WaitingWrites>,
    /// Connections for reads that nobody uses at the moment.
    readers: Mutex<Vec<Connection>>,
    long_reads: Arc<Semaphore>,
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
        // Held until the schema is made. The lock file stays: if it were removed, two processes
        // could hold two different locks.
        let _guard = guard(path)?;
        let sqlite = |error: rusqlite::Error| OpenError::Sqlite {
            path: path.to_owned(),
            detail: explain(&error),
        };
        let mut writer = connect(path).map_err(sqlite)?;
        migrate(&mut writer, path)?;
        Ok(Self(Arc::new(DatabaseInner {
            worker,
            path: path.to_owned(),
            writer: Mutex::new(writer),
            waiting: Mutex::default(),
            readers: Mutex::default(),
            long_reads: Arc::new(Semaphore::new(reads::LONG_READS)),
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
        writes::add(&self.0, Box::new(Pending::new(work, reply)));
        answer
            .await
            .unwrap_or(Err(StoreFault::Ended))
            .map_err(|fault| fault.of_service(service))
    }
}

/// Why the file was not read or written.
#[derive(Clone, Debug, thiserror::Error)]
enum StoreFault {
    /// SQLite's error. One failed transaction may fail many writes.
    #[error("{}", explain(.0))]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// The process ends.
    #[error("mycli is ending")]
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
    // Otherwise SQLite plans most statements again for each new value, and a prepared one gains
    // nothing.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
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
    BUSY_PAUSE * looks.unsigned_abs() < BUSY_MAX
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

    fn open(dir: &tempfile::TempDir) -> Database {
        Database::open(&dir.path().join("store.sqlite"), WorkerId::new()).unwrap()
    }

    async fn names(database: &Database) -> Vec<String> {
        let workers = database.workers().await.unwrap();
        workers.iter().map(ToString::to_string).collect()
    }

    /// One thread does everything here, as in `mycli exec`.
    #[tokio::test]
    async fn a_write_that_waits_for_another_process_holds_up_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir);
        let other = Connection::open(dir.path().join("store.sqlite")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        add("theirs")(&other).unwrap();
        let write = tokio::spawn({
            let database = database.clone();
            async move { database.write(SERVICE, add("ours")).await }
        });
        for _ in 0..10 {
            tokio::time::sleep(BUSY_PAUSE).await;
            assert!(names(&database).await.is_empty());
        }
        assert!(!write.is_finished());
        other.execute_batch("COMMIT").unwrap();
        write.await.unwrap().unwrap();
        assert_eq!(names(&database).await, ["ours", "theirs"]);
    }

    #[tokio::test]
    async fn a_long_read_holds_up_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir);
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let mut long =
            std::pin::pin!(database.read_long("a test", move |_| Ok(held.recv().is_ok())));
        assert!(futures_util::poll!(&mut long).is_pending());
        database.write(SERVICE, add("one")).await.unwrap();
        assert_eq!(names(&database).await, ["one"]);
        let_go.send(()).unwrap();
        assert!(long.await.unwrap());
    }

    /// A read meets a write on another thread: it takes another connection, and does not wait.
    #[tokio::test]
    async fn a_read_beside_a_write_sees_what_was_committed_last() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&dir);
        database.write(SERVICE, add("one")).await.unwrap();
        let (begun, begins) = std::sync::mpsc::channel();
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let writes = std::thread::spawn({
            let database = database.clone();
            move || {
                let slow = move |db: &Connection| {
                    add("two")(db)?;
                    let _here = begun.send(());
                    let _gone = held.recv();
                    Ok(())
                };
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.unwrap().block_on(database.write(SERVICE, slow))
            }
        });
        begins.recv().unwrap();
        assert_eq!(names(&database).await, ["one"]);
        let_go.send(()).unwrap();
        writes.join().unwrap().unwrap();
        assert_eq!(names(&database).await, ["one", "two"]);
    }

    #[test]
    fn a_write_is_committed_though_its_runtime_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
        };
        let database = open(&dir);
        runtime().block_on(async {
            let mut write = std::pin::pin!(database.write(SERVICE, add("left")));
            assert!(futures_util::poll!(&mut write).is_pending());
        });
        // Another runtime takes it along.
        runtime()
            .block_on(database.write(SERVICE, add("next")))
            .unwrap();
        runtime().block_on(async {
            let mut write = std::pin::pin!(database.write(SERVICE, add("last")));
            assert!(futures_util::poll!(&mut write).is_pending());
        });
        drop(database);
        let names = runtime().block_on(names(&open(&dir)));
        assert_eq!(names, ["last", "left", "next"]);
    }
}
