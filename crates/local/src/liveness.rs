//! Tells which workers are alive. Each process that runs work owns a *worker* and holds its lock,
//! which the kernel releases when the process dies.
//!
//! Other processes wake a worker through a named pipe beside that lock. A socket would serve as
//! well, but a socket's path has at most 107 bytes (103 on macOS), and the paths of homes can be
//! longer.

use std::{
    fs::{self, File},
    io,
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::Errno,
};
use tokio::net::unix::pipe;

use crate::{database::WorkerId, platform};

/// How often a new worker tries to take its own lock. Another process that clears up may hold the
/// lock, but only for a moment, so 10,000 failures mean a fault.
const DECLARE_TRIES: u32 = 10_000;

/// The directory of the workers' locks and pipes.
#[derive(Clone, Debug)]
pub struct Workers {
    dir: PathBuf,
}

/// Held while a worker lives. Other processes wake the worker through its pipe.
#[derive(Debug)]
pub struct Alive {
    wakes: pipe::Receiver,
    /// Keeps the pipe open for writing, so that reading never meets its end.
    _open: pipe::Sender,
    _lock: File,
    paths: Paths,
}

impl Alive {
    /// Resolves when another process has woken this worker. Several calls since the last time count
    /// as one.
    ///
    /// # Errors
    /// When the pipe cannot be read any more.
    pub async fn woken(&self) -> io::Result<()> {
        let mut calls = [0; 256];
        loop {
            self.wakes.readable().await?;
            match self.wakes.try_read(&mut calls) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

/// The files of a worker in the directory.
#[derive(Clone, Debug)]
struct Paths {
    /// A byte that is written here wakes the worker.
    pipe: PathBuf,
    /// The socket that workers of earlier releases use instead of the pipe.
    socket: PathBuf,
    /// Held while the worker lives, and while the pipe is made and removed.
    lock: PathBuf,
}

/// Held while a dead worker's work is taken over, so that only one process does so.
#[derive(Debug)]
pub struct Inheritance {
    _lock: File,
    paths: Paths,
}

impl Workers {
    /// Makes a handle for the workers that keep their locks in `dir`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    fn paths(&self, worker: &WorkerId) -> Paths {
        let path = |kind: &str| self.dir.join(format!("{worker}.{kind}"));
        Paths {
            pipe: path("wake"),
            socket: path("sock"),
            lock: path("lock"),
        }
    }

    /// Returns every worker that has a file here, dead or alive. A worker may die before the store
    /// has its name, or after the store deleted it.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn traces(&self) -> io::Result<Vec<WorkerId>> {
        let mut workers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str());
            workers.extend(name.map(|name| WorkerId::from(name.to_owned())));
        }
        Ok(workers)
    }

    /// Declares this worker alive until the value is dropped or the process dies.
    ///
    /// # Errors
    /// When the lock or the pipe cannot be made.
    pub fn declare(&self, worker: &WorkerId) -> io::Result<Alive> {
        let paths = self.paths(worker);
        for _ in 0..DECLARE_TRIES {
            // A process that clears up may have taken the new file for a dead worker's. Then the
            // file is already removed, or is about to be.
            let Some(lock) = locked(&paths.lock)?.filter(|lock| is_at(lock, &paths.lock)) else {
                continue;
            };
            platform::make_pipe(&paths.pipe)?;
            let wakes = pipe::OpenOptions::new().open_receiver(&paths.pipe)?;
            let open = pipe::OpenOptions::new().open_sender(&paths.pipe)?;
            return Ok(Alive {
                wakes,
                _open: open,
                _lock: lock,
                paths,
            });
        }
        Err(io::Error::other("the new worker's lock is held"))
    }

    /// Takes the lock of a worker if its process is dead. Returns `None` if the process lives, or
    /// if another process is taking over its work.
    ///
    /// # Errors
    /// When its lock cannot be looked at.
    pub fn inherit(&self, worker: &WorkerId) -> io::Result<Option<Inheritance>> {
        let paths = self.paths(worker);
        Ok(locked(&paths.lock)?.map(|lock| Inheritance { _lock: lock, paths }))
    }

    /// Wakes another worker. If that worker is dead, the process that takes over its work finds the
    /// message.
    pub fn wake(&self, worker: &WorkerId) {
        let paths = self.paths(worker);
        let _gone = match call(&paths.pipe) {
            Err(Errno::NOENT) => call_socket(&paths.socket),
            // A full pipe already holds enough calls.
            result => result.map_err(io::Error::from),
        };
    }
}

/// Writes a byte into a pipe that has a reader.
fn call(pipe: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let pipe = rustix::fs::open(pipe, flags, Mode::empty())?;
    rustix::io::write(pipe, b"!").map(drop)
}

fn call_socket(socket: &Path) -> io::Result<()> {
    let from = UnixDatagram::unbound()?;
    from.set_nonblocking(true)?;
    from.send_to(b"!", socket).map(drop)
}

impl Drop for Alive {
    fn drop(&mut self) {
        remove(&self.paths);
    }
}

impl Inheritance {
    /// Removes the dead worker's files.
    pub fn complete(self) {
        remove(&self.paths);
    }
}

/// Removes a worker's files, the lock last: as long as the lock exists and is held, no process
/// makes a new pipe.
fn remove(paths: &Paths) {
    for path in [&paths.pipe, &paths.socket, &paths.lock] {
        let _gone = fs::remove_file(path);
    }
}

/// Whether `file` is still the file at `path`. Another process may have removed or replaced it.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (opened, there) = (
        file.metadata().map(identity),
        fs::metadata(path).map(identity),
    );
    matches!((opened, there), (Ok(opened), Ok(there)) if opened == there)
}

/// Takes the lock, if no process holds it.
pub(crate) fn locked(path: &Path) -> io::Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a path as long as a home's may be.
    fn deep() -> (tempfile::TempDir, Workers) {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("d".repeat(200)).join("pumps");
        let workers = Workers::new(dir).expect("a directory");
        (folder, workers)
    }

    #[tokio::test]
    async fn calls_reach_a_worker_in_a_deep_folder_and_are_one() {
        let (_folder, workers) = deep();
        let worker = WorkerId::new();
        let alive = workers.declare(&worker).expect("declared");
        for _ in 0..100_000 {
            workers.wake(&worker);
        }
        let mut heard = 0;
        while tokio::time::timeout(std::time::Duration::from_millis(50), alive.woken())
            .await
            .is_ok()
        {
            heard += 1;
        }
        // A full pipe takes no more bytes, and blocks no caller.
        assert!((1..1_000).contains(&heard), "{heard}");
        workers.wake(&worker);
        alive.woken().await.expect("it hears on");
    }

    #[tokio::test]
    async fn what_a_worker_leaves_goes_with_it() {
        let (_folder, workers) = deep();
        let worker = WorkerId::new();
        let alive = workers.declare(&worker).expect("declared");
        assert!(
            workers.inherit(&worker).expect("looked at").is_none(),
            "it lives"
        );
        drop(alive);
        assert!(workers.traces().expect("read").is_empty());
        workers.wake(&worker);
    }

    /// A worker of an earlier release listens on a socket, and leaves it behind when it dies.
    #[tokio::test]
    async fn a_worker_with_a_socket_is_woken_and_inherited_from() {
        let folder = tempfile::tempdir().expect("a folder");
        let workers = Workers::new(folder.path().to_owned()).expect("a directory");
        let worker = WorkerId::new();
        let socket = UnixDatagram::bind(workers.paths(&worker).socket).expect("bound");
        workers.wake(&worker);
        assert_eq!(socket.recv(&mut [0; 8]).expect("a call"), 1);
        workers
            .inherit(&worker)
            .expect("looked at")
            .expect("dead")
            .complete();
        assert!(workers.traces().expect("read").is_empty());
    }
}
