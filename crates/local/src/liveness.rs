//! Who is alive: each process that runs work owns a *worker*, and holds a lock that the kernel lets
//! go of when the process dies.
//!
//! Others wake it through a named pipe beside that lock. A socket would do as well, but the path of
//! a socket has at most 107 bytes (103 on macOS), and homes are deeper than that.

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

/// How often a new worker's lock is tried before that is an error. Whoever holds it does so for the
/// blink of an eye. Ours.
const DECLARE_TRIES: u32 = 10_000;

/// The directory of the workers' locks and pipes.
#[derive(Clone, Debug)]
pub struct Workers {
    dir: PathBuf,
}

/// Held while a worker lives; its pipe is how other processes wake it.
#[derive(Debug)]
pub struct Alive {
    wakes: pipe::Receiver,
    /// As long as somebody has it open for writing, a pipe has no end.
    _open: pipe::Sender,
    _lock: File,
    paths: Paths,
}

impl Alive {
    /// Resolves when there is something to look at. Calls that came since it last did are one.
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

/// What a worker leaves in the directory.
#[derive(Clone, Debug)]
struct Paths {
    /// A byte written here wakes it.
    pipe: PathBuf,
    /// What workers of earlier releases have in the pipe's place.
    socket: PathBuf,
    /// Held while it lives, and while the pipe is made and removed.
    lock: PathBuf,
}

/// Held while a dead worker's work is taken over, so that only one process does.
#[derive(Debug)]
pub struct Inheritance {
    _lock: File,
    paths: Paths,
}

impl Workers {
    /// Workers that keep their locks in this directory.
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

    /// Every worker that has left a trace here, dead or alive: one may die before the store knows
    /// it, or after the store forgot it.
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
            // Who clears up after the dead may have taken the new file for a dead one's: then it
            // is, or is about to be, removed.
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

    /// Takes the place of a worker whose process is dead; `None` if it lives, or if somebody else
    /// is taking its place.
    ///
    /// # Errors
    /// When its lock cannot be looked at.
    pub fn inherit(&self, worker: &WorkerId) -> io::Result<Option<Inheritance>> {
        let paths = self.paths(worker);
        Ok(locked(&paths.lock)?.map(|lock| Inheritance { _lock: lock, paths }))
    }

    /// Wakes another worker. If it is gone, whoever inherits from it finds the message.
    pub fn wake(&self, worker: &WorkerId) {
        let paths = self.paths(worker);
        let _gone = match call(&paths.pipe) {
            Err(Errno::NOENT) => call_socket(&paths.socket),
            // If it is full, it has calls enough.
            result => result.map_err(io::Error::from),
        };
    }
}

/// Writes a byte into a pipe that somebody reads.
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
    /// The dead worker is no more.
    pub fn complete(self) {
        remove(&self.paths);
    }
}

/// The lock goes last: as long as it is there and held, nobody makes a new pipe.
fn remove(paths: &Paths) {
    for path in [&paths.pipe, &paths.socket, &paths.lock] {
        let _gone = fs::remove_file(path);
    }
}

/// Whether this open file is the one at that path, which somebody may have removed or made anew in
/// the meantime.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (opened, there) = (
        file.metadata().map(identity),
        fs::metadata(path).map(identity),
    );
    matches!((opened, there), (Ok(opened), Ok(there)) if opened == there)
}

/// The lock, if nobody holds it.
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

    /// A directory as deep as a home may be.
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
        // A full pipe takes no more, and holds up nobody who calls.
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

    /// A release before waits at a socket, and leaves that when it dies.
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
